"""What a message's head is when it leaves: which fields end at the edge, which it adds, and that all else stays as it
came.
"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeproxy.config import Tracing
from edgeproxy.proxy import forwarding
from edgeproxy.proxy.exchange import Exchange
from edgeproxy.proxy.fields import FieldLines, fold, render
from edgeproxy.tracing import IdSource, Propagation, Tracer
from tests.proxy.builders import an_exchange

PARENT = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
W3C = Propagation(["tracecontext", "baggage"], Tracer(IdSource()))
EDGE_OWN = (
    "via",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "forwarded",
    "x-trace-id",
    "x-request-id",
)


def sent(exchange: Exchange, *, host: bytes = b"", tracing: Tracing | None = None) -> tuple[bytes, FieldLines]:
    """Request line and field lines as they reach the origin."""
    first, rest = forwarding.request_head(exchange, host, tracing or Tracing(), W3C, exchange.target)
    head = first + b"traceparent: %b\r\n" % PARENT + rest
    assert head.endswith(b"\r\n\r\n")
    start, *lines = head[:-4].split(b"\r\n")
    return start, [(name, value) for name, _, value in (line.partition(b": ") for line in lines)]


def values(lines: FieldLines, name: str) -> list[bytes]:
    return [value for key, value in lines if key.lower() == name.encode()]


def others(lines: FieldLines) -> FieldLines:
    """Without what the edge itself writes into every request."""
    return [line for line in lines if line[0].lower().decode() not in {*EDGE_OWN, "host", "traceparent"}]


def received(*lines: tuple[bytes, bytes]) -> FieldLines:
    """A response's field lines as they go on to the client."""
    given_lines = list(lines)
    return forwarding.response_lines(given_lines, fold(given_lines), forwarding.withheld(sends_tags=False))


# --- to the origin


def test_the_request_line_and_the_clients_host_come_first() -> None:
    start, lines = sent(an_exchange((b"Host", b"Edge.Test:8080"), method=b"PUT", target=b"/a%20b?c=d"))
    assert start == b"PUT /a%20b?c=d HTTP/1.1"
    assert lines[0] == (b"Host", b"Edge.Test:8080")


def test_a_configured_host_is_sent_instead() -> None:
    _, lines = sent(an_exchange(), host=b"origin.internal")
    assert values(lines, "host") == [b"origin.internal"]
    assert values(lines, "x-forwarded-host") == [b"edge.test"]


def test_what_the_client_sent_stays_in_its_order_its_case_and_its_lines() -> None:
    kept = [
        (b"aCCept", b"text/html"),
        (b"X-A", b"1"),
        (b"Cookie", b"a=b; c=d"),
        (b"x-a", b"2"),
        (b"X-Empty", b""),
        (b"Authorization", b"Basic eA=="),
        (b"X-Bytes", b"\xe9\xff"),
        (b"X-A", b"1"),
        (b"baggage", b"k=v"),
    ]
    _, lines = sent(an_exchange(*kept))
    assert others(lines) == kept


@pytest.mark.parametrize(
    "name",
    [
        b"Connection",
        b"Keep-Alive",
        b"Proxy-Connection",
        b"Proxy-Authorization",
        b"TE",
        b"Upgrade",
        b"HTTP2-Settings",
        b"kEEP-aLIVE",
    ],
)
def test_hop_by_hop_fields_end_here_rfc9110_7_6_1(name: bytes) -> None:
    _, lines = sent(an_exchange((name, b"x"), (b"Accept", b"*/*")))
    assert others(lines) == [(b"Accept", b"*/*")]


@pytest.mark.parametrize(
    "connection",
    [
        [b"X-Secret, close"],
        [b"x-secret"],
        [b"keep-alive", b"X-SECRET"],
        [b" , x-secret ,, "],
        [b"foo,\tx-Secret"],
    ],
)
def test_fields_that_connection_names_end_here_rfc9110_7_6_1(connection: list[bytes]) -> None:
    lines = [(b"Connection", value) for value in connection]
    _, sent_lines = sent(an_exchange(*lines, (b"X-Secret", b"1"), (b"Accept", b"*/*"), (b"x-secret", b"2")))
    assert others(sent_lines) == [(b"Accept", b"*/*")]


@pytest.mark.parametrize("name", [b"Host", b"Content-Length", b"Via", b"X-Forwarded-For", b"traceparent", b"Forwarded"])
def test_connection_cannot_take_away_what_the_edge_vouches_for(name: bytes) -> None:
    exchange = an_exchange((b"Connection", name), (b"Content-Length", b"5"), method=b"POST")
    _, lines = sent(exchange)
    for kept in ("host", "content-length", "via", "x-forwarded-for", "forwarded", "traceparent"):
        assert len(values(lines, kept)) == 1, kept


