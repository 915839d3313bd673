"""What a request asks of a store that answers later: each operation with its place in the request's trace.

The store notes them, the request's record shows them. Values only.
"""

from collections.abc import Callable
from typing import Protocol

from edgeproxy.cache.operation import Operation


class Operations:
    """Those of one request."""

    __slots__ = ("done", "pending", "settled")

    def __init__(self) -> None:
        """None yet."""
        self.done: list[Operation] = []
        self.pending = 0
        self.settled: Callable[[], None] | None = None
        """Called when the last one that is under way has ended."""

    def ended(self, operation: Operation) -> None:
        """One of those under way has ended."""
        self.done.append(operation)
        self.pending -= 1
        if not self.pending and self.settled is not None:
            settled, self.settled = self.settled, None
            settled()


class Trace(Protocol):
    """A request's place in its trace."""

    trace_id: str
    flags: int


class Asker(Protocol):
    """On whose account a store is asked."""

    operations: Operations | None
    started: float
    """When the request's first byte came, monotonic time."""

    @property
    def trace(self) -> Trace:
        """The trace that operations belong to."""
