#!/bin/bash
# dropping.sh EDM TOOLS: what is given up with MADV_DONTNEED does not come back, however long the thread
# takes that drops it.
. "$(dirname "$0")/lib.sh"

# Without EDM, so that the program itself is right.
"$tools/dropping" --rounds=1 --megabytes=16 >out || fail "natively"
# Whether both are in memory at the same time is a matter of who runs when: until they were.
for i in 1 2 3 4 5 6 7 8; do
    "$edm" --mode=client --local=256M --stats="$dir/dropping.json" --log-file="$dir/dropping.log" -- \
        "$tools/dropping" >out 2>err || fail "ended with $?: $(cat err)"
    grep "^dropping: ok " out || fail "the program said nothing"
    [ "$(figure dropping pages_put)" -gt 1000 ] && exit 0
done
fail "few pages went out"
