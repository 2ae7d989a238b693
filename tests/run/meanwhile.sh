#!/bin/bash
# meanwhile.sh EDM TOOLS: one thread forks while another unmaps and moves memory that is outside.
. "$(dirname "$0")/lib.sh"

rounds=$((${EDM_LONG:-0} == 1 ? 2000 : 24))
"$tools/meanwhile" --rounds=5 >out || fail "natively"
"$tools/meanwhile" --rounds=1 --corrupt 2>err && fail "a wrong area was not found"
grep -q "not 0x" err || fail "another fault was found: $(cat err)"
# HOW ROUNDS [OPTIONS]
under_edm() {
    local how=$1 rounds=$2
    shift 2
    "$edm" --mode=client --local=16M --stats="$dir/$how.json" --log-file="$dir/$how.log" \
        --log-level=debug -- "$tools/meanwhile" --rounds="$rounds" "$@" >out 2>err ||
        fail "$how: ended with $?: $(cat err)"
    grep "^meanwhile: ok" out || fail "$how: it said: $(cat out)"
    [ "$(figure "$how" pages_got)" -gt 1000 ] || fail "$how: few pages came back"
    # What this is about has happened: the child's own mappings have said how far it had gone along.
    settled=$(grep -c "changes made while it was forked$" "$how.log")
    say "$how: $settled of $rounds were not sure"
}

under_edm handlers "$rounds"
[ "$settled" -gt $((rounds / 4)) ] || fail "$settled forks of $rounds were among changes"
under_edm call "$rounds" --clone --forking
[ "$settled" -gt $((rounds / 4)) ] || fail "$settled forks of $rounds were among changes"
# Here the moves keep away from the forks.
under_edm onto $((rounds / 2)) --onto
