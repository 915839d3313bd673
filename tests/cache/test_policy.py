"""RFC 9111 as the edge applies it, section by section: what is stored, how long it is fresh, when it is reused."""

import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgeproxy.cache import policy
from edgeproxy.cache.policy import MAX_DELTA_S, SECOND_NS, Reuse, Verdict

NOW_NS = 1_750_000_000 * SECOND_NS
DAY_S = 86400


def date(offset_s: float = 0) -> bytes:
    """An HTTP-date that many seconds from now."""
    return format_datetime(datetime.fromtimestamp(NOW_NS / SECOND_NS + offset_s, UTC), usegmt=True).encode()


def fields(*lines: tuple[str, str | bytes]) -> dict[bytes, bytes]:
    """Folded fields, as the proxy hands them over."""
    folded: dict[bytes, bytes] = {}
    for name, value in lines:
        key, text = name.lower().encode(), value if isinstance(value, bytes) else value.encode()
        folded[key] = folded[key] + b", " + text if key in folded else text
    return folded


def storing(
    *response: tuple[str, str | bytes],
    method: bytes = b"GET",
    request: tuple[tuple[str, str], ...] = (),
    status: int = 200,
    took_s: int = 0,
) -> policy.Storing:
    """The decision about a response received now, to a request made `took_s` ago."""
    return policy.storing(method, fields(*request), status, fields(*response), NOW_NS - took_s * SECOND_NS, NOW_NS)


@pytest.fixture
def far_from_greenwich() -> Iterator[None]:
    before = os.environ.get("TZ")
    os.environ["TZ"] = "Asia/Hong_Kong"
    time.tzset()
    yield
    if before is None:
        del os.environ["TZ"]
    else:
        os.environ["TZ"] = before
    time.tzset()


# --- what may be stored (§3)


@pytest.mark.parametrize(
    ("lines", "verdict"),
    [
        pytest.param([("Cache-Control", "max-age=60")], Verdict.STORE, id="5.2.2.1-max-age"),
        pytest.param([("Cache-Control", "s-maxage=60")], Verdict.STORE, id="5.2.2.10-s-maxage"),
        pytest.param([("Cache-Control", "public, max-age=60")], Verdict.STORE, id="5.2.2.9-public"),
        pytest.param([("Expires", date(60))], Verdict.STORE, id="5.3-expires"),
        pytest.param([("Cache-Control", "MAX-AGE=60")], Verdict.STORE, id="5.2-directive-names-are-case-insensitive"),
        pytest.param([("Cache-Control", 'max-age="60"')], Verdict.STORE, id="5.2-quoted-argument-is-the-same"),
        pytest.param([("Cache-Control", "max-age=60, x=y")], Verdict.STORE, id="5.2.3-unknown-extensions-are-ignored"),
        pytest.param(
            [("Cache-Control", "public"), ("Cache-Control", "max-age=60")], Verdict.STORE, id="5.2-several-lines"
        ),
        pytest.param([], Verdict.NOT_FRESH, id="3-nothing-says-how-long"),
        pytest.param([("Cache-Control", "public")], Verdict.NOT_FRESH, id="4.2.2-no-heuristics"),
        pytest.param([("Cache-Control", "max-age=0")], Verdict.NOT_FRESH, id="4.2-max-age-0"),
        pytest.param([("Cache-Control", "no-store, max-age=60")], Verdict.NO_STORE, id="5.2.2.5-no-store"),
        pytest.param(
            [("Cache-Control", "max-age=60"), ("Cache-Control", "no-store")], Verdict.NO_STORE, id="5.2.2.5-second-line"
        ),
        pytest.param([("Cache-Control", "private, max-age=60")], Verdict.PRIVATE, id="5.2.2.7-private"),
        pytest.param([("Cache-Control", 'private="x-a", max-age=60')], Verdict.PRIVATE, id="5.2.2.7-private-fields"),
        pytest.param([("Cache-Control", "no-cache, max-age=60")], Verdict.NO_CACHE, id="5.2.2.4-no-cache"),
        pytest.param(
            [("Cache-Control", 'no-cache="a, b", max-age=60')], Verdict.NO_CACHE, id="5.2.2.4-no-cache-fields"
        ),
        pytest.param([("Cache-Control", "max-age=60"), ("Set-Cookie", "a=b")], Verdict.SET_COOKIE, id="7.3-set-cookie"),
        pytest.param([("Cache-Control", "max-age=60"), ("Vary", "*")], Verdict.VARY_ANY, id="4.1-vary-any"),
        pytest.param(
            [("Cache-Control", "max-age=60"), ("Vary", "A, *")], Verdict.VARY_ANY, id="4.1-vary-any-in-a-list"
        ),
        pytest.param([("Cache-Control", "max-age=60 no-store")], Verdict.MALFORMED, id="4.2.1-no-comma"),
        pytest.param([("Cache-Control", 'a="no-store, max-age=60')], Verdict.MALFORMED, id="4.2.1-quote-left-open"),
        pytest.param([("Cache-Control", "max-age=sixty")], Verdict.NOT_FRESH, id="4.2.1-invalid-max-age-is-stale"),
        pytest.param([("Cache-Control", "max-age=-60")], Verdict.NOT_FRESH, id="4.2.1-negative-max-age-is-stale"),
        pytest.param([("Cache-Control", "max-age=6.5")], Verdict.NOT_FRESH, id="1.2.2-no-fractions"),
        pytest.param([("Expires", "0")], Verdict.NOT_FRESH, id="5.3-expires-0-is-past"),
        pytest.param([("Expires", date(-1))], Verdict.NOT_FRESH, id="5.3-expires-in-the-past"),
        pytest.param([("Expires", "tomorrow")], Verdict.NOT_FRESH, id="5.3-no-date-is-past"),
        pytest.param([("Cache-Control", "max-age=60"), ("Age", "60")], Verdict.NOT_FRESH, id="4.2-as-old-as-it-may-be"),
        pytest.param([("Cache-Control", "max-age=60"), ("Age", "59")], Verdict.STORE, id="4.2-one-second-left"),
        pytest.param(
            [("Cache-Control", "max-age=60"), ("Date", date(-61))], Verdict.NOT_FRESH, id="4.2.3-apparent-age"
        ),
    ],
)
def test_what_a_response_says_of_itself_decides_whether_it_is_stored(
    lines: list[tuple[str, str | bytes]], verdict: Verdict
) -> None:
    decision = storing(*lines)
    assert decision.verdict is verdict
    assert decision.store is (verdict is Verdict.STORE)


