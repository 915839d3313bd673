"""What a request takes of the worker's core: for servers that differ by less than what the load itself can do.

The worker has its core alone; whatever else a server runs shares the other one with the load. On two cores the load is
the bottleneck then, so that what is compared is the worker's CPU time for each request: its reciprocal is what the
worker's core can do.
"""

import contextlib
import os
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import machine
from bench.errors import BenchError
from bench.load import Load
from bench.servers import Server


@dataclass(frozen=True, slots=True)
class Cost:
    """One server's requests, over all rounds."""

    server: str
    title: str
    rate: float  # requests a second, as answered on this machine's cores
    worker_us: float  # CPU time of the worker for each request

    @property
    def capacity(self) -> float:
        """Requests a second that the worker's core can do."""
        return 1e6 / self.worker_us


def place(pids: set[int], cores: set[int]) -> None:
    """Have these processes, all their threads, run on those cores."""
    for pid in pids:
        with contextlib.suppress(FileNotFoundError):
            for thread in Path(f"/proc/{pid}/task").iterdir():
                with contextlib.suppress(ProcessLookupError):
                    os.sched_setaffinity(int(thread.name), cores)


def spread(server: Server, load_core: int) -> None:
    """Leave the worker alone on its core: whatever else the server runs goes to the other one."""
    place(server.pids() - {server.worker_pid()}, {load_core})


def compare(servers: Sequence[Server], rounds: int, load: Callable[[Server], Load], what: str) -> list[Cost]:
    """Loads each server in each round, each of which begins with another one. Raises BenchError if a request fails."""
    found: dict[str, list[tuple[float, float]]] = {server.name: [] for server in servers}
    for number in range(rounds):
        shift = number % len(servers)
        for server in (*servers[shift:], *servers[:shift]):
            rate, worker_us = _round(server, load)
            found[server.name].append((rate, worker_us))
            told = f"{rate:,.0f}/s, {worker_us:.2f} us of the worker's core each"
            print(f"{what} {number + 1}/{rounds} {server.name}: {told}", file=sys.stderr, flush=True)
    return [_cost(server, found[server.name]) for server in servers]


def _round(server: Server, load: Callable[[Server], Load]) -> tuple[float, float]:
    worker = {server.worker_pid()}
    before = machine.cpu_seconds(worker)
    got = load(server)
    used = machine.cpu_seconds(worker) - before
    if got.failed or got.timed_out:
        raise BenchError(f"{server.name}: {got.failed} requests failed, {got.timed_out} timed out")
    return got.rate, used / got.requests * 1e6


def _cost(server: Server, rounds: list[tuple[float, float]]) -> Cost:
    rates, worker_us = zip(*rounds, strict=True)
    return Cost(server.name, server.title, statistics.median(rates), statistics.median(worker_us))
