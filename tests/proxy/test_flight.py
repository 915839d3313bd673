"""A flight's bookkeeping: who waits and for how long, how far a fetch may be ahead, what is kept of what was sent."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from edgeproxy.cache import Filling, Stored
from edgeproxy.cache.rules import SECOND_NS, Rules
from edgeproxy.proxy.deadlines import NEVER, Deadlines
from edgeproxy.proxy.departures import Departures
from edgeproxy.proxy.exchange import Exchange
from edgeproxy.proxy.flight import BACKLOG_BYTES, Flight, Phase, is_shareable
from edgeproxy.proxy.upstream.fetch import Fetch
from tests.proxy.builders import NOW_NS, an_exchange

PIECE = bytes(64 * 1024)
MEBI = 1024 * 1024


class Client:
    """Takes `limit` bytes, and then no more until it is told to."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.taken = 0

    @property
    def is_congested(self) -> bool:
        return self.taken >= self.limit

    def send(self, data: bytes) -> None:
        self.taken += len(data)


class Origin:
    """A fetch, as far as a flight knows it."""

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.is_paused = False
        self.is_cancelled = False

    def pause_response(self) -> None:
        self.is_paused = True

    def resume_response(self) -> None:
        self.is_paused = False

    def cancel(self, error: object) -> None:
        del error
        self.is_cancelled = True

    def hand_to(self, heir: Exchange) -> None:
        self.exchange = heir


class Desk:
    """Departures that note what they are told."""

    def __init__(self, timeout_s: float = 30.0) -> None:
        self.pipeline = SimpleNamespace(deadlines=Deadlines())
        self.timeout_s = timeout_s
        self.alone: list[Exchange] = []
        self.done: list[Exchange] = []
        self.ended: list[Flight] = []

    def go_alone(self, exchange: Exchange) -> None:
        self.alone.append(exchange)

    def reader_done(self, flight: Flight, exchange: Exchange) -> None:
        del flight
        self.done.append(exchange)

    def landed(self, flight: Flight) -> None:
        flight.phase = Phase.LANDED
        flight.unwatch()
        self.ended.append(flight)

    given_up = landed


def stored(**changes: Any) -> Stored:
    values: dict[str, Any] = {
        "key": b"http://edge.test/",
        "url": b"http://edge.test/",
        "vary": (),
        "variant": b"",
        "status": 200,
        "reason": b"OK",
        "lines": [],
        "born_ns": NOW_NS,
        "fresh_until_ns": NOW_NS + 60 * SECOND_NS,
        "stale_while_revalidate_ns": 0,
        "stale_if_error_ns": 0,
        "must_revalidate": False,
        "stored_ns": NOW_NS,
        "filled_by": "",
        "origin": "app",
    }
    return Stored(**{**values, **changes})


def a_flight(desk: Desk, *limits: int, most: int = 8 * MEBI) -> tuple[Flight, Origin, list[Exchange]]:
    """A flight whose readers take so many bytes each; the first one owns it."""
    flight = Flight(cast("Departures", desk), b"http://edge.test/", None)
    readers = [an_exchange() for _ in limits]
    for exchange, limit in zip(readers, limits, strict=True):
        exchange.client = cast("Any", Client(limit))
        exchange.flight = flight
        exchange.position = 0
    origin = Origin(readers[0])
    flight.fetch = cast("Fetch", origin)
    flight.filling = Filling(stored(), most)
    flight.phase = Phase.STREAMING
    flight.readers += readers
    return flight, origin, readers


