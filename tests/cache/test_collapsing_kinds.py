"""Requests of other kinds that meet a fetch under way (HEAD, conditions, ranges), validations for a crowd, variants,
and what changes meanwhile.
"""

import re
from collections.abc import Iterator

import pytest

from tests.cache.crowds import Held, answers, ask, lines_of, under_way, words
from tests.proxy.edges import Edge
from tests.support import Conversation, reply, request

FRESH = "Cache-Control: max-age=60"
HEAD = f"HTTP/1.1 200 OK\r\n{FRESH}\r\nContent-Length: 10\r\n\r\n".encode()


@pytest.fixture(scope="module")
def edge() -> Iterator[Edge]:
    with Edge(app={}) as started:
        yield started


@pytest.fixture
def path(request: pytest.FixtureRequest) -> str:
    return "/app/" + re.sub(r"[^A-Za-z0-9]+", "-", request.node.name)


# --- HEAD, conditions, ranges


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


def test_those_who_wait_for_what_is_purged_meanwhile_ask_anew_together(edge: Edge, path: str) -> None:
    anew = Held(HEAD, b"abcdefghij")
    held = Held(HEAD, b"0123456789", later=anew)
    edge["app"].on(path, held)
    leader = ask(edge, path)
    edge["app"].wait_for(path)
    followers = [ask(edge, path) for _ in range(5)]
    under_way(edge, path, request_sent=1, collapsed=5)
    edge["app"].on(f"{path}-change", reply(b"", f"Content-Location: {path}"))
    assert edge.get(f"{path}-change", method="POST", body=b"x").status == 200
    held.go()
    assert leader.response().body == b"0123456789"
    under_way(edge, path, request_sent=1, collapsed=4)
    anew.go()
    assert [response.body for response in answers(followers)] == [b"abcdefghij"] * 5
    assert len(edge["app"].seen(path)) == 2


# --- variants (RFC 9111 §4.1)


def test_each_variant_is_fetched_once(edge: Edge, path: str) -> None:
    """The first response says what it varies by; whoever wants another variant then collapses with their like."""
    vary = f"{FRESH}\r\nVary: Accept-Language"

    def answer(talk: Conversation) -> None:
        reply(talk.request["accept-language"].encode(), FRESH, "Vary: Accept-Language")(talk)

    held = Held(f"HTTP/1.1 200 OK\r\n{vary}\r\nContent-Length: 2\r\n\r\n".encode(), b"de", later=answer)
    edge["app"].on(path, held)
    languages = ["de", "fr", "en"] * 10
    leader = ask(edge, path, "Accept-Language: de")
    edge["app"].wait_for(path)
    crowd = [leader, *(ask(edge, path, f"Accept-Language: {language}") for language in languages[1:])]
    under_way(edge, path, request_sent=1, collapsed=29)
    held.go()
    assert [response.text for response in answers(crowd)] == languages
    assert sorted(seen["accept-language"] for seen in edge["app"].seen(path)) == ["de", "en", "fr"]


def test_who_asks_for_another_variant_while_one_streams_does_not_join_it(edge: Edge, path: str) -> None:
    head = f"HTTP/1.1 200 OK\r\n{FRESH}\r\nVary: Accept-Language\r\nContent-Length: 4\r\n\r\n".encode()
    held = Held(head, b"de", later=reply(b"fr", FRESH, "Vary: Accept-Language"))
    edge["app"].on(path, held)
    leader = ask(edge, path, "Accept-Language: de")
    edge["app"].wait_for(path)
    held.begin()
    under_way(edge, path, streaming=1)
    same = ask(edge, path, "Accept-Language: de")
    under_way(edge, path, streaming=2)
    assert edge.get(path, "Accept-Language: fr").text == "fr"
    held.send(b"de")
    held.end()
    assert [response.text for response in answers([leader, same])] == ["dede"] * 2
    assert len(edge["app"].seen(path)) == 2
