"""Changes the query: adds, replaces, removes."""


def request(flow):
    flow.request.query["added"] = "a b"
    if "old" in flow.request.query:
        flow.request.query["old"] = "new"
    flow.request.query.pop("secret", None)
