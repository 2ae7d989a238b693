#!/bin/bash
# verify_kill.sh EDM TOOLS: one of two DMSs is killed with -9 again and again while the verifier runs,
# and started again on its pages; the verifier must not notice but by the time it takes.
. "$(dirname "$0")/lib.sh"

nkills=$((${EDM_LONG:-0} == 1 ? 12 : 4))
seconds=$((nkills * 5))
start_dms other
start_dms victim
victim=$dms
port=$dms_port
start "$tools/watch_budget" --local="${local_mib}M" --out="$dir/verify.peak" -- \
    "$edm" --mode=client --dms="$endpoints" --local="${local_mib}M" --stats="$dir/verify.json" \
    --log-file="$dir/verify.log" -- \
    "$tools/verify" --size="$((4 * local_mib))M" --threads=4 --seconds=$seconds --seed=$RANDOM --churn \
    >out 2>err.log
client=$!
for i in $(seq $nkills); do
    sleep 3
    kill -0 $client 2>/dev/null || break
    kill -KILL "$victim"
    wait "$victim" 2>/dev/null
    # Sometimes long enough that the client must wait.
    sleep $((i % 2))
    run_dms victim "$port"
    victim=$dms
done
say "killed the DMS $i times"
wait $client || fail "the verifier ended with $?"
grep -q '^verify: ok ' out || fail "the verifier said nothing"
must_have_paged verify
[ "$(figure verify retries)" -gt 0 ] || fail "nothing was tried again: the kills hit nobody"
cat out
