"""Runs sequences through both engines in lockstep: a request goes to both, and the next one when both have answered.

Lanes, each a thread with a connection to either engine, run at the same time, each with sequences of its own; at the
end of an epoch all wait for each other, and the clock is stepped.
"""

import contextlib
import threading
import time
from collections.abc import Sequence as Many
from dataclasses import dataclass, field

from tests.oracle.clock import Clock
from tests.oracle.engines import Engine
from tests.oracle.sequences import EPOCHS, STEPS_S, Ask, Sequence
from tests.support import Client, Received, Record, Response, until

LANES = 6
REST_S = 1.1
"""How long by the wall's clock the steps of the oracle's wait after a background fetch: the edge lets a key rest for a
second before the next one (`departures.REFRESH_REST_S`)."""
REFRESH_S = 3.0
"""How long a background fetch is waited for."""


@dataclass
class Observed:
    """One request at one engine."""

    response: Response | None = None
    """None where there was none that could be read."""
    failure: str = ""
    """Why not."""
    asked: list[Received] = field(default_factory=list)
    """What the origin got while it was answered, or in the background because of it."""
    record: Record | None = None
    """Its line in the access log."""
    refreshed: list[Record] = field(default_factory=list)
    """The lines of background fetches that it caused."""


@dataclass
class Exchange:
    """One request at both engines."""

    sequence: Sequence
    index: int
    """Its place in the sequence."""
    ask: Ask
    one: Observed
    other: Observed


class _Lane:
    """A connection to either engine, and the sequences that use it."""

    def __init__(self, engines: tuple[Engine, Engine], sequences: Many[Sequence]) -> None:
        self.engines = engines
        self.exchanges: list[Exchange] = []
        self.refreshed_at = 0.0
        """When the last background fetch was seen, monotonic."""
        self._clients: list[Client | None] = [None, None]
        self._known: dict[tuple[int, int], int] = {}
        """How many of a sequence's requests at an origin have been seen to."""
        self._waiting: list[list[tuple[Sequence, int]]] = [[] for _ in range(EPOCHS)]
        for sequence in sequences:
            for index, ask in enumerate(sequence.asks):
                self._waiting[ask.epoch].append((sequence, index))
        for asks in self._waiting:
            # Sequences take turns on the connection.
            turns: dict[int, int] = {}
            order = []
            for sequence, index in asks:
                turns[sequence.number] = turn = turns.get(sequence.number, -1) + 1
                order.append((turn, sequence.number, sequence, index))
            asks[:] = [(sequence, index) for *_, sequence, index in sorted(order, key=lambda entry: entry[:2])]

    def run(self, epoch: int) -> None:
        """An epoch's requests, one after the other."""
        for sequence, index in self._waiting[epoch]:
            self._exchange(sequence, index)

    def close(self) -> None:
        """Close the connections."""
        for client in self._clients:
            if client is not None:
                client.close()

    def _exchange(self, sequence: Sequence, index: int) -> None:
        ask = sequence.asks[index]
        wire = ask.wire
        for place in (0, 1):
            self._send(place, wire)
        seen = [self._received(place, ask) for place in (0, 1)]
        if ask.refreshes:
            self._settle(sequence.number, [one.response for one in seen])
        for place, engine in enumerate(self.engines):
            known = self._known.get((place, sequence.number), 0)
            seen[place].asked = asked = engine.origin.asked(sequence.number)[known:]
            self._known[place, sequence.number] = known + len(asked)
        self.exchanges.append(Exchange(sequence, index, ask, *seen))

    def _send(self, place: int, wire: bytes) -> None:
        client = self._clients[place]
        if client is None:
            client = self._clients[place] = Client(self.engines[place].port)
        client.send(wire)

    def _received(self, place: int, ask: Ask) -> Observed:
        client = self._clients[place]
        assert client is not None
        try:
            response = client.response(ask.method)
        except (AssertionError, ValueError, OSError) as error:  # Broken among them
            client.close()
            self._clients[place] = None
            return Observed(failure=f"{type(error).__name__}: {error}")
        if ask.closes or any("close" in value.lower() for value in response.values("connection")):
            client.close()
            self._clients[place] = None
        return Observed(response)

    def _settle(self, number: int, responses: list[Response | None]) -> None:
        """Wait for the background fetches that these answers cause, if they do."""
        if not any(response is not None and _is_refreshing(response) for response in responses):
            return
        for engine, response in zip(self.engines, responses, strict=True):
            if response is None:
                continue
            span_id = span_of(response)
            try:
                until(lambda: engine.log.refreshed(number, span_id), timeout=REFRESH_S)  # noqa: B023 called at once
            except AssertionError:
                continue  # what is missing is a difference, or is missing in both
        self.refreshed_at = time.monotonic()


