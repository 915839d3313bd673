"""What a flow was before a hook, so that the hook can be undone; and whether it still is one that mitmproxy could have
made. No I/O.
"""

import operator
from types import UnionType
from typing import NamedTuple

from mitmproxy import http

from edgeproxy.scripting.errors import ChangeError
from edgeproxy.scripting.messages import Stream


class _Kept(NamedTuple):
    """A message before a hook."""

    message: http.Message
    data: http.MessageData
    values: dict[str, object]
    fields: tuple[tuple[bytes, bytes], ...]
    trailers: tuple[tuple[bytes, bytes], ...]
    stream: Stream


class Snapshot(NamedTuple):
    """What a flow was before a hook."""

    request: _Kept
    response: _Kept | None
    values: tuple[object, ...]


_KEPT = ("error", "live", "intercepted", "marked", "comment")
"""What scripts may change of a flow beside its messages."""
_kept_of = operator.attrgetter(*_KEPT)


def snapshot(flow: http.HTTPFlow) -> Snapshot:
    """Note what a hook may change."""
    response = flow.response
    return Snapshot(
        request=_kept(flow.request),
        response=None if response is None else _kept(response),
        values=_kept_of(flow),
    )


def _kept(message: http.Message) -> _Kept:
    data = message.data
    trailers = data.trailers
    return _Kept(
        message,
        data,
        dict(vars(data)),
        data.headers.fields,
        () if trailers is None else trailers.fields,
        message.stream,
    )


def restore(flow: http.HTTPFlow, was: Snapshot) -> None:
    """Undo what a hook has changed since."""
    _put_back(was.request)
    flow.request = was.request.message  # type: ignore[assignment]
    if was.response is not None:
        _put_back(was.response)
    flow.response = None if was.response is None else was.response.message  # type: ignore[assignment]
    vars(flow).update(zip(_KEPT, was.values, strict=True))


def _put_back(was: _Kept) -> None:
    message, data = was.message, was.data
    message.data = data
    vars(data).update(was.values)
    data.headers.fields = was.fields
    if data.trailers is not None:
        data.trailers.fields = was.trailers
    message.stream = was.stream


def check_types(flow: http.HTTPFlow) -> None:
    """Raise ChangeError where a script has put something into a flow that is not of mitmproxy's types."""
    response = flow.response
    if (
        type(flow.metadata) is dict
        and _is_usual(flow.request, http.Request, http.RequestData)
        and (response is None or _is_usual(response, http.Response, http.ResponseData))
    ):
        return
    _must_be("flow.request", flow.request, http.Request)
    _must_be("flow.response", flow.response, http.Response | None)
    _must_be("flow.metadata", flow.metadata, dict)
    for message in (flow.request, flow.response):
        if message is not None:
            _must_be("a message's data", message.data, http.MessageData)
            _must_be("what a message has for headers", message.data.headers, http.Headers)
            _must_be("what a message has for trailers", message.data.trailers, http.Headers | None)


def _is_usual(message: object, kind: type[http.Message], data: type[http.MessageData]) -> bool:
    """Whether a message is what most are, of the very classes that mitmproxy has for it; that is told fast."""
    if type(message) is not kind or type(message.data) is not data:
        return False
    return type(message.data.headers) is http.Headers and message.data.trailers is None


def _must_be(what: str, found: object, kind: type | UnionType) -> None:
    if not isinstance(found, kind):
        raise ChangeError(f"{what} is {found!r:.100}, nothing of mitmproxy's")
