#!/bin/bash
# meanwhile.sh EDM TOOLS: one thread forks while another unmaps and moves memory that is outside.
. "$(dirname "$0")/lib.sh"

rounds=$((${EDM_LONG:-0} == 1 ? 2000 : 40))
"$tools/meanwhile" --rounds=5 >out || fail "natively"
"$tools/meanwhile" --rounds=1 --corrupt 2>err && fail "a wrong area was not found"
grep -q "not 0x" err || fail "another fault was found: $(cat err)"
"$edm" --mode=client --local=16M --stats="$dir/meanwhile.json" --log-file="$dir/meanwhile.log" \
    --log-level=debug -- "$tools/meanwhile" --rounds=$rounds >out 2>err ||
    fail "ended with $?: $(cat err)"
grep "^meanwhile: ok" out || fail "it said: $(cat out)"
[ "$(figure meanwhile pages_got)" -gt 1000 ] || fail "few pages came back"
# What this is about has happened: the child's own mappings have said how far it had gone along.
settled=$(grep -c "changes made while it was forked$" meanwhile.log)
say "$settled of $rounds were not sure"
[ "$settled" -gt $((rounds / 4)) ] || fail "$settled forks of $rounds were among changes"
