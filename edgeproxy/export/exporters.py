"""From records' lines to exporters: one thread makes spans of them, each exporter's own sends these.

`take` is called by the scribe where records leave a ring, and costs next to nothing there: lines are set aside, up to a
bound, and counted. What comes of them is found out on the thread. Spans that no queue has room for are waited with for
two seconds at most (a burst is no overload), then dropped; each drop is counted.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import structlog

import edgeproxy
from edgeproxy.config import Config
from edgeproxy.export.batch import BatchQueue, Sink
from edgeproxy.export.counts import Counter, CountsFile, Word
from edgeproxy.export.otlp import Encoder, Frame
from edgeproxy.export.resource import resource_attributes
from edgeproxy.tracing.marked import exported_lines, span_count
from edgeproxy.tracing.recorded import decode
from edgeproxy.tracing.spans import Span, spans_of

INBOX_BYTES = 32 * 1024 * 1024
"""Lines that may wait to become spans."""
PATIENCE_S = 2.0
"""How long a line waits for room in a queue at most, from when it was taken."""
CLOSE_PATIENCE_S = 2.0
_TRACE_ID = b'"trace_id":"'

_log = structlog.get_logger()


class _Exporter(NamedTuple):
    """One exporter: its queue, and what a record is to it."""

    name: str
    queue: BatchQueue[Any]
    counter: Counter
    needs_spans: bool
    payload: Callable[[bytes, Sequence[Span]], Any]
    per_second: int
    """Of how many records a second it takes the spans; 0: of all."""


class _Taken(NamedTuple):
    """Lines that wait, with when they were taken, and how many spans each was counted as."""

    lines: list[bytes]
    counts: list[int]
    at: float


class Exporters:
    """All exporters that are in use."""

    def __init__(self, exporters: Sequence[_Exporter]) -> None:
        """Use `open_exporters`."""
        self._exporters = tuple(exporters)
        self._needs_spans = any(one.needs_spans for one in exporters)
        self._inbox: deque[_Taken] = deque()
        self._inbox_bytes = 0
        self._busy = False
        self._closed = False
        self._changed = threading.Condition()
        self._reported = 0.0
        self._second = 0
        self._this_second = 0
        self._thread = threading.Thread(target=self._run, name="export", daemon=True)
        self._thread.start()

    @property
    def names(self) -> tuple[str, ...]:
        """What is in use."""
        return tuple(one.name for one in self._exporters)

    def take(self, data: bytes) -> None:
        """Take what is to be exported of these records, whole lines; never waits."""
        lines = exported_lines(data)
        if not lines:
            return
        counts = list(map(span_count, lines))
        self._count(Word.MADE, sum(counts))
        size = sum(map(len, lines))
        with self._changed:
            if self._closed or self._inbox_bytes + size > INBOX_BYTES:
                self._count(Word.DROPPED, sum(counts))
                return
            self._inbox.append(_Taken(lines, counts, time.monotonic()))
            self._inbox_bytes += size
            self._changed.notify_all()

    def _count(self, word: Word, spans: int) -> None:
        for one in self._exporters:
            one.counter.add(word, spans)

    def flush(self, timeout_s: float) -> bool:
        """Export what there is, within that time; True once it is all settled."""
        by = time.monotonic() + timeout_s
        return self._is_emptied(by) and all(self._each(lambda queue: queue.flush(by - time.monotonic())))

    def end(self, timeout_s: float) -> None:
        """Export what there is, within that time, and stop: each exporter as soon as it can, for others wait to take
        its place.
        """
        by = time.monotonic() + timeout_s

        def end(queue: BatchQueue[Any]) -> bool:
            flushed = queue.flush(by - time.monotonic())
            queue.close()
            return flushed

        if self._is_emptied(by):
            self._each(end)
        self.close()

    def _is_emptied(self, by: float) -> bool:
        """Wait until every line has come to a queue; False when the time was over before."""
        with self._changed:
            while self._inbox or self._busy:
                left = by - time.monotonic()
                if left <= 0 or not self._changed.wait(left):
                    return False
        return True

    def _each(self, act: Callable[[BatchQueue[Any]], bool]) -> list[bool]:
        """Have that done to every queue at once."""
        done: list[bool] = []
        threads = [
            threading.Thread(target=lambda queue=one.queue: done.append(act(queue)), daemon=True)
            for one in self._exporters
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return done

    def close(self, patience_s: float = CLOSE_PATIENCE_S) -> None:
        """Stop; what still waits is dropped. Files are closed within that time, or later, or not at all."""
        by = time.monotonic() + patience_s
        with self._changed:
            self._closed = True
            self._count(Word.DROPPED, sum(sum(taken.counts) for taken in self._inbox))
            self._inbox.clear()
            self._changed.notify_all()
        # Closed queues take nothing: the thread, if it waits for room in one, counts what it has as dropped, and ends.
        for one in self._exporters:
            one.queue.close()
        self._thread.join(patience_s)
        for one in self._exporters:
            one.queue.join(by - time.monotonic())

    # On the thread.

    def _run(self) -> None:
        while True:
            with self._changed:
                self._busy = False
                self._changed.notify_all()
                while not self._inbox and not self._closed:
                    self._changed.wait()
                if not self._inbox:
                    return
                taken = self._inbox.popleft()
                self._busy = True
            for line, count in zip(taken.lines, taken.counts, strict=True):
                self._export(line, count, 0.0 if self._closed else taken.at + PATIENCE_S)
            with self._changed:
                self._inbox_bytes -= sum(map(len, taken.lines))

    def _export(self, line: bytes, counted: int, patience_until: float) -> None:
        spans: Sequence[Span] = ()
        count = counted
        if self._needs_spans:
            try:
                spans = spans_of(decode(line))
            except Exception as error:  # noqa: BLE001  a record that nobody understands must not end the thread
                self._count(Word.DROPPED, counted)
                self._report(line, error)
                return
            count = len(spans)
            if count != counted:
                self._count(Word.MADE, count - counted)
        for one in self._exporters:
            if one.per_second and not self._is_within(one.per_second):
                one.counter.add(Word.DROPPED, count)
                continue
            try:
                payload = one.payload(line, spans)
            except Exception as error:  # noqa: BLE001  as above
                one.counter.add(Word.DROPPED, count)
                self._report(line, error)
                continue
            one.queue.put(payload, count, patience_until)

    def _is_within(self, per_second: int) -> bool:
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._this_second = second, 0
        self._this_second += 1
        return self._this_second <= per_second

    def _report(self, line: bytes, error: Exception) -> None:
        if time.monotonic() >= self._reported:
            self._reported = time.monotonic() + 60.0
            _log.error("a record can't be made spans of", error=repr(error), record=line[:200].decode(errors="replace"))


def stored_payload(line: bytes, _spans: Sequence[Span]) -> bytes:
    """A line as the embedded store takes it: behind its trace id."""
    start = line.index(_TRACE_ID) + len(_TRACE_ID)
    return bytes.fromhex(line[start : start + 32].decode("ascii")) + line


def open_exporters(
    names: Sequence[str], config: Config, counts: CountsFile, store_folder: Path
) -> tuple[Exporters, list[str]]:
    """Open those exporters; and say what is wrong with those that can't be."""
    resource = resource_attributes(config)
    found, problems = [], []
    for name in names:
        try:
            found.append(_opened(name, config, counts, resource, store_folder))
        except Exception as error:  # noqa: BLE001  whatever is wrong with one, the others work
            problems.append(f"{name}: {error}")
    return Exporters(found), problems


