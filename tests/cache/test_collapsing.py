"""One fetch for all who ask for the same: a real node, an origin that answers step by step, and who gets what when."""

import re
from collections.abc import Iterator

import pytest

from tests.cache.crowds import Held, answers, ask, lines_of, under_way, words
from tests.proxy.edges import Edge
from tests.support import Client, Conversation, Response, reply, request, until

FRESH = "Cache-Control: max-age=60"
HEADS = {
    "length": f"HTTP/1.1 200 OK\r\n{FRESH}\r\nContent-Length: 10\r\n\r\n".encode(),
    "chunked": f"HTTP/1.1 200 OK\r\n{FRESH}\r\nTransfer-Encoding: chunked\r\n\r\n".encode(),
    "until_close": f"HTTP/1.1 200 OK\r\n{FRESH}\r\n\r\n".encode(),
}
PIECES = {
    "length": (b"01234", b"56789"),
    "chunked": (b"5\r\n01234\r\n", b"5\r\n56789\r\n0\r\n\r\n"),
    "until_close": (b"01234", b"56789"),
}
LARGE = 6_000_000
"""More than the kernel takes for a client that does not read, and less than a stored object may be, bytes."""


@pytest.fixture(scope="module")
def edge() -> Iterator[Edge]:
    with Edge(
        app={}, small={"route": {"max_object_bytes": 1000}}, big={"route": {"max_object_bytes": 1 << 26}}
    ) as started:
        yield started


@pytest.fixture
def path(request: pytest.FixtureRequest) -> str:
    return "/app/" + re.sub(r"[^A-Za-z0-9]+", "-", request.node.name)


def take(client: Client, response: Response, data: bytes) -> None:
    """Take in a piece of the body that must come as it is, with a chunk's framing if there is any."""
    framed = b"%x\r\n%b\r\n" % (len(data), data) if response.get("transfer-encoding") else data
    assert client.stream.take(len(framed)) == framed


def end(client: Client, response: Response) -> None:
    """The body must end here."""
    if response.get("transfer-encoding"):
        assert client.stream.take(5) == b"0\r\n\r\n"
    elif not response.get("content-length"):
        assert client.rest() == b""


# --- one request for a crowd


def test_a_crowd_costs_the_origin_one_request(edge: Edge, path: str) -> None:
    body = bytes(range(256)) * 400
    held = Held(f"HTTP/1.1 200 OK\r\n{FRESH}\r\nContent-Length: {len(body)}\r\n\r\n".encode(), body)
    edge["app"].on(path, held)
    crowd = [ask(edge, path) for _ in range(200)]
    under_way(edge, path, request_sent=1, collapsed=199)
    held.go()
    responses = answers(crowd)
    assert all(response.body == body for response in responses)
    assert words(responses) == {"MISS": 1, "COLLAPSED": 199}
    assert len(edge["app"].seen(path)) == 1
    lines = lines_of(edge, path, 200)
    (leader,) = (line for line in lines if line["cache"] == "MISS")
    followers = [line for line in lines if line["cache"] == "COLLAPSED"]
    assert len(followers) == 199
    filled_by = f"00-{leader['trace_id']}-{leader['attempts'][0]['span_id']}-03"
    assert {line["filled_by"] for line in followers} == {filled_by}
    assert {(line["outcome"], line["status"], line["bytes_out"], line["cache_age"]) for line in followers} == {
        ("ok", 200, len(body), 0)
    }
    assert {(line["origin"], len(line["attempts"])) for line in followers} == {(None, 0)}
    assert len({line["trace_id"] for line in lines}) == 200
    under_way(edge, path)


def test_cache_status_says_that_a_response_was_shared(edge: Edge, path: str) -> None:
    held = Held(HEADS["length"], *PIECES["length"])
    edge["app"].on(path, held)
    leader = ask(edge, path)
    edge["app"].wait_for(path)
    follower = ask(edge, path)
    under_way(edge, path, request_sent=1, collapsed=1)
    held.go()
    first, second = answers([leader, follower])
    assert first["cache-status"] == "edge-1; fwd=uri-miss; fwd-status=200; stored"
    assert re.fullmatch(r"edge-1; fwd=uri-miss; collapsed; ttl=(59|60)", second["cache-status"])
    assert (first.get("age"), second["age"]) == (None, "0")


