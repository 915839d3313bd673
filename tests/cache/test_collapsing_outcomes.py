"""What becomes of those who wait when the response is not for all of them: uncacheable, an error, too late."""

import re
import threading
from collections.abc import Iterator

import pytest

from tests.cache.crowds import Held, answers, ask, lines_of, under_way, words
from tests.proxy.edges import Edge
from tests.support import Client, Conversation, Cut, Handler, free_port, raw, reply, silent

FRESH = "Cache-Control: max-age=60"
HEAD = f"HTTP/1.1 200 OK\r\n{FRESH}\r\nContent-Length: 10\r\n\r\n".encode()
ALL = 6
"""How many ask at once."""


@pytest.fixture(scope="module")
def edge() -> Iterator[Edge]:
    with Edge(
        app={},
        away={"urls": [f"http://127.0.0.1:{free_port()}"]},
        slow={"first_byte_timeout": 0.5, "retries": 0},
    ) as started:
        yield started


@pytest.fixture(scope="module")
def impatient() -> Iterator[Edge]:
    """Nobody waits long for another's fetch, and nothing is remembered of what is not stored."""
    with Edge(app={}, tables={"cache": {"collapse_timeout": 1.2, "uncacheable_ttl": 0}}) as started:
        yield started


@pytest.fixture
def path(request: pytest.FixtureRequest) -> str:
    return "/app/" + re.sub(r"[^A-Za-z0-9]+", "-", request.node.name)


class Together:
    """Answers only when so many requests are here at once."""

    def __init__(self, count: int, handler: Handler) -> None:
        self._barrier = threading.Barrier(count)
        self._handler = handler

    def __call__(self, talk: Conversation) -> None:
        self._barrier.wait(20)
        self._handler(talk)


def crowd_of(edge: Edge, path: str, count: int = ALL, origin: str = "app") -> list[Client]:
    """A leader whose request is at the origin, and the others, who wait."""
    leader = ask(edge, path)
    edge[origin].wait_for(path)
    crowd = [leader, *(ask(edge, path) for _ in range(count - 1))]
    under_way(edge, path, request_sent=1, collapsed=count - 1)
    return crowd


# --- uncacheable


@pytest.mark.parametrize(
    ("fields", "detail"),
    [
        ("Cache-Control: no-store", "no-store"),
        ("Cache-Control: private", "private"),
        ("X-A: 1", "no-freshness"),
        (f"{FRESH}\r\nSet-Cookie: a=b", "set-cookie"),
        (f"{FRESH}\r\nVary: *", "vary-any"),
    ],
)
def test_an_uncacheable_response_releases_all_at_once_and_is_remembered(
    edge: Edge, path: str, fields: str, detail: str
) -> None:
    answer = reply(b"own", *fields.split("\r\n"))
    held = Held(
        f"HTTP/1.1 200 OK\r\n{fields}\r\nContent-Length: 3\r\n\r\n".encode(), b"own", later=Together(ALL - 1, answer)
    )
    edge["app"].on(path, held)
    crowd = crowd_of(edge, path)
    held.go()
    responses = answers(crowd)  # the others' requests had to be at the origin together
    assert [response.body for response in responses] == [b"own"] * ALL
    assert words(responses) == {"MISS": ALL}
    assert {response["cache-status"] for response in responses} == {
        f"edge-1; fwd=uri-miss; fwd-status=200; detail={detail}"
    }
    assert len({response.trace_id for response in responses}) == ALL
    assert {len(line["attempts"]) for line in lines_of(edge, path, ALL)} == {1}
    edge["app"].on(path, Together(ALL, answer))
    again = answers([ask(edge, path) for _ in range(ALL)])  # the next crowd does not wait for a first one
    assert {response["cache-status"] for response in again} == {f"edge-1; fwd=miss; fwd-status=200; detail={detail}"}


