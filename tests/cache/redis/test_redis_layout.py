"""Names and values in Redis, as tables: nothing here talks to a server."""

import os
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.crc import key_slot

from edgeproxy.cache.key import url_of
from edgeproxy.cache.redis import layout
from edgeproxy.cache.redis.layout import Compression, DamagedError, Head, Names, VaryMark
from tests.cache.stores import SECOND_NS, URL, stored

NAMES = Names("edgeproxy")
TRACEPARENT = b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01"
MARK = VaryMark((b"accept", b"cookie"), b"12345678")
TEXT = b"all work and no play " * 100

KEYS = {
    "a page": URL,
    "with a query": URL + b"?a=1&b={2}",
    "with braces": b"http://example.com/{a}/}{/b}",
    "a brace at its end": URL + b"}",
    "with more than the URL": URL + b"\x00\x03h:accept=1:x;",
    "with a brace in what is more": URL + b"\x00\x03h:x=3:}:a;",
    "that ends as a body's name does": URL + b".b",
    "that ends as a variant's name does": URL + b":" + b"0123456789abcdef" * 2,
}


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS.keys())
def test_all_names_for_a_key_lie_in_one_slot_and_say_which_key_they_are_for(key: bytes) -> None:
    primary = NAMES.primary(key, url_of(key))
    variant = NAMES.variant(primary, MARK, b"text/html\x01\x02")
    names = [primary, variant, layout.body_name(primary), layout.body_name(variant)]
    assert len({key_slot(name) for name in names}) == 1
    assert len(set(names)) == 4
    assert [NAMES.key_of(name) for name in names[1:]] == [key] * 3


@pytest.mark.parametrize("name", [b"", b"other:1:{http://a/}", b"edgeproxy:2:{http://a/}", NAMES.purges[:-1]])
def test_other_names_are_for_no_key(name: bytes) -> None:
    assert NAMES.key_of(name) is None


def test_variants_of_another_generation_have_other_names() -> None:
    primary = NAMES.primary(URL, URL)
    other = MARK._replace(generation=b"87654321")
    assert NAMES.variant(primary, MARK, b"x") == NAMES.variant(primary, MARK, b"x")
    assert len({NAMES.variant(primary, mark, values) for mark in (MARK, other) for values in (b"", b"x", b"y")}) == 6


@given(body=st.binary(max_size=200), tags=st.lists(st.binary(max_size=20), max_size=3))
def test_a_head_is_read_as_it_was_written(body: bytes, tags: list[bytes]) -> None:
    response = stored(tags=tuple(tags), purge_seq=2**62)
    value = layout.head(response, body, body, layout.PLAIN, TRACEPARENT)
    assert value.startswith(b"1e" + TRACEPARENT)
    found = layout.read(value)
    assert isinstance(found, Head)
    assert found.stored == response
    assert layout.body(found, layout.body_value(body, TRACEPARENT) if body else None) == body


def test_a_vary_mark_is_read_as_it_was_written() -> None:
    value = layout.vary_mark(MARK, TRACEPARENT)
    assert value.startswith(b"1v" + TRACEPARENT)
    assert layout.read(value) == MARK


GOOD = layout.head(stored(), TEXT, TEXT, layout.PLAIN, TRACEPARENT)
DAMAGED = {
    "nothing": b"",
    "a version before": b"0" + GOOD[1:],
    "a version to come": b"2" + GOOD[1:],
    "an unknown kind": b"1x" + GOOD[2:],
    "a beginning": GOOD[:30],
    "all but the last byte": GOOD[:-1],
    "zeros in its midst": GOOD[:90] + bytes(40) + GOOD[130:],
    "a pickle": b"\x80\x04\x95\x00\x00\x00\x00.",
    "a short mark": layout.vary_mark(MARK, TRACEPARENT)[:40],
}


@pytest.mark.parametrize("value", DAMAGED.values(), ids=DAMAGED.keys())
def test_what_is_no_head_is_damaged(value: bytes) -> None:
    with pytest.raises(DamagedError):
        layout.read(value)


@given(st.binary(max_size=300))
def test_no_value_does_more_than_be_damaged(value: bytes) -> None:
    for beginning in (b"", b"1e", b"1v", GOOD[:80]):
        try:
            layout.read(beginning + value)
        except DamagedError:
            continue


