"""The servers under measurement and the origin behind them, each a context manager."""

from bench.servers.base import Server, Site
from bench.servers.edgeproxy import Compiled, Edgeproxy
from bench.servers.mitmproxy import Mitmproxy
from bench.servers.nginx_lua import NginxLua
from bench.servers.origin import Origin
from bench.servers.redis import (
    CompiledRedis,
    EdgeproxyRedis,
    EdgeproxyRedisFunction,
    EdgeproxyRedisUntagged,
    NginxRedis,
    RedisServer,
)
from bench.servers.varnish import Varnish

SERVERS: dict[str, type[Server]] = {
    kind.name: kind
    for kind in (
        Edgeproxy,
        Compiled,
        NginxLua,
        Varnish,
        Mitmproxy,
        EdgeproxyRedis,
        CompiledRedis,
        EdgeproxyRedisUntagged,
        EdgeproxyRedisFunction,
        NginxRedis,
    )
}

__all__ = ["SERVERS", "Compiled", "Edgeproxy", "NginxLua", "Origin", "RedisServer", "Server", "Site"]
