"""Ranges of a stored whole: RFC 9110 §14."""

import email
import time
from email.message import Message

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeproxy.cache.ranges import RANGES_MAX, Span, Unsatisfiable, content_range, multipart, requested

NONE = Unsatisfiable(10)


@pytest.mark.parametrize(
    ("value", "found"),
    [
        pytest.param(b"bytes=0-4", [(0, 4)], id="14.1.2-first-and-last"),
        pytest.param(b"bytes=5-", [(5, 9)], id="14.1.2-from-there-on"),
        pytest.param(b"bytes=-3", [(7, 9)], id="14.1.2-suffix"),
        pytest.param(b"bytes=-99", [(0, 9)], id="14.1.2-suffix-longer-than-the-whole"),
        pytest.param(b"bytes=0-99", [(0, 9)], id="14.1.2-last-past-the-end"),
        pytest.param(b"bytes=9-9", [(9, 9)], id="14.1.2-one-byte"),
        pytest.param(b"bytes=00-04", [(0, 4)], id="14.1.1-leading-zeros"),
        pytest.param(b"bytes=0-" + b"9" * 5000, [(0, 9)], id="14.1.2-far-past-the-end"),
        pytest.param(b"bytes=-" + b"9" * 5000, [(0, 9)], id="14.1.2-suffix-far-longer-than-the-whole"),
        pytest.param(b"BYTES=0-4", [(0, 4)], id="14.1-units-in-any-case"),
        pytest.param(b"bytes=0-1, 5-6", [(0, 1), (5, 6)], id="14.1.1-several"),
        pytest.param(b"bytes= ,0-1 ,, 5-6\t,", [(0, 1), (5, 6)], id="5.6.1-empty-members"),
        pytest.param(b"bytes=7-8, 0-1", [(7, 8), (0, 1)], id="15.3.7.2-in-the-order-asked-for"),
        pytest.param(b"bytes=-1, 0-0", [(9, 9), (0, 0)], id="15.3.7.2-suffix-first"),
        pytest.param(b"bytes=0-4, 3-6", [(0, 6)], id="15.3.7.2-overlapping-are-one"),
        pytest.param(b"bytes=0-1, 2-3", [(0, 3)], id="15.3.7.2-touching-are-one"),
        pytest.param(b"bytes=0-1, 3-4", [(0, 1), (3, 4)], id="15.3.7.2-a-byte-between"),
        pytest.param(b"bytes=0-9, 2-3", [(0, 9)], id="15.3.7.2-one-within-another"),
        pytest.param(b"bytes=4-5, 8-9, 0-3", [(0, 5), (8, 9)], id="15.3.7.2-in-the-place-of-the-first"),
        pytest.param(b"bytes=8-9, 0-1, 1-2", [(8, 9), (0, 2)], id="15.3.7.2-others-keep-their-place"),
        pytest.param(b"bytes=0-1, 20-30", [(0, 1)], id="14.1.2-what-is-not-there-is-left-out"),
        pytest.param(b"bytes=0-1, -0", [(0, 1)], id="14.1.2-an-empty-suffix-is-left-out"),
        pytest.param(b"bytes=10-", NONE, id="14.1.2-past-the-end"),
        pytest.param(b"bytes=10-20", NONE, id="14.1.2-past-the-end-with-a-last"),
        pytest.param(b"bytes=" + b"9" * 5000 + b"-", NONE, id="14.1.2-far-past-the-end-first"),
        pytest.param(b"bytes=-0", NONE, id="14.1.2-empty-suffix"),
        pytest.param(b"bytes=10-, -0, 99-100", NONE, id="14.1.2-none-of-several"),
        pytest.param(b"lines=0-4", None, id="14.2-another-unit"),
        pytest.param(b"bytes", None, id="14.1.1-unit-alone"),
        pytest.param(b"bytes=", None, id="14.1.1-no-range"),
        pytest.param(b"bytes=,", None, id="14.1.1-only-empty-members"),
        pytest.param(b"bytes=-", None, id="14.1.1-dash-alone"),
        pytest.param(b"bytes=4", None, id="14.1.1-no-dash"),
        pytest.param(b"bytes=4-3", None, id="14.1.1-last-before-first"),
        pytest.param(b"bytes=0-1, 4-3", None, id="14.1.1-one-is-not-valid"),
        pytest.param(b"bytes=20-10", None, id="14.1.1-last-before-first-past-the-end"),
        pytest.param(b"bytes=a-b", None, id="14.1.1-no-digits"),
        pytest.param(b"bytes=0-b", None, id="14.1.1-no-digits-last"),
        pytest.param(b"bytes=+0-4", None, id="14.1.1-sign"),
        pytest.param(b"bytes=0x0-4", None, id="14.1.1-hexadecimal"),
        pytest.param(b"bytes=0 - 4", None, id="14.1.1-spaces-within"),
        pytest.param(b"bytes=--1", None, id="14.1.1-negative-suffix"),
        pytest.param(b"bytes=0-4-5", None, id="14.1.1-two-dashes"),
        pytest.param(b"bytes=0-4; 5-6", None, id="14.1.1-semicolon"),
        pytest.param(b"=0-4", None, id="14.1.1-no-unit"),
        pytest.param(b"", None, id="14.1.1-empty"),
        pytest.param(b"bytes=" + b"0-0," * (RANGES_MAX + 1), None, id="14.2-too-many"),
        pytest.param(b"bytes=" + b"0-," * 18, None, id="14.2-too-many-that-overlap"),
        pytest.param(b"bytes=" + b"0-," * 17, [(0, 9)], id="14.2-just-not-too-many-that-overlap"),
    ],
)
def test_parts_of_ten_bytes(value: bytes, found: list[tuple[int, int]] | Unsatisfiable | None) -> None:
    expected = tuple(Span(*span) for span in found) if isinstance(found, list) else found
    assert requested(value, 10) == expected


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(b"bytes=0-0", id="14.2-nothing-is-there"),
        pytest.param(b"bytes=0-", id="14.2-nothing-is-there-from-there-on"),
        pytest.param(b"bytes=-0", id="14.2-empty-suffix"),
        pytest.param(b"bytes=-5", id="14.4-a-suffix-is-the-whole-which-no-content-range-can-say"),
    ],
)
def test_what_is_empty_is_sent_whole(value: bytes) -> None:
    assert requested(value, 0) is None


