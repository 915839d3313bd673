"""A scripted request's way from its head to where it is forwarded."""

import time

from mitmproxy import http

from edgeproxy.scripting.edge import Decisions
from edgeproxy.scripting.errors import FAILED
from edgeproxy.scripting.messages import Stream, Wanted, wanted
from edgeproxy.scripting.scope import AHEAD_BYTES, FlowScope, Note, Phase

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class RequestSteps(FlowScope):
    """REQUEST_HEAD to FORWARDED."""

    _streams: Stream = False
    """How the body goes by; it is too late to set that anew once the head is sent, which says what comes."""
    _is_held = False
    _kept_bytes = 0
    _whole_body: bytes | None = None
    """As it came, where it is held."""

    _as_it_came: Note | None = None
    """Before the first hook was called."""

    def begin(self) -> None:
        """The request's head is there."""
        self._kept: list[bytes] = []
        if self.is_strict and self.chain.lacks_one_for(self.exchange):
            self.give_up(FAILED)
        else:
            self.call("requestheaders", self._head_seen)

    def note(self) -> Note:
        """The flow as it is, and what scripts have set beside it."""
        noted = super().note()
        if self._as_it_came is None:
            self._as_it_came = noted
        return noted

    def own_response(self) -> None:
        """A script has set the response."""
        raise NotImplementedError

    # --- the body

    def request_body(self, data: bytes) -> None:
        """A piece of the request's body came."""
        if self.is_over:
            return
        if self._streams:
            for piece in self.through(self._streams, data):
                self.pipeline.pass_body(self.exchange, piece)
            self._give_up_if_failed()
            return
        if self.phase not in (Phase.REQUEST_HEAD, Phase.REQUEST_BODY):
            return  # it is answered already
        self._kept.append(data)
        self._kept_bytes += len(data)
        if self.phase is Phase.REQUEST_BODY and self._kept_bytes > self.body_bytes:
            self._stream()
        elif self.phase is Phase.REQUEST_HEAD and self._kept_bytes > AHEAD_BYTES:
            self._is_held = True
            self.client.pause_body()

    def request_complete(self) -> None:
        """The request is whole."""
        if self.is_over:
            return
        if self._streams:
            for piece in self.through(self._streams, b""):
                self.pipeline.pass_body(self.exchange, piece)
            self.pipeline.pass_complete(self.exchange)
            self._give_up_if_failed()
            self._has_streamed()
        elif self.phase is Phase.REQUEST_BODY:
            self._whole()

    def _give_up_if_failed(self) -> None:
        if self.failed and not self.is_over:
            self.give_up(FAILED)

    # --- the head

    def _head_seen(self) -> None:
        """`requestheaders` is through."""
        exchange = self.exchange
        self._kept[:0] = exchange.held
        self._kept_bytes = sum(map(len, self._kept))
        exchange.held = []
        if not exchange.has_body or (self.flow.response is not None and exchange.body_complete):
            self._whole()
        elif self.flow.response is not None:
            self.own_response()
        elif self.flow.request.stream or self._is_not_held():
            self._stream()
        else:
            self.phase = Phase.REQUEST_BODY
            if exchange.body_complete:
                self._whole()
                return
            if exchange.expects_continue:
                self.client.interim(_CONTINUE)  # the origin is not asked before the body is here
            if self._is_held:
                self.client.resume_body()

    def _is_not_held(self) -> bool:
        """Whether the body goes by without a script having asked for that: no hook is for it, or it is too long."""
        stated = int(self.came.names.get(b"content-length", 0))
        return not self.has_hook("request", "response") or max(stated, self._kept_bytes) > self.body_bytes

    def _stream(self) -> None:
        """Forward it before its body is here: that goes by, and `request` is called behind it."""
        exchange = self.exchange
        request = self.flow.request
        if not request.stream:
            request.stream = True
        self._streams = request.stream
        held = [piece for data in self._kept for piece in self.through(self._streams, data)]
        if exchange.body_complete:
            held += self.through(self._streams, b"")
        self._kept = []
        if self.failed:
            self.give_up(FAILED)
            return
        self._forward(held)
        if self._is_held and not self.is_over:
            self.client.resume_body()
        if exchange.body_complete:
            self._has_streamed()

    def _has_streamed(self) -> None:
        if not self.is_over:
            self.flow.request.timestamp_end = time.time()
            self.call("request", lambda: None)

    def _whole(self) -> None:
        request = self.flow.request
        if self.exchange.has_body:
            request.data.content = self._whole_body = b"".join(self._kept)
            self._kept = []
        if self.exchange.trailers:
            request.trailers = http.Headers(self.exchange.trailers)
        request.timestamp_end = time.time()
        self.phase = Phase.REQUEST
        self.call("request", self._request_seen)

    def _request_seen(self) -> None:
        if self.flow.response is not None:
            self.own_response()
        else:
            self._forward(None)

    # --- on its way

    def _forward(self, held: list[bytes] | None) -> None:
        """Send on what scripts have made of it; `held` is what there is of a body that streams."""
        try:
            decisions = self.edge.decide()
            asked = wanted(self.flow, self.came, self._streams)
        except (TypeError, ValueError) as error:
            self.fault("request", error)
            if self.failed:
                self.give_up(FAILED)
                return
            self._undo_all()
            decisions = Decisions()
            asked = wanted(self.flow, self.came, self._streams)
        self._take(asked)
        if held is not None:
            self.exchange.held = held
        self.phase = Phase.FORWARDED
        plan = self.pipeline.plan_of(self.exchange, self.came.key, asked.server, decisions.target)
        self.pipeline.forward(self.exchange, plan)

    def _undo_all(self) -> None:
        if self._as_it_came is not None:
            self.undo(self._as_it_came)
        if self._whole_body is not None:
            self.flow.request.data.content = self._whole_body
        self.flow.request.stream = self._streams

    def _take(self, asked: Wanted) -> None:
        exchange = self.exchange
        exchange.method = asked.method
        exchange.target = asked.target
        exchange.host = asked.host
        exchange.key = b"http://" + asked.host + asked.target
        exchange.lines = asked.lines
        exchange.names = asked.names
        if not self._streams:
            exchange.trailers = asked.trailers
        exchange.has_body = asked.has_body
        exchange.held = asked.held
