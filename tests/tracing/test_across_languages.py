"""One trace through three programs: a client, the edge and an origin, the latter two in whatever language.

The origins are what users write: OpenTelemetry's SDK for Python, and that for Node.js with its http instrumentation
(tests/tracing/origins). Everyone exports to the same collector, which is asked what it got.
"""

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from opentelemetry import propagate
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace import SpanKind

from tests.support import Node, until
from tests.support.otlp import OtlpReceiver

ORIGINS = Path(__file__).parent / "origins"
PACKAGES = ORIGINS.parents[2] / "build/origins"
SERVER, CLIENT = 2, 3
RATIOS = [0.01, 0.1, 0.5]
REQUESTS = 200
"""For each ratio; half as many where there is less to find out."""


@dataclass
class World:
    """An edge between a collector and an origin."""

    language: str
    receiver: OtlpReceiver
    node: Node

    def get(self, path: str, *fields: str) -> dict[str, object]:
        """What the origin's SDK made of one request."""
        with self.node.connect() as client:
            response = client.get(path, *fields)
        assert response.status == 200
        answer = json.loads(response.body)
        assert isinstance(answer, dict)
        return answer


@contextmanager
def an_origin(language: str, collector: str) -> Iterator[str]:
    """The url of an origin in that language."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = collector
    if language == "python":
        command = [sys.executable, str(ORIGINS / "origin.py")]
    else:
        installed = PACKAGES / ".installed"
        if not shutil.which("node"):
            pytest.skip("node is not installed: make tools")
        if not installed.exists() or installed.read_bytes() != (ORIGINS / "package-lock.json").read_bytes():
            pytest.skip("the Node.js origin's packages are not installed: make tools")
        environ["NODE_PATH"] = str(PACKAGES / "node_modules")
        command = ["node", str(ORIGINS / "origin.js")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            port = process.stdout.readline().strip()
            assert port.isdecimal(), f"the origin in {language} did not start"
            yield f"http://127.0.0.1:{port}"
        finally:
            process.stdin.close()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


@pytest.fixture(scope="module", params=["python", "nodejs"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    with (
        OtlpReceiver() as receiver,
        an_origin(request.param, receiver.url) as origin,
        Node(
            origin,
            tracing={"otlp_endpoint": receiver.url},
            environ={"OTEL_BSP_SCHEDULE_DELAY": "50"},
            log={"request_headers": ["X-Tenant"]},
        ) as node,
    ):
        yield World(request.param, receiver, node)


def test_client_edge_and_origin_are_one_trace_with_the_right_parents(world: World) -> None:
    provider = TracerProvider(resource=Resource.create({"service.name": "client"}))
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(endpoint=world.receiver.endpoint)))
    with provider.get_tracer("client").start_as_current_span("GET", kind=SpanKind.CLIENT):
        carrier: dict[str, str] = {}
        propagate.inject(carrier)
        context = [f"{name}: {value}" for name, value in carrier.items()]
        answer = world.get("/connected", *context, "x-tenant: acme", "x-order: 1")
    provider.shutdown()

    trace_id = carrier["traceparent"].split("-")[1]
    assert answer["trace_id"] == trace_id

    def by_service() -> dict[str, list[object]]:
        found: dict[str, list[object]] = {}
        for span in world.receiver.spans:
            if span.trace_id == trace_id:
                found.setdefault(span.resource_service, []).append(span)
        return found if len(found) == 3 else {}

    spans = until(by_service, "spans of all three programs")
    (asked,) = spans["client"]
    (answered,) = spans[f"origin-{world.language}"]
    edge = {span.span_id: span for span in spans["edgeproxy"]}
    roots = [span for span in edge.values() if span.kind == SERVER]
    assert [span.parent_id for span in roots] == [asked.span_id]
    assert answered.kind == SERVER
    assert answered.span_id == answer["span_id"]
    attempt = edge[answered.parent_id]
    assert (attempt.kind, attempt.parent_id) == (CLIENT, roots[0].span_id)
    logged = {name: value for name, value in roots[0].attributes.items() if name.startswith("http.request.header.")}
    assert logged == {"http.request.header.x-tenant": ("acme",)}
    assert world.node.record(trace_id)["headers"] == {"x-tenant": "acme"}
    assert asked.start_ns <= roots[0].start_ns <= attempt.start_ns
    assert attempt.end_ns <= roots[0].end_ns + 1_000_000


# --- who samples what


def ids(ratio: float, count: int) -> list[str]:
    """Trace ids whose low halves lie on both sides of a ratio's bound, and anywhere."""
    generator = random.Random(ratio)
    bound = round(ratio * (1 << 64))
    lows = [bound - 1, bound, bound + 1, 1, (1 << 64) - 1]
    lows += [generator.getrandbits(64) for _ in range(count - len(lows))]
    return [f"{generator.getrandbits(64) | 1:016x}{low:016x}" for low in lows]