@pytest.mark.parametrize("method", [b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH"])
def test_only_responses_to_get_are_stored(method: bytes) -> None:
    assert storing(("Cache-Control", "max-age=60"), method=method).verdict is Verdict.METHOD


@pytest.mark.parametrize("status", [200, 203, 204, 300, 301, 302, 303, 307, 308, 404, 405, 410, 414, 451, 501])
def test_a_final_status_that_is_understood_is_stored(status: int) -> None:
    assert storing(("Cache-Control", "max-age=60"), status=status).verdict is Verdict.STORE


@pytest.mark.parametrize("status", [206, 304, 400, 401, 403, 416, 429, 500, 502, 503, 504, 599])
def test_partial_unmodified_and_failing_responses_are_not_stored(status: int) -> None:
    assert storing(("Cache-Control", "max-age=60"), status=status).verdict is Verdict.STATUS


@pytest.mark.parametrize(
    ("control", "verdict"),
    [
        pytest.param("max-age=60", Verdict.AUTHORIZATION, id="3.5-nothing-allows-it"),
        pytest.param("public, max-age=60", Verdict.STORE, id="3.5-public"),
        pytest.param("s-maxage=60", Verdict.STORE, id="3.5-s-maxage"),
        pytest.param("must-revalidate, max-age=60", Verdict.STORE, id="3.5-must-revalidate"),
        pytest.param("private, max-age=60", Verdict.PRIVATE, id="3.5-private"),
    ],
)
def test_a_response_to_an_authorized_request_is_stored_only_where_it_says_so(control: str, verdict: Verdict) -> None:
    assert storing(("Cache-Control", control), request=(("Authorization", "Basic eA=="),)).verdict is verdict


@pytest.mark.parametrize("asked", ["no-store", "No-Store", "max-age=0, no-store", "=broken"])
def test_a_request_that_forbids_storing_or_is_not_understood_leaves_nothing_behind(asked: str) -> None:
    decision = storing(("Cache-Control", "max-age=60"), request=(("Cache-Control", asked),))
    assert decision.verdict is Verdict.REQUEST_NO_STORE


@pytest.mark.parametrize(
    "name", ["X-Forwarded-For", "forwarded", "Via", "X-Request-Id", "X-Trace-Id", "traceparent", "tracestate"]
)
def test_what_varies_by_a_field_that_the_edge_rewrites_is_not_stored(name: str) -> None:
    # The origin chose by another value than the one that would select the stored response (RFC 9111 §4.1).
    assert storing(("Cache-Control", "max-age=60"), ("Vary", name)).verdict is Verdict.VARY_REWRITTEN


def test_what_varies_by_a_field_that_ended_at_the_edge_is_not_stored() -> None:
    lines = (("Cache-Control", "max-age=60"), ("Vary", "Accept-Language"))
    request = (("Accept-Language", "de"), ("Connection", "accept-language"))
    assert storing(*lines, request=request).verdict is Verdict.VARY_REWRITTEN
    assert storing(*lines, request=(*request[:1], ("Connection", "keep-alive"))).verdict is Verdict.STORE


# --- how long it is fresh (§4.2)


@pytest.mark.parametrize(
    ("lines", "lifetime_s"),
    [
        pytest.param([("Cache-Control", "max-age=60")], 60, id="4.2.1-max-age"),
        pytest.param([("Cache-Control", "max-age=60, s-maxage=90")], 90, id="4.2.1-s-maxage-before-max-age"),
        pytest.param([("Cache-Control", "max-age=60"), ("Expires", date(90))], 60, id="5.3-max-age-before-expires"),
        pytest.param([("Expires", date(90))], 90, id="4.2.1-expires-without-date"),
        pytest.param([("Expires", date(90)), ("Date", date(-5))], 95, id="4.2.1-expires-less-date"),
        pytest.param([("Cache-Control", "max-age=60, max-age=90")], 60, id="4.2.1-the-first-of-several"),
        pytest.param([("Cache-Control", f"max-age={10**30}")], MAX_DELTA_S, id="1.2.2-too-large-counts-as-2^31"),
        pytest.param([("Cache-Control", f"max-age={2**31 + 1}")], MAX_DELTA_S, id="1.2.2-just-too-large"),
    ],
)
def test_freshness_lifetime(lines: list[tuple[str, str | bytes]], lifetime_s: int) -> None:
    assert storing(*lines).lifetime_ns == lifetime_s * SECOND_NS


@pytest.mark.parametrize(
    ("lines", "took_s", "age_s"),
    [
        pytest.param([], 0, 0, id="4.2.3-just-made"),
        pytest.param([("Date", date())], 3, 3, id="4.2.3-response-delay-counts"),
        pytest.param([("Date", date(-20))], 3, 20, id="4.2.3-apparent-age"),
        pytest.param([("Age", "20")], 3, 23, id="4.2.3-age-and-delay"),
        pytest.param([("Age", "20"), ("Date", date(-30))], 0, 30, id="4.2.3-the-larger-of-both"),
        pytest.param([("Date", date(30))], 0, 0, id="4.2.3-a-date-ahead-of-the-clock"),
        pytest.param([("Age", "20"), ("Age", "90")], 0, 20, id="5.1-the-first-age-counts"),
        pytest.param([("Age", "old")], 0, 0, id="5.1-an-invalid-age-is-ignored"),
        pytest.param([("Age", "-5")], 0, 0, id="5.1-a-negative-age-is-ignored"),
    ],
)
def test_age_on_arrival(lines: list[tuple[str, str | bytes]], took_s: int, age_s: int) -> None:
    assert storing(("Cache-Control", f"max-age={DAY_S}"), *lines, took_s=took_s).age_ns == age_s * SECOND_NS


@pytest.mark.usefixtures("far_from_greenwich")
@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b"Sun, 06 Nov 1994 08:49:37 GMT", id="5.6.7-imf-fixdate"),
        pytest.param(b"Sunday, 06-Nov-94 08:49:37 GMT", id="5.6.7-rfc850"),
        pytest.param(b"Sun Nov  6 08:49:37 1994", id="5.6.7-asctime"),
        pytest.param(b"Sun, 06 Nov 1994 08:49:37 -0000", id="5.6.7-zone-unknown-is-utc"),
    ],
)
def test_every_form_of_http_date_is_utc_wherever_the_node_stands(text: bytes) -> None:
    assert policy.http_date_ns(text) == 784111777 * SECOND_NS


