"""What is stored (RFC 9111 §3), case by case, each with its section."""

import pytest

from edgeproxy.cache.policy import Storing, Verdict
from edgeproxy.cache.rules import Rules, SetCookie
from tests.cache.messages import SAFE, Line, date, storing

FRESH = ("Cache-Control", "max-age=60")
ETAG = ("ETag", '"a"')


@pytest.mark.parametrize(
    ("lines", "verdict"),
    [
        pytest.param([FRESH], Verdict.STORE, id="5.2.2.1-max-age"),
        pytest.param([("Cache-Control", "s-maxage=60")], Verdict.STORE, id="5.2.2.10-s-maxage"),
        pytest.param([("Cache-Control", "public, max-age=60")], Verdict.STORE, id="5.2.2.9-public"),
        pytest.param([("Expires", date(60))], Verdict.STORE, id="5.3-expires"),
        pytest.param([("Cache-Control", "MAX-AGE=60")], Verdict.STORE, id="5.2-directive-names-are-case-insensitive"),
        pytest.param([("Cache-Control", 'max-age="60"')], Verdict.STORE, id="5.2-quoted-argument-is-the-same"),
        pytest.param([("Cache-Control", "max-age=60, x=y")], Verdict.STORE, id="5.2.3-unknown-extensions-are-ignored"),
        pytest.param(
            [("Cache-Control", "public"), ("Cache-Control", "max-age=60")], Verdict.STORE, id="5.2-several-lines"
        ),
        pytest.param([("Cache-Control", 'x="no-store", max-age=60')], Verdict.STORE, id="9110-5.6.4-in-quotes"),
        pytest.param([("Pragma", "no-cache"), FRESH], Verdict.STORE, id="5.4-pragma-is-for-requests"),
        pytest.param([], Verdict.NOT_FRESH, id="3-nothing-says-how-long"),
        pytest.param([("Cache-Control", "public")], Verdict.NOT_FRESH, id="4.2.2-nothing-to-guess-by"),
        pytest.param([("Cache-Control", "max-age=0")], Verdict.NOT_FRESH, id="4.2-max-age-0"),
        pytest.param([("Cache-Control", "max-age=0"), ETAG], Verdict.STORE, id="4.3-stale-with-an-etag"),
        pytest.param(
            [("Cache-Control", "max-age=0"), ("Last-Modified", date(-60))], Verdict.STORE, id="4.3-stale-with-a-date"
        ),
        pytest.param([ETAG], Verdict.STORE, id="4.3-no-lifetime-with-an-etag"),
        pytest.param(
            [("Cache-Control", "max-age=0, stale-while-revalidate=9")], Verdict.STORE, id="5861-3-stale-and-usable"
        ),
        pytest.param([("Cache-Control", "max-age=0, stale-if-error=9")], Verdict.STORE, id="5861-4-stale-and-usable"),
        pytest.param(
            [("Cache-Control", "max-age=5, stale-while-revalidate=9"), ("Age", "14")],
            Verdict.NOT_FRESH,
            id="5861-3-too-stale-on-arrival",
        ),
        pytest.param([("Cache-Control", "no-store, max-age=60")], Verdict.NO_STORE, id="5.2.2.5-no-store"),
        pytest.param([("Cache-Control", "No-Store=x, max-age=60")], Verdict.NO_STORE, id="5.2.2.5-with-an-argument"),
        pytest.param([FRESH, ("Cache-Control", "no-store")], Verdict.NO_STORE, id="5.2.2.5-second-line"),
        pytest.param([("Cache-Control", "no-store, public")], Verdict.NO_STORE, id="4.2.1-the-stricter-counts"),
        pytest.param([("Cache-Control", "private, max-age=60")], Verdict.PRIVATE, id="5.2.2.7-private"),
        pytest.param([("Cache-Control", "private, s-maxage=60")], Verdict.PRIVATE, id="4.2.1-private-and-s-maxage"),
        pytest.param([("Cache-Control", "private, public")], Verdict.PRIVATE, id="4.2.1-private-and-public"),
        pytest.param([("Cache-Control", "private=x-a, max-age=60")], Verdict.PRIVATE, id="5.2.2.7-fields-as-a-token"),
        pytest.param(
            [("Cache-Control", "no-cache, max-age=60")], Verdict.NO_CACHE, id="5.2.2.4-nothing-to-validate-by"
        ),
        pytest.param([("Cache-Control", "no-cache"), ETAG], Verdict.STORE, id="5.2.2.4-no-cache-with-an-etag"),
        pytest.param([FRESH, ("Set-Cookie", "a=b")], Verdict.SET_COOKIE, id="7.3-set-cookie"),
        pytest.param([FRESH, ("Vary", "*")], Verdict.VARY_ANY, id="4.1-vary-any"),
        pytest.param([FRESH, ("Vary", "A, *")], Verdict.VARY_ANY, id="4.1-vary-any-in-a-list"),
        pytest.param([FRESH, ("Vary", "A"), ("Vary", "*")], Verdict.VARY_ANY, id="4.1-vary-any-on-another-line"),
        pytest.param([FRESH, ("Vary", "a b")], Verdict.VARY_ANY, id="4.1-no-list-of-names"),
        pytest.param([FRESH, ("Vary", "a, " * 400)], Verdict.VARY_ANY, id="4.1-longer-than-anything-that-means-it"),
        pytest.param([("Cache-Control", "max-age=60 no-store")], Verdict.MALFORMED, id="4.2.1-no-comma"),
        pytest.param([("Cache-Control", 'a="no-store, max-age=60')], Verdict.MALFORMED, id="4.2.1-quote-left-open"),
        pytest.param([("Cache-Control", "max-age=60, " + "a" * 1024)], Verdict.MALFORMED, id="4.2.1-far-too-long"),
        pytest.param([FRESH, ("Age", "59")], Verdict.STORE, id="4.2-one-second-left"),
        pytest.param([FRESH, ("Age", "60")], Verdict.NOT_FRESH, id="4.2-no-second-left"),
        pytest.param([FRESH, ("Date", date(-61))], Verdict.NOT_FRESH, id="4.2.3-apparent-age"),
        pytest.param(
            [("Cache-Control", "no-store"), ("CDN-Cache-Control", "max-age=60")],
            Verdict.STORE,
            id="9213-2.2-what-is-meant-for-us-counts",
        ),
        pytest.param([FRESH, ("CDN-Cache-Control", "no-store")], Verdict.NO_STORE, id="9213-2.2-no-store"),
        pytest.param([FRESH, ("CDN-Cache-Control", "private")], Verdict.PRIVATE, id="9213-2.2-private"),
        pytest.param([FRESH, ("CDN-Cache-Control", "no-cache")], Verdict.NO_CACHE, id="9213-2.2-no-cache"),
        pytest.param(
            [("Expires", date(60)), ("CDN-Cache-Control", "none")], Verdict.NOT_FRESH, id="9213-2.2-expires-is-ignored"
        ),
        pytest.param([FRESH, ("Content-Range", "bytes 0-1/2")], Verdict.PARTIAL, id="3.3-a-part-in-disguise"),
    ],
)
def test_what_a_response_says_of_itself_decides_whether_it_is_stored(lines: list[Line], verdict: Verdict) -> None:
    decision = storing(*lines)
    assert decision.verdict is verdict
    assert decision.store is (decision.terms is not None) is (verdict is Verdict.STORE)


