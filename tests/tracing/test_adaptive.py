"""The adaptive ratio over simulated time: on target, fair to rare routes, not flooded by a surge."""

import math
import random
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from edgeproxy.tracing.adaptive import Adaptive

HOUR_S = 3600
TARGET = 5.0
FLOOR_S = 50


def requests(rate: Callable[[float], float], seconds: int, chance: random.Random) -> Iterator[float]:
    """The times of requests that come at random, so many a second."""
    now = 0.0
    while now < seconds:
        now += chance.expovariate(rate(now))
        yield now


def simulated(
    adaptive: Adaptive, rate: Callable[[float], float], seconds: int, routes: dict[bytes, float]
) -> tuple[list[int], Counter[tuple[bytes, int]], Counter[tuple[bytes, int]]]:
    """Traces sampled in each second, and requests and traces of each route in each stretch of `FLOOR_S`."""
    chance = random.Random(20261121)
    names, weights = list(routes), list(routes.values())
    by_second = [0] * (seconds + 60)
    came, taken = Counter[tuple[bytes, int]](), Counter[tuple[bytes, int]]()
    for now in requests(rate, seconds, chance):
        (route,) = chance.choices(names, weights)
        came[route, int(now) // FLOOR_S] += 1
        if adaptive.decide(f"{chance.getrandbits(64):016x}", route, now)[0]:
            taken[route, int(now) // FLOOR_S] += 1
            by_second[int(now)] += 1
    return by_second, came, taken


TRAFFIC: dict[str, Callable[[float], float]] = {
    "steady": lambda _now: 40.0,
    "a day's waves in an hour": lambda now: 35.0 + 25.0 * math.sin(now / 300),
    "bursts": lambda now: 90.0 if now % 300 < 30 else 20.0,
    "seldom more than the target": lambda _now: 6.0,
}


@pytest.mark.parametrize("rate", TRAFFIC.values(), ids=TRAFFIC.keys())
def test_over_an_hour_it_stays_within_a_tenth_of_the_target_and_the_floors_hold(rate: Callable[[float], float]) -> None:
    routes = {b"/*": 0.9, b"/api/*": 0.08, b"/rare": 0.018, b"/rarest": 0.002}
    by_second, came, taken = simulated(Adaptive(TARGET, floor=0.1), rate, HOUR_S, routes)
    assert sum(by_second) == pytest.approx(TARGET * HOUR_S, rel=0.1)
    for begin in range(0, HOUR_S, 600):
        assert sum(by_second[begin : begin + 600]) == pytest.approx(TARGET * 600, rel=0.1)
    for route in routes:
        owed = sum(min(came[route, part], 0.1 * FLOOR_S) for part in range(HOUR_S // FLOOR_S))
        assert sum(taken[route, part] for part in range(HOUR_S // FLOOR_S)) >= owed


def test_a_route_with_fewer_requests_than_its_floor_has_them_all() -> None:
    adaptive = Adaptive(1.0, floor=1.0)
    for second in range(100):
        for part in range(50):
            adaptive.decide(f"{part * 1000 + second:016x}"[::-1], b"/*", second + part / 100)
        assert adaptive.decide("f" * 16, b"/rare", second + 0.9) == (True, "floor")


def test_floors_are_part_of_the_target() -> None:
    routes = {f"/{number}".encode(): 0.1 for number in range(10)}
    by_second, _, _ = simulated(Adaptive(20.0, floor=1.0), lambda _now: 100.0, 300, routes)
    assert sum(by_second[10:300]) == pytest.approx(20 * 290, rel=0.1)


def test_floors_that_are_more_than_the_target_go_before_it() -> None:
    routes = {f"/{number}".encode(): 0.1 for number in range(10)}
    by_second, _, taken = simulated(Adaptive(5.0, floor=1.0), lambda _now: 100.0, 300, routes)
    assert sum(by_second[10:300]) == pytest.approx(10 * 290, rel=0.1)
    assert min(taken.values()) > 0.9 * FLOOR_S


def test_without_much_traffic_everything_is_sampled() -> None:
    adaptive = Adaptive(10.0)
    by_second, came, taken = simulated(adaptive, lambda _now: 3.0, 60, {b"/*": 1.0})
    assert taken == came
    assert sum(by_second) == taken.total()
    assert adaptive.ratio == 1.0


def test_a_surge_is_bounded_in_the_very_second_in_which_it_comes() -> None:
    by_second, _, _ = simulated(Adaptive(10.0), lambda now: 5.0 if now < 10 else 20_000.0, 13, {b"/*": 1.0})
    assert max(by_second) < 2 * (10 + 4 * math.sqrt(10) + 1)  # a second of the clock has parts of two of its own


def test_the_ratio_is_the_one_of_trace_id_ratio() -> None:
    adaptive = Adaptive(10.0)
    for second in range(20):
        for part in range(100):
            adaptive.decide("f" * 16, b"/*", second + part / 100)
    adaptive.decide("f" * 16, b"/*", 20.0)
    assert adaptive.ratio == pytest.approx(0.1, rel=0.02)
    bound = round(adaptive.ratio * (1 << 64))
    assert adaptive.decide(f"{bound - 1:016x}", b"/*", 20.1) == (True, "adaptive")
    assert adaptive.decide(f"{bound:016x}", b"/*", 20.1) == (False, "adaptive")
