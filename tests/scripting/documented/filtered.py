"""Acts on what fits a filter expression, which is an option."""

from mitmproxy import ctx, flowfilter


class Marker:
    def load(self, loader):
        loader.add_option("marked", str, "~all", "Which flows are marked.")

    def configure(self, updated):
        if "marked" in updated:
            self.filter = flowfilter.parse(ctx.options.marked)

    def response(self, flow):
        if flowfilter.match(self.filter, flow):
            flow.response.headers["X-Marked"] = "yes"


addons = [Marker()]
