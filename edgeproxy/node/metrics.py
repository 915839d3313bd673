"""The node's metrics for Prometheus, read out of the ledgers' counters at the moment of the question.

A counter of a worker index is what its dead incarnations had counted (`ledger.Totals`) and what the living ones show,
so it never falls. Names and meanings stand in tables here; docs/metrics.md is checked against them. Reads shared
memory, parses no line.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

import edgeproxy
from edgeproxy.export import read_counts
from edgeproxy.ledger import Counter, LedgerReader
from edgeproxy.node.drain import Drain


class Family(NamedTuple):
    """One metric: its name without prefix and suffix, what it says, and where its values come from."""

    name: str
    meaning: str
    counters: Mapping[Counter, str]
    """Counters, each with its value of `label`."""
    label: str = ""
    scale: float = 1


def _by(prefix: str) -> dict[Counter, str]:
    members = [counter for counter in Counter if counter.name.startswith(prefix)]
    return {counter: counter.name.removeprefix(prefix).lower() for counter in members}


_CACHE = {counter: word for counter, word in _by("CACHE_").items() if counter <= Counter.CACHE_BYPASS}
"""What the cache did; the numbers of its memory are called alike."""

COUNTERS = (
    Family("requests", "Requests whose record was made.", {Counter.REQUESTS: ""}),
    Family(
        "request_duration_seconds",
        "Sum of the requests' durations; divided by `requests` it is their mean.",
        {Counter.DURATION_US: ""},
        scale=1e-6,
    ),
    Family("received_bytes", "Bytes of request bodies received from clients.", {Counter.BYTES_IN: ""}),
    Family("sent_bytes", "Bytes of response bodies sent to clients.", {Counter.BYTES_OUT: ""}),
    Family("responses", "Requests by class of status; `1xx`: ended without a final one.", _by("STATUS_"), "class"),
    Family("cache", "Requests by what the cache did for them.", _CACHE, "result"),
    Family("outcomes", "Requests by how they ended; `lost`: with their worker.", _by("OUTCOME_"), "outcome"),
    Family("sampled", "Requests whose trace was sampled.", {Counter.SAMPLED: ""}),
    Family("connections", "Client connections accepted.", {Counter.CONNECTIONS: ""}),
    Family("origin_connects", "Connections opened to origins.", {Counter.ORIGIN_CONNECTS: ""}),
    Family("origin_retries", "Origin attempts after the first of a request.", {Counter.ORIGIN_RETRIES: ""}),
    Family(
        "cache_refreshes",
        "Stale responses validated in the background; no requests of clients'.",
        {Counter.CACHE_REFRESHES: ""},
    ),
    Family("cache_evictions", "Entries evicted from hot memory.", {Counter.CACHE_EVICTIONS: ""}),
    Family(
        "store_operations",
        "Operations of a store on other hosts (Redis), with those that failed.",
        {Counter.STORE_OPERATIONS: ""},
    ),
    Family(
        "store_failures",
        "Those of them that came to nothing: no answer in time, or an error.",
        {Counter.STORE_FAILURES: ""},
    ),
    Family("store_dropped", "Responses that could not be stored there.", {Counter.STORE_DROPPED: ""}),
    Family("store_damaged", "Values found there that were not as they should be.", {Counter.STORE_DAMAGED: ""}),
    Family("store_breaks", "How often one of its nodes was given a rest.", {Counter.STORE_BREAKS: ""}),
    Family(
        "spans_unseen",
        "Spans of lines that went past the full ledger: nobody exports them.",
        {Counter.SPANS_UNSEEN: ""},
    ),
    Family("script_flows", "Requests that operators' scripts saw.", {Counter.SCRIPT_FLOWS: ""}),
    Family("script_errors", "Hooks of scripts that failed.", {Counter.SCRIPT_ERRORS: ""}),
    Family("script_timeouts", "Those of them that took too long.", {Counter.SCRIPT_TIMEOUTS: ""}),
    Family(
        "script_blocks",
        "Hooks that kept the worker from everything else for more than 50 ms.",
        {Counter.SCRIPT_BLOCKS: ""},
    ),
    Family("script_loads", "How often a script was loaded.", {Counter.SCRIPT_LOADS: ""}),
    Family("script_load_failures", "How often a script could not be loaded.", {Counter.SCRIPT_LOAD_FAILURES: ""}),
    Family("ledger_full", "Lines a worker wrote to the log itself, its ledger being full.", {Counter.RING_FULL: ""}),
    Family("log_lines_lost", "Lines that neither ledger nor log took.", {Counter.LINES_LOST: ""}),
)
"""What only rises, by worker; `edgeproxy_<name>_total`."""

GAUGES = (
    Family("connections_open", "Client connections open now.", {Counter.CONNECTIONS_OPEN: ""}),
    Family("cache_bytes", "Bytes held by hot memory.", {Counter.CACHE_BYTES: ""}),
    Family("cache_entries", "Entries held by hot memory.", {Counter.CACHE_ENTRIES: ""}),
    Family("store_nodes", "Nodes of a store on other hosts (Redis).", {Counter.STORE_NODES: ""}),
    Family("store_nodes_well", "Those of them that answer.", {Counter.STORE_NODES_WELL: ""}),
    Family(
        "store_usable", "1 where what is found there may be used: purge rules are known.", {Counter.STORE_USABLE: ""}
    ),
)
"""What the living workers say of now, by worker; `edgeproxy_<name>`."""

LEDGER_GAUGES = {
    "workers": "Living processes of a worker index: 1, for a moment 2 during a reload.",
    "requests_in_flight": "Requests under way now.",
    "ledger_bytes": "Bytes of records that wait to be written.",
    "ledger_fill_ratio": "The same as a share of the ledger, 0 to 1.",
    "tracing": "1 where the worker traces.",
}
"""What a ledger itself shows, by worker; `edgeproxy_<name>`."""

EXPORT = {
    "spans_exported": "Spans that arrived where they were sent.",
    "spans_failed": "Spans that were refused, or that could not be sent in time.",
    "spans_dropped": "Spans for which there was no room, or no time before the end.",
    "spans_queued": "Spans that wait, or are being sent.",
}
"""What became of the spans, by exporter; `edgeproxy_<name>_total`, the last one now: `edgeproxy_<name>`."""

NODE = {
    "build_info": "1, with the version as label.",
    "scribe_written_bytes_total": "Bytes of records that this scribe has written out.",
    "scribe_write_errors_total": "Attempts to write the access log that failed.",
    "access_log_writable": "0 while the access log can't be written.",
}
"""What is said once for the node; `edgeproxy_<name>`."""


class _LedgerCollector(Collector):
    """Makes samples of a drain's ledgers whenever it is asked."""

    def __init__(self, drain: Drain) -> None:
        self._drain = drain

    def collect(self) -> Iterator[Metric]:
        ledgers = list(self._drain.ledgers.values())
        living = [ledger for ledger in ledgers if self._drain.is_living(ledger)]
        totals = {worker: self._drain.totals.of(worker) for worker in self._drain.totals.workers}
        for ledger in ledgers:
            sums = totals.get(ledger.worker) or [0] * len(Counter)
            totals[ledger.worker] = [before + ledger.counters[index] for index, before in enumerate(sums)]
        for family in COUNTERS:
            counter = CounterMetricFamily(_name(family.name), family.meaning, labels=_labels(family))
            for worker in sorted(totals):
                for number, word in family.counters.items():
                    counter.add_metric(_values(worker, family, word), totals[worker][number] * family.scale)
            yield counter
        now = _sums(living)
        for family in GAUGES:
            gauge = GaugeMetricFamily(_name(family.name), family.meaning, labels=_labels(family))
            for worker in sorted(now):
                for number, word in family.counters.items():
                    gauge.add_metric(_values(worker, family, word), now[worker][number])
            yield gauge
        yield from _ledger_gauges(living)
        yield from self._export()
        yield from self._node()

    def _export(self) -> Iterator[Metric]:
        counts = read_counts(self._drain.runtime_dir)
        for name, meaning in EXPORT.items():
            kind = GaugeMetricFamily if _is_now(name) else CounterMetricFamily
            metric = kind(_name(name), meaning, labels=["exporter"])
            for one in counts:
                metric.add_metric([one.name], getattr(one, name.removeprefix("spans_")))
            yield metric

    def _node(self) -> Iterator[Metric]:
        drain = self._drain
        build = GaugeMetricFamily(_name("build_info"), NODE["build_info"], labels=["version"])
        build.add_metric([edgeproxy.__version__], 1)
        yield build
        for name, value in (
            ("scribe_written_bytes_total", drain.written_bytes),
            ("scribe_write_errors_total", drain.health.errors),
        ):
            yield CounterMetricFamily(_name(name), NODE[name], value=value)
        name = "access_log_writable"
        yield GaugeMetricFamily(_name(name), NODE[name], value=int(drain.health.is_well))


