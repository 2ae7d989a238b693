# lib.sh: for the tests here, which are called TEST EDM TOOLS [ARGS]: EDM is the binary, TOOLS the
# directory of verify, touch and watch_budget. Each test has a directory of its own; it goes when the
# test ends, and all processes that were started here end with the test, whatever ends it.
#
# EDM_SCALE (percent, default 100) makes programs and budgets smaller, for slow builds of EDM.
# EDM_LONG=1 makes some tests run longer.

set -u -o pipefail

edm=$(realpath "$1")
tools=$(realpath "$2")
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
shift 2

scale=${EDM_SCALE:-100}
# What the real programs get, in MiB.
local_mib=$((256 * scale / 100))
export LC_ALL=C PYTHONHASHSEED=0
unset PYTHONMALLOC MALLOC_ARENA_MAX GLIBC_TUNABLES

started=()
dir=$(mktemp -d "${TMPDIR:-/tmp}/edm-run-XXXXXX")
chmod 755 "$dir"
mkdir "$dir/tmp"
export TMPDIR=$dir/tmp
cd "$dir" || exit 1

clean_up() {
    local status=$? pid
    trap - EXIT
    for pid in ${started[@]+"${started[@]}"}; do
        kill -KILL "$pid" 2>/dev/null
    done
    wait 2>/dev/null
    # The guard of an edm that was killed may still be at work there.
    rm -rf "$dir" 2>/dev/null || { sleep 1 && rm -rf "$dir"; }
    exit $status
}
trap clean_up EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM
# For when we are killed and cannot: a process that is not ours.
(setsid sh -c 'tail --pid=$1 -f /dev/null; sleep 3; rm -rf "$2"' sh $$ "$dir" \
    </dev/null >/dev/null 2>&1 &)

say() {
    echo "$(date +%T) $*"
}

fail() {
    local log
    echo "FAILED: $*"
    for log in "$dir"/*.log; do
        if [ -s "$log" ]; then
            echo "--- the end of $(basename "$log")"
            tail -n 20 "$log"
        fi
    done
    exit 1
}

skip() {
    echo "skipped: $*"
    exit 77
}

# Starts a command in the background; its pid is then in $!.
start() {
    setpriv --pdeathsig KILL -- "$@" &
    started+=($!)
}

# One free TCP port.
free_port() {
    /usr/bin/python3 -c 'import socket
s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# Waits up to SECONDS for a command to succeed.
wait_for() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@" 2>/dev/null; do
        [ $SECONDS -lt $deadline ] || return 1
        sleep 0.05
    done
}

port_answers() {
    (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

# run_dms NAME PORT: starts (or starts again) a DMS; its pages are in $dir/NAME. Its pid is in $dms.
run_dms() {
    start "$edm" --mode=dms --listen="tcp://127.0.0.1:$2" --data="$dir/$1" --log-file="$dir/$1.log" \
        2>>"$dir/$1.err.log"
    dms=$!
}

# start_dms NAME: on a free port. Adds it to $endpoints.
endpoints=
start_dms() {
    local port attempt
    for attempt in 1 2 3 4 5; do
        port=$(free_port)
        run_dms "$1" "$port"
        if wait_for 20 dms_is_up "$dms" "$port"; then
            if kill -0 "$dms" 2>/dev/null; then
                endpoints=$endpoints${endpoints:+,}tcp://127.0.0.1:$port
                dms_port=$port
                return
            fi
        fi
        # Somebody was faster at that port.
        kill -KILL "$dms" 2>/dev/null
    done
    fail "no DMS: $(cat "$dir/$1.err.log")"
}

# Answers, or has ended.
dms_is_up() {
    port_answers "$2" || ! kill -0 "$1" 2>/dev/null
}

# watched NAME PROG ARGS: runs PROG under edm on $endpoints (a private DMS if there are none) with
# $local_mib, watched from outside. Its figures are in NAME.json, its log in NAME.log.
watched() {
    local name=$1 command
    shift
    command=("$tools/watch_budget" --local="${local_mib}M" --out="$dir/$name.peak" -- "$edm" --mode=client
             --local="${local_mib}M" --stats="$dir/$name.json" --log-file="$dir/$name.log")
    if [ -n "$endpoints" ]; then
        command+=(--dms="$endpoints")
    fi
    "${command[@]}" -- "$@"
}

# figure NAME KEY[.KEY]: a figure from NAME.json.
figure() {
    /usr/bin/python3 -c 'import json, sys
value = json.load(open(sys.argv[1]))
for key in sys.argv[2].split("."):
    value = value[key]
print(value)' "$dir/$1.json" "$2" || fail "no figure $2 of $1"
}

# One line about a run, for people.
report() {
    say "$1: $(cat "$dir/$1.peak") wall_s=$(figure "$1" wall_s) put=$(figure "$1" pages_put)" \
        "got=$(figure "$1" pages_got) remote=$(figure "$1" faults.remote)" \
        "p50=$(figure "$1" fault_us.p50) p99=$(figure "$1" fault_us.p99) us"
}

# The program did not fit: pages went out and came back.
must_have_paged() {
    report "$1"
    [ "$(figure "$1" pages_put)" -gt 1000 ] || fail "$1: few pages went out"
    [ "$(figure "$1" pages_got)" -gt 1000 ] || fail "$1: few pages came back"
}

# The program fitted: nothing was paid.
must_be_native() {
    local key
    for key in faults.remote faults.zero faults.staged faults.write pages_put pages_got; do
        [ "$(figure "$1" $key)" -eq 0 ] || fail "$1: $key is $(figure "$1" $key), with room enough"
    done
}
