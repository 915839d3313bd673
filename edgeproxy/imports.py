"""Imports that would bring along what nobody here uses.

structlog looks for rich, for tracebacks in colour. The node's processes write JSON: without it each of them starts a
fifth sooner, and is some megabytes smaller. Commands import rich by themselves.
"""

import sys

if "structlog" not in sys.modules and "rich" not in sys.modules:
    sys.modules["rich"] = None  # type: ignore[assignment]  # what stands for "there is none"
    import structlog  # noqa: F401

    del sys.modules["rich"]
