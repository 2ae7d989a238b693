#!/bin/bash
# verify.sh EDM TOOLS NSHARDS [OPTIONS]: the verifier at four times its budget, over NSHARDS DMS
# processes (0: the private DMS of edm). OPTIONS go to the verifier.
. "$(dirname "$0")/lib.sh"

nshards=$1
shift
seconds=$((${EDM_LONG:-0} == 1 ? 60 : 15))
for i in $(seq "$nshards"); do
    start_dms "dms$i"
done
watched verify "$tools/verify" --size="$((4 * local_mib))M" --threads=4 --seconds=$seconds --seed=$RANDOM \
    "$@" >out 2>err.log || fail "the verifier ended with $?"
grep -q '^verify: ok ' out || fail "the verifier said nothing"
[ ! -s err.log ] || fail "the verifier's standard error is not empty"
must_have_paged verify
[ "$(figure verify shards)" -eq $((nshards == 0 ? 1 : nshards)) ] || fail "number of shards"
# Pages were spread over all of them.
for i in $(seq "$nshards"); do
    size=$(du -sm "$dir/dms$i" | cut -f 1)
    [ "$size" -ge 1 ] || fail "nothing is on dms$i"
done
cat out
