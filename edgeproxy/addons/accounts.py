"""Renders the record of each request that is over, by the fast engine's own renderer, and hands it to whoever logs.

What that renderer takes for granted (HTTP/1, no TLS, spans that are exported) is put right here.
"""

import time
from collections.abc import Callable

import msgspec

from edgeproxy.ledger import Stage
from edgeproxy.proxy.errors import Outcome, ProxyError
from edgeproxy.proxy.exchange import Exchange
from edgeproxy.proxy.record import NO_ORIGIN, Recorder, origin_part
from edgeproxy.tracing.policy import Tail

type Sink = Callable[[bytes], None]


class Accounts:
    """One node's."""

    def __init__(self, recorder: Recorder, tail: Tail | None) -> None:
        """Render with `recorder`; `tail` says what is exported for what became of it."""
        self.sinks: list[Sink] = []
        """Who gets each record: a line of JSON."""
        self._recorder = recorder
        self._tail = tail
        self._seq = 0

    def open(self, exchange: Exchange) -> None:
        """Give a request its number, and the first half of its record."""
        self._seq = exchange.seq = self._seq + 1
        self._recorder.begin(exchange)

    def close(self, exchange: Exchange, bytes_out: int, protocol: str = "", error: ProxyError | None = None) -> None:
        """Publish the record, once: `bytes_out` of a body went out, by `protocol` where that is not HTTP/1. What went
        wrong is `error`, or the exchange's own.
        """
        if exchange.is_over:
            return
        exchange.is_over = True
        error = error or exchange.error
        outcome: Outcome = "ok" if error is None else error.outcome
        elapsed_s = time.monotonic() - exchange.started
        trace = exchange.trace
        if self._tail is not None and trace.recording and not trace.sampled:
            trace.reason = self._tail.reason(exchange.status, outcome, elapsed_s) or trace.reason
        exchange.bytes_out = bytes_out
        origin = NO_ORIGIN
        if exchange.attempts:
            origin = origin_part(exchange.plan.route.origin, exchange.attempts, exchange.started)
        line = self._recorder.line(
            exchange,
            elapsed_ms=f"{elapsed_s * 1e3:.3f}",
            outcome=outcome,
            stage=Stage.DONE if error is None else exchange.stage,
            origin=origin,
            error=error,
        )
        record = msgspec.json.decode(line)
        record["exported"] = False  # there is no scribe here
        if record["scheme"] is not None:
            record["scheme"] = exchange.key.partition(b":")[0].decode()
        if protocol:
            record["protocol"] = protocol
        line = msgspec.json.encode(record) + b"\n"
        for sink in self.sinks:
            sink(line)
