"""W3C Trace Context, level 1 and 2: what came in, what this request's trace is, what goes out.

Knows: the grammar of traceparent and tracestate, and when a context is continued, restarted or passed through. Must not: do I/O,
read a clock, know connections, or raise on anything that a peer can send.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from edgeproxy.tracing.ids import IdSource
from edgeproxy.tracing.sampler import Sampler, SamplerKind

SAMPLED = 0x01
RANDOM = 0x02
_KNOWN_FLAGS = SAMPLED | RANDOM
_FLAGS = ("00", "01", "02", "03")
_MAX_MEMBERS = 32
_OWS = b" \t"

_TRACEPARENT = re.compile(
    rb"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-[\x20-\x7e]*)?"
)
_MEMBER = re.compile(
    rb"([a-z0-9][a-z0-9_\-*/@]{0,255})=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
)


class RemoteParent(NamedTuple):
    """A valid incoming traceparent."""

    trace_id: str
    span_id: str
    flags: int
    raw: bytes


def parse_traceparent(values: Sequence[bytes]) -> RemoteParent | None:
    """The peer's context, or None if there is none, it is invalid, or there are several."""
    if len(values) != 1:
        return None
    raw = values[0].strip(_OWS)
    match = _TRACEPARENT.fullmatch(raw)
    if match is None:
        return None
    version, trace_id, span_id, flags, rest = match.groups()
    if version == b"00" and rest is not None:
        return None
    return RemoteParent(trace_id.decode(), span_id.decode(), int(flags, 16) & _KNOWN_FLAGS, raw)


def parse_tracestate(values: Sequence[bytes]) -> bytes | None:
    """The members of all fields in order, joined; None if there are none or anything in them is invalid."""
    members: dict[bytes, bytes] = {}
    for field in b",".join(values).split(b","):
        member = field.strip(_OWS)
        if not member:
            continue
        match = _MEMBER.fullmatch(member)
        if match is None or match[1] in members:
            return None
        members[match[1]] = member
    if not members or len(members) > _MAX_MEMBERS:
        return None
    return b",".join(members.values())


def format_traceparent(trace_id: str, span_id: str, flags: int) -> str:
    """A version 00 traceparent."""
    return f"00-{trace_id}-{span_id}-{_FLAGS[flags & _KNOWN_FLAGS]}"


class RequestTrace:
    """One request's place in a trace, fixed when it begins."""

    __slots__ = (
        "flags", "link", "parent_id", "passthrough", "recording", "request_id", "sampled", "span_id", "trace_id", "tracestate",
    )

    def __init__(
        self, trace_id: str, span_id: str, request_id: str, *, parent_id: str | None = None, flags: int = 0, sampled: bool = False,
        recording: bool = False, tracestate: bytes | None = None, link: str | None = None, passthrough: bytes | None = None,
    ) -> None:
        self.trace_id = trace_id
        self.span_id = span_id
        self.request_id = request_id
        self.parent_id = parent_id
        self.flags = flags
        self.sampled = sampled
        self.recording = recording
        self.tracestate = tracestate
        self.link = link
        self.passthrough = passthrough


class Tracer:
    """Begins the trace of each request, under the settings of the moment."""

    __slots__ = ("_enabled", "_ids", "_sampler")

    def __init__(self, ids: IdSource) -> None:
        self._ids = ids
        self._enabled = False
        self._sampler = Sampler(SamplerKind.ALWAYS_OFF, 0.0)

    def configure(self, enabled: bool, sampler: SamplerKind, ratio: float) -> None:
        """Take new settings; requests that have begun keep theirs."""
        self._sampler = Sampler(sampler, ratio)
        self._enabled = enabled

    def begin(
        self, now_ns: int, traceparents: Sequence[bytes] | None, tracestates: Sequence[bytes] | None, trusted: bool,
    ) -> RequestTrace:
        """The trace of a request that arrived at `now_ns` with these header fields from a peer that is trusted or not."""
        parent = parse_traceparent(traceparents) if traceparents else None
        trace_id, span_id, request_id = self._ids.mint(now_ns)
        if parent is None or not trusted:
            link = f"{parent.trace_id}-{parent.span_id}" if parent is not None else None
            if not self._enabled:
                return RequestTrace(trace_id, span_id, request_id, link=link)
            sampled = self._sampler.minted(trace_id)
            return RequestTrace(
                trace_id, span_id, request_id, flags=RANDOM | sampled, sampled=sampled, recording=True, link=link
            )
        if not self._enabled:
            return RequestTrace(
                parent.trace_id, span_id, request_id, parent_id=parent.span_id, flags=parent.flags & RANDOM,
                tracestate=b",".join(tracestates) if tracestates else None, passthrough=parent.raw,
            )
        sampled = self._sampler.continued(parent.trace_id, bool(parent.flags & SAMPLED))
        return RequestTrace(
            parent.trace_id, span_id, request_id, parent_id=parent.span_id, flags=parent.flags & RANDOM | sampled,
            sampled=sampled, recording=True, tracestate=parse_tracestate(tracestates) if tracestates else None,
        )

    def outgoing(self, trace: RequestTrace, span_id: str) -> bytes:
        """The one traceparent that the origin gets; `span_id` is that of the attempt to fetch from it."""
        if trace.passthrough is not None:
            return trace.passthrough
        return format_traceparent(trace.trace_id, span_id, trace.flags).encode()
