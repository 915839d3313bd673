"""Cache-Status, RFC 9211: read back by another implementation of structured fields."""

import http_sf
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeproxy.cache import status


def parsed(text: str) -> tuple[object, dict[str, object]]:
    """The one member of the field, as the library reads it."""
    members = http_sf.parse(text.encode("ascii"), tltype="list")
    assert isinstance(members, list)
    [(name, parameters)] = members
    return name, parameters


@pytest.mark.parametrize(
    ("said", "text"),
    [
        pytest.param({}, "edge", id="2-nothing"),
        pytest.param({"hit": True}, "edge; hit", id="2.1-hit"),
        pytest.param({"hit": True, "ttl": 30}, "edge; hit; ttl=30", id="2.4-ttl"),
        pytest.param({"hit": True, "ttl": -30}, "edge; hit; ttl=-30", id="2.4-stale"),
        pytest.param({"hit": True, "ttl": 0}, "edge; hit; ttl=0", id="2.4-zero"),
        pytest.param({"hit": True, "ttl": 10**20}, "edge; hit; ttl=999999999999999", id="8941-3.3.1-too-large"),
        pytest.param({"hit": True, "ttl": -(10**20)}, "edge; hit; ttl=-999999999999999", id="8941-3.3.1-too-small"),
        pytest.param({"fwd": "uri-miss"}, "edge; fwd=uri-miss", id="2.2-fwd"),
        pytest.param({"fwd": "uri-miss", "fwd_status": 200}, "edge; fwd=uri-miss; fwd-status=200", id="2.3-fwd-status"),
        pytest.param(
            {"fwd": "stale", "fwd_status": 304, "stored": True, "ttl": 9},
            "edge; fwd=stale; fwd-status=304; stored; ttl=9",
            id="2.5-stored",
        ),
        pytest.param({"fwd": "uri-miss", "collapsed": True}, "edge; fwd=uri-miss; collapsed", id="2.6-collapsed"),
        pytest.param({"hit": True, "fwd": "miss"}, "edge; fwd=miss", id="2.1-what-went-forward-is-no-hit"),
        pytest.param({"hit": True, "stored": True, "collapsed": True}, "edge; hit", id="2.5-nothing-went-forward"),
        pytest.param({"hit": True, "fwd_status": 200}, "edge; hit", id="2.3-nothing-went-forward"),
        pytest.param({"hit": True, "key": b"http://a/b?c"}, 'edge; hit; key="http://a/b?c"', id="2.7-key"),
        pytest.param({"key": b'a"\\'}, 'edge; key="a\\"\\\\"', id="8941-3.3.3-escapes"),
        pytest.param(
            {"key": b"a\x00\xe9\x7f\r\n"}, 'edge; key="a%00%E9%7F%0D%0A"', id="8941-3.3.3-only-printable-ascii"
        ),
        pytest.param({"detail": "no-store"}, "edge; detail=no-store", id="2.8-detail-as-a-token"),
        pytest.param({"detail": "two words"}, 'edge; detail="two words"', id="2.8-detail-as-a-string"),
        pytest.param({"detail": "5xx"}, 'edge; detail="5xx"', id="8941-3.3.4-tokens-begin-with-a-letter"),
        pytest.param({"detail": "é"}, 'edge; detail="%C3%A9"', id="8941-3.3.3-text-in-utf-8"),
        pytest.param({"detail": ""}, 'edge; detail=""', id="2.8-empty"),
    ],
)
def test_how_a_request_was_handled(said: dict[str, object], text: str) -> None:
    assert status.member("edge", **said) == text
    parsed(text)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("edge-1.example:8080/a", "edge-1.example:8080/a"),
        ("*", "*"),
        ("1st", '"1st"'),
        ("an edge", '"an edge"'),
        ('"', '"\\""'),
        ("", '""'),
    ],
)
def test_a_caches_name_is_a_token_where_it_can_be(name: str, text: str) -> None:
    assert status.name(name) == text


@settings(deadline=None)
@given(
    name=st.text(max_size=20),
    key=st.one_of(st.none(), st.binary(max_size=40), st.text(max_size=40)),
    detail=st.one_of(st.none(), st.text(max_size=40)),
    ttl=st.one_of(st.none(), st.integers()),
)
def test_whatever_is_said_can_be_read_back(
    name: str, key: bytes | str | None, detail: str | None, ttl: int | None
) -> None:
    text = status.member(status.name(name), hit=True, key=key, detail=detail, ttl=ttl)
    found, parameters = parsed(text)
    if name.isascii() and name.isprintable():
        assert str(found) == name
    assert set(parameters) == {"hit"} | {
        word for word, value in (("key", key), ("detail", detail), ("ttl", ttl)) if value is not None
    }
    assert text.isascii()
    assert text.isprintable()


@settings(deadline=None)
@given(st.binary(max_size=40), st.binary(max_size=40))
def test_two_printable_keys_are_never_shown_alike(one: bytes, other: bytes) -> None:
    if b"%" not in one + other and one != other:
        assert status.quoted(one) != status.quoted(other)
