"""Adds a header to each response: the same as an addon object, which can keep a state."""


class Numbering:
    def __init__(self):
        self.number = 0

    def response(self, flow):
        self.number += 1
        flow.response.headers["X-Number"] = str(self.number)


addons = [Numbering()]
