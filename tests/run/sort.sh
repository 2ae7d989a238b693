#!/bin/bash
# sort.sh EDM TOOLS: GNU sort -S 800M of a file of 600 MB gives the same as without EDM.
#
# sort follows a pointer for each line that it compares or prints: beyond the budget that is a fault a
# line, whatever pages are chosen. So the lines are long, and shorter with EDM_LONG=1.
. "$(dirname "$0")/lib.sh"

megabytes=$((600 * scale / 100))
buffer=$((800 * scale / 100))M
mean=$((${EDM_LONG:-0} == 1 ? 1000 : 6000))
/usr/bin/python3 "$here/lines.py" $megabytes $mean >in || fail "no data"
say "$(wc -l <in) lines, $(wc -c <in) bytes"
start sort -S $buffer --parallel=2 -T "$dir/tmp" in >native
natively=$!
watched sort /usr/bin/sort -S $buffer --parallel=2 -T "$dir/tmp" in >out || fail "sort ended with $?"
say "sorted under edm"
wait $natively || fail "sort"
say "sorted natively"
[ "$(sha256sum <native)" = "$(sha256sum <out)" ] || fail "the sorted files differ"
[ "$(wc -c <in)" = "$(wc -c <out)" ] || fail "the sorted file has another size"
must_have_paged sort
