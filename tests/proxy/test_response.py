"""The heads of responses to clients: framing, what the edge adds, what is stored of them."""

import re

import pytest
from msgspec import convert

from edgeproxy.cache import Entry, policy
from edgeproxy.config import Cache, Tracing
from edgeproxy.proxy import forwarding, response
from edgeproxy.proxy.exchange import Exchange
from edgeproxy.proxy.fields import FieldLines, fold
from edgeproxy.proxy.framing import Framing
from edgeproxy.proxy.upstream.attempt import Attempt
from tests.proxy.builders import NOW_NS, an_exchange

SECOND_NS = policy.SECOND_NS
DATE = (b"Date", b"Sun, 06 Nov 1994 08:49:37 GMT")
LENGTH = (b"content-length", b"5")
WITHHELD = forwarding.withheld(sends_tags=False)


def head(
    *lines: tuple[bytes, bytes], exchange: Exchange | None = None, status: int = 200, reason: bytes = b"OK"
) -> list[bytes]:
    """The head that a response with these fields gets, line by line."""
    request = exchange or an_exchange()
    fields: FieldLines = list(lines)
    names = fold(fields)
    kept = forwarding.response_lines(fields, names, WITHHELD)
    framed = response.framing(request, status, has_length=b"content-length" in names)
    text = response.head(request, status, reason, kept, names, framed, "X-Edge: 1\r\n")
    assert text.endswith(b"\r\n\r\n")
    return text[:-4].split(b"\r\n")


def stored(*lines: tuple[bytes, bytes], status: int = 200, age_s: int = 0, lifetime_s: int = 60) -> Entry:
    """What is stored of a response with these fields and no body."""
    fields: FieldLines = list(lines)
    names = fold(fields)
    terms = policy.Terms(lifetime_s * SECOND_NS, age_s * SECOND_NS)
    decision = policy.Storing(policy.Verdict.STORE, terms, (b"accept",), frozenset({b"x-private"}))
    kept = forwarding.response_lines(fields, names, WITHHELD)
    attempt = Attempt("00f067aa0ba902b7", 0.0)
    exchange = an_exchange((b"Accept", b"text/css"))
    kept_of_it = response.stored(exchange, attempt, "app", 7, status, b"OK", kept, names, decision, NOW_NS)
    return Entry(kept_of_it, b"")


class TestFraming:
    """RFC 9112 §6.3."""

    @pytest.mark.parametrize("minor", [0, 1])
    def test_a_stated_length_frames(self, minor: int) -> None:
        lines = head(LENGTH, exchange=an_exchange(minor=minor))
        assert lines.count(b"Content-Length: 5") == 1
        assert not any(line.startswith(b"Transfer-Encoding") for line in lines)

    @pytest.mark.parametrize("lines", [[(b"Transfer-Encoding", b"chunked")], []])
    def test_without_one_a_client_of_1_1_gets_chunks(self, lines: FieldLines) -> None:
        found = head(*lines)
        assert found.count(b"Transfer-Encoding: chunked") == 1
        assert b"Connection: close" not in found

    @pytest.mark.parametrize("lines", [[(b"Transfer-Encoding", b"chunked")], []])
    def test_without_one_a_client_of_1_0_gets_the_end_of_the_connection(self, lines: FieldLines) -> None:
        found = head(*lines, exchange=an_exchange(minor=0))
        assert b"Connection: close" in found
        assert not any(line.startswith((b"Transfer-Encoding", b"Content-Length")) for line in found)

    def test_trailers_are_announced_to_those_who_can_get_them(self) -> None:
        chunked = ((b"Transfer-Encoding", b"chunked"), (b"Trailer", b"X-Sum"))
        assert b"Trailer: X-Sum" in head(*chunked)
        assert b"Trailer: X-Sum" not in head(*chunked, exchange=an_exchange(minor=0))

    @pytest.mark.parametrize("status", [200, 304])
    def test_head_and_304_keep_the_length_that_the_body_would_have(self, status: int) -> None:
        method = b"HEAD" if status == 200 else b"GET"
        exchange = an_exchange(method=method)
        assert response.framing(exchange, status, has_length=True) is Framing.NONE
        assert b"Content-Length: 5" in head(LENGTH, exchange=exchange, status=status)

    def test_204_has_no_length(self) -> None:
        found = head(LENGTH, status=204, reason=b"No Content")
        assert not any(line.startswith((b"Content-Length", b"Transfer-Encoding")) for line in found)

    @pytest.mark.parametrize(
        ("minor", "keep_alive", "field"),
        [(1, True, None), (1, False, b"Connection: close"), (0, True, b"Connection: keep-alive")],
    )
    def test_a_client_is_told_what_becomes_of_its_connection(
        self, minor: int, keep_alive: bool, field: bytes | None
    ) -> None:
        exchange = an_exchange(minor=minor)
        exchange.keep_alive = keep_alive
        found = [line for line in head(LENGTH, exchange=exchange) if line.startswith(b"Connection")]
        assert found == ([field] if field else [])


