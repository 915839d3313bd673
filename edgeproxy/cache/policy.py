"""RFC 9111 as pure functions, one a question: may a response be stored, may it be reused, what does a validation
update, what does an unsafe method invalidate. RFC 5861 (stale responses) and RFC 9213 (targeted fields) with it.

Values in, decisions out; no I/O and no clock: `now` is a parameter, in nanoseconds since the epoch. What fields say is
read in `directives` and `dates`; what a path or a request's unkeyed fields give away is judged in `poisoning`.
"""

from email.utils import formatdate
from enum import Enum
from functools import lru_cache
from urllib.parse import urljoin, urlsplit

import msgspec

from edgeproxy.cache import poisoning
from edgeproxy.cache.dates import http_date_ns
from edgeproxy.cache.directives import SECOND_NS, Asked, Control, Fields, asked_by, control_of, delta_seconds
from edgeproxy.cache.directives import field_names as _field_names
from edgeproxy.cache.entry import Lines, Stored
from edgeproxy.cache.rules import Rules, SetCookie

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

HEURISTIC_PART = 10
"""A tenth of the time since Last-Modified, as RFC 9111 §4.2.2 suggests."""
HEURISTIC_MAX_NS = 86_400 * SECOND_NS
_VARY_BYTES_MAX = 1024

