"""A record is one line of JSON with exactly the contract's keys in their order, whatever bytes a client sends."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgeproxy.ledger import SLOT_TEXT_BYTES, Stage
from edgeproxy.ledger.record import FIELDS, lost_line
from edgeproxy.proxy.errors import ClientTimeout, OriginError, ProxyError, Refusal
from edgeproxy.proxy.exchange import Exchange
from edgeproxy.proxy.record import NO_ORIGIN, Recorder, origin_part, quoted
from edgeproxy.proxy.upstream.attempt import Attempt
from tests.proxy.builders import NOW_NS, an_exchange

KEYS = [field.name for field in FIELDS]
TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
    "null": (type(None),),
}
ATTEMPT_KEYS = [
    "address",
    "scheme",
    "span_id",
    "at_ms",
    "ms",
    "dns_ms",
    "connect_ms",
    "tls_ms",
    "send_ms",
    "first_byte_ms",
    "transfer_ms",
    "reused",
    "status",
    "error",
]
BYTES = st.binary(max_size=60)
HOSTILE = st.one_of(
    BYTES,
    st.text(max_size=40).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.sampled_from([b'"', b"\\", b"\r\n", b"\x00", b"\x1b[31m", b"\xc2\x9b31m", b"\xe2\x80\xa8", b"\x7f", b"\xff"]),
    st.sampled_from([b'","status":200,"x":"', b'\\","seq":1,"', b"%s%d{0}{trace}"]),
)


def parsed(line: bytes) -> dict[str, Any]:
    """The line's record, checked for what holds of every line."""
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    text = line[:-1].decode("utf-8")
    assert text.isprintable(), text
    pairs = json.loads(text, object_pairs_hook=lambda found: found)
    assert [name for name, _ in pairs] == KEYS
    record = json.loads(text)
    assert isinstance(record, dict)
    for field in FIELDS:
        allowed = tuple(kind for word in field.kind.split(" or ") for kind in TYPES[word])
        assert isinstance(record[field.name], allowed), (field.name, record[field.name])
        assert not (isinstance(record[field.name], bool) and bool not in allowed), field.name
    return record


def line_of(exchange: Exchange, **options: Any) -> bytes:
    """An exchange's line, as the pipeline has it rendered."""
    recorder = Recorder("edge-1", 3)
    recorder.begin(exchange)
    given_options = {"elapsed_ms": "1.250", "outcome": "ok", "stage": Stage.DONE, "origin": NO_ORIGIN, "error": None}
    return recorder.line(exchange, **{**given_options, **options})


def an_attempt(error: ProxyError | None = None) -> Attempt:
    attempt = Attempt("00f067aa0ba902b7", 0.0)
    attempt.address = "127.0.0.1:8000"
    attempt.error = error
    return attempt


