"""Adds a header to each response: a hook at module level is all that a script needs."""


def response(flow):
    flow.response.headers["X-Greeting"] = "hello"
