"""Rounds for the tests of what is made of them."""

from dataclasses import replace
from typing import Any

from bench.capacity import Cost
from bench.measure import Round
from bench.million import SIZES, STORES, Lookups
from bench.outage import CASES, Outage, Window
from bench.scripts import Scripted
from bench.tracing import Arrival, Tracing

PLAIN: dict[str, Any] = {
    "scenario": "hit",
    "server": "edgeproxy",
    "requests": 1000,
    "seconds": 1.0,
    "rate": 1000.0,
    "asked_rate": 0.0,
    "bytes_per_s": 1e6,
    "failed": 0,
    "timed_out": 0,
    "latency_ms": {"p50": 1.0, "p99": 2.0},
    "server_busy": 1.0,
    "load_busy": 0.5,
    "foreign": 0.0,
    "stolen": 0.0,
    "core_us": 20.0,
    "process_us": 19.0,
    "origin_share": 0.0,
    "origin_requests": 0,
    "log_difference": 3,
    "log_lag_s": 0.1,
}


FLAT = Lookups("memory", 1000, 100.0, 90.0, 110.0, 50.0, 20.0, 1900.0, 1960.0)


def flat_lookups() -> list[Lookups]:
    """Look-ups that take the same time however much is stored."""
    return [replace(FLAT, store=store, entries=size) for store in STORES for size in SIZES]


def bounded_outages() -> list[Outage]:
    """Failures that requests notice as little of as they may: 2 ms while all was well, then these."""
    windows = [Window([ms / 1000]) for ms in (2.0, 50.0, 4.0)]
    return [Outage(case.title, *windows, opened_after_s=[0.09]) for case in CASES]


def cheap_tracing(worker_us: float = 12.0, arrived: int = 200, lost: int = 0) -> Tracing:
    """Tracing that costs less than it may, with every span at the collector."""
    costs = [
        Cost("tracing-off", "edgeproxy, tracing off", 60_000, 11.0),
        Cost("tracing-full", "edgeproxy, 100 % sampled, OTLP", 50_000, worker_us),
        Cost("nginx", "nginx + Lua", 50_000, 20.0),
    ]
    return Tracing(costs, Arrival(10_000, 10.0, 100, 0, 200, arrived, arrived, lost, 30.0))


def cheap_scripts(worker_us: float = 11.0, seen: float = 0.01) -> list[Scripted]:
    """Scripts that cost less than they may, compiled as well."""
    return [
        Scripted(Cost(f"{base}-scripts-{kind}", f"{base}, {kind}", 60_000, us), f"{base}-scripts-none", share, saw)
        for base in ("edgeproxy", "compiled")
        for kind, us, share, saw in (("none", 10.0, 0.0, 0.0), ("some", worker_us, 0.01, seen))
    ]


def a_round(**figures: Any) -> Round:
    """A sound round of edgeproxy's hits, but for the figures given."""
    return Round(**(PLAIN | figures))
