"""What becomes of those who wait when the response is not for all of them: uncacheable, an error, too late, of another
kind, purged meanwhile.
"""

import re
import threading
from collections.abc import Iterator

import pytest

from tests.cache.crowds import Held, answers, ask, lines_of, under_way, words
from tests.proxy.edges import Edge
from tests.support import Client, Conversation, Cut, Handler, free_port, raw, reply, request, silent

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


# --- requests of other kinds


def test_a_head_does_not_wait_for_a_get(edge: Edge, path: str) -> None:
    held = Held(HEAD, b"0123456789", later=reply(b"0123456789", FRESH))
    edge["app"].on(path, held)
    leader = ask(edge, path)
    edge["app"].wait_for(path)
    head = edge.get(path, method="HEAD")
    assert (head.status, head["content-length"], head["x-cache"]) == (200, "10", "MISS")
    held.go()
    assert leader.response().body == b"0123456789"


@pytest.mark.parametrize("begun", [False, True], ids=["waiting", "joining"])
def test_a_follower_that_has_it_already_is_told_so_at_once(edge: Edge, path: str, begun: bool) -> None:
    head = HEAD.replace(b"Content-Length", b'ETag: "1"\r\nContent-Length')
    held = Held(head, b"01234")
    edge["app"].on(path, held)
    leader = ask(edge, path)
    edge["app"].wait_for(path)
    if begun:
        held.begin()
        under_way(edge, path, streaming=1)
    follower = ask(edge, path, 'If-None-Match: "0", W/"1"')
    if not begun:
        under_way(edge, path, request_sent=1, collapsed=1)
        held.begin()
    response = follower.response()
    assert (response.status, response["etag"], response["x-cache"]) == (304, '"1"', "COLLAPSED")
    follower.send(request("/no-such-route"))  # its connection is free, while the origin holds the rest back
    assert follower.response().status == 404
    held.send(b"56789")
    held.end()
    assert leader.response().body == b"0123456789"
    (line,) = (line for line in lines_of(edge, path, 2) if line["status"] == 304)
    assert (line["cache"], line["outcome"], line["bytes_out"]) == ("COLLAPSED", "ok", 0)


@pytest.mark.parametrize("stays", [True, False], ids=["stays", "leaves"])
def test_a_leader_that_has_it_already_is_told_so_at_once_and_the_others_get_it(
    edge: Edge, path: str, stays: bool
) -> None:
    head = HEAD.replace(b"Content-Length", b'ETag: "1"\r\nContent-Length')
    held = Held(head, b"01234")
    edge["app"].on(path, held)
    leader = ask(edge, path, 'If-None-Match: "1"')
    edge["app"].wait_for(path)
    follower = ask(edge, path)
    under_way(edge, path, request_sent=1, collapsed=1)
    held.begin()
    response = leader.response()
    assert (response.status, response.body, response["x-cache"]) == (304, b"", "MISS")
    if stays:
        assert leader.get("/no-such-route").status == 404
    leader.close()
    under_way(edge, path, streaming=1)
    late = ask(edge, path)
    under_way(edge, path, streaming=2)
    held.send(b"56789")
    held.end()
    assert [one.body for one in answers([follower, late])] == [b"0123456789"] * 2
    assert {line["outcome"] for line in lines_of(edge, path, 3)} == {"ok"}
    assert edge.get(path)["x-cache"] == "HIT"
    assert len(edge["app"].seen(path)) == 1


def test_a_leader_alone_that_has_it_already_fills_the_cache_all_the_same(edge: Edge, path: str) -> None:
    head = HEAD.replace(b"Content-Length", b'ETag: "1"\r\nContent-Length')
    held = Held(head, b"01234")
    edge["app"].on(path, held)
    with ask(edge, path, 'If-None-Match: "1"', "Connection: close") as leader:
        edge["app"].wait_for(path)
        held.begin()
        assert leader.response().status == 304
        assert leader.is_ended()
    late = ask(edge, path)
    under_way(edge, path, streaming=1)
    held.send(b"56789")
    held.end()
    assert late.response().body == b"0123456789"
    assert edge.get(path)["x-cache"] == "HIT"


def test_what_nobody_takes_and_cannot_be_stored_is_broken_off(edge: Edge, path: str) -> None:
    """Its client has its 304, and the rest is too large to be stored."""
    head = HEAD.replace(b"Content-Length: 10", b'ETag: "1"\r\nTransfer-Encoding: chunked')
    held = Held(head)
    edge["app"].on(path, held)
    with ask(edge, path, 'If-None-Match: "1"') as leader:
        edge["app"].wait_for(path)
        held.begin()
        assert leader.response().status == 304
        held.send(b"900000\r\n" + bytes(0x900000) + b"\r\n")
        assert held.left.wait(20), "the edge has closed the origin's connection"
    under_way(edge, path)
    held.end()


