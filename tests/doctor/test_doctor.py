"""`edgeproxy doctor` examines real nodes: in front of origins that see the trace and of hops that spoil it, exporting
to collectors that take spans and to ones that do not.
"""

import contextlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from email.utils import formatdate
from pathlib import Path
from time import time
from typing import Any

import pytest
from click.testing import CliRunner

from edgeproxy.cli.doctor import doctor
from tests.support import Conversation, Handler, Node, Origin, OtlpReceiver, reply, until

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u202e]")
NAMES = [
    *("sampler", "sampled_share", "starving_routes", "propagation", "client_ids", "clock"),
    *("queue", "flush", "backend", "resource", "redis_tags"),
]
TRACING = {"service_name": "shop-edge", "resource_attributes": {"deployment.environment.name": "test"}}


def echoing(change: Callable[[bytes], bytes] = lambda head: head, *fields: str) -> Handler:
    """Answer with the head that came through a hop, which may change it."""

    def handle(talk: Conversation) -> None:
        talk.read_body()
        reply(change(talk.request.raw_head), "Cache-Control: no-store", *fields)(talk)

    return handle


def replaced(pattern: bytes, by: bytes) -> Callable[[bytes], bytes]:
    return lambda head: re.sub(pattern, by, head, flags=re.IGNORECASE)


class Examined:
    """What `edgeproxy doctor --json` says of a node."""

    def __init__(self, node: Node, *arguments: str) -> None:
        command = ["--json", "--watch", "0", "-c", str(node.config_file), *arguments]
        self.result = CliRunner().invoke(doctor, command, catch_exceptions=False)
        assert not CONTROL.search(self.result.output)
        self.said: dict[str, Any] = json.loads(self.result.stdout)
        assert self.said["exit_code"] == self.result.exit_code
        self.checks: dict[str, dict[str, Any]] = {}
        for check in self.said["checks"]:
            self.checks.setdefault(check["check"], check)

    def verdicts(self) -> dict[str, str]:
        return {name: check["verdict"] for name, check in self.checks.items()}


@pytest.fixture(scope="module")
def site() -> Iterator[Origin]:
    with Origin() as origin:
        yield origin


@pytest.fixture(scope="module")
def collector() -> Iterator[OtlpReceiver]:
    with OtlpReceiver() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def healthy(site: Origin, collector: OtlpReceiver) -> Iterator[Node]:
    """A node with everything as it should be, and some traffic."""
    with Node(site.url, tracing={**TRACING, "otlp_endpoint": collector.url}) as node:
        visit(node, "/page", 30)
        yield node


def visit(node: Node, path: str, count: int, *fields: str) -> None:
    """Have traffic, and wait for its lines."""
    before = len([line for line in node.lines() if line["path"] == path])
    with node.connect() as client:
        for _ in range(count):
            client.get(path, *fields)
    until(lambda: len([line for line in node.lines() if line["path"] == path]) >= before + count, "the lines")


def test_of_a_node_that_is_well_every_check_is_ok(healthy: Node, site: Origin) -> None:
    site.on("/echo", echoing())
    examined = Examined(healthy, "--echo", "/echo")
    assert examined.verdicts() == dict.fromkeys(NAMES, "ok") | {"redis_tags": "skipped"}, examined.said
    assert (examined.result.exit_code, examined.said["verdict"]) == (0, "ok")
    (asked,) = site.seen("/echo")
    record = healthy.record(asked["x-trace-id"])
    assert examined.checks["propagation"]["figures"]["span_id"] == record["attempts"][0]["span_id"]


def test_for_people_it_is_a_line_a_check_and_what_to_do_below(healthy: Node, site: Origin) -> None:
    done = healthy.command("doctor", "--watch", "0")
    lines = done.stdout.splitlines()
    checks = [line for line in lines if not line.startswith(" ")]
    assert [line.split()[1] for line in checks if line.split()[1] != "queue"] == [
        one for one in NAMES if one != "queue"
    ]
    below = lines[lines.index(next(line for line in lines if " propagation " in line)) + 1]
    assert "→ name a path of the origin that answers with the request's header fields" in below


def test_without_an_echo_path_how_is_said_and_the_rest_is_checked(healthy: Node) -> None:
    examined = Examined(healthy)
    verdicts = examined.verdicts()
    assert (verdicts["propagation"], verdicts["client_ids"], verdicts["clock"]) == ("skipped", "ok", "ok")
    assert "--echo /path" in examined.checks["propagation"]["advice"]
    assert examined.result.exit_code == 0


