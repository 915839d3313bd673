"""The queue in front of an exporter, and the thread that empties it in batches: OpenTelemetry's batch span processor.

Its names and meanings are the specification's (queue size, delay, batch size, export timeout); what the SDK's own does
not do is done here: the timeout holds, and every span ends in exactly one count. A batch that could not be delivered
for a passing reason is tried again, with growing pauses, until its timeout; any other answer fails it at once. Knows
when to send, not what: payloads are opaque, and a `Sink` takes them.
"""

import random
import threading
import time
from collections import deque
from collections.abc import Sized
from typing import Protocol

import structlog

from edgeproxy.config import Batch
from edgeproxy.export.counts import Counter, Word

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 2.0
"""Before the second attempt at a batch, and before any; each is twice the one before, half of it by chance."""
BATCH_BYTES = 3 * 1024 * 1024
"""Payloads of one batch, unless one alone is more: OTLP's receivers take 4 MiB by gRPC, and no more."""
QUEUE_BYTES = 32 * 1024 * 1024
"""Payloads that may wait, however few spans they are: long urls must not become much memory."""
LONGEST_RETRY_AFTER_S = 60.0
"""A collector that asks for more quiet than this is asked again after this."""

_log = structlog.get_logger()


class Unavailable(Exception):
    """It could not be delivered now; it may be later."""

    def __init__(self, reason: str, retry_after_s: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


class Refused(Exception):
    """It will not be taken, however often it is sent."""


class Sink[Payload: Sized](Protocol):
    """Where batches go."""

    def send(self, payloads: list[Payload], spans: int, timeout_s: float) -> int:
        """Deliver them; how many of the spans were not taken. Raises Unavailable or Refused."""

    def close(self) -> None:
        """Let go of everything."""


class BatchQueue[Payload: Sized]:
    """One exporter's queue and thread."""

    def __init__(self, name: str, sink: Sink[Payload], settings: Batch, counter: Counter) -> None:
        """Start the thread."""
        self.name = name
        self._sink = sink
        self._settings = settings
        self._counter = counter
        self._batch_size = min(settings.batch_size, settings.queue_size)
        self._items: deque[tuple[Payload, int, float]] = deque()
        self._waiting = 0
        """Spans in `_items`."""
        self._waiting_bytes = 0
        self._sending = 0
        """Spans of the batch under way."""
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._flush_by = 0.0
        self._gave_up = False
        self._closed = False
        self._failing_since: float | None = None
        self._not_before = 0.0
        self._thread = threading.Thread(target=self._run, name=f"export-{name}", daemon=True)
        self._thread.start()

    def put(self, payload: Payload, spans: int, patience_until: float = 0.0) -> bool:
        """Queue a payload that stands for so many spans; False, with them counted as dropped, where there is no room,
        not even by `patience_until` on the monotonic clock.
        """
        size = len(payload)
        with self._changed:
            while not self._closed and not self._has_room(spans, size):
                left = patience_until - time.monotonic()
                if left <= 0 or not self._changed.wait(left):
                    break
            if self._closed or not self._has_room(spans, size):
                self._counter.add(Word.DROPPED, spans)
                return False
            self._items.append((payload, spans, time.monotonic()))
            before, self._waiting = self._waiting, self._waiting + spans
            self._waiting_bytes += size
            if not before or before < self._batch_size <= self._waiting:
                self._changed.notify_all()
            return True

    def _has_room(self, spans: int, size: int) -> bool:
        """Whether so much more may wait; something always may where nothing does."""
        return not self._waiting or (
            self._waiting + spans <= self._settings.queue_size and self._waiting_bytes + size <= QUEUE_BYTES
        )

    def flush(self, timeout_s: float) -> bool:
        """Send what waits now, without waiting for batches to fill; True once it is all settled. A sink that is not
        available is tried once more.
        """
        by = time.monotonic() + timeout_s
        with self._changed:
            self._flush_by = by
            self._gave_up = False
            self._changed.notify_all()
            while (self._items or self._sending) and not self._gave_up:
                left = by - time.monotonic()
                if left <= 0 or not self._changed.wait(left):
                    break
            self._flush_by = 0.0
            return not self._items and not self._sending

    def close(self) -> None:
        """Take and send nothing more: what waits is dropped, what is under way has failed."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._counter.add(Word.DROPPED, self._waiting)
            self._counter.add(Word.FAILED, self._sending)
            self._waiting = self._sending = self._waiting_bytes = 0
            self._items.clear()
            self._changed.notify_all()

    def join(self, timeout_s: float) -> None:
        """After `close`, wait until the sink is closed, too."""
        self._thread.join(max(0.0, timeout_s))

    # On the thread.

    def _run(self) -> None:
        while True:
            batch = self._next()
            if batch is None:
                break
            try:
                rejected = self._deliver(batch)
            except Exception as error:  # noqa: BLE001  whatever it is, the next batch may go
                rejected = sum(spans for _, spans, _ in batch)
                self._fails(f"{type(error).__name__}: {error}")
            self._settle(rejected)
        self._sink.close()

    def _next(self) -> "list[tuple[Payload, int, float]] | None":
        """Wait for a batch to be due and take it; None at the end."""
        with self._changed:
            while not self._closed:
                now = time.monotonic()
                if not self._items:
                    self._changed.wait()
                    continue
                if self._flush_by:
                    if not self._gave_up:
                        break
                    self._changed.wait(max(0.0, self._flush_by - now))
                    continue
                due = now if self._waiting >= self._batch_size else self._items[0][2] + self._settings.delay
                due = max(due, self._not_before)
                if due <= now:
                    break
                self._changed.wait(due - now)
            if self._closed:
                return None
            batch: list[tuple[Payload, int, float]] = []
            spans = size = 0
            while self._items:
                payload, more, _ = self._items[0]
                if batch and (spans + more > self._batch_size or size + len(payload) > BATCH_BYTES):
                    break
                batch.append(self._items.popleft())
                spans += more
                size += len(payload)
            self._waiting -= spans
            self._waiting_bytes -= size
            self._sending = spans
            self._changed.notify_all()
            return batch

    def _deliver(self, batch: "list[tuple[Payload, int, float]]") -> int:
        """Send a batch, again if need be; how many of its spans were not taken."""
        payloads = [payload for payload, _, _ in batch]
        spans = sum(spans for _, spans, _ in batch)
        deadline = time.monotonic() + self._settings.export_timeout
        pause = FIRST_PAUSE_S
        while True:
            left = deadline - time.monotonic()
            if self._flush_by:
                left = min(left, max(0.05, self._flush_by - time.monotonic()))
            try:
                rejected = self._sink.send(payloads, spans, left)
            except Refused as error:
                self._fails(str(error))
                return spans
            except Unavailable as error:
                self._fails(str(error))
                wait = pause * random.uniform(0.5, 1.0)
                if error.retry_after_s is not None:
                    wait = max(wait, min(error.retry_after_s, LONGEST_RETRY_AFTER_S))
                    self._not_before = time.monotonic() + wait
                if not self._pause(wait, deadline):
                    return spans
                pause = min(pause * 2, LONGEST_PAUSE_S)
                continue
            if rejected:
                self._fails(f"{rejected} of {spans} spans were not taken")
            else:
                self._works()
            return min(rejected, spans)

    def _pause(self, wait_s: float, deadline: float) -> bool:
        """Wait before the next attempt; False when there is to be none."""
        with self._changed:
            was_flushing = bool(self._flush_by)
            until = time.monotonic() + wait_s
            while not self._closed and time.monotonic() < min(until, deadline):
                if self._flush_by:
                    if was_flushing:
                        self._gave_up = True
                        self._changed.notify_all()
                        return False
                    return True
                self._changed.wait(min(until, deadline) - time.monotonic())
            return not self._closed and until < deadline

    def _settle(self, rejected: int) -> None:
        with self._changed:
            if not self._closed:
                self._counter.add(Word.FAILED, rejected)
                self._counter.add(Word.EXPORTED, self._sending - rejected)
                self._sending = 0
                self._changed.notify_all()

    def _fails(self, reason: str) -> None:
        if self._failing_since is None:
            self._failing_since = time.monotonic()
            _log.error("spans can't be exported", exporter=self.name, error=reason)

    def _works(self) -> None:
        if self._failing_since is not None:
            after_s = round(time.monotonic() - self._failing_since, 3)
            self._failing_since = None
            _log.warning("spans can be exported again", exporter=self.name, after_s=after_s)
