"""What is asked of every server: hits, misses, a large body, and a constant rate to see the latency at.

A scenario brings the load for one round; measure.py looks, runner.py alternates. To add one, add it to `scenarios()`.
"""

import dataclasses
import json
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from bench.errors import BenchError
from bench.load import GRACE_SECONDS, Load, run_wrk
from bench.measure import Round, Watch
from bench.memory import watched
from bench.process import find_tool
from bench.servers import Server
from bench.servers.origin import SIZES
from bench.transfer import download

WARM_UP_SECONDS = 1.0
MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Settings:
    """What the command line says about the load."""

    seconds: float  # of one round
    connections: int
    load_core: int
    hit_rate: float
    miss_rate: float


@dataclass(frozen=True, slots=True)
class Scenario(ABC):
    """One row of questions; `path` is the origin's."""

    name: str
    title: str
    path: str
    settings: Settings
    without: tuple[str, ...] = ()  # servers that can't take part

    @abstractmethod
    def round(self, watch: Watch) -> Round:
        """Loads one server for one round."""

    def warm_up(self, server: Server) -> None:
        """What comes before the first round: caches filled, code compiled, pools grown."""
        run_wrk(server.url(self.path), WARM_UP_SECONDS, self.settings.connections, self.settings.load_core)


class Throughput(Scenario):
    """As many requests as wrk's connections get answered."""

    def round(self, watch: Watch) -> Round:
        settings, url = self.settings, watch.server.url(self.path)

        def load() -> Load:
            return run_wrk(url, settings.seconds, settings.connections, settings.load_core)

        return watch.round(self.name, load, in_flight=settings.connections)


class Latency(Scenario):
    """The same number of requests a second for every server, by openloop.py; latency counts from when each was due."""

    @property
    def rate(self) -> float:
        return self.settings.hit_rate if self.path.startswith("/hit/") else self.settings.miss_rate

    def round(self, watch: Watch) -> Round:
        settings = self.settings
        taskset = find_tool("taskset", "apt-get install util-linux")
        command = [
            *(taskset, "--cpu-list", str(settings.load_core), sys.executable, "-m", "bench.openloop"),
            *(str(watch.server.port), self.path, "--rate", str(self.rate), "--seconds", str(settings.seconds)),
            *("--connections", str(settings.connections)),
        ]

        def load() -> Load:
            root = Path(__file__).resolve().parent.parent
            timeout = settings.seconds + 2 * GRACE_SECONDS
            done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False, timeout=timeout)
            if done.returncode:
                raise BenchError(f"the constant-rate load failed:\n{done.stderr.strip()}")
            told = json.loads(done.stdout)
            latency = {name: told[name] for name in ("p50", "p90", "p99", "p99.9", "max", "lag_p99")}
            size = told["requests"] * SIZES["785"]
            return Load(
                requests=told["requests"],
                seconds=told["seconds"],
                bytes=size,
                failed=told["failed"],
                timed_out=told["unanswered"],
                latency_ms=latency,
                asked_rate=told["asked_rate"],
            )

        return watch.round(self.name, load, in_flight=settings.connections)


class Stream(Scenario):
    """Large bodies one after another, as fast as they come, then one at a slow client's pace; the worker's memory
    meanwhile.

    There is no warm-up by large bodies: what the first one leaves behind in the worker must show.
    """

    def warm_up(self, server: Server) -> None:
        run_wrk(server.url("/miss/785"), WARM_UP_SECONDS, self.settings.connections, self.settings.load_core)

    def round(self, watch: Watch) -> Round:
        server, size = watch.server, SIZES["64m"]
        pace = max(8 * MIB, size / max(self.settings.seconds, 1.0))

        def load() -> Load:
            began, taken, wrong = time.perf_counter(), 0, 0
            while (seconds := time.perf_counter() - began) < self.settings.seconds or taken < 2:
                body = download(server.port, self.path)
                taken, wrong = taken + 1, wrong + (body.status != 200 or body.size_bytes != size)
            return Load(taken, seconds, taken * size, wrong, 0, {})

        with watched(server.worker_pid()) as memory:
            figures = watch.round(self.name, load, in_flight=0)
            slow = download(server.port, self.path, pace)
        watch.log.settle()
        failed = figures.failed + (slow.status != 200 or slow.size_bytes != size)
        return dataclasses.replace(figures, failed=failed, memory=memory)


def scenarios(settings: Settings) -> dict[str, Scenario]:
    """All of them, by name, in the order in which they run."""
    hits, misses = f"{settings.hit_rate:,.0f} requests/s", f"{settings.miss_rate:,.0f} requests/s"
    slow = ("mitmproxy",)  # a fraction of the rate is all that it answers
    found: list[Scenario] = [
        Throughput("hit", "785-byte cache hit", "/hit/785", settings),
        Throughput("hit100k", "100 KiB cache hit", "/hit/100k", settings),
        Throughput("miss", "785-byte miss (no-store)", "/miss/785", settings),
        Stream("stream", "64 MiB streamed body (no-store)", "/miss/64m", settings),
        Latency("latency-hit", f"785-byte cache hit at {hits}", "/hit/785", settings, slow),
        Latency("latency-miss", f"785-byte miss at {misses}", "/miss/785", settings, slow),
    ]
    return {scenario.name: scenario for scenario in found}
