"""Conditional requests at the cache: RFC 9110 §13, RFC 9111 §4.3."""

import pytest

from edgeproxy.cache import conditional
from tests.cache.messages import Line, date, fields, stored


@pytest.mark.parametrize(
    ("condition", "etag", "unmodified"),
    [
        pytest.param(b'"a"', b'"a"', True, id="13.1.2-same"),
        pytest.param(b'"b"', b'"a"', False, id="13.1.2-other"),
        pytest.param(b'"A"', b'"a"', False, id="8.8.3-tags-are-case-sensitive"),
        pytest.param(b'W/"a"', b'"a"', True, id="8.8.3.2-weak-comparison"),
        pytest.param(b'"a"', b'W/"a"', True, id="8.8.3.2-weak-comparison-the-other-way"),
        pytest.param(b'W/"a"', b'W/"a"', True, id="8.8.3.2-weak-comparison-of-two-weak-ones"),
        pytest.param(b'"x", W/"a" , "y"', b'"a"', True, id="13.1.2-one-of-a-list"),
        pytest.param(b'"x",,"a"', b'"a"', True, id="5.6.1-empty-members"),
        pytest.param(b'"x,a"', b'"a"', False, id="8.8.3-comma-in-a-tag"),
        pytest.param(b'"x,a", "a"', b'"a"', True, id="8.8.3-comma-in-another-tag"),
        pytest.param(b'"a, b"', b'"a, b"', True, id="8.8.3-space-in-a-tag-that-is-no-tag-yet-the-same"),
        pytest.param(b"*", b'"a"', True, id="13.1.2-any"),
        pytest.param(b" * ", b'"a"', True, id="13.1.2-any-with-spaces"),
        pytest.param(b"*", None, True, id="13.1.2-any-without-a-tag"),
        pytest.param(b'"*"', b'"a"', False, id="13.1.2-a-star-in-quotes-is-a-tag"),
        pytest.param(b'*, "b"', b'"a"', False, id="13.1.2-any-in-a-list-is-not-valid"),
        pytest.param(b'""', b'""', True, id="8.8.3-empty-tag"),
        pytest.param(b'"\xe9"', b'"\xe9"', True, id="8.8.3-obs-text"),
        pytest.param(b'"\xe9"', b'"\xe8"', False, id="8.8.3-other-obs-text"),
        pytest.param(b"a", b'"a"', False, id="8.8.3-not-quoted"),
        pytest.param(b"a", b"a", True, id="8.8.3-neither-is-quoted-yet-the-same"),
        pytest.param(b'w/"b"', b'W/"a"', False, id="8.8.3-small-w"),
        pytest.param(b'"a"', None, False, id="13.1.2-nothing-to-compare"),
        pytest.param(b"", b'"a"', False, id="13.1.2-empty"),
    ],
)
def test_if_none_match(condition: bytes, etag: bytes | None, unmodified: bool) -> None:
    assert conditional.not_modified({b"if-none-match": condition}, etag, None) is unmodified


@pytest.mark.parametrize(
    ("since", "last_modified", "made", "unmodified"),
    [
        pytest.param(date(-5), date(-5), None, True, id="13.1.3-same"),
        pytest.param(date(-4), date(-5), None, True, id="13.1.3-later"),
        pytest.param(date(-6), date(-5), None, False, id="13.1.3-earlier"),
        pytest.param(b"Sun Jun 15 15:06:40 2025", date(), None, True, id="5.6.7-asctime"),
        pytest.param(b"Sunday, 15-Jun-25 15:06:40 GMT", date(), None, True, id="5.6.7-rfc850"),
        pytest.param(date(-5), None, date(-5), True, id="9111-4.3.2-date-in-the-place-of-last-modified"),
        pytest.param(date(-6), None, date(-5), False, id="9111-4.3.2-made-later"),
        pytest.param(date(-6), date(-7), date(-5), True, id="9111-4.3.2-last-modified-before-date"),
        pytest.param(date(-5), b"once", date(-5), True, id="9111-4.3.2-last-modified-is-no-date"),
        pytest.param(date(-5), None, None, False, id="9111-4.3.2-nothing-to-compare"),
        pytest.param(b"yesterday", date(-5), date(-5), False, id="13.1.3-no-date-is-ignored"),
        pytest.param(b"0", date(-5), date(-5), False, id="13.1.3-zero-is-ignored"),
        pytest.param(date(-5) + b", " + date(-5), date(-5), None, False, id="13.1.3-several-are-ignored"),
    ],
)
def test_if_modified_since(since: bytes, last_modified: bytes | None, made: bytes | None, unmodified: bool) -> None:
    assert conditional.not_modified({b"if-modified-since": since}, None, last_modified, made) is unmodified


