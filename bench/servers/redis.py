"""The same two with what is cached in Redis: edgeproxy without hot memory, and nginx with a GET in Lua for each hit.

Both use one Redis, a cluster of one node on the load's core, as if it were another host.
"""

import contextlib
from pathlib import Path
from typing import ClassVar, Self

from redis import Redis

from bench.errors import MissingToolError
from bench.process import Program, accepts, find_tool, free_port
from bench.servers.base import Site
from bench.servers.edgeproxy import Compiled, Edgeproxy
from bench.servers.nginx_lua import NginxLua
from bench.transfer import get

LUA_CLIENT = Path("/usr/share/lua/5.1/nginx/redis.lua")
SLOTS = 16384


class RedisServer:
    """The Redis of one run; a context manager."""

    def __init__(self, site: Site, core: int) -> None:
        """Prepare it for the core that the load runs on."""
        self._program_path = find_tool("redis-server", "apt-get install redis-server")
        self._folder = site.work / "redis"
        self._core = core
        self._port = site.redis_port

    def __enter__(self) -> Self:
        self._folder.mkdir()
        options = {
            "port": self._port,
            "cluster-port": free_port(),
            "bind": "127.0.0.1",
            "dir": self._folder,
            "cluster-enabled": "yes",
            "save": "",
            "appendonly": "no",
        }
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        self._program = Program([self._program_path, *words], self._core, self._folder / "output", None)
        try:
            self._make_ready()
        except BaseException:
            self._program.stop()
            raise
        return self

    def _make_ready(self) -> None:
        self._program.wait_ready(lambda: accepts(self._port))
        with contextlib.closing(Redis(port=self._port)) as client:
            client.execute_command("CLUSTER ADDSLOTSRANGE", 0, SLOTS - 1)
            # A server that has just started takes the cluster for down for some two seconds.
            self._program.wait_ready(lambda: client.execute_command("CLUSTER INFO")["cluster_state"] == "ok")

    def __exit__(self, *_: object) -> None:
        self._program.stop()


class EdgeproxyRedis(Edgeproxy):
    """A node with its cache in Redis alone."""

    name = "edgeproxy-redis"
    title = "edgeproxy, from Redis"
    group = "redis"
    template = "edgeproxy-redis.toml"
    tag: ClassVar[str] = "plain"


class CompiledRedis(Compiled, EdgeproxyRedis):
    """The same, compiled."""

    name = "compiled-redis"
    title = "edgeproxy, compiled, from Redis"


class EdgeproxyRedisUntagged(EdgeproxyRedis):
    """The same without the trace on each operation: what tagging costs."""

    name = "edgeproxy-redis-off"
    title = "edgeproxy, from Redis, untagged"
    tag = "off"


class EdgeproxyRedisFunction(EdgeproxyRedis):
    """The same with the trace as a function's argument."""

    name = "edgeproxy-redis-function"
    title = "edgeproxy, from Redis, by a function"
    tag = "function"


class NginxRedis(NginxLua):
    """nginx that asks Redis for each hit."""

    name = "nginx-redis"
    title = "nginx + Lua, from Redis"
    group = "redis"
    template = "nginx-redis.conf"

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        if not LUA_CLIENT.exists():
            raise MissingToolError(str(LUA_CLIENT), "apt-get install lua-nginx-redis")

    def launch(self) -> None:
        with contextlib.closing(Redis(port=self.site.redis_port)) as client:
            for size in ("785", "100k", "1m"):
                path = f"/hit/{size}"
                client.set(f"bench:{path}", get(self.site.origin_port, path).body)
        super().launch()
