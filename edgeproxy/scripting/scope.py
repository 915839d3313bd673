"""What all steps of a scripted request share: its flow, who sees it, how hooks are called for it, and how it ends."""

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Iterable
from enum import Enum
from typing import TYPE_CHECKING, Any

import msgspec
import structlog
from mitmproxy import flow as flows

from edgeproxy.ledger import Stage
from edgeproxy.proxy.errors import ProxyError
from edgeproxy.proxy.exchange import Exchange
from edgeproxy.proxy.record import ScriptPart
from edgeproxy.scripting import spans
from edgeproxy.scripting.chain import Hook
from edgeproxy.scripting.edge import Edge
from edgeproxy.scripting.errors import FAILED, KILLED, ChangeError
from edgeproxy.scripting.messages import Stream, flow_of
from edgeproxy.scripting.snapshots import Snapshot, check_types, restore, snapshot

if TYPE_CHECKING:
    from edgeproxy.proxy.scripted import ScriptedPipeline
    from edgeproxy.scripting.host import ScriptHost

type Note = tuple[Snapshot, dict[str, Any], dict[str, Any]]
"""A flow, its metadata, and what scripts have decided, at one time."""

AHEAD_BYTES = 256 * 1024
"""How much of a message may wait for a hook before its sender is held up."""


class Phase(Enum):
    """Where a request is among its scripts."""

    REQUEST_HEAD = "request head"
    REQUEST_BODY = "request body"
    REQUEST = "request"
    FORWARDED = "forwarded"
    RESPONSE_HEAD = "response head"
    RESPONSE_BODY = "response body"
    STREAMING = "streaming"
    RESPONSE = "response"
    DELIVERED = "delivered"
    ENDING = "ending"
    FAILED = "failed"


