"""What becomes of the requests that were in flight when their worker died; the worker is the real writer, dead by
`close`.
"""

import contextlib
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from edgeproxy.ledger import Counter, LedgerReader, LedgerWriter, SlotState, Stage, Totals, publish_lost
from edgeproxy.ledger.layout import SLOT_STATE, Word
from tests.ledger.parts import prefix, record

NOW = datetime(2026, 3, 4, 5, 6, 8, tzinfo=UTC)
RING = 64 * 1024


class DiedError(BaseException):
    """The process is gone at this point."""


def dead(tmp_path: Path, prepare: Callable[[LedgerWriter], Any]) -> LedgerReader:
    writer = LedgerWriter.create(tmp_path, 2, 1, slots=16, ring_bytes=RING)
    prepare(writer)
    writer.close()
    reader = LedgerReader.open(writer.path)
    assert reader.take_over()
    return reader


def drained(reader: LedgerReader) -> list[dict[str, Any]]:
    data = b"".join(reader.pending())
    reader.advance(len(data))
    return [json.loads(line) for line in data.splitlines()]


def never(_text: bytes) -> bool:
    return False


def open_slots(writer: LedgerWriter, *seqs: int) -> list[int]:
    return [writer.open(seq, prefix(seq, 2)) for seq in seqs]


def test_each_request_in_flight_becomes_a_lost_line_in_the_order_of_their_arrival(tmp_path: Path) -> None:
    def prepare(writer: LedgerWriter) -> None:
        slots = open_slots(writer, 4, 5, 6)
        writer.publish(slots[1], record(5, 2))
        writer.stage(slots[2], Stage.FIRST_BYTE)
        open_slots(writer, 7)

    reader = dead(tmp_path, prepare)
    assert publish_lost(reader, NOW, never)
    lines = drained(reader)
    assert [(one["seq"], one["outcome"], one["stage"]) for one in lines] == [
        (5, "ok", "done"),
        (4, "lost", "received"),
        (6, "lost", "first_byte"),
        (7, "lost", "received"),
    ]
    assert reader.in_flight == 0
    assert reader.counters[Counter.OUTCOME_LOST] == reader.counters[Counter.REQUESTS] == 3
    assert publish_lost(reader, NOW, never)
    assert drained(reader) == []
    reader.close()


@pytest.mark.parametrize("taken_out", [False, True])
def test_a_worker_that_died_between_publishing_and_closing_the_slot_has_its_line(
    tmp_path: Path, taken_out: bool
) -> None:
    def prepare(writer: LedgerWriter) -> None:
        slots = open_slots(writer, 4, 5)
        writer.publish(slots[1], record(5, 2))
        writer._map[slots[1] + SLOT_STATE] = SlotState.OPEN

    reader = dead(tmp_path, prepare)
    if taken_out:
        assert [one["seq"] for one in drained(reader)] == [5]
    assert publish_lost(reader, NOW, never)
    assert [(one["seq"], one["outcome"]) for one in drained(reader)] == [(5, "ok"), (4, "lost")][taken_out:]
    reader.close()


@pytest.mark.parametrize("logged", [True, False])
def test_a_worker_that_died_writing_to_the_log_itself_is_looked_up_there(tmp_path: Path, logged: bool) -> None:
    def prepare(writer: LedgerWriter) -> None:
        (slot,) = open_slots(writer, 4)
        writer._map[slot + SLOT_STATE] = SlotState.APPENDING

    asked: list[bytes] = []
    reader = dead(tmp_path, prepare)

    def is_logged(text: bytes) -> bool:
        asked.append(text)
        return logged

    assert publish_lost(reader, NOW, is_logged)
    assert asked == [prefix(4, 2)]
    assert len(drained(reader)) == (0 if logged else 1)
    assert reader.in_flight == 0
    reader.close()


