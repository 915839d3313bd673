"""HTTP-date (RFC 9110 §5.6.7), strictly: what is none of its three forms is no date. Pure.

Strict because an invalid Expires is a time in the past (RFC 9111 §5.3), and because no zone but GMT may count (§4.2).
"""

import re
from datetime import UTC, date, datetime
from functools import lru_cache

SECOND_NS = 1_000_000_000
REFERENCE_NS = 1_767_225_600 * SECOND_NS
"""The beginning of 2026: what fifty years are counted from where the caller has no better time."""

_DAY = rb"(?:mon|tue|wed|thu|fri|sat|sun)"
_MONTH = rb"(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)"
_TIME = rb"([0-9]{2}):([0-9]{2}):([0-9]{2})"
_IMF = re.compile(_DAY + rb", ([0-9]{2}) " + _MONTH + rb" ([0-9]{4}) " + _TIME + rb" gmt")
_RFC850 = re.compile(
    rb"(?:mon|tues|wednes|thurs|fri|satur|sun)day, ([0-9]{2})-" + _MONTH + rb"-([0-9]{2}) " + _TIME + rb" gmt"
)
_ASCTIME = re.compile(_DAY + rb" " + _MONTH + rb" ([ 0-9][0-9]) " + _TIME + rb" ([0-9]{4})")
_MONTHS = {
    name: number
    for number, name in enumerate(
        (b"jan", b"feb", b"mar", b"apr", b"may", b"jun", b"jul", b"aug", b"sep", b"oct", b"nov", b"dec"), 1
    )
}
_EPOCH_DAY = date(1970, 1, 1).toordinal()
_LONGEST = len(b"Wednesday, 09-Nov-94 08:49:37 GMT")
_AHEAD_YEARS = 50


def http_date_ns(value: bytes | None, now_ns: int = REFERENCE_NS) -> int | None:
    """An HTTP-date in nanoseconds since the epoch, None when absent or invalid. Case does not matter (RFC 9111 §4.2).

    `now_ns` only tells the century of an RFC 850 date: one that seems more than 50 years ahead is in the past.
    """
    if value is None or len(value) > _LONGEST:
        return None
    seconds = _seconds(value)
    if seconds is not None:
        return seconds * SECOND_NS
    return _rfc850_ns(value, now_ns)


@lru_cache(maxsize=1024)
def _seconds(value: bytes) -> int | None:
    """A date that names its century."""
    # Dates recur: Last-Modified with the resource, Date and Expires with the second. Reading one takes 2 µs.
    text = value.lower()
    if match := _IMF.fullmatch(text):
        day, month, year, hour, minute, second = match.groups()
    elif match := _ASCTIME.fullmatch(text):
        month, day, hour, minute, second, year = match.groups()
    else:
        return None
    return _epoch_s(int(year), month, day, hour, minute, second)


def _rfc850_ns(value: bytes, now_ns: int) -> int | None:
    match = _RFC850.fullmatch(value.lower())
    if match is None:
        return None
    day, month, short, hour, minute, second = match.groups()
    now = datetime.fromtimestamp(now_ns // SECOND_NS, UTC)
    ahead = (now.year + _AHEAD_YEARS, *now.timetuple()[1:6])
    year = now.year - now.year % 100 + 100 + int(short)
    while (year, _MONTHS[month], int(day), int(hour), int(minute), int(second)) > ahead:
        year -= 100
    seconds = _epoch_s(year, month, day, hour, minute, second)
    return None if seconds is None else seconds * SECOND_NS


def _epoch_s(year: int, month: bytes, day: bytes, hour: bytes, minute: bytes, second: bytes) -> int | None:
    if int(hour) > 23 or int(minute) > 59 or int(second) > 60:  # 60: a leap second
        return None
    try:
        days = date(year, _MONTHS[month], int(day)).toordinal() - _EPOCH_DAY
    except ValueError:
        return None
    return ((days * 24 + int(hour)) * 60 + int(minute)) * 60 + int(second)
