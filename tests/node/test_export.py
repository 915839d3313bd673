"""Spans of a real node at a real collector: all of them, whatever the collector does, and at no request's cost."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from edgeproxy.export import Counts
from edgeproxy.export.traces import TraceStore
from edgeproxy.tracing.marked import span_count
from tests.support import Node, Origin, OtlpReceiver, until

FAST = {"delay": 0.05, "export_timeout": 0.4, "flush_timeout": 3.0}
type StartNode = Callable[..., Node]


@pytest.fixture
def receiver() -> Iterator[OtlpReceiver]:
    with OtlpReceiver() as started:
        yield started


def tracing(receiver: OtlpReceiver, exporters: str = "otlp", **more: Any) -> dict[str, Any]:
    table = {"otlp_endpoint": receiver.url, "exporters": exporters, "batch": FAST}
    return {"tracing": table | more}


def counted(node: Node, name: str = "otlp") -> Counts:
    return next(one for one in node.status().export if one.name == name)


def made(node: Node, count: int) -> int:
    """How many spans the lines of the log come to, once there are so many lines."""
    lines = node.log_lines(count)
    assert all(line["exported"] for line in lines)
    return sum(span_count(line) for line in node.access_log.read_bytes().splitlines())


def settled(node: Node, spans: int, name: str = "otlp") -> Counts:
    """The counts, once nothing is under way any more."""

    def ready() -> Counts | None:
        one = counted(node, name)
        return one if one.exported + one.failed + one.dropped == spans and not one.queued else None

    return until(ready, f"{spans} spans to be settled")


@contextmanager
def load(node: Node) -> Iterator[list[int]]:
    """Requests one after the other for as long as it is in force; their statuses."""
    statuses: list[int] = []
    over = threading.Event()

    def ask() -> None:
        with node.connect() as client:
            while not over.is_set():
                statuses.append(client.get(f"/{len(statuses) % 7}").status)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield statuses
    finally:
        over.set()
        thread.join()


def test_a_requests_spans_arrive_whole_and_with_what_describes_the_node(
    start_node: StartNode, receiver: OtlpReceiver
) -> None:
    node = start_node(
        **tracing(receiver, service_name="shop", resource_attributes={"deployment.environment.name": "test"})
    )
    with node.connect() as client:
        trace_id = client.get("/a").trace_id
    line = node.record(trace_id)
    spans = receiver.until_trace(trace_id, span_count(node.access_log.read_bytes().splitlines()[0]))
    (root,) = [span for span in spans if not span.parent_id]
    assert (root.span_id, root.kind, root.attributes["http.response.status_code"]) == (line["span_id"], 2, 200)
    assert {span.parent_id for span in spans if span is not root} == {root.span_id}
    assert line["attempts"][0]["span_id"] in {span.span_id for span in spans}
    about = root.resource
    assert (about["service.name"], about["service.instance.id"]) == ("shop", "edge-1")
    assert about["deployment.environment.name"] == "test"
    assert {"host.name", "host.arch", "service.version"} <= set(about)


def test_several_exporters_get_every_span(start_node: StartNode, receiver: OtlpReceiver) -> None:
    node = start_node(**tracing(receiver, "otlp,console,embedded"))
    with node.connect() as client:
        trace_ids = [client.get(f"/{number}").trace_id for number in range(20)]
    spans = made(node, 20)
    receiver.until_spans(spans)
    for name in ("otlp", "console", "embedded"):
        one = settled(node, spans, name)
        assert (one.exported, one.failed, one.dropped) == (spans, 0, 0)
    assert all(f'"trace_id": "0x{trace_id}"' in node.stderr for trace_id in trace_ids)
    store = TraceStore.open(node.runtime_dir / "cache" / "traces")
    assert [len(store.lines(trace_id)) for trace_id in trace_ids] == [1] * 20
    assert len(store.recent(5)) == 5
    store.close()


def test_headers_gzip_and_both_certificates_reach_the_collector(start_node: StartNode) -> None:
    with OtlpReceiver(mutual=True) as receiver:
        otlp = {
            "headers": {"x-tenant": "me"},
            "compression": "gzip",
            "ca_file": str(receiver.ca_file),
            "cert_file": str(receiver.client_file),
            "key_file": str(receiver.key_file),
        }
        node = start_node(**tracing(receiver, otlp=otlp))
        with node.connect() as client:
            client.get("/")
        receiver.until_spans(made(node, 1))
        (export,) = receiver.exports
        assert (export.headers["x-tenant"], export.headers["content-encoding"]) == ("me", "gzip")
        assert export.client_name == "client"


def test_a_collector_that_is_not_believed_gets_nothing(start_node: StartNode, receiver: OtlpReceiver) -> None:
    with OtlpReceiver(tls=True) as stranger, OtlpReceiver(tls=True) as other:
        node = start_node(**tracing(stranger, otlp={"ca_file": str(other.ca_file)}))
        with node.connect() as client:
            client.get("/")
        assert settled(node, made(node, 1)).failed
        assert "its certificate is not believed" in node.stderr


BAD: dict[str, Callable[[OtlpReceiver], None]] = {
    "down": OtlpReceiver.go_down,
    "silent": OtlpReceiver.hold,
    "overloaded": lambda receiver: receiver.refuse(503),
    "asking for time": lambda receiver: receiver.refuse(429, retry_after="1"),
    "refusing": lambda receiver: receiver.refuse(400),
    "talking garbage": lambda receiver: receiver.answer(b"\x00garbage\r\n\r\n"),
}


def test_a_bad_collector_costs_requests_nothing_and_comes_back_by_itself(
    start_node: StartNode, receiver: OtlpReceiver
) -> None:
    node = start_node(**tracing(receiver, batch=FAST | {"queue_size": 300, "batch_size": 100}))
    with load(node) as statuses:
        for how, turn_bad in BAD.items():
            had = counted(node)
            turn_bad(receiver)
            until(lambda had=had: counted(node).failed > had.failed, f"a batch to fail: {how}")  # type: ignore[misc]
            before = len(statuses)
            until(lambda before=before: len(statuses) > before + 20, "requests to go on")  # type: ignore[misc]
            if turn_bad is OtlpReceiver.go_down:
                receiver.come_up()
            had = counted(node)
            receiver.accept()
            until(lambda had=had: counted(node).exported > had.exported, f"spans to arrive again: {how}")  # type: ignore[misc]
    assert set(statuses) == {200}
    one = settled(node, made(node, len(statuses)))
    # What had failed here for want of an answer may have arrived all the same.
    assert one.exported <= receiver.span_count
    assert node.stderr.count("spans can't be exported") == node.stderr.count("spans can be exported again")


def test_what_a_collector_rejects_of_a_batch_has_failed(start_node: StartNode, receiver: OtlpReceiver) -> None:
    receiver.reject(1)
    node = start_node(**tracing(receiver))
    with node.connect() as client:
        for _ in range(3):
            client.get("/")
    spans = made(node, 3)
    assert settled(node, spans).failed == len(receiver.exports)


def test_spans_that_wait_are_exported_when_the_node_stops(start_node: StartNode, receiver: OtlpReceiver) -> None:
    node = start_node(**tracing(receiver, batch=FAST | {"delay": 3600.0}))
    with node.connect() as client:
        for number in range(10):
            client.get(f"/{number}")
    spans = made(node, 10)
    assert counted(node).queued == spans
    assert node.stop() == 0
    assert receiver.span_count == spans


def test_a_collector_that_never_answers_does_not_hold_up_a_stop_beyond_the_bound(
    start_node: StartNode, receiver: OtlpReceiver
) -> None:
    receiver.hold()
    node = start_node(**tracing(receiver, batch=FAST | {"delay": 3600.0, "export_timeout": 60.0, "flush_timeout": 0.5}))
    with node.connect() as client:
        client.get("/")
    made(node, 1)
    assert node.stop(timeout=15.0) == 0
    # Its time and the flush's are over at the same moment: whichever is noticed first.
    said = ("spans were left when the time to export them was over", "it did not answer in time")
    assert any(words in node.stderr for words in said)


def test_a_scribe_that_is_killed_loses_no_line_and_its_spans_are_counted(
    start_node: StartNode, receiver: OtlpReceiver
) -> None:
    node = start_node(**tracing(receiver, batch=FAST | {"delay": 3600.0, "batch_size": 100_000, "queue_size": 100_000}))
    with load(node) as statuses:
        until(lambda: counted(node).queued > 100, "spans to wait")
        killed = node.scribe_pid
        os.kill(killed, signal.SIGKILL)
        until(lambda: node.scribe_pid not in (0, killed), "another scribe")
        before = len(statuses)
        until(lambda: len(statuses) > before + 50, "requests to go on")
    assert set(statuses) == {200}
    spans = made(node, len(statuses))
    one = until(lambda: now if (now := counted(node)).dropped + now.queued == spans else None, "every span counted")
    assert one.dropped > 100


def test_requests_lost_with_their_worker_are_exported(
    start_node: StartNode, receiver: OtlpReceiver, origin: Origin
) -> None:
    hold = threading.Event()
    origin.on("/slow", lambda conversation: conversation.wait(hold))
    node = start_node(**tracing(receiver))
    with node.connect() as client:
        client.send(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        until(lambda: origin.requests, "the request to be at the origin")
        node.kill_worker()
        (line,) = node.log_lines(1)
        hold.set()
    assert line["outcome"] == "lost"
    (root,) = receiver.until_trace(line["trace_id"])
    assert (root.status, root.attributes["error.type"]) == (2, "worker_died")


def test_exporters_change_while_the_node_runs(start_node: StartNode, receiver: OtlpReceiver) -> None:
    node = start_node(**tracing(receiver, "embedded"))
    with node.connect() as client:
        client.get("/")
        settled(node, made(node, 1), "embedded")
        node.env_file.write_text("OTEL_TRACES_EXPORTER=otlp\n")
        until(lambda: any(one.name == "otlp" and one.active for one in node.status().export), "the exporter")
        trace_id = client.get("/").trace_id
        receiver.until_trace(trace_id)
    assert not counted(node, "embedded").active


def test_an_exporter_that_is_not_wanted_any_more_still_sends_what_it_has(
    start_node: StartNode, receiver: OtlpReceiver
) -> None:
    receiver.hold()
    patient = {"export_timeout": 3600.0, "flush_timeout": 3600.0}
    node = start_node(**tracing(receiver, "otlp,embedded", batch=FAST | patient, otlp={"timeout": 3600.0}))
    with node.connect() as client:
        client.get("/")
        waiting = made(node, 1)
        node.env_file.write_text("OTEL_TRACES_EXPORTER=embedded\n")
        until(lambda: not counted(node).active, "the exporter to go")
        client.get("/")
    # The log and the exporter that is still wanted go on without it.
    both = made(node, 2)
    assert settled(node, both, "embedded").exported == both
    one = counted(node)
    assert (one.active, one.queued) == (False, waiting)
    receiver.accept()
    assert settled(node, waiting).exported == waiting


def test_a_store_of_traces_is_closed_when_the_node_stops(start_node: StartNode, tmp_path: Path) -> None:
    folder = tmp_path / "traces"
    node = start_node(tracing={"exporters": "embedded", "batch": FAST, "store": {"path": str(folder)}})
    with node.connect() as client:
        for number in range(50):
            client.get(f"/{number}")
    settled(node, made(node, 50), "embedded")
    assert (folder / "in-use").exists()
    assert node.stop() == 0
    assert not (folder / "in-use").exists()