def test_a_url_asks_this_node_for_its_host(healthy: Node, site: Origin) -> None:
    site.on("/by-host", echoing())
    assert Examined(healthy, "--echo", "https://shop.test/by-host?a=1").verdicts()["propagation"] == "ok"
    (asked,) = site.seen("/by-host")
    assert asked["host"] == "shop.test"
    assert asked.target.startswith("/by-host?a=1&edgeproxy-doctor=")


def test_it_speaks_every_format_that_is_configured(start_node: Callable[..., Node], origin: Origin) -> None:
    node = start_node(listen={"http": "[::1]:0"}, tracing={"propagators": ["b3", "b3multi", "jaeger"], "trust": "none"})
    origin.on("/echo", echoing())
    found = Examined(node, "--echo", "/echo").checks["propagation"]
    assert (found["verdict"], len(found["figures"]["seen"])) == ("ok", 3), found
    assert "began the trace anew" in found["found"]  # so ours was understood
    origin.on("/part", echoing(replaced(rb"x-b3-[^\n]*\n", b"")))
    found = Examined(node, "--echo", "http://me:secret@shop.test/part").checks["propagation"]
    assert (found["verdict"], "but no x-b3-traceid" in found["found"]) == ("warn", True), found
    assert origin.seen("/part")[0]["host"] == "shop.test"


def test_an_echo_without_end_is_not_waited_for(healthy: Node, site: Origin, monkeypatch: pytest.MonkeyPatch) -> None:
    def endless(talk: Conversation) -> None:
        talk.send(b"HTTP/1.1 200 OK\r\nCache-Control: no-store\r\n\r\n" + talk.request.raw_head)
        with contextlib.suppress(OSError):
            while not stopped.wait(0.02):
                talk.send(b": more\n")

    stopped = threading.Event()
    site.on("/endless", endless)
    monkeypatch.setattr("edgeproxy.doctor.probe.TIMEOUT_S", 0.5)
    monkeypatch.setattr("edgeproxy.doctor.probe.RECORD_S", 0.5)
    try:
        assert Examined(healthy, "--echo", "/endless").checks["propagation"]["verdict"] == "ok"
    finally:
        stopped.set()


TRACEPARENT = rb"traceparent: *00-([0-9a-f]{32})-([0-9a-f]{16})-0([0-9])"


@pytest.mark.parametrize(
    ("change", "verdict", "words"),
    [
        pytest.param(replaced(rb"traceparent:[^\n]*\n", b""), "fail", "saw no trace context", id="stripped"),
        pytest.param(replaced(rb"(traceparent:[^\n]*\n)", rb"\1\1"), "fail", "saw 2 traceparent", id="doubled"),
        pytest.param(
            replaced(TRACEPARENT, rb"traceparent: 00-%b-\2-0\3" % (b"1" * 32)), "fail", "another trace", id="begun anew"
        ),
        pytest.param(replaced(TRACEPARENT, rb"traceparent: 00-\1-\2-00"), "fail", "opposite", id="decided anew"),
        pytest.param(replaced(TRACEPARENT, rb"traceparent: \1"), "fail", "no trace context", id="mangled"),
        pytest.param(
            replaced(TRACEPARENT, rb"traceparent: 00-\1-%b-0\3" % (b"2" * 16)), "warn", "not the edge's", id="traced"
        ),
        pytest.param(lambda _head: b"<p>Hello</p>", "skipped", "does not answer with", id="no echo"),
    ],
)
def test_what_a_hop_makes_of_the_context_is_said(
    healthy: Node, site: Origin, change: Callable[[bytes], bytes], verdict: str, words: str
) -> None:
    site.on("/hop", echoing(change))
    examined = Examined(healthy, "--echo", "/hop")
    found = examined.checks["propagation"]
    assert (found["verdict"], words in found["found"]) == (verdict, True), found
    assert examined.result.exit_code == {"fail": 2, "warn": 1, "skipped": 0}[verdict]
    assert found["advice"]