# --- as it comes


@pytest.mark.parametrize("version", ["1.1", "1.0"])
@pytest.mark.parametrize("framing", HEADS)
def test_followers_get_the_bytes_as_they_come(edge: Edge, path: str, framing: str, version: str) -> None:
    held = Held(HEADS[framing], PIECES[framing][0])
    edge["app"].on(path, held)
    leader = ask(edge, path)
    edge["app"].wait_for(path)
    early = ask(edge, path, version=version)
    under_way(edge, path, request_sent=1, collapsed=1)
    held.begin()
    begun = [(client, client.head()) for client in (leader, early)]
    for client, response in begun:
        take(client, response, b"01234")
    late = ask(edge, path, version=version)  # while the origin holds the rest back
    begun.append((late, response := late.head()))
    take(late, response, b"01234")
    held.send(PIECES[framing][1])
    held.end("close" if framing == "until_close" else "keep")
    for client, response in begun:
        take(client, response, b"56789")
        end(client, response)
    assert len(edge["app"].seen(path)) == 1
    if version == "1.0":
        assert all(response.get("transfer-encoding") is None for _, response in begun[1:])
    lines = lines_of(edge, path, 3)
    assert sorted(line["cache"] for line in lines) == ["COLLAPSED", "COLLAPSED", "MISS"]
    assert {(line["outcome"], line["bytes_out"]) for line in lines} == {("ok", 10)}
    with edge.connect() as client:
        assert client.get(path)["x-cache"] == "HIT"


def test_trailers_are_the_leaders_own(edge: Edge, path: str) -> None:
    held = Held(HEADS["chunked"], b"5\r\n01234\r\n0\r\nX-Sum: 1\r\n\r\n")
    edge["app"].on(path, held)
    crowd = [ask(edge, path) for _ in range(3)]
    under_way(edge, path, request_sent=1, collapsed=2)
    held.go()
    responses = answers(crowd)
    assert [response.body for response in responses] == [b"01234"] * 3
    assert sum(bool(response.trailers) for response in responses) == 1


def test_a_response_without_a_body_is_shared(edge: Edge, path: str) -> None:
    held = Held(f"HTTP/1.1 204 No Content\r\n{FRESH}\r\n\r\n".encode())
    edge["app"].on(path, held)
    crowd = [ask(edge, path) for _ in range(3)]
    under_way(edge, path, request_sent=1, collapsed=2)
    held.go()
    assert [(one.status, one.body) for one in answers(crowd)] == [(204, b"")] * 3
    assert len(edge["app"].seen(path)) == 1


# --- each at its own pace


