"""Counting an access log's lines: a server that answers without logging does less work than the others.

The log is emptied between rounds (every server under measurement opens its log for appending), or a run would fill
the disk.
"""

import os
import time
from dataclasses import dataclass
from pathlib import Path

from bench.process import POLL_SECONDS

CHUNK_BYTES = 1024 * 1024
FLUSH_SECONDS = 1.2  # the servers' own buffers are flushed after one second
LATEST_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Lines:
    """What a round left in the log."""

    count: int
    lag_s: float  # from the end of the load until as many lines were there as requests had been answered


class AccessLog:
    """One server's log file, followed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = 0
        self._lines = 0

    def count(self) -> int:
        """The lines so far, since the log was last emptied."""
        if self.path.exists():
            with self.path.open("rb") as log:
                log.seek(self._offset)
                while chunk := log.read(CHUNK_BYTES):
                    self._offset += len(chunk)
                    self._lines += chunk.count(b"\n")
        return self._lines

    def reached(self, expected: int) -> float:
        """Waits until as many lines are there, at most LATEST_SECONDS; says how long that took."""
        began = time.monotonic()
        while self.count() < expected and time.monotonic() - began < LATEST_SECONDS:
            time.sleep(POLL_SECONDS)
        return time.monotonic() - began

    def settle(self) -> int:
        """Waits until no line has come for longer than a server keeps one in its buffer; says how many there are."""
        seen, since = self.count(), time.monotonic()
        while time.monotonic() - since < FLUSH_SECONDS:
            time.sleep(POLL_SECONDS)
            if (now := self.count()) != seen:
                seen, since = now, time.monotonic()
        return seen

    def empty(self) -> None:
        """Forgets all lines; to be called when none are on their way."""
        if self.path.exists():
            os.truncate(self.path, 0)
        self._offset = self._lines = 0