def test_who_wants_a_part_of_what_is_on_its_way_gets_the_whole(edge: Edge, path: str) -> None:
    held = Held(HEAD, b"01234")
    edge["app"].on(path, held)
    leader = ask(edge, path)
    edge["app"].wait_for(path)
    waiting = ask(edge, path, "Range: bytes=2-3")
    under_way(edge, path, request_sent=1, collapsed=1)
    held.begin()
    under_way(edge, path, streaming=2)
    held.send(b"56789")
    held.end()
    assert [(one.status, one.body) for one in answers([leader, waiting])] == [(200, b"0123456789")] * 2
    assert [seen.get("range") for seen in edge["app"].seen(path)] == [None]
    part = edge.get(path, "Range: bytes=2-3")
    assert (part.status, part.body) == (206, b"23")


# --- a validation for a crowd


def test_one_validation_answers_all_who_wait(edge: Edge, path: str) -> None:
    edge["app"].on(path, reply(b"0123456789", FRESH, 'ETag: "1"'))
    edge.get(path)
    held = Held(f'HTTP/1.1 304 Not Modified\r\n{FRESH}\r\nETag: "1"\r\nX-A: new\r\n\r\n'.encode())
    edge["app"].on(path, held)
    leader = ask(edge, path, "Cache-Control: no-cache")
    edge["app"].wait_for(path, 2)
    wishes = [[], ['If-None-Match: "1"'], ["Range: bytes=0-1"]]
    followers = [ask(edge, path, "Cache-Control: no-cache", *fields) for fields in wishes]
    under_way(edge, path, request_sent=1, collapsed=3)
    held.go()
    first, *others = answers([leader, *followers])
    assert (first.status, first.body, first["x-cache"], first["x-a"]) == (200, b"0123456789", "REVALIDATED", "new")
    assert [(one.status, one.body) for one in others] == [(200, b"0123456789"), (304, b""), (206, b"01")]
    assert words(others) == {"COLLAPSED": 3}
    assert [seen.get("if-none-match") for seen in edge["app"].seen(path)] == [None, '"1"']
    lines = lines_of(edge, path, 5)
    assert [line["cache"] for line in lines].count("COLLAPSED") == 3
    span = edge["app"].seen(path)[1]["traceparent"]
    assert {line["filled_by"] for line in lines if line["cache"] in {"COLLAPSED", "REVALIDATED"}} == {span}


def test_a_validation_goes_on_when_who_began_it_leaves(edge: Edge, path: str) -> None:
    edge["app"].on(path, reply(b"0123456789", FRESH, 'ETag: "1"'))
    edge.get(path)
    held = Held(f'HTTP/1.1 304 Not Modified\r\n{FRESH}\r\nETag: "1"\r\n\r\n'.encode())
    edge["app"].on(path, held)
    leader = ask(edge, path, "Cache-Control: no-cache")
    edge["app"].wait_for(path, 2)
    followers = [ask(edge, path, "Cache-Control: no-cache") for _ in range(2)]
    under_way(edge, path, request_sent=1, collapsed=2)
    leader.reset()
    under_way(edge, path, collapsed=2)
    held.go()
    assert [(one.body, one["x-cache"]) for one in answers(followers)] == [(b"0123456789", "COLLAPSED")] * 2
    assert len(edge["app"].seen(path)) == 2


def test_a_validation_that_brings_something_new_is_shared_as_it_comes(edge: Edge, path: str) -> None:
    edge["app"].on(path, reply(b"old", FRESH, 'ETag: "0"'))
    edge.get(path)
    held = Held(HEAD, b"01234")
    edge["app"].on(path, held)
    leader = ask(edge, path, "Cache-Control: no-cache")
    edge["app"].wait_for(path, 2)
    follower = ask(edge, path, "Cache-Control: no-cache")
    under_way(edge, path, request_sent=1, collapsed=1)
    held.begin()
    under_way(edge, path, streaming=2)
    held.send(b"56789")
    held.end()
    assert [one.body for one in answers([leader, follower])] == [b"0123456789"] * 2
    assert edge.get(path).body == b"0123456789"


# --- what changes meanwhile


def test_who_asks_after_a_change_does_not_get_what_was_fetched_before_it(edge: Edge, path: str) -> None:
    held = Held(HEAD, b"0123456789", later=reply(b"new", FRESH))
    edge["app"].on(path, held)
    leader = ask(edge, path)
    edge["app"].wait_for(path)
    assert edge.get(path, method="POST", body=b"x").status == 200
    assert edge.get(path).body == b"new"
    held.go()
    assert leader.response().body == b"0123456789"
    assert edge.get(path).body == b"new"
