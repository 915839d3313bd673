"""Asking an origin, and what becomes of its answer: the stored response freshened, a stale one instead, a new one that
is stored, or one for the client alone. The decisions of the fast engine's `arrivals`, in their order.
"""

import time
from functools import partial
from typing import NamedTuple

from mitmproxy import connection

from edgeproxy.addons.answers import Answer, Answering
from edgeproxy.addons.flights import Flight, Landing, Outcome
from edgeproxy.addons.heads import received_by
from edgeproxy.addons.intake import Asked
from edgeproxy.addons.node import Node
from edgeproxy.cache import Entry, conditional, policy
from edgeproxy.proxy import forwarding
from edgeproxy.proxy.errors import ProxyError
from edgeproxy.proxy.exchange import Exchange
from edgeproxy.proxy.flight import is_shareable
from edgeproxy.proxy.serving import is_unchanged


class Came(NamedTuple):
    """How a request came, as far as an exchange does not say it."""

    client: connection.Client
    body: bytes
    http_version: str
    """As mitmproxy writes it."""


class Asking(Answering):
    """One request that may have to go to an origin."""

    def __init__(self, node: Node, exchange: Exchange, came: Came) -> None:
        """Answer a request that came so."""
        super().__init__(node, exchange)
        self._came = came

    async def _ask(self, flight: Flight | None, *, is_cacheable: bool) -> Answer:
        """Ask the origin. With a flight it is asked for the whole response, whatever the client's conditions and ranges
        are; `is_cacheable` says that the response may be stored.
        """
        try:
            return await self._asked(flight, is_cacheable=is_cacheable)
        finally:
            self._node.flights.land(flight, Landing(Outcome.OTHER))  # unless those who wait know more by now

    async def _asked(self, flight: Flight | None, *, is_cacheable: bool) -> Answer:
        exchange, node = self._exchange, self._node
        request_ns, purge_seq = exchange.now_ns, node.cache.purges.seq
        stale = exchange.entry if flight is None else flight.stale
        as_keyed = exchange.cache != "BYPASS"
        sent_target = exchange.plan.sent_target if as_keyed else exchange.target
        sent_host = exchange.plan.sent_host if as_keyed else b""
        origin = exchange.plan.route.origin
        first, rest = forwarding.request_head(
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
            head = partial(node.head, exchange, (first, received_by(rest, self._came.http_version)))
            fetched = await node.origins.fetch(exchange, origin, self._came.client, head, self._came.body)
        except ProxyError as error:
            self._origin_s = time.monotonic() - exchange.attempts[-1].started
            if stale is not None:
                return self._stale_instead(flight, stale, error.code, error)
            node.flights.land(flight, Landing(Outcome.FAILED, error=error))
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
        if error is None:
            exchange.attempts[-1].transfer_s = None  # on the edge, what follows on the head is not waited for
        landing = Landing(Outcome.STALE, stale, is_stored=True, why=why, error=error)
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
            asked.attempt.transfer_s = None  # as in `_stale_instead`
            flight.stale = exchange.entry = None
            return await self._asked(flight, is_cacheable=True)
        entry, is_stored = node.intake.freshened(asked, stale, 200)
        asked.attempt.transfer_s = None  # as in `_stale_instead`
        exchange.now_ns = time.time_ns()
        is_shared = is_stored and is_shareable(entry.stored, exchange.plan.route.rules, exchange.now_ns)
        node.flights.land(flight, Landing(Outcome.VALID, entry, is_shared, is_stored))
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
            node.flights.land(flight, Landing(Outcome.OTHER, forgets=not is_outlived))
            exchange.detail = why
            return self._fetched(fetched, is_stored=False)
        stored = intake.stored(asked, storing, now_ns)
        intake.put(exchange, stored, fetched.body)
        is_purged = node.cache.is_purged(exchange.plan.url, stored.tags, asked.purge_seq)
        is_shared = not is_purged and is_shareable(stored, exchange.plan.route.rules, now_ns)
        entry = Entry(stored, fetched.body)
        if len(fetched.body) <= exchange.plan.route.rules.max_object_bytes:
            node.flights.land(flight, Landing(Outcome.STORED, entry, is_shared, is_stored=not is_purged))
        if flight is not None and is_unchanged(exchange, stored):
            exchange.stored_at_s = exchange.cache_ttl = asked.attempt.transfer_s = None  # as in `_stale_instead`
            return self._unchanged(entry)
        return self._fetched(fetched, is_stored=True)