@pytest.mark.parametrize(
    "text", [b"", b"0", b"-1", b"now", b"Sun, 99 Nov 1994 08:49:37 GMT", b"\xff\xfe", b"Sun, 06 Nov 99999 08:49:37 GMT"]
)
def test_what_is_no_date_is_none(text: bytes) -> None:
    assert policy.http_date_ns(text) is None


@settings(deadline=None)
@given(st.binary(max_size=60))
def test_no_bytes_break_the_reading_of_a_date(value: bytes) -> None:
    policy.http_date_ns(value)


# --- Cache-Control's grammar (§5.2)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        pytest.param(b"", {}, id="empty"),
        pytest.param(b" , ,no-store , ,", {b"no-store": None}, id="empty-members"),
        pytest.param(b'a="x, y", b', {b"a": b"x, y", b"b": None}, id="comma-in-quotes"),
        pytest.param(rb'a="x\"y"', {b"a": b'x"y'}, id="quoted-pair"),
        pytest.param(b"max-age=1,max-age=2", {b"max-age": b"1"}, id="the-first-counts"),
        pytest.param(b"Max-Age=5", {b"max-age": b"5"}, id="lower-case"),
        pytest.param(b"max-age = 5", {b"max-age": b"5"}, id="spaces-about-the-sign"),
        pytest.param(b'no-cache=""', {b"no-cache": b""}, id="empty-string"),
        pytest.param(b"a b", None, id="no-comma"),
        pytest.param(b'a="b', None, id="open-quote"),
        pytest.param(b"a=", None, id="no-argument"),
        pytest.param(b"@", None, id="no-token"),
    ],
)
def test_directives(text: bytes, found: dict[bytes, bytes | None] | None) -> None:
    assert policy.directives(text) == found


