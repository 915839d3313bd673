"""Header fields as values: folding, lists, what ends at this hop."""

import pytest

from edgeproxy.proxy.fields import FieldLines, end_to_end, fold, render, tokens, values_of

LINES: FieldLines = [(b"Host", b"a"), (b"Accept", b"x"), (b"accept", b"y"), (b"X-Empty", b"")]


def names_of(lines: FieldLines) -> list[bytes]:
    return [name for name, _ in lines]


def test_folding_joins_lines_of_a_name_in_their_order() -> None:
    assert fold(LINES) == {b"host": b"a", b"accept": b"x, y", b"x-empty": b""}  # RFC 9110 §5.3


def test_folding_of_different_names_keeps_their_order() -> None:
    assert list(fold([(b"B", b"1"), (b"A", b"2")])) == [b"b", b"a"]


def test_folding_nothing() -> None:
    assert fold([]) == {}


@pytest.mark.parametrize(("name", "values"), [(b"accept", [b"x", b"y"]), (b"x-empty", [b""]), (b"missing", [])])
def test_values_of_a_name_come_a_line_each(name: bytes, values: list[bytes]) -> None:
    assert values_of(LINES, name) == values


@pytest.mark.parametrize(
    ("value", "members"),
    [
        (None, set()),
        (b"", set()),
        (b" , ,", set()),
        (b"close", {b"close"}),
        (b"Close, UPGRADE", {b"close", b"upgrade"}),
        (b"a,b ,\tc", {b"a", b"b", b"c"}),
        (b"a,,a", {b"a"}),
    ],
)
def test_tokens(value: bytes | None, members: set[bytes]) -> None:
    assert tokens(value) == members


@pytest.mark.parametrize(
    "name",
    [
        "Connection",
        "Keep-Alive",
        "Proxy-Connection",
        "Proxy-Authenticate",
        "Proxy-Authorization",
        "TE",
        "Transfer-Encoding",
        "Upgrade",
        "HTTP2-Settings",
    ],
)
def test_hop_by_hop_fields_stay_whatever_their_case(name: str) -> None:  # RFC 9110 §7.6.1
    for written in (name, name.lower(), name.upper()):
        lines = [(b"A", b"1"), (written.encode(), b"x"), (b"B", b"2")]
        assert names_of(end_to_end(lines, fold(lines))) == [b"A", b"B"]


def test_fields_that_connection_names_stay_too() -> None:
    lines = [
        (b"Connection", b"x-one"),
        (b"connection", b"X-TWO ,close"),
        (b"X-One", b"1"),
        (b"x-two", b"2"),
        (b"X", b"3"),
    ]
    assert names_of(end_to_end(lines, fold(lines))) == [b"X"]


def test_so_do_those_that_the_caller_replaces() -> None:
    lines = [(b"Via", b"1.1 a"), (b"X", b"3")]
    assert end_to_end(lines, fold(lines), frozenset({b"via"})) == [(b"X", b"3")]


def test_order_case_and_doubles_are_kept() -> None:
    lines = [(b"b", b"1"), (b"A", b"2"), (b"B", b"3")]
    assert end_to_end(lines, fold(lines)) == lines


def test_rendering() -> None:
    assert render(LINES) == b"Host: a\r\nAccept: x\r\naccept: y\r\nX-Empty: \r\n"
    assert render([]) == b""