def test_te_trailers_is_asked_for_anew_rfc9110_10_1_4() -> None:
    _, lines = sent(an_exchange((b"TE", b"deflate, trailers"), (b"Connection", b"TE")))
    assert others(lines) == [(b"TE", b"trailers"), (b"Connection", b"TE")]


class TestForwarded:
    def test_the_edge_names_itself_the_client_and_what_the_client_asked_for(self) -> None:
        _, lines = sent(an_exchange((b"Host", b"Edge.Test:8080"), minor=0))
        assert values(lines, "via") == [b"1.0 edgeproxy"]
        assert values(lines, "x-forwarded-for") == [b"192.0.2.7"]
        assert values(lines, "x-forwarded-proto") == [b"http"]
        assert values(lines, "x-forwarded-host") == [b"edge.test:8080"]
        assert values(lines, "forwarded") == [b'for=192.0.2.7;host="edge.test:8080";proto=http']

    def test_it_comes_behind_the_proxies_before_it_rfc9110_7_6_3(self) -> None:
        _, lines = sent(
            an_exchange(
                (b"Via", b"1.0 a, 1.1 b"),
                (b"X-Forwarded-For", b"198.51.100.1"),
                (b"via", b"1.1 c"),
                (b"x-forwarded-for", b"198.51.100.2"),
                (b"Forwarded", b"for=198.51.100.1"),
            )
        )
        assert values(lines, "via") == [b"1.0 a, 1.1 b, 1.1 c, 1.1 edgeproxy"]
        assert values(lines, "x-forwarded-for") == [b"198.51.100.1, 198.51.100.2, 192.0.2.7"]
        assert values(lines, "forwarded") == [b'for=198.51.100.1, for=192.0.2.7;host="edge.test";proto=http']

    @pytest.mark.parametrize(
        ("earlier", "kept"),
        [
            (b"for=198.51.100.1;host=evil.test;proto=https", b"for=198.51.100.1"),
            (b'For="[2001:db8::1]:80";Host="evil.test", by=_b;PROTO=evil', b'For="[2001:db8::1]:80", by=_b'),
            (b'for="a,b;host=c";host="e\\"v"', b'for="a,b;host=c"'),
            (b",;for=_x ,", b"for=_x"),
            (b"host=evil.test", b""),
            (b'for="x;host=evil.test', b""),
            (b"for=x host=evil.test", b""),
            (b"evil.test", b""),
            (b"for=x, " * 1000, b""),
        ],
    )
    def test_who_asked_for_which_host_is_not_the_clients_to_say(self, earlier: bytes, kept: bytes) -> None:
        _, lines = sent(an_exchange((b"Forwarded", earlier)))
        own = b'for=192.0.2.7;host="edge.test";proto=http'
        assert values(lines, "forwarded") == [kept + b", " + own if kept else own]

    def test_the_scheme_is_that_of_what_the_client_asked_for(self) -> None:
        exchange = an_exchange()
        exchange.key = b"https://edge.test/"
        _, lines = sent(exchange)
        assert values(lines, "x-forwarded-proto") == [b"https"]
        assert values(lines, "forwarded") == [b'for=192.0.2.7;host="edge.test";proto=https']

    def test_what_a_client_claims_of_scheme_and_host_is_replaced(self) -> None:
        _, lines = sent(an_exchange((b"X-Forwarded-Proto", b"https"), (b"X-Forwarded-Host", b"evil.test")))
        assert values(lines, "x-forwarded-proto") == [b"http"]
        assert values(lines, "x-forwarded-host") == [b"edge.test"]

    @pytest.mark.parametrize(
        ("address", "node"),
        [
            ("192.0.2.7", b"192.0.2.7"),
            ("2001:db8::7", b'"[2001:db8::7]"'),
            ("", b"unknown"),
        ],
    )
    def test_an_address_is_written_as_rfc7239_6_has_it(self, address: str, node: bytes) -> None:
        _, lines = sent(an_exchange(address=address))
        assert values(lines, "forwarded") == [b'for=%b;host="edge.test";proto=http' % node]

    def test_a_request_without_a_host_has_none_to_forward(self) -> None:
        exchange = an_exchange((b"Host", b""), minor=0)
        _, lines = sent(exchange)
        assert values(lines, "host") == [b""]


