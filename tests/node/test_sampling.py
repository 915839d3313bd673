"""Sampling beyond the plain sampler, on a real node: all of it out of the environment file, while the node runs."""

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar, Self

import pytest

from tests.node.test_supervisor import events
from tests.support import Node, Origin, reply, until

ROUTES = '[[route]]\nmatch = "/api/*"\norigin = "app"\n'
PARENT = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture(scope="module")
def origin() -> Iterator[Origin]:
    with Origin() as started:
        started.on("/broken", reply(b"no", status="500 Internal Server Error"))
        started.on("/broken/kept", reply(b"no", "Cache-Control: max-age=60", status="500 Internal Server Error"))
        yield started


@pytest.fixture(scope="module")
def shared(origin: Origin) -> Iterator[Node]:
    with Node(origin.url, toml=ROUTES, tracing={"sampler": "parentbased_always_off"}) as node:
        yield node


def write(node: Node, text: str) -> None:
    """Replace the environment file: one that is written in place may be read while it is empty."""
    new = node.env_file.with_suffix(".new")
    new.write_text(text)
    new.replace(node.env_file)


def say(node: Node, **variables: object) -> None:
    """Have the environment file say this, and wait until every worker acts on it."""
    before = node.status().tracing.epoch
    write(node, "".join(f"EDGEPROXY_TRACING_{name}='{value}'\n" for name, value in variables.items()))
    until(lambda: node.status().tracing.epoch > before, "the file to be read")
    confirmed(node)


def confirmed(node: Node) -> None:
    until(lambda: all(worker.confirmed for worker in node.status().workers), "every worker to act on it")


def asked(node: Node, path: str = "/", *fields: str, method: str = "GET") -> dict[str, Any]:
    """The record of a request, whose origin was told just what it says."""
    with node.connect() as client:
        trace_id = client.get(path, *fields, method=method).trace_id
    return found(node, trace_id)


def found(node: Node, trace_id: str) -> dict[str, Any]:
    (record,) = until(
        lambda: [line for line in node.lines()[-50:] if line["trace_id"] == trace_id][-1:], f"the line of {trace_id}"
    )
    return record


def why(node: Node, path: str = "/", *fields: str, method: str = "GET") -> tuple[bool, str]:
    record = asked(node, path, *fields, method=method)
    return record["sampled"], record["sampling"]


def test_rules_go_by_route_path_method_and_header(shared: Node, origin: Origin) -> None:
    rules = [
        '{ header = "X-Debug=1", ratio = 1 }',
        '{ method = "POST", ratio = 0 }',
        '{ route = "/api/*", ratio = 1 }',
        '{ path = "*.css", ratio = 1 }',
    ]
    say(shared, RULES=f"[{', '.join(rules)}]")
    assert why(shared, "/api/x") == (True, "rule")
    assert why(shared, "/style.css?v=1") == (True, "rule")
    assert why(shared, "/other") == (False, "always_off")
    assert why(shared, "/api/x", method="POST") == (False, "rule")
    assert why(shared, "/api/x", "x-debug: 1", method="POST") == (True, "rule")
    assert origin.requests[-1]["traceparent"].endswith("-03")
    assert why(shared, "/other", PARENT) == (True, "parent")


def test_an_error_that_was_stored_is_exported_as_one_that_was_fetched_is(shared: Node) -> None:
    parents = [PARENT.replace("0af7", f"00f{number}")[:-1] + "0" for number in range(3)]
    records = [asked(shared, "/broken/kept", parent) for parent in parents]
    assert [record["cache"] for record in records] == ["MISS", "HIT", "HIT"]
    assert [(record["sampled"], record["sampling"], record["exported"]) for record in records] == [
        (False, "error", True)
    ] * 3


def test_the_cap_holds_for_trusted_parents_too(shared: Node, origin: Origin) -> None:
    say(shared, MAX_PER_SECOND=3)
    with shared.connect() as client:
        trace_ids = [client.get("/", PARENT.replace("0af7", f"{number:04x}")).trace_id for number in range(1, 13)]
    records = [found(shared, trace_id) for trace_id in trace_ids]
    begun = [record for record in records if record["sampled"]]
    assert len(begun) >= 3
    assert {(record["sampled"], record["sampling"]) for record in records} == {(True, "parent"), (False, "cap")}
    flags = {r["traceparent"].split("-")[1]: r["traceparent"][-2:] for r in origin.requests if r.get("traceparent")}
    assert {record["sampled"]: flags[record["trace_id"]] for record in records} == {True: "01", False: "00"}


def test_the_adaptive_ratio_begins_with_everything(shared: Node) -> None:
    say(shared, ADAPTIVE_TARGET=50)
    assert why(shared) == (True, "adaptive")


def test_what_is_said_wrong_changes_nothing(shared: Node) -> None:
    say(shared, RULES="[{ ratio = 1 }]")
    write(shared, "EDGEPROXY_TRACING_RULES='[{ ratio = 2 }]'\n")
    until(lambda: "EDGEPROXY_TRACING_RULES" in shared.status().last_error, "the error to show")
    assert why(shared) == (True, "rule")
    shared.env_file.unlink()
    until(lambda: not shared.status().last_error, "it to be settled")


