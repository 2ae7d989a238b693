#!/bin/bash
# meanwhile.sh EDM TOOLS: one thread forks while two others unmap and move memory that is outside.
. "$(dirname "$0")/lib.sh"

rounds=$((${EDM_LONG:-0} == 1 ? 2000 : 24))
"$tools/meanwhile" --rounds=5 >out || fail "natively"
"$tools/meanwhile" --rounds=1 --corrupt 2>err && fail "a wrong area was not found"
grep -q "not 0x" err || fail "another fault was found: $(cat err)"
# HOW MEANWHILE...: managed.
under_edm() {
    local how=$1
    shift
    "$edm" --mode=client --local=16M --stats="$dir/$how.json" --log-file="$dir/$how.log" \
        --log-level=debug -- "$@" >out 2>err || fail "$how: ended with $?: $(cat err)"
    grep "^meanwhile: ok" out || fail "$how: it said: $(cat out)"
    [ "$(figure "$how" pages_got)" -gt 1000 ] || fail "$how: few pages came back"
    # What this is about has happened: the child's own mappings have said how far it had gone along.
    settled=$(grep -c "changes made while it was forked$" "$how.log")
    say "$how: $settled times it was not sure"
}

under_edm handlers "$tools/meanwhile" --rounds=$rounds
[ "$settled" -gt 0 ] || fail "no fork was among changes"
under_edm call "$tools/meanwhile" --rounds=$rounds --clone --forking
[ "$settled" -gt 0 ] || fail "no fork was among changes"
under_edm onto_by_call "$tools/meanwhile" --rounds=$((rounds / 2)) --clone --onto
[ "$settled" -gt 0 ] || fail "no fork was among changes"
# Here the moves keep away from the forks.
under_edm onto "$tools/meanwhile" --rounds=$((rounds / 2)) --onto
namespace=(unshare --pid --fork --mount-proc)
if "${namespace[@]}" true 2>err; then
    under_edm namespace "${namespace[@]}" "$tools/meanwhile" --rounds=$((rounds / 2))
    [ "$settled" -gt 0 ] || fail "no fork was among changes"
else
    say "no pid namespaces here: $(cat err)"
fi
