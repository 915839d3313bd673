"""One connection to one node of the cluster: commands out, replies in, in the same order.

What is asked for in one tick of the loop leaves in one write. Every command has a deadline, which runs from that write:
after it its caller gets a `NoAnswerError`, and a reply that comes later is dropped. Every caller is answered exactly
once, whatever becomes of the connection and of other callers. Knows RESP3 and time; nothing of keys, slots or what a
reply means.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from enum import Enum
from math import inf
from typing import Any, cast

import hiredis
import structlog

from edgeproxy.cache.redis.commands import Command, command

Reply = Any
"""What Redis said, as hiredis makes it: bytes, int, None, list, dict; a RedisError for an error."""
Answered = Callable[[Reply], None]

MAX_UNSENT_BYTES = 32 * 1024 * 1024
"""What may wait to be sent to a node; beyond it commands fail at once."""
MAX_WAITING = 20_000
"""How many commands may wait for their replies."""
GREETING_S = 1.0
"""How long a node may take to answer its greeting; no request waits for that."""
DEAF_S = 0.6
"""A connection on which a command has waited for so long (and longer than it may) is given up: what the node says
unasked gets lost on it, too.
"""
ASKING = command("ASKING")
_NOTHING = object()
_log = structlog.get_logger()


class RedisError(Exception):
    """Redis said no: the message is its own."""

    @property
    def code(self) -> str:
        """Its first word: MOVED, OOM, NOAUTH."""
        return str(self).partition(" ")[0]


class NoAnswerError(RedisError):
    """There was no reply in time, or no connection; the message says which."""

    code = "NOANSWER"


class Phase(Enum):
    """What a link is doing."""

    CONNECTING = "connecting"
    """The transport is being made, or the node is being greeted."""
    READY = "ready"
    CLOSED = "closed"


class Waiting:
    """A command that waits for its replies."""

    __slots__ = ("answered", "deadline", "error", "left")

    def __init__(self, answered: Answered | None, replies: int) -> None:
        """Hand the last of so many replies to `answered`."""
        self.answered = answered
        self.left = replies
        self.deadline = inf
        """Until it is sent."""
        self.error: RedisError | None = None


class Link(asyncio.Protocol):
    """The connection; a lost one is not made again: its owner makes another."""

    def __init__(
        self,
        greeting: Sequence[Command],
        timeout_s: float,
        ready: Callable[["Link"], None],
        pushed: Callable[[list[Any]], None],
        lost: Callable[["Link", RedisError], None],
    ) -> None:
        """Greet the node with these commands, all of which it must accept, then call `ready`; `pushed` gets what Redis
        says unasked, `lost` is called once when the connection ends.
        """
        self.phase = Phase.CONNECTING
        self._greeting = greeting
        self._timeout_s = timeout_s
        self._ready = ready
        self._pushed = pushed
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader(protocolError=RedisError, replyError=RedisError, notEnoughData=_NOTHING)
        self._waiting: deque[Waiting] = deque()
        self._unsent: list[Waiting] = []
        self._out: list[bytes] = []
        self._out_bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None
        self.timed_out: Callable[[], None] | None = None
        """Called with each command that got no reply in time."""

    # --- asking

    def ask(self, asked: Command, answered: Answered | None, *, asking: bool = False) -> None:
        """Send a command at the end of this tick; `answered` gets its reply, or a RedisError in its place."""
        transport = self._transport
        if self.phase is Phase.CLOSED or transport is None:
            self._refuse(answered, "the connection is closed")
            return
        parts = asked
        if len(self._waiting) >= MAX_WAITING or self._out_bytes + transport.get_write_buffer_size() > MAX_UNSENT_BYTES:
            self._refuse(answered, "too much waits for this node")
            return
        if asking:
            parts = tuple(piece for part in parts for piece in (*ASKING, part))
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out += parts
        self._out_bytes += sum(map(len, parts))
        waiting = Waiting(answered, len(parts))
        self._waiting.append(waiting)
        self._unsent.append(waiting)

    def _refuse(self, answered: Answered | None, why: str) -> None:
        if answered is not None:
            self._loop.call_soon(answered, NoAnswerError(why))

    def _flush(self) -> None:
        """Send what was asked for. Its time runs from here: a loop that was busy until now is not the node's fault."""
        out, self._out = self._out, []
        unsent, self._unsent = self._unsent, []
        self._out_bytes = 0
        if self.phase is Phase.CLOSED or self._transport is None:
            return
        if not self._transport.is_closing():
            self._transport.write(b"".join(out))
        timeout_s = self._timeout_s if self.phase is Phase.READY else GREETING_S
        deadline = time.monotonic() + timeout_s
        for waiting in unsent:
            waiting.deadline = deadline
        if self._timer is None:
            self._timer = self._loop.call_later(timeout_s, self._tick)

    # --- time

    def _tick(self) -> None:
        # The loop fires timers before it reads: what came in time meanwhile is read first.
        self._loop.call_soon(self._loop.call_soon, self._expire, time.monotonic())

    def _expire(self, now: float) -> None:
        if self.phase is not Phase.READY:
            if self.phase is Phase.CONNECTING:
                self.close("it does not answer its greeting")
            return
        self._timer = None
        due = inf
        late: list[Answered] = []
        for waiting in self._waiting:
            if waiting.deadline > now:
                due = waiting.deadline
                break
            if waiting.answered is not None:
                late.append(waiting.answered)
                waiting.answered = None
        is_deaf = bool(self._waiting) and now - self._waiting[0].deadline > max(0.0, DEAF_S - self._timeout_s)
        if self._waiting:
            wait_s = self._timeout_s if due == inf else max(0.001, due - now)
            self._timer = self._loop.call_later(wait_s, self._tick)
        # Only now: whoever is told may ask for something else, or close this.
        for answered in late:
            if self.timed_out is not None:
                self.timed_out()
            _hand(answered, NoAnswerError("no reply in time"))
        if is_deaf:
            self.close("the node has stopped answering")

    # --- the transport's calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet the node."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's do not subclass it
        *first, last = self._greeting
        for one in first:
            self.ask(one, self._greeted)
        self.ask(last, self._greeted_last)

    def _greeted(self, reply: Reply) -> None:
        if isinstance(reply, RedisError):
            self.close(f"the node refuses this client: {reply}", reply)

    def _greeted_last(self, reply: Reply) -> None:
        self._greeted(reply)
        if self.phase is Phase.CONNECTING:
            self.phase = Phase.READY
            if self._timer is not None:  # the greeting's, which is too late for anything else
                self._timer.cancel()
                self._timer = None
            self._ready(self)

    def data_received(self, data: bytes) -> None:
        """Hand every whole reply to whoever waits for it."""
        reader = self._reader
        waiting = self._waiting
        reader.feed(data)
        while self.phase is not Phase.CLOSED:
            try:
                reply = reader.gets()
            except (RedisError, ValueError) as error:
                self.close(f"the node does not speak RESP: {error}")
                return
            if reply is _NOTHING:
                return
            if isinstance(reply, hiredis.PushNotification):
                _hand(self._pushed, reply)
                continue
            if not waiting:
                self.close("the node says what nobody asked for")
                return
            first = waiting[0]
            first.left -= 1
            if first.error is None and isinstance(reply, RedisError):
                first.error = reply
            if first.left:
                continue
            waiting.popleft()
            if first.answered is not None:
                _hand(first.answered, first.error or reply)

    def connection_lost(self, exc: Exception | None) -> None:
        """The node is gone, or this side has left."""
        self._end(NoAnswerError(f"the connection was lost{f': {exc}' if exc else ''}"))

    def close(self, why: str = "closed", error: RedisError | None = None) -> None:
        """End the connection; whoever waits gets an error."""
        if self._transport is not None:
            self._transport.abort()
        self._end(error or NoAnswerError(why))

    def _end(self, error: RedisError) -> None:
        if self.phase is Phase.CLOSED:
            return
        self.phase = Phase.CLOSED
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waiting, self._waiting = self._waiting, deque()
        self._lost(self, error)
        for one in waiting:
            answered, one.answered = one.answered, None
            if answered is not None:
                _hand(answered, error)

    @property
    def waiting(self) -> int:
        """How many commands wait for a reply."""
        return len(self._waiting)


def _hand(taker: Callable[[Any], None], reply: Reply) -> None:
    """Hand something to whoever it is for. What goes wrong there is no other caller's concern, nor the connection's."""
    try:
        taker(reply)
    except Exception:  # noqa: BLE001 whatever it is
        _log.exception("redis: what was to be done with a reply has failed")
