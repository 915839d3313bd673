"""What an unsafe request takes away (RFC 9111 §4.4): its target and what its response names, in every worker, and what
is being fetched at that moment.
"""

import threading
from collections.abc import Iterator

import pytest

from tests.cache.scripted import FRESH, answering, counting, is_hit, path_for
from tests.proxy.edges import Edge
from tests.support import Conversation, Handler, Node, Origin, gated, reply, request


@pytest.fixture(scope="module")
def edge() -> Iterator[Edge]:
    with Edge(
        app={},
        keyed={"route": {"query_deny": ["utm_*"]}},
        other={},
        tables={"cache": {"store": "memory"}},
    ) as started:
        yield started


@pytest.fixture
def path(request: pytest.FixtureRequest) -> str:
    return path_for(request.node.name)


def unless_safe(unsafe: Handler, safe: Handler) -> Handler:
    """One handler for GET and HEAD, another for everything else."""

    def handle(talk: Conversation) -> None:
        (safe if talk.request.method in {"GET", "HEAD"} else unsafe)(talk)

    return handle


@pytest.mark.parametrize("field", ["Location", "Content-Location"])
@pytest.mark.parametrize(
    ("reference", "invalidates"),
    [
        ("{path}/other", True),
        ("http://edge.test{path}/other", True),
        ("HTTP://Edge.Test:80{path}/other", True),
        ("//edge.test{path}/other", True),
        ("{path}/x/../other", True),
        ("{path}/other#part", True),
        ("{path}/other?query", False),
        ("http://elsewhere.test{path}/other", False),
        ("http://edge.test:81{path}/other", False),
        ("https://edge.test{path}/other", False),
        ("http://[{path}/other", False),
        ("", False),
    ],
)
def test_what_the_response_names_goes_where_it_is_of_the_same_origin(
    edge: Edge, path: str, field: str, reference: str, invalidates: bool
) -> None:
    other = path + "/other"
    edge["app"].on(other, counting(FRESH))
    changed = reply(b"", f"{field}: {reference.format(path=path)}", status="201 Created")
    edge["app"].on(path, unless_safe(changed, counting(FRESH)))
    edge.get(path)
    edge.get(other)
    assert edge.get(path, method="POST", body=b"x").status == 201
    assert edge.get(path).text == "answer 3"
    assert is_hit(edge.get(other)) is not invalidates


def test_names_of_another_host_on_the_same_node_stay_as_they_are(edge: Edge, path: str) -> None:
    """Whoever answers for one host has no say over another's (RFC 9111 §4.4)."""
    edge["app"].on(path, unless_safe(reply(b"", f"Location: http://victim.test{path}"), counting(FRESH)))
    with edge.connect() as client:
        client.send(request(path, host="victim.test")).response()
        client.send(request(path, method="POST", body=b"x")).response("POST")
        assert is_hit(client.send(request(path, host="victim.test")).response())


def test_a_relative_reference_is_resolved_against_the_target(edge: Edge, path: str) -> None:
    edge["app"].on(f"{path}/a/new", counting(FRESH))
    edge["app"].on(f"{path}/a/", reply(b"", "Location: new", status="303 See Other"))
    assert edge.get(f"{path}/a/new").text == "answer 1"
    edge.get(f"{path}/a/", method="POST", body=b"x")
    assert edge.get(f"{path}/a/new").text == "answer 2"


@pytest.mark.parametrize("status", ["404 Not Found", "409 Conflict", "500 Internal Server Error", "503 Busy"])
def test_what_failed_has_changed_nothing(edge: Edge, path: str, status: str) -> None:
    edge["app"].on(path, unless_safe(reply(b"", f"Location: {path}", status=status), counting(FRESH)))
    edge.get(path)
    edge.get(path, method="DELETE")
    assert is_hit(edge.get(path))


@pytest.mark.parametrize("method", ["OPTIONS", "HEAD", "PROPFIND"])
def test_a_safe_method_changes_nothing(edge: Edge, path: str, method: str) -> None:
    edge["app"].on(path, counting(FRESH))
    edge.get(path)
    edge.get(path, method=method)
    assert edge.get(path).text == "answer 1"


@pytest.mark.parametrize("method", ["LOCK", "MKCOL", "SUBSCRIBE"])
def test_a_method_that_nobody_knows_to_be_safe_counts_as_unsafe(edge: Edge, path: str, method: str) -> None:
    edge["app"].on(path, unless_safe(reply(b""), counting(FRESH)))
    edge.get(path)
    assert edge.get(path, method=method).status == 200
    assert edge.get(path).text == "answer 3"


