#!/bin/bash
# below.sh EDM TOOLS: programs that fit their budget ask the store for nothing and meet no fault of EDM's.
. "$(dirname "$0")/lib.sh"

local_mib=512
start_dms dms
/usr/bin/python3 "$here/lines.py" 60 >in || fail "no data"
watched sort /usr/bin/sort -S 100M in >/dev/null || fail "sort: $?"
must_be_native sort
watched python /usr/bin/python3 "$here/objects.py" 100 >/dev/null || fail "python: $?"
must_be_native python
watched wrapped python3 "$here/objects.py" 10 >/dev/null || fail "the python3 of PATH: $?"
must_be_native wrapped
echo "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000)
      SELECT count(*), max(length(s)) FROM (SELECT printf('%0300d', i) AS s FROM n ORDER BY s);" |
    watched sqlite sqlite3 :memory: >out || fail "sqlite3: $?"
[ "$(cat out)" = "100000|300" ] || fail "sqlite3 said $(cat out)"
must_be_native sqlite
watched verify "$tools/verify" --size=256M --seconds=2 --churn >/dev/null || fail "verify: $?"
must_be_native verify
watched threads "$tools/touch" --size=256M --threads=8 --block=100K >/dev/null || fail "touch: $?"
must_be_native threads
