"""A bound of so many a second: kept in every second, shared by workers without a word between them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.tracing.rate import Allowance, Rate, share


def passed(rate: Rate, times: list[float]) -> list[float]:
    return [now for now in times if rate.take(now)]


@given(
    per_second=st.integers(1, 20),
    pauses=st.lists(st.floats(0, 0.7), max_size=200),
)
def test_no_second_has_more_than_the_bound(per_second: int, pauses: list[float]) -> None:
    now, times = 1000.0, []
    for pause in pauses:
        now += pause
        times.append(now)
    taken = passed(Rate(per_second), times)
    for index, begin in enumerate(taken):
        assert sum(1 for later in taken[index:] if later - begin < 1.0) <= per_second


def test_as_many_come_at_once_as_there_may_be_in_a_second() -> None:
    rate = Rate(5)
    assert passed(rate, [1.0] * 9) == [1.0] * 5
    assert passed(rate, [1.9, 2.0, 2.0]) == [2.0, 2.0]


def test_all_of_a_bound_can_be_used() -> None:
    assert len(passed(Rate(5), [index / 100 for index in range(1000)])) == 50


@pytest.mark.parametrize(("per_second", "count"), [(0.5, 5), (0.1, 1), (0, 0)])
def test_less_than_one_a_second_is_one_in_a_longer_time(per_second: float, count: int) -> None:
    assert len(passed(Rate(per_second), [index / 10 for index in range(100)])) == count


def test_what_is_over_is_not_remembered_however_large_the_bound_is() -> None:
    for bound in (1e6, 1e300):
        rate = Rate(bound)
        assert all(rate.take(index / 4) for index in range(1000))
        assert len(rate._taken) <= 4


@given(st.integers(0, 1000), st.integers(1, 64))
def test_the_workers_shares_are_the_whole_and_no_more(per_second: int, count: int) -> None:
    shares = [share(per_second, index, count) for index in range(count)]
    assert sum(shares) == pytest.approx(per_second)
    assert max(shares) - min(shares) <= 1


def test_no_worker_goes_without() -> None:
    assert [share(1, index, 4) for index in range(4)] == [0.25] * 4
    assert [share(10.5, index, 4) for index in range(4)] == [3, 3, 2, 2]


def test_an_allowance_makes_up_for_those_that_did_not_come() -> None:
    allowance = Allowance(1)
    assert [allowance.take(now) for now in [0.0] * 11 + [1.5, 1.9, 2.0] + [60.0] * 11] == [
        *([True] * 10 + [False]),
        *(True, False, True),
        *([True] * 10 + [False]),
    ]


def test_an_allowance_of_nothing_is_none() -> None:
    assert not Allowance(0).take(5.0)
