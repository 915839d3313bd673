"""The whole way of a request, in the order in which things happen.

    receive ─► trace, ledger slot
    proceed ─► lookup ─► fresh hit ─────────────────────────────► answer ─► record
                  └────► fetch ─► origin_head ─► origin_body… ─► origin_end ─► record
    refuse, origin_failed, broken, client_gone: the other ends, each with its record

What is decided is decided elsewhere (tracing, cache.policy, routing, forwarding); what is parsed or sent is the
client's connection's or the fetch's business. Synchronous throughout: a hit is answered in the tick in which its last
byte came, and a miss costs no task.
"""

import os
import time
from typing import get_args

from edgeproxy.cache import Entry, HotMemory, policy, primary_key
from edgeproxy.config import Config
from edgeproxy.ledger import Counter, LedgerWriter, Stage
from edgeproxy.proxy import forwarding, problem, response
from edgeproxy.proxy.deadlines import Deadlines
from edgeproxy.proxy.errors import Outcome, ProxyError
from edgeproxy.proxy.exchange import Exchange
from edgeproxy.proxy.familiar import FamiliarHeads
from edgeproxy.proxy.fields import FieldLines, Names
from edgeproxy.proxy.http1 import ClientConnection
from edgeproxy.proxy.record import NO_ORIGIN, Recorder, origin_part, quoted
from edgeproxy.proxy.refusals import DRAIN_TIMEOUT, NO_ROUTE, NOT_CACHED, TOO_BUSY, TRACE_REFUSED
from edgeproxy.proxy.routing import Routes
from edgeproxy.proxy.settings import Settings
from edgeproxy.proxy.tick import Tick
from edgeproxy.proxy.upstream.fetch import Fetch
from edgeproxy.proxy.upstream.pool import OriginPool
from edgeproxy.tracing import IdSource, Tracer, TrustPolicy

_SELECTIVE = frozenset(
    {
        b"cache-control",
        b"pragma",
        b"range",
        b"if-none-match",
        b"if-modified-since",
        b"if-match",
        b"if-unmodified-since",
        b"if-range",
    }
)
"""Request fields that make a lookup more than a lookup; without them a fresh entry is the answer."""
_PARTIAL = frozenset({b"range", b"if-match", b"if-unmodified-since", b"if-range"})
"""Request fields that only the origin can act on so far."""


