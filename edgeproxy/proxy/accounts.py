"""Accounts for requests: ledger slot, record, counters. What was opened here is closed here exactly once."""

import math
import time
from functools import partial
from typing import get_args

from edgeproxy.ledger import CACHE_WORDS, Counter, LedgerWriter, Stage
from edgeproxy.proxy.errors import Outcome, ProxyError
from edgeproxy.proxy.exchange import Exchange
from edgeproxy.proxy.record import NO_ORIGIN, Recorder, origin_part
from edgeproxy.tracing.policy import Tail


class Accounts:
    """One worker's."""

    def __init__(self, ledger: LedgerWriter, recorder: Recorder) -> None:
        """Write into a ledger what a recorder renders."""
        self.ledger = ledger
        self.counters = ledger.counters
        self._tail: Tail | None = None
        self._slow_s = math.inf
        self._recorder = recorder
        self._seq = 0

    def open(self, exchange: Exchange) -> bool:
        """Give a request its number and its slot; False when there is none left."""
        self._seq = exchange.seq = self._seq + 1
        text = self._recorder.begin(exchange)
        try:
            exchange.slot = self.ledger.open(exchange.seq, text)
        except IndexError:
            return False
        return True

    def judge_by(self, tail: Tail | None) -> None:
        """Have that say which requests are exported though they were not sampled, for what became of them."""
        self._tail = tail
        self._slow_s = math.inf if tail is None else tail.slow_s or math.inf

    def hit(self, exchange: Exchange, body_bytes: int, elapsed_s: float, elapsed_ms: str, tier: str) -> None:
        """Close a request that was answered with a fresh response as it is stored."""
        if elapsed_s >= self._slow_s or exchange.status >= 500:
            self._export_after_all(exchange, "ok", elapsed_s)
        self.ledger.publish(exchange.slot, self._recorder.hit(exchange, body_bytes, elapsed_ms, tier))
        counters = self.counters
        counters[_REQUESTS] += 1
        counters[_HIT] += 1
        counters[_OK] += 1
        counters[_STATUS + exchange.status // 100] += 1
        counters[_BYTES_OUT] += body_bytes
        counters[_DURATION_US] += int(elapsed_s * 1e6)
        if exchange.trace.sampled:
            counters[_SAMPLED] += 1

    def close(self, exchange: Exchange, outcome: Outcome, stage: Stage, error: ProxyError | None) -> None:
        """Publish the record: from here on the request is the scribe's. Where a store still works on its account, that
        is when the store has answered, which it does within a bound.
        """
        exchange.is_over = True
        elapsed_s = time.monotonic() - exchange.started
        operations = exchange.operations
        if operations is not None and operations.pending:
            operations.settled = partial(self._publish, exchange, elapsed_s, outcome, stage, error)
        else:
            self._publish(exchange, elapsed_s, outcome, stage, error)

    def _publish(
        self, exchange: Exchange, elapsed_s: float, outcome: Outcome, stage: Stage, error: ProxyError | None
    ) -> None:
        self._export_after_all(exchange, outcome, elapsed_s)
        if exchange.caused_by is not None:
            exchange.bytes_out = 0  # nobody was sent anything
        fetch = exchange.fetch
        origin = NO_ORIGIN
        if fetch is not None:
            origin = origin_part(fetch.pool.origin.name, exchange.attempts, exchange.started)
        line = self._recorder.line(
            exchange, elapsed_ms=f"{elapsed_s * 1e3:.3f}", outcome=outcome, stage=stage, origin=origin, error=error
        )
        self.ledger.publish(exchange.slot, line)
        exchange.slot = 0
        # The two point at each other; left so, only the cycle collector could free them, at 20 µs a request.
        exchange.fetch = None
        counters = self.counters
        if exchange.caused_by is not None:
            counters[_REFRESHES] += 1
            return
        counters[_REQUESTS] += 1
        counters[_OUTCOME_COUNTERS[outcome]] += 1
        counters[_STATUS + (exchange.status // 100 or 1)] += 1
        counters[_BYTES_IN] += exchange.bytes_in
        counters[_BYTES_OUT] += exchange.bytes_out
        counters[_DURATION_US] += int(elapsed_s * 1e6)
        if exchange.cache is not None:
            counters[_CACHE_COUNTERS[exchange.cache]] += 1
        if exchange.trace.sampled:
            counters[_SAMPLED] += 1

    def _export_after_all(self, exchange: Exchange, outcome: Outcome, elapsed_s: float) -> None:
        """Have a request be exported for what became of it, where it is traced and was not sampled."""
        trace = exchange.trace
        if self._tail is not None and trace.recording and not trace.sampled:
            trace.reason = self._tail.reason(exchange.status, outcome, elapsed_s) or trace.reason


_REQUESTS = int(Counter.REQUESTS)
_BYTES_IN = int(Counter.BYTES_IN)
_BYTES_OUT = int(Counter.BYTES_OUT)
_DURATION_US = int(Counter.DURATION_US)
_HIT = int(Counter.CACHE_HIT)
_OK = int(Counter.OUTCOME_OK)
_SAMPLED = int(Counter.SAMPLED)
_REFRESHES = int(Counter.CACHE_REFRESHES)
_STATUS = Counter.STATUS_1XX - 1
_CACHE_COUNTERS = {word: int(Counter[f"CACHE_{word}"]) for word in CACHE_WORDS}
_OUTCOME_COUNTERS = {outcome: int(Counter[f"OUTCOME_{outcome.upper()}"]) for outcome in get_args(Outcome)}
