#!/bin/bash
# base.sh TARBALL: a Debian 13 root file system like that of the public slim image, but made by
# debootstrap from the mirrors this machine's own apt uses, and with this machine's apt settings
# and certificates, so that apt works in it where it works here. Signatures are checked against
# this machine's debian-archive-keyring. Needs root. Takes half a minute; a tarball that is there
# already, made for the same mirrors and settings, is left alone.
#
# Exit status 77: this machine cannot make it; a line says why.
set -eu -o pipefail

suite=trixie
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
bundle=/etc/ssl/certs/ca-certificates.crt
# What a slim image leaves out.
unneeded=(/usr/share/doc /usr/share/man /usr/share/locale /usr/share/info /usr/share/lintian)

tarball=$1

skip() {
    echo "base: skipped: $*" >&2
    exit 77
}

# One line each: URI, release, component, of all that this machine's apt takes from Debian itself.
# apt is asked, as it alone knows every way in which sources can be written.
debian_sources() {
    apt-get indextargets 'Created-By: Packages' \
        --format '$(ORIGIN)|$(REPO_URI)|$(RELEASE)|$(COMPONENT)' |
        awk -F'|' '$1 == "Debian" && $4 == "main" { print $2, $3, $4 }' | sort -u
}

# The same for Debian 13: bookworm-security becomes trixie-security, and so on.
suite_sources() {
    local codename
    codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
    debian_sources | awk -v from="$codename" -v to=$suite -v keyring=$keyring '
        $2 == from || index($2, from "-") == 1 {
            print "deb [signed-by=" keyring "]", $1, to substr($2, length(from) + 1), $3
        }'
}

# Proxies, certificates, time-outs: lines that are themselves apt's configuration.
apt_settings() {
    apt-config dump | grep -E '^Acquire::(https?::|Check-|Retries|ForceIPv)' | grep -v '""' || true
}

# Files that these settings name, certificates mostly; not those with a secret in them.
settings_files() {
    apt_settings | sed -nE 's/.*::(CaInfo|CAInfo|CrlFile)[^"]*"(\/[^"]+)".*/\2/p'
}

# debootstrap fetches by wget, which knows nothing of apt's settings.
export_proxies() {
    local proxy
    proxy=$(apt_settings | sed -nE 's/^Acquire::http::[Pp]roxy "(.*)";/\1/p')
    if [ -n "$proxy" ] && [ "$proxy" != DIRECT ]; then
        export http_proxy=$proxy
    fi
    proxy=$(apt_settings | sed -nE 's/^Acquire::https::[Pp]roxy "(.*)";/\1/p')
    if [ -n "$proxy" ] && [ "$proxy" != DIRECT ]; then
        export https_proxy=$proxy
    fi
}

make_slim() {
    local dir=$1 path
    for path in "${unneeded[@]}"; do
        echo "path-exclude $path/*"
        rm -rf "${dir:?}$path"
        mkdir -p "$dir$path"
    done >"$dir/etc/dpkg/dpkg.cfg.d/slim"
    # As in that image: a container that is lost with its host is made anew.
    echo force-unsafe-io >"$dir/etc/dpkg/dpkg.cfg.d/docker-apt-speedup"
    rm -rf "$dir"/var/lib/apt/lists/* "$dir"/var/cache/apt/*.bin \
        "$dir"/var/cache/apt/archives/*.deb "$dir"/var/log/*
}

carry_settings() {
    local dir=$1 file
    suite_sources >"$dir/etc/apt/sources.list"
    rm -f "$dir"/etc/apt/sources.list.d/*
    {
        apt_settings
        echo 'Acquire::Languages "none";'
        echo 'APT::Keep-Downloaded-Packages "false";'
    } >"$dir/etc/apt/apt.conf.d/99machine"
    for file in "$bundle" $(settings_files); do
        if [ -f "$file" ]; then
            install -D -m 0644 "$file" "$dir$file"
        fi
    done
}

# Changes when the mirrors, the settings or this script do.
inputs_hash() {
    {
        cat "$0"
        suite_sources
        apt_settings
        cat "$bundle" 2>/dev/null || true
    } | sha256sum | cut -c 1-64
}

[ -f "$keyring" ] || skip "no $keyring (package debian-archive-keyring)"
[ -e "/usr/share/debootstrap/scripts/$suite" ] || skip "this debootstrap does not know $suite"
mirror=$(suite_sources | awk -v suite=$suite '$4 == suite && !seen++ { print $3 }')
[ -n "$mirror" ] || skip "apt's sources on this machine have no Debian mirror"

hash=$(inputs_hash)
if [ -s "$tarball" ] && [ "$(cat "$tarball.inputs" 2>/dev/null)" = "$hash" ]; then
    echo "base: $tarball is there already"
    exit 0
fi

dir=$(mktemp -d)
trap 'rm -rf --one-file-system "$dir" "$tarball.$$"' EXIT
export_proxies
echo "base: debootstrap of $suite"
if ! DPKG_FORCE=unsafe-io debootstrap --variant=minbase --force-check-gpg --keyring=$keyring \
    $suite "$dir/root" "$mirror" >"$dir/log" 2>&1; then
    tail -n 20 "$dir/log" >&2
    if grep -q 'unknown key\|Release signed by' "$dir/log"; then
        skip "this machine's debian-archive-keyring does not have the keys of $suite: update it"
    fi
    exit 1
fi
grep 'Valid Release signature' "$dir/log"
make_slim "$dir/root"
carry_settings "$dir/root"
mkdir -p "$(dirname "$tarball")"
rm -f "$tarball.inputs"
tar -C "$dir/root" --numeric-owner -cf "$tarball.$$" .
mv "$tarball.$$" "$tarball"
echo "$hash" >"$tarball.inputs"
