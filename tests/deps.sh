#!/bin/bash
# deps.sh [bench]: installs the Debian packages (12 or 13) that building, testing and showing EDM need,
# and those of the benchmarks and their plots. Where all of them are there it changes nothing and needs
# neither network nor rights.
set -eu

packages=(
    gcc libc6-dev clang libclang-rt-dev cmake make pkg-config
    libzmq3-dev libinih-dev libxxhash-dev liblz4-dev libcmocka-dev
    python3 python3-zmq python3-msgpack python3-xxhash
    golang-go musl-tools redis-server redis-tools sqlite3 mandoc procps iproute2 util-linux
)
if [ "${1:-}" = bench ]; then
    packages+=(g++ mount gnuplot-nox)
fi

installed() {
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

missing=()
for package in "${packages[@]}"; do
    installed "$package" || missing+=("$package")
done
# Debian 13 renamed msgpack's C library.
msgpack=no
if installed libmsgpack-dev || installed libmsgpack-c-dev; then
    msgpack=yes
fi
if [ ${#missing[@]} -eq 0 ] && [ $msgpack = yes ]; then
    exit 0
fi

as_root=()
if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null; then
        echo "deps: needs root (or sudo) to install: ${missing[*]}" >&2
        exit 1
    fi
    as_root=(sudo)
fi
"${as_root[@]}" apt-get update
if [ $msgpack = no ]; then
    if apt-cache show libmsgpack-c-dev >/dev/null 2>&1; then
        missing+=(libmsgpack-c-dev)
    else
        missing+=(libmsgpack-dev)
    fi
fi
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y --no-install-recommends "${missing[@]}"
