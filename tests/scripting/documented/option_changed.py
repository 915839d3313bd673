"""Changes an option while it runs; configure hears of it, and of nothing else."""

from mitmproxy import ctx


class Level:
    def __init__(self):
        self.heard = []

    def load(self, loader):
        loader.add_option("water_level", int, 0, "How high it is.")
        loader.add_option("water_colour", str, "blue", "What it looks like.")

    def configure(self, updated):
        self.heard.append(sorted(name for name in updated if name.startswith("water_")))

    def request(self, flow):
        if "level" in flow.request.query:
            ctx.options.water_level = int(flow.request.query["level"])

    def response(self, flow):
        flow.response.headers["X-Level"] = f"{ctx.options.water_level} {self.heard[-1]}"


addons = [Level()]
