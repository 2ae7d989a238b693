#!/bin/bash
# bgsave.sh EDM TOOLS: a Redis server saves itself (BGSAVE, BGREWRITEAOF: both fork) while it is being
# written to, at a budget far below its need. What it saved is loaded again natively.
. "$(dirname "$0")/lib.sh"

serve() {
    local name=$1
    shift
    "$@" redis-server --port 0 --unixsocket "$dir/$name.sock" --save "" --appendonly no --dir "$dir" \
        --logfile "$dir/$name.server.log"
}
ask() {
    redis-cli -s "$dir/$1.sock" "${@:2}"
}
is_up() {
    [ "$(ask "$1" ping)" = PONG ]
}

serve paged setpriv --pdeathsig KILL -- "$edm" --mode=client --local=32M --stats="$dir/bgsave.json" \
    --log-file="$dir/bgsave.log" -- &
server=$!
started+=($server)
wait_for 30 is_up paged || fail "no Redis"
/usr/bin/python3 "$here/bgsave_load.py" "$dir/paged.sock" || fail "the load"
ask paged shutdown nosave
wait $server || fail "redis-server ended with $?"

serve plain setpriv --pdeathsig KILL -- &
started+=($!)
wait_for 30 is_up plain || fail "no Redis to load what was saved"
/usr/bin/python3 "$here/bgsave_load.py" "$dir/plain.sock" --check-saved || fail "what BGSAVE has saved"
ask plain shutdown nosave
sleep 0.2
start redis-server --port 0 --unixsocket "$dir/aof.sock" --save "" --appendonly yes --dir "$dir" \
    --logfile "$dir/aof.server.log"
wait_for 60 is_up aof || fail "no Redis to load the append-only file"
/usr/bin/python3 "$here/bgsave_load.py" "$dir/aof.sock" --check-aof || fail "the append-only file"
ask aof shutdown nosave
[ "$(figure bgsave forks)" -ge 2 ] || fail "it did not fork"
[ "$(figure bgsave pages_put)" -gt 1000 ] || fail "few pages went out"
[ "$(figure bgsave pages_got)" -gt 1000 ] || fail "few pages came back"
say "put $(figure bgsave pages_put) got $(figure bgsave pages_got) wall_s $(figure bgsave wall_s)"