def set_sampler(node: Node, sampler: str, ratio: float) -> None:
    node.env_file.write_text(f"OTEL_TRACES_SAMPLER={sampler}\nOTEL_TRACES_SAMPLER_ARG={ratio}\n")

    def followed() -> bool:
        status = node.status()
        is_up = (status.tracing.sampler, status.tracing.ratio) == (sampler, ratio)
        return is_up and all(worker.confirmed for worker in status.workers)

    until(followed, f"{sampler} of {ratio} to hold")


def decisions(world: World, word: str, ratio: float, count: int) -> tuple[dict[str, bool], dict[str, bool]]:
    """By trace id: what the edge decided, and what the origin's SDK did, for the same ids."""
    theirs: dict[str, bool] = {}
    wanted = ids(ratio, count)
    with world.node.connect() as client:
        for number, trace_id in enumerate(wanted):
            flag = number % 2  # what a sampler that is not parent-based does not look at
            response = client.get(f"/{word}/{ratio}/x", f"traceparent: 00-{trace_id}-00f067aa0ba902b7-0{flag}")
            answer = json.loads(response.body)
            assert answer["trace_id"] == trace_id
            theirs[trace_id] = answer["sampled"]

    def lines() -> dict[str, bool]:
        path = f"/{word}/{ratio}/x"
        found = {line["trace_id"]: line["sampled"] for line in world.node.lines() if line["path"] == path}
        return found if len(found) == len(wanted) else {}

    return until(lines, "a line for each request"), theirs


@pytest.mark.parametrize("ratio", RATIOS)
def test_the_edge_samples_the_traces_that_an_sdk_samples_by_the_same_ratio(world: World, ratio: float) -> None:
    set_sampler(world.node, "traceidratio", ratio)
    word = "ratio" if world.language == "python" else "low"
    ours, theirs = decisions(world, word, ratio, REQUESTS)
    assert ours == theirs
    assert set(ours.values()) == {True, False}
    sampled = {trace_id for trace_id, decision in ours.items() if decision}

    def exported() -> bool:
        found = {(span.resource_service, span.trace_id) for span in world.receiver.spans if span.trace_id in ours}
        return found == {(name, one) for name in ("edgeproxy", f"origin-{world.language}") for one in sampled}

    until(exported, "spans of exactly the sampled traces, of the edge and of the origin")


@pytest.mark.parametrize("ratio", RATIOS)
def test_an_sdk_that_is_parent_based_samples_what_the_edge_samples(world: World, ratio: float) -> None:
    """The SDKs' default, whatever the edge's sampler is."""
    set_sampler(world.node, "traceidratio", ratio)
    ours, theirs = decisions(world, "parent", ratio, REQUESTS // 2)
    assert ours == theirs
    assert set(ours.values()) == {True, False}


@pytest.mark.parametrize("world", ["nodejs"], indirect=True)
def test_nodejs_ratio_sampler_decides_by_something_else(world: World) -> None:
    """docs/tracing.md says so and shows what to do; when this fails, it need not say so any longer."""
    set_sampler(world.node, "traceidratio", 0.5)
    ours, theirs = decisions(world, "ratio", 0.5, REQUESTS // 2)
    assert ours != theirs
