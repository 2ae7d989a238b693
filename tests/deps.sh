#!/bin/bash
# deps.sh [check|suites|bench]...: installs the Debian packages (12 or 13) that building and showing EDM
# need, and those of its tests, of the programs of `make suites`, of the benchmarks and their plots. Where
# all of them are there it changes nothing and needs neither network nor rights.
set -eu

packages=(gcc libc6-dev cmake make pkg-config libinih-dev libxxhash-dev liblz4-dev procps util-linux)
# One of each line: Debian 12's name, Debian 13's.
choices=("libmsgpack-dev libmsgpack-c-dev")
for purpose in "$@"; do
    case $purpose in
    check)
        packages+=(
            clang libclang-rt-dev libzmq3-dev libcmocka-dev
            python3 python3-zmq python3-msgpack python3-xxhash
            golang-go musl-tools redis-server redis-tools sqlite3 mandoc iproute2
            nodejs perl gawk python3-numpy ruby php-cli luajit erlang-base libjemalloc2 gdb strace gnuplot-nox
        )
        choices+=(
            "libmimalloc2.0 libmimalloc3"
            "libpython3.11-testsuite libpython3.13-testsuite"
        )
        ;;
    suites) packages+=(default-jdk-headless postgresql guile-3.0 sbcl) ;;
    bench)
        packages+=(
            g++ mount iproute2 gnuplot-nox libzmq3-dev redis-server redis-tools
            python3 python3-msgpack python3-xxhash python3-zmq
        )
        ;;
    *)
        echo "deps: no packages are known for $purpose" >&2
        exit 2
        ;;
    esac
done

installed() {
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

missing=()
for package in "${packages[@]}"; do
    installed "$package" || missing+=("$package")
done
missing_choices=()
for choice in "${choices[@]}"; do
    read -r old new <<<"$choice"
    installed "$old" || installed "$new" || missing_choices+=("$choice")
done
if [ $((${#missing[@]} + ${#missing_choices[@]})) -eq 0 ]; then
    exit 0
fi

as_root=()
if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null; then
        echo "deps: needs root (or sudo) to install: ${missing[*]} ${missing_choices[*]}" >&2
        exit 1
    fi
    as_root=(sudo)
fi
"${as_root[@]}" apt-get update
for choice in ${missing_choices[@]+"${missing_choices[@]}"}; do
    read -r old new <<<"$choice"
    if apt-cache show "$new" >/dev/null 2>&1; then
        missing+=("$new")
    else
        missing+=("$old")
    fi
done
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y --no-install-recommends "${missing[@]}"
