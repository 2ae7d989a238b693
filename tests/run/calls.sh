#!/bin/bash
# calls.sh EDM TOOLS [OPTIONS]: each call that changes memory, on memory that is in the store or on its
# way there and back, does what it does natively. OPTIONS go to calls.
. "$(dirname "$0")/lib.sh"

"$tools/calls" "$@" >native 2>native.err || fail "natively: $(cat native.err)"
# The least budget there is: everything the program uses can be pushed out of it quickly.
"$edm" --mode=client --local=16M --stats="$dir/calls.json" --log-file="$dir/calls.log" -- \
    "$tools/calls" --ballast=17 "$@" >out 2>err || fail "$(tail -n 1 out), then: $(cat err)"
diff native out || fail "other lines than natively"
[ "$(figure calls pages_put)" -gt 1000 ] || fail "few pages went out"
[ "$(figure calls pages_got)" -gt 1000 ] || fail "few pages came back"
cat err
