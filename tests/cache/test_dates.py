"""HTTP-date as the edge reads it: RFC 9110 §5.6.7, and RFC 9111 §4.2 on top."""

import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from edgeproxy.cache.dates import SECOND_NS, http_date_ns


def at(*when: int) -> int:
    """A point in time, in nanoseconds since the epoch."""
    return int(datetime(*when, tzinfo=UTC).timestamp()) * SECOND_NS


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


@pytest.mark.usefixtures("far_from_greenwich")
@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b"Sun, 06 Nov 1994 08:49:37 GMT", id="5.6.7-imf-fixdate"),
        pytest.param(b"Sunday, 06-Nov-94 08:49:37 GMT", id="5.6.7-rfc850"),
        pytest.param(b"Sun Nov  6 08:49:37 1994", id="5.6.7-asctime"),
        pytest.param(b"Sun Nov 06 08:49:37 1994", id="5.6.7-asctime-with-two-digits"),
        pytest.param(b"sun, 06 nov 1994 08:49:37 gmt", id="9111-4.2-in-any-case"),
        pytest.param(b"SUNDAY, 06-NOV-94 08:49:37 GMT", id="9111-4.2-rfc850-in-any-case"),
        pytest.param(b"Mon, 06 Nov 1994 08:49:37 GMT", id="5.6.7-the-day-of-the-week-tells-nothing"),
    ],
)
def test_every_form_of_http_date_is_utc_wherever_the_node_stands(text: bytes) -> None:
    assert http_date_ns(text) == at(1994, 11, 6, 8, 49, 37)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(None, id="absent"),
        pytest.param(b"", id="empty"),
        pytest.param(b"0", id="9111-5.3-zero"),
        pytest.param(b"-1", id="9111-5.3-minus-one"),
        pytest.param(b"now", id="word"),
        pytest.param(b"784111777", id="seconds-since-the-epoch"),
        pytest.param(b"1994-11-06T08:49:37Z", id="iso-8601"),
        pytest.param(b"Sun, 06 Nov 1994 08:49:37 UTC", id="9111-4.2-zone-utc"),
        pytest.param(b"Sun, 06 Nov 1994 08:49:37 EST", id="9111-4.2-zone-est"),
        pytest.param(b"Sun, 06 Nov 1994 08:49:37 +0000", id="9111-4.2-zone-in-digits"),
        pytest.param(b"Sun, 06 Nov 1994 08:49:37", id="no-zone"),
        pytest.param(b"06 Nov 1994 08:49:37 GMT", id="no-day-of-the-week"),
        pytest.param(b"Sun 06 Nov 1994 08:49:37 GMT", id="no-comma"),
        pytest.param(b"Sun, 6 Nov 1994 08:49:37 GMT", id="one-digit-day"),
        pytest.param(b"Sun, 06 Nov 1994 8:49:37 GMT", id="one-digit-hour"),
        pytest.param(b"Sun, 06 Nov 94 08:49:37 GMT", id="two-digit-year"),
        pytest.param(b"Sun, 06-Nov-1994 08:49:37 GMT", id="dashes"),
        pytest.param(b"Sun, 06 Nov 1994  08:49:37 GMT", id="two-spaces"),
        pytest.param(b"Sun, 06 Nov 1994 08:49 GMT", id="no-seconds"),
        pytest.param(b"Sun, 06 Nov 1994 08:49:37 GMT ", id="space-at-the-end"),
        pytest.param(b"Sun, 06 Nov 1994 08:49:37 GMT, Sun, 06 Nov 1994 08:49:37 GMT", id="9110-5.3-two-of-them"),
        pytest.param(b"Sun, 31 Nov 1994 08:49:37 GMT", id="day-that-is-not"),
        pytest.param(b"Sun, 00 Nov 1994 08:49:37 GMT", id="day-0"),
        pytest.param(b"Sun, 06 Nov 0000 08:49:37 GMT", id="year-0"),
        pytest.param(b"Sun, 06 Nov 1994 24:00:00 GMT", id="hour-24"),
        pytest.param(b"Sun, 06 Nov 1994 08:60:00 GMT", id="minute-60"),
        pytest.param(b"Sun, 06 Nov 1994 08:49:61 GMT", id="second-61"),
        pytest.param(b"Sun, 06 Nov 19994 08:49:37 GMT", id="five-digit-year"),
        pytest.param(b"Sun, 06 Foo 1994 08:49:37 GMT", id="month-that-is-not"),
        pytest.param(b"Sunday, 29-Feb-95 08:49:37 GMT", id="rfc850-day-that-is-not"),
        pytest.param(b"\xff\xfe", id="obs-text"),
        pytest.param("Sun, \u06606 Nov 1994 08:49:37 GMT".encode(), id="digit-of-another-script"),
    ],
)
def test_what_is_none_of_the_three_forms_is_no_date(text: bytes | None) -> None:
    assert http_date_ns(text) is None


def test_a_leap_second_is_a_second() -> None:
    assert http_date_ns(b"Sat, 31 Dec 2016 23:59:60 GMT") == at(2017, 1, 1)


def test_the_extremes_are_dates() -> None:
    assert http_date_ns(b"Mon, 01 Jan 0001 00:00:00 GMT") == at(1, 1, 1)
    assert http_date_ns(b"Fri, 31 Dec 9999 23:59:59 GMT") == at(9999, 12, 31, 23, 59, 59)


@pytest.mark.parametrize(
    ("year", "now", "expected"),
    [
        pytest.param(b"94", at(2026, 6, 1), 1994, id="5.6.7-more-than-50-years-ahead-is-the-last-century"),
        pytest.param(b"30", at(2026, 6, 1), 2030, id="5.6.7-soon"),
        pytest.param(b"75", at(2026, 6, 1), 2075, id="5.6.7-49-years-ahead"),
        pytest.param(b"76", at(2026, 11, 6), 2076, id="5.6.7-50-years-ahead-and-not-more"),
        pytest.param(b"76", at(2026, 11, 5), 1976, id="5.6.7-50-years-and-a-day-ahead"),
        pytest.param(b"77", at(2026, 12, 1), 1977, id="5.6.7-51-years-ahead"),
        pytest.param(b"01", at(2099, 6, 1), 2101, id="5.6.7-just-over-the-century"),
        pytest.param(b"99", at(2101, 6, 1), 2099, id="5.6.7-just-behind-the-century"),
    ],
)
def test_the_century_of_two_digits_is_told_from_now(year: bytes, now: int, expected: int) -> None:
    assert http_date_ns(b"Sunday, 06-Nov-" + year + b" 00:00:00 GMT", now) == at(expected, 11, 6)
