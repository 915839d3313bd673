#!/usr/bin/env bash
# apt-install.sh PROBE:PACKAGE… installs each Debian package whose PROBE (a command, or an absolute path) is not there.
# Does so as root or with a sudo that asks nothing; otherwise prints the command to run and exits 1. Services that come with the packages are
# neither started nor enabled: edgeproxy's tests and benchmarks start their own on free ports.
set -euo pipefail
export PATH="$PATH:/usr/sbin:/sbin"

missing=()
for pair in "$@"; do
    probe=${pair%%:*} package=${pair#*:}
    case $probe in
        /*) [ -e "$probe" ] || missing+=("$package") ;;
        *) command -v "$probe" >/dev/null || missing+=("$package") ;;
    esac
done
[ "${#missing[@]}" -gt 0 ] || exit 0

explain() {
    echo "$1 Please install: ${missing[*]}" >&2
    echo "  sudo apt-get update && sudo apt-get install --no-install-recommends ${missing[*]}" >&2
    exit 1
}
command -v apt-get >/dev/null || explain "There is no apt-get here."
if [ "$(id -u)" -ne 0 ]; then
    sudo -n true 2>/dev/null || explain "Installing packages needs root, and sudo would ask for a password."
    exec sudo -n "$0" "$@"
fi

# Debian starts a daemon as soon as its package is unpacked, on a fixed port, unless policy-rc.d says no (exit 101).
policy=/usr/sbin/policy-rc.d
saved=
restore() {
    rm -f "$policy"
    [ -z "$saved" ] || mv "$saved" "$policy"
}
if [ -e "$policy" ]; then
    saved=$(mktemp "$policy.XXXXXX")
    mv "$policy" "$saved"
fi
trap restore EXIT
trap 'exit 130' INT TERM
printf '#!/bin/sh\nexit 101\n' >"$policy"
chmod 755 "$policy"

installed() { dpkg-query --show --showformat='${db:Status-Status} ${Package}\n' | sed -n 's/^installed //p' | sort -u; }
before=$(installed)

echo "Installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
apt="apt-get -qq -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0"
$apt update || echo "apt-get update failed; trying with the package lists there are" >&2
$apt install --yes --no-install-recommends "${missing[@]}" >/dev/null || explain "apt-get could not install them."

# What came in just now stays off at the next boot, too.
if command -v systemctl >/dev/null; then
    for package in $(comm -13 <(echo "$before") <(installed)); do
        { dpkg-query --listfiles "$package" | grep -E '^(/usr)?/lib/systemd/system/[^/@]+\.service$' || true; } |
            while read -r unit; do systemctl disable --quiet "$(basename "$unit")" >/dev/null 2>&1 || true; done
    done
fi
