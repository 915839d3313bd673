"""The tables that say what is cached: of a route's responses (`RouteCache`), and by the node (`Cache`).

May know: the types that keys have. Must not: know what the cache makes of them.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from edgeproxy.config import checks
from edgeproxy.config.redis import RedisCache
from edgeproxy.config.types import (
    GIB,
    MIB,
    Bytes,
    Condition,
    CookieName,
    FieldName,
    Lifetime,
    Network,
    Parameter,
    Seconds,
    SecondsFrom0,
    StatusWord,
    form,
    says,
    unit,
)


class RouteCache(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is cached of a route's responses, for how long, and under which keys."""

    enabled: Annotated[bool, says("Whether responses are cached at all.")] = True
    max_object_bytes: Annotated[
        Bytes | None, says("The largest body that is cached.", absent="that of [cache]", example=8 * MIB)
    ] = None
    methods: Annotated[
        list[Literal["GET", "HEAD"]],
        form(lambda methods: "GET" in methods, '["GET", "HEAD"] or ["GET"]'),
        says("The methods that are answered from the cache: HEAD is answered with what a GET has stored."),
    ] = field(default_factory=lambda: ["GET", "HEAD"])
    ttl: Annotated[
        Lifetime | None,
        says("How long responses are fresh, whatever the origin says.", absent="what the origin says", example=60.0),
    ] = None
    ttl_min: Annotated[Lifetime, says("The least time for which what the origin calls fresh is fresh.")] = 0.0
    ttl_max: Annotated[
        Lifetime | None,
        says("The longest time for which what the origin calls fresh is fresh.", absent="no limit", example=86400.0),
    ] = None
    default_ttl: Annotated[
        Lifetime | None,
        says(
            "How long a response is fresh of which the origin does not say it.",
            absent="see heuristic",
            example=10.0,
        ),
    ] = None
    heuristic: Annotated[
        bool,
        says(
            "Whether a response of which nothing says how long it is fresh is so for a tenth of the time since it was "
            "last modified, at most a day (RFC 9111, 4.2.2)."
        ),
    ] = True
    status_ttl: Annotated[
        dict[StatusWord, Lifetime],
        says(
            "How long a response of a certain status is fresh of which the origin does not say it; wins over "
            'default_ttl. { "404" = 10.0, "5xx" = 1.0 } spares the origin requests for what is not there.'
        ),
    ] = field(default_factory=dict)
    stale_while_revalidate: Annotated[
        Lifetime,
        says("How long a stale response is still served while a new one is fetched; the origin may allow longer."),
    ] = 0.0
    stale_if_error: Annotated[
        Lifetime,
        says("How long a stale response is served when the origin fails; the origin may allow longer."),
    ] = 0.0
    set_cookie: Annotated[
        Literal["never", "strip", "keep"],
        says(
            'What becomes of a response with Set-Cookie. "never" = it is not stored; "strip" = it is stored without '
            'the cookie, which only the client that caused the fetch gets; "keep" = everybody gets the same cookie.'
        ),
    ] = "never"
    authorized: Annotated[
        bool,
        says(
            "Whether responses to requests with Authorization are stored where the origin allows it "
            "(RFC 9111, 3.5); otherwise they never are."
        ),
    ] = False
    client_no_cache: Annotated[
        bool,
        says("Whether a client's own Cache-Control and Pragma count, such as the no-cache of a browser's reload."),
    ] = True
    query: Annotated[
        Literal["all", "none"],
        says('Whether the query is part of the key. "none" = it is not, and is not sent to the origin either.'),
    ] = "all"
    query_allow: Annotated[
        list[Parameter],
        says("The only query parameters that are part of the key and sent to the origin. [] = all."),
    ] = field(default_factory=list)
    query_deny: Annotated[
        list[Parameter],
        says("Query parameters that are neither part of the key nor sent to the origin."),
    ] = field(default_factory=list)
    query_sort: Annotated[
        bool,
        says("Whether query parameters are sorted by name, so that their order makes no other key."),
    ] = False
    key_headers: Annotated[
        list[FieldName],
        says("Header fields of the request that are part of the key, beside what Vary names."),
    ] = field(default_factory=list)
    key_cookies: Annotated[
        list[CookieName], says("Cookies of the request that are part of the key; of other cookies nothing is.")
    ] = field(default_factory=list)
    key_host: Annotated[
        str,
        form(checks.is_key_host, '"host", "normalized" or a host such as "www.example.com", lower case'),
        says(
            'The host in the key, which the origin is sent as well. "host" = as the client sent it; "normalized" = '
            "without the default port and a dot at the end; a host = that one, whatever the client sent."
        ),
    ] = "host"
    bypass: Annotated[
        list[Condition],
        says(
            "Requests that are neither answered from the cache nor stored: those that have one of these. The name of "
            'a cookie or query parameter may end in "*".'
        ),
    ] = field(default_factory=list)


class Cache(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is kept of the origins' responses."""

    store: Annotated[
        Literal["embedded", "redis", "memory"],
        says(
            'Where responses are kept. "embedded" = in a store on disk that all workers share and that outlives '
            'restarts, hot ones in each worker\'s memory too; "redis" = in a Redis Cluster that several nodes '
            "share, hot ones in each worker's memory too; \"memory\" = in each worker's memory alone.",
        ),
    ] = "embedded"
    path: Annotated[
        str,
        form(checks.can_be_directory, "a directory, which need not be there yet"),
        says(
            'Where the embedded store lies. "" = /var/cache/edgeproxy for a node in /run/edgeproxy, '
            "$XDG_CACHE_HOME/edgeproxy (or ~/.cache/edgeproxy) for one in the session's own directory, else the "
            "directory cache in node.runtime_dir."
        ),
    ] = ""
    size_bytes: Annotated[
        int,
        Meta(ge=MIB),
        unit("bytes"),
        says("How large the embedded store may become; beyond it goes what was least asked for."),
    ] = GIB
    memory_bytes: Annotated[
        Bytes,
        says(
            "How much memory each worker has for cached responses. 0 = none; with the store in memory nothing is "
            "cached then."
        ),
    ] = 256 * MIB
    max_object_bytes: Annotated[Bytes, says("The largest body that is cached; larger ones pass through uncached.")] = (
        8 * MIB
    )
    collapse_timeout: Annotated[
        Seconds,
        says("How long a request waits for the response that another one is fetching before it fetches for itself."),
    ] = 30.0
    uncacheable_ttl: Annotated[
        SecondsFrom0,
        says(
            "How long it is remembered that a key's responses are not stored, so that requests for it do not wait for "
            "one another. 0 = not at all."
        ),
    ] = 120.0
    short_status: Annotated[
        str,
        form(checks.is_own_field, "the name of a header field that HTTP itself has no use for"),
        says('The field that tells clients in one word what the cache did: HIT, MISS, … "" = none.', empty=True),
    ] = "X-Cache"
    status_key: Annotated[bool, says("Whether Cache-Status tells clients the key.")] = False
    purge_allow: Annotated[
        list[Network],
        says("The networks whose clients may purge with the method PURGE. [] = none."),
    ] = field(default_factory=list)
    send_tags: Annotated[bool, says("Whether clients are sent Surrogate-Key and Cache-Tag.")] = False
    redis: Annotated[RedisCache, says("The Redis Cluster, where that is the store.")] = RedisCache()
