"""The operators' script of the scenario `scripts`: a mitmproxy addon with a hook each way, which both set a header."""

from mitmproxy import http


def request(flow: http.HTTPFlow) -> None:
    """For the origin, if it is asked."""
    flow.request.headers["X-Scripted"] = "request"


def response(flow: http.HTTPFlow) -> None:
    """For the client, hit or not."""
    flow.response.headers["X-Scripted"] = "response"
