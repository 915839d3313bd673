"""What the line to the origin cost a request, phase by phase, and what is left as the edge's own share.

Pure: records in, figures out.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from edgeproxy.tracing.recorded import Recorded, RecordedAttempt

PHASES = ("dns", "connect", "tls", "send", "first byte", "transfer")


class AttemptCost(NamedTuple):
    """One attempt at an origin, milliseconds; None where a phase did not happen."""

    request: Recorded
    attempt: RecordedAttempt
    phases: tuple[float | None, ...]
    """In the order of `PHASES`."""
    total_ms: float
    """From its beginning to its end, waiting for a free connection included."""


class Shares(NamedTuple):
    """Where a request's time went, milliseconds; what overlaps counts once, for the origin first."""

    request: Recorded
    origin_ms: float
    redis_ms: float
    """In which nothing but Redis was waited for."""
    own_ms: float
    """What is left: the edge itself, and the client's line where the client is slower than the origin."""


def attempts(records: Iterable[Recorded]) -> list[AttemptCost]:
    """The attempts of all requests, in order."""
    return [
        AttemptCost(record, attempt, phases := _phases(attempt), attempt.ms or sum(one or 0.0 for one in phases))
        for record in records
        for attempt in record.attempts
    ]


def totals(costs: Sequence[AttemptCost]) -> tuple[float, ...]:
    """The sum of each phase, and of the whole."""
    phases = [sum(cost.phases[index] or 0.0 for cost in costs) for index in range(len(PHASES))]
    return (*phases, sum(cost.total_ms for cost in costs))


def shares(record: Recorded) -> Shares:
    """Where a request's time went."""
    at_origin = [(one.attempt.at_ms, one.attempt.at_ms + one.total_ms) for one in attempts([record])]
    in_redis = [(one.at_ms, one.at_ms + one.us / 1000) for one in record.store]
    origin_ms = _covered(at_origin, record.duration_ms)
    both_ms = _covered([*at_origin, *in_redis], record.duration_ms)
    return Shares(record, origin_ms, both_ms - origin_ms, max(0.0, record.duration_ms - both_ms))


def _phases(attempt: RecordedAttempt) -> tuple[float | None, ...]:
    return (
        *(attempt.dns_ms, attempt.connect_ms, attempt.tls_ms),
        *(attempt.send_ms, attempt.first_byte_ms, attempt.transfer_ms),
    )


def _covered(intervals: Sequence[tuple[float, float]], end: float) -> float:
    """How much of the time from 0 to `end` is within one of the intervals."""
    covered = reached = 0.0
    for begins, ends in sorted(intervals):
        covered += max(0.0, min(ends, end) - max(begins, reached))
        reached = max(reached, ends)
    return covered
