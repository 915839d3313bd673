"""One fetch for all who want the same: who waits for its head, who is fed its body, who has it when its owner leaves.

The request whose miss began it owns the fetch and gives it its trace; the others are collapsed onto it. While the head
is awaited they wait (bounded by `cache.collapse_timeout`); once the response turns out to be one that is stored, all
are fed from the same pieces, each at its own pace. When the owner leaves, another inherits the fetch, but not the
answer as its own: it was asked for with the fields of the one who left. Decides nothing: what a response means is
`arrivals`' business.

`Phase` goes AWAITING → STREAMING → LANDED, or from AWAITING to LANDED where there is nothing to share. ELSEWHERE comes
before AWAITING while another worker of the node fetches the same.
"""

import time
from enum import Enum
from typing import TYPE_CHECKING

from edgeproxy.cache import Entry, Filling, Stored, policy, variant
from edgeproxy.cache.policy import Reuse
from edgeproxy.cache.rules import Rules
from edgeproxy.proxy.deadlines import NEVER, Deadlines
from edgeproxy.proxy.exchange import Exchange
from edgeproxy.proxy.fields import FieldLines, Names

if TYPE_CHECKING:
    from edgeproxy.proxy.departures import Departures
    from edgeproxy.proxy.upstream.fetch import Fetch

BACKLOG_BYTES = 1024 * 1024
"""How far a fetch may be ahead of the fastest of its readers. Slower ones find the pieces in what is being stored."""

_NO_FIELDS: Names = {}


class Phase(Enum):
    """How far a flight is."""

    ELSEWHERE = "elsewhere"
    """Another worker fetches; this one looks into the store for what comes of it."""
    AWAITING = "awaiting"
    """The head of the response."""
    STREAMING = "streaming"
    """The response is being stored, and its readers are fed."""
    LANDED = "landed"
    """Nothing more comes."""


