"""The whole way of a request, in the order in which things happen.

    receive ─► trace, ledger slot
    proceed ─► hot memory ─► fresh hit ──────────────────────────────────► answer ─► record
                 └► store ─► decide ─► fresh, or stale for now ──────────► serve ──► record
                               └─────► departures: a fetch, or a place in one for the same ─► arrivals ─► record
    refuse, broken, client_gone: the other ends, each with its record

What is decided is decided elsewhere (tracing, cache.policy, plan, forwarding); what is parsed or sent is the client's
connection's or the fetch's business; who goes to the origin, and for whom, is known to `departures`; what origins
answer is taken in by `arrivals`. Synchronous throughout: a hit is answered in the tick in which its last byte came, and
a miss costs no task.
"""

import os
import time
from functools import partial
from http import HTTPStatus

from edgeproxy.cache import Entry, conditional, policy
from edgeproxy.cache.policy import Reuse
from edgeproxy.cache.tiers import Tiers
from edgeproxy.config import Config
from edgeproxy.ledger import CacheWord, Counter, LedgerWriter, Stage
from edgeproxy.proxy import gauges, problem, response
from edgeproxy.proxy.accounts import Accounts
from edgeproxy.proxy.arrivals import Arrivals
from edgeproxy.proxy.deadlines import Deadlines
from edgeproxy.proxy.departures import Departures
from edgeproxy.proxy.errors import ProxyError
from edgeproxy.proxy.exchange import Exchange
from edgeproxy.proxy.familiar import FamiliarHeads
from edgeproxy.proxy.http1 import ClientConnection
from edgeproxy.proxy.plan import Plans
from edgeproxy.proxy.purging import PurgeRequests
from edgeproxy.proxy.record import Recorder, quoted
from edgeproxy.proxy.refusals import DRAIN_TIMEOUT, NO_ROUTE, NOT_CACHED, TOO_BUSY, TRACE_REFUSED
from edgeproxy.proxy.routing import Routes
from edgeproxy.proxy.serving import serving
from edgeproxy.proxy.settings import Settings
from edgeproxy.proxy.tick import Tick
from edgeproxy.proxy.upstream.pool import OriginPool
from edgeproxy.tracing import IdSource, Propagation, Tracer, TrustPolicy
from edgeproxy.tracing.policy import Head

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
_OTHERS = _SELECTIVE - {b"if-none-match", b"if-modified-since"}
"""Those that leave a question where If-None-Match names the entry; If-Modified-Since does not count then."""


