#!/bin/bash
# redis.sh EDM TOOLS: a Redis server is filled with 600 MB and gives every value back.
. "$(dirname "$0")/lib.sh"

megabytes=$((600 * scale / 100))
socket=$dir/redis.sock
ping_redis() {
    [ "$(redis-cli -s "$socket" ping)" = PONG ]
}

start "$tools/watch_budget" --local="${local_mib}M" --out="$dir/redis.peak" -- "$edm" --mode=client \
    --local="${local_mib}M" --stats="$dir/redis.json" --log-file="$dir/redis.log" -- \
    redis-server --port 0 --unixsocket "$socket" --save "" --appendonly no --dir "$dir/tmp" \
    --logfile "$dir/server.log"
server=$!
wait_for 30 ping_redis || fail "no Redis"
/usr/bin/python3 "$here/redis_values.py" write $megabytes | redis-cli -s "$socket" --pipe >fill.log ||
    fail "filling"
grep -q '^errors: 0,' fill.log || fail "errors while filling"
say "filled: $(redis-cli -s "$socket" dbsize) values"
/usr/bin/python3 "$here/redis_values.py" read $megabytes "$socket" || fail "reading back"
redis-benchmark -s "$socket" -q -n $((200 * scale)) -r 1000000 -d 1000 -t set,get >bench.log ||
    fail "redis-benchmark"
redis-cli -s "$socket" shutdown nosave
wait $server || fail "redis-server ended with $?"
must_have_paged redis
