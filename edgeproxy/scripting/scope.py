"""What all steps of a scripted request share: its flow, who sees it, how hooks are called for it, and how it ends."""

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Iterable
from enum import Enum
from typing import TYPE_CHECKING, Any

import msgspec
import structlog
from mitmproxy import flow as flows
from mitmproxy import http

from edgeproxy.ledger import Stage
from edgeproxy.proxy.errors import ProxyError
from edgeproxy.proxy.exchange import Exchange
from edgeproxy.proxy.record import ScriptPart
from edgeproxy.scripting import spans
from edgeproxy.scripting.chain import Hook
from edgeproxy.scripting.edge import Edge
from edgeproxy.scripting.errors import FAILED, KILLED
from edgeproxy.scripting.messages import Snapshot, flow_of, restore, snapshot

if TYPE_CHECKING:
    from edgeproxy.proxy.scripted import ScriptedPipeline
    from edgeproxy.scripting.host import ScriptHost

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
        self._task: asyncio.Task[None] | None = None

    # --- hooks

    def call(self, name: str, then: Callable[[], None]) -> None:
        """Call the hooks of that name, then go on; at once where none of them waits for anything."""
        hooks = self.chain.hooks.get(name)
        if not hooks:
            then()
            return
        task = self._calls.all(hooks, (self.flow,), self, lambda: self._called(then))
        if task is not None:
            self._task = task
            self.pipeline.stage(self.exchange, Stage.SCRIPT)

    def _called(self, then: Callable[[], None]) -> None:
        self._task = None
        if self.is_over:
            return
        try:
            if self.failed:
                self.give_up(FAILED)
            elif self.flow.error is not None and self.flow.error.msg == flows.Error.KILLED_MESSAGE:
                self.pipeline.broken(self.exchange, KILLED)
            else:
                then()
        except Exception as error:  # noqa: BLE001  an error of the edge's own must not leave a client waiting
            structlog.get_logger().exception("script_run_failed", trace_id=self.trace_id, error=str(error))
            if not self.is_over:
                self.give_up(FAILED)

    @property
    def is_pending(self) -> bool:
        """Whether a hook is waited for."""
        return self._task is not None

    @property
    def is_over(self) -> bool:
        """Whether there is nothing more to do for it."""
        return self.phase in (Phase.DELIVERED, Phase.FAILED)

    def has_hook(self, *names: str) -> bool:
        """Whether a hook of one of these names may be called for this request."""
        hooks = self.chain.hooks
        return any(self._decisions[hook.selector] is not False for name in names for hook in hooks.get(name, ()))

    def selects(self, hook: Hook) -> bool:
        """Whether the hook's filter is met now."""
        decided = self._decisions[hook.selector]
        if decided is None:
            decided = self.chain.selectors[hook.selector].matches(self.flow)
        if decided:
            self._seen_by[hook.script] = None
        return decided

    def note(self) -> tuple[Snapshot, dict[str, Any], dict[str, Any]]:
        """The flow as it is, and what scripts have set beside it."""
        return snapshot(self.flow), dict(self.flow.metadata), self.edge.saved()

    def undo(self, noted: tuple[Snapshot, dict[str, Any], dict[str, Any]]) -> None:
        """The flow as it was."""
        was, metadata, saved = noted
        restore(self.flow, was)
        self.flow.metadata = metadata
        self.edge.tell(**saved)

    def resumed(self) -> Awaitable[None] | None:
        """Wait where a script has stopped the flow (`flow.intercept`)."""
        return self.flow.wait_for_resume() if self.flow.intercepted else None

    def through(self, message: http.Message, data: bytes) -> Iterable[bytes]:
        """What a script's function makes of a piece of a body that streams; b"" is the body's end."""
        function = message.stream
        if not callable(function):
            return [data] if data else []
        try:
            made = self.context.copy().run(function, data)
            pieces = _bytes_of(made)
        except Exception as error:  # noqa: BLE001  whatever a script does, the request has an end
            self.fault("stream", error)
            return [data] if data else []
        return [piece for piece in pieces if piece]

    def fault(self, hook: str, error: BaseException) -> None:
        """A script made something that can't be used."""
        self.failed = self._calls.fault(", ".join(self._seen_by) or "-", hook, self.trace_id, error)

    # --- ends

    def give_up(self, error: ProxyError) -> None:
        """Refuse the request; break off where the client has some of its response."""
        if self.status:
            self.pipeline.broken(self.exchange, error)
        else:
            self.pipeline.refuse(self.exchange, error)

    def fail(self, error: ProxyError) -> None:
        """Nothing more comes of it; the scripts are told (`error`), and can't change it."""
        if self.is_over:
            return
        self.phase = Phase.FAILED
        if self._task is not None:
            self._task.cancel()
            self._task = None
        if self.flow.error is None:
            self.flow.error = flows.Error(error.message)
        self.flow.live = False
        hooks = self.chain.hooks.get("error")
        if hooks:
            self._calls.all(hooks, (self.flow,), self, _nothing)

    def close(self) -> ScriptPart:
        """It is over: what the record is to have."""
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
