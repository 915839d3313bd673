"""Stock mitmproxy: mitmdump as a reverse proxy with the addon of conf/mitmproxy_addon.py, what it can't use switched
off.
"""

import os

from bench import machine
from bench.process import find_tool
from bench.servers.base import CONF, Server, Site

OPTIONS = {
    "connection_strategy": "lazy",  # no origin connection for a hit
    "flow_detail": "0",
    "onboarding": "false",
    "store_streamed_bodies": "false",
    "termlog_verbosity": "error",
}


class Mitmproxy(Server):
    """One process."""

    name = "mitmproxy"
    title = "mitmproxy"
    cache_header = "X-Cache"

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self._mitmdump = find_tool("mitmdump", "pip install mitmproxy")

    def launch(self) -> None:
        options = [word for name, value in OPTIONS.items() for word in ("--set", f"{name}={value}")]
        origin = f"reverse:http://127.0.0.1:{self.site.origin_port}"
        self.start(
            *(self._mitmdump, "--mode", origin, "--listen-host", "127.0.0.1", "--listen-port", str(self.port)),
            *("--set", f"confdir={self.folder}", "-s", str(CONF / "mitmproxy_addon.py"), *options),
            environ=os.environ | {"BENCH_ACCESS_LOG": str(self.access_log)},
        )

    def worker_pid(self) -> int:
        return self._programs[0].pid

    def version(self) -> str:
        return machine.first_output_line(self._mitmdump, "--version").replace("Mitmproxy: ", "mitmproxy ")
