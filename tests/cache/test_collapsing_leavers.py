"""Who waits for another's fetch, and who leaves: a follower harms nobody, a leader hands the fetch on, and when all
have gone nothing is left of it.
"""

import re
from collections.abc import Iterator

import pytest

from tests.cache.crowds import Held, answers, ask, lines_of, under_way
from tests.proxy.edges import Edge
from tests.support import Client, Conversation, reply

FRESH = "Cache-Control: max-age=60"
HEAD = f"HTTP/1.1 200 OK\r\n{FRESH}\r\nContent-Length: 10\r\n\r\n".encode()


@pytest.fixture(scope="module")
def edge() -> Iterator[Edge]:
    with Edge(app={}, authorized={"route": {"authorized": True}}) as started:
        yield started


@pytest.fixture
def path(request: pytest.FixtureRequest) -> str:
    return "/app/" + re.sub(r"[^A-Za-z0-9]+", "-", request.node.name)


def crowd(
    edge: Edge, path: str, held: Held, followers: int, *fields: str, origin: str = "app"
) -> tuple[Client, list[Client]]:
    """A leader that asks with these fields, whose request is at the origin, and so many that wait for its answer."""
    edge[origin].on(path, held)
    leader = ask(edge, path, *fields)
    edge[origin].wait_for(path)
    waiting = [ask(edge, path) for _ in range(followers)]
    if followers:
        under_way(edge, path, request_sent=1, collapsed=followers)
    return leader, waiting


def test_a_follower_that_leaves_before_the_head_harms_nobody(edge: Edge, path: str) -> None:
    held = Held(HEAD, b"0123456789")
    leader, followers = crowd(edge, path, held, 3)
    followers[1].reset()
    under_way(edge, path, request_sent=1, collapsed=2)
    held.go()
    assert [response.body for response in answers([leader, followers[0], followers[2]])] == [b"0123456789"] * 3
    lines = lines_of(edge, path, 4)
    assert [(line["cache"], line["stage"], line["status"]) for line in lines if line["outcome"] == "client_abort"] == [
        ("COLLAPSED", "collapsed", None)
    ]


def test_a_follower_that_leaves_in_the_middle_harms_nobody(edge: Edge, path: str) -> None:
    held = Held(HEAD, b"01234")
    leader, followers = crowd(edge, path, held, 3)
    held.begin()
    under_way(edge, path, streaming=4)
    followers[1].head()
    assert followers[1].stream.take(5) == b"01234"
    followers[1].reset()
    under_way(edge, path, streaming=3)
    held.send(b"56789")
    held.end()
    assert [response.body for response in answers([leader, followers[0], followers[2]])] == [b"0123456789"] * 3
    aborted = [line for line in lines_of(edge, path, 4) if line["outcome"] != "ok"]
    assert [(line["cache"], line["outcome"], line["bytes_out"]) for line in aborted] == [
        ("COLLAPSED", "client_abort", 5)
    ]


def test_a_leader_that_leaves_before_the_head_hands_the_fetch_on(edge: Edge, path: str) -> None:
    held = Held(HEAD, b"0123456789")
    leader, followers = crowd(edge, path, held, 3)
    leader.reset()
    under_way(edge, path, collapsed=3)
    held.go()
    responses = answers(followers)
    assert [(one.body, one["x-cache"]) for one in responses] == [(b"0123456789", "COLLAPSED")] * 3
    assert len(edge["app"].seen(path)) == 1
    (left, *others) = sorted(lines_of(edge, path, 4), key=lambda line: str(line["outcome"] != "client_abort"))
    assert (left["outcome"], left["cache"], left["stage"]) == ("client_abort", "MISS", "request_sent")
    (attempt,) = left["attempts"]
    span = edge["app"].seen(path)[0]["traceparent"]
    assert span == f"00-{left['trace_id']}-{attempt['span_id']}-03"
    assert {line["filled_by"] for line in others} == {span}
    with edge.connect() as client:
        assert client.get(path)["x-cache"] == "HIT"


def test_a_leader_that_leaves_in_the_middle_hands_the_fetch_on(edge: Edge, path: str) -> None:
    held = Held(HEAD, b"01234")
    leader, followers = crowd(edge, path, held, 3)
    held.begin()
    under_way(edge, path, streaming=4)
    leader.reset()
    under_way(edge, path, streaming=3)
    late = ask(edge, path)
    under_way(edge, path, streaming=4)
    held.send(b"56789")
    held.end()
    assert [response.body for response in answers([*followers, late])] == [b"0123456789"] * 4
    assert len(edge["app"].seen(path)) == 1
    (left,) = (line for line in lines_of(edge, path, 5) if line["outcome"] != "ok")
    assert (left["outcome"], left["cache"], left["origin_status"], len(left["attempts"])) == (
        "client_abort",
        "MISS",
        200,
        1,
    )
    with edge.connect() as client:
        assert client.get(path)["x-cache"] == "HIT"


