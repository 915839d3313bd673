"""The configuration as types: one Struct a table, and at each key all there is to say about it.

May know: the types that keys have. Must not: read files or the environment. A key's type, unit, default, range and
sentence stand at the key (here, the cache's in `caching`) and nowhere else: what `load` accepts, what an error says,
conf/edgeproxy.toml and docs/configuration.md all come from it.
"""

from typing import Annotated, Literal, Self

import msgspec
from msgspec import Meta, Struct, field

from edgeproxy.config import checks
from edgeproxy.config.addons import Addons
from edgeproxy.config.caching import Cache, RouteCache
from edgeproxy.config.tracing import Tracing
from edgeproxy.config.types import (
    GIB,
    KIB,
    MIB,
    Address,
    Bytes,
    Count,
    CountFrom0,
    LoggableField,
    Name,
    OriginUrl,
    ReadableFile,
    Seconds,
    SecondsFrom0,
    form,
    says,
    unit,
)


class Node(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The node itself and its processes."""

    name: Annotated[
        Name,
        says('What the node calls itself in the access log, in Via and in Cache-Status. "" = the host\'s name.'),
    ] = ""
    workers: Annotated[
        Annotated[int, Meta(ge=1, le=1024)] | Literal["auto"],
        says('How many worker processes answer requests. "auto" = one for each processor that the node may use.'),
    ] = "auto"
    runtime_dir: Annotated[
        str,
        form(checks.is_path, "a directory"),
        says(
            "Where the node keeps its ledgers, control page and lock; best in memory, as /run is. "
            '"" = /run/edgeproxy if that can be written, else $XDG_RUNTIME_DIR/edgeproxy, else /dev/shm/edgeproxy-UID.'
        ),
    ] = ""
    ledger_bytes: Annotated[
        int,
        Meta(ge=64 * KIB, le=GIB, multiple_of=4096),
        unit("bytes"),
        says("How much shared memory each worker has for finished records that the scribe has not yet read."),
    ] = 16 * MIB


class Listen(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where clients connect."""

    http: Annotated[
        Address,
        says("Address and port for HTTP. Port 0 lets the system choose one; `edgeproxy status` shows which."),
    ] = "0.0.0.0:8080"
    backlog: Annotated[
        int,
        Meta(ge=1, le=65535),
        says("How many connections may wait until a worker accepts them; the system's somaxconn may lower it."),
    ] = 4096


class Origin(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A server, or several that are alike, that requests are forwarded to.

    There is at least one; each further one begins with [[origin]] again.
    """

    name: Annotated[
        Name,
        says("What routes and the access log call it. No two origins share a name.", example="app"),
    ]
    urls: Annotated[
        list[OriginUrl],
        Meta(min_length=1),
        says("Where it is. With several, the next is tried when one fails.", example=["http://127.0.0.1:8000"]),
    ]
    connect_timeout: Annotated[
        Seconds, says("How long it may take to connect, looking the name up and TLS included.")
    ] = 5.0
    first_byte_timeout: Annotated[
        Seconds, says("How long the response may take to begin once the request has been sent.")
    ] = 60.0
    read_timeout: Annotated[Seconds, says("How long the response may pause once it has begun.")] = 60.0
    send_timeout: Annotated[
        Seconds, says("How long the origin may take in nothing of a request that is being sent.")
    ] = 60.0
    keepalive: Annotated[
        CountFrom0, says("How many idle connections each worker keeps for the next requests. 0 = none.")
    ] = 64
    keepalive_timeout: Annotated[
        Seconds, says("How long an idle connection is kept; best a little shorter than the origin itself keeps it.")
    ] = 60.0
    max_connections: Annotated[Count, says("How many connections each worker has to this origin at most.")] = 1024
    retries: Annotated[
        int,
        Meta(ge=0, le=16),
        says("How many further attempts a request gets, if it may be repeated and no byte of a response has come."),
    ] = 1
    fail_timeout: Annotated[
        SecondsFrom0, says("How long a url that failed is passed over while there are others. 0 = it is not.")
    ] = 10.0
    host: Annotated[
        str,
        form(checks.is_host_header, '"host" or "host:port"'),
        says('The Host that the origin is sent. "" = the one that the client sent.'),
    ] = ""
    tls_ca_file: Annotated[
        ReadableFile,
        says('Certificates (PEM) of which one must vouch for an https origin. "" = those that the system trusts.'),
    ] = ""


class Route(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which origin a request goes to.

    The first route whose host and path match decides; a request that none matches is answered with 404. With one origin
    and no route at all, everything goes there. Each further route begins with [[route]] again.
    """

    match: Annotated[
        str,
        form(checks.is_path_pattern, 'a path such as "/api/*", percent-encoded as it is in a request'),
        says(
            'The paths it is for. "*" stands for any run of characters; without one it is this very path.', example="/*"
        ),
    ]
    host: Annotated[
        str,
        form(checks.is_host_pattern, '"www.example.com" or "*.example.com", lower case, no port'),
        says('The hosts it is for. "" = any.'),
    ] = ""
    origin: Annotated[
        str,
        says(
            'The origin that requests go to. "" = the only one there is.',
            allowed="the name of an origin",
            example="app",
        ),
    ] = ""
    cache: Annotated[RouteCache, says("What is cached of its responses.")] = RouteCache()


class Log(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The access log, one line a request, and the node's own events."""

    access: Annotated[
        str,
        form(checks.is_path, 'a path, or "-"'),
        says('The file of the access log. "-" = standard output. SIGUSR1 opens it anew.'),
    ] = "-"
    format: Annotated[
        Literal["json", "nginx"],
        says('What a line looks like. "json" has all there is to know; "nginx" is for tools that read such lines.'),
    ] = "json"
    request_headers: Annotated[
        list[LoggableField],
        says(
            "Request headers whose values go into the access log (`headers`) and into spans "
            "(http.request.header.NAME). Values are cut at 1024 bytes. [] = none."
        ),
    ] = field(default_factory=list)
    level: Annotated[
        Literal["debug", "info", "warning", "error"],
        says("How grave one of the node's own events must be to go to standard error."),
    ] = "info"


class Admin(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What operators and monitoring ask: health and metrics."""

    listen: Annotated[
        Address,
        says('Address and port; not for clients to reach. Port 0 lets the system choose one. "" = off.', empty=True),
    ] = "127.0.0.1:9180"


class Limits(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a client may ask for, and how long it may take."""

    header_bytes: Annotated[
        int,
        Meta(ge=1024),
        unit("bytes"),
        says("How long the header fields of a request may be together; longer ones are answered with 431."),
    ] = 32 * KIB
    headers: Annotated[Count, says("How many header fields a request may have; more are answered with 431.")] = 100
    uri_bytes: Annotated[
        int,
        Meta(ge=1),
        unit("bytes"),
        says("How long the target of a request may be; a longer one is answered with 414."),
    ] = 8 * KIB
    body_bytes: Annotated[
        Bytes, says("How long the body of a request may be; a longer one is answered with 413. 0 = no limit.")
    ] = 100 * MIB
    connections: Annotated[
        Count, says("How many clients may be connected to each worker; further ones are turned away.")
    ] = 4096
    header_timeout: Annotated[
        Seconds, says("How long the head of a request may take to arrive; a slower one is answered with 408.")
    ] = 15.0
    body_timeout: Annotated[
        Seconds, says("How long the body of a request may pause; a longer pause is answered with 408.")
    ] = 30.0
    keepalive_timeout: Annotated[Seconds, says("How long an idle connection may wait for its next request.")] = 75.0
    send_timeout: Annotated[Seconds, says("How long a client may take in nothing of its response.")] = 60.0
    drain_timeout: Annotated[
        SecondsFrom0, says("How long requests under way may go on when a worker stops or is replaced.")
    ] = 30.0
    keepalive_requests: Annotated[CountFrom0, says("How many requests a connection may carry. 0 = no limit.")] = 0


class Config(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of it. `load` makes it and checks what types can't say; workers get it as JSON."""

    node: Node = Node()
    listen: Listen = Listen()
    origin: list[Origin] = field(default_factory=list)
    route: list[Route] = field(default_factory=list)
    cache: Cache = Cache()
    tracing: Tracing = Tracing()
    log: Log = Log()
    admin: Admin = Admin()
    limits: Limits = Limits()
    addons: Addons = Addons()

    def to_json(self) -> bytes:
        """As it is handed to workers."""
        return msgspec.json.encode(self)

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """What `to_json` wrote; msgspec.ValidationError or DecodeError if it is anything else."""
        return msgspec.json.decode(data, type=cls)
