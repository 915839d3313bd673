"""RFC 9111 as pure functions, one a question: may a response be stored, may it be reused, what does a validation
update, what does an unsafe method invalidate. RFC 5861 (stale responses) and RFC 9213 (targeted fields) with it.

Values in, decisions out; no I/O and no clock: `now` is a parameter, in nanoseconds since the epoch. What fields say is
read in `directives` and `dates`, how long it makes a response fresh is worked out in `freshness`; what a path or a
request's unkeyed fields give away is judged in `poisoning`; what changes later stands in `updates` and `invalidation`.
"""

from enum import Enum
from functools import lru_cache

import msgspec

from edgeproxy.cache import poisoning
from edgeproxy.cache.directives import SECOND_NS, Asked, Control, Fields, asked_by, control_of, field_names
from edgeproxy.cache.freshness import HEURISTIC, Terms, initial_age_ns, lifetime, terms_of
from edgeproxy.cache.invalidation import invalidated
from edgeproxy.cache.rules import Rules, SetCookie
from edgeproxy.cache.stored import Stored
from edgeproxy.cache.updates import (
    HeadUpdate,
    answers_for,
    freshened,
    head_update,
    updated_fields,
    updated_lines,
)

__all__ = [
    "SECOND_NS",
    "Fields",
    "HeadUpdate",
    "Reuse",
    "Storing",
    "Terms",
    "Verdict",
    "answers_for",
    "freshened",
    "head_update",
    "invalidated",
    "is_error",
    "only_if_cached",
    "reuse",
    "stale_on_error",
    "storing",
    "updated_fields",
    "updated_lines",
]

_VARY_BYTES_MAX = 1024

_UNDERSTOOD = frozenset(
    {
        *(200, 201, 202, 203, 204, 205, 300, 301, 302, 303, 305, 307, 308),
        *(400, 401, 402, 403, 404, 405, 406, 407, 408, 409, 410, 411, 413, 414, 415, 417, 421, 422, 426, 451),
        *(500, 501, 502, 503, 504, 505),
    }
)
"""Statuses whose requirements on caching are known here (RFC 9111 §3, §5.2.2.3)."""
_NEVER = frozenset({428, 429, 431, 511})
"""Statuses that no cache may store (RFC 6585)."""
_PARTIAL = frozenset({206, 304, 412, 416})
"""Answers to a request's own Range and conditions. Parts are not combined (RFC 9111 §3.3, §3.4), so not stored."""
_REWRITTEN = frozenset(
    {
        *(b"x-forwarded-for", b"forwarded", b"via", b"x-request-id", b"x-trace-id", b"traceparent", b"tracestate"),
        *(b"b3", b"x-b3-traceid", b"x-b3-spanid", b"x-b3-parentspanid", b"x-b3-sampled", b"x-b3-flags"),
        *(b"uber-trace-id", b"baggage"),
        *(b"connection", b"keep-alive", b"proxy-connection", b"proxy-authorization", b"te", b"transfer-encoding"),
        *(b"upgrade", b"http2-settings", b"range", b"if-range"),
        *(b"if-match", b"if-none-match", b"if-modified-since", b"if-unmodified-since"),
    }
)
"""Request fields that reach the origin with another value than the client sent, or not at all: what varies by one can't
be told apart by it.
"""
_ERRORS = frozenset({500, 502, 503, 504})


class Verdict(Enum):
    """Why a response may or may not be stored; the value stands in logs and in Cache-Status."""

    STORE = "stored"
    METHOD = "method"
    STATUS = "status"
    PARTIAL = "partial"
    """It answers a Range or a condition of this one request."""
    REQUEST_NO_STORE = "request-no-store"
    UNKEYED_INPUT = "unkeyed-input"
    """The request has a field that origins act on, and that is neither in the key nor in Vary."""
    AUTHORIZATION = "authorization"
    MALFORMED = "malformed-cache-control"
    MUST_UNDERSTAND = "must-understand"
    NO_STORE = "no-store"
    PRIVATE = "private"
    SET_COOKIE = "set-cookie"
    VARY_ANY = "vary-any"
    VARY_REWRITTEN = "vary-rewritten"
    """It varies by a request field that the edge rewrites, or that ended at the edge."""
    NO_CACHE = "no-cache"
    """It must be validated before each reuse, and has nothing to be validated by."""
    NOT_FRESH = "no-freshness"
    DECEPTION = "path-contradicts-content"
    """Only the route says that it is fresh, and its path looks like another kind of resource than it is."""

    @property
    def of_request(self) -> bool:
        """Whether it says something of this one request only: another one for the same key may get another verdict."""
        return self in _OF_REQUEST