def test_one_leader_after_the_other_may_leave(edge: Edge, path: str) -> None:
    held = Held(HEAD, b"0123456789")
    leader, followers = crowd(edge, path, held, 5)
    for left, client in enumerate([leader, *followers[:4]], 1):
        client.reset()
        under_way(edge, path, collapsed=6 - left)
    held.go()
    assert followers[4].response().body == b"0123456789"
    assert len(edge["app"].seen(path)) == 1
    assert sorted(line["outcome"] for line in lines_of(edge, path, 6)) == ["client_abort"] * 5 + ["ok"]


@pytest.mark.parametrize("begun", [False, True], ids=["before-the-head", "in-the-middle"])
def test_when_all_have_left_the_fetch_ends(edge: Edge, path: str, begun: bool) -> None:
    held = Held(HEAD, b"01234", later=reply(b"anew", FRESH))
    leader, followers = crowd(edge, path, held, 3)
    if begun:
        held.begin()
        under_way(edge, path, streaming=4)
    for client in (followers[0], leader, *followers[1:]):
        client.reset()
    under_way(edge, path)
    assert held.left.wait(20), "the origin's connection is closed"
    assert {line["outcome"] for line in lines_of(edge, path, 4)} == {"client_abort"}
    assert edge.get(path).body == b"anew"
    held.end()


# --- whose answer is it: a request that was asked by somebody else


def test_a_private_answer_is_not_the_heirs(edge: Edge, path: str) -> None:
    """The leader's own response, asked for with its cookie, must not reach who inherits the fetch."""
    own = reply(b"for everybody", "Cache-Control: private")
    held = Held(
        b"HTTP/1.1 200 OK\r\nCache-Control: private\r\nSet-Cookie: id=leader\r\nContent-Length: 6\r\n\r\nsecret",
        later=own,
    )
    leader, followers = crowd(edge, path, held, 3, "Cookie: id=leader")
    leader.reset()
    under_way(edge, path, collapsed=3)
    held.go()
    responses = answers(followers)
    assert [response.body for response in responses] == [b"for everybody"] * 3
    assert all(response.get("set-cookie") is None for response in responses)
    assert [seen.get("cookie") for seen in edge["app"].seen(path)] == ["id=leader", None, None, None]


def test_what_was_asked_for_with_authorization_is_not_stored_for_the_heir(edge: Edge) -> None:
    """On a route where it might have been stored, had the origin said that it is public (RFC 9111 §3.5)."""
    path = "/authorized/x"
    held = Held(
        f"HTTP/1.1 200 OK\r\n{FRESH}\r\nContent-Length: 6\r\n\r\n".encode(), b"secret", later=reply(b"public", FRESH)
    )
    leader, (follower,) = crowd(edge, path, held, 1, "Authorization: Basic eA==", origin="authorized")
    leader.reset()
    under_way(edge, path, collapsed=1)
    held.go()
    assert follower.response().body == b"public"
    assert edge.get(path).body == b"public"


def test_a_variant_is_stored_as_the_one_that_was_asked_for(edge: Edge, path: str) -> None:
    """The request at the origin is the leader's, whoever has inherited it."""

    def answer(talk: Conversation) -> None:
        reply(talk.request["accept-language"].encode(), FRESH, "Vary: Accept-Language")(talk)

    held = Held(
        f"HTTP/1.1 200 OK\r\n{FRESH}\r\nVary: Accept-Language\r\nContent-Length: 2\r\n\r\n".encode(),
        b"de",
        later=answer,
    )
    leader, _ = crowd(edge, path, held, 0, "Accept-Language: de")
    first = ask(edge, path, "Accept-Language: fr")
    under_way(edge, path, request_sent=1, collapsed=1)
    second = ask(edge, path, "Accept-Language: de")
    under_way(edge, path, request_sent=1, collapsed=2)
    leader.reset()
    under_way(edge, path, collapsed=2)
    held.go()
    assert [response.text for response in answers([first, second])] == ["fr", "de"]
    assert [edge.get(path, f"Accept-Language: {language}").text for language in ("de", "fr")] == ["de", "fr"]
    assert [seen["accept-language"] for seen in edge["app"].seen(path)] == ["de", "fr"]