def test_a_line_of_a_miss_says_all_there_is_to_say() -> None:
    exchange = an_exchange(
        (b"User-Agent", b"curl/8"), (b"Referer", b"http://r.test/"), method=b"POST", target=b"/a/b?c=d", minor=0
    )
    exchange.status, exchange.bytes_in, exchange.bytes_out, exchange.cache = 201, 5, 7, "BYPASS"
    attempt = an_attempt()
    attempt.connect_s, attempt.send_s, attempt.first_byte_s, attempt.transfer_s = 0.001, 0.0002, 0.25, 1.5
    attempt.status = 201
    attempt.started, attempt.ended = 0.0005, 1.7532
    exchange.lookup_s, exchange.stored_at_s, exchange.cache_ttl = 0.00025, 1.8, 60
    record = parsed(line_of(exchange, origin=origin_part("app", [attempt], 0.0)))
    trace = exchange.trace
    figures = {
        "dns_ms": None,
        "connect_ms": 1.0,
        "tls_ms": None,
        "send_ms": 0.2,
        "first_byte_ms": 250.0,
        "transfer_ms": 1500.0,
    }
    assert record == {
        "ts": "2025-06-15T15:06:40.123456Z",
        "head_ms": 0.0,
        "trace_id": trace.trace_id,
        "span_id": trace.span_id,
        "parent_id": None,
        "restarted_from": None,
        "sampled": True,
        "request_id": trace.request_id,
        "node": "edge-1",
        "worker": 3,
        "seq": 1,
        "client": "192.0.2.7",
        "method": "POST",
        "scheme": "http",
        "host": "edge.test",
        "path": "/a/b",
        "query": "c=d",
        "protocol": "HTTP/1.0",
        "status": 201,
        "bytes_in": 5,
        "bytes_out": 7,
        "route": "/*",
        "cache": "BYPASS",
        "cache_age": None,
        "cache_ttl": 60,
        "cache_tier": None,
        "cache_key": None,
        "filled_by": None,
        "caused_by": None,
        "lookup_ms": 0.25,
        "stored_at_ms": 1800.0,
        "store": [],
        "origin": "app",
        "origin_status": 201,
        "origin_reused": False,
        **figures,
        "attempts": [
            {
                "address": "127.0.0.1:8000",
                "scheme": "http",
                "span_id": "00f067aa0ba902b7",
                "at_ms": 0.5,
                "ms": 1752.7,
                **figures,
                "reused": False,
                "status": 201,
                "error": None,
            }
        ],
        "duration_ms": 1.25,
        "outcome": "ok",
        "stage": "done",
        "error": None,
        "sampling": "always_on",
        "exported": True,
        "user_agent": "curl/8",
        "referer": "http://r.test/",
        "headers": {},
        "script": None,
    }


def test_a_line_of_a_hit_says_who_filled_the_entry() -> None:
    exchange = an_exchange((b"X-Tenant", b"acme"), target=b"/a")
    exchange.status, exchange.cache_age, exchange.cache_ttl, exchange.filled_by = 200, 12, 48, "00-aa-bb-01"
    recorder = Recorder("edge-1", 0, ["x-tenant"])
    recorder.begin(exchange)
    record = parsed(recorder.hit(exchange, 785, "0.031", "memory"))
    assert record["headers"] == {"x-tenant": "acme"}
    names = ("cache", "cache_age", "cache_ttl", "cache_tier", "filled_by", "bytes_out", "origin", "route", "lookup_ms")
    assert {name: record[name] for name in names} == {
        "route": "/*",
        "lookup_ms": 0.0,
        "cache": "HIT",
        "cache_age": 12,
        "cache_ttl": 48,
        "cache_tier": "memory",
        "filled_by": "00-aa-bb-01",
        "bytes_out": 785,
        "origin": None,
    }
    assert (record["attempts"], record["outcome"], record["stage"]) == ([], "ok", "done")


def test_there_is_no_space_between_values() -> None:
    line = line_of(an_exchange()).decode()
    assert json.dumps(json.loads(line), separators=(",", ":")).replace("1.25,", "1.250,") == line.rstrip("\n")


def test_a_request_that_could_not_be_read_has_null_for_what_is_not_known() -> None:
    exchange = an_exchange(method=b"", target=b"", host=b"")
    record = parsed(
        line_of(exchange, outcome="refused", error=Refusal("malformed_request", HTTPStatus.BAD_REQUEST, "broken"))
    )
    assert [record[name] for name in ("method", "scheme", "host", "path", "query")] == [None] * 5
    assert record["status"] is None


def test_a_request_for_the_server_itself_has_a_star_for_its_path() -> None:
    record = parsed(line_of(an_exchange(method=b"OPTIONS", target=b"*")))
    assert (record["host"], record["path"], record["query"]) == ("edge.test", "*", "")


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        (b"/", "/", ""),
        (b"/?", "/", ""),
        (b"/a?b?c", "/a", "b?c"),
        (b"//a//b", "//a//b", ""),
        (b"/a://b/c", "/a://b/c", ""),
        (b"/%7Bx%7D?%22", "/%7Bx%7D", "%22"),
    ],
)
def test_path_and_query_are_what_the_client_sent(target: bytes, path: str, query: str) -> None:
    record = parsed(line_of(an_exchange(target=target)))
    assert (record["path"], record["query"]) == (path, query)


