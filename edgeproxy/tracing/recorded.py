"""A record as its readers decode it: what one request was, field by field (docs/access-log.md has the meanings).

Every field has a default, so that records of earlier versions, and lines of requests that were lost, are read as well.
Values only; knows nothing of spans.
"""

from datetime import UTC, datetime

import msgspec

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Cause(msgspec.Struct, frozen=True, gc=False):
    """One link of the chain below an error."""

    type: str = ""
    message: str = ""


class RecordedError(msgspec.Struct, frozen=True):
    """What went wrong."""

    type: str = ""
    message: str = ""
    causes: tuple[Cause, ...] = ()
    """Outermost first."""


class RecordedAttempt(msgspec.Struct, frozen=True):
    """One attempt at an origin; a phase that did not happen is None."""

    span_id: str = ""
    address: str = ""
    scheme: str = "http"
    at_ms: float = 0.0
    """When it began, milliseconds after the request's first byte."""
    ms: float = 0.0
    """How long it took in all, waiting for a free connection included."""
    dns_ms: float | None = None
    connect_ms: float | None = None
    tls_ms: float | None = None
    send_ms: float | None = None
    first_byte_ms: float | None = None
    transfer_ms: float | None = None
    reused: bool = False
    status: int | None = None
    error: RecordedError | None = None


class RecordedOperation(msgspec.Struct, frozen=True, gc=False):
    """One operation of a store on other hosts."""

    op: str = ""
    span_id: str = ""
    node: str = ""
    slot: int = 0
    at_ms: float = 0.0
    """When it began, milliseconds after the request's first byte."""
    us: int = 0
    outcome: str = ""
    error: str = ""


class RecordedSpan(msgspec.Struct, frozen=True):
    """A span that a script opened."""

    name: str = ""
    kind: str = "internal"
    span_id: str = ""
    parent_id: str = ""
    start_ns: int = 0
    end_ns: int = 0
    attributes: dict[str, str | bool | int | float | tuple[str, ...]] = {}
    events: tuple[tuple[str, int, dict[str, str | bool | int | float | tuple[str, ...]]], ...] = ()
    """Name, time in nanoseconds since the epoch, attributes of each."""
    error: str | None = None
    """None: the status is unset or fine; else what went wrong, which may be empty."""


class RecordedScript(msgspec.Struct, frozen=True):
    """What operators' scripts had to do with a request."""

    names: tuple[str, ...] = ()
    rewritten: str | None = None
    log: dict[str, str] = {}
    spans: tuple[RecordedSpan, ...] = ()


class Recorded(msgspec.Struct, frozen=True):
    """One record."""

    trace_id: str = ""
    span_id: str = ""
    parent_id: str | None = None
    ts: datetime = _EPOCH
    head_ms: float = 0.0
    sampled: bool = False
    sampling: str | None = None
    exported: bool = False
    restarted_from: str | None = None
    request_id: str = ""
    node: str = ""
    worker: int = 0
    seq: int = 0
    client: str | None = None
    method: str | None = None
    scheme: str | None = None
    host: str | None = None
    path: str | None = None
    query: str | None = None
    protocol: str | None = None
    headers: dict[str, str] = {}
    route: str | None = None
    status: int | None = None
    bytes_in: int | None = None
    bytes_out: int | None = None
    cache: str | None = None
    cache_age: int | None = None
    cache_ttl: float | None = None
    cache_tier: str | None = None
    cache_key: str | None = None
    filled_by: str | None = None
    caused_by: str | None = None
    lookup_ms: float | None = None
    stored_at_ms: float | None = None
    store: tuple[RecordedOperation, ...] = ()
    origin: str | None = None
    attempts: tuple[RecordedAttempt, ...] = ()
    duration_ms: float = 0.0
    outcome: str = ""
    stage: str = ""
    error: RecordedError | None = None
    user_agent: str | None = None
    referer: str | None = None
    script: RecordedScript | None = None

    @property
    def started_ns(self) -> int:
        """When the request's first byte came, nanoseconds since the epoch."""
        return round(self.ts.timestamp() * 1e6) * 1000 - round(self.head_ms * 1e6)


_decoder = msgspec.json.Decoder(Recorded)


def decode(line: bytes | memoryview) -> Recorded:
    """Read a record's line. Raises msgspec.DecodeError or its subclass ValidationError when it is none."""
    return _decoder.decode(line)
