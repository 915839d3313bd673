"""Reads the fields that follow a body, and sends its own."""

from mitmproxy.http import Headers


def request(flow):
    if flow.request.trailers:
        print("request has", dict(flow.request.trailers))


def response(flow):
    if flow.response.trailers:
        print("response has", dict(flow.response.trailers))
    if flow.request.path == "/injected":
        flow.response.headers["transfer-encoding"] = "chunked"
        flow.response.headers["trailer"] = "x-sum"
        flow.response.trailers = Headers([(b"x-sum", b"42")])