def _opened(name: str, config: Config, counts: CountsFile, resource: dict[str, Any], store_folder: Path) -> _Exporter:
    tracing = config.tracing
    counter = counts.counter(name)
    sink: Sink[Any]
    payload: Callable[[bytes, Sequence[Span]], Any]
    per_second = 0
    match name:
        case "otlp":
            from edgeproxy.export.http import OtlpHttp, endpoint  # noqa: PLC0415  not without a collector

            frame = Frame(resource, "edgeproxy", edgeproxy.__version__)
            encoder = Encoder()
            if tracing.otlp.protocol == "grpc":
                from edgeproxy.export.grpc import OtlpGrpc  # noqa: PLC0415  an extra

                sink = OtlpGrpc(endpoint(tracing), tracing.otlp, frame)
            else:
                sink = OtlpHttp(endpoint(tracing), tracing.otlp, frame)
            payload = lambda _line, spans: encoder.spans(spans)  # noqa: E731
        case "console":
            from edgeproxy.export.console import Console  # noqa: PLC0415  the SDK is slow to import

            sink = Console(resource, edgeproxy.__version__)
            payload = lambda _line, spans: spans  # noqa: E731
        case _:
            from edgeproxy.export.trace_sink import TraceStoreSink  # noqa: PLC0415  LMDB, with it alone

            sink = TraceStoreSink(store_folder, tracing.store.size_bytes)
            payload = stored_payload
            per_second = tracing.store.requests_per_second
    queue: BatchQueue[Any] = BatchQueue(name, sink, tracing.batch, counter)
    return _Exporter(name, queue, counter, name != "embedded", payload, per_second)
