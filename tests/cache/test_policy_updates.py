"""What a 304 or a HEAD changes in a stored response: RFC 9111 §3.2, §4.3.4, §4.3.5."""

import pytest

from edgeproxy.cache import policy
from edgeproxy.cache.directives import SECOND_NS
from edgeproxy.cache.policy import HeadUpdate, Terms, Verdict
from tests.cache.messages import NOW_NS, SAFE, Line, date, fields, lines_of, stored

DATE = ("Date", date())


@pytest.mark.parametrize(
    ("etag", "last_modified", "update", "expected"),
    [
        pytest.param(b'"a"', None, [("ETag", '"a"')], True, id="4.3.4-the-same-strong-tag"),
        pytest.param(b'"a"', None, [("ETag", '"b"')], False, id="4.3.4-another-strong-tag"),
        pytest.param(b'W/"a"', None, [("ETag", '"a"')], False, id="4.3.4-strong-for-weak"),
        pytest.param(None, date(), [("ETag", '"a"')], False, id="4.3.4-strong-for-none"),
        pytest.param(b'"a"', date(), [("ETag", '"b"'), ("Last-Modified", date())], False, id="4.3.4-tag-before-date"),
        pytest.param(b'W/"a"', None, [("ETag", 'W/"a"')], True, id="4.3.4-the-same-weak-tag"),
        pytest.param(b'"a"', None, [("ETag", 'W/"a"')], True, id="4.3.4-weak-for-strong"),
        pytest.param(b'"a"', None, [("ETag", 'W/"b"')], False, id="4.3.4-another-weak-tag"),
        pytest.param(None, date(), [("ETag", 'W/"a"')], False, id="4.3.4-weak-for-none"),
        pytest.param(None, date(-5), [("Last-Modified", date(-5))], True, id="4.3.4-the-same-date"),
        pytest.param(
            None,
            b"Sun Jun 15 15:06:40 2025",
            [("Last-Modified", date())],
            True,
            id="4.3.4-the-same-date-in-another-form",
        ),
        pytest.param(b'"a"', date(-5), [("Last-Modified", date(-5))], True, id="4.3.4-the-same-date-alone"),
        pytest.param(None, date(-5), [("Last-Modified", date(-4))], False, id="4.3.4-another-date"),
        pytest.param(None, b"x", [("Last-Modified", "y")], False, id="4.3.4-two-that-are-no-dates"),
        pytest.param(b'"a"', None, [("Last-Modified", date(-4))], False, id="4.3.4-a-date-for-none"),
        pytest.param(b'"a"', date(), [], True, id="4.3.4-no-validator-and-only-one-was-asked-about"),
        pytest.param(None, None, [], True, id="4.3.4-no-validator-on-either-side"),
    ],
)
def test_a_304_is_about_the_response_whose_validators_it_has(
    etag: bytes | None, last_modified: bytes | None, update: list[Line], expected: bool
) -> None:
    assert policy.answers_for(stored(etag=etag, last_modified=last_modified), fields(*update)) is expected


def updated(before: list[Line], update: list[Line], without: frozenset[bytes] = frozenset()) -> list[Line]:
    lines = policy.updated_lines(stored(*before), lines_of(*update), NOW_NS, without)
    return [(name.decode(), value.decode()) for name, value in lines]


def test_fields_of_a_304_replace_those_stored_and_others_stay() -> None:
    before: list[Line] = [("X-A", "old"), ("X-B", "kept"), ("x-a", "older"), ("Date", date(-60))]
    assert updated(before, [("X-a", "new"), ("X-C", "added"), DATE]) == [
        ("X-a", "new"),
        ("X-B", "kept"),
        ("Date", date().decode()),
        ("X-C", "added"),
    ]


def test_all_lines_of_a_field_are_replaced_by_all_lines_of_it() -> None:
    before: list[Line] = [("Link", "1"), ("Link", "2"), DATE]
    after = updated(before, [("link", "3"), ("Link", "4"), DATE])
    assert after == [("link", "3"), ("Link", "4"), ("Date", date().decode())]


@pytest.mark.parametrize(
    "name",
    [
        *("Content-Length", "Content-Encoding", "Content-Range", "Transfer-Encoding", "Connection", "Keep-Alive", "TE"),
        *("Trailer", "Upgrade", "Proxy-Authenticate", "Proxy-Authorization", "Proxy-Connection", "Age", "Set-Cookie"),
        *("Cache-Status", "Server-Timing", "X-Request-Id", "X-Trace-Id", "traceresponse"),
    ],
)
def test_fields_about_the_stored_body_one_hop_or_one_moment_are_not_updated(name: str) -> None:
    assert updated([(name, "1"), DATE], [(name, "2"), DATE]) == [(name, "1"), ("Date", date().decode())]
    assert updated([DATE], [(name.lower(), "2"), DATE]) == [("Date", date().decode())]