def test_other_queries_of_the_same_path_stay(edge: Edge, path: str) -> None:
    edge["app"].on(path, unless_safe(reply(b""), counting(FRESH)))
    for query in ("", "?a=1"):
        edge.get(path + query)
    edge.get(path + "?a=1", method="POST", body=b"x")
    assert is_hit(edge.get(path))
    assert not is_hit(edge.get(path + "?a=1"))


def test_the_target_is_taken_as_the_route_keys_it(edge: Edge) -> None:
    path = "/keyed/x"
    edge["keyed"].on(path, unless_safe(reply(b"", f"Location: {path}?b=2&utm_z=1"), counting(FRESH)))
    for query in ("?a=1", "?b=2"):
        edge.get(path + query)
    edge.get(path + "?utm_x=y&a=1", method="POST", body=b"x")
    assert edge["keyed"].seen(path)[-1].target == "/keyed/x?utm_x=y&a=1"
    assert [is_hit(edge.get(path + query)) for query in ("?a=1", "?b=2")] == [False, False]


def test_a_fetch_that_began_before_the_change_is_not_kept(edge: Edge, path: str) -> None:
    gate = threading.Event()
    states = iter(["old", "new"])

    def read(talk: Conversation) -> None:
        state = next(states)
        (gated(gate, reply(b"old", FRESH)) if state == "old" else reply(b"new", FRESH))(talk)

    edge["app"].on(path, unless_safe(reply(b""), read))
    with edge.connect() as early:
        early.send(request(path))
        edge["app"].wait_for(path)
        assert edge.get(path, method="PUT", body=b"new").status == 200
        late = edge.get(path)
        gate.set()
        assert early.response().body == b"old"
    assert late.body == b"new"
    assert edge.get(path).body == b"new"


def test_who_asks_after_the_change_does_not_get_the_end_of_a_response_from_before(edge: Edge, path: str) -> None:
    gate = threading.Event()

    def read(talk: Conversation) -> None:
        if len(talk.origin.seen(path)) > 1:
            reply(b"new", FRESH)(talk)
            return
        talk.send(f"HTTP/1.1 200 OK\r\n{FRESH}\r\nContent-Length: 6\r\n\r\nold".encode())
        talk.wait(gate)
        talk.send(b"old")

    edge["app"].on(path, unless_safe(reply(b""), read))
    with edge.connect() as early:
        early.send(request(path))
        assert early.head().status == 200
        edge.get(path, method="DELETE")
        late = edge.get(path)
        gate.set()
        assert early.stream.take(6) == b"oldold"
    assert late.body == b"new"
    assert edge.get(path).body == b"new"


def test_a_validation_that_began_before_the_change_is_not_kept(edge: Edge, path: str) -> None:
    gate = threading.Event()

    def read(talk: Conversation) -> None:
        if talk.request.get("if-none-match"):
            gated(gate, answer_304)(talk)
        else:
            number = len(talk.origin.seen(path))
            reply(f"answer {number}".encode(), "Cache-Control: max-age=0", 'ETag: "x"')(talk)

    def answer_304(talk: Conversation) -> None:
        talk.send(f'HTTP/1.1 304 Not Modified\r\n{FRESH}\r\nETag: "x"\r\n\r\n'.encode())

    edge["app"].on(path, unless_safe(reply(b""), read))
    assert edge.get(path).text == "answer 1"
    with edge.connect() as early:
        early.send(request(path))
        edge["app"].wait_for(path, 2)
        edge.get(path, method="POST", body=b"x")
        gate.set()
        assert early.response().text == "answer 1"
    response = edge.get(path)
    assert (is_hit(response), response.text) == (False, "answer 4")


@pytest.mark.parametrize("store", ["memory", "embedded"])
def test_a_change_through_one_worker_holds_in_all_of_them(origin: Origin, store: str) -> None:
    workers = 3
    state = {"value": 0}
    handler = answering(lambda _: str(state["value"]), FRESH)
    origin.on("/x", unless_safe(reply(b""), handler))
    with Node(origin.url, workers=workers, cache={"store": store}) as node:
        for value in range(1, 6):
            served: set[int] = set()
            state["value"] = value
            with node.connect() as client:
                assert client.get("/x", method="POST", body=b"x").status == 200
            while len(served) < workers:
                with node.connect() as client:
                    response = client.get("/x")
                assert response.text == str(value)
                served.add(node.record(response.trace_id)["worker"])
