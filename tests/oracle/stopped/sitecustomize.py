"""Put on PYTHONPATH, this gives a Python process the oracle's clock (`tests.oracle.clock`) in place of the wall's.

Only the wall clock: time.monotonic, by which timeouts run and durations are measured, goes on.
"""

import mmap
import os
import time

_FILE = os.environ.get("ORACLE_CLOCK")
if _FILE:
    with open(_FILE, "rb") as _file:  # noqa: PTH123 this runs at the start of every process, so nothing is imported for it
        _NOW_NS = memoryview(mmap.mmap(_file.fileno(), 8, prot=mmap.PROT_READ)).cast("Q")
    time.time_ns = lambda: _NOW_NS[0]
    time.time = lambda: _NOW_NS[0] / 1e9
