"""Reads and sets cookies by mitmproxy's views of them."""

from mitmproxy.net.http.cookies import CookieAttrs


def request(flow):
    if "session" in flow.request.cookies:
        flow.request.headers["X-Session"] = flow.request.cookies["session"]
    flow.request.cookies["added"] = "here"


def response(flow):
    flow.response.cookies["seen"] = ("1", CookieAttrs([("Path", "/"), ("HttpOnly", None)]))
