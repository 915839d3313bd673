"""What is stored outlives the processes that stored it: restarts, reloads, and workers that are killed at work."""

import random
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from itertools import count

import pytest

from tests.cache.scripted import counting, in_store, is_hit, other_processes, steps, ttl, unchanged
from tests.support import Broken, Conversation, Handler, Node, Origin, Response, reply, until

LONG = "Cache-Control: max-age=3600"
HOWS = ["restart", "reload", "kill"]
StartNode = Callable[..., Node]
_paths = count()


@pytest.fixture(scope="module")
def origin() -> Iterator[Origin]:
    with Origin() as started:
        yield started


@pytest.fixture(scope="module", params=HOWS)
def how(request: pytest.FixtureRequest) -> str:
    """How a node's processes make place for others."""
    return str(request.param)


@pytest.fixture(scope="module")
def lasting(origin: Origin, how: str) -> Iterator[Node]:
    """A node whose processes are replaced that way by each test, which asks for paths of its own."""
    with Node(origin.url) as started:
        yield started


@pytest.fixture
def path() -> str:
    return f"/{next(_paths)}"


def get(node: Node, target: str, *fields: str, method: str = "GET") -> Response:
    with node.connect() as client:
        return client.get(target, *fields, method=method)


def how_served(node: Node, response: Response) -> tuple[object, object]:
    """How a response was found, and where, by the log."""
    record = node.record(response.trace_id)
    return record["cache"], record["cache_tier"]


def test_what_is_stored_is_served_by_those_who_come_after(lasting: Node, origin: Origin, how: str, path: str) -> None:
    node, small, large, gone = lasting, f"{path}/small", f"{path}/large", f"{path}/gone"
    body = random.Random(3).randbytes(3_000_000)
    origin.on(small, reply(b"hello", LONG, "Age: 100", 'ETag: "x"', "X-A: 1", "x-a: 2", "Content-Type: text/css"))
    origin.on(large, reply(body, LONG))
    origin.on(gone, reply(b"gone", LONG, status="410 No More"))
    targets = [small, gone, large]
    filled = [get(node, target) for target in targets]
    in_store(node, targets[-1])
    before = get(node, small)
    other_processes(node, how)
    for target, old in zip(targets, filled, strict=True):
        first, second = get(node, target), get(node, target)
        assert [how_served(node, one) for one in (first, second)] == [("HIT", "embedded"), ("HIT", "memory")]
        for one in (first, second):
            assert is_hit(one)
            assert (one.start, one.body) == (old.start, old.body)
            assert node.record(one.trace_id)["filled_by"].split("-")[1] == old.trace_id
    after = get(node, small)
    moving = {b"age", b"cache-status", b"x-trace-id", b"traceresponse", b"server-timing"}
    lines = [[line for line in one.fields if line[0].lower() not in moving] for one in (before, after)]
    assert lines[0] == lines[1]
    assert 100 <= int(before["age"]) <= int(after["age"])
    assert ttl(after) in {3600 - int(after["age"]), 3599 - int(after["age"])}
    assert get(node, large, "Range: bytes=1000000-").body == body[1_000_000:]
    assert get(node, small, 'If-None-Match: "x"').status == 304
    assert get(node, small, method="HEAD")["content-length"] == "5"
    assert [len(origin.seen(target)) for target in targets] == [1, 1, 1]


def test_variants_are_told_apart_afterwards(lasting: Node, origin: Origin, how: str, path: str) -> None:
    node, last = lasting, f"{path}/last"
    origin.on(path, counting(LONG, "Vary: Accept-Language, X-B"))
    asked = [["Accept-Language: de"], ["Accept-Language: fr"], ["Accept-Language: de", "X-B: 1"], []]
    texts = [get(node, path, *fields).text for fields in asked]
    origin.on(last, reply(b"", LONG))
    get(node, last)
    in_store(node, last)
    other_processes(node, how)
    assert [get(node, path, *fields).text for fields in asked] == texts
    assert get(node, path, "Accept-Language: it").text == "answer 5"
    assert get(node, path, "Accept-Language: FR").text == texts[1]


def test_what_has_been_freshened_is_found_so_afterwards(lasting: Node, origin: Origin, how: str, path: str) -> None:
    node, last = lasting, f"{path}/last"
    steps_of = steps(
        reply(b"hello" * 10_000, "Cache-Control: max-age=0", 'ETag: "x"', "X-A: old"),
        unchanged(LONG, 'ETag: "x"', "X-A: new"),
    )
    origin.on(path, steps_of)
    origin.on(last, reply(b"", LONG))
    for _ in range(2):
        assert get(node, path).body == b"hello" * 10_000
    get(node, last)
    in_store(node, last)
    other_processes(node, how)
    hit = get(node, path)
    assert (is_hit(hit), hit.body, hit["x-a"], hit["cache-control"]) == (True, b"hello" * 10_000, "new", "max-age=3600")
    assert len(origin.seen(path)) == 2


