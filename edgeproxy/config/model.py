"""The configuration as types: one Struct a table, and at each key all there is to say about it.

May know: nothing of the rest. Must not: read files or the environment. A key's type, unit, default, range and sentence
stand here and nowhere else: what `load` accepts, what an error says, conf/edgeproxy.toml and docs/configuration.md all
come from it.
"""

from collections.abc import Callable
from typing import Annotated, Any, Literal, Self

import msgspec
from msgspec import Meta, Struct, field

from edgeproxy.config import checks

_A_DAY_S = 86400
_KIB = 1024
_MIB = 1024 * _KIB
_GIB = 1024 * _MIB


def _unit(name: str) -> Meta:
    return Meta(extra={"unit": name})


def _form(check: Callable[[Any], bool], words: str) -> Meta:
    """What a type can't say: a check, and the words for what it lets pass."""
    return Meta(extra={"check": check, "allowed": words})


def _says(sentence: str, **extra: object) -> Meta:
    """A key's sentence, and what else `schema` wants to know: absent, allowed, empty, example, not_yet."""
    return Meta(description=sentence, extra=extra or None)


type SamplerWord = Literal[
    "parentbased_traceidratio",
    "parentbased_always_on",
    "parentbased_always_off",
    "traceidratio",
    "always_on",
    "always_off",
]
type Seconds = Annotated[float, Meta(gt=0, le=_A_DAY_S), _unit("seconds")]
type SecondsFrom0 = Annotated[float, Meta(ge=0, le=_A_DAY_S), _unit("seconds")]
type Bytes = Annotated[int, Meta(ge=0), _unit("bytes")]
type Count = Annotated[int, Meta(ge=1)]
type CountFrom0 = Annotated[int, Meta(ge=0)]
type Name = Annotated[str, _form(checks.is_name, "1 to 255 letters, digits, dots, dashes and underscores")]
type Address = Annotated[str, _form(checks.is_listen_address, '"host:port" or "[ipv6]:port"')]
type Network = Annotated[
    str, _form(checks.is_network, 'a network such as "10.0.0.0/8", with no bits set beyond its prefix')
]
type OriginUrl = Annotated[
    str,
    _form(
        checks.is_origin_url, 'http:// or https:// and a host, perhaps a port: "http://10.0.0.1:8000"; no path, no user'
    ),
]
type Trust = Literal["all", "none"] | list[Network]


