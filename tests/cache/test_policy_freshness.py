"""How long a response is fresh, and how old it is on arrival: RFC 9111 §4.2, and what routes may say about it."""

import pytest

from edgeproxy.cache.directives import MAX_DELTA_S, SECOND_NS
from edgeproxy.cache.freshness import initial_age_ns
from edgeproxy.cache.policy import Terms, Verdict
from edgeproxy.cache.rules import Rules
from tests.cache.messages import DAY_S, NOW_NS, SAFE, Line, date, storing, terms

MONTH_OLD = ("Last-Modified", date(-30 * DAY_S))
ETAG = ("ETag", '"a"')


def lifetime_s(*lines: Line, status: int = 200, rules: Rules = SAFE) -> float:
    return terms(*lines, status=status, rules=rules).lifetime_ns / SECOND_NS


@pytest.mark.parametrize(
    ("lines", "expected_s"),
    [
        pytest.param([("Cache-Control", "max-age=60")], 60, id="4.2.1-max-age"),
        pytest.param([("Cache-Control", "max-age=60, s-maxage=90")], 90, id="4.2.1-s-maxage-before-max-age"),
        pytest.param([("Cache-Control", "s-maxage=0, max-age=60"), ETAG], 0, id="4.2.1-s-maxage-0-before-max-age"),
        pytest.param([("Cache-Control", "s-maxage=x, max-age=60"), ETAG], 0, id="4.2.1-s-maxage-invalid-is-stale"),
        pytest.param([("Cache-Control", "max-age=60"), ("Expires", date(90))], 60, id="5.3-max-age-before-expires"),
        pytest.param([("Cache-Control", "max-age=60"), ("Expires", "0")], 60, id="5.3-max-age-before-a-bad-expires"),
        pytest.param([("Cache-Control", "max-age=x"), ("Expires", date(90)), ETAG], 0, id="4.2.1-invalid-max-age"),
        pytest.param([("Cache-Control", "max-age"), ETAG], 0, id="4.2.1-max-age-without-argument"),
        pytest.param([("Cache-Control", "max-age=-1"), ETAG], 0, id="4.2.1-negative"),
        pytest.param([("Cache-Control", "max-age=1.5"), ETAG], 0, id="4.2.1-fraction"),
        pytest.param([("Cache-Control", "max-age='60'"), ETAG], 0, id="4.2.1-single-quotes"),
        pytest.param([("Cache-Control", "max-age=0060")], 60, id="1.2.2-leading-zeros"),
        pytest.param([("Cache-Control", "max-age=60, max-age=90")], 60, id="4.2.1-the-first-of-several"),
        pytest.param([("Cache-Control", "max-age=90, max-age=60"), ETAG], 0, id="4.2.1-conflict-is-stale"),
        pytest.param([("Cache-Control", "max-age=90"), ("Cache-Control", "max-age=60"), ETAG], 0, id="4.2.1-on-lines"),
        pytest.param([("Cache-Control", "max-age=60, no-cache"), ETAG], 0, id="4.2.1-no-cache-is-stricter"),
        pytest.param([("Cache-Control", f"max-age={10**30}")], MAX_DELTA_S, id="1.2.2-too-large-counts-as-2^31"),
        pytest.param([("Cache-Control", f"max-age={2**31 + 1}")], MAX_DELTA_S, id="1.2.2-just-too-large"),
        pytest.param([("Expires", date(90))], 90, id="4.2.1-expires-without-date"),
        pytest.param([("Expires", date(90)), ("Date", date(-5))], 95, id="4.2.1-expires-less-date"),
        pytest.param([("Expires", date(90)), ("Date", date(30))], 60, id="4.2.1-expires-less-a-date-ahead"),
        pytest.param([("Expires", date(90)), ("Date", "yesterday")], 90, id="4.2.1-expires-with-an-invalid-date"),
        pytest.param([("Expires", date(-90)), ETAG], 0, id="5.3-expires-past"),
        pytest.param([("Expires", date(0)), ("Date", date(0)), ETAG], 0, id="5.3-expires-now"),
        pytest.param([("Expires", "0"), ETAG], 0, id="5.3-expires-0-is-past"),
        pytest.param([("Expires", "-1"), ETAG], 0, id="5.3-expires-minus-one-is-past"),
        pytest.param([("Expires", ""), ETAG], 0, id="5.3-expires-empty-is-past"),
        pytest.param([("Expires", date(90)), ("Expires", date(60)), ETAG], 0, id="4.2.1-several-expires-are-stale"),
        pytest.param([("Expires", "Monday, 15-Jun-26 15:06:40 GMT")], 365 * DAY_S, id="9110-5.6.7-rfc850"),
        pytest.param([("Expires", "Sun Jun 15 15:08:20 2025")], 100, id="9110-5.6.7-asctime"),
        pytest.param([("Expires", "Fri, 31 Dec 9999 23:59:59 GMT")], MAX_DELTA_S, id="5.3-the-end-of-time"),
        pytest.param([("Expires", "0"), MONTH_OLD], 0, id="4.2.2-no-heuristic-where-expires-is-invalid"),
        pytest.param([MONTH_OLD], DAY_S, id="4.2.2-at-most-a-day"),
        pytest.param([("Last-Modified", date(-1000))], 100, id="4.2.2-a-tenth"),
        pytest.param([("Last-Modified", date(-1000)), ("Date", date(-500))], 50, id="4.2.2-a-tenth-before-date"),
        pytest.param([("Last-Modified", date(-1000)), ("Date", "x")], 100, id="4.2.2-invalid-date"),
        pytest.param([("Last-Modified", date(0))], 0, id="4.2.2-modified-now"),
        pytest.param([("Last-Modified", date(60))], 0, id="4.2.2-modified-later"),
        pytest.param([("Last-Modified", "once"), ETAG], 0, id="4.2.2-modified-at-no-date"),
        pytest.param([MONTH_OLD, ("Cache-Control", "must-revalidate")], DAY_S, id="4.2.2-must-revalidate-states-none"),
        pytest.param([("CDN-Cache-Control", "max-age=5"), ("Cache-Control", "s-maxage=9")], 5, id="9213-2.2-targeted"),
        pytest.param([("CDN-Cache-Control", "public"), ("Expires", date(9)), MONTH_OLD], DAY_S, id="9213-2.2-guessed"),
        pytest.param([("CDN-Cache-Control", "s-maxage=5, max-age=3")], 5, id="9213-2.2-same-precedence"),
    ],
)
def test_freshness_lifetime(lines: list[Line], expected_s: float) -> None:
    assert lifetime_s(*lines) == expected_s


