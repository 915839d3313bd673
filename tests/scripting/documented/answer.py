"""Answers by itself; no server is asked."""

from mitmproxy import http


def request(flow):
    if flow.request.path == "/answered":
        flow.response = http.Response.make(418, b"made here", {"Content-Type": "text/tea"})