class FlowScope:
    """One request's."""

    def __init__(self, host: "ScriptHost", pipeline: "ScriptedPipeline", exchange: Exchange) -> None:
        """Make the flow of a request that some script wants to see."""
        self.pipeline = pipeline
        self.exchange = exchange
        self.client = exchange.client
        self._sent = exchange.names
        self.phase = Phase.REQUEST_HEAD
        self.status = 0
        self.bytes_out = 0
        self.failed = False
        self.trace_id = exchange.trace.trace_id
        self.flow, self.came = flow_of(exchange, host.client_of(exchange.client))
        self.edge = Edge.of(exchange.trace, exchange.client.address, host.node)
        self.flow.metadata["edge"] = self.edge
        self.opened = spans.Opened(exchange.trace)
        self.context = contextvars.copy_context()
        self.context.run(spans.enter, self.opened)
        self.body_bytes = host.body_bytes
        self.is_strict = host.is_strict
        self.chain = host.chain
        self.chain.begin()
        self._calls = host.calls
        self._decisions = self.chain.decisions(exchange)
        self._seen_by: dict[str, None] = {}
        self.dropped: set[asyncio.Task[None]] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    # --- hooks

    def call(self, name: str, then: Callable[[], None]) -> None:
        """Call the hooks of that name, then go on; at once where none of them waits for anything."""
        hooks = self.chain.hooks.get(name)
        if not hooks:
            self._guarded(then)
            return
        task = self._calls.all(hooks, (self.flow,), self, lambda: self._called(then))
        if task is not None:
            self._tasks.add(task)
            self.pipeline.stage(self.exchange, Stage.SCRIPT)

    def _called(self, then: Callable[[], None]) -> None:
        if self.is_over:
            return
        self._tasks = {task for task in self._tasks if not task.done()}
        if self.failed:
            self.give_up(FAILED)
        elif self.flow.error is not None and self.flow.error.msg == flows.Error.KILLED_MESSAGE:
            self.give_up(KILLED, without_answer=True)
        else:
            self._guarded(then)

    def _guarded(self, then: Callable[[], None]) -> None:
        """An error of the edge's own must not leave a client waiting."""
        try:
            then()
        except Exception as error:  # noqa: BLE001  as said
            structlog.get_logger().exception("script_run_failed", trace_id=self.trace_id, error=str(error))
            if not self.is_over:
                self.give_up(FAILED)

    def drop(self) -> None:
        """Wait for no hook that is at work."""
        tasks, self._tasks = self._tasks, set()
        self.dropped |= tasks
        for task in tasks:
            task.cancel()

    @property
    def is_waiting(self) -> bool:
        """Whether a hook is at work."""
        return bool(self._tasks)

    @property
    def is_over(self) -> bool:
        """Whether there is nothing more to do for it."""
        return self.phase in (Phase.DELIVERED, Phase.ENDING, Phase.FAILED)

    def has_hook(self, *names: str) -> bool:
        """Whether a hook of one of these names may be called for this request."""
        hooks = self.chain.hooks
        return any(self._decisions[hook.selector] is not False for name in names for hook in hooks.get(name, ()))

    def selects(self, hook: Hook) -> bool:
        """Whether the hook's filter is met now."""
        decided = self._decisions[hook.selector]
        if decided is None:
            try:
                decided = self.chain.selectors[hook.selector].matches(self.flow)
            except Exception as error:  # noqa: BLE001  what is asked may be an object of a script's
                self.failed = self._calls.fault(hook.script, hook.name, self.trace_id, error)
        if decided:
            self._seen_by[hook.script] = None
        return bool(decided)

    def check(self) -> None:
        """Raise ValueError where the flow is none any more, or a script's settings would have no effect."""
        check_types(self.flow)
        found = self.flow.metadata.get("edge")
        if found is self.edge:
            return
        if not isinstance(found, Edge):
            raise ChangeError('flow.metadata["edge"] was taken away or replaced; set its keys')
        self.edge.tell(**found.saved())  # a copy is there after flow.revert()
        self.flow.metadata["edge"] = self.edge

    def note(self) -> Note:
        """The flow as it is, and what scripts have set beside it."""
        return snapshot(self.flow), dict(self.flow.metadata), self.edge.saved()

    def undo(self, noted: Note) -> None:
        """The flow as it was."""
        was, metadata, saved = noted
        restore(self.flow, was)
        self.flow.metadata = metadata
        self.edge.tell(**saved)

    def resumed(self) -> Awaitable[None] | None:
        """Wait where a script has stopped the flow (`flow.intercept`)."""
        return self.flow.wait_for_resume() if self.flow.intercepted else None

    def through(self, function: Stream, data: bytes) -> Iterable[bytes]:
        """What a script's function makes of a piece of a body that streams; b"" is the body's end."""
        if not callable(function):
            return [data] if data else []
        try:
            made = self.context.copy().run(function, data)
            pieces = _bytes_of(made)
        except BaseException as error:  # noqa: BLE001  whatever a script does, the request has an end
            self.fault("stream", error)
            return [data] if data else []
        return [piece for piece in pieces if piece]

    def fault(self, hook: str, error: BaseException) -> None:
        """A script made something that can't be used."""
        self.failed = self._calls.fault(", ".join(self._seen_by) or "-", hook, self.trace_id, error)

    # --- ends

    def give_up(self, error: ProxyError, *, without_answer: bool = False) -> None:
        """Refuse the request, or break off where the client has some of its response, or is to get no answer.

        Not at once: hooks are called from within the pipeline, in the middle of what it does for all who wait for the
        same response, and this takes the request out of it.
        """
        if self.is_over:
            return
        self.phase = Phase.ENDING
        asyncio.get_running_loop().call_soon(self._end_with, error, without_answer)

    def _end_with(self, error: ProxyError, without_answer: bool) -> None:
        if self.phase is not Phase.ENDING:
            return  # its client was faster
        self.pipeline.stage(self.exchange, Stage.SCRIPT)
        if self.status or without_answer:
            self.pipeline.broken(self.exchange, error)
        else:
            self.pipeline.refuse(self.exchange, error)

    def fail(self, error: ProxyError) -> None:
        """Nothing more comes of it; the scripts are told (`error`), and can't change it."""
        if self.phase in (Phase.DELIVERED, Phase.FAILED):
            return
        self.phase = Phase.FAILED
        self.drop()
        if self.flow.error is None:
            self.flow.error = flows.Error(error.message)
        self.flow.live = False
        hooks = self.chain.hooks.get("error")
        if hooks:
            self._calls.all(hooks, (self.flow,), self, _nothing)

    def close(self) -> ScriptPart:
        """It is over: what the record is to have."""
        self.exchange.method = self.came.method  # what the client is still sent is framed for what it asked
        self.opened.is_closed = True
        self.flow.live = False
        self.chain.end()
        key = self.exchange.key
        part: dict[str, Any] = {
            "names": list(self._seen_by),
            "rewritten": None if key == self.came.key else key.decode("utf-8", "backslashreplace"),
            "log": self.edge.logged(),
            "spans": self.opened.ended,
        }
        return ScriptPart(self._sent, msgspec.json.encode(part).decode())


def _bytes_of(made: object) -> list[bytes]:
    """What a stream's function returned; TypeError where that is no bytes."""
    pieces = [made] if isinstance(made, bytes) else list(made) if isinstance(made, Iterable) else [None]
    found = [piece for piece in pieces if isinstance(piece, bytes)]
    if len(found) != len(pieces):
        raise TypeError("the function of a stream returned something else than bytes, or an iterable of bytes")
    return found


def _nothing() -> None:
    """What follows on hooks that nothing depends on."""
