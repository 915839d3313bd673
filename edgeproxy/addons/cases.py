"""How a request is answered: from what is stored, or by an origin. One `Case` a request.

The decisions are those of the fast engine, by the same functions (`cache.policy`, `conditional`, `serving`, …), and in
the order of `proxy.pipeline`, `departures` and `arrivals`; taken one after the other here, as mitmproxy has whole
messages.

    look_up ─► decide ─► serve                                    fresh, or stale for now
                 └────► miss ─► wait, or ask ─► validated ─► serve
                                      ├───────► stale instead ─► serve
                                      └───────► filled, or passed on
"""

import asyncio
import time
from functools import partial
from http import HTTPStatus
from typing import NamedTuple

from mitmproxy import connection

from edgeproxy.addons.errand import Fetched
from edgeproxy.addons.flights import Came, Flight, Landing
from edgeproxy.addons.heads import client_of
from edgeproxy.addons.intake import Asked
from edgeproxy.addons.node import Node
from edgeproxy.cache import Entry, conditional, policy
from edgeproxy.cache.policy import Reuse
from edgeproxy.cache.purge import purge_request
from edgeproxy.cache.status import Forward
from edgeproxy.ledger import CacheWord, Stage
from edgeproxy.proxy import forwarding, problem, response
from edgeproxy.proxy.errors import ProxyError
from edgeproxy.proxy.exchange import Exchange
from edgeproxy.proxy.flight import is_shareable, suits
from edgeproxy.proxy.refusals import NOT_CACHED, NOT_CACHED_HERE, PURGE_REFUSED, TRACE_REFUSED, purge_failed
from edgeproxy.proxy.serving import is_unchanged, serving


class Answer(NamedTuple):
    """A response as it goes to the client."""

    head: str
    """Its blank line left out."""
    body: bytes