def _ledger_gauges(living: list[LedgerReader]) -> Iterator[Metric]:
    by_worker: dict[int, dict[str, float]] = {}
    for ledger in living:
        values = by_worker.setdefault(ledger.worker, dict.fromkeys(LEDGER_GAUGES, 0.0))
        values["workers"] += 1
        values["requests_in_flight"] += ledger.in_flight
        values["ledger_bytes"] += ledger.fill
        values["ledger_fill_ratio"] = max(values["ledger_fill_ratio"], ledger.fill_share)
        values["tracing"] = float(ledger.acknowledged_tracing)
    for name, meaning in LEDGER_GAUGES.items():
        gauge = GaugeMetricFamily(_name(name), meaning, labels=["worker"])
        for worker in sorted(by_worker):
            gauge.add_metric([str(worker)], by_worker[worker][name])
        yield gauge


def _is_now(name: str) -> bool:
    return name == "spans_queued"


def _sums(ledgers: list[LedgerReader]) -> dict[int, list[int]]:
    sums: dict[int, list[int]] = {}
    for ledger in ledgers:
        before = sums.get(ledger.worker) or [0] * len(Counter)
        sums[ledger.worker] = [value + ledger.counters[index] for index, value in enumerate(before)]
    return sums


def _name(name: str) -> str:
    return f"edgeproxy_{name}"


