"""Trace context in other words than W3C's: B3 in one field and in several (openzipkin/b3-propagation), and Jaeger's
uber-trace-id.

May know: their grammars, and what OpenTelemetry asks of those who speak them. Must not: know settings or samplers, do
I/O, or raise at anything that a peer can send.

What is more than OpenTelemetry has: a B3 decision without ids (`b3: 0`) counts, and so does a missing one, which leaves
the decision to us. What is less: the parent's parent is not looked at, nor sent; Jaeger's baggage is others' affair.
"""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from edgeproxy.tracing.context import SAMPLED, RemoteParent

type Fields = Mapping[bytes, Sequence[bytes]]
"""Values of fields by lower-case name, a value a line."""


class Found(NamedTuple):
    """What a peer's fields say."""

    parent: RemoteParent | None
    """None: they hold no more than a decision."""
    sampled: bool | None
    """Whether the trace is sampled; None leaves that to us."""


class Format(Protocol):
    """A way to write trace context into header fields."""

    fields: frozenset[bytes]
    """The fields that it reads or writes, in lower case: no others of these names leave for the origin."""

    def found(self, fields: Fields) -> Found | None:
        """What came in; None if nothing valid did."""

    def written(self, trace_id: str, span_id: str, sampled: bool) -> str:
        """The field lines to send, each with its line end."""


_HEX16 = "[0-9a-fA-F]{16}"
_B3_IDS = re.compile(rf"((?:{_HEX16})?{_HEX16})-({_HEX16})(?:-([01d])(?:-{_HEX16})?)?")
_B3_TRACE_ID = re.compile(rf"(?:{_HEX16})?{_HEX16}")
_B3_SPAN_ID = re.compile(_HEX16)
_B3_DECISIONS = {"0": False, "1": True, "d": True, "false": False, "true": True}
"""The words of the specification and, for X-B3-Sampled, of those who came before it. `d` is debug."""
_JAEGER = re.compile(r"([0-9a-fA-F]{1,32}):([0-9a-fA-F]{1,16}):[0-9a-fA-F]{0,16}:([0-9a-fA-F]{1,2})")
_JAEGER_SAMPLED_OR_DEBUG = 0x03
_TRACE_ID_DIGITS = 32
_SPAN_ID_DIGITS = 16


def _one(fields: Fields, name: bytes) -> str:
    """The value of a field that came once; empty if it did not come, or came several times."""
    values = fields.get(name, ())
    return values[0].strip(b" \t").decode("latin-1") if len(values) == 1 else ""


def _found(trace_id: str, span_id: str, sampled: bool | None) -> Found | None:
    """Ids as W3C has them, shorter ones with zeros in front; None if one of them is zero altogether."""
    if not trace_id.strip("0") or not span_id.strip("0"):
        return None
    parent = RemoteParent(
        trace_id.lower().zfill(_TRACE_ID_DIGITS),
        span_id.lower().zfill(_SPAN_ID_DIGITS),
        SAMPLED if sampled else 0,
        b"",
    )
    return Found(parent, sampled)


class _B3:
    """Both forms of B3 are understood wherever one of them is spoken, as OpenTelemetry has it; `b3` counts first."""

    def __init__(self) -> None:
        self.fields = frozenset(
            {b"b3", b"x-b3-traceid", b"x-b3-spanid", b"x-b3-parentspanid", b"x-b3-sampled", b"x-b3-flags"}
        )

    def found(self, fields: Fields) -> Found | None:
        return self._single(_one(fields, b"b3")) or self._several(fields)

    def _single(self, value: str) -> Found | None:
        if value in ("0", "1", "d"):
            return Found(None, _B3_DECISIONS[value])
        match = _B3_IDS.fullmatch(value)
        if match is None:
            return None
        trace_id, span_id, decision = match.groups()
        return _found(trace_id, span_id, _B3_DECISIONS.get(decision or ""))

    def _several(self, fields: Fields) -> Found | None:
        sampled = _B3_DECISIONS.get(_one(fields, b"x-b3-sampled").lower())
        if _one(fields, b"x-b3-flags") == "1":
            sampled = True
        if b"x-b3-traceid" not in fields and b"x-b3-spanid" not in fields:
            return None if sampled is None else Found(None, sampled)
        trace_id, span_id = _one(fields, b"x-b3-traceid"), _one(fields, b"x-b3-spanid")
        if not _B3_TRACE_ID.fullmatch(trace_id) or not _B3_SPAN_ID.fullmatch(span_id):
            return None
        return _found(trace_id, span_id, sampled)


class B3Single(_B3):
    """`b3: TRACEID-SPANID-1`."""

    def written(self, trace_id: str, span_id: str, sampled: bool) -> str:
        return f"b3: {trace_id}-{span_id}-{'1' if sampled else '0'}\r\n"


class B3Multi(_B3):
    """`X-B3-TraceId`, `X-B3-SpanId`, `X-B3-Sampled`."""

    def written(self, trace_id: str, span_id: str, sampled: bool) -> str:
        return f"X-B3-TraceId: {trace_id}\r\nX-B3-SpanId: {span_id}\r\nX-B3-Sampled: {'1' if sampled else '0'}\r\n"


class Jaeger:
    """`uber-trace-id: TRACEID:SPANID:0:01`; its colons may come percent-encoded."""

    def __init__(self) -> None:
        self.fields = frozenset({b"uber-trace-id"})

    def found(self, fields: Fields) -> Found | None:
        value = _one(fields, b"uber-trace-id").replace("%3A", ":").replace("%3a", ":")
        match = _JAEGER.fullmatch(value)
        if match is None:
            return None
        trace_id, span_id, flags = match.groups()
        return _found(trace_id, span_id, bool(int(flags, 16) & _JAEGER_SAMPLED_OR_DEBUG))

    def written(self, trace_id: str, span_id: str, sampled: bool) -> str:
        return f"uber-trace-id: {trace_id}:{span_id}:0:{'01' if sampled else '00'}\r\n"
