"""Ways to the origin: alone, first of those who ask for the same, or behind them; and what the edge fetches on its own
account.

Knows which flights there are and which keys they are for. What comes back is `arrivals`' business, who is fed what
`flight`'s.
"""

import asyncio
import time
from functools import partial
from typing import TYPE_CHECKING

from edgeproxy.cache import Entry, Stored, variant
from edgeproxy.cache.tiers import Tiers
from edgeproxy.ledger import Stage
from edgeproxy.proxy import response
from edgeproxy.proxy.background import NoClient
from edgeproxy.proxy.exchange import Exchange
from edgeproxy.proxy.flight import Flight, Phase, is_shareable, suits
from edgeproxy.proxy.framing import Framing
from edgeproxy.proxy.serving import is_unchanged
from edgeproxy.proxy.upstream.fetch import Fetch
from edgeproxy.proxy.upstream.pool import OriginPool

if TYPE_CHECKING:
    from edgeproxy.cache.status import Forward
    from edgeproxy.ledger import CacheWord
    from edgeproxy.proxy.pipeline import Pipeline

REFRESH_REST_S = 1.0
"""How long after a background fetch for a key the next one may begin: one that fails at once is not made anew with
each request that is served stale."""
RESTING_MAX = 8192
"""How many such keys are remembered before remembering starts over."""
ELSEWHERE_POLL_S = 0.02
"""How often it is asked whether another worker's fetch has come to something."""