class TestHead:
    def test_status_and_reason_are_the_origins(self) -> None:
        assert head(LENGTH, status=299, reason=b"Quite \xe9 Fine")[0] == b"HTTP/1.1 299 Quite \xe9 Fine"
        assert head(LENGTH, reason=b"")[0] == b"HTTP/1.1 200 "

    def test_a_date_is_added_only_where_there_is_none(self) -> None:
        assert [line for line in head(DATE, LENGTH) if line.lower().startswith(b"date:")] == [b": ".join(DATE)]
        (added,) = [line for line in head(LENGTH) if line.startswith(b"Date: ")]
        assert re.fullmatch(rb"Date: \w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT", added)

    def test_what_the_edge_adds_comes_behind_what_the_origin_said(self) -> None:
        found = head((b"Cache-Status", b"up; hit"), DATE, LENGTH)
        assert found.index(b"X-Edge: 1") > found.index(b"Cache-Status: up; hit")

    def test_an_interim_response_is_passed_on_without_hop_and_trace_fields(self) -> None:
        lines: FieldLines = [
            (b"Link", b"</a>; rel=preload"),
            (b"Connection", b"x-hop"),
            (b"X-Hop", b"1"),
            (b"X-Trace-Id", b"theirs"),
            (b"traceresponse", b"theirs"),
            (b"Content-Length", b"5"),
            (b"link", b"</b>"),
        ]
        text = response.interim_head(103, b"Early Hints", lines, fold(lines))
        assert text == b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\nlink: </b>\r\n\r\n"


class TestStored:
    def test_the_head_keeps_what_is_for_everybody(self) -> None:
        entry = stored(
            (b"ETag", b'"x"'),
            DATE,
            LENGTH,
            (b"Age", b"5"),
            (b"X-Request-Id", b"1"),
            (b"X-Trace-Id", b"1"),
            (b"traceresponse", b"1"),
            (b"Server-Timing", b"db;dur=5"),
            (b"Cache-Status", b"up; hit"),
            (b"Connection", b"close"),
            (b"X-Private", b"1"),
            (b"Surrogate-Key", b"a b"),
        )
        assert entry.head.split("\r\n") == [
            "HTTP/1.1 200 OK",
            'ETag: "x"',
            "Date: Sun, 06 Nov 1994 08:49:37 GMT",
            "Via: 1.1 edgeproxy",
            "Content-Length: 0",
            "",
        ]

    def test_a_304_has_no_field_that_is_about_content_rfc9110_15_4_5(self) -> None:
        entry = stored(
            (b"Content-Type", b"text/css"),
            (b"Content-Encoding", b"gzip"),
            (b"Content-Language", b"de"),
            (b"Content-Location", b"/x"),
            (b"Cache-Control", b"max-age=60"),
            (b"Vary", b"Accept"),
            (b"ETag", b'"x"'),
            DATE,
        )
        assert entry.head_304.split("\r\n") == [
            "HTTP/1.1 304 Not Modified",
            "Content-Location: /x",
            "Cache-Control: max-age=60",
            "Vary: Accept",
            'ETag: "x"',
            "Date: Sun, 06 Nov 1994 08:49:37 GMT",
            "Via: 1.1 edgeproxy",
            "",
        ]

    def test_bytes_that_are_no_text_come_back_as_they_were(self) -> None:
        entry = stored((b"X-A", b"\xe9\xff\x80"), DATE)
        assert b"X-A: \xe9\xff\x80\r\n" in entry.head.encode("latin-1")

    def test_it_is_born_when_its_age_was_0_and_fresh_for_its_lifetime(self) -> None:
        entry = stored(DATE, age_s=20, lifetime_s=60)
        assert entry.born_ns == NOW_NS - 20 * SECOND_NS
        assert entry.fresh_until_ns == NOW_NS + 40 * SECOND_NS

    def test_it_names_the_attempt_that_filled_it(self) -> None:
        assert re.fullmatch(r"00-[0-9a-f]{32}-00f067aa0ba902b7-03", stored(DATE).filled_by)

    def test_it_varies_by_what_was_decided(self) -> None:
        kept = stored(DATE).stored
        assert (kept.vary, kept.variant) == ((b"accept",), b"text/css")

    def test_it_knows_where_it_belongs_and_what_was_purged_by_then(self) -> None:
        kept = stored(DATE, (b"Surrogate-Key", b"a b")).stored
        assert (kept.url, kept.key, kept.origin) == (b"http://edge.test/", b"http://edge.test/", "app")
        assert (kept.tags, kept.purge_seq) == ((b"a", b"b"), 7)

    @pytest.mark.parametrize(("status", "etag"), [(200, b'"x"'), (203, None), (301, None), (404, None)])
    def test_conditions_are_evaluated_against_a_stored_200_only_rfc9111_4_3_2(
        self, status: int, etag: bytes | None
    ) -> None:
        assert stored((b"ETag", b'"x"'), DATE, status=status).etag == etag

    def test_a_204_is_stored_without_a_length(self) -> None:
        assert "Content-Length" not in stored(DATE, status=204).head


