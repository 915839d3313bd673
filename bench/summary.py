"""Medians of rounds, ratios between servers, and the targets: figures in, figures out, nothing printed or started.

When the load's core was full and the server's was not, requests a second say how fast wrk is. Then two servers are
compared by the time that each request took of the server's core.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from bench.measure import Round
from bench.memory import growth

FULL = 0.95  # of a core: an idle loop that wakes up once per batch can't fill the rest
QUIET = 0.05  # of the server's core: what others may take before figures are doubted
KEEPING_UP = 0.97
MIB = 1024 * 1024


class Limit(Enum):
    """What kept a server from answering more."""

    SERVER = "server"
    LOAD = "load"
    NEITHER = "neither"


@dataclass(frozen=True, slots=True)
class Summary:
    """A server in a scenario: the median of each figure over its rounds, the worst of what must not happen."""

    scenario: str
    server: str
    rounds: int
    rate: float
    asked_rate: float
    rate_low: float
    rate_high: float
    bytes_per_s: float
    latency_ms: dict[str, float]
    server_busy: float
    load_busy: float
    foreign: float
    stolen: float
    core_us: float
    process_us: float
    origin_share: float
    origin_requests: tuple[int, int]  # smallest and largest of a round
    failed: int  # in all rounds, as the next two
    timed_out: int
    requests: int
    log_difference: tuple[int, int]  # smallest and largest
    log_lag_s: float  # largest
    rss_peak: int | None  # largest
    memory_growth: int | None  # largest

    @property
    def fell_behind(self) -> bool:
        """Whether requests came faster than they were answered; latencies then say how long the round was."""
        return self.rate < KEEPING_UP * self.asked_rate

    @property
    def alone(self) -> bool:
        """Whether the server had its core to itself."""
        return self.foreign <= QUIET and self.stolen <= QUIET

    @property
    def limit(self) -> Limit:
        if self.server_busy >= FULL:
            return Limit.SERVER
        return Limit.LOAD if self.load_busy >= FULL else Limit.NEITHER


def summarize(rounds: Sequence[Round]) -> Summary:
    """The rounds of one server in one scenario, at least one."""

    def median(name: str) -> float:
        return float(statistics.median(getattr(found, name) for found in rounds))

    memories = [found.memory for found in rounds if found.memory]
    rates = [found.rate for found in rounds]
    return Summary(
        scenario=rounds[0].scenario,
        server=rounds[0].server,
        rounds=len(rounds),
        rate=median("rate"),
        asked_rate=median("asked_rate"),
        rate_low=min(rates),
        rate_high=max(rates),
        bytes_per_s=median("bytes_per_s"),
        latency_ms={
            name: statistics.median(found.latency_ms[name] for found in rounds) for name in rounds[0].latency_ms
        },
        server_busy=median("server_busy"),
        load_busy=median("load_busy"),
        foreign=median("foreign"),
        stolen=median("stolen"),
        core_us=median("core_us"),
        process_us=median("process_us"),
        origin_share=median("origin_share"),
        origin_requests=(min(f.origin_requests for f in rounds), max(f.origin_requests for f in rounds)),
        failed=sum(found.failed for found in rounds),
        timed_out=sum(found.timed_out for found in rounds),
        requests=sum(found.requests for found in rounds),
        log_difference=(min(f.log_difference for f in rounds), max(f.log_difference for f in rounds)),
        log_lag_s=max(found.log_lag_s for found in rounds),
        rss_peak=max((memory["rss_peak"] for memory in memories), default=None),
        memory_growth=max((growth(memory) for memory in memories), default=None),
    )


Summaries = dict[tuple[str, str], Summary]


def summaries(rounds: Sequence[Round]) -> Summaries:
    """By scenario and server, in the order in which they were first measured."""
    grouped: dict[tuple[str, str], list[Round]] = {}
    for found in rounds:
        grouped.setdefault((found.scenario, found.server), []).append(found)
    return {key: summarize(group) for key, group in grouped.items()}


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times as much work one server does as another."""

    value: float
    by_core_time: bool  # False: by requests a second


def ratio(one: Summary, other: Summary) -> Ratio:
    """`one` over `other`: above 1, `one` is faster."""
    if Limit.LOAD in {one.limit, other.limit}:
        return Ratio(other.core_us / one.core_us, by_core_time=True)
    return Ratio(one.rate / other.rate if other.rate else math.inf, by_core_time=False)


class Verdict(Enum):
    """What became of a target."""

    PASS = "pass"
    FAIL = "FAIL"
    NOT_MEASURED = "not measured"


@dataclass(frozen=True, slots=True)
class Target:
    """One promise and what was measured of it."""

    promise: str
    measured: str
    verdict: Verdict


