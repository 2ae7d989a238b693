#!/bin/bash
# postgres.sh BIN DIR ROWS: a PostgreSQL server is made in DIR and started, sorts, groups and joins ROWS rows in memory,
# runs pgbench, and is stopped. What is printed depends on ROWS alone. Not as root: PostgreSQL refuses.
set -eu
bin=$1
dir=$2
rows=$3
export LC_ALL=C PGHOST=$dir PGDATABASE=postgres PGUSER=edm

"$bin/initdb" -D "$dir/data" -U edm -A trust --no-sync >/dev/null
cat >>"$dir/data/postgresql.conf" <<CONF
listen_addresses = ''
unix_socket_directories = '$dir'
fsync = off
shared_buffers = 4MB
work_mem = 1GB
CONF
"$bin/pg_ctl" -D "$dir/data" -w -t 600 -l "$dir/server.log" start >/dev/null
trap '"$bin/pg_ctl" -D "$dir/data" -w -t 600 stop >/dev/null' EXIT
"$bin/psql" -X -q -A -t -v ON_ERROR_STOP=1 -v rows="$rows" <<'SQL'
CREATE TABLE t AS SELECT i, md5(i::text) AS h, (i::bigint * 7919) % 10007 AS k FROM generate_series(1, :rows) i;
SELECT md5(string_agg(h, '' ORDER BY h)) FROM t;
SELECT count(*), sum(c), md5(string_agg(k || ':' || c || ':' || m, ',' ORDER BY k))
    FROM (SELECT k, count(*) c, max(h) m FROM t GROUP BY k) g;
SELECT count(*), sum(a.i), md5(string_agg(a.h || b.i, '' ORDER BY a.i)) FROM t a JOIN t b ON a.h = md5(b.i::text);
SQL
"$bin/pgbench" -q -i -s 1 >/dev/null 2>&1
"$bin/pgbench" -n -c 4 -j 2 -t 25 >/dev/null 2>&1
"$bin/psql" -X -q -A -t -v ON_ERROR_STOP=1 <<'SQL'
SELECT count(*), sum(abalance) = (SELECT sum(tbalance) FROM pgbench_tellers),
    sum(abalance) = (SELECT sum(bbalance) FROM pgbench_branches), sum(abalance) = (SELECT sum(delta) FROM pgbench_history)
    FROM pgbench_accounts;
SELECT count(*) FROM pgbench_history;
SQL
