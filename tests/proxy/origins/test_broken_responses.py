"""A broken response of an origin's never reaches a client as a good one, nor the next request at all."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.proxy.edges import Edge
from tests.support import Broken, Conversation, Cut, Handler, Record, raw, reply, until
from tests.support.origin import End

OK = b"HTTP/1.1 200 OK\r\n"
POISON = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nCache-Control: max-age=60\r\n\r\npoison"
FRESH = b"Cache-Control: max-age=60\r\n"


@pytest.fixture(scope="module")
def edge() -> Iterator[Edge]:
    with Edge(broken={}, poisoned={"max_connections": 1}, busy={"max_connections": 4}) as started:
        yield started


def serves_on(edge: Edge) -> bool:
    """Whether the next request through the same worker and to the same origin is answered as it should."""
    return edge.get("/broken/fine").status == 200


# --- before the head is whole: 502


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        pytest.param(b"hello world\r\n\r\n", "origin_malformed", id="no-http"),
        pytest.param(b"\x00\x01\x02\x03" * 100, "origin_malformed", id="binary"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01", "origin_malformed", id="tls"),
        pytest.param(b"<html>hello</html>", "origin_malformed", id="0.9"),
        pytest.param(b"ICY 200 OK\r\n\r\n", "origin_malformed", id="other-protocol"),
        pytest.param(b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n", "origin_bad_version", id="2.0"),
        pytest.param(b"HTTP/0.9 200 OK\r\nContent-Length: 0\r\n\r\n", "origin_bad_version", id="0.9-with-a-head"),
        pytest.param(b"HTTP/1.2 200 OK\r\nContent-Length: 0\r\n\r\n", "origin_malformed", id="1.2"),
        pytest.param(b"HTTP/1.1 20 OK\r\n\r\n", "origin_malformed", id="two-digits"),
        pytest.param(b"HTTP/1.1 2000 OK\r\n\r\n", "origin_malformed", id="four-digits"),
        pytest.param(b"HTTP/1.1 OK\r\n\r\n", "origin_malformed", id="no-digits"),
        pytest.param(b"HTTP/1.1  200 OK\r\n\r\n", "origin_malformed", id="two-spaces"),
        pytest.param(b"HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n", "origin_bad_status", id="status-099"),
        pytest.param(b"HTTP/1.1 600 OK\r\nContent-Length: 0\r\n\r\n", "origin_bad_status", id="status-600"),
        pytest.param(b"HTTP/1.1 999 OK\r\nContent-Length: 0\r\n\r\n", "origin_bad_status", id="status-999"),
        pytest.param(
            b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nraw", "origin_bad_status", id="101"
        ),
        pytest.param(b"HTTP/1.1 200 O\x00K\r\nContent-Length: 0\r\n\r\n", "origin_malformed", id="nul-in-reason"),
        pytest.param(b"HTTP/1.1 200 O\x1bK\r\nContent-Length: 0\r\n\r\n", "origin_malformed", id="control-in-reason"),
        pytest.param(b"HTTP/1.1 200 O\rK\r\nContent-Length: 0\r\n\r\n", "origin_malformed", id="bare-cr-in-reason"),
        pytest.param(b"HTTP/1.1 200 OK\nContent-Length: 0\n\n", "origin_malformed", id="bare-lf"),
        pytest.param(OK + b"X : y\r\n\r\n", "origin_malformed", id="space-before-colon"),
        pytest.param(OK + b": y\r\n\r\n", "origin_malformed", id="no-name"),
        pytest.param(OK + b"X\r\n\r\n", "origin_malformed", id="no-colon"),
        pytest.param(OK + b"X(): y\r\n\r\n", "origin_malformed", id="name-is-no-token"),
        pytest.param(OK + b"X: a\r\n b\r\nContent-Length: 0\r\n\r\n", "origin_malformed", id="obs-fold"),
        pytest.param(OK + b"X: a\x00b\r\n\r\n", "origin_malformed", id="nul-in-value"),
        pytest.param(OK + b"X: a\x0bb\r\n\r\n", "origin_malformed", id="control-in-value"),
        pytest.param(OK + b"X: a\rSet-Cookie: b\r\n\r\n", "origin_malformed", id="bare-cr-in-value"),
        pytest.param(OK + b"X: a\nSet-Cookie: b\r\n\r\n", "origin_malformed", id="bare-lf-in-value"),
        pytest.param(
            OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "origin_malformed", id="cl-te"
        ),
        pytest.param(
            OK + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\nhello", "origin_malformed", id="te-cl"
        ),
        pytest.param(OK + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", "origin_malformed", id="two-lengths"),
        pytest.param(OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", "origin_malformed", id="cl-differs"),
        pytest.param(OK + b"Content-Length: 5, 5\r\n\r\nhello", "origin_malformed", id="list-of-lengths"),
        pytest.param(OK + b"Content-Length: +5\r\n\r\nhello", "origin_malformed", id="signed-length"),
        pytest.param(OK + b"Content-Length: -5\r\n\r\nhello", "origin_malformed", id="negative-length"),
        pytest.param(OK + b"Content-Length: 0x5\r\n\r\nhello", "origin_malformed", id="hex-length"),
        pytest.param(OK + b"Content-Length: five\r\n\r\nhello", "origin_malformed", id="length-in-words"),
        pytest.param(OK + b"Content-Length:\r\n\r\nhello", "origin_malformed", id="empty-length"),
        pytest.param(OK + b"Content-Length: %d\r\n\r\n" % 2**64, "origin_malformed", id="length-overflows"),
        pytest.param(OK + b"Transfer-Encoding: gzip\r\n\r\nhello", "origin_bad_coding", id="te-gzip"),
        pytest.param(OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "origin_bad_coding", id="te-list"),
        pytest.param(OK + b"Transfer-Encoding: chunked, gzip\r\n\r\nhello", "origin_bad_coding", id="te-chunked-gzip"),
        pytest.param(OK + b"Transfer-Encoding: identity\r\n\r\nhello", "origin_bad_coding", id="te-identity"),
        pytest.param(OK + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", "origin_bad_coding", id="te-xchunked"),
        pytest.param(
            OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "origin_bad_coding",
            id="te-twice",
        ),
        pytest.param(OK + b"X: " + b"y" * 60_000 + b"\r\n\r\n", "origin_head_too_large", id="head-too-large"),
        pytest.param(OK + b"X: " + b"y" * 2_000_000, "origin_head_too_large", id="head-without-end"),
        pytest.param(OK + b"X: y\r\n" * 20_000 + b"\r\n", "origin_head_too_large", id="fields-without-end"),
    ],
)
@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
def test_a_head_that_is_none_is_a_bad_gateway(edge: Edge, answer: bytes, code: str, version: bytes) -> None:
    edge["broken"].on("/broken/head", raw(answer, then="close"))
    with edge.connect() as client:
        client.send(b"POST /broken/head HTTP/%b\r\nHost: edge.test\r\nContent-Length: 0\r\n\r\n" % version)
        response = client.response()
    assert (response.status, response.problem["code"]) == (502, code)
    record = edge.record(response)
    assert (record["status"], record["outcome"], record["stage"]) == (502, "origin_error", "request_sent")
    assert (record["error"]["type"], record["origin_status"]) == (code, None)
    assert record["attempts"][-1]["error"]["type"] == code
    assert serves_on(edge)


@pytest.mark.parametrize("end", ["close", "reset"])
@pytest.mark.parametrize("begun", [b"", b"H", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n"])
def test_an_origin_that_leaves_before_its_head_is_whole(edge: Edge, begun: bytes, end: End) -> None:
    edge["broken"].on("/broken/left", raw(begun, then=end))
    response = edge.get("/broken/left", method="POST")
    assert (response.status, response.problem["code"]) == (502, "origin_closed")
    assert edge.record(response)["outcome"] == "origin_error"


def test_a_head_may_come_in_single_bytes(edge: Edge) -> None:
    whole = OK + b"Content-Length: 5\r\nX-A: b\r\n\r\nhello"
    edge["broken"].on("/broken/bytes", raw(*(bytes([byte]) for byte in whole)))
    response = edge.get("/broken/bytes")
    assert (response.body, response["x-a"]) == (b"hello", "b")


# --- after the head: cut off

CHUNKS = b"Transfer-Encoding: chunked\r\n\r\n"
HELLO = CHUNKS + b"5\r\nhello\r\n"
CUT_OFF = [
    pytest.param(b"Content-Length: 10\r\n\r\nhello", "close", "origin_closed", id="length-close"),
    pytest.param(b"Content-Length: 10\r\n\r\nhello", "reset", "origin_closed", id="length-reset"),
    pytest.param(b"Content-Length: 10\r\n\r\n", "close", "origin_closed", id="length-nothing-came"),
    pytest.param(HELLO, "close", "origin_closed", id="chunks-close"),
    pytest.param(HELLO, "reset", "origin_closed", id="chunks-reset"),
    pytest.param(HELLO + b"0\r\n", "close", "origin_closed", id="no-end"),
    pytest.param(b"Transfer-Encoding: chunked\r\n\r\nA\r\nhello", "close", "origin_closed", id="half-a-chunk"),
    pytest.param(HELLO + b"zz\r\n", "keep", "origin_malformed", id="bad-size"),
    pytest.param(CHUNKS + b"5\r\nhelloX\r\n0\r\n\r\n", "keep", "origin_malformed", id="no-crlf"),
    pytest.param(
        HELLO + b"F" * 20 + b"\r\n",
        "keep",
        "origin_malformed",
        id="size-overflow",
    ),
    pytest.param(
        HELLO + b"0\r\nX : y\r\n\r\n",
        "keep",
        "origin_malformed",
        id="bad-trailer",
    ),
    pytest.param(
        HELLO + b"0\r\n" + b"X: y\r\n" * 200 + b"\r\n",
        "keep",
        "origin_trailers_too_large",
        id="too-many-trailers",
    ),
    pytest.param(b"\r\nhello", "reset", "origin_closed", id="until-close-reset"),
]


@pytest.mark.parametrize(("response", "end", "code"), CUT_OFF)
@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
def test_a_body_that_breaks_off_breaks_off_for_the_client_and_is_not_stored(
    edge: Edge, response: bytes, end: End, code: str, version: bytes, request: pytest.FixtureRequest
) -> None:
    target = f"/broken/body?{request.node.callspec.id}"
    half, gate = threading.Event(), threading.Event()

    def handle(talk: Conversation) -> None:
        head, mark, body = (OK + FRESH + response).partition(b"\r\n\r\n")
        talk.send(head + mark)
        talk.send(body)
        half.set()
        if end == "reset":
            talk.wait(gate)  # a reset would overtake what the edge has not read yet
        talk.end = end
        if end == "keep":
            talk.wait_for_close()

    edge["broken"].on("/broken/body", handle)
    for _ in range(2):
        half.clear()
        gate.clear()
        with edge.connect() as client:
            client.send(b"GET %b HTTP/%b\r\nHost: edge.test\r\n\r\n" % (target.encode(), version))
            assert half.wait(20)
            edge.settle()
            gate.set()
            with pytest.raises((Cut, Broken)):
                client.response()
    assert len([seen for seen in edge["broken"].requests if seen.target == target]) == 2

    def both() -> list[Record]:
        found = [line for line in edge.node.lines() if line["query"] == target.partition("?")[2]]
        return found if len(found) == 2 else []

    for line in until(both, "both lines"):
        assert (line["status"], line["outcome"], line["stage"]) == (200, "origin_error", "streaming")
        assert line["error"]["type"] == code
        assert (line["cache"], line["origin_status"]) == ("MISS", 200)
    assert serves_on(edge)


def test_a_head_without_a_body_to_come_may_be_cut_by_nothing(edge: Edge) -> None:
    edge["broken"].on("/broken/no-body", raw(OK + b"Content-Length: 10\r\n\r\n", then="close"))
    assert edge.get("/broken/no-body", method="HEAD").status == 200


# --- behind the response: never the next request's


def with_poison(poison: bytes, *, apart: bool) -> Handler:
    """Answers well, and sends more than that: in the same segment, or once the client has its answer."""

    def handle(talk: Conversation) -> None:
        talk.read_body()
        good = OK + b"Content-Length: 4\r\n\r\n" + (b"" if talk.request.method == "HEAD" else b"good")
        if not apart:
            talk.send(good + poison)
            return
        talk.send(good)
        talk.wait(APART)
        talk.send(poison)
        AFTER.set()

    return handle


APART, AFTER = threading.Event(), threading.Event()
POISONS = [
    pytest.param(POISON, id="a-second-response"),
    pytest.param(b"extra", id="more-body"),
    pytest.param(b"\r\n" + POISON, id="an-empty-line-first"),
    pytest.param(b"HTTP/1.1 100 Continue\r\n\r\n", id="an-interim-response"),
    pytest.param(b"H", id="a-single-byte"),
]


@pytest.mark.parametrize("apart", [False, True], ids=["in-one", "apart"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
@pytest.mark.parametrize("poison", POISONS)
def test_what_comes_behind_a_response_is_nobodys(edge: Edge, poison: bytes, method: str, apart: bool) -> None:
    origin = edge["poisoned"]
    origin.on("/poisoned/first", with_poison(poison, apart=apart))
    origin.on("/poisoned/next", reply(b"mine"))
    APART.clear()
    AFTER.clear()
    with edge.connect() as client:
        first = client.get("/poisoned/first", method=method)
        assert (first.status, first.body) == (200, b"" if method == "HEAD" else b"good")
        if apart:
            APART.set()
            assert AFTER.wait(20)
            edge.settle()
        for _ in range(2):
            following = client.get("/poisoned/next")
            assert (following.status, following.body) == (200, b"mine")
    assert origin.seen("/poisoned/first")[-1].connection != origin.seen("/poisoned/next")[-2].connection


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
def test_a_body_where_there_can_be_none_is_nobodys(edge: Edge, status: bytes) -> None:
    origin = edge["poisoned"]
    origin.on("/poisoned/none", raw(b"HTTP/1.1 %b\r\nContent-Length: 5\r\n\r\nhello" % status))
    with edge.connect() as client:
        assert client.get("/poisoned/none").body == b""
        assert client.get("/poisoned/after").status == 200


def test_under_load_every_client_gets_its_own_answer_and_never_a_word_of_poison(edge: Edge) -> None:
    def handle(talk: Conversation) -> None:
        body = talk.request.target.encode()
        poison = POISON if talk.request.target.endswith(("3", "7")) else b""
        talk.send(OK + b"Content-Length: %d\r\n\r\n%b%b" % (len(body), body, poison))

    edge["busy"].on("/busy/x", handle)

    def client(number: int) -> list[tuple[str, bytes]]:
        with edge.connect() as connection:
            targets = [f"/busy/x?{number}-{turn}" for turn in range(40)]
            return [(target, connection.get(target).body) for target in targets]

    with ThreadPoolExecutor(8) as threads:
        for answers in threads.map(client, range(8)):
            for target, body in answers:
                assert body == target.encode()
