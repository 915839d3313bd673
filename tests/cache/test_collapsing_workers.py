"""One fetch a key a node: several workers with a store in common, the clients spread over them."""

import os
import re
import signal
from collections.abc import Iterator

import pytest

from edgeproxy.node.status import read_status
from tests.cache.crowds import SLOTS, Held, answers, ask, lines_of, under_way
from tests.proxy.edges import Edge
from tests.support import Cut, Record, reply, until

FRESH = "Cache-Control: max-age=60"
HEAD = f"HTTP/1.1 200 OK\r\n{FRESH}\r\nContent-Length: 10\r\n\r\n".encode()
ALL = 30


@pytest.fixture(scope="module")
def edge() -> Iterator[Edge]:
    with Edge(app={"retries": 0}, tables={"workers": 3}) as started:
        yield started


@pytest.fixture
def path(request: pytest.FixtureRequest) -> str:
    return "/app/" + re.sub(r"[^A-Za-z0-9]+", "-", request.node.name)


def in_store(edge: Edge, path: str, *fields: str) -> None:
    """Wait until all workers find a response; a HEAD has nothing fetched anew."""

    def found() -> bool:
        answers = [edge.get(path, "Cache-Control: only-if-cached", *fields, method="HEAD") for _ in range(20)]
        return {answer.status for answer in answers} == {200}

    until(found, "the response to be in the store")


def test_a_crowd_on_all_workers_costs_the_origin_one_request(edge: Edge, path: str) -> None:
    held = Held(HEAD, b"0123456789")
    edge["app"].on(path, held)
    crowd = [ask(edge, path) for _ in range(ALL)]
    under_way(edge, path, request_sent=1, collapsed=ALL - 1)
    held.go()
    assert [response.body for response in answers(crowd)] == [b"0123456789"] * ALL
    assert len(edge["app"].seen(path)) == 1
    lines = lines_of(edge, path, ALL)
    assert sorted(line["cache"] for line in lines) == ["COLLAPSED"] * (ALL - 1) + ["MISS"]
    assert {line["filled_by"] for line in lines if line["cache"] == "COLLAPSED"} == {
        edge["app"].seen(path)[0]["traceparent"]
    }
    assert len({line["worker"] for line in lines}) == 3, "the connections are spread"
    assert {line["cache_tier"] for line in lines} <= {None, "embedded", "memory"}


def test_a_validation_is_one_as_well(edge: Edge, path: str) -> None:
    edge["app"].on(path, reply(b"0123456789", FRESH, 'ETag: "1"'))
    edge.get(path)
    in_store(edge, path)
    held = Held(f'HTTP/1.1 304 Not Modified\r\n{FRESH}\r\nETag: "1"\r\nX-A: new\r\n\r\n'.encode())
    edge["app"].on(path, held)
    before = len(edge["app"].seen(path))
    crowd = [ask(edge, path, "Cache-Control: no-cache") for _ in range(ALL)]
    under_way(edge, path, request_sent=1, collapsed=ALL - 1)
    held.go()
    responses = answers(crowd)
    assert {(response.body, response["x-a"]) for response in responses} == {(b"0123456789", "new")}
    assert len(edge["app"].seen(path)) == before + 1


def test_one_variant_on_its_way_holds_no_other_up(edge: Edge, path: str) -> None:
    edge["app"].on(path, reply(b"de", FRESH, "Vary: Accept-Language"))
    edge.get(path, "Accept-Language: de")
    in_store(edge, path, "Accept-Language: de")
    held = Held(later=reply(b"en", FRESH, "Vary: Accept-Language"))
    edge["app"].on(path, held)
    waiting = ask(edge, path, "Accept-Language: fr")
    edge["app"].wait_for(path, 2)
    responses = answers([ask(edge, path, "Accept-Language: en") for _ in range(ALL)])
    assert {response.body for response in responses} == {b"en"}
    waiting.reset()
    assert held.left.wait(20)
    held.end()


