"""traceparent: strict where the specification is, lenient where it says so."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.tracing import RANDOM, SAMPLED, format_traceparent, parse_traceparent

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"
VALID = f"00-{TRACE}-{SPAN}-01".encode()
HEX = set("0123456789abcdef")


def by_the_letter(value: bytes) -> tuple[str, str, int] | None:
    """The specification's steps one after another, for the parser to be held against."""
    try:
        text = value.strip(b" \t").decode("ascii")
    except UnicodeDecodeError:
        return None
    if len(text) < 55 or not set(text[55:]) <= set(map(chr, range(0x20, 0x7F))):
        return None
    version, trace_id, span_id, flags = text[0:2], text[3:35], text[36:52], text[53:55]
    if text[2] + text[35] + text[52] != "---" or not set(version + trace_id + span_id + flags) <= HEX:
        return None
    if version == "ff" or not int(trace_id, 16) or not int(span_id, 16):
        return None
    if len(text) > 55 and (version == "00" or text[55] != "-"):
        return None
    return trace_id, span_id, int(flags, 16) & 3


@pytest.mark.parametrize("flags", range(256))
def test_of_the_flags_only_sampled_and_random_are_kept(flags: int) -> None:
    parent = parse_traceparent([f"00-{TRACE}-{SPAN}-{flags:02x}".encode()])
    assert parent is not None
    assert parent.flags == flags & (SAMPLED | RANDOM)


@pytest.mark.parametrize("version", range(256))
def test_every_version_but_ff_is_read(version: int) -> None:
    parent = parse_traceparent([f"{version:02x}-{TRACE}-{SPAN}-03".encode()])
    if version == 0xFF:
        assert parent is None
    else:
        assert parent is not None
        assert (parent.trace_id, parent.span_id, parent.flags) == (TRACE, SPAN, 3)


@pytest.mark.parametrize(
    ("value", "read"),
    [
        pytest.param(f"01-{TRACE}-{SPAN}-01-", True, id="an empty field follows"),
        pytest.param(f"01-{TRACE}-{SPAN}-01-anything goes = here", True, id="any field follows"),
        pytest.param(f"01-{TRACE}-{SPAN}-010", False, id="flags of three digits"),
        pytest.param(f"01-{TRACE}-{SPAN}-01.", False, id="no dash follows"),
        pytest.param(f"01-{TRACE}-{SPAN}-01-\x00", False, id="NUL"),
        pytest.param(f"01-{TRACE}-{SPAN}-01-\r\nx: y", False, id="a line end"),
        pytest.param(f"01-{TRACE}-{SPAN}-01-\xe9", False, id="not ASCII"),
        pytest.param(f"00-{TRACE}-{SPAN}-01-", False, id="version 00 ends after the flags"),
        pytest.param(f"0A-{TRACE}-{SPAN}-01", False, id="version in upper case"),
        pytest.param(f"00-{TRACE.upper()}-{SPAN}-01", False, id="trace id in upper case"),
        pytest.param(f"00-{TRACE}-{SPAN.upper()}-01", False, id="span id in upper case"),
        pytest.param(f"00-{TRACE}-{SPAN}-0A", False, id="flags in upper case"),
        pytest.param(f"00-{TRACE[:-1]}g-{SPAN}-01", False, id="not hex"),
        pytest.param(f"00_{TRACE}-{SPAN}-01", False, id="wrong first delimiter"),
        pytest.param(f"00-{TRACE}_{SPAN}-01", False, id="wrong second delimiter"),
        pytest.param(f"00-{TRACE}-{SPAN}_01", False, id="wrong third delimiter"),
        pytest.param(f"00-{'0' * 32}-{SPAN}-01", False, id="zero trace id"),
        pytest.param(f"00-{TRACE}-{'0' * 16}-01", False, id="zero span id"),
        pytest.param(f"01-{'0' * 32}-{SPAN}-01", False, id="zero trace id of a later version"),
        pytest.param(f"01-{TRACE}-{'0' * 16}-01", False, id="zero span id of a later version"),
        pytest.param(f"00-{'0' * 31}1-{'0' * 15}1-00", True, id="the smallest ids"),
        pytest.param(f"00-{'f' * 32}-{'f' * 16}-ff", True, id="the largest ids"),
        pytest.param(f"00-{TRACE}-{SPAN}-01\n", False, id="LF at the end"),
        pytest.param(f"\x0b00-{TRACE}-{SPAN}-01", False, id="VT is no OWS"),
        pytest.param(f"00-{TRACE}-{SPAN}-0\u0661", False, id="an Arabic digit"),
        pytest.param(f"00-{TRACE}-{SPAN}-01,00-{TRACE}-{SPAN}-01", False, id="two values in one field"),
        pytest.param(f'"00-{TRACE}-{SPAN}-01"', False, id="quoted"),
        pytest.param("", False, id="empty"),
        pytest.param(" \t", False, id="blank"),
    ],
)
def test_values(value: str, read: bool) -> None:
    assert (parse_traceparent([value.encode()]) is not None) is read


