"""What requests notice when a server of the Redis Cluster stops answering: the failure's bounds, measured.

An edge node without hot memory, a cluster of six servers, requests at a constant rate for URLs on all of them. One
master stops answering, in a way that closes no connection; no replica takes over, so it stays gone. Latencies are told
apart by when a request was due: while all is well, from the failure until the edge's circuit breaker has opened, and
from then on.
"""

import contextlib
import json
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.errors import BenchError
from bench.openloop import percentile, varied
from bench.process import find_tool, wait_until
from bench.servers import SERVERS, Origin, Server, Site
from bench.summary import Target, Verdict
from bench.transfer import get
from tests.support import RedisServer, RedisServers

SERVER = "edgeproxy-redis"
PATH, VARIETY = "/hit/785", 120
OPENING_MS, OPEN_MS = 60.0, 5.0
"""What p99 may be above that of before: until the breaker opens, and from then on."""
RATE = 500.0
"""Requests a second: far below what the node can do."""
AFTER_S = 10.0
GRACE_S = 20.0
NO_FAILOVER_MS = 120_000
READY, OPENED, BACK = "redis: the purge rules are known", "redis node is given a rest", "redis node is back"
PURGES = "edgeproxy:1:{purges}"
ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class Case:
    """One way for a master to stop answering, and to come back."""

    title: str
    has_rules: bool
    """Whether it is the master that has the purge rules: nothing from Redis is used without them."""
    is_proxied: bool
    fail: Callable[[RedisServers, RedisServer], None]
    mend: Callable[[RedisServers, RedisServer], None]


CASES = (
    Case("SIGSTOP", False, False, lambda _, node: node.stop(), lambda _, node: node.cont()),
    Case("network cut", False, True, RedisServers.cut, RedisServers.mend),
    Case("SIGSTOP, with the purge rules", True, False, lambda _, node: node.stop(), lambda _, node: node.cont()),
)


@dataclass(slots=True)
class Window:
    """Latencies of the requests of one time, in seconds."""

    latencies: list[float] = field(default_factory=list)

    def ms(self, share: float) -> float:
        return percentile(sorted(self.latencies), share) * 1000


@dataclass(slots=True)
class Outage:
    """A case, all its rounds together."""

    case: str
    before: Window = field(default_factory=Window)
    opening: Window = field(default_factory=Window)
    after: Window = field(default_factory=Window)
    opened_after_s: list[float] = field(default_factory=list)
    failed: int = 0

    @property
    def windows(self) -> dict[str, Window]:
        return {"before": self.before, "until the breaker opens": self.opening, "after that": self.after}

    def added_ms(self, window: Window) -> float:
        """What p99 is above that of before."""
        return window.ms(0.99) - self.before.ms(0.99)

    def take(self, each: Sequence[Sequence[float]], failed_at: float, opened_at: float) -> None:
        """Sort requests, each with when it was due and its latency, into the windows."""
        for due, latency in each:
            if due + latency < failed_at:
                window = self.before
            elif due < opened_at:
                window = self.opening
            else:
                window = self.after
            window.latencies.append(latency)
        self.opened_after_s.append(opened_at - failed_at)


def run(site: Site, origin: Origin, rounds: int, seconds: float, load_core: int) -> list[Outage]:
    """Measures every case in rounds with so many seconds before the failure and `AFTER_S` after it."""
    return [_run(case, site, origin, rounds, seconds, load_core) for case in CASES]


def _run(case: Case, site: Site, origin: Origin, rounds: int, seconds: float, load_core: int) -> Outage:
    outage = Outage(case.title)
    with contextlib.ExitStack() as stack:
        cluster = stack.enter_context(RedisServers(proxied=case.is_proxied, node_timeout_ms=NO_FAILOVER_MS))
        work = site.work / f"outage-{CASES.index(case)}"
        work.mkdir()
        site = Site(work, site.shared_memory, site.core, origin.port, cluster.nodes[0].port)
        server = stack.enter_context(SERVERS[SERVER](site))
        _await(lambda: server.said(READY) > 0, "edgeproxy to use Redis")
        for number in range(rounds):
            _round(outage, case, cluster, server, seconds, load_core)
            print(f"outage: {case.title} {number + 1}/{rounds}: {_told(outage)}", file=sys.stderr, flush=True)
    return outage