class Pipeline:
    """One worker's request path, with all that the requests share."""

    def __init__(self, config: Config, worker: int, ledger: LedgerWriter, settings: Settings) -> None:
        """Be ready for the first connection. Raises OSError when an origin's CA file can't be read."""
        self.limits = config.limits
        self.tracing = config.tracing
        self.draining = False
        self.ledger = ledger
        self.counters = ledger.counters
        self.ids = IdSource()
        self.tracer = Tracer(self.ids)
        self.clients: set[ClientConnection] = set()
        self.deadlines = Deadlines()
        self.tick = Tick()
        self.familiar = FamiliarHeads()
        node = config.node.name or os.uname().nodename
        self._settings = settings
        self._epoch = -1
        self._trust = TrustPolicy(config.tracing.trust)
        self._routes = Routes(config)
        self._memory = HotMemory(config.cache.memory_bytes)
        self._recorder = Recorder(node, worker)
        self._decorator = response.Decorator(node, config.tracing)
        self._pools = {
            origin.name: OriginPool(origin, config.limits, self.tick, self.deadlines, self.counters)
            for origin in config.origin
        }
        self._seq = 0

    # --- a request arrives

    def receive(self, exchange: Exchange) -> None:
        """A head is complete: the request gets its trace and its ledger slot; from here on it is accounted for."""
        exchange.now_ns = now_ns = time.time_ns()
        if self._settings.epoch[0] != self._epoch:
            self.take_settings()
        names = exchange.names
        if b"traceparent" in names:
            parents, states = response.trace_fields(exchange)
            exchange.trace = self.tracer.begin(now_ns, parents, states, exchange.client.trusted)
        else:
            exchange.trace = self.tracer.begin(now_ns, None, None, exchange.client.trusted)
        self._seq = exchange.seq = self._seq + 1
        exchange.key = primary_key(b"http", exchange.host, exchange.target)
        text = self._recorder.begin(exchange)
        try:
            exchange.slot = self.ledger.open(exchange.seq, text)
        except IndexError:
            exchange.error = exchange.error or TOO_BUSY

    def has_room(self) -> bool:
        """Whether a request that waits its turn behind others may have a slot already. One for each connection is kept
        for those whose turn it is: no client that pipelines can leave the others without.
        """
        return self.ledger.free > self.limits.connections

    def proceed(self, exchange: Exchange) -> None:
        """It is this request's turn: answer it from hot memory, or fetch."""
        method = exchange.method
        if method == b"GET" or method == b"HEAD":  # noqa: PLR1714 a tuple of two costs more than both comparisons
            entry = self._memory.get(exchange.key, exchange.names)
            if (
                entry is not None
                and exchange.now_ns < entry.fresh_until_ns
                and not exchange.has_body
                and _SELECTIVE.isdisjoint(exchange.names)
            ):
                self._hit(exchange, entry)
                return
            self._consider(exchange, entry)
        elif method == b"TRACE":
            self.refuse(exchange, TRACE_REFUSED)
        else:
            self._fetch(exchange, "BYPASS", "method")

    def _consider(self, exchange: Exchange, entry: Entry | None) -> None:
        """What to do about a GET or HEAD that is no plain fresh hit."""
        names = exchange.names
        if exchange.has_body or not _PARTIAL.isdisjoint(names):
            self._fetch(exchange, "BYPASS", "bypass")
            return
        reuse = None if entry is None else policy.reuse(entry.born_ns, entry.fresh_until_ns, names, exchange.now_ns)
        if entry is not None and reuse is policy.Reuse.FRESH:
            if b"if-none-match" in names and policy.none_match(names[b"if-none-match"], entry.etag):
                self._not_modified(exchange, entry)
            else:
                self._hit(exchange, entry)
        elif policy.only_if_cached(names):
            self.refuse(exchange, NOT_CACHED)
        elif reuse is policy.Reuse.STALE:
            self._fetch(exchange, "EXPIRED", "stale")
        else:
            self._fetch(exchange, "MISS", "request" if reuse else "uri-miss")

    # --- from hot memory

    def _hit(self, exchange: Exchange, entry: Entry) -> None:
        age = exchange.cache_age = (exchange.now_ns - entry.born_ns) // 1_000_000_000
        exchange.filled_by = entry.filled_by
        status = exchange.status = entry.status
        body = entry.body if exchange.method != b"HEAD" else b""
        elapsed_s = time.monotonic() - exchange.started
        elapsed_ms = f"{elapsed_s * 1e3:.3f}"
        exchange.client.answer(
            exchange, f"{entry.head}Age: {age}\r\n{self._decorator.hit(exchange, entry, elapsed_ms)}", body
        )
        self.ledger.publish(exchange.slot, self._recorder.hit(exchange, len(body), elapsed_ms))
        counters = self.counters
        counters[_REQUESTS] += 1
        counters[_HIT] += 1
        counters[_OK] += 1
        counters[_STATUS + status // 100] += 1
        counters[_BYTES_OUT] += len(body)
        counters[_DURATION_US] += int(elapsed_s * 1e6)
        if exchange.trace.sampled:
            counters[_SAMPLED] += 1

    def _not_modified(self, exchange: Exchange, entry: Entry) -> None:
        age = exchange.cache_age = (exchange.now_ns - entry.born_ns) // 1_000_000_000
        exchange.filled_by = entry.filled_by
        exchange.status = 304
        exchange.cache = "HIT"
        elapsed_ms = f"{(time.monotonic() - exchange.started) * 1e3:.3f}"
        head = f"{entry.head_without_content}Age: {age}\r\n{self._decorator.hit(exchange, entry, elapsed_ms)}"
        exchange.client.answer(exchange, head, b"")
        self._done(exchange, "ok", Stage.DONE, None)

    # --- from the origin

    def _fetch(self, exchange: Exchange, cache: str, reason: str) -> None:
        target = self._routes.find(exchange.host, exchange.target.partition(b"?")[0])
        if target is None:
            self.refuse(exchange, NO_ROUTE)
            return
        if not target.cache and cache != "BYPASS":
            cache, reason = "BYPASS", "bypass"
        exchange.cache = cache
        exchange.forward_reason = reason
        exchange.route = target
        exchange.fetch = fetch = Fetch(self, exchange, self._pools[target.origin])
        fetch.start()

    def request_body(self, exchange: Exchange, data: bytes) -> None:
        """A piece of a request's body came."""
        if exchange.fetch is not None:
            exchange.fetch.request_body(data)
        else:
            exchange.held.append(data)

    def request_complete(self, exchange: Exchange) -> None:
        """A request's body is whole."""
        if exchange.fetch is not None:
            exchange.fetch.request_complete()

    def origin_interim(self, fetch: Fetch, status: int, reason: bytes, lines: FieldLines, names: Names) -> None:
        """The origin sent a 1xx response: pass it on to those who know what that is (RFC 9110 §15.2)."""
        exchange = fetch.exchange
        if exchange.minor and not exchange.response_started:
            exchange.client.interim(response.interim_head(status, reason, lines, names))

    def origin_head(self, fetch: Fetch, status: int, reason: bytes, lines: FieldLines, names: Names) -> None:
        """The origin's response has begun: decide on storing, start the client's response."""
        exchange = fetch.exchange
        exchange.status = status
        self.stage(exchange, Stage.FIRST_BYTE)
        kept = forwarding.response_lines(lines, names)
        storing = None
        if exchange.cache != "BYPASS":
            now_ns = time.time_ns()
            storing = policy.storing(exchange.method, exchange.names, status, names, fetch.request_ns, now_ns)
            if storing.store and response.length(names) <= exchange.route.max_object_bytes:
                fetch.filling = response.filling(exchange, fetch.attempt, status, reason, kept, names, storing, now_ns)
        elapsed_s = time.monotonic() - exchange.started
        framing = response.framing(exchange, status, names)
        decoration = self._decorator.fetched(exchange, fetch, elapsed_s)
        head = response.head(exchange, status, reason, kept, names, framing, decoration)
        exchange.client.start(exchange, head, framing)
        self.stage(exchange, Stage.STREAMING)

    def origin_body(self, fetch: Fetch, data: bytes) -> None:
        """A piece of the response's body: to the client, and to what is to be stored."""
        exchange = fetch.exchange
        exchange.bytes_out += len(data)
        exchange.client.send(data)
        if fetch.filling is not None and not fetch.filling.add(data, exchange.route.max_object_bytes):
            fetch.filling = None

    def origin_end(self, fetch: Fetch, trailers: FieldLines | None) -> None:
        """The response is whole: store it, end the client's response, record."""
        exchange = fetch.exchange
        if fetch.filling is not None:
            self._memory.put(exchange.key, fetch.filling.vary, exchange.names, fetch.filling.entry())
        elif policy.invalidates(exchange.method, exchange.status):
            self._memory.discard(exchange.key)
        exchange.client.end(exchange, trailers)
        self._done(exchange, "ok", Stage.DONE, None)

    # --- the other ends

    def origin_failed(self, fetch: Fetch, error: ProxyError) -> None:
        """The origin gave no whole response: tell the client so, or cut off what has begun."""
        if fetch.exchange.response_started:
            self.broken(fetch.exchange, error)
        else:
            self.refuse(fetch.exchange, error)

    def refuse(self, exchange: Exchange, error: ProxyError) -> None:
        """Answer with a problem: the client's own fault, or the origin's."""
        if exchange.fetch is not None:
            exchange.fetch.cancel(error)
        trace = exchange.trace
        body = problem.body(error, trace.trace_id, trace.request_id)
        exchange.error = error
        exchange.status = int(error.status)
        exchange.bytes_out = 0 if exchange.method == b"HEAD" else len(body)
        if not exchange.body_complete:
            exchange.keep_alive = False
        elapsed_s = time.monotonic() - exchange.started
        head = problem.head(error, len(body)) + self._decorator.own(exchange, elapsed_s)
        stage = exchange.stage
        exchange.client.answer(exchange, head, body if exchange.method != b"HEAD" else b"")
        self._done(exchange, error.outcome, stage, error)

    def broken(self, exchange: Exchange, error: ProxyError) -> None:
        """Cut off a response that has begun and can't be ended as it should."""
        if exchange.fetch is not None:
            exchange.fetch.cancel(error)
        stage = exchange.stage
        exchange.client.cut(exchange)
        self._done(exchange, error.outcome, stage, error)

    def client_gone(self, exchange: Exchange, error: ProxyError) -> None:
        """Nobody waits for this response any more."""
        if exchange.fetch is not None:
            exchange.fetch.cancel(None)
        self._done(exchange, error.outcome, exchange.stage, error)

    # --- what all ends have in common

    def stage(self, exchange: Exchange, stage: Stage) -> None:
        """Say how far a request has come, in the ledger and in its record."""
        exchange.stage = stage
        if exchange.slot:
            self.ledger.stage(exchange.slot, stage)

    def _done(self, exchange: Exchange, outcome: Outcome, stage: Stage, error: ProxyError | None) -> None:
        """Publish the record: from here on the request is the scribe's."""
        elapsed_s = time.monotonic() - exchange.started
        fetch = exchange.fetch
        origin = NO_ORIGIN if fetch is None else origin_part(fetch.pool.origin.name, fetch.attempts)
        line = self._recorder.line(
            exchange, elapsed_ms=f"{elapsed_s * 1e3:.3f}", outcome=outcome, stage=stage, origin=origin, error=error
        )
        self.ledger.publish(exchange.slot, line)
        # The two point at each other; left so, only the cycle collector could free them, at 20 µs a request.
        exchange.fetch = None
        counters = self.counters
        counters[_REQUESTS] += 1
        counters[_OUTCOME_COUNTERS[outcome]] += 1
        counters[_STATUS + (exchange.status // 100 or 1)] += 1
        counters[_BYTES_IN] += exchange.bytes_in
        counters[_BYTES_OUT] += exchange.bytes_out
        counters[_DURATION_US] += int(elapsed_s * 1e6)
        if exchange.cache is not None:
            counters[_CACHE_COUNTERS[exchange.cache]] += 1
        if exchange.trace.sampled:
            counters[_SAMPLED] += 1

    # --- the worker's calls

    def connected(self, client: ClientConnection, address: str) -> bool:
        """A client has connected; False turns it away, there being too many."""
        self.counters[Counter.CONNECTIONS] += 1
        if len(self.clients) >= self.limits.connections:
            self.counters[Counter.CONNECTIONS_REFUSED] += 1
            return False
        self.clients.add(client)
        self.deadlines.watched.add(client)
        self.counters[Counter.CONNECTIONS_OPEN] = len(self.clients)
        client.address = address
        client.address_json = quoted(address.encode())
        client.trusted = self._trust.trusts(address)
        return True

    def disconnected(self, client: ClientConnection) -> None:
        """A client's connection is closed."""
        self.clients.discard(client)
        self.deadlines.watched.discard(client)
        self.counters[Counter.CONNECTIONS_OPEN] = len(self.clients)

    def take_settings(self) -> None:
        """Act on what the control page says now, and show that it is done."""
        if self._settings.epoch[0] == self._epoch:
            return
        epoch, tracing = self._settings.read()
        self.tracer.configure(tracing.enabled, tracing.sampler, tracing.ratio)
        self._epoch = epoch
        self.ledger.acknowledge(epoch, tracing=tracing.enabled)

    def gauge(self) -> None:
        """Bring the gauges that no request bumps up to date."""
        self.counters[Counter.CACHE_BYTES] = self._memory.size_bytes
        self.counters[Counter.CACHE_ENTRIES] = len(self._memory)
        self.counters[Counter.CACHE_EVICTIONS] = self._memory.evictions

    def drain(self) -> None:
        """Take no new request on any connection; those under way end in their own time."""
        self.draining = True
        for client in list(self.clients):
            client.drain()

    def abort(self) -> None:
        """End what is still under way, each request with its record."""
        for client in list(self.clients):
            client.abort(DRAIN_TIMEOUT)
        for pool in self._pools.values():
            pool.close()


_REQUESTS = int(Counter.REQUESTS)
_BYTES_IN = int(Counter.BYTES_IN)
_BYTES_OUT = int(Counter.BYTES_OUT)
_DURATION_US = int(Counter.DURATION_US)
_HIT = int(Counter.CACHE_HIT)
_OK = int(Counter.OUTCOME_OK)
_SAMPLED = int(Counter.SAMPLED)
_STATUS = Counter.STATUS_1XX - 1
_CACHE_COUNTERS = {
    word: int(Counter[f"CACHE_{word}"])
    for word in ("HIT", "MISS", "STALE", "REVALIDATED", "EXPIRED", "COLLAPSED", "BYPASS")
}
_OUTCOME_COUNTERS = {outcome: int(Counter[f"OUTCOME_{outcome.upper()}"]) for outcome in get_args(Outcome)}