# --- method and status


@pytest.mark.parametrize("method", [b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"QUERY", b"get"])
def test_only_responses_to_get_are_stored(method: bytes) -> None:
    assert storing(FRESH, method=method).verdict is Verdict.METHOD


def test_a_route_that_does_not_answer_get_from_the_cache_stores_nothing() -> None:
    assert storing(FRESH, rules=Rules(methods=frozenset({b"HEAD"}))).verdict is Verdict.METHOD


@pytest.mark.parametrize(
    "status", [200, 201, 203, 204, 299, 300, 301, 302, 303, 307, 308, 400, 403, 404, 410, 418, 451, 500, 503, 599]
)
def test_any_final_status_is_stored_with_explicit_freshness(status: int) -> None:
    # RFC 9111 §3: understanding the status is asked for only where must-understand says so.
    assert storing(FRESH, status=status).verdict is Verdict.STORE
    assert storing(("Expires", date(60)), status=status).verdict is Verdict.STORE


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        pytest.param(100, Verdict.STATUS, id="3-not-final"),
        pytest.param(103, Verdict.STATUS, id="3-early-hints"),
        pytest.param(600, Verdict.STATUS, id="9110-15-not-a-status"),
        pytest.param(428, Verdict.STATUS, id="6585-3-precondition-required"),
        pytest.param(429, Verdict.STATUS, id="6585-4-too-many-requests"),
        pytest.param(431, Verdict.STATUS, id="6585-5-header-fields-too-large"),
        pytest.param(511, Verdict.STATUS, id="6585-6-network-authentication-required"),
        pytest.param(206, Verdict.PARTIAL, id="3.3-partial-content"),
        pytest.param(304, Verdict.PARTIAL, id="3-not-modified"),
        pytest.param(412, Verdict.PARTIAL, id="9110-15.5.13-precondition-failed"),
        pytest.param(416, Verdict.PARTIAL, id="9110-15.5.17-range-not-satisfiable"),
    ],
)
def test_statuses_that_are_never_stored(status: int, verdict: Verdict) -> None:
    assert storing(("Cache-Control", "public, max-age=60"), ETAG, status=status).verdict is verdict


