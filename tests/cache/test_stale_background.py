"""While it is revalidated (RFC 5861 §3): a stale response at once, and one fetch on the edge's own account."""

import re
import signal
import time
from collections.abc import Iterator

import pytest

from tests.cache.crowds import Held, answers, ask, lines_of, under_way, words
from tests.proxy.edges import Edge
from tests.support import Handler, Record, raw, reply, until

ETAG = 'ETag: "1"'
STALE = ["Cache-Control: max-age=60, stale-while-revalidate=60", "Age: 70", ETAG]
UNCHANGED = b'HTTP/1.1 304 Not Modified\r\nCache-Control: max-age=60\r\nETag: "1"\r\n\r\n'


@pytest.fixture(scope="module")
def edge() -> Iterator[Edge]:
    with Edge(
        app={"first_byte_timeout": 5, "retries": 0},
        floor={"retries": 0, "route": {"stale_while_revalidate": 60}},
        small={"retries": 0, "route": {"max_object_bytes": 1000}},
    ) as started:
        yield started


@pytest.fixture
def path(request: pytest.FixtureRequest) -> str:
    return "/app/" + re.sub(r"[^A-Za-z0-9]+", "-", request.node.name)


def store(edge: Edge, path: str, then: Handler, *fields: str, origin: str = "app") -> None:
    """Have a stale response stored; the next request for it gets `then`."""
    edge[origin].on(path, reply(b"old", *(fields or STALE)))
    assert "stored" in edge.get(path)["cache-status"]
    edge[origin].on(path, then)


def until_refreshed(edge: Edge, path: str, count: int) -> int:
    """Ask until the origin has been asked so many times in all; each answer is the stale one. How many that took."""
    requests = 0

    def begun() -> bool:
        nonlocal requests
        requests += 1
        assert edge.get(path).body == b"old"
        edge.settle()
        return len(edge["app"].seen(path)) >= count

    until(begun, f"request {count} at the origin")
    under_way(edge, path)
    return requests


def of_background(lines: list[Record]) -> list[Record]:
    return [line for line in lines if line["caused_by"] is not None]


