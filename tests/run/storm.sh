#!/bin/bash
# storm.sh EDM TOOLS [OPTIONS]: random calls on memory from several threads, at four times the budget,
# against a model. OPTIONS go to storm. EDM_SEED repeats a run as far as the threads allow.
. "$(dirname "$0")/lib.sh"

seconds=$((${EDM_LONG:-0} == 1 ? 600 : 15))
seed=${EDM_SEED:-$RANDOM$RANDOM}
"$tools/storm" --seconds=5 --corrupt --seed="$seed" 2>err && fail "a wrong byte was not found"
grep -q "^storm: seed $seed: after .* 0x1, not 0" err || fail "another fault was found: $(cat err)"
"$tools/storm" --seconds=1 --seed="$seed" >out || fail "natively: seed $seed"
"$edm" --mode=client --local=16M --stats="$dir/storm.json" --log-file="$dir/storm.log" -- \
    "$tools/storm" --threads=4 --pages=4096 --seconds=$seconds --seed="$seed" "$@" >out 2>err ||
    fail "ended with $?: $(cat err) (seed $seed)"
grep "^storm: ok " out || fail "the storm said nothing"
[ "$(figure storm pages_put)" -gt 1000 ] || fail "few pages went out"
[ "$(figure storm pages_got)" -gt 1000 ] || fail "few pages came back"
