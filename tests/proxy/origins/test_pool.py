"""Connections to an origin: kept alive, shared by all clients, bounded, waited for."""

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.proxy.edges import Edge
from tests.support import Conversation, free_port, gated, raw, reply, request, until

HELLO = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n%b\r\nhello"


@pytest.fixture(scope="module")
def edge() -> Iterator[Edge]:
    settings: dict[str, dict[str, Any]] = {
        "shared": {},
        "many": {},
        "two": {"keepalive": 2},
        "none": {"keepalive": 0},
        "brief": {"keepalive_timeout": 0.3},
        "closing": {},
        "old": {},
        "queue": {"max_connections": 1},
        "busy": {"max_connections": 1, "connect_timeout": 0.3},
        "broken": {"max_connections": 1},
        "left": {"max_connections": 1},
        "narrow": {"max_connections": 2},
    }
    with Edge(**settings) as started:
        yield started


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


def test_clients_one_after_another_share_one_connection(edge: Edge) -> None:
    edge["shared"].on("/shared/x", reply(b"hello"))
    responses = [edge.get("/shared/x") for _ in range(10)]
    assert {response.body for response in responses} == {b"hello"}
    assert edge["shared"].connections == 1
    assert [request.position for request in edge["shared"].requests] == list(range(10))
    assert [edge.record(response)["origin_reused"] for response in responses] == [False] + [True] * 9


def test_clients_at_the_same_time_get_one_each_and_all_are_kept(edge: Edge, gate: threading.Event) -> None:
    origin = edge["many"]
    origin.on("/many/held", gated(gate, reply(b"held")))
    clients = [edge.connect().send(request(f"/many/held?{number}")) for number in range(5)]
    origin.wait_for("/many/held", 5)
    assert origin.connections == 5
    gate.set()
    for client in clients:
        assert client.response().body == b"held"
        client.close()
    for _ in range(10):
        edge.get("/many/x")
    assert origin.connections == 5
    assert origin.open_connections == 5


def test_no_more_idle_connections_are_kept_than_configured(edge: Edge, gate: threading.Event) -> None:
    origin = edge["two"]
    origin.on("/two/held", gated(gate, reply(b"held")))
    clients = [edge.connect().send(request(f"/two/held?{number}")) for number in range(5)]
    origin.wait_for("/two/held", 5)
    gate.set()
    for client in clients:
        assert client.response().status == 200
        client.close()
    until(lambda: origin.open_connections == 2, "two connections to be left")


def test_keepalive_0_keeps_none(edge: Edge) -> None:
    for _ in range(3):
        assert edge.get("/none/x").status == 200
    assert edge["none"].connections == 3
    until(lambda: edge["none"].open_connections == 0, "no connection to be left")


def test_an_idle_connection_is_closed_after_its_time_and_the_next_request_gets_a_new_one(edge: Edge) -> None:
    assert edge.get("/brief/x").status == 200
    until(lambda: edge["brief"].open_connections == 0, "the idle connection to be closed")
    assert edge.get("/brief/x").status == 200
    assert edge["brief"].connections == 2


@pytest.mark.parametrize(
    ("response", "connections"),
    [
        pytest.param(raw(HELLO % b"Connection: close\r\n"), 3, id="1.1-close"),
        pytest.param(raw(HELLO % b"Connection: Close, x\r\n", then="close"), 3, id="1.1-close-in-a-list"),
        pytest.param(raw((HELLO % b"").replace(b"HTTP/1.1", b"HTTP/1.0")), 3, id="1.0"),
        pytest.param(raw((HELLO % b"Connection: keep-alive\r\n").replace(b"HTTP/1.1", b"HTTP/1.0")), 1, id="1.0-keep"),
        pytest.param(raw(b"HTTP/1.1 200 OK\r\n\r\nhello", then="close"), 3, id="until-close"),
    ],
)
def test_a_connection_is_used_again_only_where_the_origin_lets_it(
    edge: Edge, response: object, connections: int
) -> None:
    origin = edge["old"]
    origin.on("/old/x", response)  # type: ignore[arg-type]
    origin.drop_connections()
    until(lambda: origin.open_connections == 0, "earlier connections to be gone")
    before = origin.connections
    for _ in range(3):
        assert edge.get("/old/x").body == b"hello"
        edge.settle()
    assert origin.connections - before == connections


