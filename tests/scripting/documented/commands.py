"""Has commands, with arguments and answers of many types, and calls them."""

from collections.abc import Sequence

from mitmproxy import command, ctx, flow


class Marking:
    @command.command("marking.mark")
    def mark(self, flows: Sequence[flow.Flow], text: str) -> None:
        """Mark flows."""
        for one in flows:
            one.request.headers["X-Mark"] = text

    @command.command("marking.sum")
    def sum(self, *numbers: int) -> int:
        """Add numbers."""
        return sum(numbers)

    def request(self, flow):
        ctx.master.commands.call("marking.mark", [flow], "by command")
        flow.request.headers["X-Sum"] = str(ctx.master.commands.call("marking.sum", 1, 2, 3))


addons = [Marking()]
