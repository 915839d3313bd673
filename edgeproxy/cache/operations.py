"""What a request asks of a store that answers later: each operation with its place in the request's trace.

The store notes them, the request's record shows them. Values only.
"""

from collections.abc import Callable
from typing import Literal, Protocol

import msgspec

Outcome = Literal["hit", "miss", "ok", "error"]


class Operation(msgspec.Struct, frozen=True):
    """One that has ended."""

    op: str
    """The command that did the work, as the store calls it: MGET, SET."""
    span_id: str
    """As the store was told: the traceparent on the wire is the request's trace id and this."""
    node: str
    """The address of the node that it went to; "" when none was known."""
    slot: int
    us: int
    """How long it took, microseconds."""
    outcome: Outcome
    error: str = ""
    """What went wrong; "" when nothing did."""
    at_ms: float = 0.0
    """When it began, milliseconds after the request's first byte."""


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