def test_a_request_beyond_max_connections_waits_for_its_turn(edge: Edge, gate: threading.Event) -> None:
    origin = edge["queue"]
    origin.on("/queue/held", gated(gate, reply(b"held")))
    with edge.connect() as first, edge.connect() as second:
        first.send(request("/queue/held"))
        origin.wait_for("/queue/held")
        second.send(request("/queue/next"))
        edge.settle()
        assert not origin.seen("/queue/next")
        gate.set()
        assert first.response().body == b"held"
        answered = second.response()
        assert answered.status == 200
    assert origin.connections == 1
    record = edge.record(answered)
    assert (record["outcome"], record["origin_reused"]) == ("ok", True)


def test_who_waits_too_long_for_a_connection_is_told_that_the_origin_is_busy(edge: Edge, gate: threading.Event) -> None:
    origin = edge["busy"]
    origin.on("/busy/held", gated(gate, reply(b"held")))
    with edge.connect() as first:
        first.send(request("/busy/held"))
        origin.wait_for("/busy/held")
        refused = edge.get("/busy/next")
        assert refused.status == 504
        assert refused.problem["code"] == "origin_busy"
        assert refused.problem["trace_id"] == refused.trace_id
        gate.set()
        assert first.response().body == b"held"
    assert not origin.seen("/busy/next")
    record = edge.record(refused)
    assert (record["outcome"], record["stage"], record["error"]["type"]) == ("timeout", "connect", "origin_busy")
    assert len(record["attempts"]) == 1
    assert edge.get("/busy/later").status == 200


def test_who_waits_gets_a_new_connection_when_the_one_in_use_dies(edge: Edge, gate: threading.Event) -> None:
    origin = edge["broken"]

    def break_off(talk: Conversation) -> None:
        talk.wait(gate)
        talk.reset()

    origin.on("/broken/held", break_off)
    with edge.connect() as first, edge.connect() as second:
        first.send(request("/broken/held", method="POST"))
        origin.wait_for("/broken/held")
        second.send(request("/broken/next"))
        edge.settle()
        gate.set()
        assert first.response().status == 502
        assert second.response().status == 200
    assert origin.connections == 2


def test_who_left_while_waiting_is_forgotten(edge: Edge, gate: threading.Event) -> None:
    origin = edge["left"]
    origin.on("/left/held", gated(gate, reply(b"held")))
    with edge.connect() as first:
        first.send(request("/left/held"))
        origin.wait_for("/left/held")
        leaving = edge.connect().send(request("/left/leaving"))
        edge.settle()
        leaving.reset()
        edge.settle()
        gate.set()
        assert first.response().status == 200
    assert edge.get("/left/next").status == 200
    assert not origin.seen("/left/leaving")
    (record,) = until(
        lambda: [line for line in edge.node.lines() if line["path"] == "/left/leaving"], "the line of who left"
    )
    assert (record["outcome"], record["stage"], record["status"]) == ("client_abort", "connect", None)


def test_all_who_wait_are_served_through_the_few_connections_there_are(edge: Edge) -> None:
    with ThreadPoolExecutor(20) as threads:
        statuses = list(threads.map(lambda number: edge.get(f"/narrow/{number}").status, range(60)))
    assert statuses == [200] * 60
    assert edge["narrow"].connections == 2


def test_who_waits_is_served_when_another_ones_connection_could_not_be_made() -> None:
    """One place, taken by a connection whose TLS never comes to be; who waits for it must not wait in vain."""
    port = free_port()
    with socket.create_server(("127.0.0.1", port)) as server:
        server.settimeout(20)
        settings: dict[str, Any] = {
            "urls": [f"https://127.0.0.1:{port}"],
            "max_connections": 1,
            "connect_timeout": 10.0,
        }
        with Edge(stalling=settings) as edge, edge.connect() as first, edge.connect() as second:
            first.send(request("/stalling/a"))
            held, _ = server.accept()
            second.send(request("/stalling/b"))
            edge.settle()
            held.close()
            assert first.response().problem["code"] == "origin_connect_error"
            server.accept()[0].close()
            assert second.response().problem["code"] == "origin_connect_error"
