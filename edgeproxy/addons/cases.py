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
from http import HTTPStatus

from edgeproxy.addons.answers import Answer
from edgeproxy.addons.asking import Asking
from edgeproxy.addons.flights import Flight, Landing, Outcome
from edgeproxy.cache import Entry, conditional, policy
from edgeproxy.cache.policy import Reuse
from edgeproxy.cache.purge import purge_request
from edgeproxy.cache.status import Forward
from edgeproxy.ledger import CacheWord, Stage
from edgeproxy.proxy import problem, response
from edgeproxy.proxy.background import OthersClient
from edgeproxy.proxy.errors import ProxyError
from edgeproxy.proxy.exchange import Exchange
from edgeproxy.proxy.flight import is_shareable, suits
from edgeproxy.proxy.refusals import NOT_CACHED, NOT_CACHED_HERE, PURGE_REFUSED, TRACE_REFUSED, purge_failed


class Case(Asking):
    """One request's."""

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
        entry = self._node.cache.get(key, names)
        if entry is None or (exchange.now_ns >= entry.stored.fresh_until_ns and not self._node.flights.find(exchange)):
            exchange.stage = Stage.LOOKUP
        exchange.lookup_s = 0.0
        return await self._decide(entry)

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
            told = Landing(Outcome.OTHER)
        exchange.now_ns = time.time_ns()
        entry = told.entry
        if told.forgets:
            exchange.entry = None
        if told.outcome is Outcome.FAILED and told.error is not None:
            raise told.error
        if entry is None:
            return await self._go_alone()
        if not suits(exchange, entry.stored) or not told.is_stored:
            return await self._again()
        if told.outcome is Outcome.STALE:
            if policy.stale_on_error(entry.stored, exchange.names, exchange.now_ns):
                exchange.detail = told.why
                return self._serve(entry, "COLLAPSED")
            if told.error is not None:
                raise told.error
            return await self._go_alone()
        if told.is_shared:
            return self._serve(entry, "COLLAPSED")
        exchange.entry = entry if told.outcome is Outcome.VALID else None
        return await self._go_alone()

    async def _again(self) -> Answer:
        """What this one waited for is not for it: look for the right one."""
        self._exchange.entry = None
        return await self._miss(None, "MISS", "vary-miss")

    # --- what the edge does by itself

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
        client = OthersClient(cause.client.address, cause.client.trusted)
        client.address_json = "null"
        exchange = Exchange(client, b"GET", cause.target, 1, cause.lines, cause.names, time.monotonic())
        exchange.host, exchange.key, exchange.cache_key = cause.host, cause.key, cause.cache_key
        exchange.plan = cause.plan
        exchange.entry = entry
        exchange.now_ns = time.time_ns()
        exchange.caused_by = response.traceparent(cause)
        node.begin(exchange, lines=())
        node.background(Case(node, exchange, self._came).refresh(entry))

    async def refresh(self, entry: Entry) -> None:
        """Validate what is stored, for nobody but the cache."""
        exchange = self._exchange
        try:
            await self._miss(entry, "EXPIRED", "stale")
        except ProxyError as error:
            exchange.error = error
            exchange.status = int(error.status)
        self._node.accounts.close(exchange, 0)