def test_an_errors_causes_are_listed_outermost_first() -> None:
    root = ConnectionResetError(104, "Connection reset by peer")
    middle = OriginError("origin_closed", "closed too soon")
    middle.__cause__ = root
    outer = ClientTimeout("body_timeout", "too slow")
    outer.__cause__ = middle
    error = parsed(line_of(an_exchange(), error=outer, outcome="timeout"))["error"]
    assert error == {
        "type": "body_timeout",
        "message": "too slow",
        "causes": [
            {"type": "origin_closed", "message": "closed too soon"},
            {"type": "ConnectionResetError", "message": "[Errno 104] Connection reset by peer"},
        ],
    }


def test_every_attempt_is_listed_and_the_last_ones_figures_are_the_requests() -> None:
    first, second = an_attempt(OriginError("origin_closed", "gone")), an_attempt()
    first.reused, second.status, second.dns_s, second.tls_s = True, 200, 0.5, 0.125
    record = parsed(line_of(an_exchange(), origin=origin_part("app", [first, second], 0.0)))
    assert [list(attempt) for attempt in record["attempts"]] == [ATTEMPT_KEYS, ATTEMPT_KEYS]
    assert [(one["reused"], one["status"], one["error"] and one["error"]["type"]) for one in record["attempts"]] == [
        (True, None, "origin_closed"),
        (False, 200, None),
    ]
    assert (record["dns_ms"], record["tls_ms"], record["origin_status"]) == (500.0, 125.0, 200)


