"""What a request's head may look like, and what is made of it: hosts, targets, bodies, expectations, sizes."""

from types import SimpleNamespace
from typing import Any, cast

import httptools
import pytest

from edgeproxy.config import Limits
from edgeproxy.proxy import head
from edgeproxy.proxy.errors import Refusal
from edgeproxy.proxy.exchange import Exchange
from edgeproxy.proxy.fields import FieldLines
from tests.proxy.builders import a_client, an_exchange

LIMITS = Limits(header_bytes=1024, headers=5, uri_bytes=100, body_bytes=1000)


class Reading:
    """Has llhttp parse a head, and `head` make an exchange of it."""

    def __init__(self, data: bytes, limits: Limits = LIMITS) -> None:
        self.data = data
        self.limits = limits
        self.url = b""
        self.lines: FieldLines = []
        self.parser = httptools.HttpRequestParser(self)
        self.result: Exchange | None = None

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.lines.append((name, value))

    def on_headers_complete(self) -> None:
        client = a_client()
        self.result = head.exchange(client, self.parser, self.url, self.lines, self.data, True, 1.0, self.limits)


def read(*fields: str, line: str = "GET /x HTTP/1.1", limits: Limits = LIMITS) -> Exchange:
    """The exchange of a head; raises what refuses it."""
    reading = Reading("\r\n".join([line, *fields, "", ""]).encode(), limits)
    try:
        reading.parser.feed_data(reading.data)
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserCallbackError as error:
        raise error.__context__ or error from None
    assert reading.result is not None
    return reading.result


def refusal(*fields: str, line: str = "GET /x HTTP/1.1") -> tuple[str, int]:
    """Code and status with which a head is refused."""
    with pytest.raises(Refusal) as caught:
        read(*fields, line=line)
    assert caught.value.message
    return caught.value.code, int(caught.value.status)


HOST = "Host: edge.test"


@pytest.mark.parametrize(
    ("line", "host", "method", "target", "seen_host"),
    [
        ("GET /a?b HTTP/1.1", HOST, b"GET", b"/a?b", b"edge.test"),
        ("GET / HTTP/1.1", "Host: EDGE.Test:80", b"GET", b"/", b"edge.test:80"),
        ("GET //a//b HTTP/1.1", HOST, b"GET", b"//a//b", b"edge.test"),
        ("GET /%2e%2e/%00 HTTP/1.1", HOST, b"GET", b"/%2e%2e/%00", b"edge.test"),
        ("GET http://edge.test/a?b HTTP/1.1", HOST, b"GET", b"/a?b", b"edge.test"),
        ("GET HTTP://EDGE.TEST HTTP/1.1", HOST, b"GET", b"/", b"edge.test"),
        ("GET http://edge.test?b HTTP/1.1", HOST, b"GET", b"/?b", b"edge.test"),
        ("GET http://edge.test/a HTTP/1.0", "X: y", b"GET", b"/a", b"edge.test"),
        ("OPTIONS * HTTP/1.1", HOST, b"OPTIONS", b"*", b"edge.test"),
        ("GET / HTTP/1.1", "Host: [2001:DB8::1]:8080", b"GET", b"/", b"[2001:db8::1]:8080"),
        ("GET / HTTP/1.1", "Host: 192.0.2.1", b"GET", b"/", b"192.0.2.1"),
        ("GET / HTTP/1.1", "Host: a_b.c-d~e", b"GET", b"/", b"a_b.c-d~e"),
        ("GET / HTTP/1.1", "Host: edge.test.", b"GET", b"/", b"edge.test."),
        ("GET / HTTP/1.1", "Host:", b"GET", b"/", b""),
        ("GET / HTTP/1.0", "X: y", b"GET", b"/", b""),
    ],
)
def test_targets_and_hosts(line: str, host: str, method: bytes, target: bytes, seen_host: bytes) -> None:
    for _ in range(2):  # a host is checked once, and remembered
        exchange = read(host, line=line)
        assert (exchange.method, exchange.target, exchange.host) == (method, target, seen_host)
        assert exchange.minor == int(line[-1])


@pytest.mark.parametrize(
    ("line", "host", "code"),
    [
        ("GET / HTTP/1.1", "X: y", "no_host"),
        ("GET http://edge.test/ HTTP/1.1", "X: y", "no_host"),
        ("GET / HTTP/1.1", "Host: a b", "bad_host"),
        ("GET / HTTP/1.1", "Host: a/b", "bad_host"),
        ("GET / HTTP/1.1", "Host: a@b", "bad_host"),
        ("GET / HTTP/1.1", "Host: a:b", "bad_host"),
        ("GET / HTTP/1.1", "Host: a:123456", "bad_host"),
        ("GET / HTTP/1.1", "Host: [a", "bad_host"),
        ("GET / HTTP/1.1", "Host: [::1", "bad_host"),
        ("GET / HTTP/1.1", "Host: a\r\nhost: a", "several_hosts"),
        ("GET / HTTP/1.0", "Host: a\r\nhost: a", "several_hosts"),
        ("GET http://other/ HTTP/1.1", HOST, "authority_mismatch"),
        ("GET http://edge.test:80/ HTTP/1.1", HOST, "authority_mismatch"),
        ("GET https://edge.test/ HTTP/1.1", HOST, "scheme_mismatch"),
        ("GET http://a@edge.test/ HTTP/1.1", HOST, "bad_target"),
        ("GET http:/// HTTP/1.1", HOST, "bad_target"),
        ("GET * HTTP/1.1", HOST, "bad_target"),
        ("GET ftp://edge.test/ HTTP/1.1", HOST, "bad_target"),
        ("GET /a#b HTTP/1.1", HOST, "fragment_in_target"),
        ("GET  / HTTP/1.1", HOST, "malformed_request"),
    ],
)
def test_targets_and_hosts_that_are_refused(line: str, host: str, code: str) -> None:
    for _ in range(2):
        assert refusal(host, line=line) == (code, 400)