_HEURISTIC = frozenset({200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501})
"""Statuses that may be stored and be fresh though nothing says so (RFC 9110 §15.1)."""
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
_OF_THE_REQUEST = frozenset({400, 408, 411, 413, 415, 417, 421, 426})
"""Errors about how something was asked for, which the key does not tell: a route's own lifetimes leave them out, or one
malformed request would be everybody's answer.
"""
_REWRITTEN = frozenset(
    {
        *(b"x-forwarded-for", b"forwarded", b"via", b"x-request-id", b"x-trace-id", b"traceparent", b"tracestate"),
        *(b"connection", b"keep-alive", b"proxy-connection", b"proxy-authorization", b"te", b"transfer-encoding"),
        *(b"upgrade", b"http2-settings", b"range", b"if-range"),
        *(b"if-match", b"if-none-match", b"if-modified-since", b"if-unmodified-since"),
    }
)
"""Request fields that reach the origin with another value than the client sent, or not at all: what varies by one can't
be told apart by it.
"""
_SAFE = frozenset({b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PROPFIND", b"REPORT", b"SEARCH"})
_ERRORS = frozenset({500, 502, 503, 504})
_NOT_UPDATED = frozenset(
    {
        *(b"connection", b"keep-alive", b"proxy-connection", b"proxy-authenticate", b"proxy-authentication-info"),
        *(b"proxy-authorization", b"te", b"trailer", b"transfer-encoding", b"upgrade"),
        *(b"content-length", b"content-encoding", b"content-range"),
        *(b"age", b"set-cookie", b"cache-status", b"server-timing", b"x-request-id", b"x-trace-id", b"traceresponse"),
    }
)
"""Fields of a 304 or HEAD that leave the stored response's own alone (RFC 9111 §3.1, §3.2): of one hop or one moment,
about the stored body as it is, or for the one client that asked.
"""


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


class HeadUpdate(Enum):
    """What a response to HEAD says of the stored response to GET."""

    FRESHEN = "freshen"
    INVALIDATE = "invalidate"
    NOTHING = "nothing"


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
    lifetime_ns, implied = _lifetime(status, response, control, rules, age_ns, response_ns)
    terms = _terms(control, lifetime_ns or 0, age_ns, rules)
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
    if poisoning.has_unkeyed_input(request, vary or ()):
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
    names = _field_names(value)
    if names is None or b"*" in names:
        return None
    return tuple(sorted({b"host" if name == b"x-forwarded-host" else name for name in names} - {b"x-forwarded-proto"}))


def _worthless(status: int, response: Fields, control: Control, terms: Terms, *, stated: bool) -> Storing | None:
    """Why a response that is stale on arrival is not worth storing, or may not be; None when it is."""
    if not (stated or control.public or status in _HEURISTIC):
        return _NOT_FRESH
    if b"etag" in response or b"last-modified" in response:
        return None
    if control.no_cache:
        return _NO_CACHE
    stale_ns = terms.age_ns - terms.lifetime_ns
    usable = stale_ns < max(terms.stale_while_revalidate_ns, terms.stale_if_error_ns)
    return None if usable else _NOT_FRESH


# --- how long it is fresh (§4.2)


def initial_age_ns(response: Fields, request_ns: int, response_ns: int) -> int:
    """Corrected initial age of a response received now (RFC 9111 §4.2.3).

    Of several Age values the first counts, an invalid one not at all (§5.1); nor does a Date that is no date, or ahead.
    """
    corrected = response_ns - request_ns if response_ns > request_ns else 0
    if b"age" in response:
        corrected += (delta_seconds(response[b"age"].split(b",", 1)[0].strip()) or 0) * SECOND_NS
    date = http_date_ns(response.get(b"date"), response_ns)
    return corrected if date is None or response_ns - date < corrected else response_ns - date


def _lifetime(
    status: int, response: Fields, control: Control, rules: Rules, age_ns: int, response_ns: int
) -> tuple[int | None, bool]:
    """Freshness lifetime in a shared cache (RFC 9111 §4.2.1, §4.2.2), and whether the origin did not state it.

    The route's own lifetimes count from the response's arrival: its age is added.
    """
    if rules.ttl_ns is not None and status < 400:
        return rules.ttl_ns + age_ns, True
    stated = _stated_lifetime_ns(response, control, response_ns)
    if stated is not None:
        bounded = max(rules.ttl_min_ns, stated)
        if rules.ttl_max_ns is not None and bounded > rules.ttl_max_ns:
            bounded = rules.ttl_max_ns
        return bounded, bounded > stated
    if status in _OF_THE_REQUEST:
        return None, False
    if status in rules.status_ttl_ns:
        return rules.status_ttl_ns[status] + age_ns, True
    if not (control.public or status in _HEURISTIC):
        return None, False
    if rules.default_ttl_ns is not None:
        return rules.default_ttl_ns + age_ns, True
    if not rules.heuristic or b"last-modified" not in response:
        return None, False
    modified = http_date_ns(response[b"last-modified"], response_ns)
    date = http_date_ns(response.get(b"date"), response_ns)
    if modified is None:
        return None, False
    unchanged_ns = (response_ns if date is None else date) - modified
    return (min(unchanged_ns // HEURISTIC_PART, HEURISTIC_MAX_NS), True) if unchanged_ns > 0 else (None, False)


def _stated_lifetime_ns(response: Fields, control: Control, response_ns: int) -> int | None:
    """s-maxage, else max-age, else Expires less Date; 0 when what is stated is invalid, which counts as stale."""
    if control.lifetime_s is not None:
        return control.lifetime_s * SECOND_NS
    if control.targeted or b"expires" not in response:
        return None
    expires = http_date_ns(response[b"expires"], response_ns)
    if expires is None:
        return 0
    date = http_date_ns(response.get(b"date"), response_ns)
    return max(0, expires - (response_ns if date is None else date))


def _terms(control: Control, lifetime_ns: int, age_ns: int, rules: Rules) -> Terms:
    if control.must_revalidate:
        return Terms(0 if control.no_cache else lifetime_ns, age_ns, 0, 0, True)
    return Terms(
        lifetime_ns,
        age_ns,
        max(control.stale_while_revalidate_s * SECOND_NS, rules.stale_while_revalidate_ns),
        max(control.stale_if_error_s * SECOND_NS, rules.stale_if_error_ns),
    )


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
    stale_ns = now_ns - stored.fresh_until_ns
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


# --- what a validation updates (§3.2, §4.3)


def answers_for(stored: Stored, update: Fields) -> bool:
    """Is a 304 about this stored response (RFC 9111 §4.3.4)?

    A strong entity tag must be the stored one. One without validators is taken to be about the only response whose
    validators its request had.
    """
    etag = update.get(b"etag")
    if etag is not None:
        if not etag.startswith(b"W/"):
            return etag == stored.etag
        return stored.etag is not None and etag.removeprefix(b"W/") == stored.etag.removeprefix(b"W/")
    modified = update.get(b"last-modified")
    return modified is None or _same_date(modified, stored.last_modified)


def _same_date(one: bytes, other: bytes | None) -> bool:
    return one == other or (other is not None and http_date_ns(one) == http_date_ns(other) is not None)


def head_update(stored: Stored, body_bytes: int, status: int, response: Fields) -> HeadUpdate:
    """What a response to HEAD says of the stored response to GET (RFC 9111 §4.3.5).

    Every validator and length that it has must be the stored one's; one without validators about a response with them
    proves nothing.
    """
    if status != 200 or stored.status != 200:
        return HeadUpdate.NOTHING
    etag, modified = response.get(b"etag"), response.get(b"last-modified")
    length = response.get(b"content-length")
    if (
        (etag is not None and etag != stored.etag)
        or (modified is not None and not _same_date(modified, stored.last_modified))
        or (length is not None and not (length.isdigit() and length.lstrip(b"0") == b"%d" % body_bytes))
    ):
        return HeadUpdate.INVALIDATE
    if etag is None and modified is None and (stored.etag is not None or stored.last_modified is not None):
        return HeadUpdate.NOTHING
    return HeadUpdate.FRESHEN


def updated_lines(stored: Stored, update_lines: Lines, now_ns: int, without: frozenset[bytes] = frozenset()) -> Lines:
    """The stored response's fields after a 304 or HEAD (RFC 9111 §3.2): those that it has replace the stored ones.

    Fields in `without` are not kept. Where it has no Date, it was made now (RFC 9110 §6.6.1).
    """
    taken = [line for line in update_lines if (name := line[0].lower()) not in _NOT_UPDATED and name not in without]
    replaced = {name.lower() for name, _ in taken} | {b"date"} | without
    kept = [line for line in stored.lines if line[0].lower() not in replaced]
    if not any(name.lower() == b"date" for name, _ in taken):
        taken.append((b"Date", formatdate(now_ns // SECOND_NS, usegmt=True).encode()))
    return kept + taken


def updated_fields(stored: Stored, update_lines: Lines, update: Fields, now_ns: int) -> dict[bytes, bytes]:
    """What `storing` is to decide by after a 304 or HEAD: the updated fields, with the age that the update arrived
    with (RFC 9111 §4.3.4).
    """
    fields: dict[bytes, bytes] = {}
    for line, value in updated_lines(stored, update_lines, now_ns):
        name = line.lower()
        fields[name] = fields[name] + b", " + value if name in fields else value
    if b"age" in update:
        fields[b"age"] = update[b"age"]
    return fields


def freshened(
    stored: Stored,
    update_lines: Lines,
    update: Fields,
    terms: Terms | None,
    now_ns: int,
    without: frozenset[bytes] = frozenset(),
) -> Stored:
    """The stored response after a 304 or HEAD that is about it (RFC 9111 §3.2, §4.3.4), on the terms that `storing`
    gives for its `updated_fields`; None of them leaves it stale.

    Its Vary is taken to be as it was: where `storing` names other fields, it has another place and can't be kept here.
    """
    terms = Terms(0, 0) if terms is None else terms
    born_ns = now_ns - terms.age_ns
    return msgspec.structs.replace(
        stored,
        lines=updated_lines(stored, update_lines, now_ns, without),
        born_ns=born_ns,
        fresh_until_ns=born_ns + terms.lifetime_ns,
        stale_while_revalidate_ns=terms.stale_while_revalidate_ns,
        stale_if_error_ns=terms.stale_if_error_ns,
        must_revalidate=terms.must_revalidate,
        stored_ns=now_ns,
        etag=update.get(b"etag", stored.etag),
        last_modified=update.get(b"last-modified", stored.last_modified),
    )


# --- what an unsafe method invalidates (§4.4)


def invalidated(
    method: bytes, status: int, scheme: bytes, host: bytes, target: bytes, response: Fields
) -> tuple[bytes, ...]:
    """URLs (`scheme://host/path?query`) whose stored responses a request has made invalid (RFC 9111 §4.4).

    The target first, then Location and Content-Location, resolved, where they are of the same origin. Nothing after a
    safe method or an error; a method that is not known to be safe is taken not to be.
    """
    if method in _SAFE or not 200 <= status < 400 or not target.startswith(b"/"):
        return ()
    base = b"%b://%b" % (scheme, host)
    urls = [base + target]
    for name in (b"location", b"content-location"):
        if name in response:
            found = _same_origin(base, target, response[name])
            if found is not None and found not in urls:
                urls.append(found)
    return tuple(urls)


_PORTS = {"http": 80, "https": 443}


def _same_origin(base: bytes, target: bytes, reference: bytes) -> bytes | None:
    """A URI reference resolved against the target (RFC 3986 §5), None when it leads to another origin or nowhere."""
    try:
        own = urlsplit(base.decode("latin-1"))
        resolved = urlsplit(urljoin((base + target).decode("latin-1"), reference.decode("latin-1")))
        if (resolved.scheme, resolved.hostname, resolved.port or _PORTS.get(resolved.scheme)) != (
            own.scheme,
            own.hostname,
            own.port or _PORTS.get(own.scheme),
        ):
            return None
    except ValueError:
        return None
    query = f"?{resolved.query}" if resolved.query else ""
    return base + f"{resolved.path or '/'}{query}".encode("latin-1")