@pytest.mark.parametrize("says_so", ["response", "route"])
def test_a_stale_response_is_served_at_once_and_fetched_anew_once(edge: Edge, path: str, says_so: str) -> None:
    origin = "app" if says_so == "response" else "floor"
    path = path.replace("/app/", f"/{origin}/")
    held = Held(b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 3\r\n\r\n", b"new")
    fields = STALE if says_so == "response" else ["Cache-Control: max-age=60", "Age: 70"]
    store(edge, path, held, *fields, origin=origin)
    crowd = answers([ask(edge, path) for _ in range(20)])
    edge[origin].wait_for(path, 2)
    late = edge.get(path)
    for response in (*crowd, late):
        assert (response.status, response.body) == (200, b"old")
        assert re.fullmatch(r"edge-1; hit; ttl=-1\d", response["cache-status"])
        assert 70 <= int(response["age"]) < 80
    assert words([*crowd, late]) == {"STALE": 21}
    under_way(edge, path, request_sent=1)
    held.go()
    under_way(edge, path)
    hit = edge.get(path)
    assert (hit.body, hit["x-cache"], hit["age"]) == (b"new", "HIT", "0")
    assert len(edge[origin].seen(path)) == 2
    assert len(of_background(lines_of(edge, path, 24))) == 1


def test_what_the_edge_fetches_is_recorded_as_its_own(edge: Edge, path: str) -> None:
    held = Held(UNCHANGED)
    store(edge, path, held)
    before = edge.node.worker().requests
    cause = edge.get(path, "User-Agent: x")
    edge["app"].wait_for(path, 2)
    held.go()
    lines = lines_of(edge, path, 3)
    (line,) = of_background(lines)
    assert line["caused_by"] == cause["traceresponse"]
    assert (line["client"], line["parent_id"], line["method"], line["outcome"]) == (None, None, "GET", "ok")
    assert (line["cache"], line["status"], line["origin_status"], line["bytes_out"]) == ("REVALIDATED", 200, 304, 0)
    assert line["trace_id"] not in {one["trace_id"] for one in lines if one is not line}
    (attempt,) = line["attempts"]
    sent = edge["app"].seen(path)[1]
    assert sent["traceparent"] == f"00-{line['trace_id']}-{attempt['span_id']}-03"
    assert sent["if-none-match"] == '"1"'
    assert [one["caused_by"] for one in lines if one is not line] == [None, None]
    hit = edge.get(path)
    assert (hit.body, hit["x-cache"]) == (b"old", "HIT")
    assert edge.record(hit)["filled_by"] == sent["traceparent"]
    assert until(lambda: edge.node.worker().requests) - before == 2, "the cause and the hit"


@pytest.mark.parametrize("cause", [['If-None-Match: "1"'], ["Range: bytes=0-1"], ["Cookie: a=b", "X-Unknown: y"]])
def test_whatever_caused_it_the_whole_is_fetched(edge: Edge, path: str, cause: list[str]) -> None:
    store(edge, path, reply(b"new", "Cache-Control: max-age=60", 'ETag: "2"'))
    response = edge.get(path, *cause)
    assert response["x-cache"] == "STALE"
    assert response.status == {"If": 304, "Ra": 206, "Co": 200}[cause[0][:2]]
    edge["app"].wait_for(path, 2)
    under_way(edge, path)
    sent = edge["app"].seen(path)[1]
    assert (sent.get("range"), sent.get("if-none-match")) == (None, '"1"')
    assert edge.get(path).body == b"new"


@pytest.mark.parametrize(
    "failure",
    [
        pytest.param(raw(then="close"), id="closes"),
        pytest.param(reply(b"sorry", status="503 Service Unavailable"), id="503"),
        pytest.param(
            raw(b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 9\r\n\r\nnew", then="close"),
            id="middle",
        ),
    ],
)
def test_a_fetch_that_fails_changes_nothing_and_is_tried_again(edge: Edge, path: str, failure: Handler) -> None:
    store(edge, path, failure)
    asked = 1
    for count in (2, 3):
        asked += until_refreshed(edge, path, count)
    failed = of_background(lines_of(edge, path, asked + 2))
    assert [line["outcome"] for line in failed] == ["origin_error" if failed[0]["error"] else "ok"] * 2
    edge["app"].on(path, raw(UNCHANGED))
    until_refreshed(edge, path, 4)
    assert edge.get(path)["x-cache"] == "HIT"


def test_an_origin_that_fails_at_once_is_left_alone_for_a_moment(edge: Edge, path: str) -> None:
    store(edge, path, raw(then="close"))
    began = time.monotonic()
    for _ in range(50):
        assert edge.get(path).body == b"old"
        under_way(edge, path)
    seconds = time.monotonic() - began
    assert len(edge["app"].seen(path)) <= 2 + seconds


def test_what_is_gone_at_the_origin_is_not_served_stale_any_more(edge: Edge, path: str) -> None:
    store(edge, path, reply(b"gone", status="404 Not Found"))
    assert edge.get(path).body == b"old"
    edge["app"].wait_for(path, 2)
    under_way(edge, path)
    assert edge.get(path).status == 404


def test_who_asks_for_a_new_response_waits_for_the_one_that_is_on_its_way(edge: Edge, path: str) -> None:
    held = Held(b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 6\r\n\r\n", b"new")
    store(edge, path, held)
    assert edge.get(path).body == b"old"
    edge["app"].wait_for(path, 2)
    wanting = ask(edge, path, "Cache-Control: no-cache")
    under_way(edge, path, request_sent=1, collapsed=1)
    held.begin()
    under_way(edge, path, streaming=2)
    held.send(b"new")
    held.end()
    response = wanting.response()
    assert (response.body, response["x-cache"]) == (b"newnew", "COLLAPSED")
    assert len(edge["app"].seen(path)) == 2


def test_behind_its_window_a_response_is_validated_first(edge: Edge, path: str) -> None:
    store(edge, path, raw(UNCHANGED), "Cache-Control: max-age=60, stale-while-revalidate=5", "Age: 70", ETAG)
    response = edge.get(path)
    assert (response.body, response["x-cache"]) == (b"old", "REVALIDATED")
    assert of_background(lines_of(edge, path, 2)) == []


@pytest.mark.parametrize("directive", ["must-revalidate", "proxy-revalidate", "s-maxage=60", "no-cache"])
@pytest.mark.parametrize("route", ["app", "floor"])
def test_what_must_be_revalidated_is_validated_first(edge: Edge, path: str, directive: str, route: str) -> None:
    path = path.replace("/app/", f"/{route}/")
    fields = [f"Cache-Control: max-age=60, stale-while-revalidate=60, {directive}", "Age: 70", ETAG]
    store(edge, path, raw(UNCHANGED), *fields, origin=route)
    response = edge.get(path)
    assert (response.body, response["x-cache"]) == (b"old", "REVALIDATED")


def test_what_has_become_too_large_is_not_fetched_for_nobody(edge: Edge) -> None:
    path = "/small/grown"
    held = Held(b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\n\r\n")
    store(edge, path, held, origin="small")
    assert edge.get(path).body == b"old"
    edge["small"].wait_for(path, 2)
    held.begin()
    held.send(b"7d0\r\n" + bytes(2000) + b"\r\n")
    assert held.left.wait(20), "the edge has closed the connection"
    held.end()
    assert len(of_background(lines_of(edge, path, 3))) == 1


def test_who_is_authorized_causes_no_fetch_that_could_not_be_stored(edge: Edge, path: str) -> None:
    store(edge, path, raw(UNCHANGED))
    assert edge.get(path, "Authorization: Basic eA==")["x-cache"] == "STALE"
    edge.settle()
    assert len(edge["app"].seen(path)) == 1
    assert edge.get(path)["x-cache"] == "STALE"
    edge["app"].wait_for(path, 2)


def test_a_fetch_under_way_has_its_line_when_the_node_stops() -> None:
    with Edge(app={}, tables={"limits": {"drain_timeout": 1}}) as edge:
        held = Held()
        store(edge, "/app/x", held)
        cause = edge.get("/app/x")
        edge["app"].wait_for("/app/x", 2)
        edge.node.signal(signal.SIGTERM)
        assert edge.node.wait() == 0
        (line,) = of_background(edge.node.lines())
        assert line["caused_by"] == cause["traceresponse"]
        assert (line["outcome"], line["error"]["type"], line["stage"]) == ("timeout", "drain_timeout", "request_sent")
