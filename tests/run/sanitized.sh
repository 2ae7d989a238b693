#!/bin/bash
# sanitized.sh address|thread COMMAND: runs COMMAND with what EDM's sanitizer builds are told in make check
# (merge_tests.py).
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
if [ "$1" = address ]; then
    export ASAN_OPTIONS=exitcode=99 UBSAN_OPTIONS=print_stacktrace=1:exitcode=99
else
    export TSAN_OPTIONS=exitcode=99:halt_on_error=1:suppressions=$root/thread.supp
fi
shift
# Their shadow memory may collide with randomized addresses.
if setarch --addr-no-randomize true 2>/dev/null; then
    exec setarch --addr-no-randomize "$@"
fi
exec "$@"