def _round(outage: Outage, case: Case, cluster: RedisServers, server: Server, seconds: float, load_core: int) -> None:
    masters = [node for node in cluster.masters() if (node is cluster.node_of(PURGES)) == case.has_rules]
    victim = random.choice(masters)
    for path in varied(PATH, VARIETY):
        _await(lambda path=path: "; hit" in get(server.port, path).headers["Cache-Status"], f"{path} to be cached")
    opened, back = server.said(OPENED), server.said(BACK)
    with _load(server.port, 1 + seconds + AFTER_S + 1, load_core) as load:
        time.sleep(1 + seconds)
        failed_at = time.perf_counter()
        case.fail(cluster, victim)
        try:
            _await(lambda: server.said(OPENED) > opened, "the breaker to open")
            opened_at = time.perf_counter()
            output, errors = load.communicate(timeout=AFTER_S + GRACE_S)
        finally:
            case.mend(cluster, victim)
    if load.returncode:
        raise BenchError(f"bench.openloop failed:\n{errors.strip()}")
    told = json.loads(output)
    outage.take(told["each"], failed_at, opened_at)
    outage.failed += told["failed"] + told["unanswered"]
    _await(lambda: server.said(BACK) > back, "the node to be back")


@contextlib.contextmanager
def _load(port: int, seconds: float, core: int) -> Iterator["subprocess.Popen[str]"]:
    command = [
        *(find_tool("taskset", "apt-get install util-linux"), "--cpu-list", str(core)),
        *(sys.executable, "-m", "bench.openloop", str(port), PATH, "--rate", str(RATE), "--seconds", str(seconds)),
        *("--variety", str(VARIETY), "--each"),
    ]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as load:
        try:
            yield load
        finally:
            load.kill()


def _await(condition: Callable[[], bool], what: str) -> None:
    if not wait_until(condition, GRACE_S):
        raise BenchError(f"outage: waited in vain for {what}")


def _told(outage: Outage) -> str:
    figures = "; ".join(f"{name} {window.ms(0.99):.1f} ms" for name, window in outage.windows.items())
    return f"p99 {figures}; {outage.failed} failed"


HEADER = ["a master stops answering", "window", "requests", "p50 ms", "p99 ms", "max ms", "added p99 ms", "failed"]


def rows(found: Sequence[Outage]) -> list[list[str]]:
    """The cells of a table under `HEADER`."""
    return [
        [
            outage.case,
            name,
            f"{len(window.latencies):,}",
            *(f"{window.ms(share):.2f}" for share in (0.5, 0.99, 1.0)),
            "-" if window is outage.before else f"{outage.added_ms(window):+.2f}",
            f"{outage.failed:,}" if window is outage.after else "",
        ]
        for outage in found
        for name, window in outage.windows.items()
    ]


def targets(found: Sequence[Outage]) -> Iterator[Target]:
    """What is promised of every case."""
    for case in CASES:
        promise = f"{case.title}: p99 at most {OPENING_MS:.0f} ms more until the breaker opens, {OPEN_MS:.0f} ms after"
        mine = [outage for outage in found if outage.case == case.title]
        if not mine:
            yield Target(promise, "", Verdict.NOT_MEASURED)
            continue
        opening, after = mine[0].added_ms(mine[0].opening), mine[0].added_ms(mine[0].after)
        met = opening <= OPENING_MS and after <= OPEN_MS and not mine[0].failed
        opened_ms = ", ".join(f"{one * 1000:.0f}" for one in mine[0].opened_after_s)
        measured = f"{opening:+.1f} ms, {after:+.1f} ms; {mine[0].failed} failed; it opened after {opened_ms} ms"
        yield Target(promise, measured, Verdict.PASS if met else Verdict.FAIL)
