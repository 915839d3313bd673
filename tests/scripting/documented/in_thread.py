"""Waits in a thread of its own, so that nobody else does."""

import time

from mitmproxy.script import concurrent


@concurrent
def request(flow):
    if flow.request.path == "/slow":
        time.sleep(1.0)
    flow.request.headers["X-Thread"] = "yes"