_OF_REQUEST = frozenset(
    {
        Verdict.METHOD,
        Verdict.PARTIAL,
        Verdict.REQUEST_NO_STORE,
        Verdict.UNKEYED_INPUT,
        Verdict.AUTHORIZATION,
        Verdict.VARY_REWRITTEN,
    }
)


class Storing(msgspec.Struct, frozen=True, gc=False):
    """Whether to store a response, and on what terms."""

    verdict: Verdict
    terms: Terms | None = None
    vary: tuple[bytes, ...] = ()
    """Request fields that select it: lower case, sorted, each once."""
    without: frozenset[bytes] = frozenset()
    """Fields that are not to be stored with it, lower case."""

    @property
    def store(self) -> bool:
        """Whether the response is to be stored."""
        return self.terms is not None


class Reuse(Enum):
    """What to do with a stored response for a request."""

    FRESH = "fresh"
    STALE = "stale"
    """It is stale, and the client takes it so."""
    STALE_WHILE_REVALIDATE = "stale-while-revalidate"
    VALIDATE = "validate"
    """Ask the origin first."""


_METHOD = Storing(Verdict.METHOD)
_STATUS = Storing(Verdict.STATUS)
_OF_A_PART = Storing(Verdict.PARTIAL)
_REQUEST_NO_STORE = Storing(Verdict.REQUEST_NO_STORE)
_UNKEYED_INPUT = Storing(Verdict.UNKEYED_INPUT)
_AUTHORIZATION = Storing(Verdict.AUTHORIZATION)
_MALFORMED = Storing(Verdict.MALFORMED)
_MUST_UNDERSTAND = Storing(Verdict.MUST_UNDERSTAND)
_NO_STORE = Storing(Verdict.NO_STORE)
_PRIVATE = Storing(Verdict.PRIVATE)
_SET_COOKIE = Storing(Verdict.SET_COOKIE)
_VARY_ANY = Storing(Verdict.VARY_ANY)
_VARY_REWRITTEN = Storing(Verdict.VARY_REWRITTEN)
_NO_CACHE = Storing(Verdict.NO_CACHE)
_NOT_FRESH = Storing(Verdict.NOT_FRESH)
_DECEPTION = Storing(Verdict.DECEPTION)
_ONLY_COOKIE = frozenset({b"set-cookie"})


# --- may it be stored (§3)


def storing(
    method: bytes,
    target: bytes,
    request: Fields,
    status: int,
    response: Fields,
    rules: Rules,
    request_ns: int,
    response_ns: int,
) -> Storing:
    """May this response be stored (RFC 9111 §3), and on what terms.

    What the request alone rules out is looked at first: it must not be taken for a property of the resource.
    """
    if method != b"GET" or method not in rules.methods:
        return _METHOD
    if status in _PARTIAL or b"content-range" in response:
        return _OF_A_PART
    control = control_of(response)
    vary = _vary(response[b"vary"]) if b"vary" in response else ()
    refusal = _refused_by_request(request, control, vary, rules) or _refused_by_response(
        status, response, control, rules
    )
    if refusal is not None:
        return refusal
    if control is None:
        return _MALFORMED
    if vary is None:
        return _VARY_ANY
    if vary and _origin_saw_other_values(vary, request):
        return _VARY_REWRITTEN
    age_ns = initial_age_ns(response, request_ns, response_ns)
    lifetime_ns, implied = lifetime(status, response, control, rules, age_ns, response_ns)
    terms = terms_of(status, control, lifetime_ns, age_ns, rules)
    if terms.lifetime_ns <= age_ns:
        refusal = _worthless(status, response, control, terms, stated=lifetime_ns is not None)
        if refusal is not None:
            return refusal
    if implied and poisoning.is_deceptive(target, status, response):
        return _DECEPTION
    without = control.without
    if b"set-cookie" in response and rules.set_cookie is SetCookie.STRIP:
        without = without | _ONLY_COOKIE if without else _ONLY_COOKIE
    return Storing(Verdict.STORE, terms, vary, without)


def _refused_by_request(
    request: Fields, control: Control | None, vary: tuple[bytes, ...] | None, rules: Rules
) -> Storing | None:
    if b"cache-control" in request and rules.client_no_cache:
        asked = asked_by(request)
        if asked is not None and asked.no_store:
            return _REQUEST_NO_STORE
    if poisoning.has_unkeyed_input(request, (vary or ()) + rules.keyed if rules.keyed else vary or ()):
        return _UNKEYED_INPUT
    if b"authorization" in request and not (rules.authorized and control is not None and control.shareable):
        return _AUTHORIZATION
    return None