@pytest.mark.parametrize(
    ("condition", "unmodified"),
    [
        pytest.param('"a"', True, id="13.2.2-it-says-same"),
        pytest.param('"b"', False, id="13.2.2-it-says-other"),
        pytest.param("b", False, id="13.2.2-though-it-is-not-valid"),
    ],
)
def test_if_modified_since_does_not_count_beside_if_none_match(condition: str, unmodified: bool) -> None:
    request = fields(("If-None-Match", condition), ("If-Modified-Since", date() if not unmodified else date(-99)))
    assert conditional.not_modified(request, b'"a"', date(-5)) is unmodified


def test_a_request_without_conditions_gets_the_whole() -> None:
    assert conditional.not_modified({}, b'"a"', date(), date()) is False


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        pytest.param([("If-Match", '"a"')], True, id="9111-4.3.2-if-match"),
        pytest.param([("If-Unmodified-Since", date())], True, id="9111-4.3.2-if-unmodified-since"),
        pytest.param(
            [("If-None-Match", '"a"'), ("If-Modified-Since", date()), ("If-Range", '"a"')], False, id="others"
        ),
    ],
)
def test_conditions_that_are_for_the_origin(lines: list[Line], expected: bool) -> None:
    assert conditional.must_forward(fields(*lines)) is expected


@pytest.mark.parametrize(
    ("value", "etag", "expected"),
    [
        pytest.param(b'"a"', b'"a"', True, id="13.1.5-same"),
        pytest.param(b' "a" ', b'"a"', True, id="13.1.5-spaces"),
        pytest.param(b'"b"', b'"a"', False, id="13.1.5-other"),
        pytest.param(b'W/"a"', b'W/"a"', False, id="8.8.3.2-two-weak-ones-are-never-the-same"),
        pytest.param(b'W/"a"', b'"a"', False, id="8.8.3.2-weak-for-strong"),
        pytest.param(b'"a"', b'W/"a"', False, id="8.8.3.2-strong-for-weak"),
        pytest.param(b'"a", "b"', b'"a"', False, id="13.1.5-no-list"),
        pytest.param(b'"a', b'"a', False, id="8.8.3-no-tag-though-the-same"),
        pytest.param(b'"a"', None, False, id="13.1.5-nothing-to-compare"),
        pytest.param(b"*", b'"a"', False, id="13.1.5-no-star"),
        pytest.param(b"", b'"a"', False, id="13.1.5-empty"),
    ],
)
def test_if_range_with_a_tag(value: bytes, etag: bytes | None, expected: bool) -> None:
    assert conditional.if_range(value, etag, date(-60), date()) is expected


@pytest.mark.parametrize(
    ("value", "last_modified", "made", "expected"),
    [
        pytest.param(date(-60), date(-60), date(), True, id="13.1.5-same"),
        pytest.param(date(-1), date(-1), date(), True, id="8.8.2.2-made-a-second-later"),
        pytest.param(date(), date(), date(), False, id="8.8.2.2-made-in-the-same-second"),
        pytest.param(date(5), date(5), date(), False, id="8.8.2.2-modified-after-it-was-made"),
        pytest.param(date(-60), date(-60), None, False, id="8.8.2.2-nobody-knows-when-it-was-made"),
        pytest.param(date(-60), date(-60), b"x", False, id="8.8.2.2-made-at-no-date"),
        pytest.param(date(-59), date(-60), date(), False, id="13.1.5-later-is-not-the-same"),
        pytest.param(date(-61), date(-60), date(), False, id="13.1.5-earlier-is-not-the-same"),
        pytest.param(b"Sun Jun 15 15:06:40 2025", date(), date(9), True, id="5.6.7-the-same-in-another-form"),
        pytest.param(date(-60), None, date(), False, id="13.1.5-nothing-to-compare"),
        pytest.param(b"x", b"x", date(), False, id="13.1.5-no-date-though-the-same"),
    ],
)
def test_if_range_with_a_date(value: bytes, last_modified: bytes | None, made: bytes | None, expected: bool) -> None:
    assert conditional.if_range(value, b'"a"', last_modified, made) is expected


@pytest.mark.parametrize(
    ("etag", "last_modified", "lines"),
    [
        pytest.param(
            b'"a"', date(), b'If-None-Match: "a"\r\nIf-Modified-Since: ' + date() + b"\r\n", id="9111-4.3.1-both"
        ),
        pytest.param(b'W/"a"', None, b'If-None-Match: W/"a"\r\n', id="9111-4.3.1-tag"),
        pytest.param(None, date(), b"If-Modified-Since: " + date() + b"\r\n", id="9111-4.3.1-date"),
        pytest.param(None, b"once", b"", id="13.1.3-what-is-no-date-is-not-sent"),
        pytest.param(None, None, b"", id="9111-4.3.1-nothing-to-validate-by"),
    ],
)
def test_what_the_origin_is_asked(etag: bytes | None, last_modified: bytes | None, lines: bytes) -> None:
    assert conditional.validators(stored(etag=etag, last_modified=last_modified)) == lines
