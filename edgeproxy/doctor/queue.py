"""Do the exporters keep up? Their counters over a short while, and since they began, against the size of their queues.

Judging is pure: two readings of the counters in, findings out.
"""

import time
from collections.abc import Sequence

import msgspec

from edgeproxy.config import Batch
from edgeproxy.doctor.findings import Finding, Verdict
from edgeproxy.doctor.patient import Patient
from edgeproxy.export.counts import Counts, read_counts

_FULL = 0.5
"""The share of a queue that should not be filled."""
_LOST = 0.001
"""The share of all spans that may have been lost at some time, so that one bad minute is not reported for ever."""


def check_queue(patient: Patient, watch_s: float) -> list[Finding]:
    """Watch each exporter for a while. Raises OSError."""
    if not patient.exports_to:
        return [Finding(check="queue", verdict=Verdict.SKIPPED, found="no spans are exported")]
    before, began = _counts(patient), time.monotonic()
    time.sleep(watch_s)
    after, elapsed_s = _counts(patient), time.monotonic() - began
    return judge_queues(before, after, elapsed_s, patient.config.tracing.batch)


def _counts(patient: Patient) -> list[Counts]:
    return [one for one in read_counts(patient.runtime.path) if one.active]


def judge_queues(before: Sequence[Counts], after: Sequence[Counts], elapsed_s: float, batch: Batch) -> list[Finding]:
    """A finding for each exporter."""
    if not after:
        return [
            Finding(
                check="queue",
                verdict=Verdict.WARN,
                found="the node does not say how its exporters are",
                advice="does its scribe run? `edgeproxy status`",
            )
        ]
    known = {one.name: one for one in before}
    return [_judge(known.get(one.name, one), one, elapsed_s, batch) for one in after]


def _judge(before: Counts, after: Counts, elapsed_s: float, batch: Batch) -> Finding:
    rate = max(0.0, _taken(after) - _taken(before)) / elapsed_s if elapsed_s else 0.0
    dropped, failed = after.dropped - before.dropped, after.failed - before.failed
    name = after.name
    figures = {
        **msgspec.structs.asdict(after),
        "spans_per_second": round(rate, 3),
        "dropped_meanwhile": dropped,
        "failed_meanwhile": failed,
        "watched_s": round(elapsed_s, 3),
        "queue_size": batch.queue_size,
        "batch_size": batch.batch_size,
        "delay_s": batch.delay,
        "export_timeout_s": batch.export_timeout,
    }

    def finding(verdict: Verdict, found: str, advice: str = "") -> Finding:
        return Finding(check="queue", verdict=verdict, found=f"{name}: {found}", advice=advice, figures=figures)

    larger = "a larger tracing.batch.queue_size and batch_size, a faster backend, or fewer spans (sampling)"
    if dropped > 0:
        return finding(
            Verdict.FAIL,
            f"{dropped} spans were dropped within {elapsed_s:.1f} s: its queue fills faster than it exports "
            f"({rate:.0f} spans/s)",
            larger,
        )
    if failed > 0:
        return finding(
            Verdict.FAIL,
            f"{failed} spans could not be exported within {elapsed_s:.1f} s",
            "see what the backend says below, and in the node's own events (standard error)",
        )
    if after.queued > batch.queue_size * _FULL:
        return finding(
            Verdict.WARN, f"{after.queued} of {batch.queue_size} places in its queue are taken", f"give it {larger}"
        )
    taken, lost = _taken(after), after.dropped + after.failed
    if lost > taken * _LOST:
        return finding(
            Verdict.WARN,
            f"none lost just now, but {after.dropped} dropped and {after.failed} failed so far "
            f"({lost / taken:.2%} of {taken})",
            f"if that goes on: {larger}",
        )
    if rate and batch.queue_size / rate < batch.delay:
        return finding(
            Verdict.WARN,
            f"at {rate:.0f} spans/s its queue of {batch.queue_size} is full within {batch.queue_size / rate:.2f} s, "
            f"sooner than a batch is sent after (tracing.batch.delay, {batch.delay:g} s)",
            f"a collector that stalls for a moment costs spans: {larger}",
        )
    found = f"{after.exported} spans exported, {lost or 'none'} lost, {after.queued} waiting; {rate:.0f} spans/s"
    if rate:
        found += f", for which its queue is {batch.queue_size / rate:.0f} s long"
    return finding(Verdict.OK, found)


def _taken(counts: Counts) -> int:
    """All spans that an exporter was given."""
    return counts.exported + counts.failed + counts.dropped + counts.queued
