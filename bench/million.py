"""Does a look-up take as long among a million objects as among a thousand? Processes of lookups.py, one for each store
and size, whose rounds alternate; medians of them, and what is promised of them.
"""

import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from bench.errors import BenchError
from bench.process import find_tool
from bench.summary import Target, Verdict

SIZES = (1_000, 10_000, 100_000, 1_000_000)
QUICK_SIZES = (1_000, 10_000)
STORES = {"memory": "hot memory", "embedded": "embedded store"}
FLAT = 1.2
"""A look-up may take so many times as long as among the fewest."""
ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class Lookups:
    """One store with so many objects: nanoseconds of CPU time a look-up, medians of the rounds."""

    store: str
    entries: int
    random_ns: float
    random_low_ns: float
    random_high_ns: float
    few_ns: float
    by_number_ns: float | None
    real_bytes: float
    """Memory (or room on disk) that each object takes up; the next is what it counts in the store's bound."""
    counted_bytes: float


def summarize(store: str, entries: int, filled: dict[str, float], rounds: Sequence[dict[str, float]]) -> Lookups:
    """What one process told; at least one round."""

    def median(name: str) -> float:
        return statistics.median(told[name] for told in rounds)

    at_random = [told["random_ns"] for told in rounds]
    return Lookups(
        store=store,
        entries=entries,
        random_ns=statistics.median(at_random),
        random_low_ns=min(at_random),
        random_high_ns=max(at_random),
        few_ns=median("few_ns"),
        by_number_ns=None if rounds[0]["by_number_ns"] is None else median("by_number_ns"),
        real_bytes=filled["real_bytes"],
        counted_bytes=filled["counted_bytes"],
    )


def run(core: int, rounds: int, sizes: Sequence[int]) -> list[Lookups]:
    """Measures every store at these sizes, on one core."""
    found = []
    for store, title in STORES.items():
        with contextlib.ExitStack() as stack:
            probes = [stack.enter_context(_Probe(store, size, core)) for size in sizes]
            told: list[list[dict[str, float]]] = [[] for _ in probes]
            for _ in range(rounds):
                for probe, mine in zip(probes, told, strict=True):
                    mine.append(probe.round())
            found += [summarize(store, p.entries, p.filled, mine) for p, mine in zip(probes, told, strict=True)]
        for lookups in found[-len(sizes) :]:
            told_ns = (
                f"{lookups.entries:,} objects: {lookups.random_ns:,.0f} ns at random, {lookups.few_ns:,.0f} of few"
            )
            print(f"million: {title}, {told_ns}", file=sys.stderr, flush=True)
    return found


class _Probe:
    """One process of lookups.py, full; it ends with the block."""

    def __init__(self, store: str, entries: int, core: int) -> None:
        self.entries = entries
        self.filled: dict[str, float] = {}
        self._command = [
            *(find_tool("taskset", "apt-get install util-linux"), "--cpu-list", str(core)),
            *(sys.executable, "-m", "bench.lookups", store, str(entries)),
        ]
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="edgeproxy-bench-"))
            self._process = stack.enter_context(
                subprocess.Popen(
                    [*self._command, folder],
                    cwd=ROOT,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    start_new_session=True,
                )
            )
            stack.callback(self._process.kill)
            self.filled = self._told()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def round(self) -> dict[str, float]:
        assert self._process.stdin
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._told()

    def _told(self) -> dict[str, float]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise BenchError(f"{' '.join(self._command)} ended with code {self._process.wait()}")
        return dict(json.loads(line))


def targets(found: Sequence[Lookups]) -> Iterator[Target]:
    """Flat means: nowhere more than `FLAT` times what it is among the fewest."""
    for store, title in STORES.items():
        mine = sorted((lookups for lookups in found if lookups.store == store), key=lambda lookups: lookups.entries)
        for pattern, name in (("few_ns", "the same few objects"), ("random_ns", "objects at random")):
            promise = f"{title}: look-up of {name} within 20 % from {SIZES[0]:,} to {SIZES[-1]:,} stored"
            if [lookups.entries for lookups in mine] != list(SIZES):
                yield Target(promise, "", Verdict.NOT_MEASURED)
                continue
            times = [getattr(lookups, pattern) for lookups in mine]
            worst = max(times) / times[0]
            measured = f"{worst:.2f} x at most: {', '.join(f'{time:,.0f}' for time in times)} ns"
            yield Target(promise, measured, Verdict.PASS if worst <= FLAT else Verdict.FAIL)


HEADER = ["store", "objects", "at random ns", "low-high", "x fewest", "same few ns", "x fewest", "plain list ns"]
HEADER += ["bytes an object", "as counted"]


def rows(found: Sequence[Lookups]) -> list[list[str]]:
    """The cells of a table under `HEADER`."""
    fewest: dict[str, Lookups] = {}
    cells = []
    for lookups in found:
        first = fewest.setdefault(lookups.store, lookups)
        cells.append(
            [
                STORES[lookups.store],
                f"{lookups.entries:,}",
                f"{lookups.random_ns:,.0f}",
                f"{lookups.random_low_ns:,.0f}-{lookups.random_high_ns:,.0f}",
                f"{lookups.random_ns / first.random_ns:.2f}",
                f"{lookups.few_ns:,.0f}",
                f"{lookups.few_ns / first.few_ns:.2f}",
                "-" if lookups.by_number_ns is None else f"{lookups.by_number_ns:,.0f}",
                f"{lookups.real_bytes:,.0f}",
                f"{lookups.counted_bytes:,.0f}",
            ]
        )
    return cells