@settings(deadline=None, max_examples=300)
@given(
    method=st.sampled_from([b"GET", b"PATCH", b""]),
    target=HOSTILE.map(lambda text: b"/" + text),
    host=HOSTILE,
    agent=st.none() | HOSTILE,
    referer=st.none() | HOSTILE,
    parent=st.none() | st.just(b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01") | HOSTILE,
)
@example(b"GET", b"/\x85\xe2\x80\xa9", b"\xc2\x9b", b"\x1b]0;x\x07", b"\n", None)
def test_no_bytes_of_a_clients_break_its_line(
    method: bytes, target: bytes, host: bytes, agent: bytes | None, referer: bytes | None, parent: bytes | None
) -> None:
    given_lines = {b"Host": host, b"User-Agent": agent, b"Referer": referer, b"traceparent": parent}
    lines = [(name, value) for name, value in given_lines.items() if value is not None]
    exchange = an_exchange(*lines, method=method, target=target)
    record = parsed(line_of(exchange))
    assert record["seq"] == 1
    hit = an_exchange(*lines, method=method or b"GET", target=target)
    hit.cache_age, hit.cache_ttl, hit.filled_by, hit.status = 1, 9, "00-aa-bb-01", 200
    recorder = Recorder("edge-1", 0)
    recorder.begin(hit)
    parsed(recorder.hit(hit, 0, "0.1", "memory"))


@settings(deadline=None)
@given(message=st.text(), cause=st.text())
@example("\x9b31m", "\x85\u2028\x7f")
def test_no_text_in_an_error_breaks_its_line(message: str, cause: str) -> None:
    error = Refusal("upgrade_refused", HTTPStatus.NOT_IMPLEMENTED, message)
    error.__cause__ = ValueError(cause)
    record = parsed(line_of(an_exchange(), error=error, origin=origin_part("app", [an_attempt(error)], 0.0)))
    for shown in (record["error"], record["attempts"][0]["error"]):
        assert (shown["message"], shown["causes"][0]["message"]) == (message, cause)


@given(value=BYTES)
def test_text_that_is_utf8_is_shown_as_it_is_and_other_bytes_by_their_number(value: bytes) -> None:
    assert json.loads(quoted(value)) == value.decode("utf-8", "backslashreplace")


def repeated(*units: bytes) -> st.SearchStrategy[bytes]:
    """One of these over and over: what makes JSON longest for its length."""
    return st.tuples(st.sampled_from(units), st.integers(0, 9000)).map(lambda of: of[0] * of[1])


@settings(deadline=None, max_examples=300)
@given(
    path=repeated(b'"', b"\\", b"\x01", b"\xff", "é".encode(), b"\xe2\x80\x8b", b"a"),
    query=repeated(b'"', b"\xff", b"a"),
    host=repeated(b'"', b"\xff", b"a"),
    node=st.integers(1, 255),
)
@example(b'"' * 100, b'"' * 100, b"edge.test", 10)
def test_what_a_slot_is_given_fits_and_is_the_lines_beginning(
    path: bytes, query: bytes, host: bytes, node: int
) -> None:
    parent = (b"traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
    target = b"/%b?%b" % (path, query)
    exchange = an_exchange((b"Host", host), parent, target=target, address=":".join(["2001"] * 8))
    text = Recorder("n" * node, 1023).begin(exchange)
    assert len(text) <= SLOT_TEXT_BYTES
    now = datetime.fromtimestamp(NOW_NS / 1e9 + 1, UTC)
    record = json.loads(lost_line(text, seq=1, stage=Stage.CONNECT, worker=1023, pid=1, now=now))
    trace = exchange.trace
    assert (record["trace_id"], record["span_id"], record["request_id"]) == (
        trace.trace_id,
        trace.span_id,
        trace.request_id,
    )
    assert (record["method"], record["protocol"]) == ("GET", "HTTP/1.1")
    if target.isascii():  # else a character may have been cut in two
        assert target.decode().startswith(record["path"])


# --- request headers on the list


def headers_of(*fields: tuple[bytes, bytes], logged: Sequence[str] = ("X-Tenant", "x-order")) -> dict[str, str]:
    """`headers` of an exchange's line; a hit's has the same."""
    recorder = Recorder("edge-1", 3, logged)
    exchange = an_exchange(*fields)
    recorder.begin(exchange)
    options: dict[str, Any] = {"elapsed_ms": "1", "outcome": "ok", "stage": Stage.DONE, "origin": NO_ORIGIN}
    headers: dict[str, str] = parsed(recorder.line(exchange, **options, error=None))["headers"]
    return headers


def test_headers_are_logged_if_they_are_on_the_list_and_came() -> None:
    fields = [(b"X-TENANT", b"acme"), (b"X-Other", b"1"), (b"Cookie", b"a=b")]
    assert headers_of(*fields) == {"x-tenant": "acme"}
    assert headers_of(*fields, logged=()) == {}
    assert headers_of() == {}


def test_several_fields_of_a_name_are_one_text() -> None:
    assert headers_of((b"x-order", b"1"), (b"X-Order", b"2")) == {"x-order": "1, 2"}


def test_a_header_on_the_list_twice_is_logged_once() -> None:
    assert headers_of((b"x-order", b"1"), logged=["x-order", "X-Order"]) == {"x-order": "1"}


@pytest.mark.parametrize(
    ("value", "logged"),
    [
        (b"x" * 1024, "x" * 1024),
        (b"x" * 1025, "x" * 1024),
        ("x" * 1023 + "\u00e9\u00e9", "x" * 1023),
        ("x" * 1022 + "\u9999", "x" * 1022),
        ("x" * 1021 + "\u9999\u9999", "x" * 1021 + "\u9999"),
        (b"\x80" * 2000, "\\x80" * 1020),
    ],
)
def test_a_value_is_cut_where_a_character_ends(value: bytes | str, logged: str) -> None:
    raw = value.encode() if isinstance(value, str) else value
    assert headers_of((b"x-order", raw)) == {"x-order": logged}


@given(HOSTILE)
def test_no_value_breaks_the_line(value: bytes) -> None:
    assert set(headers_of((b"x-order", value))) == {"x-order"}
