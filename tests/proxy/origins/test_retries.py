"""A request is sent again when its pooled connection died before a byte of the response, and only when that is safe."""

import threading
from collections.abc import Iterator

import pytest

from tests.proxy.edges import Edge
from tests.support import Conversation, Handler, gated, reply, request, until

CHUNK = b"5\r\nhello\r\n0\r\n\r\n"


@pytest.fixture(scope="module")
def edge() -> Iterator[Edge]:
    with Edge(retry={}, never={"retries": 0}, twice={"retries": 2}, several={}) as started:
        yield started


def dies_when_pooled(death: Handler, *, otherwise: Handler | None = None) -> Handler:
    """Answers on a new connection; on one that has served before, `death`."""

    def handle(talk: Conversation) -> None:
        (death if talk.request.position else otherwise or reply(b"hello"))(talk)

    return handle


def close(talk: Conversation) -> None:
    talk.close()


def reset(talk: Conversation) -> None:
    talk.reset()


def after(data: bytes) -> Handler:
    """Closes once these bytes of a response are out."""

    def handle(talk: Conversation) -> None:
        talk.send(data)
        talk.close()

    return handle


def warm(edge: Edge, name: str) -> None:
    """Leave exactly one connection of an origin's idle in the pool."""
    origin = edge[name]
    origin.drop_connections()
    until(lambda: origin.open_connections == 0, "earlier connections to be gone")
    edge.settle()
    assert edge.get(f"/{name}/warm").status == 200


@pytest.mark.parametrize("death", [close, reset])
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"])
def test_an_idempotent_request_is_sent_again_rfc9110_9_2_2(edge: Edge, method: str, death: Handler) -> None:
    path = f"/retry/{method}-{death.__name__}"
    edge["retry"].on(path, dies_when_pooled(death))
    warm(edge, "retry")
    response = edge.get(path, method=method)
    assert response.status == 200
    first, second = edge["retry"].seen(path)
    assert first.connection != second.connection
    record = edge.record(response)
    assert (record["outcome"], record["error"], record["origin_reused"]) == ("ok", None, False)
    died, answered = record["attempts"]
    assert (died["reused"], died["status"], died["error"]["type"]) == (True, None, "origin_closed")
    assert (answered["reused"], answered["status"], answered["error"]) == (False, 200, None)


def test_each_attempt_has_a_span_of_its_own_and_the_origin_sees_it(edge: Edge) -> None:
    edge["retry"].on("/retry/spans", dies_when_pooled(close))
    warm(edge, "retry")
    record = edge.record(edge.get("/retry/spans"))
    seen = [request["traceparent"].split("-") for request in edge["retry"].seen("/retry/spans")]
    assert [parts[1] for parts in seen] == [record["trace_id"]] * 2
    assert [parts[2] for parts in seen] == [attempt["span_id"] for attempt in record["attempts"]]
    assert len({record["span_id"], *(parts[2] for parts in seen)}) == 3


@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_a_request_that_may_have_had_its_effect_is_not(edge: Edge, method: str) -> None:
    path = f"/retry/{method}"
    edge["retry"].on(path, dies_when_pooled(close))
    warm(edge, "retry")
    response = edge.get(path, method=method)
    assert (response.status, response.problem["code"]) == (502, "origin_closed")
    assert len(edge["retry"].seen(path)) == 1
    record = edge.record(response)
    assert (record["outcome"], record["stage"], len(record["attempts"])) == ("origin_error", "request_sent", 1)


@pytest.mark.parametrize(
    "begun",
    [
        pytest.param(b"H", id="one-byte"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Le", id="half-a-head"),
        pytest.param(b"HTTP/1.1 103 Early Hints\r\n\r\n", id="a-1xx-response"),
        pytest.param(b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP", id="a-1xx-response-and-more"),
    ],
)
def test_a_request_is_not_sent_again_after_the_first_byte_of_an_answer(edge: Edge, begun: bytes) -> None:
    edge["retry"].on("/retry/begun", dies_when_pooled(after(begun)))
    before = len(edge["retry"].seen("/retry/begun"))
    warm(edge, "retry")
    response = edge.get("/retry/begun")
    assert (response.status, response.problem["code"]) == (502, "origin_closed")
    assert len(edge["retry"].seen("/retry/begun")) == before + 1


def test_a_request_is_not_sent_again_once_its_body_was(edge: Edge) -> None:
    edge["retry"].on("/retry/body", dies_when_pooled(close))
    warm(edge, "retry")
    response = edge.get("/retry/body", method="PUT", body=b"x")
    assert (response.status, response.problem["code"]) == (502, "origin_closed")
    assert len(edge["retry"].seen("/retry/body")) == 1


def test_a_request_whose_body_was_still_awaited_is_sent_again(edge: Edge) -> None:
    def invite(talk: Conversation) -> None:
        talk.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert talk.read_body() == b"hello"
        reply(b"stored")(talk)

    edge["retry"].on("/retry/expect", dies_when_pooled(close, otherwise=invite))
    warm(edge, "retry")
    with edge.connect() as client:
        client.send(request("/retry/expect", "Expect: 100-continue", "Content-Length: 5", method="PUT"))
        assert client.head().status == 100
        assert client.send(b"hello").response().body == b"stored"
    assert len(edge["retry"].seen("/retry/expect")) == 2


def test_retries_0_sends_nothing_again(edge: Edge) -> None:
    edge["never"].on("/never/x", dies_when_pooled(close))
    warm(edge, "never")
    assert edge.get("/never/x").status == 502
    assert len(edge["never"].seen("/never/x")) == 1


def test_no_more_attempts_are_made_than_configured_and_all_are_in_the_log(edge: Edge) -> None:
    edge["twice"].on("/twice/x", close)
    response = edge.get("/twice/x")
    assert (response.status, response.problem["code"]) == (502, "origin_closed")
    assert len(edge["twice"].seen("/twice/x")) == 3
    record = edge.record(response)
    assert [attempt["error"]["type"] for attempt in record["attempts"]] == ["origin_closed"] * 3
    assert len({attempt["span_id"] for attempt in record["attempts"]}) == 3
    assert record["error"]["type"] == "origin_closed"


def test_a_second_dead_connection_of_the_pool_is_not_tried(edge: Edge) -> None:
    origin = edge["several"]
    gate = threading.Event()
    origin.on("/several/held", gated(gate, reply(b"held")))
    origin.on("/several/x", dies_when_pooled(close))
    clients = [edge.connect().send(request(f"/several/held?{number}")) for number in range(3)]
    origin.wait_for("/several/held", 3)
    gate.set()
    for client in clients:
        assert client.response().status == 200
        client.close()
    response = edge.get("/several/x")
    assert response.status == 200
    assert [attempt["reused"] for attempt in edge.record(response)["attempts"]] == [True, False]


def test_a_body_in_chunks_that_has_not_begun_is_no_reason_not_to_retry(edge: Edge) -> None:
    edge["retry"].on("/retry/chunks", dies_when_pooled(close))
    warm(edge, "retry")
    with edge.connect() as client:
        client.send(request("/retry/chunks", "Transfer-Encoding: chunked", method="PUT"))
        edge["retry"].wait_for("/retry/chunks", 2)
        assert client.send(CHUNK).response().status == 200
    assert edge["retry"].seen("/retry/chunks")[1].body == b"hello"
