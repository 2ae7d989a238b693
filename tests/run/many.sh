#!/bin/bash
# many.sh EDM TOOLS: a hundred processes within one small budget.
. "$(dirname "$0")/lib.sh"

seconds=$((${EDM_LONG:-0} == 1 ? 100 : 8))
# Their batches are more than the write-back takes at once.
"$edm" --mode=client --local=48M --stats="$dir/many.json" --log-file="$dir/many.log" -- \
    "$tools/many" --seconds=$seconds >out 2>err || fail "ended with $?: $(cat err)"
grep "^many: ok " out || fail "they said nothing"
[ "$(figure many pages_put)" -gt 1000 ] || fail "few pages went out"
[ "$(figure many pages_got)" -gt 1000 ] || fail "few pages came back"
