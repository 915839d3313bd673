"""Options of a script's own: each type that there is, and values that are checked."""

from collections.abc import Sequence

from mitmproxy import ctx, exceptions


class Stamp:
    def load(self, loader):
        loader.add_option("stamp_text", str, "none", "What is stamped.")
        loader.add_option("stamp_times", int, 1, "How often, 5 times at most.")
        loader.add_option("stamp_loudly", bool, False, "Whether in capitals.")
        loader.add_option("stamp_also", Sequence[str], [], "What else.")
        loader.add_option("stamp_ink", str | None, None, "Its colour.")
        loader.add_option("stamp_where", str, "response", "On what.", choices=["request", "response"])

    def configure(self, updated):
        if "stamp_times" in updated and ctx.options.stamp_times > 5:
            raise exceptions.OptionsError("stamp_times: 5 at most")

    def stamp(self, message):
        text = " ".join([ctx.options.stamp_text] * ctx.options.stamp_times + list(ctx.options.stamp_also))
        message.headers["X-Stamp"] = text.upper() if ctx.options.stamp_loudly else text
        message.headers["X-Ink"] = repr(ctx.options.stamp_ink)

    def request(self, flow):
        if ctx.options.stamp_where == "request":
            self.stamp(flow.request)

    def response(self, flow):
        if ctx.options.stamp_where == "response":
            self.stamp(flow.response)


addons = [Stamp()]