def feed(flight: Flight, size: int) -> None:
    for _ in range(size // len(PIECE)):
        flight.feed(PIECE)


# --- how far ahead


@pytest.mark.parametrize(
    ("limits", "sent", "is_paused"),
    [
        pytest.param([0], BACKLOG_BYTES, False, id="one-within-the-backlog"),
        pytest.param([0], BACKLOG_BYTES + len(PIECE), True, id="one-beyond-it"),
        pytest.param([0, 8 * MEBI], 4 * MEBI, False, id="the-fastest-counts"),
        pytest.param([MEBI, 2 * MEBI], 4 * MEBI, True, id="all-too-slow"),
    ],
)
def test_a_fetch_waits_for_the_fastest(limits: list[int], sent: int, is_paused: bool) -> None:
    flight, origin, _ = a_flight(Desk(), *limits)
    feed(flight, sent)
    assert origin.is_paused is is_paused


def test_what_is_not_kept_waits_for_the_slowest_and_is_let_go_of() -> None:
    flight, origin, (slow, _) = a_flight(Desk(), MEBI, 64 * MEBI, most=MEBI)
    feed(flight, 4 * MEBI)
    assert origin.is_paused
    filling = flight.filling
    assert filling is not None
    assert sum(map(len, filling.pieces)) == 3 * MEBI, "what the slow one has not had"
    cast("Any", slow.client).limit = 64 * MEBI
    flight.catch_up(slow)
    assert not origin.is_paused
    assert sum(map(len, filling.pieces)) == 0


@pytest.mark.parametrize("leaving", [0, 1], ids=["owner", "other"])
def test_the_pace_is_that_of_those_who_are_left(leaving: int) -> None:
    limits = [64 * MEBI, 64 * MEBI]
    limits[leaving] = 0
    flight, origin, readers = a_flight(Desk(), *limits, most=MEBI)
    feed(flight, 3 * MEBI)
    assert origin.is_paused
    flight.leave(readers[leaving])
    assert not origin.is_paused
    assert origin.exchange is readers[1 - leaving] if leaving == 0 else readers[0]


def test_with_the_last_one_the_fetch_ends() -> None:
    desk = Desk()
    flight, origin, readers = a_flight(desk, 0, 0)
    flight.leave(readers[1])
    assert not origin.is_cancelled
    flight.leave(readers[0])
    assert origin.is_cancelled
    assert desk.ended == [flight]


def test_what_only_the_edge_wants_ends_when_it_is_too_large() -> None:
    desk = Desk()
    flight, _, (owner,) = a_flight(desk, 64 * MEBI, most=MEBI)
    owner.caused_by = "00-…"
    feed(flight, MEBI)
    assert desk.ended == []
    flight.feed(PIECE)
    assert desk.ended == [flight]


def test_the_slow_ones_are_done_when_they_have_had_it_all() -> None:
    desk = Desk()
    flight, _, (slow, fast) = a_flight(desk, 0, MEBI * 2)
    feed(flight, MEBI)
    flight.land()
    assert desk.done == [fast]
    cast("Any", slow.client).limit = 2 * MEBI
    flight.catch_up(slow)
    assert desk.done == [fast, slow]
    assert flight.readers == []


# --- how long


def test_those_who_have_waited_for_too_long_go_on_their_own() -> None:
    desk = Desk(timeout_s=0.0)
    flight = Flight(cast("Departures", desk), b"k", None)
    first, second = an_exchange(), an_exchange()
    flight.join(first)
    flight.join(second)
    assert desk.pipeline.deadlines.watched == {flight}
    first.now_ns = 0
    flight.on_deadline(flight.deadline + 1)
    assert desk.alone == [first, second]
    assert (first.flight, flight.waiting, flight.deadline) == (None, [], NEVER)
    assert first.now_ns > NOW_NS, "its response's age counts from now"


def test_those_who_came_later_wait_on() -> None:
    desk = Desk()
    flight = Flight(cast("Departures", desk), b"k", None)
    first, second = an_exchange(), an_exchange()
    flight.join(first)
    deadline = flight.deadline
    flight.join(second)
    flight.on_deadline(deadline)
    assert desk.alone == [first]
    assert flight.waiting == [second]
    assert deadline <= flight.deadline < NEVER


def test_nothing_is_watched_when_nobody_waits() -> None:
    desk = Desk()
    flight = Flight(cast("Departures", desk), b"k", None)
    exchange = an_exchange()
    flight.join(exchange)
    assert flight.released() == [exchange]
    assert desk.pipeline.deadlines.watched == set()


def test_the_first_who_waits_inherits() -> None:
    desk = Desk()
    flight = Flight(cast("Departures", desk), b"k", None)
    owner, first, second = an_exchange(), an_exchange(), an_exchange()
    origin = Origin(owner)
    owner.flight = flight
    flight.fetch = cast("Fetch", origin)
    flight.join(first)
    flight.join(second)
    flight.leave(owner)
    assert (origin.exchange, flight.waiting, first.flight) == (first, [second], flight)
    flight.leave(second)
    flight.leave(first)
    assert origin.is_cancelled
    assert desk.pipeline.deadlines.watched == set()


# --- for whom


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({}, True, id="fresh"),
        pytest.param({"must_revalidate": True}, True, id="fresh-must-revalidate"),
        pytest.param({"fresh_until_ns": NOW_NS}, False, id="RFC9111-4-stale-on-arrival"),
        pytest.param(
            {"fresh_until_ns": NOW_NS, "stale_while_revalidate_ns": 60 * SECOND_NS}, True, id="RFC5861-3-window"
        ),
        pytest.param({"fresh_until_ns": NOW_NS, "stale_if_error_ns": 60 * SECOND_NS}, False, id="RFC5861-4-no-error"),
        pytest.param({"fresh_until_ns": NOW_NS, "must_revalidate": True}, False, id="RFC9111-5.2.2.4-no-cache"),
    ],
)
def test_only_what_may_be_reused_is_shared(changes: dict[str, Any], expected: bool) -> None:
    assert is_shareable(stored(**changes), Rules(), NOW_NS) is expected