@settings(deadline=None)
@given(st.text(alphabet='nostre-,;="\\ \ta1', max_size=40))
@example('x="no-store')
def test_a_directive_outside_quotes_is_never_overlooked(text: str) -> None:
    found = policy.directives(f"no-store, {text}".encode())
    assert found is None or b"no-store" in found


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_no_bytes_break_the_parser(value: bytes) -> None:
    policy.directives(value)
    policy.only_if_cached({b"cache-control": value})
    policy.none_match(value, b'"x"')
    policy.storing(b"GET", {b"cache-control": value}, 200, {b"vary": value, b"age": value}, 0, 1)
    policy.storing(b"GET", {}, 200, {b"cache-control": value, b"expires": value, b"date": value}, 0, 1)


def test_a_long_hostile_cache_control_costs_no_more_than_its_length() -> None:
    began = time.perf_counter()
    policy.directives(b'a="' + b'\\"' * 16_000)
    policy.directives(b"a," * 16_000)
    policy.directives(b"," * 32_000 + b"@")
    policy.directives(b" " * 32_000 + b"@")
    policy.directives(b"a" + b" " * 32_000 + b"b")
    assert time.perf_counter() - began < 0.5


# --- what may be reused (§4, §5.2.1)

BORN_NS = NOW_NS - 10 * SECOND_NS
FRESH_UNTIL_NS = NOW_NS + 50 * SECOND_NS


@pytest.mark.parametrize(
    ("request_lines", "expected"),
    [
        pytest.param([], Reuse.FRESH, id="4-plain"),
        pytest.param([("Cache-Control", "no-cache")], Reuse.REQUEST, id="5.2.1.4-no-cache"),
        pytest.param([("Cache-Control", "max-age=0")], Reuse.REQUEST, id="5.2.1.1-max-age-0"),
        pytest.param([("Cache-Control", "max-age=9")], Reuse.REQUEST, id="5.2.1.1-younger-asked-for"),
        pytest.param([("Cache-Control", "max-age=10")], Reuse.FRESH, id="5.2.1.1-young-enough"),
        pytest.param([("Cache-Control", "max-age=ten")], Reuse.REQUEST, id="5.2.1.1-invalid-is-0"),
        pytest.param([("Cache-Control", "min-fresh=50")], Reuse.FRESH, id="5.2.1.3-fresh-for-long-enough"),
        pytest.param([("Cache-Control", "min-fresh=51")], Reuse.REQUEST, id="5.2.1.3-not-long-enough"),
        pytest.param([("Cache-Control", "max-stale=99")], Reuse.FRESH, id="5.2.1.2-max-stale-asks-for-nothing"),
        pytest.param([("Cache-Control", "no-store")], Reuse.FRESH, id="5.2.1.5-no-store-does-not-forbid-reuse"),
        pytest.param([("Cache-Control", "only-if-cached")], Reuse.FRESH, id="5.2.1.7-only-if-cached"),
        pytest.param([("Pragma", "no-cache")], Reuse.REQUEST, id="5.4-pragma"),
        pytest.param([("Pragma", "No-Cache")], Reuse.REQUEST, id="5.4-pragma-in-any-case"),
        pytest.param([("Pragma", "no-cache"), ("Cache-Control", "max-age=60")], Reuse.FRESH, id="5.4-only-without-cc"),
        pytest.param([("Cache-Control", "=broken")], Reuse.REQUEST, id="5.2-not-understood-goes-to-the-origin"),
    ],
)
def test_a_request_may_ask_for_more_than_fresh(request_lines: list[tuple[str, str]], expected: Reuse) -> None:
    assert policy.reuse(BORN_NS, FRESH_UNTIL_NS, fields(*request_lines), NOW_NS) is expected