@pytest.mark.parametrize(
    ("line", "fields", "keep_alive"),
    [
        ("GET / HTTP/1.1", [], True),
        ("GET / HTTP/1.1", ["Connection: close"], False),
        ("GET / HTTP/1.1", ["Connection: CLOSE "], False),
        ("GET / HTTP/1.0", [], False),
        ("GET / HTTP/1.0", ["Connection: Keep-Alive"], True),
        ("GET / HTTP/1.0", ["Connection: close"], False),
    ],
)
def test_keep_alive(line: str, fields: list[str], keep_alive: bool) -> None:
    assert read(HOST, *fields, line=line).keep_alive is keep_alive


@pytest.mark.parametrize(
    ("fields", "has_body"),
    [
        ([], False),
        (["Content-Length: 0"], False),
        (["Content-Length: 1"], True),
        (["Content-Length: 1000"], True),
        (["Transfer-Encoding: chunked"], True),
        (["Transfer-Encoding: CHUNKED"], True),
    ],
)
def test_bodies(fields: list[str], has_body: bool) -> None:
    exchange = read(HOST, *fields, line="POST / HTTP/1.1")
    assert (exchange.has_body, exchange.body_complete) == (has_body, not has_body)


@pytest.mark.parametrize(
    ("fields", "refused"),
    [
        (["Content-Length: 1001"], ("body_too_large", 413)),
        (["Transfer-Encoding: gzip, chunked"], ("unknown_transfer_coding", 501)),
        (["Expect: miracles"], ("unknown_expectation", 417)),
        (["Connection: upgrade", "Upgrade: websocket"], ("upgrade_refused", 501)),
    ],
)
def test_what_is_not_served(fields: list[str], refused: tuple[str, int]) -> None:
    assert refusal(HOST, *fields, line="POST / HTTP/1.1") == refused


def test_no_limit_for_bodies() -> None:
    assert read(HOST, f"Content-Length: {10**15}", line="POST / HTTP/1.1", limits=Limits(body_bytes=0)).has_body


@pytest.mark.parametrize(
    ("line", "fields", "expects"),
    [
        ("POST / HTTP/1.1", ["Content-Length: 5", "Expect: 100-continue"], True),
        ("POST / HTTP/1.1", ["Content-Length: 5", "Expect: 100-Continue"], True),
        ("POST / HTTP/1.1", ["Expect: 100-continue"], False),
        ("POST / HTTP/1.0", ["Content-Length: 5", "Expect: 100-continue"], False),
    ],
)
def test_expectations(line: str, fields: list[str], expects: bool) -> None:
    assert read(HOST, *fields, line=line).expects_continue is expects


def test_white_space_around_values_is_no_part_of_them() -> None:
    exchange = read("Host: \t edge.test \t", "X:", "Y:  ", "Z: a b ")
    assert exchange.lines == [(b"Host", b"edge.test"), (b"X", b""), (b"Y", b""), (b"Z", b"a b")]
    assert exchange.names == {b"host": b"edge.test", b"x": b"", b"y": b"", b"z": b"a b"}


def test_sizes() -> None:
    read(HOST, line=f"GET {'/'.ljust(100, 'x')} HTTP/1.1")
    assert refusal(HOST, line=f"GET {'/'.ljust(101, 'x')} HTTP/1.1") == ("uri_too_long", 414)
    room = 1024 - len(HOST) - 2 - len("X: ") - 2
    read(HOST, f"X: {'y' * room}")
    assert refusal(HOST, f"X: {'y' * (room + 1)}") == ("head_too_large", 431)
    read(HOST, *["X: y"] * 4)
    assert refusal(HOST, *["X: y"] * 5) == ("too_many_headers", 431)


@pytest.mark.parametrize("name", ["Host", "content-length", "Transfer-Encoding", "Trailer", "Authorization", "TE"])
def test_trailers_that_are_refused(name: str) -> None:
    with pytest.raises(Refusal) as caught:
        head.add_trailer(name.encode(), b"x", an_exchange(), LIMITS)
    assert (caught.value.code, int(caught.value.status)) == ("forbidden_trailer", 400)


def test_trailers_are_counted() -> None:
    exchange = an_exchange()
    for _ in range(5):
        head.add_trailer(b"X", b"y ", exchange, LIMITS)
    assert exchange.trailers == [(b"X", b"y")] * 5
    with pytest.raises(Refusal) as caught:
        head.add_trailer(b"X", b"y", exchange, LIMITS)
    assert (caught.value.code, int(caught.value.status)) == ("too_many_trailers", 431)


@pytest.mark.parametrize("method", [b"GET", b""])
def test_a_head_that_can_not_be_used_is_still_told_of(method: bytes) -> None:
    parser = cast("Any", SimpleNamespace(get_method=lambda: method))
    exchange = head.unusable(a_client(), parser, b"/x" if method else b"", [(b"Host", b"A"), (b"host", b"b")], 1.0)
    assert (exchange.method, exchange.host, exchange.keep_alive) == (method, b"a, b", False)
