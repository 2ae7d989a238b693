#!/bin/bash
# many.sh EDM TOOLS: a hundred processes within one small budget; and twenty of which nothing can leave.
. "$(dirname "$0")/lib.sh"

seconds=$((${EDM_LONG:-0} == 1 ? 100 : 8))
# Their batches are more than the write-back takes at once.
"$edm" --mode=client --local=48M --stats="$dir/many.json" --log-file="$dir/many.log" -- \
    "$tools/many" --seconds=$seconds >out 2>err || fail "ended with $?: $(cat err)"
grep "^many: ok " out || fail "they said nothing"
[ "$(figure many pages_put)" -gt 1000 ] || fail "few pages went out"
[ "$(figure many pages_got)" -gt 1000 ] || fail "few pages came back"

# What nothing can be taken from is not looked at all the time.
"$edm" --mode=client --local=32M --stats="$dir/file.json" --log-file="$dir/file.log" -- \
    "$tools/many" --processes=20 --pages=512 --seconds=8 --file >out 2>err ||
    fail "file: ended with $?: $(cat err)"
grep "^many: ok " out || fail "file: they said nothing"
looks=$(figure file looks)
say "$looks looks"
[ "$looks" -lt 500 ] || fail "file: $looks looks at mappings that did not change"

# What cannot be managed is more than the budget; the rest is still given some.
"$edm" --mode=client --local=32M --stats="$dir/beside.json" --log-file="$dir/beside.log" -- \
    "$tools/many" --processes=20 --pages=256 --beside=640 --seconds=4 >out 2>err ||
    fail "a file beside: ended with $?: $(cat err)"
grep "^many: ok " out || fail "a file beside: they said nothing"
[ "$(figure beside pages_got)" -gt 1000 ] || fail "a file beside: few pages came back"
given=$(sed -n 's/.* cannot be managed .*: it is given \([0-9]*\) MiB,.*/\1/p' beside.log)
say "given $given MiB"
[ "${given:-0}" -ge 40 ] || fail "a file beside: it was given no more than the budget"
