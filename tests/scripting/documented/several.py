"""Several addons in one script: each hook goes through them in their order, nested ones after their elder."""


class Named:
    def __init__(self, name, *addons):
        self.name = name
        self.addons = list(addons)

    def request(self, flow):
        flow.request.headers.add("X-Order", self.name)


addons = [Named("first", Named("nested")), Named("last")]
