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
from edgeproxy.cache.stored import Stored
from edgeproxy.ledger import Stage
from edgeproxy.proxy import forwarding, response
from edgeproxy.proxy.errors import ProxyError
from edgeproxy.proxy.exchange import Exchange
from edgeproxy.proxy.fields import FieldLines, Names
from edgeproxy.proxy.flight import Flight, Phase, is_shareable, suits
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
        if exchange.minor and not exchange.response_started and not fetch.is_inherited:
            exchange.client.interim(response.interim_head(status, reason, lines, names))

    def head(self, fetch: "Fetch", status: int, reason: bytes, lines: FieldLines, names: Names) -> None:
        """The origin's response has begun."""
        exchange = fetch.exchange
        pipeline = self._pipeline
        pipeline.stage(exchange, Stage.FIRST_BYTE)
        if not fetch.is_inherited:
            exchange.status = status
        flight = fetch.flight
        stale = exchange.entry if flight is None else flight.stale
        if (
            stale is not None
            and policy.is_error(status)
            and policy.stale_on_error(stale.stored, exchange.names, time.time_ns())
        ):
            self._stale_instead(fetch, stale, f"status-{status}", None)
            fetch.cancel(None)
        elif not fetch.is_cacheable:
            self._invalidate(exchange, status, names)
            self._update_from_head(fetch, status, lines, names)
            self._start(fetch, status, reason, forwarding.response_lines(lines, names, self._withheld), names)
        elif flight is not None and stale is not None and status == 304:
            self._validated(fetch, flight, stale, lines, names)
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
                    self.remember(fetch.exchange, "too-large", filling.stored.status)
                else:
                    _note_stored(fetch.exchange, filling.stored)
                    pipeline.cache.put(filling.entry(), flight.claim, _asker(fetch.exchange))
                    flight.claim = None
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
        if stale is not None and not exchange.response_started and (flight is None or flight.filling is None):
            self._stale_instead(fetch, stale, error.code, error)
            return
        ending = [exchange]
        if flight is not None:
            pipeline.departures.landed(flight)
            readers, flight.readers = flight.readers, []
            ending += [*flight.released(), *(reader for reader in readers if reader is not exchange)]
        for one in ending:
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
            pipeline.cache.drop(stale, time.time_ns(), _asker(exchange))
            fetch.cancel(None)
            flight.stale = exchange.entry = None
            pipeline.departures.depart(flight, exchange)
            return
        entry, is_stored = self._freshened(fetch, stale, lines, names, 200)
        pipeline.departures.landed(flight)
        waiting = flight.released()
        exchange.flight = None
        exchange.now_ns = time.time_ns()
        if fetch.is_inherited:
            waiting.insert(0, exchange)
        else:
            pipeline.serve(exchange, entry, "REVALIDATED")
        is_shared = is_stored and is_shareable(entry.stored, exchange.plan.route.rules, exchange.now_ns)
        for one in waiting:
            if not is_stored or not suits(one, entry.stored):
                pipeline.departures.again(one)
                continue
            one.entry = entry
            if is_shared:
                pipeline.serve(one, entry, "COLLAPSED")
            else:
                pipeline.departures.go_alone(one)

    def _freshened(
        self, fetch: "Fetch", stale: Entry, lines: FieldLines, names: Names, status: int
    ) -> tuple[Entry, bool]:
        """The stored response with the fields of a 304 or a HEAD, and whether it has taken the place of the old one:
        only then is it for others, too. Where the new fields forbid that, the old one is no longer stored either.
        """
        now_ns = time.time_ns()
        asked = fetch.asked
        update = forwarding.stored_lines(forwarding.response_lines(lines, names, self._withheld), names)
        stored = stale.stored
        fields = policy.updated_fields(stored, update, names, now_ns)
        storing = policy.storing(
            b"GET", asked.target, asked.names, status, fields, asked.plan.route.rules, fetch.request_ns, now_ns
        )
        if storing.terms is None or storing.vary != stored.vary:
            if not storing.verdict.of_request:
                self._pipeline.cache.drop(stale, now_ns, _asker(fetch.exchange))
            return stale.with_stored(policy.freshened(stored, update, names, None, now_ns)), False
        tags = tags_of(names)
        fresh = msgspec.structs.replace(
            policy.freshened(stored, update, names, storing.terms, now_ns, storing.without),
            filled_by=response.traceparent(asked, fetch.attempt),
            purge_seq=fetch.purge_seq,
            tags=tags + asked.plan.route.tags if tags else stored.tags,
        )
        entry = stale.with_stored(fresh)
        _note_stored(fetch.exchange, fresh)
        flight = fetch.flight
        claim = None if flight is None else flight.claim
        is_stored = self._pipeline.cache.freshen(stale, entry, claim, _asker(fetch.exchange))
        if flight is not None and is_stored:
            flight.claim = None
        return entry, is_stored

    def _stale_instead(self, fetch: "Fetch", stale: Entry, why: str, error: ProxyError | None) -> None:
        """The origin failed: whoever may is served what is stored all the same (RFC 5861 §4). The others are told so
        where there was no answer at all, else they ask on their own.
        """
        pipeline = self._pipeline
        owner = fetch.exchange
        flight = fetch.flight
        wanting = [owner]
        if flight is not None:
            pipeline.departures.landed(flight)
            wanting += flight.released()
        now_ns = time.time_ns()
        for one in wanting:
            one.flight = None
            one.now_ns = now_ns
            if not suits(one, stale.stored):
                pipeline.departures.again(one)
            elif policy.stale_on_error(stale.stored, one.names, now_ns):
                one.detail = why
                pipeline.serve(one, stale, "STALE" if one is owner else "COLLAPSED")
            elif error is not None:
                pipeline.refuse(one, error)
            else:
                pipeline.departures.go_alone(one)

    def _filled(
        self, fetch: "Fetch", flight: Flight | None, status: int, reason: bytes, lines: FieldLines, names: Names
    ) -> None:
        """A whole response: it fills the cache, or it is its owner's alone."""
        asked = fetch.asked
        exchange = fetch.exchange
        pipeline = self._pipeline
        now_ns = time.time_ns()
        rules = asked.plan.route.rules
        kept = forwarding.response_lines(lines, names, self._withheld)
        storing = policy.storing(
            asked.method, fetch.sent_target, asked.names, status, names, rules, fetch.request_ns, now_ns
        )
        too_large = response.length(names) > rules.max_object_bytes
        if storing.terms is None or too_large:
            why = "too-large" if too_large else storing.verdict.value
            is_of_request = storing.verdict.of_request
            is_outlived = is_of_request or policy.is_error(status)
            has_stale = flight is not None and flight.stale is not None
            waiting = [] if flight is None else self._shared_nothing(fetch, flight, is_dropped=not is_outlived)
            if too_large or not (is_of_request or (has_stale and is_outlived)):
                self.remember(exchange, why, status)
            if not fetch.is_inherited:
                exchange.detail = why
                self._start(fetch, status, reason, kept, names)
            for one in waiting:
                pipeline.departures.go_alone(one)
            return
        origin = fetch.pool.origin.name
        stored = response.stored(
            asked, fetch.attempt, origin, fetch.purge_seq, status, reason, kept, names, storing, now_ns
        )
        is_whole = flight is not None
        if flight is None:
            flight = pipeline.departures.solo(fetch)
        flight.filling = Filling(stored, rules.max_object_bytes)
        flight.length = response.length(names) if b"content-length" in names else None
        flight.phase = Phase.STREAMING
        is_purged = pipeline.departures.is_purged(flight)
        flight.is_shared = not is_purged and is_shareable(stored, rules, now_ns)
        waiting = flight.released()
        if flight.is_shared:
            pipeline.departures.streams(flight)
        else:
            pipeline.departures.closed(flight)
        if fetch.is_inherited:
            exchange.flight = exchange.fetch = None
            waiting.insert(0, exchange)
        elif is_whole and is_unchanged(exchange, stored):
            pipeline.departures.unchanged(exchange, stored)
        else:
            exchange.position = 0
            flight.readers.append(exchange)
            self._start(fetch, status, reason, kept, names)
        self._share(fetch, flight, waiting, is_purged=is_purged)

    def _share(self, fetch: "Fetch", flight: Flight, waiting: list[Exchange], *, is_purged: bool) -> None:
        """A response is being stored: those who waited for it, and may have it, are fed from now on. The others look
        for theirs together where there may be one for all of them, else each for itself.
        """
        departures = self._pipeline.departures
        for one in waiting:
            if flight.matches(one):
                departures.attach(flight, one)
        if fetch.is_inherited:  # from one who has left; whoever is fed has it now
            if flight.readers:
                fetch.hand_to(flight.readers[0])
            else:
                fetch.cancel(None)
                departures.landed(flight)
        for one in waiting:
            if one.is_over or one.flight is flight:
                continue
            if flight.is_shared or is_purged:
                departures.again(one)
            else:
                one.entry = None
                departures.go_alone(one)

    def _shared_nothing(self, fetch: "Fetch", flight: Flight, *, is_dropped: bool) -> list[Exchange]:
        """A flight's response is not stored, so it is that of whose request it answers; the others go on their own."""
        pipeline = self._pipeline
        exchange = fetch.exchange
        waiting = flight.released()
        if fetch.is_inherited:
            waiting.insert(0, exchange)
            exchange.fetch = None
            fetch.cancel(None)
        fetch.flight = exchange.flight = None
        pipeline.departures.landed(flight)
        if is_dropped and flight.stale is not None:
            pipeline.cache.drop(flight.stale, time.time_ns(), _asker(exchange))
            for one in waiting:
                one.entry = None
        return waiting

    def remember(self, exchange: Exchange, why: str, status: int) -> None:
        """Note that responses to this key are not stored, so that nobody waits for one (Varnish: hit-for-miss)."""
        lifetime_ns = min(self._uncacheable_ns, ERROR_UNCACHEABLE_NS) if status >= 500 else self._uncacheable_ns
        if lifetime_ns <= 0:
            return
        now_ns = time.time_ns()
        known = self._pipeline.cache.get(exchange.cache_key, exchange.names)
        if known is not None and known.stored.uncacheable and known.stored.fresh_until_ns - now_ns > lifetime_ns // 2:
            return
        marker = response.uncacheable(exchange, why, now_ns, now_ns + lifetime_ns, self._pipeline.purge_seq)
        self._pipeline.cache.put(marker, None, _asker(exchange))

    def _invalidate(self, exchange: Exchange, status: int, names: Names) -> None:
        """Forget what an unsafe request has changed (RFC 9111 §4.4)."""
        pipeline = self._pipeline
        urls = policy.invalidated(exchange.method, status, b"http", exchange.host, exchange.target, names)
        for url in urls:
            plan = pipeline.plans.of_url(url)
            if plan is not None and plan.route.cache:
                pipeline.cache.invalidate(plan.url, time.time_ns())

    def _update_from_head(self, fetch: "Fetch", status: int, lines: FieldLines, names: Names) -> None:
        """Freshen what is stored by what a HEAD tells of it, or forget it (RFC 9111 §4.3.5)."""
        exchange = fetch.exchange
        entry = exchange.entry
        if entry is None or exchange.method != b"HEAD":
            return
        update = policy.head_update(entry.stored, len(entry.body), status, names)
        if update is HeadUpdate.FRESHEN:
            self._freshened(fetch, entry, lines, names, status)
        elif update is HeadUpdate.INVALIDATE:
            self._pipeline.cache.drop(entry, time.time_ns(), _asker(exchange))

    def _start(self, fetch: "Fetch", status: int, reason: bytes, kept: FieldLines, names: Names) -> None:
        """Begin the response of the one who owns the fetch."""
        exchange = fetch.exchange
        framing = response.framing(exchange, status, has_length=b"content-length" in names)
        elapsed_s = time.monotonic() - exchange.started
        flight = exchange.flight
        is_stored = flight is not None and flight.filling is not None
        decoration = self._pipeline.decorator.fetched(exchange, elapsed_s, fetch.origin_s(), is_stored)
        head = response.head(exchange, status, reason, kept, names, framing, decoration)
        exchange.client.start(exchange, head, framing)
        self._pipeline.stage(exchange, Stage.STREAMING)


def _asker(exchange: Exchange) -> Exchange | None:
    """For whom the store is asked: nobody where the record is out already."""
    return None if exchange.is_over else exchange


def _note_stored(exchange: Exchange, stored: Stored) -> None:
    """For the record: when the cache is given a response, and for how long that is fresh."""
    exchange.stored_at_s = time.monotonic() - exchange.started
    exchange.cache_ttl = (stored.fresh_until_ns - time.time_ns()) // 1_000_000_000
