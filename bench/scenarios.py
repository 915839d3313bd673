"""What is asked of every server: hits, misses, large bodies, a crowd, and a constant rate to see the latency at.

A scenario brings the load for one round; measure.py looks, runner.py alternates. To add one, add it to `scenarios()`.
"""

import dataclasses
import itertools
import json
import subprocess
import sys
import time
import zlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.errors import BenchError
from bench.load import GRACE_SECONDS, Load, run_wrk
from bench.measure import Round, Watch
from bench.memory import watched
from bench.process import find_tool
from bench.servers import Server
from bench.servers.origin import SIZES, SLOW
from bench.transfer import download, get

WARM_UP_SECONDS = 1.0
MIB = 1024 * 1024
_OBJECTS = itertools.count()
"""Numbers of slow objects; each is asked for in one round only."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the command line says about the load."""

    seconds: float  # of one round
    connections: int
    load_core: int
    hit_rate: float
    miss_rate: float
    clients: int = 1000  # of collapse


@dataclass(frozen=True, slots=True)
class Scenario(ABC):
    """One row of questions; `path` is the origin's."""

    name: str
    title: str
    path: str
    settings: Settings
    without: tuple[str, ...] = ()  # servers that can't take part
    group: str = "own"  # of the servers that take part

    @abstractmethod
    def round(self, watch: Watch) -> Round:
        """Loads one server for one round."""

    def warm_up(self, server: Server) -> None:
        """What comes before the first round: caches filled, code compiled, pools grown."""
        run_wrk(server.url(self.path), WARM_UP_SECONDS, self.settings.connections, self.settings.load_core)


def generated(module: str, core: int, *arguments: object, seconds: float) -> dict[str, Any]:
    """Runs a load generator of ours on its core; returns what it told."""
    taskset = find_tool("taskset", "apt-get install util-linux")
    command = [taskset, "--cpu-list", str(core), sys.executable, "-m", module, *map(str, arguments)]
    root = Path(__file__).resolve().parent.parent
    timeout = seconds + 2 * GRACE_SECONDS
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False, timeout=timeout)
    if done.returncode:
        raise BenchError(f"{module} failed:\n{done.stderr.strip()}")
    return dict(json.loads(done.stdout))


class Throughput(Scenario):
    """As many requests as wrk's connections get answered."""

    def round(self, watch: Watch) -> Round:
        settings, url = self.settings, watch.server.url(self.path)

        def load() -> Load:
            return run_wrk(url, settings.seconds, settings.connections, settings.load_core)

        return watch.round(self.name, load, in_flight=settings.connections)


class Large(Throughput):
    """Large bodies from the cache, and the worker's memory meanwhile. It is filled by a single request, and the warm-up
    has small bodies: what the first crowd of large ones leaves behind in the worker must show.
    """

    def warm_up(self, server: Server) -> None:
        download(server.port, self.path)
        run_wrk(server.url("/hit/785"), WARM_UP_SECONDS, self.settings.connections, self.settings.load_core)

    def round(self, watch: Watch) -> Round:
        with watched(watch.server.worker_pid()) as memory:
            figures = super().round(watch)
        return dataclasses.replace(figures, memory=memory)


class NotModified(Scenario):
    """Requests with the validator of what is stored: nothing but heads goes back. The validator is the origin's own."""

    def _headers(self, port: int) -> dict[str, str]:
        return {"If-None-Match": get(port, self.path).headers["ETag"]}

    def warm_up(self, server: Server) -> None:
        headers = self._headers(server.port)
        answer = get(server.port, self.path, headers)
        if answer.status != 304 or answer.body:
            raise BenchError(f"status {answer.status} with {len(answer.body)} bytes of body, not 304 without")
        settings = self.settings
        run_wrk(server.url(self.path), WARM_UP_SECONDS, settings.connections, settings.load_core, headers)

    def round(self, watch: Watch) -> Round:
        settings, url = self.settings, watch.server.url(self.path)
        headers = self._headers(watch.origin.port)

        def load() -> Load:
            return run_wrk(url, settings.seconds, settings.connections, settings.load_core, headers)

        figures = watch.round(self.name, load, in_flight=settings.connections)
        if figures.bytes_per_s >= figures.rate * SIZES["785"]:
            problem = "its answers had bodies: they were not 304"
            return dataclasses.replace(figures, failed=figures.requests, problems=[*figures.problems, problem])
        return figures


class Collapse(Scenario):
    """A crowd that asks for one slow object, which nobody has, at once; for another one each round."""

    def warm_up(self, server: Server) -> None:
        """Nothing that crowds: the first must be as good as the next."""
        get(server.port, "/hit/785")

    def round(self, watch: Watch) -> Round:
        settings, path = self.settings, f"{self.path}{next(_OBJECTS)}"
        body = watch.origin.body(SLOW)
        arguments = (watch.server.port, path, "--clients", settings.clients, "--checksum", zlib.crc32(body))

        def load() -> Load:
            told = generated("bench.crowd", settings.load_core, *arguments, seconds=GRACE_SECONDS)
            return Load(
                requests=told["answered"],
                seconds=told["seconds"],
                bytes=told["answered"] * len(body),
                failed=told["failed"],
                timed_out=told["unanswered"],
                latency_ms=told["latency_ms"],
            )

        return watch.round(self.name, load, in_flight=0)


class Latency(Scenario):
    """The same number of requests a second for every server, by openloop.py; latency counts from when each was due."""

    @property
    def rate(self) -> float:
        return self.settings.hit_rate if self.path.startswith("/hit/") else self.settings.miss_rate

    def round(self, watch: Watch) -> Round:
        settings = self.settings
        arguments = (
            *(watch.server.port, self.path, "--rate", self.rate, "--seconds", settings.seconds),
            *("--connections", settings.connections),
        )

        def load() -> Load:
            told = generated("bench.openloop", settings.load_core, *arguments, seconds=settings.seconds)
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
    unable = ("mitmproxy",)  # it neither validates nor collapses, and answers a fraction of the rates
    found: list[Scenario] = [
        Throughput("hit", "785-byte cache hit", "/hit/785", settings),
        Throughput("hit-redis", "785-byte cache hit from Redis", "/hit/785", settings, group="redis"),
        Throughput("hit100k", "100 KiB cache hit", "/hit/100k", settings),
        Large("hit1m", "1 MiB cache hit", "/hit/1m", settings),
        NotModified("not-modified", "304 to If-None-Match, 785 bytes cached", "/hit/785", settings, unable),
        Throughput("miss", "785-byte miss (no-store)", "/miss/785", settings),
        Stream("stream", "64 MiB streamed body (no-store)", "/miss/64m", settings),
        Collapse("collapse", f"{settings.clients:,} clients at once, one slow object", "/slow/", settings, unable),
        Latency("latency-hit", f"785-byte cache hit at {hits}", "/hit/785", settings, unable),
        Latency("latency-miss", f"785-byte miss at {misses}", "/miss/785", settings, unable),
    ]
    return {scenario.name: scenario for scenario in found}
