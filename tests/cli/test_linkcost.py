"""What the line to the origin cost a request: tables of attempts, operations, and the shares that they come to."""

import pytest

from edgeproxy.cli.linkcost import attempts, shares, totals
from edgeproxy.tracing.recorded import Recorded, RecordedAttempt, RecordedOperation


def at(at_ms: float, ms: float) -> RecordedAttempt:
    return RecordedAttempt(at_ms=at_ms, ms=ms)


def op(at_ms: float, ms: float) -> RecordedOperation:
    return RecordedOperation(at_ms=at_ms, us=round(ms * 1000))


@pytest.mark.parametrize(
    ("tried", "asked", "origin", "redis"),
    [
        pytest.param([], [], 0, 0, id="nothing was waited for"),
        pytest.param([at(1, 4)], [op(6, 2)], 4, 2, id="one after the other"),
        pytest.param([at(1, 4), at(5, 3)], [], 7, 0, id="an attempt after another"),
        pytest.param([at(1, 4)], [op(2, 2)], 4, 0, id="Redis while the origin was waited for"),
        pytest.param([at(1, 4)], [op(0.5, 2)], 4, 0.5, id="Redis before, and on"),
        pytest.param([], [op(1, 4), op(2, 4)], 0, 5, id="operations at the same time"),
        pytest.param([at(2, 50)], [], 8, 0, id="an attempt that outlasts the request"),
        pytest.param([at(1, 2)], [op(12, 3)], 2, 0, id="Redis after the request"),
    ],
)
def test_what_overlaps_counts_once(
    tried: list[RecordedAttempt], asked: list[RecordedOperation], origin: float, redis: float
) -> None:
    found = shares(Recorded(duration_ms=10, attempts=tuple(tried), store=tuple(asked)))
    assert (found.origin_ms, found.redis_ms, found.own_ms) == (origin, redis, 10 - origin - redis)


def test_phases_that_did_not_happen_count_as_none_and_sum_up_without() -> None:
    first = RecordedAttempt(connect_ms=5, ms=6)
    second = RecordedAttempt(send_ms=1, first_byte_ms=2, transfer_ms=3)
    costs = attempts([Recorded(attempts=(first,)), Recorded(attempts=(second,))])
    assert [cost.phases for cost in costs] == [(None, 5, None, None, None, None), (None, None, None, 1, 2, 3)]
    assert [cost.total_ms for cost in costs] == [6, 6]
    assert totals(costs) == (0, 5, 0, 1, 2, 3, 12)