def test_a_hundred_parts_apart_are_sent() -> None:
    value = b"bytes=" + b",".join(b"%d-%d" % (n * 10, n * 10) for n in range(RANGES_MAX))
    found = requested(value, 10_000)
    assert isinstance(found, tuple)
    assert len(found) == RANGES_MAX


def test_content_range() -> None:
    assert content_range(Span(2, 5), 10) == b"bytes 2-5/10"
    assert Unsatisfiable(10).content_range == b"bytes */10"
    assert Span(2, 5).size_bytes == 4


@settings(deadline=None)
@given(st.binary(max_size=60).map(lambda text: b"bytes=" + text), st.integers(0, 2**40))
def test_no_bytes_break_the_parser(value: bytes, length: int) -> None:
    requested(value, length)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 60), st.one_of(st.none(), st.integers(0, 60))), min_size=1, max_size=12),
    st.integers(1, 50),
)
def test_the_parts_are_what_was_asked_for_each_byte_once(asked: list[tuple[int, int | None]], length: int) -> None:
    value = "bytes=" + ", ".join(f"{first}-{'' if last is None else last}" for first, last in asked)
    found = requested(value.encode(), length)
    if any(last is not None and last < first for first, last in asked):
        assert found is None
        return
    wanted = {at for first, last in asked for at in range(first, length) if last is None or at <= last}
    if not wanted:
        assert found == Unsatisfiable(length)
        return
    assert isinstance(found, tuple)
    sent = [at for first, last in found for at in range(first, last + 1)]
    assert sorted(sent) == sorted(wanted)


# --- multipart/byteranges (§14.6)


def parts(pieces: list[bytes | memoryview], boundary: str) -> list[Message]:
    """What another implementation makes of it: the standard library's MIME parser."""
    head = f"Content-Type: multipart/byteranges; boundary={boundary}\r\n\r\n".encode()
    message = email.message_from_bytes(head + b"".join(pieces))
    assert not message.defects
    payload = message.get_payload()
    assert isinstance(payload, list)
    return payload


def test_several_parts_are_a_multipart_each_with_its_place_and_type() -> None:
    pieces, length = multipart(b"0123456789", (Span(7, 8), Span(0, 2)), b"text/plain", b"b0und")
    assert length == len(b"".join(pieces))
    found = parts(pieces, "b0und")
    assert [part.get_payload() for part in found] == ["78", "012"]
    assert [part["Content-Range"] for part in found] == ["bytes 7-8/10", "bytes 0-2/10"]
    assert [part.get_content_type() for part in found] == ["text/plain", "text/plain"]


def test_parts_of_a_body_without_a_type_have_none() -> None:
    pieces, _ = multipart(b"0123456789", (Span(0, 0), Span(9, 9)), None, b"b0und")
    assert [part["Content-Type"] for part in parts(pieces, "b0und")] == [None, None]


def test_lines_are_where_the_grammar_wants_them() -> None:
    pieces, _ = multipart(b"0123456789", (Span(0, 0), Span(9, 9)), b"a/b", b"B")
    assert b"".join(pieces) == (
        b"--B\r\nContent-Type: a/b\r\nContent-Range: bytes 0-0/10\r\n\r\n0"
        b"\r\n--B\r\nContent-Type: a/b\r\nContent-Range: bytes 9-9/10\r\n\r\n9\r\n--B--\r\n"
    )


def test_no_part_of_the_body_is_copied() -> None:
    body = bytes(10_000_000)
    pieces, _ = multipart(memoryview(body), (Span(0, 4_999_999), Span(5_000_001, 9_999_999)), None, b"B")
    views = [piece for piece in pieces if isinstance(piece, memoryview)]
    assert [view.obj is body for view in views] == [True, True]


def test_a_long_hostile_range_costs_no_more_than_its_length() -> None:
    began = time.perf_counter()
    for hostile in (b"0-," * 20_000, b"-" * 60_000, b"," * 60_000, b"9" * 60_000, b"0-0, " * 100 + b"9" * 60_000):
        requested(b"bytes=" + hostile, 10)
    assert time.perf_counter() - began < 0.5
