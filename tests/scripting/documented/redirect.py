"""Sends requests for one host to another server."""

from mitmproxy import ctx


def load(loader):
    loader.add_option("redirect_to_port", int, 0, "The other server's port.")


def request(flow):
    if flow.request.pretty_host == "old.test":
        flow.request.host = "127.0.0.1"
        flow.request.port = ctx.options.redirect_to_port
