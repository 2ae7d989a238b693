#!/bin/bash
# check.sh DIR JOBS: builds EDM four times below DIR, warnings being errors: with gcc, with clang, and
# with gcc's address+undefined and thread sanitizers. Then one ctest run holds every test of the gcc
# build, the fuzzers of the clang build, and the unit, integration and fuzz tests of the sanitizer
# builds. The last line printed is the one in which ctest sums up. Tests that were skipped are named
# in DIR/skipped.
set -eu -o pipefail

dir=$1
jobs=$2
root=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)

build() {
    local name=$1
    shift
    echo "check: building $name"
    if ! { cmake -S "$root" -B "$dir/$name" -DEDM_WERROR=ON "$@" &&
           cmake --build "$dir/$name" --parallel "$jobs"; } >"$dir/$name.log" 2>&1; then
        cat "$dir/$name.log"
        echo "check: building $name failed" >&2
        exit 1
    fi
}

# Only gcc's code is what users run, and is optimized as theirs: of clang's only the fuzzers run for long,
# which see to that themselves; and with the sanitizers -O2 costs more to build than the tests save.
# Of debug information they get what a stack trace shows.
build gcc -DCMAKE_C_COMPILER=gcc
build clang -DCMAKE_C_COMPILER=clang -DCMAKE_C_FLAGS_RELWITHDEBINFO="-O0 -g1 -DNDEBUG"
build address -DCMAKE_C_COMPILER=gcc -DEDM_SANITIZE=address \
    -DCMAKE_C_FLAGS_RELWITHDEBINFO="-O1 -g1 -DNDEBUG"
build thread -DCMAKE_C_COMPILER=gcc -DEDM_SANITIZE=thread \
    -DCMAKE_C_FLAGS_RELWITHDEBINFO="-O1 -g1 -DNDEBUG"

/usr/bin/python3 "$root/tests/merge_tests.py" "$dir" gcc clang address thread

echo "check: testing"
status=0
ctest --test-dir "$dir/all" --parallel $((4 * jobs)) --output-on-failure --no-label-summary \
    --no-tests=error 2>&1 | tee "$dir/ctest.log" || status=$?
grep -E '^ *[0-9]+/[0-9]+ Test.*\*\*\*Skipped' "$dir/ctest.log" |
    sed -E 's/^[^:]*: ([^ ]+).*/\1/' >"$dir/skipped" || true
if [ -s "$dir/skipped" ]; then
    echo "check: skipped: $(tr '\n' ' ' <"$dir/skipped")"
fi
grep -E '^[0-9]+% tests passed' "$dir/ctest.log" | tail -n 1
exit $status