def test_it_is_remembered_where_something_was_stored_before_as_well(edge: Edge, path: str) -> None:
    edge["app"].on(path, reply(b"old", FRESH, 'ETag: "1"'))
    edge.get(path)
    edge["app"].on(path, reply(b"own", "Cache-Control: no-store"))
    assert edge.get(path, "Cache-Control: no-cache").body == b"own"
    edge["app"].on(path, Together(ALL, reply(b"own", "Cache-Control: no-store")))
    assert {response.body for response in answers([ask(edge, path) for _ in range(ALL)])} == {b"own"}


def test_what_is_not_to_be_remembered_is_not(impatient: Edge, path: str) -> None:
    edge = impatient
    for _ in range(2):
        held = Held(
            b"HTTP/1.1 200 OK\r\nCache-Control: no-store\r\nContent-Length: 3\r\n\r\n", b"own", later=reply(b"own")
        )
        edge["app"].on(path, held)
        seen = len(edge["app"].seen(path))
        leader = ask(edge, path)
        edge["app"].wait_for(path, seen + 1)
        follower = ask(edge, path)
        under_way(edge, path, request_sent=1, collapsed=1)
        held.go()
        assert [response.body for response in answers([leader, follower])] == [b"own"] * 2
        under_way(edge, path)


def test_what_must_be_validated_for_everyone_is_given_to_nobody_else(edge: Edge, path: str) -> None:
    """A collapsed request reuses the response, and this one may not be reused unasked (RFC 9111 §4, §5.2.2.4)."""
    fields = ["Cache-Control: no-cache", 'ETag: "1"']
    held = Held(
        b'HTTP/1.1 200 OK\r\nCache-Control: no-cache\r\nETag: "1"\r\nContent-Length: 10\r\n\r\n',
        b"01234",
        later=Together(ALL, reply(b"56789", *fields)),
    )
    edge["app"].on(path, held)
    crowd = crowd_of(edge, path)
    held.begin()
    under_way(edge, path, streaming=1, request_sent=ALL - 1)
    late = ask(edge, path)  # nor is what streams already for who comes later
    responses = answers([*crowd[1:], late])
    assert [response.body for response in responses] == [b"56789"] * ALL
    held.send(b"01234")
    held.end()
    assert crowd[0].response().body == b"0123401234"


def test_what_was_stored_to_be_validated_makes_nobody_wait_for_another(edge: Edge, path: str) -> None:
    edge["app"].on(path, reply(b"hello", "Cache-Control: no-cache", 'ETag: "1"'))
    edge.get(path)
    validated = raw(b'HTTP/1.1 304 Not Modified\r\nCache-Control: no-cache\r\nETag: "1"\r\n\r\n')
    edge["app"].on(path, Together(ALL, validated))
    responses = answers([ask(edge, path) for _ in range(ALL)])
    assert [(response.status, response.body) for response in responses] == [(200, b"hello")] * ALL
    assert words(responses) == {"REVALIDATED": ALL}


def test_who_is_authorized_leads_nobody(edge: Edge, path: str) -> None:
    """Its answer will be its own, so nobody is made to wait for it; a public one that is on its way is for it, too."""
    held = Held(HEAD, b"0123456789", later=reply(b"public", FRESH))
    edge["app"].on(path, held)
    authorized = ask(edge, path, "Authorization: Basic eA==")
    edge["app"].wait_for(path)
    assert edge.get(path).body == b"public"
    held.go()
    assert authorized.response()["cache-status"] == "edge-1; fwd=uri-miss; fwd-status=200; detail=authorization"
    assert edge.get(path).body == b"public"


# --- errors


def test_an_error_that_may_not_be_stored_releases_all(edge: Edge, path: str) -> None:
    answer = reply(b"sorry", status="503 Service Unavailable")
    held = Held(
        b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 5\r\n\r\n", b"sorry", later=Together(ALL - 1, answer)
    )
    edge["app"].on(path, held)
    crowd = crowd_of(edge, path)
    held.go()
    assert [response.status for response in answers(crowd)] == [503] * ALL


def test_an_error_that_may_be_stored_is_shared(edge: Edge, path: str) -> None:
    held = Held(f"HTTP/1.1 503 Service Unavailable\r\n{FRESH}\r\nContent-Length: 5\r\n\r\n".encode(), b"sorry")
    edge["app"].on(path, held)
    crowd = crowd_of(edge, path)
    held.go()
    assert [(response.status, response.body) for response in answers(crowd)] == [(503, b"sorry")] * ALL
    assert len(edge["app"].seen(path)) == 1


