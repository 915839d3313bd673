"""One request and what becomes of it, from its head to its record.

Knows no protocol and decides nothing: the client's side fills in what was asked, the pipeline what it did.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgeproxy.ledger import CacheWord, Stage
from edgeproxy.proxy.errors import ProxyError
from edgeproxy.proxy.fields import FieldLines, Names

if TYPE_CHECKING:
    from edgeproxy.cache import Entry
    from edgeproxy.cache.operations import Operations
    from edgeproxy.cache.status import Forward
    from edgeproxy.proxy.flight import Flight
    from edgeproxy.proxy.http1 import ClientConnection
    from edgeproxy.proxy.plan import Plan
    from edgeproxy.proxy.upstream.attempt import Attempt
    from edgeproxy.proxy.upstream.fetch import Fetch
    from edgeproxy.tracing import RequestTrace


class Exchange:
    """A request with its response under way.

    A plain class with slots, made for each request: a dataclass's `__init__` with defaults costs 0.4 µs more.
    """

    __slots__ = (
        "attempts",
        "body_complete",
        "bytes_in",
        "bytes_out",
        "cache",
        "cache_age",
        "cache_key",
        "cache_tier",
        "cache_ttl",
        "caused_by",
        "client",
        "detail",
        "entry",
        "error",
        "expects_continue",
        "fetch",
        "filled_by",
        "flight",
        "forward_reason",
        "has_body",
        "head_ms",
        "held",
        "host",
        "is_over",
        "keep_alive",
        "key",
        "lines",
        "lookup_s",
        "method",
        "minor",
        "names",
        "now_ns",
        "operations",
        "plan",
        "position",
        "prefix",
        "response_started",
        "seq",
        "slot",
        "stage",
        "started",
        "status",
        "stored_at_s",
        "target",
        "trace",
        "trailers",
    )

    trace: "RequestTrace"
    prefix: str
    slot: int
    seq: int
    now_ns: int
    plan: "Plan"
    """What is done with its target; not there where no route leads to it, or its head could not be read."""
    position: int
    """How many pieces of a flight's response have gone to its client."""

    def __init__(
        self,
        client: "ClientConnection",
        method: bytes,
        target: bytes,
        minor: int,
        lines: FieldLines,
        names: Names,
        started: float,
    ) -> None:
        """Begin with a request's head: `minor` is the HTTP/1 minor version, `started` the monotonic time it began
        at.
        """
        self.client = client
        self.method = method
        self.target = target
        self.minor = minor
        self.lines = lines
        self.names = names
        self.started = started
        self.head_ms = "0.0"
        """How long its head took to arrive, milliseconds: 0 where one read brought all of it."""
        self.host = b""
        self.key = b""
        self.keep_alive = False
        self.has_body = False
        self.body_complete = True
        self.expects_continue = False
        self.trailers: FieldLines | None = None
        self.slot = 0
        self.seq = 0
        self.fetch: Fetch | None = None
        self.attempts: Sequence[Attempt] = ()
        """What was tried at the origin on its account."""
        self.flight: Flight | None = None
        self.entry: Entry | None = None
        """The stored response that was found for it, fresh or not."""
        self.is_over = False
        """Whether its record is published."""
        self.caused_by: str | None = None
        """For what the edge fetches on its own account: the traceparent of the request that was the cause."""
        self.error: ProxyError | None = None
        self.response_started = False
        self.status = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.cache: CacheWord | None = None
        self.cache_age: int | None = None
        self.cache_key = b""
        """Under which it is looked up; empty where it is not, or hot memory answers at once."""
        self.cache_ttl: int | None = None
        """For how many seconds what is served, or stored, is still fresh; negative: it is stale since."""
        self.cache_tier: str | None = None
        self.lookup_s: float | None = None
        """How long it took to find out what is stored, seconds; None where hot memory answered at once, or nothing was
        asked.
        """
        self.stored_at_s: float | None = None
        """When the response was given to the cache, seconds after `started`."""
        self.filled_by: str | None = None
        self.forward_reason: Forward | None = None
        """Why it went to the origin, or waited for what did (RFC 9211 §2.2)."""
        self.detail = ""
        """What Cache-Status says beyond its other parameters: why a response was not stored, or stale."""
        self.stage = Stage.RECEIVED
        self.operations: Operations | None = None
        """What a store that answers later was asked for on its account."""
        self.held: list[bytes] = []
        """Pieces of the request's body that came before there was a fetch to take them."""