class Departures:
    """One worker's fetches."""

    def __init__(self, pipeline: "Pipeline", cache: Tiers, pools: dict[str, OriginPool], timeout_s: float) -> None:
        """Serve a pipeline; nobody waits for another's fetch for longer than `timeout_s`."""
        self.pipeline = pipeline
        self.cache = cache
        self.timeout_s = timeout_s
        self.background: set[Exchange] = set()
        """Fetches that the edge makes on its own account."""
        self._pools = pools
        self._flights: dict[bytes, Flight] = {}
        self._resting: dict[bytes, float] = {}

    def pass_on(self, exchange: Exchange, reason: "Forward") -> None:
        """Forward the request as it came, and nothing of the response is stored."""
        exchange.cache = "BYPASS"
        exchange.forward_reason = reason
        self._fetch(exchange, None, is_cacheable=False)

    def go_alone(self, exchange: Exchange) -> None:
        """Forward the request as it came, or validate what is stored for it; the new response may be stored, but nobody
        waits for it.
        """
        entry = exchange.entry
        if entry is None:
            exchange.cache = "MISS"
            self._fetch(exchange, None, is_cacheable=True)
        else:
            exchange.cache = "EXPIRED"
            self.depart(Flight(self, exchange.cache_key, entry), exchange)

    def again(self, exchange: Exchange) -> None:
        """What a request waited for is not for it: look for the right one."""
        exchange.fetch = exchange.entry = None
        self.miss(exchange, None, "MISS", "vary-miss")

    def miss(self, exchange: Exchange, entry: Entry | None, word: "CacheWord", reason: "Forward") -> None:
        """Nothing that is stored will do: fetch, or wait for the same fetch of another; `entry` is to be validated."""
        exchange.cache = word
        exchange.forward_reason = reason
        if exchange.method == b"HEAD":
            self._fetch(exchange, None, is_cacheable=False)
            return
        key = self._flight_key(exchange)
        flight = self._flights.get(key)
        if flight is not None and flight.matches(exchange) and not self.is_purged(flight):
            self._join(flight, exchange)
            return
        if self._leads_nobody(exchange, entry):
            self.go_alone(exchange)
            return
        flight = Flight(self, exchange.cache_key, entry)
        flight.keys.append(key)
        self._flights[key] = flight
        if self.cache.claims is None:
            self.depart(flight, exchange)
        else:
            # What the store did not have a moment ago it may have now: a claim is free once it does.
            flight.phase = Phase.ELSEWHERE
            self._join(flight, exchange)
            self._look_elsewhere(flight)

    @staticmethod
    def _leads_nobody(exchange: Exchange, entry: Entry | None) -> bool:
        """Whether it can be told beforehand that a request's response is for nobody else."""
        names = exchange.names
        rules = exchange.plan.route.rules
        if b"authorization" in names and not rules.authorized:
            return True  # it will not be stored (RFC 9111 §3.5)
        if entry is None:
            return b"range" in names  # a part of what may be large: the whole is not fetched for it
        return not is_shareable(entry.stored, rules, entry.stored.stored_ns)

    def is_fetching(self, exchange: Exchange) -> bool:
        """Whether what this request is for is being fetched by this worker."""
        return self._flight_key(exchange) in self._flights

    def _flight_key(self, exchange: Exchange) -> bytes:
        """Under which key a flight for the same response is known: its variant's, as far as Vary is known."""
        key = exchange.cache_key
        vary = self.cache.memory.vary_of(key)
        if not vary:
            flight = self._flights.get(key)
            if flight is None or flight.filling is None or flight.matches(exchange):
                return key
            vary = flight.filling.stored.vary
        return key + b"\x00" + variant(vary, exchange.names) if vary else key

    def is_purged(self, flight: Flight) -> bool:
        """Whether what a flight brings was purged since its request went out: who asks now is not to get it."""
        fetch = flight.fetch
        if fetch is None:
            return False
        tags = () if flight.filling is None else flight.filling.stored.tags
        return self.cache.is_purged(fetch.exchange.plan.url, tags, fetch.purge_seq)

    def _join(self, flight: Flight, exchange: Exchange) -> None:
        exchange.cache = "COLLAPSED"
        self.pipeline.stage(exchange, Stage.COLLAPSED)
        if flight.phase is Phase.STREAMING:
            self.attach(flight, exchange)
        else:
            flight.join(exchange)

    def depart(self, flight: Flight, exchange: Exchange) -> None:
        """Fetch for a flight; the request owns the fetch."""
        flight.phase = Phase.AWAITING
        self._fetch(exchange, flight, is_cacheable=True)

    def _fetch(self, exchange: Exchange, flight: Flight | None, *, is_cacheable: bool) -> None:
        pool = self._pools[exchange.plan.route.origin]
        exchange.fetch = fetch = Fetch(self.pipeline, exchange, pool, flight, is_cacheable=is_cacheable)
        if flight is not None:
            flight.fetch = fetch
            exchange.flight = flight
        fetch.start()

    def _look_elsewhere(self, flight: Flight) -> None:
        """Another worker fetches for this key: has it come to something?"""
        if flight.phase is not Phase.ELSEWHERE:
            return
        if not flight.waiting:
            self.landed(flight)
            return
        exchange = flight.waiting[0]
        if flight.claim is None:
            flight.claim = self.cache.claim(flight.keys[0])
        self.cache.lookup(flight.key, exchange.names, None, partial(self._found_elsewhere, flight), exchange)

    def _found_elsewhere(self, flight: Flight, entry: Entry | None) -> None:
        if flight.phase is not Phase.ELSEWHERE or not flight.waiting:
            return
        stale = flight.stale
        if (
            entry is not None
            and time.time_ns() < entry.stored.fresh_until_ns
            and (stale is None or entry.stored.stored_ns > stale.stored.stored_ns)
        ):
            self.landed(flight)
            for exchange in flight.released():
                if entry.stored.uncacheable:
                    exchange.entry = None
                    self.go_alone(exchange)
                elif suits(exchange, entry.stored):
                    exchange.entry = entry
                    self.pipeline.serve(exchange, entry, "COLLAPSED")
                else:
                    self.again(exchange)
        elif flight.claim is not None:
            exchange = flight.first()
            exchange.cache = "MISS" if flight.stale is None else "EXPIRED"
            self.depart(flight, exchange)
        else:
            asyncio.get_running_loop().call_later(ELSEWHERE_POLL_S, self._look_elsewhere, flight)

    def refresh(self, cause: Exchange, entry: Entry) -> None:
        """Validate a stale response in the background, in a trace of its own (RFC 5861 §3)."""
        if self.is_fetching(cause) or self.pipeline.draining or cause.method == b"HEAD":
            return
        now = time.monotonic()
        key = self._flight_key(cause)
        if now < self._resting.get(key, 0.0):
            return
        claim = None if self._leads_nobody(cause, entry) else self.cache.claim(key)
        if claim is None:
            return  # nothing would come of it, or another worker is at it
        if len(self._resting) >= RESTING_MAX:
            self._resting.clear()
        self._resting[key] = now + REFRESH_REST_S
        client = NoClient(self.pipeline, cause.client)
        exchange = Exchange(client, b"GET", cause.target, 1, cause.lines, cause.names, now)
        exchange.host = cause.host
        exchange.key = cause.key
        exchange.cache_key = cause.cache_key
        exchange.plan = cause.plan
        exchange.entry = entry
        exchange.now_ns = time.time_ns()
        exchange.trace = self.pipeline.tracer.begin(exchange.now_ns, None, None, True)
        self.pipeline.sample(exchange)
        exchange.caused_by = response.traceparent(cause)
        if self.pipeline.accounts.open(exchange):
            self.background.add(exchange)
            self.miss(exchange, entry, "EXPIRED", "stale")
        self.cache.release(claim)  # the flight has taken one of its own

    def solo(self, fetch: Fetch) -> Flight:
        """A flight for a fetch that nobody waits for, its response turning out to be one that is stored."""
        exchange = fetch.exchange
        flight = fetch.flight = exchange.flight = Flight(self, exchange.cache_key, None)
        flight.fetch = fetch
        return flight

    # --- a flight's calls

    def streams(self, flight: Flight) -> None:
        """A flight's response is being stored: from now on it is known under its variant's key, too."""
        filling = flight.filling
        if filling is not None and filling.stored.vary:
            key = flight.key + b"\x00" + filling.stored.variant
            if key not in flight.keys:
                flight.keys.append(key)
                self._flights[key] = flight

    def landed(self, flight: Flight) -> None:
        """Nobody can join a flight any more."""
        flight.phase = Phase.LANDED
        self.closed(flight)

    def closed(self, flight: Flight) -> None:
        """Nobody else is to join a flight, or to wait for it in another worker; those on board stay."""
        flight.unwatch()
        for key in flight.keys:
            if self._flights.get(key) is flight:
                del self._flights[key]
        if flight.claim is not None:
            self.cache.release(flight.claim)
            flight.claim = None

    def given_up(self, flight: Flight) -> None:
        """What a flight brings is too large to be stored, and no client takes it."""
        fetch, filling = flight.fetch, flight.filling
        if fetch is not None and filling is not None:
            fetch.cancel(None)
            self.pipeline.arrivals.remember(fetch.exchange, "too-large", filling.stored.status)
        self.landed(flight)
        readers, flight.readers = flight.readers, []
        for exchange in readers:
            exchange.detail = "too-large"
            self.reader_done(flight, exchange)

    def attach(self, flight: Flight, exchange: Exchange) -> None:
        """Have a request be fed from a flight's response as it comes."""
        filling = flight.filling
        if filling is None:
            return
        stored = filling.stored
        exchange.cache = "COLLAPSED"
        exchange.status = stored.status
        exchange.filled_by = stored.filled_by
        exchange.now_ns = time.time_ns()
        exchange.cache_age = max(0, exchange.now_ns - stored.born_ns) // 1_000_000_000
        if is_unchanged(exchange, stored):
            self.unchanged(exchange, stored)
            return
        exchange.flight = flight
        exchange.position = 0
        flight.readers.append(exchange)
        self._start_stored(flight, exchange, stored)
        if filling.pieces:
            flight.catch_up(exchange)

    def _start_stored(self, flight: Flight, exchange: Exchange, stored: Stored) -> None:
        framing = response.framing(exchange, stored.status, has_length=flight.length is not None)
        elapsed_s = time.monotonic() - exchange.started
        entry = Entry(stored, b"")
        decoration = self.pipeline.decorator.stored(exchange, entry, elapsed_s)
        head = response.stored_head(exchange, entry, flight.length, framing, decoration)
        exchange.client.start(exchange, head, framing)
        self.pipeline.stage(exchange, Stage.STREAMING)

    def unchanged(self, exchange: Exchange, stored: Stored) -> None:
        """The client has what is being stored: it gets a 304 at once, the cache the body."""
        exchange.flight = None
        exchange.status = 304
        entry = Entry(stored, b"")
        decoration = self.pipeline.decorator.stored(exchange, entry, time.monotonic() - exchange.started)
        head = f"{entry.head_304}{decoration}{exchange.client.persistence(exchange)}\r\n"
        exchange.client.start(exchange, head.encode("latin-1"), Framing.NONE)
        exchange.client.end(exchange, None)
        self.pipeline.done(exchange)

    def reader_done(self, flight: Flight, exchange: Exchange) -> None:
        """A request has had all of a flight's response."""
        exchange.flight = None
        owner = flight.fetch
        trailers = flight.trailers if owner is not None and owner.exchange is exchange else None
        exchange.client.end(exchange, trailers)
        self.pipeline.done(exchange)
