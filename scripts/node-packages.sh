#!/usr/bin/env bash
# Installs what tests/tracing/origins/package-lock.json names into build/origins, where tests/tracing/test_across_languages.py looks for it.
# Does nothing where that is done already. The lock pins every package with its hash, and names no registry: npm takes the one that it is set
# up with. No package's scripts are run.
set -euo pipefail
cd "$(dirname "$0")/.."

from=tests/tracing/origins
to=build/origins
command -v npm >/dev/null || { echo "scripts/node-packages.sh needs npm (scripts/apt-install.sh npm:npm)." >&2; exit 1; }
cmp -s "$from/package-lock.json" "$to/.installed" && exit 0

mkdir -p "$to"
exec 9>"$to/.lock"
flock 9
cmp -s "$from/package-lock.json" "$to/.installed" && exit 0
echo "Installing the Node.js origin's packages into $to"
cp "$from/package.json" "$from/package-lock.json" "$to"
npm ci --prefix "$to" --ignore-scripts --no-audit --no-fund --loglevel=error >/dev/null
cp "$from/package-lock.json" "$to/.installed"