def _sound(ours: Summary) -> str:
    """What makes a figure worthless; empty if nothing does."""
    if ours.failed or ours.timed_out:
        return f"; {ours.failed + ours.timed_out:,} requests failed"
    if ours.log_difference[0] < 0:
        return f"; {-ours.log_difference[0]:,} log lines missing"
    if ours.fell_behind:
        return f"; {ours.rate:,.0f} of {ours.asked_rate:,.0f} requests/s answered"
    return ""


def _verdict(met: bool, unsound: str) -> Verdict:
    return Verdict.PASS if met and not unsound else Verdict.FAIL


def _at_least(
    found: Summaries, scenario: str, peer: str, factor: float, promise: str, *, of: str = "edgeproxy"
) -> Target:
    ours, theirs = found.get((scenario, of)), found.get((scenario, peer))
    if not ours or not theirs:
        return Target(promise, "", Verdict.NOT_MEASURED)
    got = ratio(ours, theirs)
    basis = "by time on the server's core: the load's core was full" if got.by_core_time else "by requests/s"
    unsound = _sound(ours)
    return Target(promise, f"{got.value:.2f} x, {basis}{unsound}", _verdict(got.value >= factor, unsound))


def _p99(found: Summaries, scenario: str, promise: str) -> Target:
    ours, theirs = found.get((scenario, "edgeproxy")), found.get((scenario, "nginx"))
    if not ours or not theirs:
        return Target(promise, "", Verdict.NOT_MEASURED)
    mine, limit = ours.latency_ms["p99"], 2 * theirs.latency_ms["p99"]
    measured = f"{mine:.2f} ms against {limit / 2:.2f} ms"
    unsound = _sound(ours)
    return Target(promise, measured + unsound, _verdict(mine <= limit, unsound))


def _flat(found: Summaries, scenario: str, promise: str) -> Target:
    ours = found.get((scenario, "edgeproxy"))
    if not ours or ours.memory_growth is None:
        return Target(promise, "", Verdict.NOT_MEASURED)
    unsound = _sound(ours)
    measured = f"{ours.memory_growth / 1e6:+.1f} MB at the peak"
    return Target(promise, measured + unsound, _verdict(ours.memory_growth <= 10e6, unsound))


def _collapsed(found: Summaries, promise: str) -> Target:
    ours = found.get(("collapse", "edgeproxy"))
    if not ours:
        return Target(promise, "", Verdict.NOT_MEASURED)
    unsound = _sound(ours)
    asked = ours.requests + ours.failed + ours.timed_out
    low, high = ours.origin_requests
    measured = f"{low:,} to {high:,} a round; {ours.requests:,} of {asked:,} answered"
    return Target(promise, measured + unsound, _verdict(low == high == 1, unsound))


def targets(found: Summaries) -> list[Target]:
    """What edgeproxy promises, held against the figures."""
    return [
        _at_least(found, "hit", "nginx", 1.3, "785-byte hits: at least 1.3 x nginx + Lua"),
        _at_least(found, "miss", "nginx", 0.7, "785-byte misses: at least 0.7 x nginx + Lua"),
        _at_least(found, "hit", "nginx", 1.3, "compiled: 785-byte hits: at least 1.3 x nginx + Lua", of="compiled"),
        _at_least(found, "miss", "nginx", 0.7, "compiled: 785-byte misses: at least 0.7 x nginx + Lua", of="compiled"),
        *(
            _at_least(
                found,
                "hit-redis",
                "nginx-redis",
                0.7,
                f"{prefix}785-byte hits from Redis: at least 0.7 x nginx + Lua from Redis",
                of=server,
            )
            for prefix, server in (("", "edgeproxy-redis"), ("compiled: ", "compiled-redis"))
        ),
        _at_least(found, "hit1m", "nginx", 0.8, "1 MiB hits: at least 0.8 x nginx + Lua's bytes/s"),
        _at_least(found, "not-modified", "nginx", 1.3, "304 to If-None-Match: at least 1.3 x nginx + Lua"),
        *(
            _at_least(
                found, scenario, "nginx", factor, f"compiled: {what}: at least {factor} x nginx + Lua", of="compiled"
            )
            for scenario, what, factor in (("hit1m", "1 MiB hits", 0.8), ("not-modified", "304 to If-None-Match", 1.3))
        ),
        _at_least(found, "hit", "mitmproxy", 40, "785-byte hits: at least 40 x mitmproxy"),
        _at_least(found, "miss", "mitmproxy", 40, "785-byte misses: at least 40 x mitmproxy"),
        _p99(found, "latency-hit", "p99 of hits at the same rate: at most 2 x nginx + Lua"),
        _p99(found, "latency-miss", "p99 of misses at the same rate: at most 2 x nginx + Lua"),
        _flat(found, "stream", "64 MiB stream: worker's memory within 10 MB"),
        _flat(found, "hit1m", "1 MiB hits: worker's memory within 10 MB"),
        _collapsed(found, "a crowd that asks for one slow object: 1 request at the origin, all answered"),
    ]
