"""One request's way to its origin and back: attempts, retries, back-pressure both ways, the times of every phase.

A state machine driven by callbacks (a task a miss would cost 6 µs): the pool brings a connection, the connection brings
the response, the client brings the request's body. What the response means is the pipeline's business.

`Phase` goes WAITING → SENDING → AWAITING → RECEIVING → DONE; a failed attempt that may be repeated goes back to
WAITING; anything goes to DONE when the client leaves or no further attempt is allowed.
"""

import asyncio
import time
from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING

from edgeproxy.cache import conditional
from edgeproxy.ledger import Counter, Stage
from edgeproxy.proxy import forwarding
from edgeproxy.proxy.deadlines import NEVER
from edgeproxy.proxy.errors import OriginTimeout, ProxyError
from edgeproxy.proxy.exchange import Exchange
from edgeproxy.proxy.fields import FieldLines, Names, render
from edgeproxy.proxy.upstream.address import Address
from edgeproxy.proxy.upstream.attempt import Attempt
from edgeproxy.proxy.upstream.connection import OriginConnection
from edgeproxy.proxy.upstream.pool import OriginPool

if TYPE_CHECKING:
    from edgeproxy.proxy.flight import Flight
    from edgeproxy.proxy.pipeline import Pipeline

_IDEMPOTENT = frozenset({b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE", b"TRACE"})
"""Methods whose request may be sent again (RFC 9110 §9.2.2)."""


class Phase(Enum):
    """Where a fetch is."""

    WAITING = "waiting"
    """For a connection."""
    SENDING = "sending"
    """The request; its body is not all sent."""
    AWAITING = "awaiting"
    """The response's head."""
    RECEIVING = "receiving"
    """The response's body."""
    DONE = "done"


class Fetch:
    """A request's way to its origin."""

    def __init__(
        self,
        pipeline: "Pipeline",
        exchange: Exchange,
        pool: OriginPool,
        flight: "Flight | None" = None,
        *,
        is_cacheable: bool = False,
    ) -> None:
        """Prepare; `start` goes. `is_cacheable` says that the response may be stored; with a flight all of it is asked
        for, whatever the client's conditions and ranges are.
        """
        self.pipeline = pipeline
        self.arrivals = pipeline.arrivals
        self.flight = flight
        self.is_cacheable = is_cacheable
        self.exchange = exchange
        """Whose account it is on."""
        self.asked = exchange
        """Whose request the origin is sent, in whose trace: the same, unless it has left and handed the fetch on."""
        self.pool = pool
        self.phase = Phase.WAITING
        self.attempts: list[Attempt] = list(exchange.attempts)
        self._repeatable = pool.origin.retries + len(self.attempts)
        exchange.attempts = self.attempts
        self.attempt: Attempt
        self.request_ns = exchange.now_ns
        """When the request was made, for the age of its response (RFC 9111 §4.2.3), nanoseconds since the epoch."""
        self.purge_seq = pipeline.purge_seq
        """The purge log's last rule by then: later ones are about the response, too."""
        self._connection: OriginConnection | None = None
        self._tried: list[Address] = []
        self._sent = 0.0
        self._first_byte = 0.0
        self._heard = False
        """Whether anything of an answer came before the response's head was whole."""
        self._body = exchange.held
        self._body_sent = False
        self._timer: asyncio.TimerHandle | None = None
        plan = exchange.plan
        # What does not bypass the cache may change what is stored, a HEAD by what it tells of it: the origin is to see
        # no more of it than the key has.
        as_keyed = exchange.cache != "BYPASS"
        self.sent_target = plan.sent_target if as_keyed else exchange.target
        stale = None if flight is None else flight.stale
        sent_host = plan.sent_host if as_keyed else b""
        self._head, self._fields = forwarding.request_head(
            exchange,
            pool.origin.host.encode() or sent_host,
            pipeline.tracing,
            pipeline.propagation,
            self.sent_target,
            is_stripped=flight is not None,
            forwarded_host=sent_host,
            validators=b"" if stale is None else conditional.validators(stale.stored),
        )

    def start(self, *, fresh: bool = False) -> None:
        """Begin an attempt."""
        exchange = self.exchange
        self.phase = Phase.WAITING
        self.attempt = Attempt(self.pipeline.ids.span_id(), time.monotonic())
        self.attempts.append(self.attempt)
        self.pipeline.stage(exchange, Stage.CONNECT)
        self.pool.acquire(self, avoid=self._tried, fresh=fresh)
        if self.phase is Phase.WAITING and exchange.has_body and not exchange.body_complete:
            exchange.client.pause_body()

    def origin_s(self) -> float:
        """Seconds from the last attempt's beginning to its response's first byte, or to now."""
        return (self._first_byte or time.monotonic()) - self.attempt.started

    @property
    def is_sent(self) -> bool:
        """Whether all of the request has gone to the origin: nothing of its body is to come or held back."""
        return self.exchange.body_complete and not self._body

    @property
    def is_inherited(self) -> bool:
        """Whether the answer is to another's request than that of whose account it is on."""
        return self.asked is not self.exchange

    def hand_to(self, heir: Exchange) -> None:
        """Go on for another request; what was attempted so far stands in the record of the one that leaves."""
        self.exchange = heir
        self._repeatable -= len(self.attempts)
        self.attempts = list(heir.attempts)
        self._repeatable += len(self.attempts)
        heir.attempts = self.attempts
        heir.fetch = self

    # --- the pool's calls

    def connecting(self, address: Address) -> None:
        """A new connection is being made for this fetch."""
        self.attempt.address = address.text
        self.attempt.scheme = address.scheme
        self._tried.append(address)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def wait_in_queue(self, seconds: float, timed_out: "Callable[[Fetch], None]") -> None:
        """All connections are busy: wait for one, but not forever."""
        self._timer = asyncio.get_running_loop().call_later(seconds, self._queue_timeout, timed_out)

    def waits_in_queue(self) -> bool:
        """Whether this fetch still waits for a connection to come free; it is taken out of the queue by asking."""
        waiting = self._timer is not None and self.phase is Phase.WAITING
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        return waiting

    def waits_for(self, attempt: Attempt) -> bool:
        """Whether this attempt's connection is still wanted."""
        return self.phase is Phase.WAITING and attempt is self.attempt

    def on_connection(self, connection: OriginConnection, *, reused: bool) -> None:
        """A connection is there: the request goes out."""
        self._connection = connection
        attempt = self.attempt
        exchange = self.exchange
        attempt.reused = reused
        attempt.address = connection.address.text
        attempt.scheme = connection.address.scheme
        self.phase = Phase.SENDING
        parent = self.pipeline.propagation.attempt_fields(self.asked.trace, attempt.span_id)
        head = b"%b%b%b" % (self._head, parent, self._fields)
        self._sent = time.monotonic()
        connection.send(head)
        self.pipeline.stage(exchange, Stage.REQUEST_SENT)
        if not exchange.has_body:
            self._request_sent(connection)
            return
        pending, self._body = self._body, []
        for data in pending:
            self._send_body(connection, data)
        if exchange.body_complete:
            self._end_body(connection)
            return
        if exchange.expects_continue:
            connection.expect("first_byte_timeout", self.pool.origin.first_byte_timeout)
        if connection.writable:
            exchange.client.resume_body()

    # --- the client's calls, through the pipeline

    def request_body(self, data: bytes) -> None:
        """A piece of the request's body came."""
        connection = self._connection
        if connection is None or self.phase is Phase.DONE:
            self._body.append(data)
            self.exchange.client.pause_body()
        elif self._body or connection.has_unread_answer():
            self._listen_first(data)
        else:
            self._send_body(connection, data)

    def request_complete(self) -> None:
        """The request's body is whole."""
        if self._connection is not None and self.phase is not Phase.DONE and not self._body:
            self._end_body(self._connection)

    def _listen_first(self, data: bytes) -> None:
        """Keep a piece of the body until what the origin has sent is read.

        An origin that refuses an upload answers and closes; a piece written to it now would be answered with a reset,
        and the reset would take the answer along.
        """
        if not self._body:
            loop = asyncio.get_running_loop()
            loop.call_soon(loop.call_soon, self._speak)  # the second call comes after the loop has looked for input
        self._body.append(data)
        self.exchange.client.pause_body()

    def _speak(self) -> None:
        connection = self._connection
        if connection is None or self.phase is Phase.DONE or not self._body:  # another attempt has taken it along
            return
        pending, self._body = self._body, []
        for data in pending:
            self._send_body(connection, data)
        if self.exchange.body_complete:
            self._end_body(connection)
        elif connection.writable:
            self.exchange.client.resume_body()

    def pause_response(self) -> None:
        """The client can't keep up."""
        if self._connection is not None:
            self._connection.pause()

    def resume_response(self) -> None:
        """The client has caught up."""
        if self._connection is not None:
            self._connection.resume()

    def cancel(self, error: ProxyError | None) -> None:
        """Nobody wants the response any more."""
        if self.phase is Phase.DONE:
            return
        self.attempt.error = error
        self.attempt.ended = time.monotonic()
        self._close()

    # --- the connection's calls

    def pause_request(self) -> None:
        """The origin can't keep up with the request's body."""
        if self.exchange.has_body and not self.exchange.body_complete:
            self.exchange.client.pause_body()

    def resume_request(self) -> None:
        """The origin has caught up."""
        exchange = self.exchange
        if exchange.has_body and not exchange.body_complete:
            exchange.client.resume_body()
        elif self.phase is Phase.AWAITING and self._connection is not None:
            self._connection.expect("first_byte_timeout", self.pool.origin.first_byte_timeout)
        if self.phase is Phase.RECEIVING and self._connection is not None:
            self._connection.expect("read_timeout", self.pool.origin.read_timeout)

    def on_interim(self, status: int, reason: bytes, lines: FieldLines, names: Names) -> None:
        """The origin sent a 1xx response."""
        self._heard = True
        self.arrivals.interim(self, status, reason, lines, names)

    def on_head(self, status: int, reason: bytes, lines: FieldLines, names: Names) -> None:
        """The origin's response has begun."""
        self._first_byte = time.monotonic()
        self.attempt.first_byte_s = self._first_byte - self._sent
        self.attempt.status = status
        self.phase = Phase.RECEIVING
        self.arrivals.head(self, status, reason, lines, names)

    def on_body(self, data: bytes) -> None:
        """A piece of the response's body came."""
        self.arrivals.body(self, data)

    def on_end(self, trailers: FieldLines | None) -> None:
        """The response is whole."""
        self._connection = None
        self.phase = Phase.DONE
        attempt = self.attempt
        attempt.ended = time.monotonic()
        attempt.transfer_s = attempt.ended - self._first_byte
        self.arrivals.end(self, trailers)

    def on_failure(self, error: ProxyError) -> None:
        """This attempt failed; another one may not."""
        if self._connection is not None and self._connection.answering:
            self._heard = True
        self._connection = None
        attempt = self.attempt
        attempt.error = error
        attempt.ended = time.monotonic()
        if self._first_byte:
            attempt.transfer_s = attempt.ended - self._first_byte
        was_waiting = self.phase is Phase.WAITING
        if self._may_retry(error, sent=not was_waiting):
            self.pipeline.counters[Counter.ORIGIN_RETRIES] += 1
            self.start(fresh=attempt.reused)
            return
        self._close()
        self.arrivals.failed(self, error)

    def _may_retry(self, error: ProxyError, *, sent: bool) -> bool:
        if self._heard or self._first_byte:
            return False
        if not sent:
            # Nothing has reached any origin: every url gets its chance.
            return error.code != "origin_busy" and self.pool.untried(self._tried)
        if isinstance(error, OriginTimeout) or self._body_sent or self.exchange.method not in _IDEMPOTENT:
            return False
        return error.code == "origin_closed" and len(self.attempts) <= self._repeatable

    def _send_body(self, connection: OriginConnection, data: bytes) -> None:
        self._body_sent = True
        if self.phase is Phase.SENDING and connection.writable:
            connection.deadline = NEVER  # what was awaited was an answer to Expect; now it is the client's turn
        if b"transfer-encoding" in self.exchange.names:
            connection.send(b"%x\r\n%b\r\n" % (len(data), data))
        else:
            connection.send(data)

    def _end_body(self, connection: OriginConnection) -> None:
        if b"transfer-encoding" in self.exchange.names:
            trailers = self.exchange.trailers
            lines = (
                forwarding.request_trailers(trailers, self.exchange.names, self.pipeline.propagation)
                if trailers
                else []
            )
            connection.send(b"0\r\n%b\r\n" % (render(lines) if lines else b""))
        self._request_sent(connection)

    def _request_sent(self, connection: OriginConnection) -> None:
        if self.phase is not Phase.SENDING:
            return
        self.phase = Phase.AWAITING
        now = time.monotonic()
        self.attempt.send_s = now - self._sent
        self._sent = now
        if connection.writable:
            connection.expect("first_byte_timeout", self.pool.origin.first_byte_timeout)

    def _queue_timeout(self, timed_out: "Callable[[Fetch], None]") -> None:
        self._timer = None
        if self.phase is Phase.WAITING:
            timed_out(self)

    def _close(self) -> None:
        self.phase = Phase.DONE
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.drop()