@pytest.mark.parametrize("status", [200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501])
def test_heuristically_cacheable_statuses_may_be_stored_to_be_validated(status: int) -> None:
    assert storing(ETAG, status=status).verdict is Verdict.STORE


@pytest.mark.parametrize("status", [201, 202, 302, 303, 307, 400, 401, 403, 500, 502, 503])
def test_other_statuses_are_not_stored_unless_something_says_so(status: int) -> None:
    assert storing(ETAG, status=status).verdict is Verdict.NOT_FRESH
    assert storing(ETAG, ("Cache-Control", "no-cache"), status=status).verdict is Verdict.NOT_FRESH
    assert storing(ETAG, ("Cache-Control", "public"), status=status).verdict is Verdict.STORE
    assert storing(ETAG, ("Cache-Control", "max-age=0"), status=status).verdict is Verdict.STORE


@pytest.mark.parametrize(
    ("status", "control", "verdict"),
    [
        pytest.param(200, "must-understand, max-age=60", Verdict.STORE, id="5.2.2.3-understood"),
        pytest.param(200, "must-understand, no-store, max-age=60", Verdict.STORE, id="5.2.2.3-no-store-is-ignored"),
        pytest.param(200, "no-store, max-age=60, must-understand", Verdict.STORE, id="5.2.2.3-in-any-order"),
        pytest.param(299, "must-understand, max-age=60", Verdict.MUST_UNDERSTAND, id="5.2.2.3-not-understood"),
        pytest.param(
            599, "must-understand, no-store, max-age=60", Verdict.MUST_UNDERSTAND, id="5.2.2.3-not-understood-either"
        ),
        pytest.param(200, "must-understand, private", Verdict.PRIVATE, id="5.2.2.3-private-still-counts"),
        pytest.param(429, "must-understand, max-age=60", Verdict.STATUS, id="6585-4-understood-not-to-be-stored"),
    ],
)
def test_must_understand(status: int, control: str, verdict: Verdict) -> None:
    assert storing(("Cache-Control", control), status=status).verdict is verdict


# --- the request's part

AUTHORIZED = (("Authorization", "Basic eA=="),)


