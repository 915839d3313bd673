#!/usr/bin/env bash
# Builds .venv from requirements.lock and installs the package into it, editable. Called by `make setup`, which knows when it is due.
# Only wheels whose hashes stand in the lock are installed, so nothing is compiled and nothing unlocked runs.
set -euo pipefail
cd "$(dirname "$0")/.."

venv=.venv
stamp=$venv/.installed

if [ "$(uname -s)" != Linux ]; then
    echo "edgeproxy runs on Linux only: use a Linux machine, virtual machine or container." >&2
    exit 1
fi

# Two makes at once (a demo in one terminal, the tests in another) take turns.
exec 9>.setup.lock
flock 9

usable() { "$venv/bin/python" -c 'import sys, pip; sys.exit(sys.version_info < (3, 12))' >/dev/null 2>&1; }

if ! usable || [ -n "${PYTHON:-}" ]; then
    python=$(scripts/find-python.sh)
    version=$("$python" -c 'import platform; print(platform.python_version())')
    if ! "$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then
        # Debian ships the two modules in a package of their own, named after the interpreter.
        minor=$("$python" -c 'import sys; print(f"python3.{sys.version_info[1]}")')
        echo "$python has no venv module: it needs the package $minor-venv." >&2
        scripts/apt-install.sh "$("$python" -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')/ensurepip:$minor-venv"
    fi
    base=$("$venv/bin/python" -c 'import sys; print(sys._base_executable)' 2>/dev/null || true)
    if ! usable || [ "$(readlink -f "$base")" != "$(readlink -f "$python")" ]; then
        echo "Building $venv with Python $version ($python)"
        rm -rf "$venv"
        "$python" -m venv "$venv"
    fi
fi

pip() { "$venv/bin/python" -m pip --disable-pip-version-check --no-input "$@"; }

echo "Installing $(grep -c '==' requirements.lock) locked packages and edgeproxy into $venv"
pip install -qq --require-hashes --only-binary :all: -r requirements.lock
pip install -qq --no-index --no-deps --no-build-isolation --editable .
# The service that may run from here cannot write beside the code, and would compile it anew at each start.
"$venv/bin/python" -m compileall -q edgeproxy || true
touch "$stamp"