@pytest.mark.parametrize("slow_one", ["leader", "follower"])
def test_who_reads_slowly_holds_nobody_up(edge: Edge, path: str, slow_one: str) -> None:
    body = bytes(range(256)) * (LARGE // 256)
    held = Held(f"HTTP/1.1 200 OK\r\n{FRESH}\r\nContent-Length: {len(body)}\r\n\r\n".encode(), body)
    edge["app"].on(path, held)
    leader = ask(edge, path, receive_buffer=4096 if slow_one == "leader" else 0)
    edge["app"].wait_for(path)
    follower = ask(edge, path, receive_buffer=4096 if slow_one == "follower" else 0)
    under_way(edge, path, request_sent=1, collapsed=1)
    held.go()
    slow, fast = (leader, follower) if slow_one == "leader" else (follower, leader)
    assert fast.response().body == body
    under_way(edge, path, streaming=1)
    with edge.connect() as other:  # what is stored does not wait for the slow one either
        assert other.get(path)["x-cache"] == "HIT"
    assert slow.response().body == body
    assert len(edge["app"].seen(path)) == 1


def test_when_all_read_slowly_the_origin_waits(edge: Edge) -> None:
    """The edge takes in no more than it may keep ahead of the fastest reader."""
    path = "/big/all-slow"
    total = 40_000_000
    sent = [0]

    def handle(talk: Conversation) -> None:
        talk.send(f"HTTP/1.1 200 OK\r\n{FRESH}\r\nContent-Length: {total}\r\n\r\n".encode())
        for _ in range(total // 100_000):
            talk.send(bytes(100_000))
            sent[0] += 100_000

    edge["big"].on(path, handle)
    crowd = [ask(edge, path, receive_buffer=4096) for _ in range(3)]
    under_way(edge, path, streaming=3)

    def stands_still() -> bool:
        before = sent[0]
        for _ in range(20):
            edge.settle()
        return sent[0] == before

    until(stands_still, "the origin to be held up")
    assert sent[0] < total
    assert [len(response.body) for response in answers(crowd)] == [total] * 3


def test_what_turns_out_too_large_reaches_all_who_had_begun(edge: Edge) -> None:
    """Of unknown length, larger than the route stores: nobody else joins it, and nothing is stored."""
    path = "/small/too-large"
    piece = b"x" * 700
    chunk = b"%x\r\n%b\r\n" % (len(piece), piece)
    held = Held(HEADS["chunked"], chunk, later=reply(b"whole", FRESH))
    edge["small"].on(path, held)
    crowd = [ask(edge, path) for _ in range(4)]
    under_way(edge, path, request_sent=1, collapsed=3)
    held.begin()
    under_way(edge, path, streaming=4)
    heads = [client.head() for client in crowd]
    begun = list(zip(crowd, heads, strict=True))
    for client, response in begun:
        take(client, response, piece)
    held.send(chunk)
    for client, response in begun:
        take(client, response, piece)
    with edge.connect() as other:
        assert other.get(path).body == b"whole"
    held.send(chunk, b"0\r\n\r\n")
    held.end()
    for client, response in begun:
        take(client, response, piece)
        end(client, response)
    assert len(edge["small"].seen(path)) == 2
    lines = lines_of(edge, path, 5)
    assert {line["outcome"] for line in lines} == {"ok"}


@pytest.mark.parametrize("slow_one", ["leader", "follower"])
def test_a_reader_that_leaves_what_is_too_large_lets_the_others_go_on(edge: Edge, slow_one: str) -> None:
    """Too large to be kept, it comes as fast as the slowest takes it: with that one gone the others get all of it."""
    path = f"/small/slow-{slow_one}-leaves"
    total = 12_000_000
    held = Held(HEADS["until_close"], b"x" * 500)
    edge["small"].on(path, held)
    leader = ask(edge, path, version="1.0", receive_buffer=4096 if slow_one == "leader" else 0)
    edge["small"].wait_for(path)
    follower = ask(edge, path, version="1.0", receive_buffer=4096 if slow_one == "follower" else 0)
    under_way(edge, path, request_sent=1, collapsed=1)
    held.begin()
    under_way(edge, path, streaming=2)
    slow, fast = (leader, follower) if slow_one == "leader" else (follower, leader)
    fast.head()
    held.send(bytes(total - 500))
    held.end("close")
    begun = len(fast.stream.take(1_000_000))
    slow.reset()
    assert begun + len(fast.rest()) == total
    under_way(edge, path)


# --- those who ask on one connection


def test_pipelined_requests_are_collapsed_onto_others(edge: Edge, path: str) -> None:
    held = Held(HEADS["length"], *PIECES["length"])
    edge["app"].on(path, held)
    leader = ask(edge, path)
    edge["app"].wait_for(path)
    pipelining = edge.connect().send(request(path) * 3)
    under_way(edge, path, request_sent=1, collapsed=1, received=2)
    held.go()
    assert leader.response().body == b"0123456789"
    responses = [pipelining.response() for _ in range(3)]
    assert [response.body for response in responses] == [b"0123456789"] * 3
    assert [response["x-cache"] for response in responses] == ["COLLAPSED", "HIT", "HIT"]
    assert len(edge["app"].seen(path)) == 1
