"""What becomes of what origins answer, from the head to the end:

    head ─► 304 to a validation ─► the stored response, freshened ─► all who want it
       ├──► an error, and a stale response may be served ──────────► all who want it
       ├──► may be stored ─► the cache fills; all who want it are fed as it comes
       └──► may not ─────► to the one who owns the fetch; the others go on their own

Decisions are `cache.policy`'s; who wants a response, and has had how much of it, is `flight`'s business.
"""

import time
from typing import TYPE_CHECKING

import msgspec

from edgeproxy.cache import Entry, Filling, policy, tags_of
from edgeproxy.cache.policy import HeadUpdate
from edgeproxy.ledger import Stage
from edgeproxy.proxy import forwarding, response
from edgeproxy.proxy.errors import ProxyError
from edgeproxy.proxy.exchange import Exchange
from edgeproxy.proxy.fields import FieldLines, Names
from edgeproxy.proxy.flight import Flight, Phase, suits
from edgeproxy.proxy.serving import is_unchanged

if TYPE_CHECKING:
    from edgeproxy.proxy.pipeline import Pipeline
    from edgeproxy.proxy.upstream.fetch import Fetch

ERROR_UNCACHEABLE_NS = 1_000_000_000
"""For how long it is remembered that a key's responses are not stored where the response was an error."""


