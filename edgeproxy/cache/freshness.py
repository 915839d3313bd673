"""How long a response is fresh, and how old it is already (RFC 9111 §4.2). Pure: `policy` asks, this answers."""

import msgspec

from edgeproxy.cache.dates import http_date_ns
from edgeproxy.cache.directives import MAX_DELTA_S, SECOND_NS, Control, Fields, delta_seconds
from edgeproxy.cache.rules import Rules

HEURISTIC_PART = 10
"""A tenth of the time since Last-Modified, as RFC 9111 §4.2.2 suggests."""
HEURISTIC_MAX_NS = 86_400 * SECOND_NS
MAX_DELTA_NS = MAX_DELTA_S * SECOND_NS
"""No lifetime and no age counts as longer: sums of them and of a time still fit 64 bits."""
HEURISTIC = frozenset({200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501})
"""Statuses that may be stored and be fresh though nothing says so (RFC 9110 §15.1)."""

_OF_THE_REQUEST = frozenset({400, 408, 411, 413, 415, 417, 421, 426})
"""Errors about how something was asked for, which the key does not tell: a route's own lifetimes leave them out, or one
malformed request would be everybody's answer.
"""


class Terms(msgspec.Struct, frozen=True, gc=False):
    """On what terms a response is stored."""

    lifetime_ns: int
    """Freshness lifetime (RFC 9111 §4.2.1), counted from when its age was 0."""
    age_ns: int
    """Age that the response had when it arrived (§4.2.3)."""
    stale_while_revalidate_ns: int = 0
    stale_if_error_ns: int = 0
    must_revalidate: bool = False
    """Whether it may never be reused stale (§5.2.2.2)."""

    @property
    def fresh(self) -> bool:
        """Whether it is fresh on arrival: only then may it answer others that wait for the same."""
        return self.lifetime_ns > self.age_ns


def initial_age_ns(response: Fields, request_ns: int, response_ns: int) -> int:
    """Corrected initial age of a response received now (RFC 9111 §4.2.3).

    Of several Age values the first counts, an invalid one not at all (§5.1); nor does a Date that is no date, or ahead.
    Date is held against whole seconds, as it has no others: what was made within this second is not old.
    """
    corrected = response_ns - request_ns if response_ns > request_ns else 0
    if b"age" in response:
        corrected += (delta_seconds(response[b"age"].split(b",", 1)[0].strip()) or 0) * SECOND_NS
    date = http_date_ns(response.get(b"date"), response_ns)
    apparent = 0 if date is None else response_ns - response_ns % SECOND_NS - date
    return min(max(apparent, corrected), MAX_DELTA_NS)


def lifetime(
    status: int, response: Fields, control: Control, rules: Rules, age_ns: int, response_ns: int
) -> tuple[int | None, bool]:
    """Freshness lifetime in a shared cache (RFC 9111 §4.2.1, §4.2.2), and whether the origin left it unsaid.

    The route's own lifetimes count from the response's arrival: its age is added. `ttl` is for success and redirects
    only; nor is an error about how something was asked for (`_OF_THE_REQUEST`) ever kept on the route's word.
    """
    if rules.ttl_ns is not None and status < 400:
        return rules.ttl_ns + age_ns, True
    stated = _stated_ns(response, control, response_ns)
    if stated is not None:
        bounded = max(rules.ttl_min_ns, stated)
        if rules.ttl_max_ns is not None and bounded > rules.ttl_max_ns:
            bounded = rules.ttl_max_ns
        return bounded, bounded > stated
    if status in _OF_THE_REQUEST:
        return None, True
    if status in rules.status_ttl_ns:
        return rules.status_ttl_ns[status] + age_ns, True
    if not (control.public or status in HEURISTIC):
        return None, True
    if rules.default_ttl_ns is not None:
        return rules.default_ttl_ns + age_ns, True
    return (_heuristic_ns(response, response_ns) if rules.heuristic else None), True


def _heuristic_ns(response: Fields, response_ns: int) -> int | None:
    modified = http_date_ns(response.get(b"last-modified"), response_ns)
    if modified is None:
        return None
    date = http_date_ns(response.get(b"date"), response_ns)
    unchanged_ns = (response_ns if date is None else date) - modified
    return min(unchanged_ns // HEURISTIC_PART, HEURISTIC_MAX_NS) if unchanged_ns > 0 else None


def _stated_ns(response: Fields, control: Control, response_ns: int) -> int | None:
    """s-maxage, else max-age, else Expires less Date; 0 when what is stated is invalid, which counts as stale."""
    if control.lifetime_s is not None:
        return control.lifetime_s * SECOND_NS
    if control.targeted or b"expires" not in response:
        return None
    expires = http_date_ns(response[b"expires"], response_ns)
    if expires is None:
        return 0
    date = http_date_ns(response.get(b"date"), response_ns)
    return min(max(0, expires - (response_ns if date is None else date)), MAX_DELTA_NS)


def terms_of(status: int, control: Control, lifetime_ns: int | None, age_ns: int, rules: Rules) -> Terms:
    """The terms of a response with this lifetime: how long it may be served stale, which the route may make longer
    where the origin has not ruled it out (RFC 5861, RFC 9111 §4.2.4), where anything says that it was ever fresh, and
    where it is no failure, which nobody wants to see longer than need be.
    """
    if control.must_revalidate:
        return Terms(0 if control.no_cache else lifetime_ns or 0, age_ns, 0, 0, True)
    revalidate_ns = control.stale_while_revalidate_s * SECOND_NS
    error_ns = control.stale_if_error_s * SECOND_NS
    if lifetime_ns is None or status >= 500:
        return Terms(lifetime_ns or 0, age_ns, revalidate_ns, error_ns)
    return Terms(
        lifetime_ns,
        age_ns,
        max(revalidate_ns, rules.stale_while_revalidate_ns),
        max(error_ns, rules.stale_if_error_ns),
    )