@pytest.mark.parametrize("steps", range(8))
def test_a_recovery_that_dies_at_any_step_is_taken_up_by_the_next(
    tmp_path: Path, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps: line into the ring, slot closed, line into the ring, …"""

    def prepare(writer: LedgerWriter) -> None:
        slots = open_slots(writer, 4, 5, 6, 7)
        writer.publish(slots[1], record(5, 2))
        writer._map[slots[1] + SLOT_STATE] = SlotState.OPEN

    reader = dead(tmp_path, prepare)
    left = [steps]

    def mortal(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            if not left[0]:
                raise DiedError
            left[0] -= 1
            return method(*arguments)

        return call

    with monkeypatch.context() as patch, contextlib.suppress(DiedError):
        patch.setattr(LedgerReader, "publish", mortal(LedgerReader.publish))
        patch.setattr(LedgerReader, "close_slot", mortal(LedgerReader.close_slot))
        publish_lost(reader, NOW, never)
    reader.close()
    again = LedgerReader.open(reader.path)
    assert again.take_over()
    assert publish_lost(again, NOW, never)
    assert [one["seq"] for one in drained(again)] == [5, 4, 6, 7]
    assert again.in_flight == 0
    again.close()


def test_a_full_ring_is_recovered_in_turns(tmp_path: Path) -> None:
    def prepare(writer: LedgerWriter) -> None:
        open_slots(writer, 1, 2, 3)
        writer.overflow = lambda _line: True
        for seq in range(10, 200):
            writer.publish(writer.open(seq, prefix(seq, 2)), record(seq, 2))
        assert writer.counters[Counter.RING_FULL]

    reader = dead(tmp_path, prepare)
    assert not publish_lost(reader, NOW, never)
    assert reader.in_flight
    assert {one["outcome"] for one in drained(reader)} == {"ok"}
    assert publish_lost(reader, NOW, never)
    assert [one["seq"] for one in drained(reader)] == [1, 2, 3]
    reader.close()


def test_a_line_half_copied_when_the_worker_died_harms_nothing(tmp_path: Path) -> None:
    def prepare(writer: LedgerWriter) -> None:
        slots = open_slots(writer, 4, 5)
        writer.publish(slots[0], record(4, 2))
        # The bytes of a line as long as a line may be, without the `HEAD` that would make them one.
        head = writer._words[Word.HEAD]
        writer._map[writer._ring + head : writer._ring + head + RING // 2] = b'"seq":5,' * (RING // 16)

    reader = dead(tmp_path, prepare)
    assert publish_lost(reader, NOW, never)
    assert [(one["seq"], one["outcome"]) for one in drained(reader)] == [(4, "ok"), (5, "lost")]
    reader.close()


# Totals of ledgers that are gone.


def counted(**values: int) -> list[int]:
    counters = [0] * len(Counter)
    for name, value in values.items():
        counters[Counter[name]] = value
    return counters


def test_totals_are_sums_by_worker_and_outlive_the_process(tmp_path: Path) -> None:
    totals = Totals.load(tmp_path)
    totals.add("ledger-0-1", 0, counted(REQUESTS=5, CACHE_BYTES=100))
    totals.add("ledger-1-1", 1, counted(REQUESTS=7))
    totals.add("ledger-0-2", 0, counted(REQUESTS=2))
    again = Totals.load(tmp_path)
    assert again.workers == [0, 1]
    assert again.of(0) == counted(REQUESTS=7)
    assert again.of(1) == counted(REQUESTS=7)
    assert again.of(9) == counted()


def test_a_ledger_whose_deletion_was_cut_short_is_not_added_twice(tmp_path: Path) -> None:
    Totals.load(tmp_path).add("ledger-0-1", 0, counted(REQUESTS=5))
    again = Totals.load(tmp_path)
    again.add("ledger-0-1", 0, counted(REQUESTS=5))
    assert again.of(0)[Counter.REQUESTS] == 5


@pytest.mark.parametrize("content", ["", "{", "[]", '{"workers": {"x": [1]}}', '{"workers": {"0": "no"}}', "null"])
def test_totals_that_cant_be_read_count_nothing(tmp_path: Path, content: str) -> None:
    (tmp_path / "totals.json").write_text(content)
    assert Totals.load(tmp_path).of(0) == counted()
