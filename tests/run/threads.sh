#!/bin/bash
# threads.sh EDM TOOLS: hundreds of threads, cancelled, signalled, stopped, without their descriptors,
# on memory that is in the store.
. "$(dirname "$0")/lib.sh"

mkfifo "$dir/helper"
export THREADS_HELPER=$dir/helper

# help_once: what the program asks for through the fifo, and writes itself (kill and sleep).
help_once() {
    (sh "$dir/helper") &
    started+=($!)
}

help_once
"$tools/threads" >native 2>native.err || fail "natively: $(cat native.err)"
help_once
"$edm" --mode=client --local=16M --stats="$dir/threads.json" --log-file="$dir/threads.log" -- \
    "$tools/threads" --ballast=17 >out 2>err || fail "$(tail -n 1 out), then: $(cat err)"
diff native out || fail "other lines than natively"
grep -q '^ok stopped and continued' out || fail "nobody stopped it"
[ "$(figure threads pages_got)" -gt 1000 ] || fail "few pages came back"
cat out
