"""edgeproxy as a whole node: supervisor, one worker and scribe; conf/edgeproxy.toml."""

import os
from pathlib import Path
from typing import ClassVar

from bench import machine
from bench.errors import MissingToolError
from bench.process import find_tool
from bench.servers.base import Server, Site


class Edgeproxy(Server):
    """Started as an operator starts it, with an environment file of its own."""

    name = "edgeproxy"
    title = "edgeproxy"
    cache_header = "Cache-Status"
    template: ClassVar[str] = "edgeproxy.toml"
    tag: ClassVar[str] = ""
    environ: ClassVar[dict[str, str]] = {}

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self._edgeproxy = find_tool("edgeproxy", "make setup")

    def launch(self) -> None:
        runtime = self.site.shared_memory / self.name
        toggle = self.folder / "edgeproxy.env"
        toggle.write_text("EDGEPROXY_TRACING=on\n")
        config = self.configure(self.template, runtime=runtime, tag=self.tag)
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("EDGEPROXY_", "OTEL_"))}
        self.start(
            self._edgeproxy,
            "run",
            "-c",
            str(config),
            environ=environ | self.environ | {"EDGEPROXY_ENV_FILE": str(toggle)},
        )

    def worker_pid(self) -> int:
        return self.descendant("edgeproxy.node.worker")

    def version(self) -> str:
        return machine.first_output_line(self._edgeproxy, "--version")


class Compiled(Edgeproxy):
    """The same node with its data plane compiled by `make fast`."""

    name = "compiled"
    title = "edgeproxy, compiled"
    build = Path(__file__).resolve().parents[2] / "build" / "compiled"
    environ: ClassVar[dict[str, str]] = {"PYTHONPATH": str(build)}

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        if not (self.build / ".stamp").exists():
            raise MissingToolError("build/compiled", "make fast")