@pytest.mark.parametrize(
    ("control", "verdict"),
    [
        pytest.param("max-age=60", Verdict.AUTHORIZATION, id="3.5-nothing-allows-it"),
        pytest.param("public, max-age=60", Verdict.STORE, id="3.5-public"),
        pytest.param("s-maxage=60", Verdict.STORE, id="3.5-s-maxage"),
        pytest.param("must-revalidate, max-age=60", Verdict.STORE, id="3.5-must-revalidate"),
        pytest.param("proxy-revalidate, max-age=60", Verdict.AUTHORIZATION, id="3.5-proxy-revalidate-allows-nothing"),
        pytest.param("public, private, max-age=60", Verdict.PRIVATE, id="3.5-private"),
        pytest.param("max-age", Verdict.AUTHORIZATION, id="3.5-invalid"),
        pytest.param("public, @", Verdict.AUTHORIZATION, id="3.5-not-parsable"),
    ],
)
def test_a_response_to_an_authorized_request_is_stored_where_both_it_and_the_route_say_so(
    control: str, verdict: Verdict
) -> None:
    line = ("Cache-Control", control)
    assert storing(line, request=AUTHORIZED, rules=Rules(authorized=True)).verdict is verdict
    assert storing(line, request=AUTHORIZED).store is False


def test_a_route_that_sets_lifetimes_does_not_set_aside_authorization() -> None:
    rules = Rules(authorized=True, ttl_ns=10**12)
    assert storing(("Cache-Control", "max-age=60"), request=AUTHORIZED, rules=rules).verdict is Verdict.AUTHORIZATION


@pytest.mark.parametrize("control", ["no-store", "private", "no-cache"])
def test_no_rule_of_a_route_overrides_what_a_response_forbids(control: str) -> None:
    rules = Rules(
        ttl_ns=10**12,
        ttl_min_ns=10**12,
        default_ttl_ns=10**12,
        status_ttl_ns={200: 10**12},
        stale_while_revalidate_ns=10**12,
        stale_if_error_ns=10**12,
        set_cookie=SetCookie.KEEP,
        authorized=True,
        client_no_cache=False,
    )
    assert storing(("Cache-Control", control), rules=rules).store is False


@pytest.mark.parametrize("asked", ["no-store", "No-Store", "max-age=0, no-store", "=broken"])
def test_a_request_that_forbids_storing_or_is_not_understood_leaves_nothing_behind(asked: str) -> None:
    request = [("Cache-Control", asked)]
    assert storing(FRESH, request=request).verdict is Verdict.REQUEST_NO_STORE
    assert storing(FRESH, request=request, rules=Rules(client_no_cache=False)).verdict is Verdict.STORE


@pytest.mark.parametrize("asked", ["no-cache", "max-age=0", "only-if-cached", "min-fresh=5", "max-stale"])
def test_no_other_directive_of_a_request_forbids_storing(asked: str) -> None:
    assert storing(FRESH, request=[("Cache-Control", asked)]).verdict is Verdict.STORE


@pytest.mark.parametrize("method", [b"GET", b"POST"])
@pytest.mark.parametrize("request_lines", [[], [("Cache-Control", "no-store")], list(AUTHORIZED), [("X-Host", "evil")]])
@pytest.mark.parametrize("status", [200, 206, 429])
@pytest.mark.parametrize("control", ["no-store", "private", "max-age=60", "@"])
def test_a_verdict_on_a_request_is_told_from_a_verdict_on_the_resource(
    method: bytes, request_lines: list[Line], status: int, control: str
) -> None:
    # What the plain request's response would have been must not be remembered from one that was not plain.
    decision = storing(("Cache-Control", control), method=method, request=request_lines, status=status)
    is_plain = method == b"GET" and not request_lines and status != 206
    assert decision.verdict.of_request is not is_plain


# --- Vary (§4.1)


