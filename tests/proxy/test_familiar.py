"""What `proxy.familiar` remembers, and above all what it does not."""

import pytest

from edgeproxy.proxy.exchange import Exchange
from edgeproxy.proxy.familiar import HEAD_BYTES_MAX, KNOWN_MAX, FamiliarHeads
from edgeproxy.proxy.fields import FieldLines, fold
from tests.proxy.builders import a_client

CLIENT = a_client()
PLAIN = b"GET /a?b=c HTTP/1.1\r\nHost: Edge.test\r\nUser-Agent: x\r\n\r\n"


def parsed(data: bytes, *, minor: int = 1) -> Exchange:
    """The exchange that the parser would make of a head."""
    line, *rest = data.split(b"\r\n\r\n")[0].split(b"\r\n")
    lines: FieldLines = []
    for field in rest:
        name, _, value = field.partition(b": ")
        lines.append((name, value))
    method, target, _ = line.split(b" ")
    exchange = Exchange(CLIENT, method, target, minor, lines, fold(lines), 0.0)
    exchange.host = exchange.names.get(b"host", b"").lower()
    exchange.keep_alive = True
    return exchange


def known_after(data: bytes, *, minor: int = 1) -> bool:
    heads = FamiliarHeads()
    heads.remember(data, parsed(data, minor=minor))
    return heads.exchange(CLIENT, data, 0.0) is not None


def test_a_head_seen_before_is_the_same_exchange() -> None:
    heads = FamiliarHeads()
    assert heads.exchange(CLIENT, PLAIN, 1.0) is None
    first = parsed(PLAIN)
    heads.remember(PLAIN, first)
    again = heads.exchange(CLIENT, PLAIN, 2.0)
    assert again is not None
    for name in ("method", "target", "minor", "lines", "names", "host", "keep_alive", "has_body", "body_complete"):
        assert getattr(again, name) == getattr(first, name), name
    assert again.started == 2.0


def test_a_known_line_and_a_known_block_make_a_head_that_never_came() -> None:
    heads = FamiliarHeads()
    other = b"HEAD /z HTTP/1.1\r\nHost: other.test\r\n\r\n"
    for data in (PLAIN, other):
        heads.remember(data, parsed(data))
    mixed = heads.exchange(CLIENT, b"HEAD /z HTTP/1.1\r\nHost: Edge.test\r\nUser-Agent: x\r\n\r\n", 0.0)
    assert mixed is not None
    assert (mixed.method, mixed.target, mixed.host) == (b"HEAD", b"/z", b"edge.test")


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(PLAIN[:-2], id="half-a-head"),
        pytest.param(PLAIN + PLAIN, id="two-requests"),
        pytest.param(PLAIN + b"x", id="a-byte-more"),
        pytest.param(b"\r\n" + PLAIN, id="an-empty-line-first"),
        pytest.param(PLAIN.replace(b"\r\n", b"\n"), id="bare-lf"),
        pytest.param(PLAIN.replace(b"GET /", b"GET  /"), id="two-spaces"),
        pytest.param(PLAIN.replace(b"HTTP/1.1", b"HTTP/1.0"), id="http-1.0"),
        pytest.param(PLAIN.replace(b"GET", b"POST"), id="another-method"),
        pytest.param(b"", id="nothing"),
    ],
)
def test_anything_but_the_very_bytes_is_parsed(data: bytes) -> None:
    heads = FamiliarHeads()
    heads.remember(PLAIN, parsed(PLAIN))
    assert heads.exchange(CLIENT, data, 0.0) is None


@pytest.mark.parametrize(
    "field",
    [
        b"Connection: close",
        b"Connection: Upgrade",
        b"Content-Length: 3",
        b"Transfer-Encoding: chunked",
        b"Expect: 100-continue",
        b"Upgrade: h2c",
        b"TE: trailers",
        b"Trailer: x",
        b"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        b"X-Request-Id: 1",
    ],
)
def test_a_head_that_is_more_than_a_plain_request_is_not_remembered(field: bytes) -> None:
    assert known_after(PLAIN)
    assert not known_after(PLAIN[:-2] + field + b"\r\n\r\n")


def test_keep_alive_said_aloud_is_a_plain_request_still() -> None:
    assert known_after(PLAIN[:-2] + b"Connection: Keep-Alive\r\n\r\n")


@pytest.mark.parametrize("method", [b"POST", b"DELETE", b"OPTIONS", b"PURGE"])
def test_only_get_and_head_are_remembered(method: bytes) -> None:
    assert not known_after(PLAIN.replace(b"GET", method))


def test_http_1_0_is_not_remembered() -> None:
    assert not known_after(PLAIN.replace(b"HTTP/1.1", b"HTTP/1.0"), minor=0)


def test_an_absolute_target_is_not_remembered() -> None:
    data = PLAIN.replace(b"/a?b=c", b"http://edge.test/a")
    exchange = parsed(data)
    exchange.target = b"/a"  # as `head` leaves it
    heads = FamiliarHeads()
    heads.remember(data, exchange)
    assert heads.exchange(CLIENT, data, 0.0) is None


def test_a_pipelined_request_behind_it_keeps_a_head_from_being_remembered() -> None:
    heads = FamiliarHeads()
    heads.remember(PLAIN + PLAIN, parsed(PLAIN))
    assert heads.exchange(CLIENT, PLAIN, 0.0) is None


def test_long_heads_are_not_remembered() -> None:
    room = HEAD_BYTES_MAX - len(PLAIN) - len(b"X: \r\n")
    assert known_after(PLAIN[:-2] + b"X: " + b"x" * room + b"\r\n\r\n")
    assert not known_after(PLAIN[:-2] + b"X: " + b"x" * (room + 1) + b"\r\n\r\n")


def test_what_is_remembered_is_bounded() -> None:
    heads = FamiliarHeads()
    for number in range(KNOWN_MAX * 2 + 1):
        data = b"GET /%d HTTP/1.1\r\nHost: h%d\r\n\r\n" % (number, number)
        heads.remember(data, parsed(data))
        assert len(heads._lines) <= KNOWN_MAX
        assert len(heads._blocks) <= KNOWN_MAX
    assert heads.exchange(CLIENT, data, 0.0) is not None
