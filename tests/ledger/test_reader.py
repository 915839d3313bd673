"""The reader's side of a ledger, against the real writer in the same process."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeproxy.ledger import (
    Counter,
    LedgerError,
    LedgerReader,
    LedgerWriter,
    SlotState,
    Stage,
    ledger_files,
    remove_unfinished,
)
from edgeproxy.ledger.layout import Word
from tests.ledger.parts import feeder, prefix, record, wait_until

RING = 64 * 1024


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[LedgerWriter]:
    one = LedgerWriter.create(tmp_path, 3, 7, slots=8, ring_bytes=RING)
    yield one
    one.close()


@pytest.fixture
def reader(writer: LedgerWriter) -> Iterator[LedgerReader]:
    one = LedgerReader.open(writer.path)
    yield one
    one.close()


def publish(writer: LedgerWriter, *lines: bytes) -> None:
    for line in lines:
        writer.publish(writer.open(1, b"{"), line)


def keeper(kept: list[bytes]) -> Callable[[bytes], bool]:
    """What takes the lines that a ring has no room for."""

    def keep(line: bytes) -> bool:
        kept.append(line)
        return True

    return keep


def take(reader: LedgerReader, limit: int | None = None) -> bytes:
    pieces = reader.pending(limit)
    assert len(pieces) <= 2
    data = b"".join(pieces)
    reader.advance(len(data))
    return data


def test_a_reader_knows_whose_ledger_it_is(tmp_path: Path, writer: LedgerWriter, reader: LedgerReader) -> None:
    assert ledger_files(tmp_path) == [writer.path]
    assert (reader.worker, reader.generation, reader.slots, reader.capacity) == (3, 7, 8, RING)
    writer.acknowledge(5, tracing=True)
    assert (reader.acknowledged_epoch, reader.acknowledged_tracing, reader.is_draining) == (5, True, False)
    assert reader.acknowledged_purge == 0
    writer.acknowledge_purge(9)
    assert reader.acknowledged_purge == 9
    writer.draining()
    assert reader.is_draining


def test_lines_come_out_as_they_went_in_and_once(writer: LedgerWriter, reader: LedgerReader) -> None:
    assert reader.pending() == []
    publish(writer, record(1), record(2))
    assert reader.fill == len(record(1) + record(2))
    assert take(reader) == record(1) + record(2)
    assert reader.fill == 0
    assert take(reader) == b""


def test_a_line_that_wraps_around_comes_out_whole(writer: LedgerWriter, reader: LedgerReader) -> None:
    for seq in range(500):
        publish(writer, record(seq))
        assert take(reader) == record(seq)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(1, 3000), min_size=1, max_size=30), st.integers(1, 6000), st.integers(0, RING))
def test_a_limit_cuts_between_lines(tmp_path: Path, lengths: list[int], limit: int, offset: int) -> None:
    writer = LedgerWriter.create(tmp_path, 0, 1, slots=1, ring_bytes=RING)
    reader = LedgerReader.open(writer.path)
    while offset > 0:
        publish(writer, b"-" * (min(offset, 30000) - 1) + b"\n")
        offset -= len(take(reader))
    lines = [bytes([97 + index % 26]) * length + b"\n" for index, length in enumerate(lengths)]
    lines = lines[: max(1, len(lines))]
    expected = b""
    for line in lines:
        if len(expected) + len(line) < RING:
            publish(writer, line)
            expected += line
    taken = b""
    while reader.fill:
        piece = take(reader, limit)
        assert piece.endswith(b"\n")
        assert len(piece) <= limit or piece.count(b"\n") == 1
        taken += piece
    assert taken == expected
    reader.close()
    writer.close()
    writer.path.unlink()


def test_the_newest_line_can_be_read_after_it_was_taken_out(writer: LedgerWriter, reader: LedgerReader) -> None:
    assert reader.last_line() == b""
    for seq in range(300):
        publish(writer, record(seq))
        assert reader.last_line() == record(seq)
        take(reader)
        assert reader.last_line() == record(seq)


def test_a_line_never_takes_more_than_half_the_ring(writer: LedgerWriter, reader: LedgerReader) -> None:
    refused: list[bytes] = []
    writer.overflow = keeper(refused)
    publish(writer, record(1))
    take(reader)
    long = b"x" * (RING // 2) + b"\n"
    publish(writer, long)
    publish(writer, long[1:])
    assert refused == [long]
    assert take(reader) == long[1:]
    assert writer.counters[Counter.RING_FULL] == 1


def test_a_full_ring_overflows_and_nothing_in_it_changes(writer: LedgerWriter, reader: LedgerReader) -> None:
    refused: list[bytes] = []
    writer.overflow = keeper(refused)
    lines = [record(seq) for seq in range(200)]
    publish(writer, *lines)
    assert refused
    assert take(reader) + b"".join(refused) == b"".join(lines)
    assert reader.fill_share == 0


def test_requests_in_flight_are_seen_with_their_stage(writer: LedgerWriter, reader: LedgerReader) -> None:
    slots = [writer.open(seq, prefix(seq)) for seq in (1, 2, 3)]
    writer.stage(slots[1], Stage.CONNECT)
    writer.publish(slots[0], record(1))
    assert reader.in_flight == 2
    found = sorted(reader.open_slots(), key=lambda slot: slot.seq)
    assert [(slot.seq, slot.stage, slot.state, slot.text) for slot in found] == [
        (2, Stage.CONNECT, SlotState.OPEN, prefix(2)),
        (3, Stage.RECEIVED, SlotState.OPEN, prefix(3)),
    ]


def test_a_write_under_way_is_known_until_it_is_over(writer: LedgerWriter, reader: LedgerReader) -> None:
    publish(writer, record(1))
    assert reader.batch is None
    reader.begin_batch(77, 1000, len(record(1)))
    other = LedgerReader.open(writer.path)
    assert other.batch == (77, 1000, len(record(1)))
    reader.advance(len(record(1)))
    assert other.batch is None
    other.close()


def test_counters_are_the_writers(writer: LedgerWriter, reader: LedgerReader) -> None:
    writer.counters[Counter.BYTES_OUT] += 785
    assert reader.counters[Counter.BYTES_OUT] == 785


def test_the_owners_death_is_seen_through_its_lock(tmp_path: Path) -> None:
    with feeder(tmp_path, leave_open=2) as worker:
        worker.wait_done()
        reader = LedgerReader.open(ledger_files(tmp_path)[0])
        assert reader.pid == worker.popen.pid
        assert not reader.owner_is_dead()
        assert not reader.take_over()
        worker.kill()
        wait_until(reader.owner_is_dead, "the lock is free")
        onlooker = LedgerReader.open(reader.path, writable=False)
        assert onlooker.owner_is_dead()
        assert reader.take_over()
        # The scribe is at work on it: for everyone else it is as if the worker were still there.
        assert not onlooker.owner_is_dead()
        assert onlooker.in_flight == 2
        onlooker.close()
        reader.close()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        pytest.param(lambda words: words.__setitem__(Word.MAGIC, 1), "is not a ledger", id="magic"),
        pytest.param(lambda words: words.__setitem__(Word.VERSION, 99), "has ledger version 99", id="version"),
        pytest.param(lambda words: words.__setitem__(Word.SLOTS, 9), "is damaged", id="size"),
        pytest.param(lambda words: words.__setitem__(Word.TAIL, 5), "is damaged", id="tail before head"),
        pytest.param(lambda words: words.__setitem__(Word.HEAD, RING + 1), "is damaged", id="overfull"),
    ],
)
def test_a_file_that_is_no_sound_ledger_is_refused(writer: LedgerWriter, damage: object, message: str) -> None:
    damage(writer._words)  # type: ignore[operator]
    with pytest.raises(LedgerError, match=message):
        LedgerReader.open(writer.path)


@pytest.mark.parametrize("content", [b"", b"x", b"x" * 5000])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "ledger-0-1"
    path.write_bytes(content)
    with pytest.raises(LedgerError):
        LedgerReader.open(path)


def test_a_directory_that_is_not_there_has_no_ledgers(tmp_path: Path) -> None:
    assert ledger_files(tmp_path / "none") == []


def test_a_ledger_that_was_never_finished_is_swept_away_once_it_is_old(tmp_path: Path) -> None:
    import os

    old, new = tmp_path / ".ledger-0-1", tmp_path / ".ledger-1-1"
    old.touch()
    new.touch()
    os.utime(old, (1, 1))
    remove_unfinished(tmp_path)
    assert not old.exists()
    assert new.exists()
