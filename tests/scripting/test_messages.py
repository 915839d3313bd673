"""Exchanges as flows and back: what is unchanged stays byte for byte, what is changed makes no two messages of one."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mitmproxy import http

from edgeproxy.proxy.fields import FieldLines, fold
from edgeproxy.scripting.errors import ChangeError
from edgeproxy.scripting.messages import (
    Came,
    Wanted,
    authority_of,
    client_of,
    response_head,
    response_of,
    response_trailers,
    wanted,
)
from tests.scripting.builders import a_flow

CHUNKED = (b"Transfer-Encoding", b"chunked")
FRAMING = {"none": (), "length": ((b"content-length", b"4"),), "chunked": (CHUNKED,)}


def sent(flow: http.HTTPFlow, came: Came) -> Wanted:
    return wanted(flow, came, False)


def framing_of(asked: Wanted) -> list[tuple[bytes, bytes]]:
    return [
        (name.lower(), value)
        for name, value in asked.lines
        if name.lower() in {b"content-length", b"transfer-encoding"}
    ]


# --- what comes in


@pytest.mark.parametrize(
    ("host", "found"),
    [
        (b"edge.test", ("edge.test", 80)),
        (b"edge.test:8080", ("edge.test", 8080)),
        (b"edge.test:", ("edge.test", 80)),
        (b"[::1]", ("::1", 80)),
        (b"[::1]:81", ("::1", 81)),
        (b"", ("", 80)),
    ],
)
def test_host_and_port_are_those_of_the_host_field(host: bytes, found: tuple[str, int]) -> None:
    assert authority_of(host) == found


def test_a_flow_is_the_request_as_it_came() -> None:
    flow, _ = a_flow((b"x-A", b"1"), (b"X-a", b"2"), method=b"PURGE", target=b"/a?b=%2F&b=2", host=b"edge.test:81")
    request = flow.request
    assert (request.method, request.path, request.http_version) == ("PURGE", "/a?b=%2F&b=2", "HTTP/1.1")
    assert (request.scheme, request.host, request.port) == ("http", "edge.test", 81)
    assert request.headers.fields[1:] == ((b"x-A", b"1"), (b"X-a", b"2"))
    assert flow.client_conn.peername == ("192.0.2.7", 1)
    assert flow.killable
    flow.copy().get_state()  # all that mitmproxy saves of a flow is there


@pytest.mark.parametrize("peer", [None, "", "path/of/a/socket", ()])
def test_a_client_without_an_address_has_an_empty_one(peer: object) -> None:
    assert client_of(peer, peer, 0.0).peername == ("", 0)


# --- what is unchanged


@pytest.mark.parametrize("framing", FRAMING)
@pytest.mark.parametrize("streams", [False, True])
def test_an_unchanged_request_is_the_same_object_for_object(framing: str, *, streams: bool) -> None:
    lines = [
        (b"hOsT", b"EDGE.test"),
        (b"X-odd", b"\xff;  a"),
        (b"x-ODD", b""),
        *FRAMING[framing],
        (b"Cookie", b"a=1;b"),
    ]
    flow, came = a_flow(*lines, body=b"" if framing == "none" else b"body", method=b"POST")
    asked = wanted(flow, came, streams and framing != "none")
    assert asked.lines is came.lines
    assert asked.names is came.names
    assert (asked.method, asked.target, asked.host, asked.server) == (b"POST", b"/", b"edge.test", "")


@given(
    lines=st.lists(
        st.tuples(
            st.sampled_from([b"A", b"a-B", b"X_y", b"cookie", b"Accept"]),
            st.binary(max_size=6).map(lambda value: bytes(byte for byte in value if byte > 0x20 and byte != 0x7F)),
        ),
        max_size=6,
    ),
    target=st.binary(max_size=10).map(
        lambda rest: b"/" + bytes(byte for byte in rest if byte > 0x20 and byte not in b"#\x7f")
    ),
)
def test_reading_all_of_a_flow_changes_nothing(lines: FieldLines, target: bytes) -> None:
    flow, came = a_flow(*lines, target=target)
    request = flow.request
    for name in ("url", "pretty_url", "query", "cookies", "path_components", "headers", "host_header", "text"):
        getattr(request, name)
    list(request.headers.items(multi=True))
    asked = sent(flow, came)
    assert asked.lines is came.lines
    assert asked.target == target


HEADS = [
    b"HTTP/1.1 200 OK\r\nA: 1\r\na:  2 \r\nX-Bytes: \xe4\xff\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n",
    b"HTTP/1.1 299 \r\n",
    b"HTTP/1.1 404 not here, \xe4\r\nEmpty:\r\nContent-Length: 4\r\n",
]


@pytest.mark.parametrize("head", HEADS)
def test_an_unchanged_response_is_the_same_but_for_its_framing(head: bytes) -> None:
    response = response_of(head.decode("latin-1"))
    status, *fields = response_head(response, frozenset({b"content-length"})).encode("latin-1").split(b"\r\n")
    came = head.split(b"\r\n")
    assert status == came[0]
    assert [line.replace(b" ", b"") for line in fields] == [
        line.replace(b" ", b"") for line in came[1:] if not line.startswith(b"Content-Length")
    ]


def test_fields_of_the_connection_are_not_the_scripts() -> None:
    response = response_of(
        "HTTP/1.1 200 OK\r\nConnection: close\r\nKeep-Alive: 5\r\nTransfer-Encoding: chunked\r\nA: b\r\n"
    )
    assert response.headers.fields == ((b"A", b"b"),)
    response.headers["Connection"] = "upgrade"
    response.headers["Transfer-Encoding"] = "chunked"
    assert response_head(response, frozenset()) == "HTTP/1.1 200 OK\r\nA: b\r\n"


# --- framing


@pytest.mark.parametrize(
    ("framing", "body", "found", "has_body"),
    [
        ("none", b"", [], False),
        ("none", b"new", [(b"content-length", b"3")], True),
        ("length", b"body", [(b"content-length", b"4")], True),
        ("length", b"longer than it was", [(b"content-length", b"18")], True),
        ("length", b"", [(b"content-length", b"0")], False),
        ("length", None, [(b"content-length", b"0")], False),
        ("chunked", b"body", [(b"transfer-encoding", b"chunked")], True),
        ("chunked", b"longer", [(b"transfer-encoding", b"chunked")], True),
        ("chunked", b"", [(b"transfer-encoding", b"chunked")], True),
        ("chunked", None, [(b"transfer-encoding", b"chunked")], True),
    ],
)
@pytest.mark.parametrize(
    "noise",
    [
        (),
        ((b"Content-Length", b"999"),),
        ((b"content-length", b"1"), (b"Content-Length", b"2")),
        ((b"Transfer-Encoding", b"gzip, chunked"),),
        ((b"transfer-encoding", b"identity"), (b"Content-Length", b"0")),
    ],
    ids=lambda lines: "+".join(name.decode() for name, _ in lines) or "no noise",
)
def test_a_held_body_is_framed_by_its_length_whatever_scripts_say(
    framing: str, body: bytes | None, found: list[tuple[bytes, bytes]], noise: Any, *, has_body: bool
) -> None:
    flow, came = a_flow(*FRAMING[framing], body=b"" if framing == "none" else b"body", method=b"POST")
    flow.request.data.content = body
    flow.request.headers.fields += noise
    asked = sent(flow, came)
    assert (framing_of(asked), asked.has_body, asked.held) == (found, has_body, [body] if body else [])
    assert asked.names == fold(asked.lines)


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("changes", [False, True])
@pytest.mark.parametrize(
    "noise", [(), ((b"Content-Length", b"0"),), ((b"Content-Length", b"9"), CHUNKED)], ids=["", "length", "both"]
)
def test_a_body_that_streams_is_framed_as_it_came_or_in_chunks(framing: str, noise: Any, *, changes: bool) -> None:
    flow, came = a_flow(*FRAMING[framing], method=b"POST")
    flow.request.headers.fields += noise
    asked = wanted(flow, came, (lambda data: data) if changes else True)
    by_length = framing == "length" and not changes
    assert framing_of(asked) == [(b"content-length", b"4") if by_length else (b"transfer-encoding", b"chunked")]
    assert (asked.has_body, asked.held) == (True, [])


def test_the_clients_expectation_ends_where_the_body_is_held() -> None:
    flow, came = a_flow((b"Expect", b"100-continue"), *FRAMING["length"], body=b"body")
    assert b"expect" not in sent(flow, came).names
    assert b"expect" in wanted(flow, came, True).names


@pytest.mark.parametrize("framing", FRAMING)
def test_trailers_are_sent_where_the_body_is_in_chunks(framing: str) -> None:
    flow, came = a_flow(*FRAMING[framing], body=b"" if framing == "none" else b"body")
    flow.request.trailers = http.Headers(x_sum="1")
    assert sent(flow, came).trailers == ([(b"x-sum", b"1")] if framing == "chunked" else None)


# --- what is changed


@pytest.mark.parametrize(
    ("change", "field", "found"),
    [
        (lambda request: setattr(request, "method", "PATCH"), "method", b"PATCH"),
        (lambda request: setattr(request, "path", "/ä?b"), "target", "/ä?b".encode()),
        (lambda request: request.query.update(a="b c"), "target", b"/?a=b+c"),
        (lambda request: setattr(request, "host_header", "Other.test:81"), "host", b"other.test:81"),
        (lambda request: setattr(request, "host", "other.test"), "host", b"other.test"),
        (lambda request: setattr(request, "host", "other.test"), "server", "http://other.test:80"),
        (lambda request: setattr(request, "host", "::1"), "server", "http://[::1]:80"),
        (lambda request: setattr(request, "host", "::1"), "host", b"[::1]"),
        (lambda request: setattr(request, "url", "http://[::1]:81/"), "host", b"[::1]:81"),
        (lambda request: setattr(request, "port", 8000), "server", "http://edge.test:8000"),
        (lambda request: setattr(request, "scheme", "https"), "server", "https://edge.test:80"),
        (lambda request: setattr(request, "url", "https://other.test/x?y"), "server", "https://other.test:443"),
        (lambda request: setattr(request, "url", "https://other.test/x?y"), "target", b"/x?y"),
        (lambda request: setattr(request, "host_header", "other.test"), "server", ""),
        (
            lambda request: request.headers.update({"X-New": "ä"}),
            "lines",
            [(b"Host", b"edge.test"), (b"X-New", "ä".encode())],
        ),
    ],
)
def test_what_a_script_changes_is_sent(change: Any, field: str, found: Any) -> None:
    flow, came = a_flow()
    change(flow.request)
    assert getattr(sent(flow, came), field) == found


FORGED = [
    b"a\r\nX-Injected: 1",
    b"a\nX-Injected: 1",
    b"a\r",
    b"a\x00b",
    b"a\x0b",
    b"a\x7f",
]


@pytest.mark.parametrize("value", FORGED)
@pytest.mark.parametrize("where", ["value", "name", "path", "method", "host field", "trailer", "trailer's name"])
def test_nothing_is_injected_into_a_request(where: str, value: bytes) -> None:
    flow, came = a_flow(CHUNKED, body=b"body")
    data = flow.request.data
    if where == "path":
        data.path = b"/" + value
    elif where == "method":
        data.method = value
    elif where == "host field":
        data.headers[b"Host"] = value
    else:
        line = (value, b"1") if "name" in where else (b"X", value)
        if "trailer" in where:
            data.trailers = http.Headers([line])
        else:
            data.headers.fields += (line,)
    with pytest.raises(ChangeError):
        sent(flow, came)


@pytest.mark.parametrize(
    "change",
    [
        {"path": b""},
        {"path": b"no/slash"},
        {"path": b"*"},
        {"path": b"http://other.test/"},
        {"path": b"/a b"},
        {"path": b"/a HTTP/1.1\r\nHost: b\r\n\r\nGET /"},
        {"path": b"/#fragment"},
        {"method": b""},
        {"method": b"GET /"},
        {"method": b"CONNECT"},
        {"scheme": b"ftp"},
        {"scheme": b""},
        {"host": ""},
        {"host": "a b"},
        {"host": "bücher.test"},
        {"host": "a/../b"},
        {"host": "user@other.test"},
        {"host": "a\r\nX: y"},
        {"port": 0},
        {"port": -1},
        {"port": 65536},
        {"headers": http.Headers()},
        {"headers": http.Headers([(b"Host", b"a"), (b"Host", b"b")])},
    ],
    ids=repr,
)
def test_what_can_not_be_sent_is_an_error(change: dict[str, Any]) -> None:
    flow, came = a_flow()
    vars(flow.request.data).update(change)
    with pytest.raises(ChangeError):
        sent(flow, came)


@pytest.mark.parametrize(
    "change",
    [
        {"headers": None},
        {"headers": {"Host": "a"}},
        {"headers": http.Headers()},
        {"path": "/text"},
        {"path": None},
        {"method": "GET"},
        {"content": "text"},
        {"content": bytearray(b"x")},
        {"content": 5},
        {"scheme": "https"},
        {"host": b"other.test"},
        {"host": None},
        {"port": "81"},
        {"trailers": {"a": "b"}},
        {"trailers": "text"},
    ],
    ids=lambda change: repr(change).replace("Headers[]", "str fields"),
)
def test_what_is_of_another_type_is_an_error(change: dict[str, Any]) -> None:
    flow, came = a_flow(CHUNKED, body=b"body")
    if isinstance(change.get("headers"), http.Headers):
        change["headers"].fields = (("Host", "a"), ("X", 5))
    vars(flow.request.data).update(change)
    with pytest.raises(ChangeError):
        sent(flow, came)


@pytest.mark.parametrize("name", ["Content-Length", "transfer-encoding", "Host", "TE"])
def test_a_trailer_does_not_frame_or_route(name: str) -> None:
    flow, came = a_flow(CHUNKED, body=b"body")
    flow.request.trailers = http.Headers([(name.encode(), b"1")])
    with pytest.raises(ChangeError, match="may only stand in the head"):
        sent(flow, came)


# --- responses


def all_of(response: http.Response) -> None:
    response_head(response, frozenset(), ((b"A", b"b"),))
    response_trailers(response)


@pytest.mark.parametrize("value", FORGED)
@pytest.mark.parametrize("where", ["value", "name", "reason", "trailer", "trailer's name"])
def test_nothing_is_injected_into_a_response(where: str, value: bytes) -> None:
    response = response_of("HTTP/1.1 200 OK\r\nA: b\r\n")
    line = (value, b"1") if "name" in where else (b"X", value)
    if where == "reason":
        response.data.reason = value
    elif "trailer" in where:
        response.trailers = http.Headers([line])
    else:
        response.data.headers.fields += (line,)
    with pytest.raises(ChangeError):
        all_of(response)


@pytest.mark.parametrize(
    "change",
    [
        *({"status_code": status} for status in (0, -1, 100, 101, 199, 600, 200.0, "200", None, True)),
        *({"reason": reason} for reason in (None, "OK", 5)),
        *({"content": content} for content in ("text", 5, bytearray(b"x"), [b"x"])),
        *({"headers": headers} for headers in (None, {"a": "b"}, "text")),
        *({"trailers": trailers} for trailers in ({"a": "b"}, "text", [(b"a", b"b")])),
    ],
    ids=repr,
)
def test_a_response_that_can_not_be_sent_is_an_error(change: dict[str, Any]) -> None:
    response = http.Response.make(200, b"body")
    vars(response.data).update(change)
    with pytest.raises(ChangeError):
        all_of(response)


@pytest.mark.parametrize("response", [None, "text", 5, http.Request.make("GET", "http://a/")])
def test_what_is_no_response_is_an_error(response: Any) -> None:
    with pytest.raises(ChangeError):
        response_head(response, frozenset())