def _is_refreshing(response: Response) -> bool:
    """Whether a stale response was served because it may be while a new one is fetched, and not because that failed."""
    is_stale = response.values("x-cache")[-1:] == ["STALE"]
    return is_stale and not any("detail=" in value for value in response.values("cache-status")[-1:])


def run(engines: tuple[Engine, Engine], clock: Clock, sequences: Many[Sequence], lanes: int = LANES) -> list[Exchange]:
    """All exchanges, with what the origins and the logs have of them, by sequence and in order."""
    rows = [_Lane(engines, sequences[start::lanes]) for start in range(min(lanes, len(sequences)))]
    for epoch in range(EPOCHS):
        failures: list[BaseException] = []
        threads = [threading.Thread(target=_guarded, args=(lane, epoch, failures)) for lane in rows]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]
        rested_at = max(lane.refreshed_at for lane in rows) + REST_S
        time.sleep(max(0.0, rested_at - time.monotonic()))
        if epoch < len(STEPS_S):
            clock.step(STEPS_S[epoch])
    for lane in rows:
        lane.close()
    exchanges = sorted((e for lane in rows for e in lane.exchanges), key=lambda e: (e.sequence.number, e.index))
    for place, engine in enumerate(engines):
        _attach_records(engine, place, exchanges)
    return exchanges


def _guarded(lane: _Lane, epoch: int, failures: list[BaseException]) -> None:
    try:
        lane.run(epoch)
    except BaseException as error:  # noqa: BLE001 it is raised in the main thread
        failures.append(error)


def _attach_records(engine: Engine, place: int, exchanges: Many[Exchange]) -> None:
    """Give each exchange its lines of the log: by its answer's span id, and where it has none, by its place among its
    sequence's, whose requests are one after the other.
    """
    by_sequence: dict[int, list[Observed]] = {}
    for exchange in exchanges:
        by_sequence.setdefault(exchange.sequence.number, []).append((exchange.one, exchange.other)[place])
    log = engine.log

    def all_there() -> bool:
        return all(
            len(observed) <= sum(record["client"] is not None for record in log.records(number))
            or all(log.of_span(span_of(one.response)) for one in observed)
            for number, observed in by_sequence.items()
        )

    with contextlib.suppress(AssertionError):  # what is missing is a difference
        until(all_there, timeout=REFRESH_S)
    for number, observed in by_sequence.items():
        for one in observed:
            one.record = log.of_span(span_of(one.response))
        taken = [one.record["span_id"] for one in observed if one.record is not None]
        records = log.records(number)
        left = (record for record in records if record["client"] is not None and record["span_id"] not in taken)
        for one, record in zip((one for one in observed if not span_of(one.response)), left, strict=False):
            one.record = record
        for one in observed:
            if one.record is not None:
                span_id = one.record["span_id"]
                one.refreshed = [record for record in records if span_id in (record["caused_by"] or "")]


def span_of(response: Response | None) -> str:
    """The span id that an answer names."""
    named = [] if response is None else response.values("traceresponse")
    return named[-1].split("-")[2] if named else ""
