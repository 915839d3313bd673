"""Batches: when they are sent, what is tried again, and that every span ends in exactly one count."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edgeproxy.config import Batch
from edgeproxy.export import Counts, CountsFile, batch, read_counts
from edgeproxy.export.batch import BatchQueue, Refused, Unavailable
from edgeproxy.export.counts import Word
from tests.support import until

NOW = Batch(queue_size=10, batch_size=4, delay=0.01, export_timeout=0.3)
LATER = msgspec.structs.replace(NOW, delay=3600.0)


class Sink:
    """Notes what it is given; answers what it is told to."""

    def __init__(self) -> None:
        self.batches: list[list[Any]] = []
        self.answers: list[int | Exception] = []
        self.open = threading.Event()
        self.open.set()
        self.closed = False

    def send(self, payloads: list[Any], spans: int, timeout_s: float) -> int:
        self.open.wait(timeout_s)
        self.batches.append(payloads)
        answer = self.answers.pop(0) if self.answers else 0
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self) -> None:
        self.closed = True


class Line:
    """A queue with its sink and counts."""

    def __init__(self, directory: Path, settings: Batch) -> None:
        self.directory = directory
        self.sink = Sink()
        self.counter = CountsFile(directory).counter("otlp")
        self.queue: BatchQueue[str] = BatchQueue("otlp", self.sink, settings, self.counter)

    def put(self, *payloads: str, spans: int = 1) -> None:
        for payload in payloads:
            self.counter.add(Word.MADE, spans)
            self.queue.put(payload, spans)

    @property
    def counts(self) -> Counts:
        (one,) = read_counts(self.directory)
        return one

    def settled(self, **wanted: int) -> None:
        until(
            lambda: all(getattr(self.counts, name) == value for name, value in ({"queued": 0} | wanted).items()),
            f"{wanted}: {self.counts}",
        )


@pytest.fixture
def now(tmp_path: Path) -> Iterator[Line]:
    line = Line(tmp_path, NOW)
    yield line
    line.queue.close()


@pytest.fixture
def later(tmp_path: Path) -> Iterator[Line]:
    line = Line(tmp_path, LATER)
    yield line
    line.queue.close()


def test_a_full_batch_does_not_wait_for_the_delay(later: Line) -> None:
    later.put("a", "b", "c")
    assert not later.sink.batches
    later.put("d", "e")
    until(lambda: later.sink.batches == [["a", "b", "c", "d"]], "the batch")
    assert later.counts.queued == 1


def test_what_waits_goes_when_the_delay_is_over(now: Line) -> None:
    now.put("a")
    now.settled(exported=1)


def test_payloads_of_several_spans_fill_batches_by_spans_and_are_never_parted(later: Line) -> None:
    later.put("a", "b", "c", spans=3)
    assert later.queue.flush(5.0)
    assert later.sink.batches == [["a"], ["b"], ["c"]]
    later.settled(exported=9)


def test_long_payloads_make_smaller_batches_and_fill_the_queue_earlier(
    later: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "BATCH_BYTES", 10)
    monkeypatch.setattr(batch, "QUEUE_BYTES", 25)
    later.put("a" * 6, "b" * 4, "c" * 15, "d")
    assert (later.counts.dropped, later.counts.queued) == (1, 3)
    assert later.queue.flush(5.0)
    assert later.sink.batches == [["a" * 6, "b" * 4], ["c" * 15]]
    later.put("e" * 99)
    assert later.queue.flush(5.0)
    later.settled(exported=4, dropped=1)


def test_a_queue_that_is_full_drops_what_comes(later: Line) -> None:
    later.sink.open.clear()
    later.put(*"abcd")
    until(lambda: later.queue._sending == 4, "the first batch to be on its way")
    later.put(*"efghijklmn", "too much", "too much")
    assert (later.counts.dropped, later.counts.queued) == (2, 14)
    later.sink.open.set()
    assert later.queue.flush(5.0)
    later.settled(exported=14, dropped=2)


def test_who_is_patient_gets_room_once_there_is_some(later: Line) -> None:
    later.sink.open.clear()
    later.put(*"abcd")
    until(lambda: later.queue._sending == 4, "the first batch to be on its way")
    later.put(*"efghijklmn")
    threading.Timer(0.05, later.sink.open.set).start()
    later.counter.add(Word.MADE, 1)
    assert later.queue.put("patient", 1, patience_until=time.monotonic() + 20.0)


def test_what_is_not_available_is_tried_again(now: Line) -> None:
    now.sink.answers = [Unavailable("503")]
    now.put("a")
    now.settled(exported=1, failed=0)
    assert now.sink.batches == [["a"], ["a"]]


def test_what_stays_unavailable_has_failed_when_its_time_is_over(now: Line) -> None:
    now.sink.answers = [Unavailable("down")] * 100
    now.put("a", "b")
    now.settled(failed=2)
    assert 1 < len(now.sink.batches) < 10


def test_what_is_refused_has_failed_at_once_and_the_next_goes(now: Line) -> None:
    now.sink.answers = [Refused("400")]
    now.put("a")
    now.settled(failed=1)
    now.put("b")
    now.settled(failed=1, exported=1)
    assert now.sink.batches == [["a"], ["b"]]


def test_spans_that_were_rejected_have_failed(now: Line) -> None:
    now.sink.answers = [2]
    now.put("a", spans=3)
    now.settled(exported=1, failed=2)


def test_an_error_that_nobody_expected_fails_its_batch_alone(now: Line) -> None:
    now.sink.answers = [ZeroDivisionError()]
    now.put("a")
    now.settled(failed=1)
    now.put("b")
    now.settled(failed=1, exported=1)


def test_who_asks_for_time_is_left_alone_for_that_long(tmp_path: Path) -> None:
    line = Line(tmp_path, msgspec.structs.replace(NOW, export_timeout=0.05))
    line.sink.answers = [Unavailable("429", retry_after_s=3600.0)]
    line.put("a")
    line.settled(failed=1)
    line.put("b")
    assert line.queue._not_before > 0
    line.queue.close()
    assert line.sink.batches == [["a"]]
    line.settled(failed=1, dropped=1)


def test_a_flush_sends_what_waits_and_tries_a_sink_that_is_down_but_once(later: Line) -> None:
    later.put("a")
    assert later.queue.flush(5.0)
    later.sink.answers = [Unavailable("down")] * 100
    later.put("b")
    later.queue.flush(60.0)
    later.settled(exported=1, failed=1)
    assert later.sink.batches == [["a"], ["b"]]


def test_closing_counts_what_waits_as_dropped_and_what_is_under_way_as_failed(later: Line) -> None:
    later.sink.open.clear()
    later.put(*"abcde")
    until(lambda: later.queue._sending == 4, "the batch to be on its way")
    later.queue.close()
    later.settled(failed=4, dropped=1)
    later.sink.open.set()
    until(lambda: later.sink.closed, "the sink to be closed")
    later.put("too late")
    later.settled(failed=4, dropped=2)


def test_what_a_killed_process_had_not_settled_is_counted_as_dropped_by_the_next(later: Line) -> None:
    later.put("a", "b")
    CountsFile(later.directory)
    (one,) = read_counts(later.directory)
    assert (one.dropped, one.queued, one.active) == (2, 0, False)