def _refused_by_response(status: int, response: Fields, control: Control | None, rules: Rules) -> Storing | None:
    if not 200 <= status < 600 or status in _NEVER:
        return _STATUS
    if control is None:
        return _MALFORMED
    if control.must_understand:
        if status not in _UNDERSTOOD:
            return _MUST_UNDERSTAND
    elif control.no_store:
        return _NO_STORE
    if control.private:
        return _PRIVATE
    if b"set-cookie" in response and rules.set_cookie is SetCookie.NEVER:
        return _SET_COOKIE
    return None


def _origin_saw_other_values(vary: tuple[bytes, ...], request: Fields) -> bool:
    if not _REWRITTEN.isdisjoint(vary):
        return True
    connection = request.get(b"connection")
    return connection is not None and not {name.strip().lower() for name in connection.split(b",")}.isdisjoint(vary)


def _vary(value: bytes) -> tuple[bytes, ...] | None:
    return _vary_known(value) if len(value) <= _VARY_BYTES_MAX else None


@lru_cache(maxsize=1024)
def _vary_known(value: bytes) -> tuple[bytes, ...] | None:
    """Request fields that select a response (RFC 9110 §12.5.5); None for `*`, and for what is no list of names.

    The edge sets X-Forwarded-Host and -Proto itself, to the request's host, and to the scheme, which every key has.
    """
    names = field_names(value)
    if names is None or b"*" in names:
        return None
    return tuple(sorted({b"host" if name == b"x-forwarded-host" else name for name in names} - {b"x-forwarded-proto"}))


def _worthless(status: int, response: Fields, control: Control, terms: Terms, *, stated: bool) -> Storing | None:
    """Why a response that is stale on arrival is not worth storing, or may not be; None when it is."""
    if not (stated or control.public or status in HEURISTIC):
        return _NOT_FRESH
    if b"etag" in response or b"last-modified" in response:
        return None
    if control.no_cache:
        return _NO_CACHE
    stale_ns = terms.age_ns - terms.lifetime_ns
    usable = stale_ns < max(terms.stale_while_revalidate_ns, terms.stale_if_error_ns)
    return None if usable else _NOT_FRESH


# --- may it be reused (§4)


def reuse(stored: Stored, request: Fields, rules: Rules, now_ns: int) -> Reuse:
    """May a stored response answer this request without asking the origin (RFC 9111 §4, §4.2.4, §5.2.1; RFC 5861 §3).

    The client's max-stale never reaches what must be revalidated.
    """
    if stored.uncacheable:
        return Reuse.VALIDATE
    asked = asked_by(request) if rules.client_no_cache else None
    # What was never fresh is not fresh because the clock was set back.
    if stored.fresh_until_ns > now_ns and stored.fresh_until_ns > stored.born_ns:
        return Reuse.FRESH if asked is None or _fresh_enough(stored, asked, now_ns) else Reuse.VALIDATE
    if stored.must_revalidate:
        return Reuse.VALIDATE
    if asked is not None and (not _young_enough(stored, asked, now_ns) or asked.min_fresh_s):
        return Reuse.VALIDATE
    stale_ns = max(0, now_ns - stored.fresh_until_ns)
    max_stale_s = -1 if asked is None else asked.max_stale_s
    if stale_ns < stored.stale_while_revalidate_ns and (asked is None or asked.max_age_s is None or max_stale_s >= 0):
        return Reuse.STALE_WHILE_REVALIDATE
    return Reuse.STALE if stale_ns <= max_stale_s * SECOND_NS else Reuse.VALIDATE


def _young_enough(stored: Stored, asked: Asked, now_ns: int) -> bool:
    if asked.no_cache:
        return False
    return asked.max_age_s is None or now_ns - stored.born_ns <= asked.max_age_s * SECOND_NS


def _fresh_enough(stored: Stored, asked: Asked, now_ns: int) -> bool:
    return _young_enough(stored, asked, now_ns) and stored.fresh_until_ns - now_ns >= asked.min_fresh_s * SECOND_NS


def stale_on_error(stored: Stored, request: Fields, now_ns: int) -> bool:
    """May a stored response be served because the origin failed (RFC 5861 §4): as the response or the request allows,
    whatever else the request asks for; never one that must be revalidated.
    """
    if stored.must_revalidate or stored.uncacheable:
        return False
    asked = asked_by(request)
    limit_ns = stored.stale_if_error_ns
    if asked is not None:
        limit_ns = max(limit_ns, asked.stale_if_error_s * SECOND_NS)
    return limit_ns > 0 and now_ns - stored.fresh_until_ns <= limit_ns


def is_error(status: int) -> bool:
    """Whether a status counts as an origin's failure (RFC 5861 §4)."""
    return status in _ERRORS


def only_if_cached(request: Fields) -> bool:
    """Whether the client wants a stored response or none (RFC 9111 §5.2.1.7)."""
    if b"cache-control" not in request:
        return False
    asked = asked_by(request)
    return asked is not None and asked.only_if_cached
