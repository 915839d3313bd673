#!/usr/bin/env bash
# Resolves pyproject.toml (run-time dependencies and the dev group) into requirements.lock. Versions already in the lock are kept where they
# still fit; --upgrade takes the newest. One file serves CPython 3.12 and newer on x86_64 and aarch64: hashes cover every platform's wheels.
# The machine's own settings stay out (--no-config, extra indexes unset), and so do index addresses and paths (tests/test_packaging.py).
set -euo pipefail
cd "$(dirname "$0")/.."

env -u UV_INDEX -u UV_EXTRA_INDEX_URL -u UV_FIND_LINKS -u UV_CONSTRAINT -u UV_OVERRIDE -u UV_PRERELEASE \
    .venv/bin/uv --no-config pip compile --quiet pyproject.toml --group dev --output-file requirements.lock \
    --universal --python-version 3.12 --generate-hashes --no-emit-index-url --no-annotate --no-header --no-build "$@"
echo "requirements.lock: $(grep -c '==' requirements.lock) packages"
