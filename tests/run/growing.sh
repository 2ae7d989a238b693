#!/bin/bash
# growing.sh EDM TOOLS: a mapping that grows in place while it is being taken over stays one mapping, and
# mremap() of it does not fail.
. "$(dirname "$0")/lib.sh"

# When neighbours that go were not reckoned with, some hundreds of 200,000 calls failed in every third run, and up
# to 86,548. A microsecond is left: now and then a run meets it, and then some tens of calls fail.
most_failed=5
never=1000
"$tools/growing" --calls=10000 >out || fail "natively"
grep -q " 0 failed$" out || fail "natively: $(cat out)"
best= worst=
for run in 1 2 3; do
    "$edm" --mode=client --local=24M --stats="$dir/growing.json" --log-file="$dir/growing.log" -- \
        "$tools/growing" >out 2>err || fail "ended with $?: $(cat err)"
    failed=$(sed -n 's/^growing: ok .* calls, \([0-9]*\) failed$/\1/p' out)
    [ -n "$failed" ] || fail "it said: $(cat out)"
    say "run $run: mremap failed $failed times"
    [ "${best:-$failed}" -lt "$failed" ] || best=$failed
    [ "${worst:-$failed}" -gt "$failed" ] || worst=$failed
done
# Before Linux 6.11 the kernel cannot be asked for one mapping.
if [ "$(printf '%s\n' 6.11 "$(uname -r)" | sort -V | head -n 1)" = 6.11 ]; then
    [ "$best" -le $most_failed ] || fail "mremap failed $best times at best"
    [ "$worst" -le $never ] || fail "mremap failed $worst times"
fi