def _labels(family: Family) -> list[str]:
    return ["worker", family.label] if family.label else ["worker"]


def _values(worker: int, family: Family, word: str) -> list[str]:
    return [str(worker), word] if family.label else [str(worker)]


def markdown_table() -> str:
    """Render the metrics as docs/metrics.md shows them."""
    rows = [(f"{family.name}_total", "counter", _labels(family), family.meaning) for family in COUNTERS]
    rows += [(family.name, "gauge", _labels(family), family.meaning) for family in GAUGES]
    rows += [(name, "gauge", ["worker"], meaning) for name, meaning in LEDGER_GAUGES.items()]
    for name, meaning in EXPORT.items():
        row = (name, "gauge") if _is_now(name) else (f"{name}_total", "counter")
        rows.append((*row, ["exporter"], meaning))
    for name, meaning in NODE.items():
        labels = ["version"] if name == "build_info" else []
        rows.append((name, "counter" if name.endswith("_total") else "gauge", labels, meaning))
    lines = [
        f"| `{_name(name)}` | {kind} | {', '.join(f'`{label}`' for label in labels)} | {meaning} |"
        for name, kind, labels, meaning in rows
    ]
    return "\n".join(["| metric | type | labels | meaning |", "| --- | --- | --- | --- |", *lines]) + "\n"


class Metrics:
    """The metrics of a node, for the admin API."""

    def __init__(self, drain: Drain) -> None:
        """Read from the ledgers that `drain` has open."""
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_LedgerCollector(drain))

    def render(self, accept: str) -> tuple[bytes, str]:
        """Render them in the form that an Accept header asks for; with its content type."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type
