"""One operation of a store that answers later, as a request's record shows it. Values only.

A module of its own: what is compiled (`make fast`) can't have msgspec's types in it.
"""

from typing import Literal

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
