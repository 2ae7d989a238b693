#!/bin/bash
# verify_self.sh EDM TOOLS: the tools find what they are for. Each thing that can be wrong with a page
# is made wrong, and must be found; a program over its budget must be seen.
. "$(dirname "$0")/lib.sh"

"$tools/verify" --self-test || fail "the verifier missed something"
"$tools/verify" --size=64M --seconds=1 --small --churn | grep '^verify: ok pages=16384 ' ||
    fail "the verifier is wrong by itself"
"$tools/watch_budget" --local=64M --out=peak -- sh -c "$tools/touch --size=150M; exit 3"
[ $? -eq 120 ] || fail "150M did not break a budget of 64M"
"$tools/watch_budget" --local=140M --out=peak -- sh -c "$tools/touch --size=150M; exit 3"
[ $? -eq 3 ] || fail "150M broke a budget of 140M and 16M more"
cat peak
"$tools/watch_budget" --local=64M -- true
[ $? -eq 121 ] || fail "a command without a program was watched"
