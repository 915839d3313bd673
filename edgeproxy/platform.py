"""The one platform check: says plainly, before anything that needs Linux is imported, that edgeproxy runs nowhere else.

Knows the platform's name and nothing of the rest; imports only the standard library, so that it works where nothing
else does.
"""

import sys

_REASON = (
    "edgeproxy runs on Linux only, not on {platform!r}: its workers share a port through the kernel (SO_REUSEPORT), "
    "run on uvloop and keep their ledger in shared memory. Use a Linux machine, virtual machine or container."
)


def require_linux(platform: str = sys.platform) -> None:
    """Leave the program with a clear message unless `platform` (as `sys.platform` names it) is Linux."""
    if platform != "linux":
        sys.exit(_REASON.format(platform=platform))
