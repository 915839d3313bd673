"""Connections to the origin, when their end, an answer and the rest of a request come in one and the same moment.

The worker stands still (SIGSTOP) while everything happens, and finds all of it at once, in the order of its coming.
"""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.proxy.edges import Edge
from tests.support import Conversation, Origin, gated, reply, request, until


@pytest.fixture(scope="module")
def edge() -> Iterator[Edge]:
    with Edge(early={}, twice={}, leaving={"max_connections": 1}, idle={}) as started:
        yield started


@contextmanager
def standing_still(edge: Edge) -> Iterator[None]:
    """Keep the worker from running meanwhile."""
    pid = edge.node.worker().pid
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_connection_that_waits_for_the_rest_of_a_body_is_not_used_again(edge: Edge) -> None:
    origin = edge["early"]
    go, has_answered = threading.Event(), threading.Event()

    def refuse_early(talk: Conversation) -> None:
        talk.wait(go)
        talk.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
        has_answered.set()
        talk.read_body()

    origin.on("/early/upload", refuse_early)
    origin.on("/early/hit", reply(b"hit", "Cache-Control: max-age=60"))
    assert edge.get("/early/hit").status == 200
    busy = [edge.connect() for _ in range(4)]
    with edge.connect() as client:
        client.send(b"POST /early/upload HTTP/1.1\r\nHost: edge.test\r\nContent-Length: 60\r\n\r\n")
        origin.wait_for("/early/upload")
        edge.settle()
        with standing_still(edge):
            for other in busy:  # keeps the worker from the answer, which comes while it is at these
                other.send(request("/early/hit", "X-New: 1") * 800)
            client.send(b"x" * 60)
        time.sleep(0.03)
        go.set()
        assert has_answered.wait(10)
        assert client.response().status == 403
    for other in busy:
        other.close()
    assert edge.get("/early/next").status == 200
    assert b"GET" not in origin.seen("/early/upload")[0].body


def test_a_body_that_is_sent_again_ends_once(edge: Edge) -> None:
    origin = edge["twice"]
    gate, is_stopped, has_left = threading.Event(), threading.Event(), threading.Event()

    def leave(talk: Conversation) -> None:
        if len(origin.seen("/twice/upload")) > 1:
            reply(b"thanks")(talk)
            return
        talk.wait(is_stopped)
        talk.close()
        has_left.set()

    origin.on("/twice/slow", gated(gate, reply(b"slow")))
    origin.on("/twice/upload", leave)
    with edge.connect() as client, edge.connect() as other:
        other.send(request("/twice/slow"))
        origin.wait_for("/twice/slow")
        client.send(b"PUT /twice/upload HTTP/1.1\r\nHost: edge.test\r\nTransfer-Encoding: chunked\r\n\r\n")
        origin.wait_for("/twice/upload")
        gate.set()
        assert other.response().text == "slow"
        with standing_still(edge):
            client.send(b"4\r\nbody\r\n0\r\n\r\n")
            is_stopped.set()
            assert has_left.wait(10)
        assert client.response().text == "thanks"
    assert [seen.body for seen in origin.seen("/twice/upload") if seen.complete] == [b"body"]
    assert edge.get("/twice/next").status == 200
    assert not origin.broken


def answers_and_leaves(origin: Origin, path: str) -> tuple[threading.Event, threading.Event]:
    """Have the origin answer one request and close, as if it meant to stay, when it is told to."""
    go, gone = threading.Event(), threading.Event()

    def handle(talk: Conversation) -> None:
        gated(go, reply(b"bye"))(talk)
        talk.close()
        gone.set()

    origin.on(path, handle)
    return go, gone


def test_who_waits_does_not_get_a_connection_that_has_ended(edge: Edge) -> None:
    origin = edge["leaving"]
    go, gone = answers_and_leaves(origin, "/leaving/first")
    with edge.connect() as client, edge.connect() as other:
        client.send(request("/leaving/first"))
        origin.wait_for("/leaving/first")
        other.send(request("/leaving/second", method="POST", body=b"body"))
        edge.settle()
        with standing_still(edge):
            go.set()
            assert gone.wait(10)
        assert client.response().text == "bye"
        answer = other.response()
    assert answer.status == 200
    assert edge.record(answer)["origin_reused"] is False


def test_nobody_gets_an_idle_connection_that_has_ended(edge: Edge) -> None:
    origin = edge["idle"]
    assert edge.get("/idle/first").status == 200
    with edge.connect() as client:
        edge.settle()
        with standing_still(edge):
            client.send(request("/idle/second", method="POST", body=b"body"))
            origin.drop_connections()
            until(lambda: not origin.open_connections, "the origin's end")
        answer = client.response()
    assert answer.status == 200
    assert edge.record(answer)["origin_reused"] is False
