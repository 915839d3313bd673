"""What a hook has changed is undone; what came meanwhile stays."""

from typing import Any

import pytest
from mitmproxy import flow as flows
from mitmproxy import http

from edgeproxy.scripting.messages import client_of, flow_of, wanted
from edgeproxy.scripting.snapshots import restore, snapshot
from tests.proxy.builders import an_exchange
from tests.scripting.builders import a_flow

CHUNKED = (b"Transfer-Encoding", b"chunked")


@pytest.mark.parametrize(
    "change",
    [
        lambda flow: flow.request.headers.update({"A": "2"}),
        lambda flow: setattr(flow.request, "path", "/b"),
        lambda flow: setattr(flow.request, "url", "https://other.test/"),
        lambda flow: setattr(flow.request, "content", b"other"),
        lambda flow: setattr(flow.request, "trailers", http.Headers(a="b")),
        lambda flow: flow.request.trailers.update({"a": "2"}),
        lambda flow: setattr(flow.request, "stream", True),
        lambda flow: setattr(flow, "request", http.Request.make("GET", "http://other.test/")),
        lambda flow: setattr(flow, "request", None),
        lambda flow: setattr(flow.request, "data", None),
        lambda flow: setattr(flow.request, "headers", "text"),
        lambda flow: flow.response.headers.update({"A": "2"}),
        lambda flow: setattr(flow.response, "status_code", 404),
        lambda flow: setattr(flow.response, "content", b"other"),
        lambda flow: flow.response.trailers.update({"a": "2"}),
        lambda flow: setattr(flow.response, "stream", lambda data: data),
        lambda flow: setattr(flow, "response", http.Response.make(404)),
        lambda flow: setattr(flow, "response", None),
        lambda flow: setattr(flow.response, "data", "text"),
        lambda flow: flow.kill(),
        lambda flow: flow.intercept(),
        lambda flow: setattr(flow, "error", flows.Error("x")),
        lambda flow: setattr(flow, "marked", "x"),
        lambda flow: setattr(flow, "comment", "x"),
    ],
)
def test_all_that_a_hook_changes_is_undone(change: Any) -> None:
    flow, came = a_flow((b"A", b"1"), CHUNKED, body=b"body")
    flow.request.trailers = http.Headers(a="1")
    flow.response = http.Response.make(200, b"made", {"A": "1"})
    flow.response.trailers = http.Headers(a="1")
    flow.metadata["list"] = [1]
    request, response, before = flow.request, flow.response, flow.get_state()
    noted = snapshot(flow)
    change(flow)
    restore(flow, noted)
    assert flow.get_state() == before
    assert (flow.request, flow.response) == (request, response)
    assert (flow.request.stream, flow.response.stream) == (False, False)
    assert (flow.live, flow.intercepted, flow.error) == (True, False, None)
    assert wanted(flow, came, False).trailers == [(b"a", b"1")]


def test_what_came_while_a_hook_was_at_work_stays() -> None:
    exchange = an_exchange()
    flow, _ = flow_of(exchange, client_of(None, None, 0.0))
    noted = snapshot(flow)
    flow.client_conn.timestamp_end = 5.0
    restore(flow, noted)
    assert flow.client_conn.timestamp_end == 5.0