@pytest.mark.parametrize(
    ("status", "control", "expected"),
    [
        *(pytest.param(status, "x", True, id=f"4.2.2-{status}") for status in (200, 203, 204, 300, 301, 308)),
        *(pytest.param(status, "x", True, id=f"4.2.2-{status}") for status in (404, 405, 410, 414, 501)),
        *(
            pytest.param(status, "x", False, id=f"4.2.2-{status}")
            for status in (201, 302, 303, 307, 400, 403, 500, 503)
        ),
        pytest.param(302, "public", True, id="4.2.2-public"),
        pytest.param(599, "public", True, id="4.2.2-public-whatever-the-status"),
        pytest.param(400, "public", False, id="of-the-request-though-public"),
    ],
)
def test_lifetimes_are_guessed_only_for_what_may_be_cached_unsaid(status: int, control: str, expected: bool) -> None:
    decision = storing(MONTH_OLD, ("Cache-Control", control), status=status)
    assert (decision.terms is not None and decision.terms.fresh) is expected


def test_nothing_is_guessed_where_the_route_says_so() -> None:
    assert lifetime_s(MONTH_OLD, rules=Rules(heuristic=False)) == 0


# --- age (§4.2.3)


@pytest.mark.parametrize(
    ("lines", "took_s", "age_s"),
    [
        pytest.param([], 0, 0, id="4.2.3-just-made"),
        pytest.param([("Date", date())], 3, 3, id="4.2.3-response-delay-counts"),
        pytest.param([("Date", date())], -3, 0, id="4.2.3-a-clock-that-was-set-back-meanwhile"),
        pytest.param([("Date", date(-20))], 3, 20, id="4.2.3-apparent-age"),
        pytest.param([("Age", "20")], 3, 23, id="4.2.3-age-and-delay"),
        pytest.param([("Age", "20"), ("Date", date(-30))], 0, 30, id="4.2.3-the-larger-of-both"),
        pytest.param([("Age", "20"), ("Date", date(-10))], 0, 20, id="4.2.3-the-larger-of-both-is-age"),
        pytest.param([("Date", date(30))], 0, 0, id="4.2.3-a-date-ahead-of-the-clock"),
        pytest.param([("Date", date(30)), ("Age", "5")], 0, 5, id="4.2.3-age-counts-with-a-date-ahead"),
        pytest.param([("Date", "never")], 0, 0, id="4.2.3-a-date-that-is-none"),
        pytest.param([("Date", date(-20)), ("Date", date(-30))], 0, 0, id="4.2.3-several-dates-are-none"),
        pytest.param([("Age", "20"), ("Age", "90")], 0, 20, id="5.1-the-first-age-counts"),
        pytest.param([("Age", "20, 90")], 0, 20, id="5.1-the-first-of-a-list"),
        pytest.param([("Age", "20 , 90")], 0, 20, id="5.1-the-first-of-a-list-with-spaces"),
        pytest.param([("Age", "old, 90")], 0, 0, id="5.1-the-first-of-a-list-is-invalid"),
        pytest.param([("Age", "old")], 0, 0, id="5.1-an-invalid-age-is-ignored"),
        pytest.param([("Age", "-5")], 0, 0, id="5.1-a-negative-age-is-ignored"),
        pytest.param([("Age", "5.5")], 0, 0, id="5.1-a-fraction-is-ignored"),
        pytest.param([("Age", '"5"')], 0, 0, id="5.1-quotes-are-ignored"),
        pytest.param([("Age", "")], 0, 0, id="5.1-empty-is-ignored"),
        pytest.param([("Age", "007")], 0, 7, id="1.2.2-leading-zeros"),
        pytest.param([("Age", "9" * 40), ETAG], 0, MAX_DELTA_S, id="1.2.2-too-large"),
        pytest.param([("Age", str(2**31)), ETAG], 60, MAX_DELTA_S, id="1.2.2-too-large-with-the-delay"),
        pytest.param([("Date", "Mon, 01 Jan 0001 00:00:00 GMT"), ETAG], 0, MAX_DELTA_S, id="4.2.3-before-all-time"),
    ],
)
def test_age_on_arrival(lines: list[Line], took_s: int, age_s: int) -> None:
    assert terms(("Cache-Control", f"max-age={DAY_S}"), *lines, took_s=took_s).age_ns == age_s * SECOND_NS


