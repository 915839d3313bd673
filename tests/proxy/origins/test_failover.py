"""An origin with several urls: taken in turn, the next when one is dead, and the dead one again after its time."""

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.proxy.edges import Edge
from tests.support import Origin, free_port, gated, reply, request, until


class Slammer(Origin):
    """Takes every connection and closes it at once, as a balancer does that has nobody behind it."""

    def _serve(self, sock: socket.socket, number: int) -> None:
        sock.close()


class World:
    """One node, with an origin for each test: urls that live, urls that are dead."""

    def __init__(self, stack: ExitStack) -> None:
        self.in_turn = [stack.enter_context(Origin()) for _ in range(3)]
        self.slammer = stack.enter_context(Slammer())
        self.alive = stack.enter_context(Origin())
        self.dead = {name: free_port() for name in ("first", "back", "always", "late", "x", "y", "z")}
        dead = {name: f"http://127.0.0.1:{port}" for name, port in self.dead.items()}
        self.edge = stack.enter_context(
            Edge(
                turn={"urls": [origin.url for origin in self.in_turn]},
                first={"urls": [dead["first"], self.alive.url]},
                all={"urls": [dead["x"], dead["y"], dead["z"]]},
                back={"urls": [dead["back"], self.alive.url], "fail_timeout": 0.4},
                always={"urls": [dead["always"], self.alive.url], "fail_timeout": 0},
                slam={"urls": [self.slammer.url, self.alive.url]},
                one={"urls": [origin.url for origin in self.in_turn], "max_connections": 1},
                late={"urls": [dead["late"]], "fail_timeout": 60},
                named={"urls": [f"http://localhost:{self.alive.port}"]},
                unnamed={"urls": ["http://no-such-host.invalid"]},
            )
        )


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with ExitStack() as stack:
        yield World(stack)


def test_urls_are_taken_in_turn(world: World) -> None:
    edge, origins = world.edge, world.in_turn
    gate = threading.Event()
    for origin in origins:
        origin.on("/turn/held", gated(gate, reply(b"held")))
    clients = [edge.connect().send(request(f"/turn/held?{number}")) for number in range(9)]
    for origin in origins:
        origin.wait_for("/turn/held", 3)
    gate.set()
    for client in clients:
        assert client.response().status == 200
        client.close()
    assert [origin.connections for origin in origins] == [3, 3, 3]
    records = [edge.record(edge.get("/turn/next")) for _ in range(9)]
    assert [len(origin.seen("/turn/next")) for origin in origins] == [3, 3, 3]
    assert [origin.connections for origin in origins] == [3, 3, 3]
    addresses = [record["attempts"][0]["address"] for record in records]
    assert addresses[:3] * 3 == addresses
    assert set(addresses) == {f"127.0.0.1:{origin.port}" for origin in origins}


def test_a_dead_url_is_stepped_over_within_the_request_and_passed_over_after(world: World) -> None:
    edge = world.edge
    responses = [edge.get("/first/x", method="POST", body=b"data") for _ in range(8)]
    assert {response.status for response in responses} == {200}
    seen = world.alive.seen("/first/x")
    assert [request.body for request in seen] == [b"data"] * 8
    records = [edge.record(response) for response in responses]
    tried = [[attempt["address"] for attempt in record["attempts"]] for record in records]
    both = [f"127.0.0.1:{world.dead['first']}", f"127.0.0.1:{world.alive.port}"]
    assert tried.count(both) == 1, tried
    assert tried.count(both[1:]) == 7
    stepped = records[tried.index(both)]
    assert stepped["attempts"][0]["error"]["type"] == "origin_connect_error"
    assert stepped["attempts"][0]["error"]["causes"][0]["type"] == "ConnectionRefusedError"
    assert (stepped["outcome"], stepped["error"]) == ("ok", None)
    assert stepped["attempts"][0]["span_id"] != stepped["attempts"][1]["span_id"]
    assert seen[tried.index(both)]["traceparent"].split("-")[2] == stepped["attempts"][1]["span_id"]