def test_a_response_is_stale_from_the_very_moment_its_lifetime_ends() -> None:
    assert policy.reuse(BORN_NS, NOW_NS + 1, {}, NOW_NS) is Reuse.FRESH
    assert policy.reuse(BORN_NS, NOW_NS, {}, NOW_NS) is Reuse.STALE


@pytest.mark.parametrize(
    ("control", "expected"),
    [("only-if-cached", True), ("max-age=5, Only-If-Cached", True), ("max-age=5", False), ("=broken", False)],
)
def test_only_if_cached(control: str, expected: bool) -> None:
    assert policy.only_if_cached(fields(("Cache-Control", control))) is expected


# --- conditional requests (RFC 9110 §13.1.2)


@pytest.mark.parametrize(
    ("condition", "etag", "unmodified"),
    [
        pytest.param(b'"a"', b'"a"', True, id="13.1.2-same"),
        pytest.param(b'"b"', b'"a"', False, id="13.1.2-other"),
        pytest.param(b'W/"a"', b'"a"', True, id="8.8.3.2-weak-comparison"),
        pytest.param(b'"a"', b'W/"a"', True, id="8.8.3.2-weak-comparison-the-other-way"),
        pytest.param(b'"x", W/"a" , "y"', b'"a"', True, id="13.1.2-one-of-a-list"),
        pytest.param(b'"x,a"', b'"a"', False, id="8.8.3-comma-in-a-tag"),
        pytest.param(b'"x,a", "a"', b'"a"', True, id="8.8.3-comma-in-another-tag"),
        pytest.param(b"*", b'"a"', True, id="13.1.2-any"),
        pytest.param(b'""', b'""', True, id="8.8.3-empty-tag"),
        pytest.param(b'"\xe9"', b'"\xe9"', True, id="8.8.3-obs-text"),
        pytest.param(b"a", b'"a"', False, id="8.8.3-not-quoted"),
        pytest.param(b'"a"', None, False, id="13.1.2-nothing-to-compare"),
        pytest.param(b"*", None, False, id="RFC9111-4.3.2-evaluated-against-the-stored-validators-only"),
    ],
)
def test_if_none_match(condition: bytes, etag: bytes | None, unmodified: bool) -> None:
    assert policy.none_match(condition, etag) is unmodified


# --- variants (§4.1) and invalidation (§4.4)


@pytest.mark.parametrize(
    ("value", "names"),
    [
        (None, ()),
        ("Accept-Encoding", (b"accept-encoding",)),
        ("Accept-Encoding, , Accept", (b"accept-encoding", b"accept")),
        ("*", None),
        ("a, *", None),
    ],
)
def test_vary(value: str | None, names: tuple[bytes, ...] | None) -> None:
    assert policy.vary_names({} if value is None else fields(("Vary", value))) == names


@pytest.mark.parametrize(
    ("method", "status", "expected"),
    [
        (b"POST", 200, True),
        (b"PUT", 204, True),
        (b"DELETE", 200, True),
        (b"PATCH", 303, True),
        (b"POST", 404, False),
        (b"PUT", 500, False),
        (b"GET", 200, False),
        (b"HEAD", 200, False),
        (b"OPTIONS", 200, False),
    ],
)
def test_a_successful_unsafe_request_invalidates(method: bytes, status: int, expected: bool) -> None:
    assert policy.invalidates(method, status) is expected
