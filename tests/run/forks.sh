#!/bin/bash
# forks.sh EDM TOOLS [OPTIONS]: a tree of processes, each writing to what it has from its parent, at
# several times the budget, against a model. OPTIONS go to forks. EDM_SEED repeats a run as far as the
# threads allow.
. "$(dirname "$0")/lib.sh"

seed=${EDM_SEED:-$RANDOM$RANDOM}
rounds=$((${EDM_LONG:-0} == 1 ? 100 : 8))
"$tools/forks" --pages=1024 --corrupt --seed="$seed" 2>err && fail "a wrong byte was not found"
grep -q "area 3 page 5 word 0 is " err || fail "another fault was found: $(cat err)"
"$tools/forks" --pages=1024 --rounds=8 --seed="$seed" >out || fail "natively: seed $seed"
"$edm" --mode=client --local=16M --stats="$dir/forks.json" --log-file="$dir/forks.log" -- \
    "$tools/forks" --pages=8192 --rounds=$rounds --seed="$seed" "$@" >out 2>err ||
    fail "ended with $?: $(cat err) (seed $seed)"
[ "$(cat out)" = "forks: ok" ] || fail "it said: $(cat out) (seed $seed)"
[ "$(figure forks pages_put)" -gt 1000 ] || fail "few pages went out"
[ "$(figure forks pages_got)" -gt 1000 ] || fail "few pages came back"
[ "$(figure forks forks)" -gt 3 ] || fail "few forks (seed $seed)"
say "seed $seed: forks $(figure forks forks) put $(figure forks pages_put) got $(figure forks pages_got)" \
    "wall_s $(figure forks wall_s)"