class Node(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The node itself and its processes."""

    name: Annotated[
        Name,
        _says('What the node calls itself in the access log, in Via and in Cache-Status. "" = the host\'s name.'),
    ] = ""
    workers: Annotated[
        Annotated[int, Meta(ge=1, le=1024)] | Literal["auto"],
        _says('How many worker processes answer requests. "auto" = one for each processor that the node may use.'),
    ] = "auto"
    runtime_dir: Annotated[
        str,
        _form(checks.is_path, "a directory"),
        _says(
            "Where the node keeps its ledgers, control page and lock; best in memory, as /run is. "
            '"" = /run/edgeproxy if that can be written, else $XDG_RUNTIME_DIR/edgeproxy, else /dev/shm/edgeproxy-UID.'
        ),
    ] = ""
    ledger_bytes: Annotated[
        int,
        Meta(ge=64 * _KIB, le=_GIB, multiple_of=4096),
        _unit("bytes"),
        _says("How much shared memory each worker has for finished records that the scribe has not yet read."),
    ] = 16 * _MIB


class Listen(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where clients connect."""

    http: Annotated[
        Address,
        _says("Address and port for HTTP. Port 0 lets the system choose one; `edgeproxy status` shows which."),
    ] = "0.0.0.0:8080"
    backlog: Annotated[
        int,
        Meta(ge=1, le=65535),
        _says("How many connections may wait until a worker accepts them; the system's somaxconn may lower it."),
    ] = 4096


class Origin(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A server, or several that are alike, that requests are forwarded to.

    There is at least one; each further one begins with [[origin]] again.
    """

    name: Annotated[
        Name,
        _says("What routes and the access log call it. No two origins share a name.", example="app"),
    ]
    urls: Annotated[
        list[OriginUrl],
        Meta(min_length=1),
        _says("Where it is. With several, the next is tried when one fails.", example=["http://127.0.0.1:8000"]),
    ]
    connect_timeout: Annotated[
        Seconds, _says("How long it may take to connect, looking the name up and TLS included.")
    ] = 5.0
    first_byte_timeout: Annotated[
        Seconds, _says("How long the response may take to begin once the request has been sent.")
    ] = 60.0
    read_timeout: Annotated[Seconds, _says("How long the response may pause once it has begun.")] = 60.0
    send_timeout: Annotated[
        Seconds, _says("How long the origin may take in nothing of a request that is being sent.")
    ] = 60.0
    keepalive: Annotated[
        CountFrom0, _says("How many idle connections each worker keeps for the next requests. 0 = none.")
    ] = 64
    keepalive_timeout: Annotated[
        Seconds, _says("How long an idle connection is kept; best a little shorter than the origin itself keeps it.")
    ] = 60.0
    max_connections: Annotated[Count, _says("How many connections each worker has to this origin at most.")] = 1024
    retries: Annotated[
        int,
        Meta(ge=0, le=16),
        _says("How many further attempts a request gets, if it may be repeated and no byte of a response has come."),
    ] = 1
    fail_timeout: Annotated[
        SecondsFrom0, _says("How long a url that failed is passed over while there are others. 0 = it is not.")
    ] = 10.0
    host: Annotated[
        str,
        _form(checks.is_host_header, '"host" or "host:port"'),
        _says('The Host that the origin is sent. "" = the one that the client sent.'),
    ] = ""
    tls_ca_file: Annotated[
        str,
        _form(checks.is_readable_file, "a file that is there and can be read"),
        _says('Certificates (PEM) of which one must vouch for an https origin. "" = those that the system trusts.'),
    ] = ""


class RouteCache(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is cached of a route's responses."""

    enabled: Annotated[bool, _says("Whether responses are cached at all.")] = True
    max_object_bytes: Annotated[
        Bytes | None, _says("The largest body that is cached.", absent="that of [cache]", example=8 * _MIB)
    ] = None


class Route(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which origin a request goes to.

    The first route whose host and path match decides; a request that none matches is answered with 404. With one origin
    and no route at all, everything goes there. Each further route begins with [[route]] again.
    """

    match: Annotated[
        str,
        _form(checks.is_path_pattern, 'a path such as "/api/*", percent-encoded as it is in a request'),
        _says(
            'The paths it is for. "*" stands for any run of characters; without one it is this very path.', example="/*"
        ),
    ]
    host: Annotated[
        str,
        _form(checks.is_host_pattern, '"www.example.com" or "*.example.com", lower case, no port'),
        _says('The hosts it is for. "" = any.'),
    ] = ""
    origin: Annotated[
        str,
        _says(
            'The origin that requests go to. "" = the only one there is.',
            allowed="the name of an origin",
            example="app",
        ),
    ] = ""
    cache: Annotated[RouteCache, _says("What is cached of its responses.")] = RouteCache()


class Cache(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is kept of the origins' responses."""

    store: Annotated[
        Literal["memory"],
        _says('Where responses are kept. "memory" = in each worker.', not_yet=("embedded", "redis")),
    ] = "memory"
    memory_bytes: Annotated[
        Bytes, _says("How much memory each worker has for cached responses. 0 = nothing is cached.")
    ] = 256 * _MIB
    max_object_bytes: Annotated[Bytes, _says("The largest body that is cached; larger ones pass through uncached.")] = (
        8 * _MIB
    )


class Tracing(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Trace ids, which traces are sampled, and which headers go out.

    The environment and the environment file win over this table.
    """

    enabled: Annotated[
        bool, _says("Whether requests are traced. `edgeproxy trace on|off` switches it while the node runs.")
    ] = True
    trust: Annotated[Trust, _says("Whose trace context is continued. For anyone else the trace begins anew.")] = "all"
    sampler: Annotated[SamplerWord, _says("Which traces are sampled, by OpenTelemetry's standard samplers.")] = (
        "parentbased_traceidratio"
    )
    ratio: Annotated[float, Meta(ge=0, le=1), _says("The share of traces that a ratio sampler takes.")] = 1.0
    x_trace_id: Annotated[bool, _says("Whether clients are sent X-Trace-Id.")] = True
    traceresponse: Annotated[bool, _says("Whether clients are sent traceresponse.")] = True
    server_timing: Annotated[
        bool, _says("Whether clients are sent Server-Timing, which tells the time spent here from that at the origin.")
    ] = True
    cache_status: Annotated[bool, _says("Whether clients are sent Cache-Status.")] = True
    send_x_trace_id: Annotated[bool, _says("Whether origins are sent X-Trace-Id.")] = True
    send_x_request_id: Annotated[bool, _says("Whether origins are sent X-Request-Id.")] = True
    service_name: Annotated[
        str, _form(checks.is_readable, "a printable name"), _says("The service that spans belong to.")
    ] = "edgeproxy"
    resource_attributes: Annotated[
        dict[str, str],
        _form(
            checks.are_resource_attributes,
            'printable texts, such as { "deployment.environment.name" = "production" }; '
            "service.name is tracing.service_name",
        ),
        _says("What else describes this node in its spans."),
    ] = field(default_factory=dict)
    otlp_endpoint: Annotated[
        str,
        _form(checks.is_endpoint, 'an http or https url such as "http://127.0.0.1:4318"'),
        _says('The OpenTelemetry collector for spans. This version shows it in `edgeproxy check`, no more. "" = none.'),
    ] = ""


class Log(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The access log, one line a request, and the node's own events."""

    access: Annotated[
        str,
        _form(checks.is_path, 'a path, or "-"'),
        _says('The file of the access log. "-" = standard output. SIGUSR1 opens it anew.'),
    ] = "-"
    format: Annotated[
        Literal["json", "nginx"],
        _says('What a line looks like. "json" has all there is to know; "nginx" is for tools that read such lines.'),
    ] = "json"
    level: Annotated[
        Literal["debug", "info", "warning", "error"],
        _says("How grave one of the node's own events must be to go to standard error."),
    ] = "info"


class Admin(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What operators and monitoring ask: health and metrics."""

    listen: Annotated[
        Address,
        _says('Address and port; not for clients to reach. Port 0 lets the system choose one. "" = off.', empty=True),
    ] = "127.0.0.1:9180"


class Limits(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a client may ask for, and how long it may take."""

    header_bytes: Annotated[
        int,
        Meta(ge=1024),
        _unit("bytes"),
        _says("How long the header fields of a request may be together; longer ones are answered with 431."),
    ] = 32 * _KIB
    headers: Annotated[Count, _says("How many header fields a request may have; more are answered with 431.")] = 100
    uri_bytes: Annotated[
        int,
        Meta(ge=1),
        _unit("bytes"),
        _says("How long the target of a request may be; a longer one is answered with 414."),
    ] = 8 * _KIB
    body_bytes: Annotated[
        Bytes, _says("How long the body of a request may be; a longer one is answered with 413. 0 = no limit.")
    ] = 100 * _MIB
    connections: Annotated[
        Count, _says("How many clients may be connected to each worker; further ones are turned away.")
    ] = 4096
    header_timeout: Annotated[
        Seconds, _says("How long the head of a request may take to arrive; a slower one is answered with 408.")
    ] = 15.0
    body_timeout: Annotated[
        Seconds, _says("How long the body of a request may pause; a longer pause is answered with 408.")
    ] = 30.0
    keepalive_timeout: Annotated[Seconds, _says("How long an idle connection may wait for its next request.")] = 75.0
    send_timeout: Annotated[Seconds, _says("How long a client may take in nothing of its response.")] = 60.0
    drain_timeout: Annotated[
        SecondsFrom0, _says("How long requests under way may go on when a worker stops or is replaced.")
    ] = 30.0
    keepalive_requests: Annotated[CountFrom0, _says("How many requests a connection may carry. 0 = no limit.")] = 0


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

    def to_json(self) -> bytes:
        """As it is handed to workers."""
        return msgspec.json.encode(self)

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """What `to_json` wrote; msgspec.ValidationError or DecodeError if it is anything else."""
        return msgspec.json.decode(data, type=cls)
