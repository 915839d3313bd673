"""Puts an answer in the place of the server's."""

from mitmproxy import http


def response(flow):
    if b"secret" in flow.response.content:
        flow.response = http.Response.make(403, "kept back", {"X-Kept": "back"})
