"""Scripts and the node around them: clients that come and go, workers that drain, die and are several, and memory."""

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scripting.builders import DOES, Site, do, waits
from tests.support import Node, Origin, gated, reply, request, until

CLIENTS = '''
import asyncio, logging

from mitmproxy.script import concurrent

TOLD = {}


def client_connected(client):
    if client.peername[0] == "127.0.0.3":
        client.error = "not wanted"
    if client.peername[0] == "127.0.0.4":
        raise ValueError("on purpose")
    TOLD[client.id] = 0
    logging.warning("connected %s", client.peername[0])


async def client_disconnected(client):
    await asyncio.sleep(0)
    count = TOLD.pop(client.id, None)
    logging.warning("disconnected %s after %s %s", client.peername[0], count, client.timestamp_end > 0)


class Counts:
    edge_filter = "~u /counted"

    def request(self, flow):
        TOLD[flow.client_conn.id] += 1
        flow.metadata["edge"]["log"]["client"] = flow.client_conn.id


class Threads:
    """Hooks in threads, one of which never ends."""

    edge_filter = "~u /thread"

    @concurrent
    def request(self, flow):
        import threading, time
        flow.metadata["edge"]["log"]["thread"] = threading.current_thread() is threading.main_thread()
        if "block" in flow.request.path:
            time.sleep(0.2)
        if "raise" in flow.request.path:
            raise ValueError("on purpose")

    @concurrent
    async def response(self, flow):
        await asyncio.sleep(0)
        flow.response.headers["X-Thread"] = "1"


addons = [Counts(), Threads()]


def done():
    logging.warning("done")
'''
MODULES = "log['modules'] = len([name for name in sys.modules if name.startswith('mitmproxy')])"


@pytest.fixture(scope="module")
def shared_pair() -> Iterator[Site]:
    with Site(CLIENTS, DOES) as site:
        yield site


@pytest.fixture
def pair(shared_pair: Site) -> Iterator[Site]:
    """A node with a script that looks at connections, and one that does as it is told."""
    with shared_pair.watched():
        yield shared_pair


def test_a_client_is_told_of_as_it_comes_and_goes(pair: Site) -> None:
    with pair.node.connect(source="127.0.0.2") as client:
        pair.event("script_log", message="connected 127.0.0.2")
        ids = {pair.logged(pair.ask(client, "/counted"))["client"] for _ in range(3)}
        assert len(ids) == 1
    pair.event("script_log", message="disconnected 127.0.0.2 after 3 True")


def test_a_client_may_be_turned_away(pair: Site) -> None:
    with pair.node.connect(source="127.0.0.3") as client:
        assert client.is_ended()
    pair.event("script_log", message="disconnected 127.0.0.3 after 0 True")


def test_a_client_is_served_though_the_hook_fails(pair: Site) -> None:
    with pair.node.connect(source="127.0.0.4") as client:
        assert pair.ask(client, "/").status == 200
    assert pair.event("script_failed", hook="client_connected")["error"] == "ValueError: on purpose"
    pair.event("script_log", message="disconnected 127.0.0.4 after None True")


def test_a_thread_holds_nobody_up(pair: Site) -> None:
    with pair.node.connect() as client:
        client.send(request("/thread/block"))
        until(lambda: pair.in_flight("/thread/block") == ["script"], "the thread to be at work")
        assert pair.get("/others").status == 200
        answer = pair.saw(client.response())
    assert answer["x-thread"] == "1"
    assert pair.logged(answer) == {"thread": "False"}
    assert not pair.events("script_blocked", trace_id=answer.trace_id)


def test_a_thread_may_fail(pair: Site) -> None:
    answer = pair.get("/thread/raise")
    assert (answer.status, answer["x-thread"]) == (200, "1")
    assert pair.event("script_failed", trace_id=answer.trace_id)["error"] == "ValueError: on purpose"


def test_a_hook_that_waits_holds_nobody_else_up(pair: Site) -> None:
    with pair.node.connect() as client:
        client.send(request("/waits", *do(request="await event('others').wait()")))
        until(lambda: pair.in_flight("/waits") == ["script"], "the hook to wait")
        for _ in range(5):
            pair.get("/others")
        assert pair.in_flight("/waits") == ["script"]
        pair.get("/go", *do(request="event('others').set()"))
        assert pair.saw(client.response()).status == 200


def test_scripted_requests_leave_nothing_behind(pair: Site) -> None:
    """Nothing of a flow stays, and nothing of it needs the cycle collector: it is off meanwhile.

    What a hook makes with mitmproxy's constructors does need it: their checks of types leave circles behind.
    """
    count = """
        import gc
        gc.collect()
        {0}
        kinds = ("HTTPFlow", "FlowRun", "Intermediary", "Exchange", "Edge", "Opened", "Request", "Response", "Task")
        found = [type(one).__name__ for one in gc.get_objects()]
        log.update({{kind: found.count(kind) for kind in kinds}})
    """
    pair.origin.on("/cached", reply(b"x" * 1000, "Cache-Control: max-age=60"))
    pair.origin.on("/plain", reply(b"x" * 1000))
    changes = do(requestheaders="request.headers['X'] = '1'", response="response.text = 'y' * 500")
    waits = do(request="await asyncio.sleep(0)", response="await asyncio.sleep(0)\nlog['x'] = 1")
    spans = do(request="with trace.get_tracer('mine').start_as_current_span('x'): pass")
    fails = do(request="1/0", response="await asyncio.sleep(0)\n1/0")
    shapes = [("/cached", changes), ("/cached", waits), ("/plain", changes), ("/plain", waits)]
    shapes += [("/cached", spans), ("/plain", fails), ("/cached", do(responseheaders="response.stream = True"))]
    with pair.node.connect() as client:
        for path, fields in shapes * 4:
            pair.ask(client, path, *fields)
        before = pair.logged(pair.ask(client, "/count", *do(request=count.format("gc.disable()"))))
        memory = 0
        for number in range(1500):
            path, fields = shapes[number % len(shapes)]
            client.send(request(path, *fields))
            client.response()
            if number == 500:
                memory = pair.node.memory_bytes()
        pair.unanswered(1500)
        grown = pair.node.memory_bytes() - memory
        look = count.replace("gc.collect()", "").format("gc.enable()")
        after = pair.logged(pair.ask(client, "/count", *do(request=look)))
    assert {
        kind: int(number) - int(before[kind]) for kind, number in after.items() if int(number) > int(before[kind]) + 20
    } == {}
    assert grown < 2 << 20