@pytest.mark.parametrize(
    "name",
    [
        *(
            "Cache-Control",
            "Expires",
            "ETag",
            "Last-Modified",
            "Vary",
            "Content-Type",
            "Content-Language",
            "Content-Location",
        ),
        *("Content-Security-Policy", "Content-Foo", "X-Frame-Options", "Surrogate-Key", "Via", "Warning"),
    ],
)
def test_every_other_field_is_updated(name: str) -> None:
    assert updated([(name, "1"), DATE], [(name, "2"), DATE]) == [(name, "2"), ("Date", date().decode())]


def test_an_update_without_date_was_made_now() -> None:
    assert updated([("Date", date(-60))], []) == [("Date", date().decode())]


def test_fields_that_are_not_to_be_stored_any_more_go() -> None:
    before: list[Line] = [("X-A", "1"), ("X-B", "2"), DATE]
    assert updated(before, [("X-a", "3"), DATE], frozenset({b"x-a"})) == [("X-B", "2"), ("Date", date().decode())]


def test_what_storing_decides_by_has_all_lines_of_a_field_and_the_updates_own_age() -> None:
    before = stored(("Cache-Control", "no-cache"), ("Cache-Control", "max-age=60"), ("ETag", '"a"'), ("Age", "9"))
    update = [DATE, ("Age", "7"), ("Content-Length", "0")]
    merged = policy.updated_fields(before, lines_of(*update), fields(*update), NOW_NS)
    assert merged == {b"cache-control": b"no-cache, max-age=60", b"etag": b'"a"', b"age": b"7", b"date": date()}


@pytest.mark.parametrize(
    ("before", "update", "verdict", "lifetime_s"),
    [
        pytest.param([("Cache-Control", "max-age=60")], [DATE], Verdict.STORE, 60, id="3.2-as-before"),
        pytest.param(
            [("Cache-Control", "max-age=60")],
            [("Cache-Control", "max-age=5"), DATE],
            Verdict.STORE,
            5,
            id="3.2-shorter",
        ),
        pytest.param([("Expires", date(-5)), ("Date", date(-65))], [], Verdict.STORE, 0, id="3.2-expires-is-past"),
        pytest.param([("Expires", date(-5))], [("Expires", date(9)), DATE], Verdict.STORE, 9, id="3.2-expires-moves"),
        pytest.param(
            [("Cache-Control", "max-age=60")], [("Cache-Control", "no-store")], Verdict.NO_STORE, 0, id="3.2-no-store"
        ),
        pytest.param(
            [("Cache-Control", "max-age=60")], [("Cache-Control", "private")], Verdict.PRIVATE, 0, id="3.2-private"
        ),
    ],
)
def test_a_freshened_response_is_judged_anew(
    before: list[Line], update: list[Line], verdict: Verdict, lifetime_s: float
) -> None:
    entry = stored(("ETag", '"a"'), *before, etag=b'"a"')
    merged = policy.updated_fields(entry, lines_of(*update), fields(*update), NOW_NS)
    decision = policy.storing(b"GET", b"/", {}, 200, merged, SAFE, NOW_NS, NOW_NS)
    assert decision.verdict is verdict
    assert (0 if decision.terms is None else decision.terms.lifetime_ns) == lifetime_s * SECOND_NS


def test_a_304_gives_the_stored_response_new_terms() -> None:
    before = stored(("ETag", '"a"'), ("X-A", "1"), age_s=99, fresh_s=-9, etag=b'"a"', last_modified=date(-500))
    update = [("ETag", 'W/"a"'), ("X-A", "2"), DATE]
    terms = Terms(60 * SECOND_NS, 5 * SECOND_NS, 7 * SECOND_NS, 8 * SECOND_NS, True)
    after = policy.freshened(before, lines_of(*update), fields(*update), terms, NOW_NS)
    assert (after.born_ns, after.fresh_until_ns) == (NOW_NS - 5 * SECOND_NS, NOW_NS + 55 * SECOND_NS)
    assert (after.stale_while_revalidate_ns, after.stale_if_error_ns) == (7 * SECOND_NS, 8 * SECOND_NS)
    assert (after.must_revalidate, after.stored_ns) == (True, NOW_NS)
    assert (after.etag, after.last_modified) == (b'W/"a"', date(-500))
    assert after.lines == lines_of(("ETag", 'W/"a"'), ("X-A", "2"), DATE)
    kept = ("key", "url", "vary", "variant", "status", "reason", "origin", "filled_by", "tags", "purge_seq")
    assert [getattr(after, name) for name in kept] == [getattr(before, name) for name in kept]