def test_date_has_whole_seconds_and_is_held_against_such() -> None:
    response = {b"date": date()}
    assert initial_age_ns(response, NOW_NS, NOW_NS + SECOND_NS - 1) == SECOND_NS - 1  # the delay
    assert initial_age_ns(response, NOW_NS + SECOND_NS - 1, NOW_NS + SECOND_NS - 1) == 0
    assert initial_age_ns(response, NOW_NS + SECOND_NS, NOW_NS + SECOND_NS) == SECOND_NS


# --- what the route says


def ns(seconds: float) -> int:
    return round(seconds * SECOND_NS)


@pytest.mark.parametrize(
    ("lines", "rules", "expected_s"),
    [
        pytest.param([("Cache-Control", "max-age=60")], Rules(ttl_ns=ns(5)), 5, id="ttl-before-max-age"),
        pytest.param([("Cache-Control", "s-maxage=60")], Rules(ttl_ns=ns(5)), 5, id="ttl-before-s-maxage"),
        pytest.param([("CDN-Cache-Control", "max-age=60")], Rules(ttl_ns=ns(5)), 5, id="ttl-before-targeted"),
        pytest.param([], Rules(ttl_ns=ns(5)), 5, id="ttl-where-nothing-is-stated"),
        pytest.param([("Cache-Control", "max-age=0")], Rules(ttl_ns=ns(5)), 5, id="ttl-where-stale"),
        pytest.param([("Cache-Control", "no-cache"), ETAG], Rules(ttl_ns=ns(5)), 0, id="no-cache-before-ttl"),
        pytest.param([("Age", "100")], Rules(ttl_ns=ns(5)), 105, id="ttl-counts-from-arrival"),
        pytest.param([("Cache-Control", "max-age=3")], Rules(ttl_min_ns=ns(5)), 5, id="at-least"),
        pytest.param([("Cache-Control", "max-age=60")], Rules(ttl_min_ns=ns(5)), 60, id="more-than-the-least"),
        pytest.param([("Cache-Control", "no-cache"), ETAG], Rules(ttl_min_ns=ns(5)), 0, id="no-cache-before-the-least"),
        pytest.param([ETAG], Rules(ttl_min_ns=ns(5)), 0, id="bounds-are-for-what-is-stated"),
        pytest.param([("Cache-Control", "max-age=60")], Rules(ttl_max_ns=ns(5)), 5, id="at-most"),
        pytest.param([("Expires", date(60))], Rules(ttl_max_ns=ns(5)), 5, id="at-most-of-expires"),
        pytest.param([("Cache-Control", "max-age=3")], Rules(ttl_max_ns=ns(5)), 3, id="less-than-the-most"),
        pytest.param([], Rules(default_ttl_ns=ns(5)), 5, id="default-where-nothing-is-stated"),
        pytest.param([("Cache-Control", "max-age=60")], Rules(default_ttl_ns=ns(5)), 60, id="stated-before-default"),
        pytest.param([("Expires", "0"), ETAG], Rules(default_ttl_ns=ns(5)), 0, id="stated-if-invalid-before-default"),
        pytest.param([MONTH_OLD], Rules(default_ttl_ns=ns(5)), 5, id="default-before-heuristic"),
        pytest.param([], Rules(status_ttl_ns={200: ns(3)}, default_ttl_ns=ns(5)), 3, id="status-before-default"),
        pytest.param([("Age", "100")], Rules(default_ttl_ns=ns(5)), 105, id="default-counts-from-arrival"),
    ],
)
def test_routes_set_and_bound_lifetimes(lines: list[Line], rules: Rules, expected_s: float) -> None:
    assert lifetime_s(*lines, rules=rules) == expected_s


