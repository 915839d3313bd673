"""The result for people (Markdown tables, readable in a terminal as they are) and for programs (JSON)."""

import dataclasses
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Any

from bench import million, outage, scripts, tracing
from bench.runner import Outcome
from bench.scenarios import Collapse, Large, Latency, Scenario, Stream
from bench.servers import SERVERS
from bench.summary import MIB, Limit, Summaries, Summary, Target, ratio, summaries, targets

NOTHING = "-"
LAGGING_MS = 0.5  # a generator later than this tells of itself, not of the server


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with aligned columns: the first to the left, the others to the right."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        padded = (c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True)))
        return f"| {' | '.join(padded)} |"

    rule = [("-" * w if i == 0 else "-" * (w - 1) + ":") for i, w in enumerate(widths)]
    return "\n".join([line(header), line(rule), *(line(row) for row in rows)])


def _ratio(found: Summaries, summary: Summary, peer: str) -> str:
    other = found.get((summary.scenario, peer))
    if not other:
        return NOTHING
    got = ratio(summary, other)
    return f"{got.value:.3g}{'*' if got.by_core_time else ''}"


def _common(found: Summaries, summary: Summary) -> list[str]:
    return [
        _ratio(found, summary, "nginx-redis" if SERVERS[summary.server].group == "redis" else "nginx"),
        _ratio(found, summary, "mitmproxy"),
        f"{summary.server_busy:.0%}",
        f"{summary.load_busy:.0%}",
        summary.limit.value,
    ]


def _throughput(found: Summaries, rows: Sequence[Summary]) -> str:
    header = ["server", "requests/s", "low-high", "p99 ms", "us core", "us process"]
    header += ["x nginx", "x mitmproxy", "server core", "load core", "limit"]
    cells = [
        [
            SERVERS[s.server].title,
            f"{s.rate:,.0f}",
            f"{s.rate_low:,.0f}-{s.rate_high:,.0f}",
            f"{s.latency_ms['p99']:.2f}",
            f"{s.core_us:.1f}",
            f"{s.process_us:.1f}",
            *_common(found, s),
        ]
        for s in rows
    ]
    return table(header, cells)


def _bodies(found: Summaries, rows: Sequence[Summary]) -> str:
    header = ["server", "MiB/s", "us core per MiB", "peak RSS MB", "grew by MB"]
    header += ["x nginx", "x mitmproxy", "server core", "load core", "limit"]
    cells = [
        [
            SERVERS[s.server].title,
            f"{s.bytes_per_s / MIB:,.0f}",
            f"{s.core_us * s.rate * MIB / s.bytes_per_s:.0f}" if s.bytes_per_s else NOTHING,
            f"{(s.rss_peak or 0) / 1e6:.1f}",
            f"{(s.memory_growth or 0) / 1e6:+.1f}",
            *_common(found, s),
        ]
        for s in rows
    ]
    return table(header, cells)


def _collapse(rows: Sequence[Summary]) -> str:
    header = ["server", "clients answered", "failed", "at the origin, by round", "p50 ms", "p99 ms", "max ms"]
    header += ["us core", "server core", "load core"]
    cells = [
        [
            SERVERS[s.server].title,
            f"{s.requests:,}",
            f"{s.failed + s.timed_out:,}",
            f"{s.origin_requests[0]:,}-{s.origin_requests[1]:,}",
            *(f"{s.latency_ms[mark]:,.0f}" for mark in ("p50", "p99", "max")),
            f"{s.core_us:.1f}",
            f"{s.server_busy:.0%}",
            f"{s.load_busy:.0%}",
        ]
        for s in rows
    ]
    return table(header, cells)


def _latency(rows: Sequence[Summary]) -> str:
    header = ["server", "answered/s", "p50 ms", "p90 ms", "p99 ms", "p99.9 ms", "max ms", "generator's lag p99 ms"]
    header += ["server core", "load core"]
    marks = ("p50", "p90", "p99", "p99.9", "max", "lag_p99")
    cells = [
        [
            SERVERS[s.server].title,
            f"{s.rate:,.0f}",
            *(f"{s.latency_ms[mark]:.2f}" for mark in marks),
            f"{s.server_busy:.0%}",
            f"{s.load_busy:.0%}",
        ]
        for s in rows
    ]
    return table(header, cells)


