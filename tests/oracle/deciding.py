"""An operator's script, for both engines: does with a request, and its response, what the request's X-Script says."""

from collections.abc import Callable, Mapping

from mitmproxy import http

SCRIPT = "X-Script"
"""The request field that says what is to be done."""
Act = Callable[[http.HTTPFlow], None]


def _edge(flow: http.HTTPFlow) -> dict[str, object]:
    return flow.metadata["edge"]  # type: ignore[no-any-return]


def _key(flow: http.HTTPFlow) -> None:
    _edge(flow)["key"] = {"kind": flow.request.headers.get("Accept-Language", "")[:2]}


def _ttl(flow: http.HTTPFlow) -> None:
    _edge(flow)["ttl"] = 5


def _status_ttl(flow: http.HTTPFlow) -> None:
    _edge(flow)["ttl"] = {200: 7, 404: 3, 500: 1}


def _bypass(flow: http.HTTPFlow) -> None:
    _edge(flow)["bypass"] = True


def _tags(flow: http.HTTPFlow) -> None:
    _edge(flow)["tags"] = ["of-the-script"]


def _log(flow: http.HTTPFlow) -> None:
    _edge(flow)["log"] = {"method": flow.request.method, "url": flow.request.pretty_url}


def _path(flow: http.HTTPFlow) -> None:
    flow.request.path = flow.request.path.partition("?")[0] + "?by=script"


def _query(flow: http.HTTPFlow) -> None:
    flow.request.query["added"] = "1"


def _host(flow: http.HTTPFlow) -> None:
    flow.request.headers["Host"] = "renamed.test"


def _add(flow: http.HTTPFlow) -> None:
    flow.request.headers["X-Added"] = "by a script"


def _remove(flow: http.HTTPFlow) -> None:
    flow.request.headers.pop("Accept-Language", None)
    flow.request.headers.pop("Cache-Control", None)


def _refuse(flow: http.HTTPFlow) -> None:
    flow.response = http.Response.make(403, b"refused\n", {"X-Why": "script"})


def _fail(flow: http.HTTPFlow) -> None:
    raise RuntimeError("as it was told to")


def _slip(flow: http.HTTPFlow) -> None:
    _edge(flow)["no-such-key"] = 1


def _method(flow: http.HTTPFlow) -> None:
    flow.request.method = "GET"


def _head(flow: http.HTTPFlow) -> None:
    if flow.request.method == "GET":
        flow.request.method = "HEAD"


def _upload(flow: http.HTTPFlow) -> None:
    if flow.request.raw_content:
        flow.request.content = b"made by a script"


def _answer(flow: http.HTTPFlow) -> None:
    flow.response = http.Response.make(200, b"answered\n", {"Cache-Control": "max-age=60"})


def _told(flow: http.HTTPFlow) -> None:
    edge = _edge(flow)
    names = (
        "cache",
        "age",
        "ttl_left",
        "origin",
        "trace_id",
        "span_id",
        "parent_id",
        "request_id",
        "traceparent",
        "sampled",
    )
    edge["log"] = {name: edge[name] for name in (*names, "tracestate", "client", "node")}


def _decorate(flow: http.HTTPFlow) -> None:
    assert flow.response is not None
    flow.response.headers["X-Decorated"] = f"{flow.response.status_code}"
    flow.response.headers.pop("X-Cache", None)


def _restate(flow: http.HTTPFlow) -> None:
    assert flow.response is not None
    if flow.response.status_code == 200:
        flow.response.status_code = 299
        flow.response.reason = "Restated"


def _too_late(flow: http.HTTPFlow) -> None:
    _edge(flow)["ttl"] = 60


def _rewrite(flow: http.HTTPFlow) -> None:
    assert flow.response is not None
    if flow.request.method != "HEAD" and flow.response.status_code == 200:
        flow.response.content = b"rewritten: " + (flow.response.content or b"")[:50]


def _replace(flow: http.HTTPFlow) -> None:
    if flow.request.method != "HEAD":
        flow.response = http.Response.make(418, b"replaced\n")


REQUESTHEADERS: Mapping[str, Act] = {
    "key": _key,
    "ttl": _ttl,
    "status-ttl": _status_ttl,
    "bypass": _bypass,
    "tags": _tags,
    "log": _log,
    "path": _path,
    "query": _query,
    "host": _host,
    "add": _add,
    "remove": _remove,
    "refuse": _refuse,
    "fail": _fail,
    "slip": _slip,
}
REQUEST: Mapping[str, Act] = {"method": _method, "head": _head, "upload": _upload, "answer": _answer, "late-ttl": _ttl}
RESPONSEHEADERS: Mapping[str, Act] = {
    "told": _told,
    "decorate": _decorate,
    "restate": _restate,
    "too-late": _too_late,
}
RESPONSE: Mapping[str, Act] = {"rewrite": _rewrite, "replace": _replace}
FAILING = ("fail", "slip", "too-late")
"""What scripts should not do. Each stands alone: what else its hook did the node undoes, and mitmproxy does not."""
ACTIONS = tuple(action for action in (*REQUESTHEADERS, *REQUEST, *RESPONSEHEADERS, *RESPONSE) if action not in FAILING)


def _act(flow: http.HTTPFlow, acts: Mapping[str, Act]) -> None:
    for action in flow.request.headers.get(SCRIPT, "").split():
        if action in acts:
            acts[action](flow)


def requestheaders(flow: http.HTTPFlow) -> None:
    _act(flow, REQUESTHEADERS)


async def request(flow: http.HTTPFlow) -> None:
    _act(flow, REQUEST)


def responseheaders(flow: http.HTTPFlow) -> None:
    _act(flow, RESPONSEHEADERS)


def response(flow: http.HTTPFlow) -> None:
    _act(flow, RESPONSE)
