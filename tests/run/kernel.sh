#!/bin/bash
# kernel.sh EDM TOOLS: system calls reach memory that is in the store as they do natively.
. "$(dirname "$0")/lib.sh"

"$tools/kernel" >native 2>native.err || fail "natively: $(cat native.err)"
"$edm" --mode=client --local=16M --stats="$dir/kernel.json" --log-file="$dir/kernel.log" -- \
    "$tools/kernel" --ballast=17 >out 2>err || fail "$(tail -n 1 out), then: $(cat err)"
diff native out || fail "other lines than natively"
[ "$(figure kernel pages_got)" -gt 1000 ] || fail "few pages came back"
cat out
