"""A node's circuit breaker, step by step; its clock is the test's."""

import pytest

from edgeproxy.cache.redis.breaker import FAILURES, REST_MAX_S, REST_S, Breaker, State

FULL = [*["fail"] * FAILURES]


def after(*events: str | float) -> tuple[Breaker, float]:
    """A breaker to which this has happened: a number is that many seconds."""
    breaker, now = Breaker(), 100.0
    for event in events:
        match event:
            case "fail":
                breaker.failed(now)
            case "lose":
                breaker.trip(now)
            case "succeed":
                breaker.succeeded()
            case "probe":
                assert breaker.wants_probe(now)
                breaker.probing()
            case float():
                now += event
    return breaker, now


@pytest.mark.parametrize(
    ("events", "state"),
    [
        pytest.param([], State.CLOSED, id="new"),
        pytest.param(["fail"] * (FAILURES - 1), State.CLOSED, id="too-few-failures"),
        pytest.param(FULL, State.OPEN, id="enough-failures"),
        pytest.param(["fail"] * (FAILURES - 1) + ["succeed", "fail"], State.CLOSED, id="not-in-a-row"),
        pytest.param([99.0, *FULL], State.OPEN, id="however-long-it-was-well"),
        pytest.param(["fail", 60.0] * FAILURES, State.OPEN, id="however-rarely-it-is-asked"),
        pytest.param(["lose"], State.OPEN, id="lost"),
        pytest.param(["lose", "lose"], State.OPEN, id="lost-twice"),
        pytest.param(["lose", "succeed"], State.OPEN, id="an-answer-from-before-closes-nothing"),
        pytest.param(["lose", REST_S, "probe"], State.HALF_OPEN, id="probing"),
        pytest.param(["lose", REST_S, "probe", "succeed"], State.CLOSED, id="probed-well"),
        pytest.param(["lose", REST_S, "probe", "fail"], State.OPEN, id="probed-in-vain"),
        pytest.param(["lose", REST_S, "probe", "lose"], State.OPEN, id="lost-while-probing"),
        pytest.param(["lose", REST_S, "probe", "succeed", "fail"], State.CLOSED, id="failures-count-anew"),
        pytest.param(["lose", REST_S, "probe", "fail", 2 * REST_S, "probe"], State.HALF_OPEN, id="probing-again"),
    ],
)
def test_what_happens_to_a_node_opens_and_closes(events: list[str | float], state: State) -> None:
    assert after(*events)[0].state is state


@pytest.mark.parametrize(
    ("failed_probes", "rest_s"), [(0, REST_S), (1, 2 * REST_S), (2, 4 * REST_S), (20, REST_MAX_S)], ids=str
)
def test_probes_come_less_often_while_they_fail(failed_probes: int, rest_s: float) -> None:
    breaker, now = after("lose", *[REST_MAX_S, "probe", "fail"] * failed_probes)
    assert not breaker.wants_probe(now + rest_s - 0.01)
    assert breaker.wants_probe(now + rest_s)


def test_one_probe_is_enough_at_a_time() -> None:
    breaker, now = after("lose", REST_S, "probe")
    assert not breaker.wants_probe(now + 60)


def test_a_node_that_was_well_for_once_is_probed_soon_again() -> None:
    breaker, now = after("lose", *[REST_MAX_S, "probe", "fail"] * 5, REST_MAX_S, "probe", "succeed", "lose")
    assert breaker.wants_probe(now + REST_S)


def test_it_says_once_that_it_opens_and_once_that_it_closes() -> None:
    breaker = Breaker()
    assert [breaker.failed(0.0) for _ in range(FAILURES + 2)] == [*[False] * (FAILURES - 1), True, False, False]
    assert breaker.opened == 1
    breaker.probing()
    assert not breaker.failed(1.0), "it was open before"
    breaker.probing()
    assert breaker.succeeded()
    assert not breaker.succeeded()