# --- nodes of their own


def test_a_node_without_scripts_does_not_import_mitmproxy(tmp_path: Path) -> None:
    """What is mapped says so: mitmproxy comes with libraries of its own."""

    def mapped(node: Node) -> bool:
        maps = Path(f"/proc/{node.worker().pid}/maps").read_text()
        return any(name in maps for name in ("mitmproxy_rs", "cryptography", "_brotli"))

    script = tmp_path / "script.py"
    script.write_text("def request(flow): pass\n")
    with (
        Origin() as origin,
        Node(origin.url) as without,
        Node(origin.url, addons={"scripts": [str(script)]}) as with_one,
    ):
        assert (mapped(without), mapped(with_one)) == (False, True)


def test_two_workers_have_their_own_scripts_and_share_what_is_stored() -> None:
    with Site(DOES, workers=2) as site:
        site.origin.on("/shared", reply(b"x", "Cache-Control: max-age=60"))
        workers: set[int] = set()
        answers = []

        def asked() -> bool:
            answer = site.get(
                "/shared", *do(request="edge['key'] = {'a': '1'}\nlog['pid'] = __import__('os').getpid()")
            )
            answers.append(answer)
            workers.add(int(site.logged(answer)["pid"]))
            return len(workers) == 2

        until(asked, "both workers to have been asked")
        site.node.log_lines(len(answers))
        assert workers == set(site.node.worker_pids)
        assert len(site.origin.requests) == 1


@pytest.fixture
def alone() -> Iterator[Site]:
    """A node for one test that ends it."""
    with Site(CLIENTS, DOES, limits={"drain_timeout": 2}) as site:
        yield site


def test_the_end_lets_hooks_that_wait_come_to_theirs(alone: Site) -> None:
    gate = threading.Event()
    alone.origin.on("/gated", gated(gate, reply(b"x")))
    code = do(response="await asyncio.sleep(0)\nlog['ended'] = 1")
    with alone.node.connect() as client:
        client.send(request("/gated", *code))
        alone.origin.wait_for("/gated")
        os.kill(alone.node.supervisor_pid, signal.SIGTERM)
        until(lambda: any(worker.state == "draining" for worker in alone.node.status().workers), "it to drain")
        gate.set()
        answer = client.response()
        assert (answer.status, answer["connection"]) == (200, "close")
    assert alone.node.wait() == 0
    (line,) = alone.node.lines()
    assert (line["outcome"], line["script"]["log"]) == ("ok", {"ended": "1"})
    alone.event("script_log", message="done")
    messages = [event["message"] for event in alone.events("script_log")]
    assert messages.index("disconnected 127.0.0.1 after 0 True") < messages.index("done")


@pytest.mark.parametrize("hook", ["request", "responseheaders", "response"])
def test_the_end_does_not_wait_for_hooks_for_ever(alone: Site, hook: str) -> None:
    code = do(**{hook: waits("/never", "await event('never').wait()"), "error": "log['error'] = flow.error.msg"})
    with alone.node.connect() as client:
        client.send(request("/never", *code))
        alone.wait_for_hook("/never")
        assert alone.node.stop() == 0
        assert client.rest() == b""
    (line,) = alone.node.lines()
    assert (line["outcome"], line["stage"], line["status"]) == ("timeout", "script", None)
    assert line["error"]["type"] == "drain_timeout"
    assert "error" in line["script"]["log"]
    alone.event("script_log", message="done")


def test_the_end_does_not_wait_for_threads(alone: Site) -> None:
    code = do(request="await asyncio.to_thread(time.sleep, 100)")
    with alone.node.connect() as client:
        client.send(request("/thread/for/long", *code))
        until(lambda: alone.in_flight("/thread/for/long") == ["script"], "the hook to wait")
        client.reset()
    assert alone.node.stop(timeout=25) == 0
    assert len(alone.node.lines()) == 1


@pytest.mark.parametrize("hook", ["requestheaders", "request", "responseheaders", "response"])
def test_the_end_by_kill_leaves_a_line_that_names_the_stage(pair: Site, hook: str) -> None:
    path = f"/killed/{hook}"
    with pair.node.connect() as client:
        client.send(request(path, *do(**{hook: waits(path, "await event('never').wait()")})))
        pair.wait_for_hook(path)
        pair.node.kill_worker()
        assert client.rest() == b""
    pair.unanswered()
    line = until(lambda: [line for line in pair.node.lines() if line["path"] == path])[0]
    assert (line["outcome"], line["stage"], line["error"]["type"]) == ("lost", "script", "worker_died")
