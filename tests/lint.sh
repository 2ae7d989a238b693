#!/bin/bash
# lint.sh format            every C file is as clang-format would write it
# lint.sh reformat          writes them so
# lint.sh tidy DIR JOBS     clang-tidy has nothing to say; DIR is a configured build directory
set -eu

cd "$(dirname "$0")/.."
what=$1

need() {
    if ! command -v "$1" >/dev/null; then
        echo "lint: $1 is not installed: apt-get install $1" >&2
        exit 1
    fi
}

sources() {
    find edm.c ini proto dms client bench tests -name "*.$1" -print0
}

case $what in
format)
    need clang-format
    { sources c && sources h; } | xargs -0 clang-format --dry-run --Werror
    ;;
reformat)
    need clang-format
    { sources c && sources h; } | xargs -0 clang-format -i
    ;;
tidy)
    need clang-tidy
    sources c | xargs -0 -n 1 -P "$3" clang-tidy --quiet -p "$2" --warnings-as-errors='*'
    ;;
*)
    echo "usage: lint.sh format | reformat | tidy DIR JOBS" >&2
    exit 2
    ;;
esac
