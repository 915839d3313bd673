"""RFC 9111 as pure functions: may a response be stored, how long is it fresh, may it be reused for this request.

Values in, decisions out; no I/O and no clock: `now` is a parameter, in nanoseconds since the epoch. Fields are mappings
from lower-case names to values, several lines of one field joined by `, ` (RFC 9110 §5.3).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from enum import Enum
from functools import lru_cache
from types import MappingProxyType

Fields = Mapping[bytes, bytes]
Directives = Mapping[bytes, bytes | None]

SECOND_NS = 1_000_000_000
CONTROL_BYTES_MAX = 1024
"""A longer Cache-Control is not parsed: nobody is to fill the memory with what is remembered of it."""
MAX_DELTA_S = 2**31
"""What a delta-seconds too large to hold counts as (RFC 9111 §1.2.2)."""

_DIRECTIVE = re.compile(
    rb"""[\s,]*([!#$%&'*+.^_`|~0-9A-Za-z-]+)(?:[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^\s,;"]+)))?[ \t]*(?=,|$|;)""",
    re.DOTALL,
)
_DIGITS = re.compile(rb"[0-9]+")
_STORABLE_STATUS = frozenset({200, 203, 204, 300, 301, 302, 303, 307, 308, 404, 405, 410, 414, 451, 501})
"""Final statuses whose caching this cache understands (RFC 9111 §3, RFC 9110 §15.1); 206 and 304 are not stored on
their own."""
_REWRITTEN = frozenset(
    {b"x-forwarded-for", b"forwarded", b"via", b"x-request-id", b"x-trace-id", b"traceparent", b"tracestate"}
)
"""Request fields that reach the origin with another value than the client sent: what varies by one can't be told apart
by it."""


class Verdict(Enum):
    """Why a response may or may not be stored; the value stands in logs and in Cache-Status."""

    STORE = "stored"
    METHOD = "method"
    STATUS = "status"
    REQUEST_NO_STORE = "request-no-store"
    NO_STORE = "no-store"
    PRIVATE = "private"
    NO_CACHE = "no-cache"
    AUTHORIZATION = "authorization"
    SET_COOKIE = "set-cookie"
    VARY_ANY = "vary-any"
    VARY_REWRITTEN = "vary-rewritten"
    """It varies by a request field that the edge rewrites, or that ended at the edge."""
    MALFORMED = "malformed-cache-control"
    NOT_FRESH = "no-freshness"


@dataclass(frozen=True, slots=True)
class Storing:
    """Whether to store a response, and if so for how long it is fresh."""

    verdict: Verdict
    lifetime_ns: int = 0
    age_ns: int = 0
    """Age that the response had when it arrived (RFC 9111 §4.2.3)."""
    vary: tuple[bytes, ...] = ()

    @property
    def store(self) -> bool:
        """Whether the response is to be stored."""
        return self.verdict is Verdict.STORE


_NOT_STORED = {verdict: Storing(verdict) for verdict in Verdict}


class Reuse(Enum):
    """What to do with a stored response for a request."""

    FRESH = "fresh"
    STALE = "stale"
    REQUEST = "request"
    """Fresh, but the request's own directives ask for a newer one."""


def directives(value: bytes | None) -> Directives | None:
    """Parse Cache-Control (RFC 9111 §5.2): directive names in lower case with their argument, quoted or not.

    The first of a repeated directive counts. None when the field can't be parsed, or is far longer than any that means
    something: there is nothing in it that could be relied on.
    """
    if value is None:
        return _NONE
    return _directives(value) if len(value) <= CONTROL_BYTES_MAX else None


@lru_cache(maxsize=1024)
def _directives(value: bytes) -> Directives | None:
    # Few values make up nearly all traffic: parsing each once saves 3 µs a miss.
    found: dict[bytes, bytes | None] = {}
    position = 0
    end = len(value.rstrip(b" \t,"))
    while position < end:
        match = _DIRECTIVE.match(value, position)
        if match is None:
            return None
        name, quoted, token = match.groups()
        argument = token if quoted is None else re.sub(rb"\\(.)", rb"\1", quoted)
        found.setdefault(name.lower(), argument)
        position = match.end() + 1
    return MappingProxyType(found)


_NONE: Directives = MappingProxyType({})


def delta_seconds(argument: bytes | None) -> int | None:
    """A delta-seconds (RFC 9111 §1.2.2): too large counts as `MAX_DELTA_S`, anything but digits is None."""
    if argument is None or not _DIGITS.fullmatch(argument):
        return None
    return MAX_DELTA_S if len(argument) > len(str(MAX_DELTA_S)) else min(int(argument), MAX_DELTA_S)


@lru_cache(maxsize=256)
def http_date_ns(value: bytes | None) -> int | None:
    """An HTTP-date (RFC 9110 §5.6.7) in nanoseconds since the epoch, None when absent or invalid."""
    if value is None:
        return None
    try:
        date = parsedate_to_datetime(value.decode("ascii"))
        # The asctime form names no zone: an HTTP-date is UTC wherever the node stands.
        return int((date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()) * SECOND_NS
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def freshness_lifetime_ns(response: Fields, control: Directives, now_ns: int) -> int | None:
    """Freshness lifetime in a shared cache (RFC 9111 §4.2.1): s-maxage, else max-age, else Expires less Date.

    None when the response states none; 0 when what it states is invalid, which counts as stale.
    """
    for name in (b"s-maxage", b"max-age"):
        if name in control:
            return (delta_seconds(control[name]) or 0) * SECOND_NS
    if b"expires" not in response:
        return None
    expires = http_date_ns(response[b"expires"])
    if expires is None:
        return 0
    date = http_date_ns(response.get(b"date"))
    return max(0, expires - (now_ns if date is None else date))


def initial_age_ns(response: Fields, request_ns: int, response_ns: int) -> int:
    """Corrected initial age of a response received now (RFC 9111 §4.2.3)."""
    date = http_date_ns(response.get(b"date"))
    apparent = 0 if date is None else max(0, response_ns - date)
    # Several Age values can't be told apart from a broken one: the first counts (RFC 9111 §5.1).
    stated = delta_seconds(response.get(b"age", b"").split(b",")[0].strip()) or 0
    return max(apparent, stated * SECOND_NS + max(0, response_ns - request_ns))


def vary_names(response: Fields) -> tuple[bytes, ...] | None:
    """Request fields that select the response (RFC 9110 §12.5.5), lower case; None for `*`, which nothing matches."""
    value = response.get(b"vary")
    if value is None:
        return ()
    names = tuple(name.strip().lower() for name in value.split(b",") if name.strip())
    return None if b"*" in names else names


def storing(
    method: bytes, request: Fields, status: int, response: Fields, request_ns: int, response_ns: int
) -> Storing:
    """May this response be stored (RFC 9111 §3), and for how long is it fresh.

    Narrower than the RFC where that is the safe side: only explicit freshness, no Set-Cookie, nothing that would need
    validation before its first reuse.
    """
    control = directives(response.get(b"cache-control"))
    asked = directives(request.get(b"cache-control"))
    vary = vary_names(response)
    refusal = _refusal(method, request, status, response, control, asked)
    if refusal is not None or control is None:
        return _NOT_STORED[refusal or Verdict.MALFORMED]
    if vary is None:
        return _NOT_STORED[Verdict.VARY_ANY]
    if vary and _origin_saw_other_values(vary, request):
        return _NOT_STORED[Verdict.VARY_REWRITTEN]
    lifetime = freshness_lifetime_ns(response, control, response_ns)
    age = initial_age_ns(response, request_ns, response_ns)
    if lifetime is None or lifetime <= age:
        return _NOT_STORED[Verdict.NOT_FRESH]
    return Storing(Verdict.STORE, lifetime, age, vary)


def _origin_saw_other_values(vary: tuple[bytes, ...], request: Fields) -> bool:
    connection = request.get(b"connection", b"")
    ended_here = {option.strip().lower() for option in connection.split(b",")}
    return not (_REWRITTEN.isdisjoint(vary) and ended_here.isdisjoint(vary))


_FORBIDDING = ((b"no-store", Verdict.NO_STORE), (b"private", Verdict.PRIVATE), (b"no-cache", Verdict.NO_CACHE))


def _refusal(
    method: bytes, request: Fields, status: int, response: Fields, control: Directives | None, asked: Directives | None
) -> Verdict | None:
    if method != b"GET":
        return Verdict.METHOD
    if status not in _STORABLE_STATUS:
        return Verdict.STATUS
    if asked is None or b"no-store" in asked:
        return Verdict.REQUEST_NO_STORE
    if control is None:
        return Verdict.MALFORMED
    for name, verdict in _FORBIDDING:
        if name in control:
            return verdict
    shared = b"public" in control or b"s-maxage" in control or b"must-revalidate" in control
    if b"authorization" in request and not shared:
        return Verdict.AUTHORIZATION
    if b"set-cookie" in response:
        return Verdict.SET_COOKIE
    return None


def reuse(born_ns: int, fresh_until_ns: int, request: Fields, now_ns: int) -> Reuse:
    """May a stored response answer this request without asking the origin (RFC 9111 §4, §5.2.1)."""
    if now_ns >= fresh_until_ns:
        return Reuse.STALE
    asked = directives(request.get(b"cache-control"))
    if asked is None:
        return Reuse.REQUEST
    if b"no-cache" in asked or (b"cache-control" not in request and b"no-cache" in request.get(b"pragma", b"").lower()):
        return Reuse.REQUEST
    if b"max-age" in asked and now_ns - born_ns > (delta_seconds(asked[b"max-age"]) or 0) * SECOND_NS:
        return Reuse.REQUEST
    if b"min-fresh" in asked and fresh_until_ns - now_ns < (delta_seconds(asked[b"min-fresh"]) or 0) * SECOND_NS:
        return Reuse.REQUEST
    return Reuse.FRESH


def only_if_cached(request: Fields) -> bool:
    """Whether the client wants a stored response or none (RFC 9111 §5.2.1.7)."""
    asked = directives(request.get(b"cache-control"))
    return asked is not None and b"only-if-cached" in asked


def none_match(condition: bytes, etag: bytes | None) -> bool:
    """Whether If-None-Match is false for this entity tag, so that the answer is 304 (RFC 9110 §13.1.2, weak
    comparison). Without a stored tag there is nothing to evaluate it against (RFC 9111 §4.3.2).
    """
    if etag is None:
        return False
    if condition.strip() == b"*":
        return True
    opaque = etag.removeprefix(b"W/")
    return any(tag == opaque for tag in _ENTITY_TAGS.findall(condition))


_ENTITY_TAGS = re.compile(rb'(?:W/)?("[\x21\x23-\x7e\x80-\xff]*")')


def invalidates(method: bytes, status: int) -> bool:
    """Whether a response to an unsafe method invalidates what is stored for its URI (RFC 9111 §4.4)."""
    return method not in {b"GET", b"HEAD", b"OPTIONS", b"TRACE"} and 200 <= status < 400
