"""Every phase of an origin's work has its timeout: 504 with the reason, and the log says how far the request came."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.proxy.edges import Edge
from tests.support import Conversation, Cut, Origin, Record, Response, free_port, raw, reply, request, silent, until

LONG = 30.0
SHORT = 0.4


class World:
    """One node with an origin for each timeout, that one short and all others long."""

    def __init__(self, stack: ExitStack) -> None:
        self.mute = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        self.slow_reader = stack.enter_context(Origin(receive_buffer=4096))
        long = dict.fromkeys(("connect_timeout", "first_byte_timeout", "read_timeout", "send_timeout"), LONG)
        port = self.mute.getsockname()[1]
        self.edge = stack.enter_context(
            Edge(
                connect={**long, "connect_timeout": SHORT, "urls": [f"https://127.0.0.1:{port}"]},
                first={**long, "first_byte_timeout": SHORT},
                read={**long, "read_timeout": SHORT},
                send={**long, "send_timeout": SHORT, "urls": [self.slow_reader.url]},
            )
        )


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with ExitStack() as stack:
        yield World(stack)


def left_within(talk: Conversation, seconds: float) -> bool:
    """Whether the edge closes the connection within that time."""
    talk.stream.sock.settimeout(seconds)
    try:
        return talk.wait_for_close()
    except TimeoutError:
        return False


def timed_out(world: World, response: Response, code: str, stage: str) -> Record:
    """The record of a request that ended with 504, checked for what they all have in common."""
    assert response.status == 504
    problem = response.problem
    assert set(problem) == {"type", "title", "status", "detail", "code", "trace_id", "request_id"}
    assert (problem["status"], problem["title"], problem["code"]) == (504, "Gateway Timeout", code)
    assert problem["trace_id"] == response.trace_id
    record = world.edge.record(response)
    assert (record["status"], record["outcome"], record["stage"]) == (504, "timeout", stage)
    assert record["error"]["type"] == code
    assert record["error"]["message"] == problem["detail"]
    assert record["request_id"] == problem["request_id"]
    assert record["bytes_out"] == len(response.body)
    (attempt,) = record["attempts"]
    assert attempt["error"]["type"] == code
    assert record["duration_ms"] >= SHORT * 1000
    return record


def test_an_origin_that_lets_no_connection_come_to_be(world: World) -> None:
    record = timed_out(world, world.edge.get("/connect/x"), "origin_connect_timeout", "connect")
    assert record["error"]["causes"][0]["type"] == "TimeoutError"
    assert record["attempts"][0]["first_byte_ms"] is None


def test_an_origin_that_does_not_answer(world: World) -> None:
    world.edge["first"].on("/first/x", silent)
    record = timed_out(world, world.edge.get("/first/x"), "origin_first_byte_timeout", "request_sent")
    assert record["attempts"][0]["send_ms"] is not None
    assert record["origin_status"] is None


def test_a_head_that_does_not_end_counts_as_no_answer(world: World) -> None:
    def trickle(talk: Conversation) -> None:
        talk.send(b"HTTP/1.1 200 OK\r\n")
        while not talk.origin.stopping:
            talk.send(b"X: y\r\n")
            if left_within(talk, SHORT / 4):
                return

    world.edge["first"].on("/first/trickle", trickle)
    timed_out(world, world.edge.get("/first/trickle"), "origin_first_byte_timeout", "request_sent")


def test_interim_responses_do_not_put_it_off_for_ever(world: World) -> None:
    def trickle(talk: Conversation) -> None:
        while not talk.origin.stopping:
            talk.send(b"HTTP/1.1 102 Processing\r\n\r\n")
            if left_within(talk, SHORT / 4):
                return

    world.edge["first"].on("/first/processing", trickle)
    timed_out(world, world.edge.get("/first/processing"), "origin_first_byte_timeout", "request_sent")


def test_the_connection_that_timed_out_is_closed_and_not_used_again(world: World) -> None:
    closed = threading.Event()

    def hold(talk: Conversation) -> None:
        talk.wait_for_close()
        closed.set()

    world.edge["first"].on("/first/hold", hold)
    assert world.edge.get("/first/hold").status == 504
    assert closed.wait(20)
    assert world.edge.get("/first/after").status == 200


def test_a_slow_upload_does_not_count_against_the_first_byte(world: World) -> None:
    """The origin's time begins when the request has been sent, with and without an expectation."""
    for expectation in ([], ["Expect: 100-continue"]):
        world.edge["first"].on("/first/upload", reply(b"stored"))
        with world.edge.connect() as client:
            client.send(request("/first/upload", *expectation, "Content-Length: 5", method="PUT"))
            world.edge["first"].wait_for("/first/upload")
            for byte in b"hello":
                client.send(bytes([byte]))
                time.sleep(SHORT / 3)
            response = client.response("PUT")
        assert (response.status, response.body) == (200, b"stored"), expectation