class Flight:
    """A fetch that may be for more than one."""

    __slots__ = (
        "_deadlines",
        "_departures",
        "_since",
        "claim",
        "deadline",
        "fetch",
        "filling",
        "is_paused",
        "is_shared",
        "key",
        "keys",
        "length",
        "phase",
        "readers",
        "stale",
        "trailers",
        "waiting",
    )

    def __init__(self, departures: "Departures", key: bytes, stale: Entry | None) -> None:
        """For a primary key; `stale` is the stored response that is being validated, if there is one."""
        self._departures = departures
        self._deadlines: Deadlines = departures.pipeline.deadlines
        self.key = key
        self.keys: list[bytes] = []
        """Under which keys it is known."""
        self.stale = stale
        self.phase = Phase.AWAITING
        self.fetch: Fetch | None = None
        self.waiting: list[Exchange] = []
        self.readers: list[Exchange] = []
        self.filling: Filling | None = None
        self.length: int | None = None
        """Of the response's body in bytes, where its head says so."""
        self.trailers: FieldLines | None = None
        self.claim: bytes | None = None
        """What was claimed for it (`Tiers.claim`)."""
        self.is_paused = False
        self.is_shared = True
        """Whether others may have the response, as far as it is known."""
        self.deadline = NEVER
        self._since: list[float] = []

    # --- those who wait for the head

    def join(self, exchange: Exchange) -> None:
        """Have a request wait for the head."""
        now = time.monotonic()
        exchange.flight = self
        self.waiting.append(exchange)
        self._since.append(now)
        if self.deadline == NEVER:
            self.deadline = now + self._departures.timeout_s
            self._deadlines.watched.add(self)

    def on_deadline(self, now: float) -> None:
        """Those who have waited for too long go to the origin on their own."""
        limit = now - self._departures.timeout_s
        late = 0
        while late < len(self._since) and self._since[late] <= limit:
            late += 1
        tired, self.waiting = self.waiting[:late], self.waiting[late:]
        del self._since[:late]
        self.deadline = self._since[0] + self._departures.timeout_s if self._since else NEVER
        _on_their_own(tired)
        for exchange in tired:
            self._departures.go_alone(exchange)

    def first(self) -> Exchange:
        """Who has waited longest, no longer doing so; there must be somebody."""
        del self._since[0]
        exchange = self.waiting.pop(0)
        _on_their_own([exchange])
        return exchange

    def released(self) -> list[Exchange]:
        """Those who wait, no longer doing so."""
        waiting, self.waiting = self.waiting, []
        self._since.clear()
        _on_their_own(waiting)
        self.unwatch()
        return waiting

    def unwatch(self) -> None:
        """Nobody waits for the head any more."""
        self.deadline = NEVER
        self._deadlines.watched.discard(self)

    def matches(self, exchange: Exchange) -> bool:
        """Whether a request may have this response, as far as its head is known (RFC 9111 §4.1)."""
        filling = self.filling
        if filling is None:
            return self.phase is not Phase.LANDED
        return self.is_shared and not filling.is_too_large and suits(exchange, filling.stored)

    # --- those who are fed the body

    def feed(self, data: bytes) -> None:
        """A piece of the body came: it is kept, and goes to all who have had those before it."""
        filling = self.filling
        if filling is None:
            return
        filling.add(data)
        for exchange in list(self.readers):
            self._serve(exchange, filling)
        self._pace(filling)

    def catch_up(self, exchange: Exchange) -> None:
        """A reader takes more."""
        filling = self.filling
        if filling is None:
            return
        if exchange in self.readers:
            self._serve(exchange, filling)
        self._pace(filling)

    def land(self) -> None:
        """The body is whole: those who have had all of it are done; the others go on from the pieces."""
        self.phase = Phase.LANDED
        filling = self.filling
        if filling is not None:
            for exchange in list(self.readers):
                self._serve(exchange, filling)

    def _serve(self, exchange: Exchange, filling: Filling) -> None:
        pieces = filling.pieces
        client = exchange.client
        while exchange.position < len(pieces) and not client.is_congested:
            data = pieces[exchange.position]
            exchange.position += 1
            exchange.bytes_out += len(data)
            client.send(data)
        if self.phase is Phase.LANDED and exchange.position == len(pieces) and exchange.flight is self:
            self.readers.remove(exchange)
            self._departures.reader_done(self, exchange)

    def _pace(self, filling: Filling) -> None:
        """Read on as fast as the fastest reader takes it; as the slowest, where the pieces are not kept."""
        fetch = self.fetch
        readers = self.readers
        if fetch is None or self.phase is Phase.LANDED:
            return
        if filling.is_too_large:
            if all(exchange.caused_by is not None for exchange in readers):
                self._departures.given_up(self)  # it will not be stored, and no client takes it
                return
            self._forget(filling, min(exchange.position for exchange in readers))
            ahead_bytes = filling.size_bytes - min(exchange.bytes_out for exchange in readers)
        else:
            ahead_bytes = filling.size_bytes - max(
                (exchange.bytes_out for exchange in readers), default=filling.size_bytes
            )
        if self.is_paused:
            if ahead_bytes < BACKLOG_BYTES // 2:
                self.is_paused = False
                fetch.resume_response()
        elif ahead_bytes > BACKLOG_BYTES:
            self.is_paused = True
            fetch.pause_response()

    @staticmethod
    def _forget(filling: Filling, before: int) -> None:
        """Let go of pieces that every reader has had."""
        index = before - 1
        while index >= 0 and filling.pieces[index]:
            filling.pieces[index] = b""
            index -= 1

    # --- those who leave

    def leave(self, exchange: Exchange) -> None:
        """A request wants no more of this; the fetch goes on for the others, or ends with the last of them."""
        exchange.flight = None
        if exchange in self.readers:
            self.readers.remove(exchange)
        if exchange in self.waiting:
            index = self.waiting.index(exchange)
            del self.waiting[index]
            del self._since[index]
        fetch = self.fetch
        if fetch is None or self.phase is Phase.LANDED:
            return
        if fetch.exchange is exchange:
            heir = self._heir()
            if heir is None:
                fetch.cancel(None)
                self._departures.landed(self)
                return
            fetch.hand_to(heir)
        if self.filling is not None:
            self._pace(self.filling)

    def _heir(self) -> Exchange | None:
        if self.readers:
            return self.readers[0]
        if not self.waiting:
            return None
        heir = self.first()
        heir.flight = self
        return heir


def _on_their_own(exchanges: list[Exchange]) -> None:
    """They wait for this no longer; what becomes of them begins now."""
    now_ns = time.time_ns()
    for exchange in exchanges:
        exchange.flight = None
        exchange.now_ns = now_ns


def is_shareable(stored: Stored, rules: Rules, now_ns: int) -> bool:
    """Whether a response that has just come may answer others than the one who asked for it: those whose requests are
    collapsed reuse it (RFC 9111 §4), so it must be fresh, or one that may be served stale.
    """
    return policy.reuse(stored, _NO_FIELDS, rules, now_ns) is not Reuse.VALIDATE


def suits(exchange: Exchange, stored: Stored) -> bool:
    """Whether a request selects this response (RFC 9111 §4.1)."""
    return not stored.vary or variant(stored.vary, exchange.names) == stored.variant
