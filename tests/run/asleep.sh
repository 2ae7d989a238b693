#!/bin/bash
# asleep.sh EDM TOOLS: calls that sleep while the program is held back go on sleeping, and return what
# they would have returned.
. "$(dirname "$0")/lib.sh"

"$tools/asleep" --grow=16 >native || fail "natively it ended with $?"
"$edm" --mode=client --local=32M --stats="$dir/asleep.json" --log-file="$dir/asleep.log" -- \
    "$tools/asleep" >out 2>err || fail "ended with $?: $(cat err)"
diff native out || fail "other results than natively"
[ "$(figure asleep brakes)" -ge 5 ] || fail "it was hardly held back: $(figure asleep brakes) times"
cat out