def _notes(outcome: Outcome, found: Summaries) -> list[str]:
    notes = [f"{name}: not measured: {why}" for name, why in outcome.skipped.items()]
    notes += [f"{name}: {problem}" for name, problems in outcome.problems.items() for problem in problems]
    seen = dict.fromkeys(f"{r.server}, {r.scenario}: {problem}" for r in outcome.rounds for problem in r.problems)
    notes += list(seen)
    for s in found.values():
        where = f"{s.server}, {s.scenario}"
        if s.failed or s.timed_out:
            notes.append(f"{where}: {s.failed} failed, {s.timed_out} timed out of {s.requests:,} requests")
        if s.limit is Limit.LOAD and "lag_p99" not in s.latency_ms:
            notes.append(f"{where}: the load's core was full, the server's was not: requests/s are the load's limit")
        if s.latency_ms.get("lag_p99", 0.0) > LAGGING_MS:
            notes.append(f"{where}: the load generator itself was late: its latencies are not the server's alone")
        if s.fell_behind:
            notes.append(f"{where}: did not keep up: {s.rate:,.0f} of {s.asked_rate:,.0f} requests/s were answered")
    if crowded := [s for s in found.values() if not s.alone]:
        worst = max(crowded, key=lambda s: s.foreign + s.stolen)
        notes.append(
            f"THE MACHINE WAS NOT QUIET: in {len(crowded)} of {len(found)} rows others had a part of the server's "
            f"core, at most {worst.foreign:.0%} and {worst.stolen:.0%} stolen ({worst.server}, {worst.scenario}). "
            "Figures and verdicts are worth little."
        )
    return notes


def _logs(found: Summaries) -> str:
    rows = []
    for server in dict.fromkeys(s.server for s in found.values()):
        mine = [s for s in found.values() if s.server == server]
        low, high = min(s.log_difference[0] for s in mine), max(s.log_difference[1] for s in mine)
        requests, lag = sum(s.requests for s in mine), max(s.log_lag_s for s in mine)
        reached = [s.origin_share for s in mine if s.scenario.startswith(("hit", "latency-hit", "not-modified"))]
        share = f"{max(reached):.2%}" if reached else NOTHING
        rows.append([SERVERS[server].title, f"{requests:,}", f"{low:+,} to {high:+,}", f"{lag:.2f}", share])
    header = [
        "server",
        "requests answered",
        "lines beyond that, by round",
        "complete after s",
        "hits at the origin",
    ]
    return table(header, rows)


def promised(outcome: Outcome) -> list[Target]:
    """Every target, held against what was found out."""
    return [
        *targets(summaries(outcome.rounds)),
        *million.targets(outcome.lookups),
        *outage.targets(outcome.outages),
        *tracing.targets(outcome.tracing),
        *scripts.targets(outcome.scripts),
    ]


def render(outcome: Outcome, chosen: Sequence[Scenario], environment: dict[str, str]) -> str:
    """The whole report."""
    found = summaries(outcome.rounds)
    parts = ["\n".join(f"- {name}: {value}" for name, value in (environment | outcome.versions).items())]
    for scenario in chosen:
        rows = [s for s in found.values() if s.scenario == scenario.name]
        if not rows:
            continue
        parts.append(f"### {scenario.title}")
        match scenario:
            case Latency():
                parts.append(_latency(rows))
            case Collapse():
                parts.append(_collapse(rows))
            case Stream() | Large():
                parts.append(_bodies(found, rows))
            case _:
                parts.append(_throughput(found, rows))
    if outcome.lookups:
        parts += ["### Look-ups by number of stored objects", table(million.HEADER, million.rows(outcome.lookups))]
    if outcome.outages:
        title = f"### A server of the Redis Cluster stops answering, {outage.RATE:,.0f} requests/s"
        parts += [title, table(outage.HEADER, outage.rows(outcome.outages))]
    if outcome.tracing:
        parts += ["### Tracing: 785-byte cache hits", table(tracing.HEADER, tracing.rows(outcome.tracing))]
        if outcome.tracing.arrival:
            parts.append(tracing.sentence(outcome.tracing.arrival))
    if outcome.scripts:
        parts += ["### Scripts: 785-byte cache hits", table(scripts.HEADER, scripts.rows(outcome.scripts))]
    if any(s.limit is Limit.LOAD for s in found.values()):
        parts.append("\\* compared by time on the server's core: the load's core was the limit for one of the two.")
    if found:
        parts += ["### Access logs", _logs(found)]
    if notes := _notes(outcome, found):
        parts += ["### Notes", "\n".join(f"- {note}" for note in notes)]
    verdicts = [[target.promise, target.measured or NOTHING, target.verdict.value] for target in promised(outcome)]
    parts += ["### Targets", table(["target", "measured", "verdict"], verdicts)]
    return "\n\n".join(parts) + "\n"


def _plain(value: object) -> Any:  # noqa: ANN401
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, Enum):
        return value.value
    raise TypeError(type(value))


def write_json(path: Path, outcome: Outcome, environment: dict[str, str], settings: dict[str, object]) -> None:
    """Everything, rounds included, so that a doubt can be looked into later."""
    found = summaries(outcome.rounds)
    document = {
        "taken_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "environment": environment,
        "settings": settings,
        "outcome": outcome,
        "summaries": [dataclasses.asdict(s) | {"limit": s.limit.value} for s in found.values()],
        "targets": [dataclasses.asdict(t) | {"verdict": t.verdict.value} for t in promised(outcome)],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1, default=_plain) + "\n")
