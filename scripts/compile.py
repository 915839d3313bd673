"""Compiles the data plane with mypyc: `python scripts/compile.py [build/compiled]`, or `make fast`.

The result is a copy of the whole package in a directory of its own, with extension modules beside the hot path's
sources. It runs where PYTHONPATH names that directory and changes nothing elsewhere, so nobody runs stale machine code
without having asked for it. Needs a C compiler and Python's headers.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HOT = (
    "ledger/writer.py",
    *(f"tracing/{name}.py" for name in ("context", "ids", "propagation", "sampler")),
    *(f"cache/{name}.py" for name in ("conditional", "conditions", "entry", "filling", "key", "memory", "poisoning")),
    *(f"cache/{name}.py" for name in ("operations", "owed", "ranges", "readings", "tiers")),
    *(
        f"cache/redis/{name}.py"
        for name in (
            *("breaker", "cluster", "commands", "layout", "link", "node", "operating", "reading", "rules", "store"),
            "trail",
        )
    ),
    *(
        f"proxy/{name}.py"
        for name in (
            *("accounts", "arrivals", "background", "deadlines", "departures", "errors", "exchange", "familiar"),
            *("fields", "flight", "forwarding", "framing", "head", "http1", "intermediary", "pipeline", "plan"),
            *("record", "refusals", "response", "routing", "scripted", "serving", "tick"),
        )
    ),
    *(f"proxy/upstream/{name}.py" for name in ("address", "attempt", "connection", "fetch")),
)
"""What a request passes through, and nothing else. What is decoded into is left out (`cache/stored.py`,
`cache/operation.py`): compiled, a Struct has lost the types of its fields."""
SETUP = """
from setuptools import setup
from mypyc.build import mypycify
setup(name="edgeproxy-compiled", packages=[], ext_modules=mypycify({modules!r}, opt_level="3", debug_level="0"))
"""


def main() -> None:
    """Build into the directory named, in place of what is there."""
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "build/compiled").absolute()
    if not any(shutil.which(name) for name in ("cc", "gcc", "clang")):
        sys.exit("scripts/compile.py needs a C compiler and Python's headers: sudo apt-get install gcc python3-dev")
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(ROOT / "edgeproxy", target / "edgeproxy", ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    shutil.copy(ROOT / "pyproject.toml", target)
    modules = [f"edgeproxy/{name}" for name in HOT]
    log = target / "compile.log"
    with log.open("wb") as output:
        done = subprocess.run(
            [sys.executable, "-c", SETUP.format(modules=modules), "build_ext", "--inplace"],
            cwd=target,
            env=os.environ | {"MYPYPATH": str(target)},
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if done.returncode:
        sys.exit(f"the data plane could not be compiled; {log} says why:\n{log.read_text(errors='replace')[-2000:]}")
    (target / ".stamp").touch()
    print(f"compiled into {target}; to run it, set PYTHONPATH={target}")


if __name__ == "__main__":
    main()