@pytest.mark.parametrize("how", ["restart", "kill"], indirect=True)
def test_what_has_expired_meanwhile_is_validated(lasting: Node, origin: Origin, how: str, path: str) -> None:
    node = lasting
    origin.on(path, steps(reply(b"hello", "Cache-Control: max-age=1", 'ETag: "x"'), unchanged(LONG, 'ETag: "x"')))
    filled_at = time.monotonic()
    get(node, path)
    in_store(node, path)
    other_processes(node, how)
    until(lambda: time.monotonic() - filled_at > 1.1)
    response = get(node, path)
    assert (response.body, node.record(response.trace_id)["cache"]) == (b"hello", "REVALIDATED")
    assert origin.seen(path)[1]["if-none-match"] == '"x"'
    assert is_hit(get(node, path))


def test_what_is_stale_afterwards_is_still_better_than_an_error() -> None:
    with Origin() as origin, Node(origin.url) as node:
        origin.on("/x", reply(b"hello", "Cache-Control: max-age=60, stale-if-error=3600", "Age: 60"))
        get(node, "/x")
        in_store(node, "/x")
        other_processes(node, "restart")
        origin.stop()
        response = get(node, "/x")
        assert (response.status, response.body) == (200, b"hello")
        assert how_served(node, response) == ("STALE", "embedded")


def test_what_an_unsafe_request_took_away_stays_away(node: Node, origin: Origin, path: str) -> None:
    def handle(talk: Conversation) -> None:
        (counting(LONG) if talk.request.method == "GET" else reply(b""))(talk)

    origin.on(path, handle)
    get(node, path)
    in_store(node, path)
    with node.connect() as client:
        client.get(path, method="POST", body=b"x")
    other_processes(node, "restart")
    assert get(node, path).text == "answer 3"


def test_without_hot_memory_the_store_serves(start_node: StartNode, origin: Origin, path: str) -> None:
    node = start_node(cache={"memory_bytes": 0})
    vary, last = f"{path}/vary", f"{path}/last"
    origin.on(path, reply(b"x" * 100_000, LONG, 'ETag: "x"'))
    origin.on(vary, counting(LONG, "Vary: Accept"))
    get(node, path)
    in_store(node, path)
    for _ in range(3):
        response = get(node, path)
        assert (response.body, how_served(node, response)) == (b"x" * 100_000, ("HIT", "embedded"))
    assert get(node, path, "Range: bytes=0-1").status == 206
    assert get(node, path, 'If-None-Match: "x"').status == 304
    accepts = ["Accept: a", "Accept: b"]
    texts = [get(node, vary, accept).text for accept in accepts]
    origin.on(last, reply(b"", LONG))
    get(node, last)
    in_store(node, last)
    assert [get(node, vary, accept).text for accept in accepts] == texts == ["answer 1", "answer 2"]


def test_without_a_store_nothing_outlives_its_worker(start_node: StartNode, origin: Origin, path: str) -> None:
    node = start_node(cache={"store": "memory"})
    origin.on(path, counting(LONG))
    get(node, path)
    assert how_served(node, get(node, path)) == ("HIT", "memory")
    other_processes(node, "kill")
    assert get(node, path).text == "answer 2"


# --- killed at work


def content(path: str, version: int) -> bytes:
    """What a path holds: of any size, and telling on itself."""
    seed = zlib.crc32(path.encode()) + version
    size = random.Random(seed).choice([0, 10, 5_000, 70_000, 900_000])
    text = b"%b %d " % (path.encode(), version)
    return text + random.Random(seed).randbytes(size) + b"%08x" % zlib.crc32(text)


def versioned(versions: dict[str, int]) -> Handler:
    def handle(talk: Conversation) -> None:
        path = talk.request.target
        version = versions[path] = versions.get(path, 0) + 1
        reply(content(path, version), LONG, f"X-Version: {version}")(talk)

    return handle


def test_killed_at_work_no_worker_leaves_anything_torn(origin: Origin, monkeypatch: pytest.MonkeyPatch) -> None:
    versions: dict[str, int] = {}
    monkeypatch.setattr(origin, "default", versioned(versions))
    paths = [f"/object/{number}" for number in range(150)]
    stopping = threading.Event()
    wrong: list[str] = []
    answered = [0]

    def ask(node: Node, seed: int) -> None:
        chooser = random.Random(seed)
        while not stopping.is_set():
            try:
                with node.connect() as client:
                    for _ in range(10):
                        path = chooser.choice(paths)
                        reload = ["Cache-Control: no-cache"] if chooser.random() < 0.3 else []
                        response = client.get(path, *reload)
                        if response.body != content(path, int(response["x-version"])):
                            wrong.append(path)
                        answered[0] += 1
            except (Broken, OSError):
                continue  # the worker was killed

    with Node(origin.url, workers=2, cache={"memory_bytes": 1_000_000, "size_bytes": 64 * 1024 * 1024}) as node:
        askers = [threading.Thread(target=ask, args=(node, seed)) for seed in range(4)]
        for asker in askers:
            asker.start()
        try:
            for kill in range(4):
                seen = answered[0]
                until(lambda: answered[0] > seen + 100, "requests to be answered", timeout=60)  # noqa: B023  done at once
                node.kill_worker(kill % 2)
        finally:
            stopping.set()
            for asker in askers:
                asker.join()
        assert wrong == []
        assert node.stop() == 0
        node.start()
        before = len(origin.requests)
        for path in paths:
            response = get(node, path)
            assert response.body == content(path, int(response["x-version"]))
        asked = len(origin.requests) - before
        assert asked < len(paths) // 2, "most of it is still stored"
        assert "set aside" not in node.stderr
