#!/bin/bash
# reuse.sh EDM TOOLS: what a program uses again and again stays in its memory although it reads more beside it, in
# order, than there is room for, and although it passes pages over: pages that were read ahead do not push out those
# that were asked for.
. "$(dirname "$0")/lib.sh"

"$edm" --mode=client --local=16M --stats="$dir/reuse.json" --log-file="$dir/reuse.log" -- "$tools/reuse" 10 12 20 ||
    fail "status $?"
faults=$(figure reuse faults.remote)
say "$faults faults, $(figure reuse pages_got) pages read"
# 245,760 uses of 2,560 hot pages, and 61,440 pages in order. Where both parts are taken to be hot, 55,000.
[ "$faults" -lt 20000 ] || fail "$faults faults: the hot part does not stay"

# 3,000 pages of a matrix of 13,500 are used for each column, and all columns lie in the same.
"$edm" --mode=client --local=24M --stats="$dir/columns.json" --log-file="$dir/columns.log" -- "$tools/columns" 3000 18432 20 ||
    fail "status $?"
got=$(figure columns pages_got)
say "columns: $(figure columns faults.remote) faults, $got pages read"
# Where what is passed over comes in, too, all of the matrix is read again for each column: 270,000.
[ "$got" -lt 60000 ] || fail "$got pages: what is passed over takes the place of what is used"