class Pipeline:
    """One worker's request path, with all that the requests share."""

    def __init__(self, config: Config, worker: int, ledger: LedgerWriter, settings: Settings, cache: Tiers) -> None:
        """Be ready for the first connection. Raises OSError when an origin's CA file can't be read."""
        self.limits = config.limits
        self.tracing = config.tracing
        self.draining = False
        self.ledger = ledger
        self.counters = ledger.counters
        self.cache = cache
        self.ids = IdSource()
        self.tracer = Tracer(self.ids)
        self.propagation = Propagation(config.tracing.propagators, self.tracer)
        self._speaks_others = not self.propagation.is_plain
        self.clients: set[ClientConnection] = set()
        self.deadlines = Deadlines()
        self.tick = Tick()
        self.familiar = FamiliarHeads()
        self.plans = Plans(Routes(config))
        node = config.node.name or os.uname().nodename
        self.accounts = Accounts(ledger, Recorder(node, worker, config.log.request_headers))
        self.arrivals = Arrivals(self, int(config.cache.uncacheable_ttl * 1e9), sends_tags=config.cache.send_tags)
        self.decorator = response.Decorator(node, config.tracing, config.cache)
        self._settings = settings
        self._epoch = -1
        self._head: Head | None = None
        """Who decides on traces beyond the plain sampler; None where nothing of that kind is configured."""
        self._trust = TrustPolicy(config.tracing.trust)
        self._purging = PurgeRequests(self, config)
        self._memory = cache.memory
        self._purges = cache.purges
        self._lookup_stage = Stage.STORE_WAIT if cache.store is not None and cache.store.is_remote else Stage.LOOKUP
        self._purge_word = cache.purge_word
        self._pools = {
            origin.name: OriginPool(origin, config.limits, self.tick, self.deadlines, self.counters)
            for origin in config.origin
        }
        self.departures = Departures(self, cache, self._pools, config.cache.collapse_timeout)

    @property
    def purge_seq(self) -> int:
        """The number of the last purge rule."""
        return self._purges.seq

    # --- a request arrives

    def receive(self, exchange: Exchange) -> None:
        """A head is complete: the request gets its trace and its ledger slot; from here on it is accounted for."""
        exchange.now_ns = now_ns = time.time_ns()
        if self._settings.epoch[0] != self._epoch:
            self.take_settings()
        names = exchange.names
        if self._speaks_others:
            exchange.trace = self.propagation.begin(now_ns, exchange.lines, exchange.client.trusted)
        elif b"traceparent" in names:
            parents, states = response.trace_fields(exchange)
            exchange.trace = self.tracer.begin(now_ns, parents, states, exchange.client.trusted)
        else:
            exchange.trace = self.tracer.begin(now_ns, None, None, exchange.client.trusted)
        exchange.key = b"http://" + exchange.host + exchange.target
        if self._head is not None:
            self.sample(exchange)
        if not self.accounts.open(exchange):
            exchange.error = exchange.error or TOO_BUSY

    def sample(self, exchange: Exchange) -> None:
        """Decide on a trace by what is configured on top of the sampler, now that its route can be known."""
        if self._head is not None and exchange.trace.recording:
            plan = self.plans.find(exchange)
            route = b"" if plan is None else plan.route.match
            self._head.decide(exchange.trace, route, exchange.target, exchange.method, exchange.names, time.monotonic())

    def has_room(self) -> bool:
        """Whether a request that waits its turn behind others may have a slot already. One for each connection is kept
        for those whose turn it is: no client that pipelines can leave the others without.
        """
        return self.ledger.free > self.limits.connections

    def proceed(self, exchange: Exchange) -> None:
        """It is this request's turn: answer it from hot memory, or find out what else to do."""
        if self._purge_word[0] != self._purges.seq:
            self.take_purges()
        plan = self.plans.find(exchange)
        if plan is None:
            self.refuse(exchange, NO_ROUTE)
            return
        exchange.plan = plan
        method = exchange.method
        if plan.is_simple and (method == b"GET" or method == b"HEAD"):  # noqa: PLR1714 a tuple costs more than both
            names = exchange.names
            entry = self._memory.get(plan.url, names)
            if (
                entry is not None
                and exchange.now_ns < entry.fresh_until_ns
                and entry.purge_seq == self._purges.seq
                and not exchange.has_body
            ):
                if _SELECTIVE.isdisjoint(names):
                    self._hit(
                        exchange, entry, entry.status, entry.head, entry.body if method == b"GET" else b"", "memory"
                    )
                    return
                if entry.etag is not None and names.get(b"if-none-match") == entry.etag and _OTHERS.isdisjoint(names):
                    self._hit(exchange, entry, 304, entry.head_304, b"", "memory")
                    return
        self.ask(exchange)

    def ask(self, exchange: Exchange) -> None:
        """No fresh hit in hot memory answers it at once: look it up, pass it on, or do what it says."""
        method = exchange.method
        if method == b"GET" or method == b"HEAD":  # noqa: PLR1714 as above
            self._look_up(exchange)
        elif method == b"TRACE":
            self.refuse(exchange, TRACE_REFUSED)
        elif method == b"PURGE":
            self._purging.serve(exchange)
        else:
            self.departures.pass_on(exchange, "method")

    def _hit(self, exchange: Exchange, entry: Entry, status: int, head: str, body: bytes, tier: str) -> None:
        age = (exchange.now_ns - entry.born_ns) // 1_000_000_000
        if age < 0:  # noqa: PLR1730 the clock was set back; a call costs 60 ns with every hit
            age = 0
        exchange.cache_age = age
        exchange.cache_ttl = (entry.fresh_until_ns - exchange.now_ns) // 1_000_000_000
        exchange.filled_by = entry.filled_by
        exchange.status = status
        elapsed_s = time.monotonic() - exchange.started
        elapsed_ms = f"{elapsed_s * 1e3:.3f}"
        exchange.client.answer(exchange, f"{head}Age: {age}\r\n{self.decorator.hit(exchange, entry, elapsed_ms)}", body)
        self.accounts.hit(exchange, len(body), elapsed_s, elapsed_ms, tier)

    # --- what is stored for it, and whether that will do

    def _look_up(self, exchange: Exchange) -> None:
        """A GET or HEAD that is no plain fresh hit: what do hot memory and store have for it?"""
        plan = exchange.plan
        route = plan.route
        names = exchange.names
        if (
            not route.cache
            or exchange.has_body
            or exchange.method not in route.rules.methods
            or conditional.must_forward(names)
            or (route.bypass and any(condition.met(names, exchange.target) for condition in route.bypass))
        ):
            self.departures.pass_on(exchange, "bypass")
            return
        key = exchange.cache_key = route.key.primary(plan.url, names, route.key_parts)
        entry = self.cache.get(key, names)
        if entry is not None and (
            exchange.now_ns < entry.stored.fresh_until_ns or self.departures.is_fetching(exchange)
        ):
            self.decide(exchange, entry)  # the store knows nothing newer
        else:
            self.stage(exchange, self._lookup_stage)
            exchange.lookup_s = -time.monotonic()
            self.cache.lookup(key, names, entry, partial(self.decide, exchange), exchange)

    def decide(self, exchange: Exchange, entry: Entry | None) -> None:
        """May what is stored answer the request (RFC 9111 §4), or who is asked for something better?"""
        if exchange.is_over:
            return  # its client left while the store was asked
        exchange.lookup_s = 0.0 if exchange.lookup_s is None else exchange.lookup_s + time.monotonic()
        names = exchange.names
        if (
            entry is not None
            and exchange.now_ns < entry.fresh_until_ns
            and exchange.plan.is_simple
            and _SELECTIVE.isdisjoint(names)
        ):  # as in hot memory: half the price of finding out that nothing more is asked
            exchange.is_over = True
            tier, entry.tier = entry.tier, "memory"
            body = entry.body if exchange.method == b"GET" else b""
            self._hit(exchange, entry, entry.status, entry.head, body, tier)
            return
        if entry is None or entry.stored.uncacheable:
            if policy.only_if_cached(names):
                self.refuse(exchange, NOT_CACHED)
            elif entry is not None and exchange.now_ns < entry.stored.fresh_until_ns:
                exchange.forward_reason = "miss"
                self.departures.go_alone(exchange)
            else:
                is_variant = entry is None and self._memory.vary_of(exchange.cache_key)
                self.departures.miss(exchange, None, "MISS", "vary-miss" if is_variant else "uri-miss")
            return
        exchange.entry = entry
        reuse = policy.reuse(entry.stored, names, exchange.plan.route.rules, exchange.now_ns)
        if reuse is Reuse.FRESH:
            self.serve(exchange, entry, "HIT")
        elif reuse is Reuse.STALE:
            self.serve(exchange, entry, "STALE")
        elif reuse is Reuse.STALE_WHILE_REVALIDATE:
            self.serve(exchange, entry, "STALE")
            self.departures.refresh(exchange, entry)
        elif policy.only_if_cached(names):
            self.refuse(exchange, NOT_CACHED)
        elif exchange.now_ns < entry.fresh_until_ns:
            self.departures.miss(exchange, entry, "MISS", "request")
        else:
            self.departures.miss(exchange, entry, "EXPIRED", "stale")

    def serve(self, exchange: Exchange, entry: Entry, word: CacheWord) -> None:
        """Answer with what is stored, or with the part of it that was asked for; `word` is for the record."""
        exchange.cache = word
        exchange.cache_age = age = max(0, exchange.now_ns - entry.born_ns) // 1_000_000_000
        exchange.cache_ttl = (entry.fresh_until_ns - exchange.now_ns) // 1_000_000_000
        exchange.cache_tier = entry.tier
        exchange.filled_by = entry.filled_by
        exchange.status, head, body = serving(exchange, entry)
        exchange.bytes_out = len(body)
        elapsed_s = time.monotonic() - exchange.started
        head = f"{head}Age: {age}\r\n{self.decorator.stored(exchange, entry, elapsed_s)}"
        exchange.client.answer(exchange, head, body)
        entry.tier = "memory"
        self.done(exchange)

    # --- the client's calls

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

    def client_congested(self, exchange: Exchange) -> None:
        """The client can't keep up: whatever is fetched for it alone waits."""
        flight = exchange.flight
        if exchange.fetch is not None and (flight is None or flight.filling is None):
            exchange.fetch.pause_response()

    def client_relieved(self, exchange: Exchange) -> None:
        """The client has caught up."""
        flight = exchange.flight
        if flight is not None and flight.filling is not None:
            flight.catch_up(exchange)
        elif exchange.fetch is not None:
            exchange.fetch.resume_response()

    # --- the ends

    def done(self, exchange: Exchange) -> None:
        """A response is out as it should be."""
        self.departures.background.discard(exchange)
        self.accounts.close(exchange, "ok", Stage.DONE, None)

    def refuse(self, exchange: Exchange, error: ProxyError) -> None:
        """Answer with a problem: the client's own fault, or the origin's."""
        self._let_go(exchange, error)
        trace = exchange.trace
        body = problem.body(error, trace.trace_id, trace.request_id)
        exchange.error = error
        stage = exchange.stage
        self.answer_itself(exchange, error.status, body)
        self.accounts.close(exchange, error.outcome, stage, error)

    def broken(self, exchange: Exchange, error: ProxyError) -> None:
        """Cut off a response that has begun and can't be ended as it should."""
        self._let_go(exchange, error)
        stage = exchange.stage
        exchange.client.cut(exchange)
        self.accounts.close(exchange, error.outcome, stage, error)

    def client_gone(self, exchange: Exchange, error: ProxyError) -> None:
        """Nobody waits for this response any more."""
        self._let_go(exchange, None)
        self.accounts.close(exchange, error.outcome, exchange.stage, error)

    def _let_go(self, exchange: Exchange, error: ProxyError | None) -> None:
        """Part a request from its fetch, which goes on if others want it."""
        self.departures.background.discard(exchange)
        flight = exchange.flight
        if flight is not None:
            flight.leave(exchange)
        elif exchange.fetch is not None:
            exchange.fetch.cancel(error)

    def answer_itself(self, exchange: Exchange, status: HTTPStatus, body: bytes) -> None:
        """Send an answer of the edge's own."""
        sent = b"" if exchange.method == b"HEAD" else body
        exchange.status = int(status)
        exchange.bytes_out = len(sent)
        if not exchange.body_complete:
            exchange.keep_alive = False
        elapsed_s = time.monotonic() - exchange.started
        exchange.client.answer(
            exchange, problem.head(status, len(body)) + self.decorator.own(exchange, elapsed_s), sent
        )

    # --- what all ends have in common

    def stage(self, exchange: Exchange, stage: Stage) -> None:
        """Say how far a request has come, in the ledger and in its record."""
        exchange.stage = stage
        if exchange.slot:
            self.ledger.stage(exchange.slot, stage)

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
        self._head = tracing.head
        self.accounts.judge_by(tracing.tail)
        self._epoch = epoch
        self.ledger.acknowledge(epoch, tracing=tracing.enabled)

    def take_purges(self) -> None:
        """Act on the purge rules that are new, and show that it is done."""
        self.cache.take_rules()
        self.ledger.acknowledge_purge(self._purges.seq)

    def gauge(self) -> None:
        """Bring the gauges that no request bumps up to date."""
        gauges.bring_up_to_date(self.counters, self.cache)

    def drain(self) -> None:
        """Take no new request on any connection; those under way end in their own time."""
        self.draining = True
        for client in list(self.clients):
            client.drain()

    def abort(self) -> None:
        """End what is still under way, each request with its record."""
        for client in list(self.clients):
            client.abort(DRAIN_TIMEOUT)
        for exchange in list(self.departures.background):
            self.client_gone(exchange, DRAIN_TIMEOUT)
        for pool in self._pools.values():
            pool.close()
