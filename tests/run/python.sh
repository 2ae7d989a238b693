#!/bin/bash
# python.sh EDM TOOLS [PYTHON [--collect]]: Python builds and hashes 1 GB of small objects and comes to the
# same hash as without EDM. PYTHON may be a wrapper that execs the real one.
. "$(dirname "$0")/lib.sh"

python=${1:-/usr/bin/python3}
collect=${2:-}
megabytes=$((1000 * scale / 100))
start /usr/bin/python3 "$here/objects.py" $megabytes >native
natively=$!
watched python "$python" "$here/objects.py" $megabytes $collect >out || fail "$python ended with $?"
wait $natively || fail "python"
say "native: $(cat native)"
cmp native out || fail "the hashes differ: $(cat out)"
must_have_paged python
[ "$(figure python peak_managed_bytes)" -gt $((megabytes * 800000)) ] || fail "it was not that large"