@pytest.mark.parametrize(
    ("status", "rules", "expected"),
    [
        pytest.param(302, Rules(ttl_ns=ns(5)), True, id="ttl-redirect"),
        pytest.param(404, Rules(ttl_ns=ns(5)), False, id="ttl-is-not-for-errors"),
        pytest.param(500, Rules(ttl_ns=ns(5)), False, id="ttl-is-not-for-failures"),
        pytest.param(404, Rules(status_ttl_ns={404: ns(5)}), True, id="negative-caching"),
        pytest.param(503, Rules(status_ttl_ns={503: ns(5)}), True, id="negative-caching-of-failures"),
        pytest.param(404, Rules(status_ttl_ns={404: ns(5)}, ttl_ns=ns(9)), True, id="negative-caching-beside-ttl"),
        pytest.param(404, Rules(default_ttl_ns=ns(5)), True, id="default-of-what-may-be-cached-unsaid"),
        pytest.param(302, Rules(default_ttl_ns=ns(5)), False, id="3-default-is-for-nothing-else"),
        pytest.param(500, Rules(default_ttl_ns=ns(5)), False, id="3-default-is-not-for-failures"),
        *(
            pytest.param(status, Rules(status_ttl_ns={status: ns(5)}), False, id=f"of-the-request-{status}")
            for status in (400, 408, 411, 413, 415, 417, 421, 426, 429, 431)
        ),
    ],
)
def test_a_routes_lifetimes_by_status(status: int, rules: Rules, expected: bool) -> None:
    assert storing(status=status, rules=rules).store is expected


