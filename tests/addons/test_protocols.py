"""Whatever stock mitmproxy speaks, the addons serve: HTTP/1, HTTP/2 and HTTP/3 on one port, for real."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

from tests.addons.http3 import requests as http3_requests
from tests.addons.mitmdump import Mitmdump
from tests.support import Origin, chunked, reply

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE_ID}-00f067aa0ba902b7-01"
FIELDS = {"traceparent": PARENT, "x-own": "1"}


class Got(NamedTuple):
    status: int
    cache_status: str
    trace_id: str
    via: str
    body: bytes


Ask = Callable[..., list[Got]]
"""`ask(method, path, times, body)`: the responses to so many of the same requests on one connection."""


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[Origin, Mitmdump]]:
    """mitmdump that takes all protocols, in front of an origin without TLS: the configuration says where it is."""
    with Origin() as origin:
        origin.on("/kept", reply(b"kept", "Cache-Control: max-age=60"))
        origin.on("/chunks", chunked(b"in ", b"pieces", fields=["Cache-Control: max-age=60"]))
        with Mitmdump(origin.url, mode="reverse:https://127.0.0.1:9") as mitmdump:
            yield origin, mitmdump


def over_http1(mitmdump: Mitmdump) -> Ask:
    return _over_tls(mitmdump, http2=False)


def over_http2(mitmdump: Mitmdump) -> Ask:
    return _over_tls(mitmdump, http2=True)


def _over_tls(mitmdump: Mitmdump, *, http2: bool) -> Ask:
    def ask(method: str, path: str, times: int = 1, body: bytes = b"") -> list[Got]:
        with mitmdump.over_tls(http2=http2) as client:
            answers = [client.request(method, path, headers=FIELDS, content=body) for _ in range(times)]
        assert {one.http_version for one in answers} == {"HTTP/2" if http2 else "HTTP/1.1"}
        names = ("cache-status", "x-trace-id", "via")
        return [Got(one.status_code, *(one.headers[name] for name in names), one.content) for one in answers]

    return ask


def over_http3(mitmdump: Mitmdump) -> Ask:
    def ask(method: str, path: str, times: int = 1, body: bytes = b"") -> list[Got]:
        wanted = [(method, path, tuple(FIELDS.items()), body)] * times
        answers = http3_requests(mitmdump.port, *wanted, authority=f"localhost:{mitmdump.port}")
        return [Got(one.status, one["cache-status"], one["x-trace-id"], one["via"], one.body) for one in answers]

    return ask


PROTOCOLS = {"HTTP/1.1": over_http1, "HTTP/2": over_http2, "HTTP/3": over_http3}


@pytest.fixture(params=PROTOCOLS)
def protocol(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


def test_the_second_request_is_a_hit_and_both_go_on_with_the_clients_trace(
    served: tuple[Origin, Mitmdump], protocol: str
) -> None:
    origin, mitmdump = served
    path = f"/kept?{protocol}"
    first, second = PROTOCOLS[protocol](mitmdump)("GET", path, 2)
    assert (first.status, first.body, second.status, second.body) == (200, b"kept", 200, b"kept")
    assert "fwd=uri-miss" in first.cache_status
    assert "stored" in first.cache_status
    assert "; hit;" in second.cache_status
    assert first.trace_id == second.trace_id == TRACE_ID
    (asked,) = [one for one in origin.seen("/kept") if one.target == path]
    version, trace_id, span_id, _ = asked["traceparent"].split("-")
    assert (version, trace_id) == ("00", TRACE_ID)
    assert span_id != PARENT.split("-")[2]
    assert asked["x-own"] == "1"
    assert asked["host"] == f"localhost:{mitmdump.port}"
    assert asked["x-forwarded-proto"] == "https"


def test_there_is_one_line_for_each_request(served: tuple[Origin, Mitmdump], protocol: str) -> None:
    _, mitmdump = served
    before = len(mitmdump.lines())
    PROTOCOLS[protocol](mitmdump)("GET", f"/kept?lines-of-{protocol}", 2)
    lines = mitmdump.log_lines(before + 2)[before:]
    assert [line["cache"] for line in lines] == ["MISS", "HIT"]
    for line in lines:
        assert (line["protocol"], line["scheme"], line["trace_id"]) == (protocol, "https", TRACE_ID)
        assert line["parent_id"] == PARENT.split("-")[2]
        assert (line["path"], line["status"], line["bytes_out"], line["outcome"]) == ("/kept", 200, 4, "ok")


def test_a_body_reaches_the_origin(served: tuple[Origin, Mitmdump], protocol: str) -> None:
    origin, mitmdump = served
    path = f"/upload?{protocol}"
    (got,) = PROTOCOLS[protocol](mitmdump)("POST", path, 1, b"a body")
    assert got.status == 200
    assert "fwd=method" in got.cache_status
    (asked,) = [one for one in origin.seen("/upload") if one.target == path]
    assert asked.body == b"a body"


def test_a_response_in_chunks_is_whole_and_kept(served: tuple[Origin, Mitmdump], protocol: str) -> None:
    _, mitmdump = served
    first, second = PROTOCOLS[protocol](mitmdump)("GET", f"/chunks?{protocol}", 2)
    assert (first.body, second.body) == (b"in pieces", b"in pieces")
    assert "; hit;" in second.cache_status


@pytest.mark.parametrize("name", ["HTTP/1.1", "HTTP/2"])  # aioquic's client takes any HEAD's length for a lie
def test_a_head_has_no_body(served: tuple[Origin, Mitmdump], name: str) -> None:
    _, mitmdump = served
    (got,) = PROTOCOLS[name](mitmdump)("HEAD", f"/kept?head-{name}")
    assert (got.status, got.body) == (200, b"")


def test_via_says_by_which_protocol_each_message_came_rfc9110_7_6_3(
    served: tuple[Origin, Mitmdump], protocol: str
) -> None:
    origin, mitmdump = served
    path = f"/kept?via-{protocol}"
    first, second = PROTOCOLS[protocol](mitmdump)("GET", path, 2)
    assert first.via == second.via == "1.1 edgeproxy"
    (asked,) = [one for one in origin.seen("/kept") if one.target == path]
    assert asked["via"] == f"{protocol.removeprefix('HTTP/')} edgeproxy"


def test_an_origin_that_speaks_http3_alone_is_asked_by_it(served: tuple[Origin, Mitmdump]) -> None:
    _, behind = served
    mode = f"reverse:http3://localhost:{behind.port}"
    with Mitmdump(mode=mode, configured=False, options={"ssl_insecure": "true"}) as front:
        first, second = over_http3(front)("GET", "/kept?behind-http3", 2)
    assert (first.body, second.body) == (b"kept", b"kept")
    assert "; hit;" in second.cache_status
    (line,) = [line for line in behind.lines() if line["query"] == "behind-http3"]
    assert (line["protocol"], line["trace_id"]) == ("HTTP/3", TRACE_ID)