class Case:
    """One request's."""

    def __init__(self, node: Node, exchange: Exchange, client: connection.Client, body: bytes) -> None:
        """Answer a request that has its plan, for a client of mitmproxy's."""
        self._node = node
        self._exchange = exchange
        self._client = client
        self._body = body
        self._origin_s = 0.0

    async def answer(self) -> Answer:
        """The response, whatever it takes, and be it that there is none."""
        exchange = self._exchange
        try:
            if exchange.error is not None:
                raise exchange.error
            method = exchange.method
            if method in (b"GET", b"HEAD"):
                return await self._look_up()
            if method == b"TRACE":
                raise TRACE_REFUSED
            if method == b"PURGE":
                return self._purge()
            return await self._pass_on("method")
        except ProxyError as error:
            exchange.error = error
            trace = exchange.trace
            return self._own(error.status, problem.body(error, trace.trace_id, trace.request_id))

    # --- what is stored, and whether that will do

    async def _look_up(self) -> Answer:
        """A GET or HEAD: is it one that the cache has to do with?"""
        exchange = self._exchange
        plan, route, names = exchange.plan, exchange.plan.route, exchange.names
        if (
            not route.cache
            or exchange.has_body
            or exchange.method not in route.rules.methods
            or conditional.must_forward(names)
            or any(condition.met(names, exchange.target) for condition in route.bypass)
        ):
            return await self._pass_on("bypass")
        key = exchange.cache_key = route.key.primary(plan.url, names, route.key_parts)
        exchange.stage = Stage.LOOKUP
        exchange.lookup_s = 0.0
        return await self._decide(self._node.cache.get(key, names))

    async def _decide(self, entry: Entry | None) -> Answer:
        """May what is stored answer the request (RFC 9111 §4), or who is asked for something better?"""
        exchange = self._exchange
        names = exchange.names
        if entry is None or entry.stored.uncacheable:
            if policy.only_if_cached(names):
                raise NOT_CACHED
            if entry is not None and exchange.now_ns < entry.stored.fresh_until_ns:
                exchange.forward_reason = "miss"
                return await self._go_alone()
            varies = entry is None and self._node.cache.memory.vary_of(exchange.cache_key)
            return await self._miss(None, "MISS", "vary-miss" if varies else "uri-miss")
        exchange.entry = entry
        match policy.reuse(entry.stored, names, exchange.plan.route.rules, exchange.now_ns):
            case Reuse.FRESH:
                return self._serve(entry, "HIT")
            case Reuse.STALE:
                return self._serve(entry, "STALE")
            case Reuse.STALE_WHILE_REVALIDATE:
                answer = self._serve(entry, "STALE")
                self._refresh(entry)
                return answer
            case Reuse.VALIDATE if policy.only_if_cached(names):
                raise NOT_CACHED
            case Reuse.VALIDATE if exchange.now_ns < entry.fresh_until_ns:
                return await self._miss(entry, "MISS", "request")
            case Reuse.VALIDATE:
                return await self._miss(entry, "EXPIRED", "stale")

    def _serve(self, entry: Entry, word: CacheWord) -> Answer:
        """What is stored, or the part of it that was asked for."""
        exchange = self._exchange
        exchange.cache = word
        exchange.cache_age = age = max(0, exchange.now_ns - entry.born_ns) // 1_000_000_000
        exchange.cache_ttl = (entry.fresh_until_ns - exchange.now_ns) // 1_000_000_000
        exchange.cache_tier = entry.tier
        exchange.filled_by = entry.filled_by
        exchange.status, head, body = serving(exchange, entry)
        elapsed_s = time.monotonic() - exchange.started
        decoration = self._node.decorator.stored(exchange, entry, elapsed_s, self._origin_s)
        return Answer(f"{head}Age: {age}\r\n{decoration}", bytes(body))

    # --- ways to the origin

    async def _pass_on(self, reason: Forward) -> Answer:
        """Forward the request as it came, and nothing of the response is stored."""
        self._exchange.cache = "BYPASS"
        self._exchange.forward_reason = reason
        return await self._ask(None, is_cacheable=False)

    async def _go_alone(self) -> Answer:
        """Forward the request as it came, or validate what is stored for it; nobody waits for the response."""
        exchange = self._exchange
        entry = exchange.entry
        exchange.cache = "MISS" if entry is None else "EXPIRED"
        return await self._ask(None if entry is None else Flight([], entry), is_cacheable=True)

    async def _miss(self, entry: Entry | None, word: CacheWord, reason: Forward) -> Answer:
        """Nothing that is stored will do: ask, or wait for another's response; `entry` is to be validated."""
        exchange = self._exchange
        exchange.cache = word
        exchange.forward_reason = reason
        if exchange.method == b"HEAD":
            return await self._ask(None, is_cacheable=False)
        flights = self._node.flights
        flight = flights.find(exchange)
        if flight is not None:
            return await self._wait(flight)
        if self._leads_nobody(entry):
            return await self._go_alone()
        return await self._ask(flights.begin(exchange, entry), is_cacheable=True)

    def _leads_nobody(self, entry: Entry | None) -> bool:
        """Whether it can be told beforehand that the response is for nobody else."""
        names = self._exchange.names
        rules = self._exchange.plan.route.rules
        if b"authorization" in names and not rules.authorized:
            return True
        if entry is None:
            return b"range" in names
        return not is_shareable(entry.stored, rules, entry.stored.stored_ns)

    async def _wait(self, flight: Flight) -> Answer:
        """Another one asks for the same: have what comes of it, where it is for this one, too."""
        exchange = self._exchange
        exchange.cache = "COLLAPSED"
        exchange.stage = Stage.COLLAPSED
        try:
            told = await asyncio.wait_for(asyncio.shield(flight.landed), self._node.collapse_timeout_s)
        except TimeoutError:
            told = Landing(Came.OTHER)
        exchange.now_ns = time.time_ns()
        entry = told.entry
        if told.forgets:
            exchange.entry = None
        if told.came is Came.FAILED and told.error is not None:
            raise told.error
        if entry is None:
            return await self._go_alone()
        if not suits(exchange, entry.stored) or not told.is_stored:
            return await self._again()
        if told.came is Came.STALE:
            if policy.stale_on_error(entry.stored, exchange.names, exchange.now_ns):
                exchange.detail = told.why
                return self._serve(entry, "COLLAPSED")
            if told.error is not None:
                raise told.error
            return await self._go_alone()
        if told.is_shared:
            return self._serve(entry, "COLLAPSED")
        exchange.entry = entry if told.came is Came.VALID else None
        return await self._go_alone()

    async def _again(self) -> Answer:
        """What this one waited for is not for it: look for the right one."""
        self._exchange.entry = None
        return await self._miss(None, "MISS", "vary-miss")

    # --- what the origin answers

    async def _ask(self, flight: Flight | None, *, is_cacheable: bool) -> Answer:
        """Ask the origin. With a flight it is asked for the whole response, whatever the client's conditions and ranges
        are; `is_cacheable` says that the response may be stored.
        """
        try:
            return await self._asked(flight, is_cacheable=is_cacheable)
        finally:
            self._node.flights.land(flight, Landing(Came.OTHER))  # unless those who wait know more by now

    async def _asked(self, flight: Flight | None, *, is_cacheable: bool) -> Answer:
        exchange, node = self._exchange, self._node
        request_ns, purge_seq = exchange.now_ns, node.cache.purges.seq
        stale = exchange.entry if flight is None else flight.stale
        as_keyed = exchange.cache != "BYPASS"
        sent_target = exchange.plan.sent_target if as_keyed else exchange.target
        sent_host = exchange.plan.sent_host if as_keyed else b""
        origin = exchange.plan.route.origin
        parts = forwarding.request_head(
            exchange,
            node.origins.host_of(origin) or sent_host,
            node.sent,
            node.propagation,
            sent_target,
            is_stripped=flight is not None,
            forwarded_host=sent_host,
            validators=conditional.validators(flight.stale.stored) if flight is not None and flight.stale else b"",
        )
        try:
            head = partial(node.head, exchange, parts)
            fetched = await node.origins.fetch(exchange, origin, self._client, head, self._body)
        except ProxyError as error:
            self._origin_s = time.monotonic() - exchange.attempts[-1].started
            if stale is not None:
                return self._stale_instead(flight, stale, error.code, error)
            node.flights.land(flight, Landing(Came.FAILED, error=error))
            raise
        attempt = exchange.attempts[-1]
        self._origin_s = fetched.first_byte - attempt.started
        asked = Asked(exchange, fetched, attempt, request_ns, purge_seq, sent_target)
        exchange.status = fetched.status
        now_ns = time.time_ns()
        if (
            stale is not None
            and policy.is_error(fetched.status)
            and policy.stale_on_error(stale.stored, exchange.names, now_ns)
        ):
            return self._stale_instead(flight, stale, f"status-{fetched.status}", None)
        if not is_cacheable:
            node.intake.passed(asked)
            return self._fetched(fetched, is_stored=False)
        if flight is not None and stale is not None and fetched.status == 304:
            return await self._validated(asked, flight, stale)
        return self._filled(asked, flight, now_ns)

    def _stale_instead(self, flight: Flight | None, stale: Entry, why: str, error: ProxyError | None) -> Answer:
        """The origin failed: whoever may is served what is stored all the same (RFC 5861 §4)."""
        exchange = self._exchange
        exchange.now_ns = time.time_ns()
        landing = Landing(Came.STALE, stale, is_stored=True, why=why, error=error)
        self._node.flights.land(flight, landing)
        if error is not None and not policy.stale_on_error(stale.stored, exchange.names, exchange.now_ns):
            raise error
        exchange.detail = why
        return self._serve(stale, "STALE")

    async def _validated(self, asked: Asked, flight: Flight, stale: Entry) -> Answer:
        """A 304: what is stored may be used again (RFC 9111 §4.3.4), unless it says that something else is current."""
        exchange, node = self._exchange, self._node
        if not policy.answers_for(stale.stored, asked.fetched.names):
            node.intake.drop(stale)
            flight.stale = exchange.entry = None
            return await self._asked(flight, is_cacheable=True)
        entry, is_stored = node.intake.freshened(asked, stale, 200)
        exchange.now_ns = time.time_ns()
        is_shared = is_stored and is_shareable(entry.stored, exchange.plan.route.rules, exchange.now_ns)
        node.flights.land(flight, Landing(Came.VALID, entry, is_shared, is_stored))
        return self._serve(entry, "REVALIDATED")

    def _filled(self, asked: Asked, flight: Flight | None, now_ns: int) -> Answer:
        """A whole response: it fills the cache, or it is for the one who asked alone."""
        exchange, node = self._exchange, self._node
        fetched, intake = asked.fetched, node.intake
        storing, why = intake.storing(asked, now_ns)
        if why:
            is_of_request = storing.verdict.of_request
            is_outlived = is_of_request or policy.is_error(fetched.status)
            stale = None if flight is None else flight.stale
            if stale is not None and not is_outlived:
                intake.drop(stale)
            if why == "too-large" or not (is_of_request or (stale is not None and is_outlived)):
                intake.remember(exchange, why, fetched.status)
            node.flights.land(flight, Landing(Came.OTHER, forgets=not is_outlived))
            exchange.detail = why
            return self._fetched(fetched, is_stored=False)
        stored = intake.stored(asked, storing, now_ns)
        intake.put(exchange, stored, fetched.body)
        is_purged = node.cache.is_purged(exchange.plan.url, stored.tags, asked.purge_seq)
        is_shared = not is_purged and is_shareable(stored, exchange.plan.route.rules, now_ns)
        entry = Entry(stored, fetched.body)
        if len(fetched.body) <= exchange.plan.route.rules.max_object_bytes:
            node.flights.land(flight, Landing(Came.STORED, entry, is_shared, is_stored=not is_purged))
        if flight is not None and is_unchanged(exchange, stored):
            exchange.status = 304
            decoration = node.decorator.stored(exchange, entry, time.monotonic() - exchange.started, self._origin_s)
            return Answer(f"{entry.head_304}{decoration}", b"")
        return self._fetched(fetched, is_stored=True)

    def _fetched(self, fetched: Fetched, *, is_stored: bool) -> Answer:
        """The origin's response as it is."""
        exchange, node = self._exchange, self._node
        names = fetched.names
        framing = response.framing(exchange, fetched.status, has_length=b"content-length" in names)
        elapsed_s = time.monotonic() - exchange.started
        decoration = node.decorator.fetched(exchange, elapsed_s, self._origin_s, is_stored)
        lines = node.intake.kept(fetched)
        head = response.head(exchange, fetched.status, fetched.reason, lines, names, framing, decoration)
        return Answer(head.decode("latin-1").removesuffix("\r\n"), fetched.body)

    # --- what the edge answers and asks by itself

    def _own(self, status: HTTPStatus, body: bytes) -> Answer:
        """An answer of the edge's own."""
        exchange = self._exchange
        exchange.status = int(status)
        elapsed_s = time.monotonic() - exchange.started
        decoration = self._node.decorator.own(exchange, elapsed_s, self._origin_s)
        sent = b"" if exchange.method == b"HEAD" else body
        return Answer(f"{problem.head(status, len(body))}{decoration}{exchange.client.persistence(exchange)}", sent)

    def _purge(self) -> Answer:
        """PURGE, as Varnish's and Nginx's users know it: what is stored for this URL goes."""
        exchange, node = self._exchange, self._node
        if not node.may_purge.trusts(exchange.client.address):
            raise PURGE_REFUSED
        if not exchange.plan.route.cache:
            raise NOT_CACHED_HERE
        wanted = purge_request(exchange.names, exchange.plan.url)

        def given(_seq: int, error: Exception | None) -> None:
            if error is not None:
                raise purge_failed(error)

        for purge in wanted:
            node.cache.purge(purge, exchange.now_ns, given)
        return self._own(HTTPStatus.OK, problem.purged(wanted))

    def _refresh(self, entry: Entry) -> None:
        """Validate a stale response in the background, in a trace of its own (RFC 5861 §3)."""
        cause, node = self._exchange, self._node
        if cause.method == b"HEAD" or node.flights.find(cause) is not None or self._leads_nobody(entry):
            return
        if not node.flights.may_refresh(cause):
            return
        client = client_of(cause.client.address, trusted=cause.client.trusted)
        client.address_json = "null"
        exchange = Exchange(client, b"GET", cause.target, 1, cause.lines, cause.names, time.monotonic())
        exchange.host, exchange.key, exchange.cache_key = cause.host, cause.key, cause.cache_key
        exchange.plan = cause.plan
        exchange.entry = entry
        exchange.now_ns = time.time_ns()
        exchange.caused_by = response.traceparent(cause)
        node.begin(exchange, lines=())
        node.background(Case(node, exchange, self._client, b"").refresh(entry))

    async def refresh(self, entry: Entry) -> None:
        """Validate what is stored, for nobody but the cache."""
        exchange = self._exchange
        try:
            await self._miss(entry, "EXPIRED", "stale")
        except ProxyError as error:
            exchange.error = error
            exchange.status = int(error.status)
        self._node.accounts.close(exchange, 0)