class TestFraming:
    def test_a_stated_length_is_passed_on_once(self) -> None:
        _, lines = sent(an_exchange((b"content-length", b"5"), method=b"POST"))
        assert others(lines) == [(b"Content-Length", b"5")]

    def test_a_length_of_zero_is_passed_on(self) -> None:
        exchange = an_exchange((b"Content-Length", b"0"), method=b"POST")
        exchange.has_body = False
        _, lines = sent(exchange)
        assert others(lines) == [(b"Content-Length", b"0")]

    def test_chunks_stay_chunks_with_their_trailers_announced(self) -> None:
        _, lines = sent(an_exchange((b"Trailer", b"X-T"), (b"Transfer-Encoding", b"Chunked"), method=b"POST"))
        assert others(lines) == [(b"Transfer-Encoding", b"chunked"), (b"Trailer", b"X-T")]

    def test_a_request_without_a_body_is_framed_by_nothing(self) -> None:
        _, lines = sent(an_exchange((b"Trailer", b"X-T")))
        assert others(lines) == []

    def test_a_trailer_can_say_nothing_that_the_edge_says(self) -> None:
        kept = (b"X-Checksum", b"1")
        names = [b"traceparent", b"X-Forwarded-For", b"Via", b"X-Trace-Id", b"X-Request-Id", b"Connection", b"X-Hop"]
        lines = [kept, *((name, b"x") for name in names)]
        assert forwarding.request_trailers(lines, {b"connection": b"X-Hop"}, W3C) == [kept]


class TestTraceFields:
    def test_exactly_one_traceparent_leaves_and_it_is_the_attempts(self) -> None:
        _, lines = sent(an_exchange((b"TraceParent", PARENT[:-2] + b"00"), (b"traceparent", PARENT)))
        assert values(lines, "traceparent") == [PARENT]

    def test_the_clients_ids_are_replaced_by_this_requests(self) -> None:
        exchange = an_exchange((b"X-Trace-Id", b"theirs"), (b"X-Request-Id", b"theirs"), (b"x-request-id", b"again"))
        _, lines = sent(exchange)
        assert values(lines, "x-trace-id") == [exchange.trace.trace_id.encode()]
        assert values(lines, "x-request-id") == [exchange.trace.request_id.encode()]

    @pytest.mark.parametrize("trace_id", [True, False])
    @pytest.mark.parametrize("request_id", [True, False])
    def test_each_id_can_be_turned_off_and_the_clients_own_never_goes_on(
        self, trace_id: bool, request_id: bool
    ) -> None:
        exchange = an_exchange((b"X-Trace-Id", b"theirs"), (b"X-Request-Id", b"theirs"))
        _, lines = sent(exchange, tracing=Tracing(send_x_trace_id=trace_id, send_x_request_id=request_id))
        assert values(lines, "x-trace-id") == ([exchange.trace.trace_id.encode()] if trace_id else [])
        assert values(lines, "x-request-id") == ([exchange.trace.request_id.encode()] if request_id else [])

    def test_tracestate_goes_on_with_a_context_that_is_continued(self) -> None:
        _, lines = sent(an_exchange((b"traceparent", PARENT), (b"tracestate", b"a=1"), (b"TraceState", b"b=2")))
        assert values(lines, "tracestate") == [b"a=1,b=2"]

    def test_tracestate_ends_here_when_the_trace_begins_anew(self) -> None:
        _, lines = sent(an_exchange((b"traceparent", b"00-broken"), (b"tracestate", b"a=1")))
        assert values(lines, "tracestate") == []

    def test_baggage_is_passed_on_as_it_is(self) -> None:
        baggage = [(b"baggage", b"a=1;p, b=%20"), (b"Baggage", b"c=3")]
        _, lines = sent(an_exchange(*baggage))
        assert others(lines) == baggage


# --- to the client


