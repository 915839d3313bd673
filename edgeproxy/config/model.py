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
_TEN_YEARS_S = 3650 * _A_DAY_S
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
type Lifetime = Annotated[float, Meta(ge=0, le=_TEN_YEARS_S), _unit("seconds")]
type Bytes = Annotated[int, Meta(ge=0), _unit("bytes")]
type Count = Annotated[int, Meta(ge=1)]
type CountFrom0 = Annotated[int, Meta(ge=0)]
type Name = Annotated[str, _form(checks.is_name, "1 to 255 letters, digits, dots, dashes and underscores")]
type Address = Annotated[str, _form(checks.is_listen_address, '"host:port" or "[ipv6]:port"')]
type Network = Annotated[
    str, _form(checks.is_network, 'a network such as "10.0.0.0/8", with no bits set beyond its prefix')
]
type FieldName = Annotated[str, _form(checks.is_token, 'the name of a header field, such as "Accept-Language"')]
type CookieName = Annotated[str, _form(checks.is_token, "the name of a cookie")]
type Parameter = Annotated[
    str,
    _form(
        checks.is_parameter, 'the name of a query parameter as it is in a request, or the beginning of some: "utm_*"'
    ),
]
type StatusWord = Annotated[str, _form(checks.is_status, '"200" to "599" or "2xx" to "5xx"')]
type Condition = Annotated[
    str, _form(checks.is_condition, '"header:NAME", "cookie:NAME" or "query:NAME", each perhaps with "=VALUE"')
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
    """What is cached of a route's responses, for how long, and under which keys."""

    enabled: Annotated[bool, _says("Whether responses are cached at all.")] = True
    max_object_bytes: Annotated[
        Bytes | None, _says("The largest body that is cached.", absent="that of [cache]", example=8 * _MIB)
    ] = None
    methods: Annotated[
        list[Literal["GET", "HEAD"]],
        _form(lambda methods: "GET" in methods, '["GET", "HEAD"] or ["GET"]'),
        _says("The methods that are answered from the cache: HEAD is answered with what a GET has stored."),
    ] = field(default_factory=lambda: ["GET", "HEAD"])
    ttl: Annotated[
        Lifetime | None,
        _says("How long responses are fresh, whatever the origin says.", absent="what the origin says", example=60.0),
    ] = None
    ttl_min: Annotated[Lifetime, _says("The least time for which what the origin calls fresh is fresh.")] = 0.0
    ttl_max: Annotated[
        Lifetime | None,
        _says("The longest time for which what the origin calls fresh is fresh.", absent="no limit", example=86400.0),
    ] = None
    default_ttl: Annotated[
        Lifetime | None,
        _says(
            "How long a response is fresh of which the origin does not say it.",
            absent="see heuristic",
            example=10.0,
        ),
    ] = None
    heuristic: Annotated[
        bool,
        _says(
            "Whether a response of which nothing says how long it is fresh is so for a tenth of the time since it was "
            "last modified, at most a day (RFC 9111, 4.2.2)."
        ),
    ] = True
    status_ttl: Annotated[
        dict[StatusWord, Lifetime],
        _says(
            "How long a response of a certain status is fresh of which the origin does not say it; wins over "
            'default_ttl. { "404" = 10.0, "5xx" = 1.0 } spares the origin requests for what is not there.'
        ),
    ] = field(default_factory=dict)
    stale_while_revalidate: Annotated[
        Lifetime,
        _says("How long a stale response is still served while a new one is fetched; the origin may allow longer."),
    ] = 0.0
    stale_if_error: Annotated[
        Lifetime,
        _says("How long a stale response is served when the origin fails; the origin may allow longer."),
    ] = 0.0
    set_cookie: Annotated[
        Literal["never", "strip", "keep"],
        _says(
            'What becomes of a response with Set-Cookie. "never" = it is not stored; "strip" = it is stored without '
            'the cookie, which only the client that caused the fetch gets; "keep" = everybody gets the same cookie.'
        ),
    ] = "never"
    authorized: Annotated[
        bool,
        _says(
            "Whether responses to requests with Authorization are stored where the origin allows it "
            "(RFC 9111, 3.5); otherwise they never are."
        ),
    ] = False
    client_no_cache: Annotated[
        bool,
        _says("Whether a client's own Cache-Control and Pragma count, such as the no-cache of a browser's reload."),
    ] = True
    query: Annotated[
        Literal["all", "none"],
        _says('Whether the query is part of the key. "none" = it is not, and is not sent to the origin either.'),
    ] = "all"
    query_allow: Annotated[
        list[Parameter],
        _says("The only query parameters that are part of the key and sent to the origin. [] = all."),
    ] = field(default_factory=list)
    query_deny: Annotated[
        list[Parameter],
        _says("Query parameters that are neither part of the key nor sent to the origin."),
    ] = field(default_factory=list)
    query_sort: Annotated[
        bool,
        _says("Whether query parameters are sorted by name, so that their order makes no other key."),
    ] = False
    key_headers: Annotated[
        list[FieldName],
        _says("Header fields of the request that are part of the key, beside what Vary names."),
    ] = field(default_factory=list)
    key_cookies: Annotated[
        list[CookieName], _says("Cookies of the request that are part of the key; of other cookies nothing is.")
    ] = field(default_factory=list)
    key_host: Annotated[
        str,
        _form(checks.is_key_host, '"host", "normalized" or a host such as "www.example.com", lower case'),
        _says(
            'The host in the key. "host" = as the client sent it; "normalized" = without the default port and a dot '
            "at the end; a host = that one, for all that come by this route."
        ),
    ] = "host"
    bypass: Annotated[
        list[Condition],
        _says(
            "Requests that are neither answered from the cache nor stored: those that have one of these. The name of "
            'a cookie or query parameter may end in "*".'
        ),
    ] = field(default_factory=list)


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
        Literal["embedded", "memory"],
        _says(
            'Where responses are kept. "embedded" = in a store on disk that all workers share and that outlives '
            "restarts, hot ones in each worker's memory too; \"memory\" = in each worker's memory alone.",
            not_yet=("redis",),
        ),
    ] = "embedded"
    path: Annotated[
        str,
        _form(checks.can_be_directory, "a directory, which need not be there yet"),
        _says(
            'Where the embedded store lies. "" = /var/cache/edgeproxy for a node in /run/edgeproxy, '
            "$XDG_CACHE_HOME/edgeproxy (or ~/.cache/edgeproxy) for one in the session's own directory, else the "
            "directory cache in node.runtime_dir."
        ),
    ] = ""
    size_bytes: Annotated[
        int,
        Meta(ge=_MIB),
        _unit("bytes"),
        _says("How large the embedded store may become; beyond it goes what was least asked for."),
    ] = _GIB
    memory_bytes: Annotated[
        Bytes,
        _says(
            "How much memory each worker has for cached responses. 0 = none; with the store in memory nothing is "
            "cached then."
        ),
    ] = 256 * _MIB
    max_object_bytes: Annotated[Bytes, _says("The largest body that is cached; larger ones pass through uncached.")] = (
        8 * _MIB
    )
    collapse_timeout: Annotated[
        Seconds,
        _says("How long a request waits for the response that another one is fetching before it fetches for itself."),
    ] = 30.0
    uncacheable_ttl: Annotated[
        SecondsFrom0,
        _says(
            "How long it is remembered that a key's responses are not stored, so that requests for it do not wait for "
            "one another. 0 = not at all."
        ),
    ] = 120.0
    short_status: Annotated[
        str,
        _form(checks.is_own_field, "the name of a header field that HTTP itself has no use for"),
        _says('The field that tells clients in one word what the cache did: HIT, MISS, … "" = none.', empty=True),
    ] = "X-Cache"
    status_key: Annotated[bool, _says("Whether Cache-Status tells clients the key.")] = False
    purge_allow: Annotated[
        list[Network],
        _says("The networks whose clients may purge with the method PURGE. [] = none."),
    ] = field(default_factory=list)
    send_tags: Annotated[bool, _says("Whether clients are sent Surrogate-Key and Cache-Tag.")] = False


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
