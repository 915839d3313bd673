"""When a stored response may be used for a request: RFC 9111 §4, §5.2.1, and stale ones, RFC 5861."""

import pytest

from edgeproxy.cache import policy
from edgeproxy.cache.policy import Reuse
from edgeproxy.cache.rules import Rules
from tests.cache.messages import NOW_NS, SAFE, fields, stored

DEAF = Rules(client_no_cache=False)


@pytest.mark.parametrize(
    ("request_lines", "expected"),
    [
        pytest.param([], Reuse.FRESH, id="4-plain"),
        pytest.param([("Cache-Control", "no-cache")], Reuse.VALIDATE, id="5.2.1.4-no-cache"),
        pytest.param([("Cache-Control", "max-age=0")], Reuse.VALIDATE, id="5.2.1.1-max-age-0"),
        pytest.param([("Cache-Control", "max-age=9")], Reuse.VALIDATE, id="5.2.1.1-younger-asked-for"),
        pytest.param([("Cache-Control", "max-age=10")], Reuse.FRESH, id="5.2.1.1-young-enough"),
        pytest.param([("Cache-Control", "max-age=ten")], Reuse.VALIDATE, id="5.2.1.1-invalid-is-0"),
        pytest.param([("Cache-Control", "max-age=9, max-stale")], Reuse.VALIDATE, id="5.2.1.1-with-max-stale"),
        pytest.param([("Cache-Control", "min-fresh=50")], Reuse.FRESH, id="5.2.1.3-fresh-for-long-enough"),
        pytest.param([("Cache-Control", "min-fresh=51")], Reuse.VALIDATE, id="5.2.1.3-not-long-enough"),
        pytest.param([("Cache-Control", "min-fresh=x")], Reuse.VALIDATE, id="5.2.1.3-invalid"),
        pytest.param([("Cache-Control", "max-stale=99")], Reuse.FRESH, id="5.2.1.2-max-stale-asks-for-nothing"),
        pytest.param([("Cache-Control", "no-store")], Reuse.FRESH, id="5.2.1.5-no-store-does-not-forbid-reuse"),
        pytest.param([("Cache-Control", "only-if-cached")], Reuse.FRESH, id="5.2.1.7-only-if-cached"),
        pytest.param([("Cache-Control", "x=y")], Reuse.FRESH, id="5.2.3-unknown"),
        pytest.param([("Pragma", "no-cache")], Reuse.VALIDATE, id="5.4-pragma"),
        pytest.param([("Pragma", "No-Cache")], Reuse.VALIDATE, id="5.4-pragma-in-any-case"),
        pytest.param([("Pragma", "no-cache"), ("Cache-Control", "max-age=60")], Reuse.FRESH, id="5.4-only-without-cc"),
        pytest.param([("Cache-Control", "=broken")], Reuse.VALIDATE, id="5.2-not-understood-goes-to-the-origin"),
    ],
)
def test_a_request_may_ask_for_more_than_fresh(request_lines: list[tuple[str, str]], expected: Reuse) -> None:
    entry = stored(age_s=10, fresh_s=50)
    assert policy.reuse(entry, fields(*request_lines), SAFE, NOW_NS) is expected
    assert policy.reuse(entry, fields(*request_lines), DEAF, NOW_NS) is Reuse.FRESH


@pytest.mark.parametrize(
    ("control", "revalidate_s", "expected"),
    [
        pytest.param(None, 0, Reuse.VALIDATE, id="4.2.4-stale-is-not-served"),
        pytest.param("max-stale", 0, Reuse.STALE, id="5.2.1.2-however-stale"),
        pytest.param("max-stale=5", 0, Reuse.STALE, id="5.2.1.2-just-stale-enough"),
        pytest.param("max-stale=4", 0, Reuse.VALIDATE, id="5.2.1.2-too-stale"),
        pytest.param("max-stale=x", 0, Reuse.VALIDATE, id="5.2.1.2-invalid"),
        pytest.param("max-stale, no-cache", 0, Reuse.VALIDATE, id="5.2.1.4-no-cache-before-max-stale"),
        pytest.param("max-stale, max-age=14", 0, Reuse.VALIDATE, id="5.2.1.1-too-old-for-max-age"),
        pytest.param("max-stale, max-age=15", 0, Reuse.STALE, id="5.2.1.1-stale-and-young-enough"),
        pytest.param("max-stale, min-fresh=1", 0, Reuse.VALIDATE, id="5.2.1.3-never-stale"),
        pytest.param(None, 6, Reuse.STALE_WHILE_REVALIDATE, id="5861-3-within-its-time"),
        pytest.param(None, 5, Reuse.VALIDATE, id="5861-3-its-time-is-over"),
        pytest.param("max-stale=99", 6, Reuse.STALE_WHILE_REVALIDATE, id="5861-3-revalidated-as-well"),
        pytest.param("max-stale=99", 5, Reuse.STALE, id="5861-3-over-yet-stale-enough-for-the-client"),
        pytest.param("no-cache", 6, Reuse.VALIDATE, id="5861-3-not-for-no-cache"),
        pytest.param("max-age=60", 6, Reuse.VALIDATE, id="5.2.1.1-max-age-takes-nothing-stale"),
        pytest.param("max-age=60, max-stale=9", 6, Reuse.STALE_WHILE_REVALIDATE, id="5.2.1.1-unless-it-says-so"),
        pytest.param("min-fresh=1", 6, Reuse.VALIDATE, id="5.2.1.3-nothing-stale"),
    ],
)
def test_a_stale_response_is_used_where_somebody_allows_it(
    control: str | None, revalidate_s: float, expected: Reuse
) -> None:
    request = {} if control is None else fields(("Cache-Control", control))
    entry = stored(age_s=15, fresh_s=-5, revalidate_s=revalidate_s)
    assert policy.reuse(entry, request, SAFE, NOW_NS) is expected


