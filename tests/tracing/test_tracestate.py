"""tracestate: the list of other tracing systems, passed on whole or not at all."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.tracing import parse_tracestate

KEY_FIRST = b"abcdefghijklmnopqrstuvwxyz0123456789"
KEY_REST = KEY_FIRST + b"_-*/@"
VALUE = bytes(byte for byte in range(0x20, 0x7F) if byte not in b",=")


def numbered(count: int) -> bytes:
    return b",".join(b"k%d=v%d" % (number, number) for number in range(count))


def by_the_letter(values: list[bytes]) -> bytes | None:
    """The grammar of level 2 character by character, for the parser to be held against."""
    kept: list[tuple[bytes, bytes]] = []
    count = 0
    for part in b",".join(values).split(b","):
        member = part.strip(b" \t")
        if not member:
            continue
        count += 1
        key, equals, value = member.partition(b"=")
        if not equals or not 1 <= len(key) <= 256 or not 1 <= len(value) <= 256:
            return None
        if key[0] not in KEY_FIRST or any(byte not in KEY_REST for byte in key):
            return None
        if any(byte not in VALUE for byte in value) or value.endswith(b" "):
            return None
        if key not in [earlier for earlier, _ in kept]:
            kept.append((key, value))
    if not kept or count > 32:
        return None
    return b",".join(key + b"=" + value for key, value in kept)


@pytest.mark.parametrize(
    ("values", "passed_on"),
    [
        pytest.param([b"rojo=00f067aa0ba902b7"], b"rojo=00f067aa0ba902b7", id="one member"),
        pytest.param([b"rojo=1,congo=2"], b"rojo=1,congo=2", id="two members"),
        pytest.param([b"b=1", b"a=2,c=3", b"0=4"], b"b=1,a=2,c=3,0=4", id="fields are joined in order"),
        pytest.param([b" \ta=1 \t, \tb=2\t "], b"a=1,b=2", id="white space around members"),
        pytest.param([b"a= 1"], b"a= 1", id="a value begins with spaces"),
        pytest.param([b"a=1 2"], b"a=1 2", id="a value has spaces"),
        pytest.param([b",,a=1,, ,\t,b=2,"], b"a=1,b=2", id="empty members"),
        pytest.param([b"", b"a=1", b" "], b"a=1", id="empty fields"),
        pytest.param([], None, id="no field"),
        pytest.param([b""], None, id="an empty field"),
        pytest.param([b" , ,\t"], None, id="empty members only"),
        pytest.param([b"," * 30_000], None, id="very many empty members"),
        pytest.param([numbered(32)], numbered(32), id="32 members"),
        pytest.param([numbered(33)], None, id="33 members"),
        pytest.param([numbered(20), numbered(40)[len(numbered(20)) + 1 :]], None, id="40 members in two fields"),
        pytest.param([numbered(32) + b",,,"], numbered(32), id="empty members do not count"),
        pytest.param([numbered(32) + b",k0=x"], None, id="repeated members count"),
        pytest.param([b"a=1,a=2,b=3"], b"a=1,b=3", id="the latest of repeated members stays"),
        pytest.param([b"a=1", b"b=2", b"a=3"], b"a=1,b=2", id="the latest stays across fields"),
        pytest.param([b"a=1,b"], None, id="a member without value"),
        pytest.param([b"a=1,b="], None, id="an empty value"),
        pytest.param([b"a=1,b=  "], None, id="a blank value"),
        pytest.param([b"a=1,=2"], None, id="an empty key"),
        pytest.param([b"a=1,b=2=3"], None, id="an equals sign in a value"),
        pytest.param([b"a=1;b=2"], None, id="another separator"),
        pytest.param([b"a =1"], None, id="white space before the equals sign"),
        pytest.param([b"a=1\t2"], None, id="a tab in a value"),
        pytest.param([b"a=\t1"], None, id="a value begins with a tab"),
        pytest.param([b"a=1\r\n"], None, id="a line end"),
        pytest.param([b"a=1\x00"], None, id="NUL"),
        pytest.param([b"a=\x7f"], None, id="DEL"),
        pytest.param([b"a=\xc3\xa9"], None, id="a value that is not ASCII"),
        pytest.param([b"\xc3\xa9=1"], None, id="a key that is not ASCII"),
    ],
)
def test_lists(values: list[bytes], passed_on: bytes | None) -> None:
    assert parse_tracestate(values) == passed_on


@pytest.mark.parametrize(
    ("key", "valid"),
    [
        ("a", True),
        ("0", True),
        ("a0_-*/@", True),
        ("z" * 256, True),
        ("z" * 257, False),
        ("tenant@system", True),
        ("0tenant@system", True),
        ("t" * 241 + "@" + "s" * 14, True),
        ("t" * 242 + "@s", True),
        ("t@" + "s" * 15, True),
        ("t@" + "s" * 255, False),
        ("tenant@", True),
        ("tenant@@system", True),
        ("tenant@system@more", True),
        ("@system", False),
        ("_a", False),
        ("-a", False),
        ("*a", False),
        ("/a", False),
        ("A", False),
        ("aB", False),
        ("a.b", False),
        ("a b", False),
        ("a:b", False),
    ],
)
def test_keys_are_those_of_level_2(key: str, valid: bool) -> None:
    member = f"{key}=1".encode()
    assert parse_tracestate([member]) == (member if valid else None)


@pytest.mark.parametrize("byte", range(256))
def test_every_byte_of_a_key_and_of_a_value(byte: int) -> None:
    character = bytes([byte])
    assert (parse_tracestate([b"a" + character + b"b=1"]) is not None) is (byte in KEY_REST)
    assert (parse_tracestate([character + b"b=1"]) is not None) is (byte in KEY_FIRST + b" \t,")
    if byte != ord(","):
        assert (parse_tracestate([b"a=1" + character + b"2"]) is not None) is (byte in VALUE)


@pytest.mark.parametrize(("length", "valid"), [(1, True), (255, True), (256, True), (257, False), (5000, False)])
def test_a_value_has_at_most_256_characters(length: int, valid: bool) -> None:
    member = b"a=" + b"x" * length
    assert parse_tracestate([b"b=1", member]) == (b"b=1," + member if valid else None)


keys = st.builds(lambda first, rest: first + rest, st.sampled_from("abz019"), st.text("abz019_-*/@", max_size=6))
texts = st.text("ab !#$&';<>?@[]^`{|}~\"\\", min_size=1, max_size=8).map(lambda text: text + "x")
members = st.builds(lambda key, value: f"{key}={value}", keys, texts)
blanks = st.text(" \t", max_size=2)
valid_fields = st.lists(
    st.builds(lambda before, member, after: before + member + after, blanks, st.one_of(members, st.just("")), blanks),
    max_size=18,
).map(lambda parts: ",".join(parts).encode())
noise = st.one_of(st.binary(max_size=40), st.text("ab=, \t@A", max_size=40).map(str.encode))


@given(st.lists(st.one_of(valid_fields, noise), max_size=3))
def test_the_parser_passes_on_what_the_grammar_allows_and_nothing_else(values: list[bytes]) -> None:
    assert parse_tracestate(values) == by_the_letter(values)


@given(st.lists(valid_fields, max_size=3))
def test_what_is_accepted_round_trips(values: list[bytes]) -> None:
    passed_on = parse_tracestate(values)
    if passed_on is None:
        return
    assert parse_tracestate([passed_on]) == passed_on
    assert parse_tracestate(passed_on.split(b",")) == passed_on
    sent = [member.partition(b"=")[0] for member in passed_on.split(b",")]
    assert len(sent) == len(set(sent)) <= 32
