"""Exchanges, attempts and configurations for tests of the proxy's pure parts: one builder for all of them."""

from types import SimpleNamespace
from typing import Any, cast

from edgeproxy.cache.key import KeyRules
from edgeproxy.cache.rules import Rules
from edgeproxy.config import Config, Origin, Route
from edgeproxy.proxy.exchange import Exchange
from edgeproxy.proxy.fields import FieldLines, fold
from edgeproxy.proxy.http1 import ClientConnection
from edgeproxy.proxy.pipeline import Pipeline
from edgeproxy.proxy.plan import Plan
from edgeproxy.proxy.routing import Target
from edgeproxy.proxy.tick import Tick
from edgeproxy.tracing import IdSource, SamplerKind, Tracer

NOW_NS = 1_750_000_000_123_456_789
HOST = (b"Host", b"edge.test")


def a_client(address: str = "192.0.2.7") -> ClientConnection:
    """A client's connection that nothing is ever written to."""
    client = ClientConnection(cast("Pipeline", SimpleNamespace(tick=Tick())))
    client.address = address
    client.trusted = True
    client.address_json = f'"{address}"'
    return client


def an_exchange(
    *lines: tuple[bytes, bytes],
    method: bytes = b"GET",
    target: bytes = b"/",
    minor: int = 1,
    address: str = "192.0.2.7",
    tracing: bool = True,
    host: bytes | None = None,
) -> Exchange:
    """A request whose head has been taken in, as the pipeline gets it; a Host is added where there is none."""
    fields: FieldLines = list(lines)
    if not any(name.lower() == b"host" for name, _ in fields):
        fields.insert(0, HOST)
    exchange = Exchange(a_client(address), method, target, minor, fields, fold(fields), 0.0)
    exchange.host = exchange.names[b"host"].lower() if host is None else host
    exchange.keep_alive = True
    exchange.has_body = bool({b"content-length", b"transfer-encoding"} & exchange.names.keys())
    exchange.now_ns = NOW_NS
    exchange.seq = 1
    exchange.key = b"http://" + exchange.host + target
    tracer = Tracer(IdSource())
    tracer.configure(enabled=tracing, sampler=SamplerKind.ALWAYS_ON, ratio=1.0)
    parents = [value for name, value in fields if name.lower() == b"traceparent"]
    states = [value for name, value in fields if name.lower() == b"tracestate"]
    exchange.trace = tracer.begin(NOW_NS, parents, states, True)
    route = Target(match=b"/*", origin="app", cache=True, rules=Rules(max_object_bytes=1 << 20), key=KeyRules())
    exchange.plan = Plan(route, exchange.host, target)
    exchange.cache_key = exchange.plan.url
    return exchange


def a_config(**tables: Any) -> Config:
    """A configuration with one origin, `app`, and a default route."""
    tables.setdefault("origin", [Origin(name="app", urls=["http://127.0.0.1:8000"])])
    tables.setdefault("route", [Route(match="/*")])
    return Config(**tables)
