#!/usr/bin/env bash
# Prints the path of a Python that edgeproxy can be installed with (CPython 3.12 or newer), or says what to install.
# A name on PATH is no proof (a pyenv shim may stand for a version that is not selected), so each candidate is run.
set -euo pipefail

wanted='
import sys
if sys.implementation.name == "cpython" and (3, 12) <= sys.version_info < (4,):
    print(sys.executable)
'

try() {
    local found
    found=$("$1" -c "$wanted" 2>/dev/null </dev/null) && [ -n "$found" ] && [ -x "$found" ] && printf '%s\n' "$found"
}

if [ -n "${PYTHON:-}" ]; then
    try "$PYTHON" && exit 0
    echo "PYTHON=$PYTHON is not a working CPython 3.12 or newer." >&2
    exit 1
fi
for name in python3.13 python3.12 python3.14 python3; do
    if command -v "$name" >/dev/null && try "$name"; then exit 0; fi
done
for path in "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.1[234].*/bin/python3; do
    if [ -x "$path" ] && try "$path"; then exit 0; fi
done
cat >&2 <<'MESSAGE'
edgeproxy needs CPython 3.12 or newer, and none was found (tried python3.13, python3.12, python3.14, python3).
  Debian 13, Ubuntu 24.04 or newer:  sudo apt-get install python3 python3-venv
  older releases, with pyenv:        pyenv install 3.13
Then run make again, or name the interpreter: make setup PYTHON=/path/to/python3.13
MESSAGE
exit 1