def test_without_terms_a_freshened_response_stays_stale() -> None:
    after = policy.freshened(stored(fresh_s=50, revalidate_s=9, error_s=9), [], {}, None, NOW_NS)
    assert policy.reuse(after, {}, SAFE, NOW_NS) is policy.Reuse.VALIDATE
    assert policy.stale_on_error(after, {}, NOW_NS) is False


@pytest.mark.parametrize(
    ("etag", "status", "update", "expected"),
    [
        pytest.param(b'"a"', 200, [("ETag", '"a"')], HeadUpdate.FRESHEN, id="4.3.5-the-same-tag"),
        pytest.param(
            b'"a"', 200, [("ETag", '"a"'), ("Content-Length", "5")], HeadUpdate.FRESHEN, id="4.3.5-and-the-same-length"
        ),
        pytest.param(b'"a"', 200, [("ETag", '"b"')], HeadUpdate.INVALIDATE, id="4.3.5-another-tag"),
        pytest.param(b'"a"', 200, [("ETag", 'W/"a"')], HeadUpdate.INVALIDATE, id="4.3.5-a-weaker-tag"),
        pytest.param(
            b'"a"', 200, [("ETag", '"a"'), ("Content-Length", "6")], HeadUpdate.INVALIDATE, id="4.3.5-another-length"
        ),
        pytest.param(
            b'"a"', 200, [("ETag", '"a"'), ("Content-Length", "5x")], HeadUpdate.INVALIDATE, id="4.3.5-no-length"
        ),
        pytest.param(
            b'"a"', 200, [("ETag", '"a"'), ("Last-Modified", date(1))], HeadUpdate.INVALIDATE, id="4.3.5-another-date"
        ),
        pytest.param(
            b'"a"', 200, [("ETag", '"a"'), ("Last-Modified", date())], HeadUpdate.FRESHEN, id="4.3.5-the-same-date"
        ),
        pytest.param(None, 200, [("ETag", '"a"')], HeadUpdate.INVALIDATE, id="4.3.5-a-tag-that-is-new"),
        pytest.param(b'"a"', 200, [], HeadUpdate.NOTHING, id="4.3.5-nothing-to-tell-by"),
        pytest.param(b'"a"', 200, [("Content-Length", "6")], HeadUpdate.INVALIDATE, id="4.3.5-another-length-alone"),
        pytest.param(b'"a"', 404, [("ETag", '"b"')], HeadUpdate.NOTHING, id="4.3.5-only-a-200-tells"),
        pytest.param(b'"a"', 304, [("ETag", '"b"')], HeadUpdate.NOTHING, id="4.3.5-a-304-tells-the-client"),
    ],
)
def test_a_head_updates_or_invalidates_the_stored_get(
    etag: bytes | None, status: int, update: list[Line], expected: HeadUpdate
) -> None:
    assert policy.head_update(stored(etag=etag, last_modified=date()), 5, status, fields(*update)) is expected


@pytest.mark.parametrize(
    ("body_bytes", "length", "expected"),
    [
        (0, "0", HeadUpdate.FRESHEN),
        (0, "00", HeadUpdate.FRESHEN),
        (5, "05", HeadUpdate.FRESHEN),
        (5, "0", HeadUpdate.INVALIDATE),
        (0, "5", HeadUpdate.INVALIDATE),
    ],
)
def test_a_response_without_validators_is_told_by_its_length(
    body_bytes: int, length: str, expected: HeadUpdate
) -> None:
    assert policy.head_update(stored(), body_bytes, 200, fields(("Content-Length", length))) is expected


@pytest.mark.parametrize(("etag", "last_modified"), [(b'"a"', None), (None, date()), (b'"a"', date())])
def test_a_head_without_validators_proves_nothing_of_a_response_with_any(
    etag: bytes | None, last_modified: bytes | None
) -> None:
    entry = stored(etag=etag, last_modified=last_modified)
    assert policy.head_update(entry, 5, 200, fields(("Content-Length", "5"))) is HeadUpdate.NOTHING


def test_a_head_says_nothing_of_a_stored_error() -> None:
    assert policy.head_update(stored(status=404), 5, 200, {}) is HeadUpdate.NOTHING
