#!/bin/bash
# The image and the compose file, for real: makes a base image, builds EDM's image on it, runs
# docker-compose.yml as it stands, and again with a DMS restarted in the middle; checks rights,
# health, results and that every DMS took part. Installs what it needs, has an engine of its own and
# leaves nothing behind but $EDM_CACHE (by default /var/cache/edm), which makes the next run
# quicker, and the packages.
#
# Exit status 77: this machine cannot do it; the last line says why.
set -eu -o pipefail

# Debian's programs before others of the same name.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin:$PATH

cd "$(dirname "$0")/../.."

cache=${EDM_CACHE:-/var/cache/edm}
image_max_mb=110
local_mb=256
# As EDM promises: 16 MiB or 5 %, whichever is more.
slack_mb=16

say() {
    echo "docker-test: $*"
}

skip() {
    say "skipped: $*" >&2
    exit 77
}

fail() {
    say "FAILED: $*" >&2
    exit 1
}

[ "$(id -u)" -eq 0 ] || skip "needs root, to run a Docker engine"
[ -e /usr/bin/apt-get ] || skip "needs apt, to install Docker and make a Debian base image"
[ -e /dev/userfaultfd ] || skip "this kernel has no /dev/userfaultfd"

work=$(mktemp -d /tmp/edm-docker.XXXXXX)
. tests/docker/engine.sh

compose() {
    # The newer spelling is a plugin that not every Debian has.
    if docker compose version >/dev/null 2>&1; then
        docker compose --project-name edm-test "$@"
    else
        docker-compose --project-name edm-test "$@"
    fi
}

clean_up() {
    local status=$?
    trap - EXIT
    trap '' INT TERM HUP
    if [ $status -ne 0 ] && [ $status -ne 77 ] && [ -s "$work/up.log" ]; then
        tail -n 60 "$work/up.log" >&2
    fi
    if [ -n "$engine_pid" ]; then
        compose down --volumes --timeout 5 >"$work/down.log" 2>&1 || cat "$work/down.log" >&2
    fi
    engine_stop
    engine_clean
    rm -rf --one-file-system "$work"
    exit $status
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

install_packages() {
    local package missing=()
    # docker-cli is a package of its own from Debian 13 on.
    for package in docker.io docker-cli docker-compose debootstrap debian-archive-keyring \
        iproute2 python3-minimal; do
        if [ "$(dpkg-query -W -f='${db:Status-Status}' $package 2>/dev/null)" != installed ]; then
            missing+=("$package")
        fi
    done
    # Where docker.io brings the command, there is no docker-cli.
    if [ "${missing[*]}" = docker-cli ] && [ -x /usr/bin/docker ]; then
        return 0
    fi
    say "installing ${missing[*]}"
    if ! apt-get update >"$work/apt.log" 2>&1; then
        tail -n 20 "$work/apt.log" >&2
        skip "apt-get update fails"
    fi
    if ! apt-cache show docker-cli 2>/dev/null | grep -q '^Package: docker-cli'; then
        mapfile -t missing < <(printf '%s\n' "${missing[@]}" | grep -v '^docker-cli$')
    fi
    if ! DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        "${missing[@]}" >"$work/apt.log" 2>&1; then
        tail -n 20 "$work/apt.log" >&2
        skip "cannot install ${missing[*]}"
    fi
}

build_image() {
    local tarball status=0
    tarball=$cache/base-$(dpkg --print-architecture).tar
    nice tests/docker/base.sh "$tarball" || status=$?
    [ $status -ne 77 ] || skip "no base image"
    [ $status -eq 0 ] || fail "cannot make the base image"
    engine_start build || skip "the Docker engine does not start here"
    docker import "$tarball" edm-test-base >"$work/import.log"
    say "building the image"
    EDM_BASE=edm-test-base compose -f docker-compose.yml -f tests/docker/build.yml build client \
        >"$work/up.log" 2>&1 || fail "the image does not build"
    engine_stop
}

check_image() {
    local size_mb
    size_mb=$(docker image inspect --format '{{.Size}}' edm | awk '{ printf "%.0f", $1 / 1e6 }')
    say "image: $size_mb MB, of it $(docker image inspect --format '{{.Size}}' edm-test-base |
        awk '{ printf "%.0f", $1 / 1e6 }') MB Debian's"
    [ "$size_mb" -le $image_max_mb ] || fail "the image is larger than $image_max_mb MB"
    [ "$(docker image inspect --format '{{.Config.User}}' edm)" = edm ] ||
        fail "the image's user is not edm"
    docker run --rm --network none --entrypoint sh edm -c \
        '! command -v gcc && ! command -v cmake && ! ls /var/lib/apt/lists/* 2>/dev/null' ||
        fail "the image has in it what only the build needs"
    docker image inspect --format '{{.Config.Healthcheck.Test}}' edm | grep -q 'CMD edm-health' ||
        fail "the image has no health check"
    # An answer that cannot come must not be taken for health.
    if docker run --rm --network none --entrypoint edm-health edm >"$work/health.log"; then
        fail "edm-health is content where no DMS is"
    fi
}