def test_when_all_are_dead_the_client_is_told_and_the_log_names_every_attempt(world: World) -> None:
    edge = world.edge
    response = edge.get("/all/x")
    assert (response.status, response.problem["code"]) == (502, "origin_connect_error")
    assert response.problem["trace_id"] == response.trace_id
    record = edge.record(response)
    assert {attempt["address"] for attempt in record["attempts"]} == {f"127.0.0.1:{world.dead[name]}" for name in "xyz"}
    assert [attempt["error"]["type"] for attempt in record["attempts"]] == ["origin_connect_error"] * 3
    assert len({attempt["span_id"] for attempt in record["attempts"]}) == 3
    assert (record["outcome"], record["stage"], record["status"]) == ("origin_error", "connect", 502)
    assert record["error"]["causes"][0]["type"] == "ConnectionRefusedError"
    # All are passed over now, which must not mean that nobody is asked.
    again = edge.get("/all/x")
    assert again.status == 502
    assert len(edge.record(again)["attempts"]) == 3


def test_a_url_that_lives_again_is_used_again_after_fail_timeout(world: World) -> None:
    for _ in range(4):
        assert world.edge.get("/back/x").status == 200
    with Origin(world.dead["back"]) as back:
        until(lambda: world.edge.get("/back/x").status == 200 and back.requests, "the url to be tried again")


def test_with_fail_timeout_0_a_dead_url_keeps_its_turns(world: World) -> None:
    records = [world.edge.record(world.edge.get("/always/x")) for _ in range(6)]
    assert [record["status"] for record in records] == [200] * 6
    assert [len(record["attempts"]) for record in records].count(2) >= 3


def test_a_url_that_hangs_up_before_it_answers_is_stepped_over_where_that_is_safe(world: World) -> None:
    responses = [world.edge.get("/slam/x") for _ in range(4)]
    assert [response.status for response in responses] == [200] * 4
    tried = [world.edge.record(response)["attempts"] for response in responses]
    assert max(len(attempts) for attempts in tried) == 2
    for attempts in tried:
        for attempt in attempts[:-1]:
            assert attempt["error"]["type"] == "origin_closed"
            assert attempt["address"] == f"127.0.0.1:{world.slammer.port}"
    statuses = [world.edge.get("/slam/x", method="POST").status for _ in range(4)]
    assert set(statuses) == {200, 502}


def test_an_idle_connection_to_one_url_makes_room_for_one_to_the_next(world: World) -> None:
    before = [len(origin.requests) for origin in world.in_turn]
    for _ in range(6):
        assert world.edge.get("/one/x").status == 200
    assert [len(origin.requests) - count for origin, count in zip(world.in_turn, before, strict=True)] == [2, 2, 2]


def test_an_only_url_is_always_tried(world: World) -> None:
    assert world.edge.get("/late/x").status == 502
    with Origin(world.dead["late"]):
        assert world.edge.get("/late/x").status == 200


def test_a_name_is_resolved_and_the_time_that_took_is_in_the_log(world: World) -> None:
    response = world.edge.get("/named/x")
    assert response.status == 200
    record = world.edge.record(response)
    (attempt,) = record["attempts"]
    assert attempt["address"] == f"localhost:{world.alive.port}"
    assert attempt["dns_ms"] >= 0
    assert record["dns_ms"] == attempt["dns_ms"]


def test_a_name_that_is_none_is_a_bad_gateway(world: World) -> None:
    response = world.edge.get("/unnamed/x")
    assert (response.status, response.problem["code"]) == (502, "origin_dns_error")
    record = world.edge.record(response)
    assert (record["outcome"], record["stage"]) == ("origin_error", "connect")
    assert record["attempts"][0]["address"] == "no-such-host.invalid:80"
    assert record["error"]["causes"][0]["type"] == "gaierror"
