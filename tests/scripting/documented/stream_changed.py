"""Changes bodies as they stream past, piece by piece, both ways."""


def shout(data):
    return data.upper()


class Framed:
    """A callable may keep a state; it is called once more at the end, with nothing."""

    def __init__(self):
        self.began = False

    def __call__(self, data):
        if not data:
            return [b"]"]
        pieces = [data.upper()] if self.began else [b"[", data.upper()]
        self.began = True
        return pieces


def requestheaders(flow):
    if flow.request.method == "POST":
        flow.request.stream = shout


def responseheaders(flow):
    flow.response.stream = Framed()
    flow.response.headers.pop("content-length", None)
    flow.response.headers["transfer-encoding"] = "chunked"