# By the label that both spellings of compose give: docker-compose itself takes a second to answer.
container() {
    docker ps --all --quiet --no-trunc --filter "label=com.docker.compose.service=$1"
}

state() {
    docker inspect --format "$2" "$(container "$1")" 2>/dev/null || true
}

# wait_until SECONDS WHAT COMMAND...
wait_until() {
    local deadline=$((SECONDS + $1)) what=$2
    shift 2
    until "$@"; do
        [ $SECONDS -lt $deadline ] || fail "$what: not in time"
        sleep 0.3
    done
}

is_healthy() {
    [ "$(state "$1" '{{.State.Health.Status}}')" = healthy ]
}

is_running() {
    [ "$(state "$1" '{{.State.Running}}')" = true ]
}

has_stopped() {
    [ "$(state "$1" '{{.State.Running}}')" = false ]
}

has_ended() {
    ! kill -0 "$1" 2>/dev/null
}

is_running_since_another_time() {
    local started
    started=$(state "$1" '{{.State.StartedAt}}')
    [ -n "$started" ] && [ "$started" != "$2" ]
}

# What a DMS says of itself: pages it holds, requests since its start; 0 while it does not answer.
number_of() {
    docker exec "$(container "$1")" edm-health 2>/dev/null |
        awk -v what="$2" '{ for (i = 1; i < NF; i++) if ($i == what) n = $(i + 1) }
            END { print n + 0 }'
}

has_at_least() {
    [ "$(number_of "$1" "$2")" -ge "$3" ]
}

# Of the first process of a container, from the host's /proc.
process_field() {
    awk -v field="$2:" '$1 == field { print $2 }' "/proc/$(state "$1" '{{.State.Pid}}')/status"
}

check_rights() {
    local service=$1 uid=$2 capabilities=$3
    [ "$(process_field "$service" Uid)" = "$uid" ] || fail "$service does not run as user $uid"
    [ "$(process_field "$service" CapEff)" = "$capabilities" ] ||
        fail "$service has the capabilities $(process_field "$service" CapEff), not $capabilities"
    [ "$(process_field "$service" NoNewPrivs)" = 1 ] || fail "$service may gain rights"
    [ "$(state "$service" '{{.HostConfig.ReadonlyRootfs}}')" = true ] ||
        fail "$service can write to its root file system"
}

# CAP_SYS_PTRACE is bit 19.
check_all_rights() {
    local service
    for service in dms-1 dms-2 dms-3; do
        check_rights $service 7600 0000000000000000
    done
    check_rights client 0 0000000000080000
    say "rights: each DMS is user 7600 without capabilities, the client has SYS_PTRACE alone"
}

check_health() {
    local service
    for service in dms-1 dms-2 dms-3; do
        wait_until 30 "$service healthy" is_healthy $service
    done
    say "health: three of three DMS containers are healthy"
}

# A number of the client's statistics, of those of all its processes together.
statistic() {
    docker cp "$(container client):/results/stats.json" - | tar -xOf - |
        /usr/bin/python3 -c 'import json, sys
value = json.load(sys.stdin)[sys.argv[1]]
if type(value) is not int:
    sys.exit(f"{sys.argv[1]} is {value}")
print(value)' "$1" || fail "no statistic $1"
}

check_result() {
    local status peak put
    status=$(state client '{{.State.ExitCode}}')
    docker logs "$(container client)" >"$work/client.log" 2>&1
    if [ "$status" != 0 ]; then
        cat "$work/client.log" >&2
        fail "the client ended with $status"
    fi
    grep '^verify: ok' "$work/client.log" || fail "no verified result in the client's log"
    put=$(statistic pages_put)
    peak=$(statistic peak_resident_bytes)
    say "statistics: $put pages put, peak resident $((peak >> 20)) MiB of $local_mb"
    [ "$put" -gt 0 ] || fail "no page went out"
    [ "$peak" -le $(((local_mb + slack_mb) << 20)) ] || fail "the budget was not kept"
}

