"""What mitmproxy forwards itself: bodies that stream, WebSockets; the edge's own fields are there all the same."""

import base64
import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.addons.mitmdump import Mitmdump
from tests.support import Conversation, Origin, reply, request

SCRIPT = """
def requestheaders(flow):
    if flow.request.path == "/streamed":
        flow.request.stream = True
    if flow.request.path == "/upper":
        flow.request.stream = lambda data: data.upper()

def responseheaders(flow):
    if flow.request.path == "/lower":
        flow.response.stream = lambda data: [data.lower(), b""]
    if flow.request.path in ("/streamed", "/both"):
        flow.response.stream = True
"""
_MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_MASKED_HI = b"\x81\x82\x00\x00\x00\x00hi"
_HI = b"\x81\x02hi"
World = tuple[Origin, Mitmdump]


def websocket(talk: Conversation) -> None:
    """Become one, and answer a frame with one."""
    accept = base64.b64encode(hashlib.sha1(talk.request["sec-websocket-key"].encode() + _MAGIC).digest())
    lines = [b"HTTP/1.1 101 Switching Protocols", b"Upgrade: websocket", b"Connection: Upgrade"]
    talk.send(b"\r\n".join([*lines, b"Sec-WebSocket-Accept: " + accept, b"", b""]))
    talk.receive(2)
    talk.send(_HI)
    talk.wait_for_close()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    script: Path = tmp_path_factory.mktemp("scripts") / "streaming.py"
    script.write_text(SCRIPT)
    kept = reply(b"KEPT", "Cache-Control: max-age=60")
    with Origin(default=kept) as origin, Mitmdump(origin.url, scripts=["all", script]) as mitmdump:
        origin.on("/ws", websocket)
        yield origin, mitmdump


@pytest.mark.parametrize(("path", "arrives"), [("/streamed", b"a body"), ("/upper", b"A BODY")])
def test_a_body_that_streams_goes_on_with_all_that_the_edge_adds(world: World, path: str, arrives: bytes) -> None:
    origin, mitmdump = world
    got = mitmdump.get(path, "X-Own: 1", method="POST", body=b"a body")
    (seen,) = origin.seen(path)
    assert seen.body == arrives
    assert seen["traceparent"].split("-")[1] == got.trace_id
    assert (seen["via"], seen["host"], seen["x-own"]) == ("1.1 edgeproxy", "edge.test", "1")
    assert got["x-cache"] == "BYPASS"
    (line,) = mitmdump.lines_of(path)
    assert (line["cache"], line["status"], line["outcome"], line["bytes_out"]) == ("BYPASS", 200, "ok", 4)
    assert line["origin"] == "app"


def test_what_streams_to_a_script_that_refuses_it_is_refused(world: World) -> None:
    origin, mitmdump = world
    got = mitmdump.get("/streamed?expects", "Expect: a miracle", method="POST", body=b"a body")
    assert got.problem["code"] == "unknown_expectation"
    assert not [one for one in origin.seen("/streamed") if one.target.endswith("expects")]


def test_a_response_goes_through_a_scripts_function_and_is_stored_as_it_was(world: World) -> None:
    _, mitmdump = world
    got = [mitmdump.get("/lower") for _ in range(2)]
    assert [(one.body, one["x-cache"]) for one in got] == [(b"kept", "MISS"), (b"kept", "HIT")]
    assert mitmdump.lines_of("/lower", 2)[1]["bytes_out"] == 4


def test_a_response_that_is_to_stream_and_need_not_is_whole(world: World) -> None:
    _, mitmdump = world
    assert [mitmdump.get("/both").body for _ in range(2)] == [b"KEPT"] * 2


def test_a_websocket_is_a_matter_between_its_ends(world: World) -> None:
    origin, mitmdump = world
    upgrade = (
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {'A' * 22}==",
    )
    with mitmdump.connect() as client:
        client.send(request("/ws", *upgrade))
        head = client.head()
        client.send(_MASKED_HI)
        assert client.stream.take(len(_HI)) == _HI
    assert head.status == 101
    assert head["sec-websocket-accept"]
    (seen,) = origin.seen("/ws")
    assert seen["upgrade"] == "websocket"
    assert seen["traceparent"].split("-")[1] == head.trace_id
    (line,) = mitmdump.lines_of("/ws")
    assert (line["status"], line["trace_id"], line["cache"]) == (101, head.trace_id, "BYPASS")
