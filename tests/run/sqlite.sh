#!/bin/bash
# sqlite.sh EDM TOOLS: sqlite3 with a database of 500 MB in memory gives the same answers as without EDM.
. "$(dirname "$0")/lib.sh"

rows=$((9000 * scale))
cat >sql <<SQL
PRAGMA temp_store = memory;
CREATE TABLE t(id INTEGER PRIMARY KEY, k INTEGER, v TEXT);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < $rows)
INSERT INTO t SELECT i, (i * 2654435761) % 4294967296,
    printf('%0500d', i * 40503) FROM n;
CREATE INDEX t_k ON t(k);
UPDATE t SET v = substr(v, 1, 100) || 'changed' || substr(v, 108) WHERE id % 17 = 3;
DELETE FROM t WHERE id % 23 = 5;
SELECT count(*), sum(k), sum(length(v)), sum(id) FROM t;
SELECT sum(CAST(substr(v, -12) AS INTEGER)), sum(instr(v, 'changed')) FROM t;
SELECT sum(a.id * 31 + b.id) FROM t a JOIN t b ON b.k = (a.id * 2654435761) % 4294967296
    WHERE a.id % 10 = 1;
SELECT id, k, substr(v, -20) FROM t ORDER BY k LIMIT 20;
.sha3sum
PRAGMA page_count;
PRAGMA integrity_check;
SQL
start sh -c 'exec sqlite3 -batch :memory: <sql' >native 2>&1
natively=$!
watched sqlite sqlite3 -batch :memory: <sql >out 2>&1 || fail "sqlite3 ended with $?: $(tail -n 3 out)"
wait $natively || fail "sqlite3: $(cat native)"
say "native: $(tail -n 3 native | tr '\n' ' ')"
[ "$(tail -n 2 native | head -n 1)" -gt $((scale * 1200)) ] || fail "the database is too small"
cmp native out || fail "the answers differ"
must_have_paged sqlite