@pytest.mark.parametrize("length", range(55))
def test_anything_shorter_than_55_characters_is_invalid(length: int) -> None:
    assert parse_traceparent([VALID[:length]]) is None
    assert parse_traceparent([VALID[55 - length :]]) is None


@pytest.mark.parametrize("values", [[], [VALID, VALID], [VALID, b""], [b"", VALID]])
def test_there_is_one_field_or_there_is_no_context(values: list[bytes]) -> None:
    assert parse_traceparent(values) is None


def test_white_space_around_the_value_is_no_part_of_it() -> None:
    parent = parse_traceparent([b"\t " + VALID + b" \t"])
    assert parent is not None
    assert parent.raw == VALID


@pytest.mark.parametrize("flags", range(4))
def test_what_is_formatted_is_read_back(flags: int) -> None:
    text = format_traceparent(TRACE, SPAN, flags)
    assert len(text) == 55
    parent = parse_traceparent([text.encode()])
    assert parent is not None
    assert (parent.trace_id, parent.span_id, parent.flags, parent.raw) == (TRACE, SPAN, flags, text.encode())


def test_flags_that_are_not_defined_are_never_sent() -> None:
    assert format_traceparent(TRACE, SPAN, 0xFF) == f"00-{TRACE}-{SPAN}-03"


hex_text = st.text("0123456789abcdef", min_size=1, max_size=33)
almost_valid = st.builds(
    lambda version, trace_id, span_id, flags, rest: f"{version}-{trace_id}-{span_id}-{flags}{rest}".encode(),
    st.one_of(st.sampled_from(["00", "01", "cc", "fe", "ff"]), st.text("0123456789abcdefF", min_size=1, max_size=3)),
    st.one_of(st.just(TRACE), st.just("0" * 32), st.text("0123456789abcdefg", min_size=31, max_size=33)),
    st.one_of(st.just(SPAN), st.just("0" * 16), st.text("0123456789abcdefA", min_size=15, max_size=17)),
    st.one_of(st.sampled_from(["00", "01", "02", "03", "ff"]), st.text("0123456789abcdef.", min_size=1, max_size=3)),
    st.one_of(st.just(""), st.just("-"), st.text(string.printable, max_size=4)),
)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A valid value with one byte replaced, removed or inserted."""
    value = bytearray(draw(st.sampled_from([VALID, b"cc" + VALID[2:], b"cc" + VALID[2:] + b"-next"])))
    position = draw(st.integers(0, len(value) - 1))
    byte = draw(st.integers(0, 255))
    match draw(st.integers(0, 2)):
        case 0:
            value[position] = byte
        case 1:
            del value[position]
        case _:
            value.insert(position, byte)
    return bytes(value)


@given(st.one_of(st.binary(max_size=80), almost_valid, damaged()))
def test_the_parser_reads_what_the_specification_reads_and_nothing_else(value: bytes) -> None:
    parent = parse_traceparent([value])
    assert (parent and (parent.trace_id, parent.span_id, parent.flags)) == by_the_letter(value)


@given(st.lists(st.one_of(st.binary(max_size=80), almost_valid), max_size=3))
def test_the_parser_never_raises(values: list[bytes]) -> None:
    parse_traceparent(values)


@given(st.one_of(almost_valid, damaged()))
def test_what_is_accepted_round_trips(value: bytes) -> None:
    parent = parse_traceparent([value])
    if parent is None:
        return
    again = parse_traceparent([format_traceparent(parent.trace_id, parent.span_id, parent.flags).encode()])
    assert again is not None
    assert (again.trace_id, again.span_id, again.flags) == (parent.trace_id, parent.span_id, parent.flags)
    assert again.raw[2:53] == parent.raw[2:53]
    assert parse_traceparent([parent.raw]) == parent