class TestResponses:
    def test_lines_stay_apart_and_in_their_order_and_case(self) -> None:
        kept = [
            (b"Set-Cookie", b"a=1, x"),
            (b"eTag", b'"x"'),
            (b"set-cookie", b"b=2"),
            (b"X-A", b""),
            (b"Set-Cookie", b"a=1, x"),
            (b"Warning", b"\xe9"),
        ]
        assert received(*kept)[:-1] == kept

    @pytest.mark.parametrize(
        "name",
        [b"Connection", b"Keep-Alive", b"Proxy-Connection", b"Proxy-Authenticate", b"Transfer-Encoding", b"Upgrade"],
    )
    def test_hop_by_hop_fields_end_here(self, name: bytes) -> None:
        assert received((name, b"x"), (b"X-A", b"1"))[:-1] == [(b"X-A", b"1")]

    def test_fields_that_connection_names_end_here(self) -> None:
        lines = received((b"X-Hop", b"1"), (b"Connection", b"close, x-hop"), (b"X-A", b"1"), (b"x-hop", b"2"))
        assert lines[:-1] == [(b"X-A", b"1")]

    @pytest.mark.parametrize(
        ("earlier", "via"),
        [((), b"1.1 edgeproxy"), (((b"Via", b"1.0 a"), (b"via", b"1.1 b")), b"1.0 a, 1.1 b, 1.1 edgeproxy")],
    )
    def test_the_edge_adds_itself_to_via(self, earlier: tuple[tuple[bytes, bytes], ...], via: bytes) -> None:
        assert received(*earlier) == [(b"Via", via)]

    @pytest.mark.parametrize("name", [b"traceresponse", b"X-Trace-Id", b"TraceResponse"])
    def test_the_origins_trace_fields_end_here(self, name: bytes) -> None:
        assert received((name, b"x"), (b"X-A", b"1"))[:-1] == [(b"X-A", b"1")]

    @pytest.mark.parametrize(
        ("timing", "left"),
        [
            (b"db;dur=5", b"db;dur=5"),
            (b'traceparent;desc="00-a-b-01"', None),
            (b'db;dur=5, traceparent;desc="00-a-b-01", app', b"db;dur=5, app"),
            (b"trace;desc=x, db", b"db"),
            (b"trace ;desc=x, db", b"db"),
            (b"Trace, db", b"db"),
            (b"traceparent", None),
            (b"tracer;dur=1", b"tracer;dur=1"),
            (b"trace-id;desc=x", b"trace-id;desc=x"),
            (b'db;desc="a, trace;b", app', b'db;desc="a, trace;b", app'),
            (rb'db;desc="\\", trace;desc=x', rb'db;desc="\\"'),
            (rb'db;desc="\", trace;desc=x", app', rb'db;desc="\", trace;desc=x", app'),
        ],
    )
    def test_of_server_timing_only_the_trace_entry_ends_here(self, timing: bytes, left: bytes | None) -> None:
        expected = [] if left is None else [(b"Server-Timing", left)]
        assert received((b"Server-Timing", timing))[:-1] == expected

    def test_server_timing_without_a_trace_entry_stays_as_it_is(self) -> None:
        kept = [(b"server-timing", b"db,app ;dur=1"), (b"X-A", b"1"), (b"Server-Timing", b"cpu")]
        assert received(*kept)[:-1] == kept

    def test_what_belongs_to_one_response_is_not_stored(self) -> None:
        lines = received(
            (b"X-Request-Id", b"1"),
            (b"Age", b"5"),
            (b"Cache-Status", b"up; hit"),
            (b"Server-Timing", b"db;dur=5"),
            (b"ETag", b'"x"'),
        )
        assert len(lines) == 6
        assert forwarding.stored_lines(lines, {}) == [(b"ETag", b'"x"'), (b"Via", b"1.1 edgeproxy")]

    def test_trailers_lose_what_frames_routes_or_belongs_to_the_hop(self) -> None:
        lines = [
            (b"X-Checksum", b"1"),
            (b"Transfer-Encoding", b"chunked"),
            (b"Content-Length", b"5"),
            (b"Connection", b"x"),
            (b"Trailer", b"x"),
            (b"X-Trace-Id", b"x"),
            (b"traceresponse", b"x"),
            (b"Server-Timing", b"trace;desc=x"),
            (b"X-Hop", b"x"),
            (b"x-checksum", b"2"),
            (b"Server-Timing", b"db, trace;desc=x"),
        ]
        kept = forwarding.side_lines(lines, {b"connection": b"close, x-hop"})
        assert kept == [(b"X-Checksum", b"1"), (b"x-checksum", b"2"), (b"Server-Timing", b"db")]


NAME = st.text("abcABC-", min_size=1, max_size=6).map(lambda text: b"X-" + text.encode())
VALUE = st.binary(max_size=12).map(lambda raw: bytes(byte for byte in raw if byte > 0x20 and byte != 0x7F))


@settings(deadline=None)
@given(st.lists(st.tuples(NAME, VALUE), max_size=12))
def test_unknown_fields_come_through_untouched_both_ways(lines: FieldLines) -> None:
    kept = [line for line in lines if line[0].lower() not in {b"x-trace-id", b"x-request-id"}]
    assert others(sent(an_exchange(*kept))[1]) == kept
    assert received(*kept)[:-1] == kept


@given(st.lists(st.tuples(NAME, VALUE), max_size=12))
def test_rendering_writes_one_line_a_field(lines: FieldLines) -> None:
    assert render(lines) == b"".join(b"%b: %b\r\n" % line for line in lines)