DEFLATED = zlib.compress(TEXT, 1)
BODIES = {
    "none": (layout.PLAIN, TEXT, None),
    "another one of its length": (layout.PLAIN, TEXT, TEXT[:-1] + b"!"),
    "a shorter one": (layout.PLAIN, TEXT, TEXT[:-1]),
    "one in an unknown encoding": (7, TEXT, TEXT),
    "one that does not inflate": (layout.DEFLATED, b"x" * 50, b"x" * 50),
    "one that inflates to more": (layout.DEFLATED, zlib.compress(TEXT + b"x"), zlib.compress(TEXT + b"x")),
    "one that inflates to less": (layout.DEFLATED, zlib.compress(TEXT[:-1]), zlib.compress(TEXT[:-1])),
    "one that breaks off": (layout.DEFLATED, DEFLATED[:-5], DEFLATED[:-5]),
}


def test_a_value_that_is_too_short_for_a_traceparent_is_no_body() -> None:
    head = layout.read(layout.head(stored(), b"", b"", layout.PLAIN, TRACEPARENT))
    assert isinstance(head, Head)
    assert layout.body(head, TRACEPARENT) == b""
    other = layout.read(GOOD)
    assert isinstance(other, Head)
    with pytest.raises(DamagedError):
        layout.body(other, TEXT[:20])


@pytest.mark.parametrize(("encoding", "kept", "found"), BODIES.values(), ids=BODIES.keys())
def test_a_body_that_is_not_its_heads_is_damaged(encoding: int, kept: bytes, found: bytes | None) -> None:
    head = layout.read(layout.head(stored(), TEXT, kept, encoding, TRACEPARENT))
    assert isinstance(head, Head)
    with pytest.raises(DamagedError):
        layout.body(head, None if found is None else layout.body_value(found, TRACEPARENT))


NOW = 1_000 * SECOND_NS
TTLS = {
    "fresh, then stale": ({"stale_if_error_ns": 30 * SECOND_NS, "stale_while_revalidate_ns": 5 * SECOND_NS}, 90_000),
    "stale while revalidated for longer": ({"stale_while_revalidate_ns": 50 * SECOND_NS}, 110_000),
    "no validator": ({"etag": None}, 60_000),
    "stale already": ({"etag": None, "fresh_until_ns": NOW - SECOND_NS}, 1),
    "what is not stored": ({"uncacheable": "private"}, 60_000),
    "for ever": ({"fresh_until_ns": NOW + 10**19}, layout.MAX_TTL_MS),
}


@pytest.mark.parametrize(("fields", "least_ms"), TTLS.values(), ids=TTLS.keys())
def test_redis_keeps_a_response_while_it_can_be_used_and_forgets_it_then(
    fields: dict[str, object], least_ms: int
) -> None:
    response = stored(**{"fresh_until_ns": NOW + 60 * SECOND_NS, **fields})
    rest = layout.TTL_REST_MS if response.etag and not response.uncacheable else 0
    assert layout.ttl_ms(response, NOW) == min(layout.MAX_TTL_MS, least_ms + rest)


COMPRESSION = Compression(min_bytes=100, types=(b"text/", b"application/json"))
KEPT = {
    "text": ([(b"Content-Type", b"Text/HTML; charset=utf-8")], TEXT, layout.DEFLATED),
    "JSON": ([(b"content-type", b"application/json")], TEXT, layout.DEFLATED),
    "an image": ([(b"Content-Type", b"image/png")], TEXT, layout.PLAIN),
    "nobody knows what": ([], TEXT, layout.PLAIN),
    "little of it": ([(b"Content-Type", b"text/html")], TEXT[:99], layout.PLAIN),
    "what is compressed": ([(b"Content-Type", b"text/html"), (b"Content-Encoding", b"gzip")], TEXT, layout.PLAIN),
    "what becomes no smaller": ([(b"Content-Type", b"text/html")], os.urandom(500), layout.PLAIN),
}


@pytest.mark.parametrize(("lines", "body", "encoding"), KEPT.values(), ids=KEPT.keys())
def test_bodies_are_deflated_by_type_and_size(lines: list[tuple[bytes, bytes]], body: bytes, encoding: int) -> None:
    response = stored(lines=lines)
    kept, how = COMPRESSION.keep(response, body)
    assert how == encoding
    assert (len(kept) < len(body)) == (encoding == layout.DEFLATED)
    head = layout.read(layout.head(response, body, kept, how, TRACEPARENT))
    assert isinstance(head, Head)
    assert layout.body(head, layout.body_value(kept, TRACEPARENT)) == body
