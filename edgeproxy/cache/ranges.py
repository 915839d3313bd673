"""Ranges of a stored whole (RFC 9110 §14): which parts a request asks for, and how several of them are sent. Pure; no
body is copied.
"""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

RANGES_MAX = 100
"""More than these are a way to make much out of little (RFC 9110 §14.2): the whole is sent instead."""
OVERLAPS_MAX = 16
_DIGITS_MAX = 18


class Span(NamedTuple):
    """A part of a body: positions of its first and last byte."""

    first: int
    last: int

    @property
    def size_bytes(self) -> int:
        """How many bytes it has."""
        return self.last - self.first + 1


class Unsatisfiable(msgspec.Struct, frozen=True):
    """No part that was asked for exists: 416 (RFC 9110 §15.5.17)."""

    length: int
    """Of the whole, in bytes."""

    @property
    def content_range(self) -> bytes:
        """The value of Content-Range that says so."""
        return b"bytes */%d" % self.length


def requested(value: bytes, length: int) -> tuple[Span, ...] | Unsatisfiable | None:
    """The parts of a body of `length` bytes that a Range field asks for, in its order (RFC 9110 §14.1.2, §14.2).

    Parts that overlap or touch are made one, in the place of the first. None when the field does not count: another
    unit, not valid, or more parts or overlaps than anybody needs.
    """
    if length == 0:
        return None  # an empty whole has no parts; nginx and Apache send it as it is
    unit, sign, rest = value.partition(b"=")
    if not sign or unit.strip().lower() != b"bytes":
        return None
    members = [member for part in rest.split(b",") if (member := part.strip(b" \t"))]
    if not members or len(members) > RANGES_MAX:
        return None
    spans: list[Span] = []
    for member in members:
        first, last = _positions(member)
        if first is None and last is None:
            return None
        if first is None:
            span = Span(max(0, length - (last or 0)), length - 1)
            if last == 0:
                continue
        elif last is not None and last < first:
            return None
        else:
            span = Span(first, length - 1 if last is None else min(last, length - 1))
        if span.first < length:
            spans.append(span)
    return _coalesced(spans) if spans else Unsatisfiable(length)


def content_range(span: Span, length: int) -> bytes:
    """The value of Content-Range for one part (RFC 9110 §14.4)."""
    return b"bytes %d-%d/%d" % (span.first, span.last, length)


def multipart(
    body: bytes | memoryview, spans: Sequence[Span], content_type: bytes | None, boundary: bytes
) -> tuple[list[bytes | memoryview], int]:
    """The body of a multipart/byteranges response (RFC 9110 §14.6) in pieces, and its length in bytes.

    `boundary` must not occur in the body: that is the caller's choice to make, at random.
    """
    view = memoryview(body)
    media = b"" if content_type is None else b"Content-Type: %b\r\n" % content_type
    pieces: list[bytes | memoryview] = []
    start = b"--"
    for span in spans:
        pieces += (
            b"%b%b\r\n%bContent-Range: %b\r\n\r\n" % (start, boundary, media, content_range(span, len(view))),
            view[span.first : span.last + 1],
        )
        start = b"\r\n--"
    pieces.append(b"\r\n--%b--\r\n" % boundary)
    return pieces, sum(len(piece) for piece in pieces)


def _positions(member: bytes) -> tuple[int | None, int | None]:
    """First and last of `first-[last]`, or None and the length of `-length`; None twice for what is neither."""
    first, dash, last = member.partition(b"-")
    if not dash or not (first or last) or (first and not first.isdigit()) or (last and not last.isdigit()):
        return None, None
    return _number(first), _number(last)


def _number(digits: bytes) -> int | None:
    if not digits:
        return None
    significant = digits.lstrip(b"0")
    return 10**_DIGITS_MAX if len(significant) > _DIGITS_MAX else int(significant or b"0")


def _coalesced(spans: list[Span]) -> tuple[Span, ...] | None:
    if len(spans) == 1:
        return (spans[0],)
    order = sorted(range(len(spans)), key=spans.__getitem__)
    merged: dict[int, Span] = {}
    overlaps = 0
    place, whole = order[0], spans[order[0]]
    for index in order[1:]:
        span = spans[index]
        if span.first > whole.last + 1:
            merged[place] = whole
            place, whole = index, span
            continue
        overlaps += span.first <= whole.last
        place, whole = min(place, index), Span(whole.first, max(whole.last, span.last))
    merged[place] = whole
    return None if overlaps > OVERLAPS_MAX else tuple(merged[index] for index in sorted(merged))
