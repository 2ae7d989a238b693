#!/bin/bash
# deep.sh EDM TOOLS: a program of which nothing but its first thread's stack is large stays within its budget,
# and so does its child; where the stack may not grow any more it ends as it does natively.
. "$(dirname "$0")/lib.sh"

ulimit -s $((100 << 10)) || fail "the stack's limit cannot be set"
[ "$("$tools/deep" 60)" = ok ] || fail "natively"
"$edm" --mode=client --local=16M --stats="$dir/deep.json" --log-file="$dir/deep.log" -- "$tools/deep" 60 >out ||
    fail "status $?"
[ "$(cat out)" = ok ] || fail "not ok"
[ "$(figure deep peak_managed_bytes)" -gt $((60 << 20)) ] || fail "the stack was not managed"
# Parent and child, who share most of it.
[ "$(figure deep peak_resident_bytes)" -lt $((36 << 20)) ] || fail "$(figure deep peak_resident_bytes) bytes were resident"

"$edm" --mode=client --local=16M --log-file="$dir/over.log" -- "$tools/deep" 120 2>/dev/null
status=$?
[ $status = $((128 + 11)) ] || fail "status $status where the stack is full"
