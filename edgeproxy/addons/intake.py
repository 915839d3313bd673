"""What an origin's response means for the cache: what is stored, freshened, forgotten, and what is remembered not to be
stored.

The same decisions as the fast engine's (`proxy.arrivals`), by the same functions. Knows no flow; who is answered with
what is `cases`' business.
"""

import time
from typing import NamedTuple

import msgspec

from edgeproxy.addons.errand import Fetched
from edgeproxy.cache import Entry, policy, tags_of
from edgeproxy.cache.policy import HeadUpdate, Storing
from edgeproxy.cache.stored import Stored
from edgeproxy.cache.tiers import Tiers
from edgeproxy.proxy import forwarding, response
from edgeproxy.proxy.arrivals import ERROR_UNCACHEABLE_NS
from edgeproxy.proxy.exchange import Exchange
from edgeproxy.proxy.fields import FieldLines
from edgeproxy.proxy.plan import Plans
from edgeproxy.proxy.upstream.attempt import Attempt


class Asked(NamedTuple):
    """A request as it went to an origin, and what came back."""

    exchange: Exchange
    fetched: Fetched
    attempt: Attempt
    request_ns: int
    """When it was made, nanoseconds since the epoch."""
    purge_seq: int
    """The last purge rule by then."""
    sent_target: bytes


class Intake:
    """One cache's."""

    def __init__(self, cache: Tiers, plans: Plans, uncacheable_ns: int, *, sends_tags: bool) -> None:
        """`uncacheable_ns` is how long it is remembered that a key's responses are not stored, `sends_tags` whether
        clients get to see what an origin tags its responses with.
        """
        self._cache = cache
        self._plans = plans
        self._uncacheable_ns = uncacheable_ns
        self._withheld = forwarding.withheld(sends_tags=sends_tags)

    def kept(self, fetched: Fetched) -> FieldLines:
        """The fields that go to the client."""
        return forwarding.response_lines(fetched.lines, fetched.names, self._withheld)

    def storing(self, asked: Asked, now_ns: int) -> tuple[Storing, str]:
        """Whether a response is to be stored, and why not; empty where it is."""
        exchange, fetched = asked.exchange, asked.fetched
        rules = exchange.plan.route.rules
        storing = policy.storing(
            exchange.method,
            asked.sent_target,
            exchange.names,
            fetched.status,
            fetched.names,
            rules,
            asked.request_ns,
            now_ns,
        )
        if response.length(fetched.names) > rules.max_object_bytes:
            return storing, "too-large"
        return storing, "" if storing.terms is not None else storing.verdict.value

    def stored(self, asked: Asked, storing: Storing, now_ns: int) -> Stored:
        """What is kept of a response's head."""
        fetched = asked.fetched
        return response.stored(
            asked.exchange,
            asked.attempt,
            asked.exchange.plan.route.origin,
            asked.purge_seq,
            fetched.status,
            fetched.reason,
            self.kept(fetched),
            fetched.names,
            storing,
            now_ns,
        )

    def put(self, exchange: Exchange, stored: Stored, body: bytes) -> None:
        """Store a response; one that turns out too large is remembered as such."""
        if len(body) > exchange.plan.route.rules.max_object_bytes:
            self.remember(exchange, "too-large", stored.status)
            return
        _note_stored(exchange, stored)
        self._cache.put(Entry(stored, body))

    def freshened(self, asked: Asked, stale: Entry, status: int) -> tuple[Entry, bool]:
        """The stored response with the fields of a 304 or a HEAD, and whether it has taken the place of the old one;
        where the new fields forbid that, the old one is no longer stored either.
        """
        now_ns = time.time_ns()
        exchange, names = asked.exchange, asked.fetched.names
        update = forwarding.stored_lines(self.kept(asked.fetched), names)
        stored = stale.stored
        fields = policy.updated_fields(stored, update, names, now_ns)
        rules = exchange.plan.route.rules
        storing = policy.storing(
            b"GET", exchange.target, exchange.names, status, fields, rules, asked.request_ns, now_ns
        )
        if storing.terms is None or storing.vary != stored.vary:
            if not storing.verdict.of_request:
                self.drop(stale)
            return stale.with_stored(policy.freshened(stored, update, names, None, now_ns)), False
        tags = tags_of(names)
        fresh = msgspec.structs.replace(
            policy.freshened(stored, update, names, storing.terms, now_ns, storing.without),
            filled_by=response.traceparent(exchange, asked.attempt),
            purge_seq=asked.purge_seq,
            tags=tags + exchange.plan.route.tags if tags else stored.tags,
        )
        entry = stale.with_stored(fresh)
        _note_stored(exchange, fresh)
        return entry, self._cache.freshen(stale, entry)

    def drop(self, entry: Entry) -> None:
        """Forget a response and its siblings."""
        self._cache.drop(entry, time.time_ns())

    def remember(self, exchange: Exchange, why: str, status: int) -> None:
        """Note that responses to this key are not stored, so that nobody waits for one."""
        lifetime_ns = min(self._uncacheable_ns, ERROR_UNCACHEABLE_NS) if status >= 500 else self._uncacheable_ns
        if lifetime_ns <= 0:
            return
        now_ns = time.time_ns()
        known = self._cache.get(exchange.cache_key, exchange.names)
        if known is None or not known.stored.uncacheable or known.stored.fresh_until_ns - now_ns <= lifetime_ns // 2:
            until_ns = now_ns + lifetime_ns
            self._cache.put(response.uncacheable(exchange, why, now_ns, until_ns, self._cache.purges.seq))

    def passed(self, asked: Asked) -> None:
        """A response went by that is not stored: it may make invalid what is (RFC 9111 §4.4), or freshen it
        (§4.3.5).
        """
        exchange, fetched = asked.exchange, asked.fetched
        scheme = exchange.key.partition(b":")[0]
        changed = policy.invalidated(
            exchange.method, fetched.status, scheme, exchange.host, exchange.target, fetched.names
        )
        for url in changed:
            plan = self._plans.of_url(url)
            if plan is not None and plan.route.cache:
                self._cache.invalidate(scheme + plan.url[plan.url.index(b":") :], time.time_ns())
        entry = exchange.entry
        if entry is None or exchange.method != b"HEAD":
            return
        update = policy.head_update(entry.stored, len(entry.body), fetched.status, fetched.names)
        if update is HeadUpdate.FRESHEN:
            self.freshened(asked, entry, fetched.status)
        elif update is HeadUpdate.INVALIDATE:
            self.drop(entry)


def _note_stored(exchange: Exchange, stored: Stored) -> None:
    """For the record: when the cache is given a response, and for how long that is fresh."""
    exchange.stored_at_s = time.monotonic() - exchange.started
    exchange.cache_ttl = (stored.fresh_until_ns - time.time_ns()) // 1_000_000_000
