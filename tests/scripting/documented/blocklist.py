"""Blocks by path and by the client's address, without reading the body."""

import re

from mitmproxy import http

BLOCKED = re.compile(r"^/(admin|internal)(/|$)")


def requestheaders(flow):
    if BLOCKED.match(flow.request.path) and flow.client_conn.peername[0] == "127.0.0.1":
        flow.response = http.Response.make(404, b"nothing here\n")