@pytest.mark.parametrize(
    ("lines", "vary"),
    [
        pytest.param([], (), id="4.1-none"),
        pytest.param([("Vary", "")], (), id="4.1-empty"),
        pytest.param([("Vary", "Accept-Encoding")], (b"accept-encoding",), id="4.1-lower-case"),
        pytest.param([("Vary", "B, , A ,B")], (b"a", b"b"), id="4.1-sorted-and-each-once"),
        pytest.param([("Vary", "b"), ("Vary", "A")], (b"a", b"b"), id="4.1-several-lines"),
        pytest.param([("Vary", "Cookie, Authorization")], (b"authorization", b"cookie"), id="4.1-any-field"),
        pytest.param([("Vary", "X-Forwarded-Host")], (b"host",), id="what-the-edge-sets-is-what-selects"),
        pytest.param([("Vary", "X-Forwarded-Proto, A")], (b"a",), id="every-key-has-the-scheme"),
    ],
)
def test_vary_names_the_fields_that_select(lines: list[Line], vary: tuple[bytes, ...]) -> None:
    decision = storing(FRESH, *lines)
    assert decision.store
    assert decision.vary == vary


@pytest.mark.parametrize(
    "name",
    [
        *("X-Forwarded-For", "forwarded", "Via", "X-Request-Id", "X-Trace-Id", "traceparent", "tracestate"),
        *("Connection", "TE", "Transfer-Encoding", "Range", "If-None-Match"),
    ],
)
def test_what_varies_by_a_field_that_the_edge_rewrites_is_not_stored(name: str) -> None:
    # The origin chose by another value than the one that would select the stored response (RFC 9111 §4.1).
    assert storing(FRESH, ("Vary", f"Accept, {name}")).verdict is Verdict.VARY_REWRITTEN


def test_what_varies_by_a_field_that_ended_at_the_edge_is_not_stored() -> None:
    lines = (FRESH, ("Vary", "Accept-Language"))
    request = (("Accept-Language", "de"), ("Connection", "x, Accept-Language"))
    assert storing(*lines, request=request).verdict is Verdict.VARY_REWRITTEN
    assert storing(*lines, request=(*request[:1], ("Connection", "keep-alive"))).verdict is Verdict.STORE


# --- what is left out (§3.1)


@pytest.mark.parametrize(
    ("lines", "rules", "without"),
    [
        pytest.param([FRESH], SAFE, set(), id="3.1-nothing"),
        pytest.param(
            [("Cache-Control", 'max-age=60, no-cache="X-A, x-b"')], SAFE, {b"x-a", b"x-b"}, id="5.2.2.4-no-cache-fields"
        ),
        pytest.param([("Cache-Control", 'max-age=60, private="X-A"')], SAFE, {b"x-a"}, id="5.2.2.7-private-fields"),
        pytest.param(
            [("Cache-Control", 'max-age=60, private="x-a", no-cache="x-b"')], SAFE, {b"x-a", b"x-b"}, id="3.1-both"
        ),
        pytest.param(
            [FRESH, ("Set-Cookie", "a=b")], Rules(set_cookie=SetCookie.STRIP), {b"set-cookie"}, id="7.3-strip-cookies"
        ),
        pytest.param(
            [("Cache-Control", 'max-age=60, private="x-a"'), ("Set-Cookie", "a=b")],
            Rules(set_cookie=SetCookie.STRIP),
            {b"set-cookie", b"x-a"},
            id="7.3-strip-cookies-and-fields",
        ),
        pytest.param([FRESH, ("Set-Cookie", "a=b")], Rules(set_cookie=SetCookie.KEEP), set(), id="7.3-keep-cookies"),
        pytest.param([FRESH], Rules(set_cookie=SetCookie.STRIP), set(), id="7.3-no-cookies-to-strip"),
    ],
)
def test_some_fields_are_not_stored(lines: list[Line], rules: Rules, without: set[bytes]) -> None:
    decision = storing(*lines, rules=rules)
    assert decision.store
    assert decision.without == without


def test_a_refusal_holds_nothing_but_its_reason() -> None:
    assert storing(("Cache-Control", "no-store"), ("Vary", "A")) == Storing(Verdict.NO_STORE)
