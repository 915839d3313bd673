"""The table that says how a Redis Cluster is reached and used as the cache's store: [cache.redis].

May know: the types that keys have. Must not: connect to anything.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from edgeproxy.config import checks
from edgeproxy.config.types import MIB, Address, Bytes, ReadableFile, form, says, unit


class RedisCache(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The Redis Cluster that several nodes share, with store = "redis"."""

    nodes: Annotated[
        list[Address],
        says(
            "Some nodes of the cluster, from which the others are learnt; several, in case one is down: "
            '["10.0.0.5:6379", "10.0.0.6:6379"].',
        ),
    ] = field(default_factory=list)
    username: Annotated[str, says('The ACL user. "" = the default user.')] = ""
    password: Annotated[
        str,
        says(
            "Its password; better in password_file, or in the environment as EDGEPROXY_REDIS_PASSWORD. "
            '"" = see password_file.'
        ),
    ] = ""
    password_file: Annotated[
        ReadableFile,
        says('A file that holds the password, and nothing else. "" = the environment says it, or there is none.'),
    ] = ""
    tls: Annotated[bool, says("Whether connections are encrypted.")] = False
    tls_ca_file: Annotated[
        ReadableFile,
        says('Certificates (PEM) of which one must vouch for every node. "" = those that the system trusts.'),
    ] = ""
    tls_cert_file: Annotated[
        ReadableFile,
        says('The certificate (PEM) that nodes are shown. "" = none.'),
    ] = ""
    tls_key_file: Annotated[
        ReadableFile,
        says('Its key (PEM). "" = it is in tls_cert_file.'),
    ] = ""
    tls_check_host: Annotated[
        bool, says("Whether a node's certificate must be for the address at which it is reached.")
    ] = True
    prefix: Annotated[
        str,
        form(checks.is_name, "1 to 255 letters, digits, dots, dashes and underscores"),
        says("What all keys begin with; nodes that share a cache have the same, other tenants another."),
    ] = "edgeproxy"
    timeout_ms: Annotated[
        int,
        Meta(ge=1, le=10_000),
        unit("milliseconds"),
        says("How long a request waits for Redis at most; after that what it asked for is not there."),
    ] = 50
    read_from_replicas: Annotated[
        bool, says("Whether replicas are read from as well; they may lag behind what was written last.")
    ] = False
    tag_operations: Annotated[
        Literal["plain", "function", "off"],
        says(
            'How Redis is told which trace a command belongs to. "plain" = commands have it among their keys; '
            '"function" = commands are calls of a Redis Function that has it as an argument; "off" = not at all.'
        ),
    ] = "plain"
    max_object_bytes: Annotated[Bytes, says("The largest body that is put into Redis.")] = 1 * MIB
    compress_types: Annotated[
        list[str],
        form(lambda types: all(map(checks.is_readable, types)), 'a list of media types or their beginnings: "text/"'),
        says("The media types whose bodies are kept deflated. [] = none."),
    ] = field(default_factory=list)
    compress_min_bytes: Annotated[Bytes, says("From which size on they are.")] = 1024
    trail_ratio: Annotated[
        float,
        Meta(ge=0, le=1),
        says(
            "The share of traces whose operations are noted in a stream in Redis, for `edgeproxy keytrace` on every "
            "node. 0 = none."
        ),
    ] = 0.01
    trail_entries: Annotated[
        int, Meta(ge=1, le=10_000_000), says("About how many operations that stream keeps: the last ones.")
    ] = 10_000