def test_a_response_that_pauses_is_cut_off(world: World) -> None:
    for framing, rest in ((b"Content-Length: 10", b"hello"), (b"Transfer-Encoding: chunked", b"5\r\nhello\r\n")):
        world.edge["read"].on("/read/x", raw(b"HTTP/1.1 200 OK\r\n%b\r\n\r\n%b" % (framing, rest), then="keep"))
        with world.edge.connect() as client, pytest.raises(Cut):
            client.get("/read/x")

    def both() -> list[Record]:
        found = [line for line in world.edge.node.lines() if line["path"] == "/read/x"]
        return found if len(found) == 2 else []

    for record in until(both, "both lines"):
        assert (record["status"], record["outcome"], record["stage"]) == (200, "timeout", "streaming")
        assert record["error"]["type"] == "origin_read_timeout"
        assert record["bytes_out"] == 5
        assert record["attempts"][0]["status"] == 200
        assert record["transfer_ms"] >= SHORT * 1000


def test_a_response_that_began_during_the_upload_and_pauses_after_it_is_cut_off(world: World) -> None:
    body = b"x" * 24_000_000

    def answer_early(talk: Conversation) -> None:
        talk.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
        time.sleep(SHORT / 4)  # the upload comes to a halt: nobody reads it
        left = len(body)
        while left:
            left -= len(talk.receive(left))
        talk.wait_for_close()

    world.edge["read"].on("/read/early", answer_early)
    with world.edge.connect() as client:
        upload = request("/read/early", method="PUT", body=body)
        threading.Thread(target=send_all_it_takes, args=(client.sock, upload), daemon=True).start()
        with pytest.raises(Cut):
            client.response()


def test_a_response_that_goes_on_slowly_is_not(world: World) -> None:
    def trickle(talk: Conversation) -> None:
        talk.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
        for byte in b"hello":
            time.sleep(SHORT / 3)
            talk.send(bytes([byte]))

    world.edge["read"].on("/read/slow", trickle)
    assert world.edge.get("/read/slow").body == b"hello"


def test_an_origin_that_takes_in_nothing_of_an_upload(world: World) -> None:
    def read_nothing(talk: Conversation) -> None:
        talk.wait(threading.Event())

    world.slow_reader.on("/send/x", read_nothing)
    body = b"x" * 12_000_000
    with world.edge.connect() as client:
        upload = request("/send/x", method="PUT", body=body)
        threading.Thread(target=send_all_it_takes, args=(client.sock, upload), daemon=True).start()
        response = client.response()
    record = timed_out(world, response, "origin_send_timeout", "request_sent")
    assert 0 < record["bytes_in"] < len(body)


def test_an_origin_that_takes_in_an_upload_slowly_is_waited_for(world: World) -> None:
    body = b"x" * 12_000_000

    def read_slowly(talk: Conversation) -> None:
        left = len(body)
        while left:
            step = min(left, 1 << 20)  # more than a kernel holds back before it says that there is room again
            while step:
                data = len(talk.receive(step))
                step -= data
                left -= data
            time.sleep(SHORT / 8)
        talk.request.complete = True
        talk.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    world.slow_reader.on("/send/slow", read_slowly)
    response = world.edge.get("/send/slow", method="PUT", body=body)
    assert response.status == 200
    assert world.edge.record(response)["duration_ms"] > SHORT * 1000


def test_a_full_backlog_is_a_connect_timeout() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", free_port()))
        full.listen(0)
        port = full.getsockname()[1]
        blockers = [socket.socket() for _ in range(4)]
        for blocker in blockers:
            blocker.setblocking(False)
            blocker.connect_ex(("127.0.0.1", port))
        with Edge(app={"urls": [f"http://127.0.0.1:{port}"], "connect_timeout": SHORT}) as edge:
            response = edge.get("/app/x")
            assert (response.status, response.problem["code"]) == (504, "origin_connect_timeout")
        for blocker in blockers:
            blocker.close()


def send_all_it_takes(sock: socket.socket, data: bytes) -> None:
    with contextlib.suppress(OSError):
        sock.sendall(data)
