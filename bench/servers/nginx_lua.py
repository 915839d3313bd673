"""nginx with Lua: what edgeproxy replaces, and the measure of most targets."""

import re
import subprocess
from pathlib import Path
from typing import ClassVar

from bench import machine
from bench.errors import MissingToolError
from bench.process import find_tool
from bench.servers.base import Server, Site

LUA_MODULE = "ngx_http_lua_module.so"


class NginxLua(Server):
    """Master and one worker; conf/nginx.conf with what it includes."""

    name = "nginx"
    title = "nginx + Lua"
    cache_header = "X-Cache"
    template: ClassVar[str] = "nginx.conf"

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self._nginx = find_tool("nginx", "apt-get install nginx")
        built = subprocess.run([self._nginx, "-V"], capture_output=True, text=True, check=True).stderr
        folder = re.search(r"--modules-path=(\S+)", built)
        self._modules = Path(folder[1]) if folder else Path("/usr/lib/nginx/modules")
        if not (self._modules / LUA_MODULE).exists():
            raise MissingToolError(LUA_MODULE, "apt-get install libnginx-mod-http-lua")

    def launch(self) -> None:
        self.configure("edge.conf")
        config = self.configure(self.template, modules=self._modules)
        self.start(self._nginx, "-c", str(config), "-p", str(self.folder))

    def worker_pid(self) -> int:
        return self.descendant("nginx: worker")

    def version(self) -> str:
        return machine.first_output_line(self._nginx, "-v").removeprefix("nginx version: ")