# What EDM is for: without it the compose file's program is killed for want of memory.
check_native_fails() {
    local status=0 limit
    limit=$(compose config | sed -nE "s/^ *mem_limit: ['\"]?([0-9]+[a-z]?).*/\1/p")
    [ -n "$limit" ] || fail "the compose file gives the client no mem_limit"
    docker run --rm --network none --memory "$limit" --memory-swap "$limit" \
        --entrypoint edm-verify edm --size=1G --threads=4 --seconds=3 --seed=1 \
        >"$work/native.log" 2>&1 || status=$?
    [ $status -eq 137 ] || fail "without EDM the program ended with $status in $limit, not killed"
    say "without EDM the program is killed at $limit"
}

# The one command of the compose file, as it stands.
run_as_documented() {
    local up service
    say "first run: up --exit-code-from client"
    compose up --no-build --exit-code-from client >"$work/up.log" 2>&1 &
    up=$!
    wait_until 60 "client" is_running client
    check_health
    check_all_rights
    for service in dms-1 dms-2 dms-3; do
        wait_until 60 "pages at $service" has_at_least $service pages 1000
    done
    say "pages held: dms-1 $(number_of dms-1 pages), dms-2 $(number_of dms-2 pages)," \
        "dms-3 $(number_of dms-3 pages)"
    wait_until 180 "the end of the first run" has_ended $up
    wait $up || fail "up --exit-code-from client ended with $?"
    check_result
    compose down --volumes --timeout 5 >"$work/down.log" 2>&1
}

# On the DMSs of the compose file, with nothing but a device node that its group may open. The
# host's own node is left as it is.
run_without_root() {
    local major minor
    IFS=: read -r major minor </sys/class/misc/userfaultfd/dev
    mknod --mode 0660 "$work/userfaultfd" c "$major" "$minor"
    chgrp 7600 "$work/userfaultfd"
    timeout 120 docker run --rm --network edm-test_pages --user edm \
        --device "$work/userfaultfd:/dev/userfaultfd" \
        --cap-drop ALL --security-opt no-new-privileges --read-only --no-healthcheck \
        --tmpfs /tmp:exec,mode=1777,size=16m edm --mode=client --local=64M --log-file=- \
        --dms=tcp://dms-1:7600,tcp://dms-2:7600,tcp://dms-3:7600 \
        -- edm-verify --size=256M --threads=2 --seconds=3 --seed=2 >"$work/up.log" 2>&1 ||
        fail "a client that is not root ended with $?"
    grep '^verify: ok' "$work/up.log" || fail "no verified result of a client that is not root"
    say "a client that is not root and has no capability works"
}

# Not by up --exit-code-from, which ends everything as soon as one container stops.
run_with_restart() {
    local before
    say "second run: dms-2 is restarted in the middle"
    compose up --no-build --detach >"$work/up.log" 2>&1
    wait_until 60 "client" is_running client
    wait_until 60 "pages at dms-2" has_at_least dms-2 pages 1000
    before=$(state dms-2 '{{.State.StartedAt}}')
    docker restart --time 2 "$(container dms-2)" >"$work/restart.log"
    is_running_since_another_time dms-2 "$before" || fail "dms-2 was not restarted"
    wait_until 30 "requests at dms-2 after its restart" has_at_least dms-2 requests 1000
    is_running client || fail "the client had ended before dms-2 was back"
    wait_until 30 "dms-2 healthy again" is_healthy dms-2
    say "dms-2 is back: $(number_of dms-2 pages) pages, $(number_of dms-2 requests) requests"
    wait_until 180 "the end of the second run" has_stopped client
    check_result
    run_without_root
    compose down --volumes --timeout 5 >"$work/down.log" 2>&1
}

# All in one function, called last: after an error in an arithmetic expression the shell leaves what
# it is in and goes on behind it, whatever set -e says.
main() {
    install_packages
    build_image
    engine_start run || skip "the Docker engine does not start in a network namespace of its own"
    check_image
    check_native_fails
    run_as_documented
    run_with_restart
    say "passed in $SECONDS s"
}

main