def test_a_reload_that_changes_nothing_but_sampling_needs_no_other_workers(start_node: Callable[..., Node]) -> None:
    node = start_node(tracing={"sampler": "always_off"})
    say(node, MAX_PER_SECOND=100)
    pids = node.worker_pids
    node.write_config(tracing={"sampling": {"rules": [{"path": "/file/*", "ratio": 1}], "max_per_second": 0}})
    before = node.status().tracing.epoch
    node.signal(signal.SIGHUP)
    until(lambda: node.status().tracing.epoch > before, "the file to be read")
    confirmed(node)
    assert why(node, "/file/1") == (True, "rule")
    assert node.worker_pids == pids
    assert node.status().tracing.max_per_second == 100  # the environment file goes on winning
    node.kill_worker()
    assert why(node, "/file/1") == (True, "rule")


def test_settings_that_cant_be_read_cost_no_request_and_the_next_change_mends_it(
    start_node: Callable[..., Node],
) -> None:
    node = start_node()
    epoch = node.status().tracing.epoch
    (node.runtime_dir / f"tracing-{epoch}.json").write_bytes(b'{"enabled": ')
    assert why(node) == (True, "ratio")  # who has read them goes on
    node.kill_worker()
    assert why(node) == (False, "off")
    assert "holds no tracing settings" in events(node, "tracing_settings_unreadable")[0]["error"]
    say(node, MAX_PER_SECOND=100)
    assert why(node) == (True, "ratio")


class Strategies:
    """A collector that is asked for sampling strategies."""

    def __init__(self) -> None:
        self.body = b'{"strategyType": "PROBABILISTIC", "probabilisticSampling": {"samplingRate": 1.0}}'
        self.status = 200
        self.reason: str | None = None
        self.asked: list[dict[str, str]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version: ClassVar[str] = "HTTP/1.1"

            def do_GET(self) -> None:
                outer.asked.append({"path": self.path, **{k.lower(): v for k, v in self.headers.items()}})
                tag = f'"{hash(outer.body)}"'
                unchanged = outer.status == 200 and self.headers["If-None-Match"] == tag
                body = b"" if unchanged else outer.body
                self.send_response(304 if unchanged else outer.status, outer.reason)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("ETag", tag)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/sampling?service=edge"

    def more(self) -> None:
        """Wait until it was asked twice more: what the first had as its answer has been dealt with then."""
        goal = len(self.asked) + 2
        until(lambda: len(self.asked) >= goal, "further questions")

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def rate(share: float) -> bytes:
    return json.dumps({"probabilisticSampling": {"samplingRate": share}, "unknown": 1}).encode()


def test_remote_strategies_are_polled_and_the_last_good_ones_kept(start_node: Callable[..., Node]) -> None:
    with Strategies() as strategies:
        node = start_node(tracing={"sampler": "always_off"})
        assert why(node) == (False, "always_off")
        say(node, REMOTE_URL=strategies.url, REMOTE_POLL=0.1)
        until(lambda: why(node) == (True, "remote"), "the strategies to hold")
        assert strategies.asked[0]["path"] == "/sampling?service=edge"
        strategies.more()
        assert "if-none-match" in strategies.asked[-1]
        epoch = node.status().tracing.epoch
        shown = node.status().tracing.remote
        assert shown is not None
        assert (shown.url, shown.error) == (strategies.url, "")

        strategies.body = b"<html>"
        until(lambda: remote_error(node), "the failure to show")
        strategies.body = b'{"x": ' + b"[" * 100_000
        until(lambda: "nested" in remote_error(node), "the next failure to show")
        strategies.status, strategies.reason = 503, "\x1b[2JBusy"
        strategies.more()
        assert "503" in until(lambda: "503" in (error := remote_error(node)) and error, "the other failure to show")
        assert why(node) == (True, "remote")
        assert node.status().tracing.epoch == epoch
        assert "503 \\x1b[2JBusy" in node.command("trace", "status").stdout

        os.kill(before := node.scribe_pid, signal.SIGKILL)
        until(lambda: node.scribe_pid not in (0, before), "another scribe")
        strategies.more()
        assert why(node) == (True, "remote")
        node.stop()
        node.start()
        assert why(node) == (True, "remote")
        until(
            lambda: len(events(node, "strategies_failed")) == 3,
            "the failure to be said by the scribe of that start, too",
        )

        strategies.body, strategies.status, strategies.reason = rate(0.0), 200, None
        until(lambda: why(node) == (False, "remote"), "the new strategies to hold")
        assert remote_error(node) == ""
        until(lambda: events(node, "strategies_recovered"), "the recovery to be said")
        said = [len(events(node, name)) for name in ("strategies_failed", "strategies_recovered")]
        assert said == [3, 1], node.stderr  # a failure once by each scribe: two before the restart, one after

        strategies.body = b'{"strategyType": 1, "rateLimitingSampling": {"maxTracesPerSecond": 1e300}}'
        until(lambda: why(node) == (True, "remote"), "a rate beyond all measure to hold")

        say(node)
        assert why(node) == (False, "always_off")


def remote_error(node: Node) -> str:
    remote = node.status().tracing.remote
    return "" if remote is None else remote.error