def test_a_stale_response_is_fetched_anew_by_one_worker(edge: Edge, path: str) -> None:
    stale = ["Cache-Control: max-age=60, stale-while-revalidate=60", "Age: 70", 'ETag: "1"']
    edge["app"].on(path, reply(b"old", *stale))
    edge.get(path)
    in_store(edge, path)
    held = Held(HEAD, b"0123456789", later=reply(b"too many", FRESH))
    edge["app"].on(path, held)
    responses = answers([ask(edge, path) for _ in range(ALL)])
    assert {response.body for response in responses} == {b"old"}
    edge["app"].wait_for(path, 2)
    held.go()
    until(lambda: {edge.get(path).body for _ in range(20)} == {b"0123456789"}, "all workers to have the new response")
    under_way(edge, path)
    assert len(edge["app"].seen(path)) == 2

    def caused() -> list[Record]:
        """Another worker may begin one, too, but finds in the store what this one has fetched, and asks nobody."""
        lines = [line for line in edge.node.lines() if line["path"] == path]
        return [line for line in lines if line["caused_by"] is not None and line["origin"] is not None]

    assert len(until(caused, "the background fetch's line")) == 1


def test_when_the_worker_that_fetches_dies_another_one_takes_over(edge: Edge, path: str) -> None:
    held = Held(later=reply(b"anew", FRESH))
    edge["app"].on(path, held)
    crowd = [ask(edge, path) for _ in range(ALL)]
    under_way(edge, path, request_sent=1, collapsed=ALL - 1)
    requests = read_status(edge.node.runtime_dir, oldest=SLOTS).requests
    (fetching,) = (one.worker for one in requests if one.path == path and one.stage == "request_sent")
    lost = sum(one.worker == fetching for one in requests if one.path == path)
    os.kill(edge.node.worker(fetching).pid, signal.SIGKILL)
    bodies = []
    for client in crowd:
        try:
            bodies.append(client.response().body)
        except Cut:
            bodies.append(b"cut")
        client.close()
    assert sorted(bodies) == [b"anew"] * (ALL - lost) + [b"cut"] * lost
    assert len(edge["app"].seen(path)) == 2
    lines = lines_of(edge, path, ALL)
    assert sorted(line["outcome"] for line in lines) == ["lost"] * lost + ["ok"] * (ALL - lost)
    edge.node.worker(fetching)
    held.end("close")


def test_what_is_not_stored_releases_the_clients_of_all_workers(edge: Edge, path: str) -> None:
    held = Held(
        b"HTTP/1.1 200 OK\r\nCache-Control: no-store\r\nContent-Length: 3\r\n\r\n",
        b"own",
        later=reply(b"own", "Cache-Control: no-store"),
    )
    edge["app"].on(path, held)
    crowd = [ask(edge, path) for _ in range(ALL)]
    under_way(edge, path, request_sent=1, collapsed=ALL - 1)
    held.go()
    assert [response.body for response in answers(crowd)] == [b"own"] * ALL
    assert {line["cache"] for line in lines_of(edge, path, ALL)} == {"MISS"}
    assert len(edge["app"].seen(path)) == ALL


def test_when_all_clients_of_the_worker_that_fetches_have_left_another_one_takes_over(edge: Edge, path: str) -> None:
    held = Held(later=reply(b"anew", FRESH))
    edge["app"].on(path, held)
    crowd = {source: ask(edge, path, source=source) for source in (f"127.0.1.{number}" for number in range(1, ALL + 1))}
    under_way(edge, path, request_sent=1, collapsed=ALL - 1)
    requests = [one for one in read_status(edge.node.runtime_dir, oldest=SLOTS).requests if one.path == path]
    (fetching,) = (one.worker for one in requests if one.stage == "request_sent")
    gone = [crowd.pop(one.client) for one in requests if one.worker == fetching]
    for client in gone:
        client.reset()
    assert held.left.wait(20), "nobody is left there"
    assert {response.body for response in answers(list(crowd.values()))} == {b"anew"}
    assert len(edge["app"].seen(path)) == 2
    held.end()


def test_nobody_waits_for_ever_for_another_worker() -> None:
    with Edge(app={}, tables={"workers": 2, "cache": {"collapse_timeout": 0.5}}) as edge:
        edge["app"].on("/app/x", reply(b"old", FRESH, 'ETag: "1"'))
        edge.get("/app/x")
        in_store(edge, "/app/x")
        held = Held(later=reply(b"new", FRESH))
        edge["app"].on("/app/x", held)
        leader = ask(edge, "/app/x", "Cache-Control: no-cache")
        edge["app"].wait_for("/app/x", 2)
        crowd = [ask(edge, "/app/x", "Cache-Control: no-cache") for _ in range(10)]
        assert {response.body for response in answers(crowd)} == {b"new"}
        held.end("close")
        leader.close()
