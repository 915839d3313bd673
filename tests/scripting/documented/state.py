"""Carries values from hook to hook in flow.metadata, and what is known of a flow besides."""


def request(flow):
    flow.metadata["asked"] = flow.request.timestamp_start
    flow.comment = "a comment"
    flow.marked = ":grapes:"


def response(flow):
    took = flow.response.timestamp_start - flow.metadata["asked"]
    known = [
        *(flow.type, flow.live, flow.killable, flow.modified(), flow.is_replay, flow.comment, flow.marked),
        *(flow.client_conn.peername[0], flow.request.is_http11, flow.request.scheme, took >= 0, len(flow.id)),
    ]
    flow.response.headers["X-Known"] = repr(known)
