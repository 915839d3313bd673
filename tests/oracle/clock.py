"""The clock of the oracle: it stands still until it is stepped, and all processes that it is given to read the same.

So both engines see every request at the same nanosecond, Age and ttl compare exactly, and entries expire between two
requests because the clock was stepped over their end, not because a machine was slow. The engines are real processes
all the same: `stopped/sitecustomize.py` on their PYTHONPATH is all that differs.
"""

import mmap
import os
import tempfile
from collections.abc import Mapping
from email.utils import formatdate
from pathlib import Path
from typing import Self

SECOND_NS = 1_000_000_000
START_S = 1_709_528_767
"""Mon, 04 Mar 2024 05:06:07 GMT: always the same, so that a replay has the same dates."""
_STOPPED = Path(__file__).parent / "stopped"


class Clock:
    """The time in a file of eight bytes; a context manager."""

    def __init__(self) -> None:
        """Stand still at the start."""
        descriptor, name = tempfile.mkstemp(prefix="oracle-clock-")
        self._path = Path(name)
        os.write(descriptor, bytes(8))
        self._memory = mmap.mmap(descriptor, 8)
        os.close(descriptor)
        self._word = memoryview(self._memory).cast("Q")
        self._word[0] = START_S * SECOND_NS

    @property
    def now_s(self) -> int:
        """Seconds since the epoch."""
        return self._word[0] // SECOND_NS

    def step(self, seconds: int) -> None:
        """Let so much time pass, at once."""
        self._word[0] += seconds * SECOND_NS

    @property
    def environ(self) -> Mapping[str, str]:
        """What a process needs in its environment to go by this clock."""
        path = os.environ.get("PYTHONPATH")
        return {"ORACLE_CLOCK": str(self._path), "PYTHONPATH": os.pathsep.join([str(_STOPPED), *filter(None, [path])])}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._word.release()
        self._memory.close()
        self._path.unlink()


def http_date(seconds: int) -> str:
    """An HTTP-date of so many seconds since the epoch."""
    return formatdate(seconds, usegmt=True)