class Arrivals:
    """The origin's side of one worker's request path."""

    def __init__(self, pipeline: "Pipeline", uncacheable_ns: int, *, sends_tags: bool) -> None:
        """Serve a pipeline; `uncacheable_ns` is how long it is remembered that a key's responses are not stored,
        `sends_tags` whether clients get to see what an origin tags its responses with.
        """
        self._pipeline = pipeline
        self._withheld = forwarding.withheld(sends_tags=sends_tags)
        self._uncacheable_ns = uncacheable_ns

    # --- the fetch's calls

    def interim(self, fetch: "Fetch", status: int, reason: bytes, lines: FieldLines, names: Names) -> None:
        """The origin sent a 1xx response: pass it on to those who know what that is (RFC 9110 §15.2)."""
        exchange = fetch.exchange
        if exchange.minor and not exchange.response_started:
            exchange.client.interim(response.interim_head(status, reason, lines, names))

    def head(self, fetch: "Fetch", status: int, reason: bytes, lines: FieldLines, names: Names) -> None:
        """The origin's response has begun."""
        exchange = fetch.exchange
        pipeline = self._pipeline
        pipeline.stage(exchange, Stage.FIRST_BYTE)
        exchange.status = exchange.origin_status = status
        if not fetch.is_cacheable:
            self._invalidate(exchange, status, names)
            self._update_from_head(exchange, status, lines, names, fetch.request_ns)
            self._start(fetch, status, reason, forwarding.response_lines(lines, names, self._withheld), names)
            return
        flight = fetch.flight
        stale = None if flight is None else flight.stale
        if flight is None or stale is None:
            self._filled(fetch, flight, status, reason, lines, names)
        elif status == 304:
            self._validated(fetch, flight, stale, lines, names)
        elif policy.is_error(status) and policy.stale_on_error(stale.stored, exchange.names, time.time_ns()):
            self._stale_instead(flight, stale)
            fetch.cancel(None)
        else:
            self._filled(fetch, flight, status, reason, lines, names)

    def body(self, fetch: "Fetch", data: bytes) -> None:
        """A piece of the response's body: to the client, or to all who are fed from what is stored."""
        flight = fetch.flight
        if flight is not None and flight.filling is not None:
            flight.feed(data)
            return
        exchange = fetch.exchange
        exchange.bytes_out += len(data)
        exchange.client.send(data)

    def end(self, fetch: "Fetch", trailers: FieldLines | None) -> None:
        """The response is whole: store it, end the clients' responses."""
        pipeline = self._pipeline
        flight = fetch.flight
        if flight is not None:
            filling = flight.filling
            if filling is not None:
                flight.trailers = trailers
                if filling.is_too_large:
                    self._remember(fetch.exchange, "too-large", filling.stored.status)
                else:
                    pipeline.cache.put(filling.entry(), is_claimed=flight.claimed)
                    flight.claimed = False
                pipeline.departures.landed(flight)
                flight.land()
                return
            pipeline.departures.landed(flight)
        exchange = fetch.exchange
        if not exchange.is_over:
            exchange.client.end(exchange, trailers)
            pipeline.done(exchange)

    def failed(self, fetch: "Fetch", error: ProxyError) -> None:
        """The origin gave no whole response: a stale one instead, or tell the clients so, or cut off what has begun."""
        pipeline = self._pipeline
        exchange = fetch.exchange
        flight = fetch.flight
        stale = exchange.entry if flight is None else flight.stale
        may_be_stale = stale is not None and policy.stale_on_error(stale.stored, exchange.names, time.time_ns())
        if flight is None:
            if exchange.response_started:
                pipeline.broken(exchange, error)
            elif stale is not None and may_be_stale:
                exchange.detail = error.code
                pipeline.serve(exchange, stale, "STALE")
            else:
                pipeline.refuse(exchange, error)
            return
        if stale is not None and may_be_stale and not exchange.response_started:
            self._stale_instead(flight, stale, error.code)
            return
        pipeline.departures.landed(flight)
        readers, flight.readers = flight.readers, []
        for one in [exchange, *flight.released(), *(reader for reader in readers if reader is not exchange)]:
            one.flight = None
            if one.is_over:
                continue
            if one.response_started:
                pipeline.broken(one, error)
            else:
                pipeline.refuse(one, error)

    # --- what a response means for the cache

    def _validated(self, fetch: "Fetch", flight: Flight, stale: Entry, lines: FieldLines, names: Names) -> None:
        """A 304: what is stored may be used again (RFC 9111 §4.3.4)."""
        exchange = fetch.exchange
        pipeline = self._pipeline
        if not policy.answers_for(stale.stored, names):
            # It says that something else is current: ask for that.
            pipeline.cache.drop(stale)
            fetch.cancel(None)
            flight.stale = exchange.entry = None
            pipeline.departures.depart(flight, exchange)
            return
        entry, is_shareable = self._freshened(exchange, stale, lines, names, fetch.request_ns, 200)
        pipeline.departures.landed(flight)
        exchange.flight = None
        waiting = flight.released()
        pipeline.serve(exchange, entry, "REVALIDATED")
        if is_shareable:
            self._share(waiting, entry)
            return
        for one in waiting:
            pipeline.departures.again(one)

    def _freshened(
        self, exchange: Exchange, stale: Entry, lines: FieldLines, names: Names, request_ns: int, status: int
    ) -> tuple[Entry, bool]:
        """The stored response with the fields of a 304 or a HEAD, and whether it has taken the place of the old one:
        only then is it for others, too. Where the new fields forbid that, the old one is no longer stored either.
        """
        now_ns = time.time_ns()
        update = forwarding.stored_lines(forwarding.response_lines(lines, names, self._withheld), names)
        stored = stale.stored
        fields = policy.updated_fields(stored, update, names, now_ns)
        storing = policy.storing(
            b"GET", exchange.target, exchange.names, status, fields, exchange.plan.route.rules, request_ns, now_ns
        )
        if storing.terms is None or storing.vary != stored.vary:
            if not storing.verdict.of_request:
                self._pipeline.cache.drop(stale)
            return stale.with_stored(policy.freshened(stored, update, names, None, now_ns)), False
        fresh = policy.freshened(stored, update, names, storing.terms, now_ns, storing.without)
        fetch = exchange.fetch
        if fetch is not None:
            fresh = msgspec.structs.replace(
                fresh,
                filled_by=response.filled_by(exchange, fetch.attempt),
                purge_seq=fetch.purge_seq,
                tags=tags_of(names) or stored.tags,
            )
        entry = stale.with_stored(fresh)
        return entry, self._pipeline.cache.freshen(stale, entry)

    def _stale_instead(self, flight: Flight, stale: Entry, why: str = "") -> None:
        """The origin failed, and what is stored may be served all the same (RFC 5861 §4)."""
        pipeline = self._pipeline
        fetch = flight.fetch
        waiting = flight.released()
        pipeline.departures.landed(flight)
        if fetch is not None:
            exchange = fetch.exchange
            exchange.flight = None
            exchange.detail = why or f"status-{exchange.origin_status}"
            pipeline.serve(exchange, stale, "STALE")
        self._share(waiting, stale)

    def _share(self, waiting: list[Exchange], entry: Entry) -> None:
        """Answer those who waited for a validation; whose request selects another response goes on its own."""
        pipeline = self._pipeline
        stored = entry.stored
        for exchange in waiting:
            if suits(exchange, stored):
                exchange.entry = entry
                pipeline.serve(exchange, entry, "COLLAPSED")
            else:
                pipeline.departures.again(exchange)

    def _filled(
        self, fetch: "Fetch", flight: Flight | None, status: int, reason: bytes, lines: FieldLines, names: Names
    ) -> None:
        """A whole response: it fills the cache, or it is its owner's alone."""
        exchange = fetch.exchange
        pipeline = self._pipeline
        now_ns = time.time_ns()
        rules = exchange.plan.route.rules
        kept = forwarding.response_lines(lines, names, self._withheld)
        storing = policy.storing(
            exchange.method, fetch.sent_target, exchange.names, status, names, rules, fetch.request_ns, now_ns
        )
        too_large = response.length(names) > rules.max_object_bytes
        if storing.terms is None or too_large:
            exchange.detail = "too-large" if too_large else storing.verdict.value
            is_kept = flight is not None and flight.stale is not None and policy.is_error(status)
            if too_large or not (is_kept or storing.verdict.of_request or status in _OF_REQUEST):
                self._remember(exchange, exchange.detail, status)
            waiting = [] if flight is None else self._shared_nothing(fetch, flight, status)
            self._start(fetch, status, reason, kept, names)
            for one in waiting:
                pipeline.departures.go_alone(one)
            return
        if flight is None:
            flight = pipeline.departures.solo(fetch)
            is_stripped = False
        else:
            is_stripped = True
        stored = response.stored(exchange, fetch, status, reason, kept, names, storing, now_ns)
        exchange.is_stored = True
        flight.filling = Filling(stored, rules.max_object_bytes)
        flight.length = response.length(names) if b"content-length" in names else None
        flight.phase = Phase.STREAMING
        pipeline.departures.streams(flight)
        exchange.position = 0
        flight.readers.append(exchange)
        if is_stripped and is_unchanged(exchange, stored):
            pipeline.departures.mute(exchange, stored)
        else:
            self._start(fetch, status, reason, kept, names)
        is_purged = pipeline.departures.is_purged(flight)
        for one in flight.released():
            if flight.matches(one) and not is_purged:
                pipeline.departures.attach(flight, one)
            else:
                pipeline.departures.again(one)

    def _shared_nothing(self, fetch: "Fetch", flight: Flight, status: int) -> list[Exchange]:
        """A flight's response is not stored, so it is its owner's alone; the others, who go on their own."""
        pipeline = self._pipeline
        if flight.stale is not None and not policy.is_error(status):
            pipeline.cache.drop(flight.stale)
        fetch.flight = fetch.exchange.flight = None
        pipeline.departures.landed(flight)
        return flight.released()

    def _remember(self, exchange: Exchange, why: str, status: int) -> None:
        """Note that responses to this key are not stored, so that nobody waits for one (Varnish: hit-for-miss)."""
        lifetime_ns = min(self._uncacheable_ns, ERROR_UNCACHEABLE_NS) if status >= 500 else self._uncacheable_ns
        if lifetime_ns <= 0:
            return
        now_ns = time.time_ns()
        known = self._pipeline.cache.get(exchange.cache_key, exchange.names)
        if known is not None and known.stored.uncacheable and known.stored.fresh_until_ns - now_ns > lifetime_ns // 2:
            return
        marker = response.uncacheable(exchange, why, now_ns, now_ns + lifetime_ns, self._pipeline.purge_seq)
        self._pipeline.cache.put(marker)

    def _invalidate(self, exchange: Exchange, status: int, names: Names) -> None:
        """Forget what an unsafe request has changed (RFC 9111 §4.4)."""
        if exchange.method in _SAFE:
            return
        pipeline = self._pipeline
        urls = policy.invalidated(exchange.method, status, b"http", exchange.host, exchange.target, names)
        for url in urls:
            plan = pipeline.plans.of_url(url)
            if plan is not None and plan.route.cache:
                pipeline.cache.invalidate(plan.url, time.time_ns())

    def _update_from_head(
        self, exchange: Exchange, status: int, lines: FieldLines, names: Names, request_ns: int
    ) -> None:
        """Freshen what is stored by what a HEAD tells of it, or forget it (RFC 9111 §4.3.5)."""
        entry = exchange.entry
        if entry is None or exchange.method != b"HEAD":
            return
        update = policy.head_update(entry.stored, len(entry.body), status, names)
        if update is HeadUpdate.FRESHEN:
            self._freshened(exchange, entry, lines, names, request_ns, status)
        elif update is HeadUpdate.INVALIDATE:
            self._pipeline.cache.drop(entry)

    def _start(self, fetch: "Fetch", status: int, reason: bytes, kept: FieldLines, names: Names) -> None:
        """Begin the response of the one who owns the fetch."""
        exchange = fetch.exchange
        framing = response.framing(exchange, status, names)
        elapsed_s = time.monotonic() - exchange.started
        decoration = self._pipeline.decorator.fetched(exchange, elapsed_s)
        head = response.head(exchange, status, reason, kept, names, framing, decoration)
        exchange.client.start(exchange, head, framing)
        self._pipeline.stage(exchange, Stage.STREAMING)


_SAFE = frozenset({b"GET", b"HEAD", b"OPTIONS", b"TRACE"})
_OF_REQUEST = frozenset({206, 304, 412, 416})
"""Statuses that answer a request's conditions and ranges, and say nothing of whether the whole may be stored."""
