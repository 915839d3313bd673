"""PURGE, and what it shares with other ways to purge: who may, what goes, how soon, and what stays gone."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.cache.scripted import FRESH, counting, in_store, is_hit, other_processes, path_for, steps, unchanged
from tests.proxy.edges import Edge
from tests.support import Conversation, Node, Origin, gated, reply, request, until

ALLOWED = {"purge_allow": ["127.0.0.1", "127.0.1.0/24"]}
WITHIN_S = 1.0


@pytest.fixture(scope="module")
def edge() -> Iterator[Edge]:
    with Edge(
        app={},
        off={"route": {"enabled": False}},
        keyed={"route": {"query_deny": ["utm_*"], "key_headers": ["X-Tenant"]}},
        patient={"route": {"stale_while_revalidate": 60}},
        tables={"cache": {**ALLOWED, "store": "memory"}},
    ) as started:
        yield started


@pytest.fixture
def path(request: pytest.FixtureRequest) -> str:
    return path_for(request.node.name)


def purge(edge: Edge, target: str, *fields: str) -> list[dict[str, Any]]:
    """PURGE a target; what the node says it has purged."""
    response = edge.get(target, *fields, method="PURGE")
    assert (response.status, response["content-type"]) == (200, "application/json")
    assert response["cache-control"] == "no-store"
    found = json.loads(response.body)["purged"]
    assert isinstance(found, list)
    return found


# --- from whom


@pytest.mark.parametrize(("source", "status"), [("127.0.0.1", 200), ("127.0.1.9", 200), ("127.0.0.2", 403)])
def test_only_those_who_are_allowed_to_purge(edge: Edge, path: str, source: str, status: int) -> None:
    edge["app"].on(path, counting(FRESH))
    edge.get(path)
    with edge.connect(source=source) as client:
        response = client.get(path, method="PURGE")
    assert response.status == status
    if status == 403:
        assert response.problem["code"] == "purge_refused"
    assert edge.record(response)["outcome"] == ("ok" if status == 200 else "refused")
    assert is_hit(edge.get(path)) is (status == 403)
    assert all(seen.method == "GET" for seen in edge["app"].seen(path))


def test_a_forwarded_address_does_not_count(edge: Edge, path: str) -> None:
    edge["app"].on(path, counting(FRESH))
    edge.get(path)
    with edge.connect(source="127.0.0.2") as client:
        fields = ["X-Forwarded-For: 127.0.0.1", "Forwarded: for=127.0.0.1", "X-Real-IP: 127.0.0.1"]
        assert client.get(path, *fields, method="PURGE").status == 403
    assert is_hit(edge.get(path))


def test_nobody_may_purge_where_nothing_says_so(node: Node, origin: Origin) -> None:
    origin.on("/x", counting(FRESH))
    with node.connect() as client:
        client.get("/x")
        assert client.get("/x", method="PURGE").status == 403
        assert is_hit(client.get("/x"))


def test_a_route_without_a_cache_has_nothing_to_purge(edge: Edge) -> None:
    response = edge.get("/off/x", method="PURGE")
    assert (response.status, response.problem["code"]) == (404, "not_cached_here")
    assert edge["off"].seen("/off/x") == []


# --- what goes


def test_a_url_goes_with_all_its_variants_and_no_other(edge: Edge, path: str) -> None:
    edge["app"].on(path, counting(FRESH, "Vary: Accept-Language"))
    edge["app"].on(path + "/below", counting(FRESH))
    languages = ["Accept-Language: de", "Accept-Language: fr"]
    before = [edge.get(path, language).text for language in languages]
    edge.get(path + "?a=1")
    edge.get(path + "/below")
    assert purge(edge, path) == [{"kind": "url", "value": f"http://edge.test{path}", "soft": False}]
    assert {edge.get(path, language).text for language in languages}.isdisjoint(before)
    assert is_hit(edge.get(path + "?a=1"))
    assert is_hit(edge.get(path + "/below"))


def test_a_prefix_goes_with_all_below(edge: Edge, path: str) -> None:
    targets = [f"{path}/a", f"{path}/a/b?c=d", f"{path}/b"]
    for target in targets:
        edge["app"].on(target.partition("?")[0], counting(FRESH))
        edge.get(target)
    assert purge(edge, f"{path}/a*") == [{"kind": "prefix", "value": f"http://edge.test{path}/a", "soft": False}]
    assert [is_hit(edge.get(target)) for target in targets] == [False, False, True]


@pytest.mark.parametrize("field", ["Surrogate-Key", "Cache-Tag"])
def test_tags_go_wherever_they_are(edge: Edge, path: str, field: str) -> None:
    separator = " " if field == "Surrogate-Key" else ", "
    tags = {"/a": f"{path}-1{separator}common-{path}", "/b": f"{path}-2{separator}common-{path}", "/c": f"{path}-1x"}
    for name, value in tags.items():
        edge["app"].on(path + name, counting(FRESH, f"{field}: {value}"))

    def hits() -> list[bool]:
        return [is_hit(edge.get(path + name)) for name in tags]

    assert hits() == [False, False, False]
    purge(edge, "/app/", f"Surrogate-Key: {path}-1")
    assert hits() == [False, True, True]
    purge(edge, "/app/", f"Cache-Tag: {path}-2, nothing")
    assert hits() == [True, False, True]
    purge(edge, "/app/", f"Surrogate-Key: common-{path}")
    assert hits() == [False, False, True]


def test_tags_are_for_the_edge_and_do_not_reach_clients(edge: Edge, path: str) -> None:
    edge["app"].on(path, reply(b"x", FRESH, "Surrogate-Key: a b", "Cache-Tag: c"))
    for response in (edge.get(path), edge.get(path), edge.get(path, method="HEAD")):
        assert (response.get("surrogate-key"), response.get("cache-tag")) == (None, None)


def test_tags_that_came_with_a_304_count(edge: Edge, path: str) -> None:
    old, new = f"old-{path}", f"new-{path}"
    edge["app"].on(
        path,
        steps(
            reply(b"first", "Cache-Control: max-age=0", 'ETag: "x"', f"Surrogate-Key: {old}"),
            unchanged(FRESH, 'ETag: "x"', f"Surrogate-Key: {new}"),
            reply(b"second", FRESH),
        ),
    )
    for _ in range(2):
        assert edge.get(path).body == b"first"
    purge(edge, "/app/", f"Surrogate-Key: {old}")
    assert is_hit(edge.get(path))
    purge(edge, "/app/", f"Surrogate-Key: {new}")
    assert edge.get(path).body == b"second"


def test_a_url_is_purged_as_its_route_keys_it(edge: Edge) -> None:
    edge["keyed"].on("/keyed/x", counting(FRESH))
    for tenant in ("X-Tenant: a", "X-Tenant: b"):
        edge.get("/keyed/x?a=1&utm_x=1", tenant)
    purge(edge, "/keyed/x?utm_y=2&a=1")
    for tenant in ("X-Tenant: a", "X-Tenant: b"):
        assert not is_hit(edge.get("/keyed/x?a=1", tenant))


@pytest.mark.parametrize("field", ["X-Purge-Soft: 1", "Fastly-Soft-Purge: 1"])
def test_a_soft_purge_makes_stale_and_no_more(edge: Edge, path: str, field: str) -> None:
    edge["app"].on(path, steps(reply(b"hello", FRESH, 'ETag: "x"'), unchanged(FRESH, 'ETag: "x"')))
    edge.get(path)
    assert purge(edge, path, field)[0]["soft"] is True
    stale = edge.get(path, "Cache-Control: max-stale=60")
    assert (stale.body, edge.record(stale)["cache"]) == (b"hello", "STALE")
    validated = edge.get(path)
    assert (validated.body, edge.record(validated)["cache"]) == (b"hello", "REVALIDATED")
    assert edge["app"].seen(path)[1]["if-none-match"] == '"x"'
    assert is_hit(edge.get(path))


def test_what_is_softly_purged_is_served_while_it_is_fetched_anew(edge: Edge) -> None:
    path = "/patient/x"
    edge["patient"].on(path, counting(FRESH))
    edge.get(path)
    purge(edge, path, "X-Purge-Soft: 1")
    response = edge.get(path)
    assert (response.text, edge.record(response)["cache"]) == ("answer 1", "STALE")
    until(lambda: edge.get(path).text == "answer 2", "the new response to be served")


def test_a_hard_purge_after_a_soft_one_is_hard(edge: Edge, path: str) -> None:
    edge["app"].on(path, counting(FRESH, 'ETag: "x"'))
    edge.get(path)
    purge(edge, path, "X-Purge-Soft: 1")
    purge(edge, path)
    purge(edge, path, "X-Purge-Soft: 1")
    assert edge.get(path, "Cache-Control: max-stale").text == "answer 2"
    assert edge["app"].seen(path)[1].get("if-none-match") is None


# --- while it is being fetched


@pytest.mark.parametrize("how", ["url", "prefix", "tag", "softly"])
def test_a_fetch_under_way_reaches_its_clients_and_is_not_kept(edge: Edge, path: str, how: str) -> None:
    gate, begun = threading.Event(), threading.Event()

    def slowly(talk: Conversation) -> None:
        talk.send(f"HTTP/1.1 200 OK\r\n{FRESH}\r\nSurrogate-Key: tag-{path}\r\nContent-Length: 6\r\n\r\nold".encode())
        begun.set()
        talk.wait(gate)
        talk.send(b"old")

    edge["app"].on(path, steps(slowly, reply(b"new", FRESH)))
    with edge.connect() as leader, edge.connect() as follower:
        leader.send(request(path))
        begun.wait(20)
        follower.send(request(path))
        assert follower.head().status == 200
        match how:
            case "url":
                purge(edge, path)
            case "prefix":
                purge(edge, path[:-1] + "*")
            case "tag":
                purge(edge, "/app/", f"Surrogate-Key: tag-{path}")
            case _:
                purge(edge, path, "X-Purge-Soft: 1")
        gate.set()
        assert leader.response().body == b"oldold"
        assert follower.stream.take(6) == b"oldold"
    response = edge.get(path)
    assert (response.body, is_hit(response)) == (b"new", False)
    assert is_hit(edge.get(path))


@pytest.mark.parametrize("how", ["url", "tag"])
def test_who_comes_after_a_purge_does_not_wait_for_what_was_asked_before(edge: Edge, path: str, how: str) -> None:
    gate = threading.Event()
    tag = f"Surrogate-Key: tag-{path}"
    edge["app"].on(path, steps(gated(gate, reply(b"old", FRESH, tag)), reply(b"new", FRESH, tag)))
    with edge.connect() as early, edge.connect() as late:
        early.send(request(path))
        edge["app"].wait_for(path)
        purge(edge, *((path,) if how == "url" else ("/app/", tag)))
        late.send(request(path))
        edge.settle()
        gate.set()
        assert early.response().body == b"old"
        assert late.response().body == b"new"
    assert edge.get(path).body == b"new"


def test_a_purge_of_something_else_leaves_a_fetch_alone(edge: Edge, path: str) -> None:
    gate = threading.Event()
    edge["app"].on(path, gated(gate, counting(FRESH)))
    with edge.connect() as one, edge.connect() as other:
        one.send(request(path))
        edge["app"].wait_for(path)
        purge(edge, path + "/other")
        other.send(request(path))
        edge.settle()
        gate.set()
        assert (one.response().text, other.response().text) == ("answer 1", "answer 1")
    assert is_hit(edge.get(path))


def test_pipelined_behind_a_purge_comes_what_is_new(edge: Edge, path: str) -> None:
    edge["app"].on(path, counting(FRESH))
    with edge.connect() as client:
        client.send(request(path) + request(path, method="PURGE") + request(path) * 2)
        texts = [client.response("PURGE" if index == 1 else "GET").text for index in range(4)]
    assert [texts[0], *texts[2:]] == ["answer 1", "answer 2", "answer 2"]


# --- on all workers, and for good


@pytest.mark.parametrize("store", ["memory", "embedded"])
def test_a_purge_through_one_worker_holds_in_all_within_a_second(origin: Origin, store: str) -> None:
    workers = 3
    body = {"is": b"0"}

    def handle(talk: Conversation) -> None:
        reply(body["is"], FRESH, "Surrogate-Key: t")(talk)

    origin.on("/x", handle)
    with Node(origin.url, workers=workers, cache={**ALLOWED, "store": store}) as node:
        ways: list[Callable[[], object]] = [
            lambda: purged("/x"),
            lambda: purged("/*"),
            lambda: purged("/", "Surrogate-Key: t"),
        ]

        def purged(target: str, *fields: str) -> None:
            with node.connect() as client:
                assert client.get(target, *fields, method="PURGE").status == 200

        for number, way in enumerate(ways):
            everywhere(node, workers, body["is"])
            body["is"] = b"%d" % (number + 1)
            way()
            begun = time.monotonic()
            everywhere(node, workers, body["is"], since=begun)


def everywhere(node: Node, workers: int, body: bytes, since: float | None = None) -> None:
    """Ask until every worker has answered; after `WITHIN_S`, or at once without `since`, each must say `body`."""
    served: set[int] = set()
    while len(served) < workers:
        with node.connect() as client:
            response = client.get("/x")
        if since is None or time.monotonic() - since > WITHIN_S or response.body == body:
            assert response.body == body
            served.add(node.record(response.trace_id)["worker"])


@pytest.mark.parametrize("how", ["restart", "reload", "kill"])
def test_what_was_purged_stays_gone(origin: Origin, how: str) -> None:
    paths = ["/x", "/below/a", "/below/b", "/y"]
    for path in paths:
        origin.on(path, counting(FRESH))
    with Node(origin.url, cache=ALLOWED) as node:
        with node.connect() as client:
            for path in paths:
                client.get(path)
        in_store(node, "/y")
        with node.connect() as client:
            for target in ("/x", "/below/*"):
                assert client.get(target, method="PURGE").status == 200
        other_processes(node, how)
        with node.connect() as client:
            assert [is_hit(client.get(path)) for path in paths] == [False, False, False, True]