# --- how long it may be served stale (RFC 5861)

FLOORS = Rules(stale_while_revalidate_ns=ns(20), stale_if_error_ns=ns(30))


@pytest.mark.parametrize(
    ("control", "rules", "expected"),
    [
        pytest.param("max-age=5", SAFE, Terms(ns(5), 0), id="5861-nothing"),
        pytest.param("max-age=5, stale-while-revalidate=7", SAFE, Terms(ns(5), 0, ns(7)), id="5861-3"),
        pytest.param("max-age=5, stale-if-error=7", SAFE, Terms(ns(5), 0, 0, ns(7)), id="5861-4"),
        pytest.param("max-age=5", FLOORS, Terms(ns(5), 0, ns(20), ns(30)), id="5861-the-routes-floors"),
        pytest.param(
            "max-age=5, stale-while-revalidate=7, stale-if-error=90",
            FLOORS,
            Terms(ns(5), 0, ns(20), ns(90)),
            id="5861-the-longer-of-both",
        ),
        pytest.param("max-age=5, must-revalidate", FLOORS, Terms(ns(5), 0, 0, 0, True), id="5.2.2.2-must-revalidate"),
        pytest.param("max-age=5, proxy-revalidate", FLOORS, Terms(ns(5), 0, 0, 0, True), id="5.2.2.8-proxy-revalidate"),
        pytest.param("s-maxage=5", FLOORS, Terms(ns(5), 0, 0, 0, True), id="5.2.2.10-s-maxage-is-proxy-revalidate"),
        pytest.param(
            "max-age=5, must-revalidate, stale-while-revalidate=7, stale-if-error=9",
            SAFE,
            Terms(ns(5), 0, 0, 0, True),
            id="4.2.4-must-revalidate-before-its-own-stale-lifetimes",
        ),
        pytest.param("no-cache", FLOORS, Terms(0, 0, 0, 0, True), id="5.2.2.4-no-cache"),
        pytest.param("public", FLOORS, Terms(0, 0), id="floors-are-for-what-was-ever-fresh"),
        pytest.param("stale-if-error=9", FLOORS, Terms(0, 0, 0, ns(9)), id="5861-4-without-a-lifetime"),
    ],
)
def test_terms_of_serving_stale(control: str, rules: Rules, expected: Terms) -> None:
    assert terms(("Cache-Control", control), ETAG, rules=rules) == expected


@pytest.mark.parametrize(("status", "is_longer"), [(404, True), (499, True), (500, False), (503, False)])
def test_a_route_keeps_no_failure_longer_than_it_is_fresh(status: int, is_longer: bool) -> None:
    rules = Rules(stale_while_revalidate_ns=ns(20), stale_if_error_ns=ns(30), status_ttl_ns={status: ns(1)})
    floors = (ns(20), ns(30)) if is_longer else (0, 0)
    said = terms(status=status, rules=rules)
    assert (said.lifetime_ns, said.stale_while_revalidate_ns, said.stale_if_error_ns) == (ns(1), *floors)
    said = terms(("Cache-Control", "max-age=5, stale-if-error=40"), status=status, rules=rules)
    assert said.stale_if_error_ns == ns(40)


def test_only_what_is_fresh_on_arrival_may_answer_others_that_wait_for_it() -> None:
    assert terms(("Cache-Control", "max-age=5")).fresh is True
    assert terms(("Cache-Control", "max-age=5"), ("Age", "5"), ETAG).fresh is False
    assert terms(("Cache-Control", "no-cache"), ETAG).fresh is False


def test_times_fit_64_bits_whatever_is_said() -> None:
    huge = "9" * 30
    said = terms(
        ("Cache-Control", f"max-age={huge}, stale-if-error={huge}"), ("Date", "Mon, 01 Jan 0001 00:00:00 GMT"), ETAG
    )
    assert NOW_NS - said.age_ns > -(2**63)
    assert NOW_NS + said.lifetime_ns + said.stale_if_error_ns < 2**63
    assert storing(("Expires", "Fri, 31 Dec 9999 23:59:59 GMT")).verdict is Verdict.STORE
