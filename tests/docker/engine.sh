# shellcheck shell=bash
# Sourced by run.sh: a Docker engine of the test's own, below $work, reached by a Unix socket there
# and by nothing else. Two of them follow each other on the same data:
#
#   for building    in the host's network, without bridges and without touching its packet filter:
#                   what is built goes out through the host's network
#   for running     in a network namespace of its own, so that its bridges, addresses and packet
#                   filter are as Docker makes them and vanish with it

: "${work:?}"

engine_pid=

export DOCKER_HOST=unix://$work/socket
export DOCKER_CONFIG=$work/config
# The classic builder; the other one is a plugin that Debian 12 does not have.
export DOCKER_BUILDKIT=0

# engine_start build|run: returns 1, and leaves the end of the engine's log on standard error, where
# it does not start.
engine_start() {
    local in_namespace=() options=(--bridge=none --iptables=false --ip6tables=false
        --ip-forward=false)
    if [ "$1" = run ]; then
        in_namespace=(unshare --net sh -c 'ip link set lo up && exec "$@"' sh)
        options=()
    fi
    "${in_namespace[@]}" dockerd --data-root "$work/data" --exec-root "$work/exec" \
        --pidfile "$work/dockerd.pid" --host "$DOCKER_HOST" --group root "${options[@]}" \
        >"$work/dockerd-$1.log" 2>&1 &
    engine_pid=$!
    local tries
    for ((tries = 0; tries < 120; tries++)); do
        if docker version >/dev/null 2>&1; then
            return 0
        fi
        kill -0 $engine_pid 2>/dev/null || break
        sleep 0.25
    done
    tail -n 5 "$work/dockerd-$1.log" >&2
    engine_stop
    return 1
}

engine_stop() {
    if [ -z "$engine_pid" ]; then
        return 0
    fi
    local tries
    kill $engine_pid 2>/dev/null || true
    for ((tries = 0; tries < 120; tries++)); do
        kill -0 $engine_pid 2>/dev/null || break
        sleep 0.25
    done
    kill -KILL $engine_pid 2>/dev/null || true
    wait $engine_pid 2>/dev/null || true
    engine_pid=
}

# Directories that an engine makes outside its own: its containers' control groups, and one in /run.
list_traces() {
    find /sys/fs/cgroup -mindepth 1 -maxdepth 2 -type d -name docker 2>/dev/null || true
    find /run/docker -maxdepth 0 2>/dev/null || true
}

# After the last engine: mounts it left, which it does when it was killed, and those directories,
# but for the ones that were there before (another engine's).
engine_clean() {
    local path
    awk -v below="$work/" 'index($2, below) == 1 { print $2 }' /proc/mounts | sort -r |
        while read -r path; do
            umount -l "$path" || true
        done
    comm -13 "$work/traces" <(list_traces | sort) |
        while read -r path; do
            find "$path" -depth -type d -exec rmdir {} + 2>/dev/null || true
        done
}

list_traces | sort >"$work/traces"