@pytest.mark.parametrize("seconds", [-10, 10])
def test_an_origin_whose_clock_is_off_is_a_warning(healthy: Node, site: Origin, seconds: int) -> None:
    def late(talk: Conversation) -> None:
        echoing(lambda head: head, f"Date: {formatdate(time() + seconds, usegmt=True)}")(talk)

    site.on("/late", late)
    found = Examined(healthy, "--echo", "/late").checks["clock"]
    assert found["verdict"] == "warn"
    assert abs(found["figures"]["offset_s"] - seconds) <= 1.5


def test_an_echo_that_is_not_there_is_skipped(healthy: Node, site: Origin) -> None:
    site.on("/absent", reply(b"none", status="404 Not Found"))
    found = Examined(healthy, "--echo", "/absent").checks["propagation"]
    assert (found["verdict"], "answers 404" in found["found"]) == ("skipped", True)


# --- the backend


def test_a_backend_that_goes_bad_is_said(healthy: Node, collector: OtlpReceiver) -> None:
    try:
        collector.refuse(401)
        examined = Examined(healthy)
        assert (examined.checks["backend"]["verdict"], examined.result.exit_code) == ("fail", 2)
        collector.reject(1)
        assert Examined(healthy).checks["backend"]["verdict"] == "warn"
    finally:
        collector.accept()


# --- nodes that are set up otherwise


def test_tracing_that_is_off_fails_and_the_context_still_comes_through(
    start_node: Callable[..., Node], origin: Origin
) -> None:
    node = start_node(environ={"EDGEPROXY_TRACING": "off"})
    examined = Examined(node, "--echo", "/echo")
    assert examined.verdicts() == {
        "sampler": "fail", "propagation": "ok", "client_ids": "ok", "clock": "ok", "queue": "skipped",
        "flush": "skipped", "backend": "skipped", "resource": "warn", "redis_tags": "skipped",
    }  # fmt: skip
    assert "tracing is off" in examined.checks["sampler"]["found"]
    node.env_file.write_text("EDGEPROXY_TRACING=on\nOTEL_TRACES_EXPORTER=none\n")
    until(lambda: "go nowhere" in Examined(node).checks["sampler"]["found"], "the exporter to be none")


def test_a_route_without_traces_starves_and_a_peer_that_is_not_trusted_gets_another_trace(
    start_node: Callable[..., Node], origin: Origin
) -> None:
    node = start_node(
        tracing={"trust": "none", "sampling": {"rules": [{"route": "/rare/*", "ratio": 0.0}]}},
        toml='[[route]]\nmatch = "/rare/*"\norigin = "app"\n',
    )
    visit(node, "/rare/page", 25)
    visit(node, "/common", 25)
    examined = Examined(node, "--echo", "/echo")
    found = examined.checks["starving_routes"]
    assert (found["verdict"], found["figures"]["starving"]) == ("warn", ["/rare/*"])
    propagation = examined.checks["propagation"]
    assert (propagation["verdict"], "began the trace anew" in propagation["found"]) == ("ok", True)
    assert examined.result.exit_code == 1


def test_a_collector_that_is_down_loses_spans(start_node: Callable[..., Node], origin: Origin) -> None:
    with OtlpReceiver() as collector:
        node = start_node(
            tracing={**TRACING, "otlp_endpoint": collector.url, "batch": {"delay": 0.05, "export_timeout": 0.1}}
        )
        collector.go_down()
        visit(node, "/page", 30)
        until(lambda: lost(Examined(node)), "the exports to fail")
        examined = Examined(node)
        assert examined.checks["backend"]["verdict"] == "fail"
        assert "Connection refused" in examined.checks["backend"]["found"]


def lost(examined: Examined) -> bool:
    queues = [check for check in examined.said["checks"] if check["check"] == "queue"]
    return any(one["verdict"] in ("warn", "fail") and one["figures"]["failed"] for one in queues)


# --- where there is nothing to examine


def test_without_a_node_nothing_could_be_checked(tmp_path: Path) -> None:
    result = CliRunner().invoke(doctor, ["--runtime-dir", str(tmp_path)])
    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr == f"edgeproxy: nothing could be checked: no node runs on {tmp_path}\n"


@pytest.mark.parametrize("echo", ["echo", "ftp://a/b", "", "/a b", "/ä", "http://[a/"])
def test_an_echo_that_is_neither_path_nor_url_is_refused(tmp_path: Path, echo: str) -> None:
    assert CliRunner().invoke(doctor, ["--runtime-dir", str(tmp_path), "--echo", echo]).exit_code == 2