class TestDecoration:
    @staticmethod
    def hit(name: str = "edge-1", tracing: Tracing | None = None, cache: Cache | None = None) -> str:
        decorator = response.Decorator(name, tracing or Tracing(), cache or Cache())
        exchange = an_exchange()
        entry = stored(DATE)
        return (
            decorator.hit(exchange, entry, "0.031")
            .replace(exchange.trace.trace_id, "TRACE")
            .replace(exchange.trace.span_id, "SPAN")
        )

    def test_a_hit_says_all(self) -> None:
        assert self.hit().split("\r\n") == [
            "X-Cache: HIT",
            "Cache-Status: edge-1; hit; ttl=60",
            "X-Trace-Id: TRACE",
            "traceresponse: 00-TRACE-SPAN-03",
            "Server-Timing: edge;dur=0.031, origin;dur=0",
            "",
        ]

    @pytest.mark.parametrize(
        ("switch", "field"),
        [
            ("cache_status", "Cache-Status"),
            ("x_trace_id", "X-Trace-Id"),
            ("traceresponse", "traceresponse"),
            ("server_timing", "Server-Timing"),
        ],
    )
    def test_each_field_can_be_turned_off_alone(self, switch: str, field: str) -> None:
        names = [
            line.partition(":")[0] for line in self.hit(tracing=convert({switch: False}, Tracing)).split("\r\n")[:-1]
        ]
        expected = ["X-Cache", "Cache-Status", "X-Trace-Id", "traceresponse", "Server-Timing"]
        expected.remove(field)
        assert names == expected

    def test_the_short_field_has_the_name_that_it_is_given_or_is_not_there(self) -> None:
        assert self.hit(cache=Cache(short_status="X-Cache-Status")).startswith("X-Cache-Status: HIT\r\n")
        assert self.hit(cache=Cache(short_status="")).startswith("Cache-Status: ")

    def test_the_key_is_told_to_those_who_ask_for_it_rfc9211_2_7(self) -> None:
        assert '; hit; ttl=60; key="http://edge.test/"\r\n' in self.hit(cache=Cache(status_key=True))

    @pytest.mark.parametrize(
        ("name", "member"),
        [("edge-1", "edge-1"), ("a.b_c", "a.b_c"), ("1st", '"1st"'), ("-x", '"-x"'), (".x", '".x"')],
    )
    def test_a_node_whose_name_is_no_token_is_quoted_rfc9211_2(self, name: str, member: str) -> None:
        assert f"\r\nCache-Status: {member}; hit; ttl=" in self.hit(name)