def test_when_the_origin_breaks_off_before_its_answer_all_are_told(edge: Edge, path: str) -> None:
    held = Held(later=lambda talk: talk.reset())
    edge["app"].on(path, held)
    crowd = crowd_of(edge, path)
    held.end("reset")
    responses = answers(crowd)
    assert {(one.status, one.problem["code"]) for one in responses} == {(502, "origin_closed")}
    assert len(edge["app"].seen(path)) == 2, "the request and its one retry"
    lines = lines_of(edge, path, ALL)
    assert {(line["status"], line["outcome"], line["error"]["type"]) for line in lines} == {
        (502, "origin_error", "origin_closed")
    }
    assert sorted(len(line["attempts"]) for line in lines) == [0] * (ALL - 1) + [2]


def test_when_the_origin_says_nothing_all_are_told(edge: Edge) -> None:
    path = "/slow/silent"
    edge["slow"].on(path, silent)
    responses = answers([ask(edge, path) for _ in range(ALL)])
    assert {(one.status, one.problem["code"]) for one in responses} == {(504, "origin_first_byte_timeout")}
    assert len(edge["slow"].seen(path)) == 1
    assert {line["outcome"] for line in lines_of(edge, path, ALL)} == {"timeout"}


def test_when_the_origin_is_away_all_are_told(edge: Edge) -> None:
    path = "/away/x"
    responses = answers([ask(edge, path) for _ in range(ALL)])
    assert {(one.status, one.problem["code"]) for one in responses} == {(502, "origin_connect_error")}
    assert {line["outcome"] for line in lines_of(edge, path, ALL)} == {"origin_error"}


@pytest.mark.parametrize("version", ["1.1", "1.0"])
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_when_the_origin_breaks_off_in_the_middle_all_are_cut(
    edge: Edge, path: str, framing: str, version: str
) -> None:
    head = HEAD if framing == "length" else HEAD.replace(b"Content-Length: 10", b"Transfer-Encoding: chunked")
    held = Held(head, b"01234" if framing == "length" else b"5\r\n01234\r\n", later=reply(b"whole", FRESH))
    edge["app"].on(path, held)
    leader = ask(edge, path, version=version)
    edge["app"].wait_for(path)
    crowd = [leader, *(ask(edge, path, version=version) for _ in range(2))]
    under_way(edge, path, request_sent=1, collapsed=2)
    held.begin()
    under_way(edge, path, streaming=3)
    for client in crowd:
        client.head()
    held.end("close")
    for client in crowd:
        try:
            rest = client.rest()
        except Cut:
            assert version == "1.0"
            continue
        assert framing == "length" or (version == "1.1" and not rest.endswith(b"0\r\n\r\n")), "it ends as if whole"
    lines = lines_of(edge, path, 3)
    assert {(line["outcome"], line["error"]["type"], line["bytes_out"]) for line in lines} == {
        ("origin_error", "origin_closed", 5)
    }
    assert edge.get(path).body == b"whole"


# --- too late


def test_nobody_waits_for_ever(impatient: Edge, path: str) -> None:
    edge = impatient
    held = Held(HEAD, b"0123456789", later=Together(3, reply(b"own", FRESH)))
    edge["app"].on(path, held)
    crowd = crowd_of(edge, path, 4)
    tired = answers(crowd[1:])
    assert [response.body for response in tired] == [b"own"] * 3
    assert words(tired) == {"MISS": 3}
    assert all(response["cache-status"] == "edge-1; fwd=uri-miss; fwd-status=200; stored" for response in tired)
    with edge.connect() as client:
        assert client.get(path)["age"] == "0", "the wait was no part of the response's age"
    held.go()
    assert crowd[0].response().body == b"0123456789"
    assert sorted(line["cache"] for line in lines_of(edge, path, 5)) == ["HIT", *["MISS"] * 4]