@pytest.mark.parametrize("control", ["max-stale", "max-stale=99", "max-age=99, max-stale"])
def test_what_must_be_revalidated_is_never_used_stale(control: str) -> None:
    # §4.2.4: not even for a client that takes it, nor within the time of RFC 5861.
    entry = stored(fresh_s=-5, revalidate_s=99, error_s=99, must_revalidate=True)
    assert policy.reuse(entry, fields(("Cache-Control", control)), SAFE, NOW_NS) is Reuse.VALIDATE
    assert policy.stale_on_error(entry, fields(("Cache-Control", f"{control}, stale-if-error=99")), NOW_NS) is False


def test_a_client_that_is_not_listened_to_gets_nothing_stale_either() -> None:
    assert policy.reuse(stored(fresh_s=-5), fields(("Cache-Control", "max-stale")), DEAF, NOW_NS) is Reuse.VALIDATE


def test_a_response_is_stale_from_the_very_moment_its_lifetime_ends() -> None:
    entry = stored(fresh_s=0)
    assert policy.reuse(entry, {}, SAFE, NOW_NS - 1) is Reuse.FRESH
    assert policy.reuse(entry, {}, SAFE, NOW_NS) is Reuse.VALIDATE


@pytest.mark.parametrize("control", [None, "max-stale=99"])
def test_what_was_never_fresh_is_not_fresh_because_the_clock_was_set_back(control: str | None) -> None:
    entry = stored(age_s=0, fresh_s=0)
    request = {} if control is None else fields(("Cache-Control", control))
    assert policy.reuse(entry, request, SAFE, NOW_NS - 10**12) is (Reuse.STALE if control else Reuse.VALIDATE)


def test_what_only_remembers_that_nothing_is_stored_is_no_response() -> None:
    entry = stored(uncacheable="no-store", error_s=99)
    assert policy.reuse(entry, {}, SAFE, NOW_NS) is Reuse.VALIDATE
    assert policy.stale_on_error(entry, {}, NOW_NS) is False


@pytest.mark.parametrize(
    ("fresh_s", "error_s", "control", "expected"),
    [
        pytest.param(-5, 0, None, False, id="4.2.4-nothing-allows-it"),
        pytest.param(-5, 5, None, True, id="5861-4-the-response-allows-it"),
        pytest.param(-5, 4, None, False, id="5861-4-its-time-is-over"),
        pytest.param(-5, 0, "stale-if-error=5", True, id="5861-4-the-request-allows-it"),
        pytest.param(-5, 0, "stale-if-error=4", False, id="5861-4-not-for-that-long"),
        pytest.param(-5, 0, "stale-if-error=x", False, id="5861-4-invalid"),
        pytest.param(-5, 5, "stale-if-error=1", True, id="5861-4-the-longer-of-both"),
        pytest.param(-5, 5, "no-cache", True, id="5861-4-rather-than-an-error"),
        pytest.param(5, 5, "no-cache", True, id="5861-4-what-is-still-fresh"),
        pytest.param(5, 0, "no-cache", False, id="5.2.1.4-fresh-yet-nothing-allows-it"),
    ],
)
def test_a_stale_response_rather_than_an_error(
    fresh_s: float, error_s: float, control: str | None, expected: bool
) -> None:
    request = {} if control is None else fields(("Cache-Control", control))
    assert policy.stale_on_error(stored(fresh_s=fresh_s, error_s=error_s), request, NOW_NS) is expected


@pytest.mark.parametrize(
    ("status", "expected"),
    [(200, False), (404, False), (500, True), (501, False), (502, True), (503, True), (504, True)],
)
def test_which_statuses_count_as_an_error(status: int, expected: bool) -> None:
    assert policy.is_error(status) is expected


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([("Cache-Control", "only-if-cached")], True),
        ([("Cache-Control", "max-age=5, Only-If-Cached")], True),
        ([("Cache-Control", "max-age=5")], False),
        ([("Cache-Control", 'x="only-if-cached"')], False),
        ([("Cache-Control", "=broken")], False),
        ([("Pragma", "only-if-cached")], False),
        ([], False),
    ],
)
def test_only_if_cached(lines: list[tuple[str, str]], expected: bool) -> None:
    assert policy.only_if_cached(fields(*lines)) is expected
