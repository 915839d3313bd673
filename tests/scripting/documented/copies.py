"""Keeps the request as it came beside what becomes of it, by a copy of the flow."""


def request(flow):
    flow.metadata["before"] = flow.copy()
    flow.request.path = "/changed"
    flow.request.headers["X-Changed"] = "yes"


def response(flow):
    before = flow.metadata["before"]
    assert before.id != flow.id
    assert "X-Changed" not in before.request.headers
    flow.response.headers["X-Before"] = before.request.path
    flow.response.headers["X-After"] = flow.request.path
