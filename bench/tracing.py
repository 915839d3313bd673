"""What tracing costs, and whether every span arrives: `--scenario tracing`.

Two questions, both with cache hits of 785 bytes:
- cost: as many as wrk gets answered, with tracing off, on with nothing sampled, on with everything sampled and exported
  by OTLP, and by nginx + Lua, which makes no span; compared by the worker's CPU time for each request (`capacity`).
- arrival: a constant rate, everything sampled; spans at the collector beside the spans that the log's lines come to,
  and what the node says became of them.
"""

import contextlib
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from bench import machine
from bench.capacity import Cost, compare, place, spread
from bench.errors import MissingToolError
from bench.load import Load, run_wrk
from bench.process import Program, accepts, free_port, wait_until
from bench.scenarios import generated
from bench.servers import NginxLua, Server, Site
from bench.servers.edgeproxy import Edgeproxy
from bench.summary import Target, Verdict
from bench.transfer import get
from edgeproxy.export import Counts, read_counts
from edgeproxy.tracing.marked import span_count

PATH = "/hit/785"
SETTLE_SECONDS = 30.0
TARGET_OFF, TARGET_NGINX = 0.9, 1.0


class _Off(Edgeproxy):
    name = "tracing-off"
    title = "edgeproxy, tracing off"
    environ: ClassVar[dict[str, str]] = {"OTEL_SDK_DISABLED": "true"}


class _Unsampled(Edgeproxy):
    name = "tracing-none"
    title = "edgeproxy, tracing on, nothing sampled"
    environ: ClassVar[dict[str, str]] = {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0"}


class _Full(Edgeproxy):
    name = "tracing-full"
    title = "edgeproxy, 100 % sampled, OTLP"
    environ: ClassVar[dict[str, str]] = {"OTEL_TRACES_SAMPLER": "always_on", "OTEL_TRACES_EXPORTER": "otlp"}


@dataclass(frozen=True, slots=True)
class Arrival:
    """What became of all spans at a constant rate."""

    asked_rate: float
    seconds: float
    requests: int
    failed: int
    made: int  # by the log's lines
    arrived: int  # at the collector
    exported: int
    lost: int  # failed, dropped or never seen, as the node counts them
    scribe_us: float  # CPU time of the scribe for each span


@dataclass(frozen=True, slots=True)
class Tracing:
    """All that was found out."""

    costs: list[Cost]
    arrival: Arrival | None


def _counts(server: Server) -> Counts:
    return next(one for one in read_counts(server.site.shared_memory / server.name) if one.name == "otlp")


def _arrival(server: Server, collector: int, rate: float, seconds: float, connections: int, load_core: int) -> Arrival:
    def arrived() -> int:
        return int(get(collector, "/spans").body)

    wait_until(lambda: not _counts(server).queued, SETTLE_SECONDS)
    seen, before = arrived(), _counts(server)
    size = server.access_log.stat().st_size
    scribe = {server.descendant("edgeproxy.node.scribe")}
    used = machine.cpu_seconds(scribe)
    place(server.pids(), {server.site.core, load_core})  # a constant rate leaves both cores room
    arguments = (server.port, PATH, "--rate", rate, "--seconds", seconds, "--connections", connections)
    told = generated("bench.openloop", load_core, *arguments, seconds=seconds)
    time.sleep(1.5)  # the last batch's delay
    wait_until(lambda: not _counts(server).queued, SETTLE_SECONDS)
    now = _counts(server)
    with server.access_log.open("rb") as log:
        log.seek(size)
        made = sum(map(span_count, log))
    return Arrival(
        asked_rate=told["asked_rate"],
        seconds=told["seconds"],
        requests=told["requests"],
        failed=told["failed"] + told["unanswered"],
        made=made,
        arrived=arrived() - seen,
        exported=now.exported - before.exported,
        lost=now.failed + now.dropped - before.failed - before.dropped,
        scribe_us=(machine.cpu_seconds(scribe) - used) / max(1, made) * 1e6,
    )


def run(
    site: Site, *, rounds: int, seconds: float, arrival_seconds: float, rate: float, connections: int, load_core: int
) -> Tracing:
    """Measure it all."""
    port = free_port()
    collector = Program([sys.executable, "-m", "bench.collector", str(port)], load_core, site.work / "collector.output")
    kinds: list[type[Server]] = [_Off, _Unsampled, _Full, NginxLua]
    _Full.environ = {**_Full.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}"}
    with contextlib.ExitStack() as stack:
        stack.callback(collector.stop)
        collector.wait_ready(lambda: accepts(port))
        servers: list[Server] = []
        for kind in kinds:
            with contextlib.suppress(MissingToolError):
                servers.append(stack.enter_context(kind(site)))
        for server in servers:
            spread(server, load_core)
            run_wrk(server.url(PATH), 1.0, connections, load_core)

        def load(server: Server) -> Load:
            return run_wrk(server.url(PATH), seconds, connections, load_core)

        costs = compare(servers, rounds, load, "tracing")
        full = next(server for server in servers if server.name == _Full.name)
        arrival = _arrival(full, port, rate, arrival_seconds, connections, load_core)
    return Tracing(costs, arrival)


HEADER = ("", "answered/s", "worker's CPU, us a request", "worker's core can do/s", "of tracing off")


def rows(found: Tracing) -> list[list[str]]:
    """What tracing costs, as the report shows it."""
    off = next((one for one in found.costs if one.server == _Off.name), None)
    return [
        [
            one.title,
            f"{one.rate:,.0f}",
            f"{one.worker_us:.2f}",
            f"{one.capacity:,.0f}",
            f"{one.capacity / off.capacity:.2f}" if off else "",
        ]
        for one in found.costs
    ]


def sentence(all_: Arrival) -> str:
    """What became of the spans."""
    return (
        f"At {all_.asked_rate:,.0f} requests/s for {all_.seconds:.0f} s, 100 % sampled: {all_.requests:,} requests "
        f"({all_.failed} failed), {all_.made:,} spans by the log, {all_.arrived:,} at the collector, {all_.lost:,} "
        f"counted as lost by the node; the scribe took {all_.scribe_us:.1f} us a span, the log included."
    )


def targets(found: Tracing | None) -> Iterator[Target]:
    """What is promised of tracing."""
    costs = {one.server: one for one in found.costs} if found else {}
    full = costs.get(_Full.name)
    for other, title, least in (
        (_Off.name, "the same with tracing off", TARGET_OFF),
        (NginxLua.name, "nginx + Lua", TARGET_NGINX),
    ):
        promise = f"hits with 100 % sampled and exported: at least {least} x {title}, by the worker's core"
        if full is None or other not in costs:
            yield Target(promise, "", Verdict.NOT_MEASURED)
            continue
        share = full.capacity / costs[other].capacity
        yield Target(promise, f"{share:.2f}", Verdict.PASS if share >= least else Verdict.FAIL)
    promise = "every span at the collector at 10,000 requests/s, or counted"
    if found is None or found.arrival is None:
        yield Target(promise, "", Verdict.NOT_MEASURED)
        return
    all_ = found.arrival
    met = all_.arrived == all_.made == all_.exported and not all_.failed
    measured = f"{all_.arrived:,} of {all_.made:,}; {all_.lost:,} counted as lost"
    yield Target(promise, measured, Verdict.PASS if met else Verdict.FAIL)
