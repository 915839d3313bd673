"""Writes flows to a file that mitmproxy reads."""

from mitmproxy import ctx, io


class Writer:
    def load(self, loader):
        loader.add_option("flows_file", str, "", "Where they go.")

    def running(self):
        self.file = open(ctx.options.flows_file, "wb")
        self.writer = io.FlowWriter(self.file)

    def response(self, flow):
        self.writer.add(flow)
        self.file.flush()

    def done(self):
        self.file.close()


addons = [Writer()]
