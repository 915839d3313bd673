"""What a route says about caching, compiled: the values that policy decides by. No I/O, nothing of configuration."""

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType

import msgspec

SECOND_NS = 1_000_000_000
NO_TTLS: Mapping[int, int] = MappingProxyType({})


class SetCookie(Enum):
    """What becomes of a response with Set-Cookie."""

    NEVER = "never"
    """It is not stored."""
    STRIP = "strip"
    """It is stored without the field, which only the client that caused the fetch gets to see."""
    KEEP = "keep"
    """It is stored as it is, and everybody gets the cookie."""


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """A route's cache rules; times in nanoseconds. The defaults are the safe ones."""

    methods: frozenset[bytes] = frozenset({b"GET", b"HEAD"})
    """Methods that are answered from the cache."""
    ttl_ns: int | None = None
    """Freshness lifetime whatever the origin says; None leaves it to the origin."""
    ttl_min_ns: int = 0
    ttl_max_ns: int | None = None
    """Bounds of the lifetime that the origin states."""
    default_ttl_ns: int | None = None
    """Lifetime of what states none; None leaves it to heuristics."""
    heuristic: bool = True
    """Whether a tenth of the time since Last-Modified counts as a lifetime where none is stated (RFC 9111 §4.2.2)."""
    status_ttl_ns: Mapping[int, int] = NO_TTLS
    """Lifetime by status of what states none: negative caching."""
    stale_while_revalidate_ns: int = 0
    stale_if_error_ns: int = 0
    """Floors of what the origin allows (RFC 5861)."""
    set_cookie: SetCookie = SetCookie.NEVER
    authorized: bool = False
    """Whether responses to requests with Authorization are stored where RFC 9111 §3.5 allows it."""
    client_no_cache: bool = True
    """Whether the request's own Cache-Control and Pragma count."""
    keyed: tuple[bytes, ...] = ()
    """Request fields that are part of the key, lower case: what depends on them can't be somebody else's answer."""
    max_object_bytes: int = 8 * 1024 * 1024
