"""What the fields that steer caches say, read once per value: Cache-Control (RFC 9111 §5.2), the targeted fields that
come before it (RFC 9213), delta-seconds and dates. Pure; decides nothing: that is `policy`'s part.

Wherever the text leaves a choice, the reading that stores less and reuses less is taken:

- of a repeated directive the first counts (§4.2.1), and where a later one asks for less, it counts as invalid;
- an argument that is no delta-seconds counts as invalid, an invalid lifetime as none left;
- `private` and `no-cache` name fields only in quotes, as they must be sent; with any other argument they are whole.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import cast

import http_sf
import msgspec

from edgeproxy.cache.dates import http_date_ns

__all__ = [
    "MAX_DELTA_S",
    "SECOND_NS",
    "Asked",
    "Control",
    "Directives",
    "Fields",
    "asked_by",
    "control_of",
    "delta_seconds",
    "directives",
    "field_names",
    "http_date_ns",
]

Fields = Mapping[bytes, bytes]
"""Lower-case names to values, several lines of a field joined by `, ` (RFC 9110 §5.3)."""
Directives = Mapping[bytes, bytes | None]
"""Lower-case directive names to their arguments, quotes and escapes removed; None where there is none."""

SECOND_NS = 1_000_000_000
CONTROL_BYTES_MAX = 1024
"""A longer Cache-Control is not parsed: nobody is to fill the memory with what is remembered of it."""
MAX_DELTA_S = 2**31
"""What a delta-seconds too large to hold counts as (RFC 9111 §1.2.2)."""
TARGETED = (b"edgeproxy-cache-control", b"cdn-cache-control")
"""The target list (RFC 9213 §2.2): the first of these with a valid value replaces Cache-Control and Expires."""

_DIRECTIVE = re.compile(
    rb"""[\s,]*([!#$%&'*+.^_`|~0-9A-Za-z-]+)(?:[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^\s,;"]+)))?[ \t]*(?=,|$|;)""",
    re.DOTALL,
)
_QUOTED_PAIR = re.compile(rb"\\(.)", re.DOTALL)
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_QUALIFIED = frozenset({b"private", b"no-cache"})
_DELTAS = frozenset({b"max-age", b"s-maxage", b"stale-while-revalidate", b"stale-if-error", b"max-stale", b"min-fresh"})
_INVALID = b""
"""An argument that is no delta-seconds, whatever stood there."""
_NONE: Directives = MappingProxyType({})


class Control(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a response says about caching; times in seconds."""

    no_store: bool = False
    private: bool = False
    no_cache: bool = False
    """`private` and `no-cache` of the whole response; of named fields only they are in `without`."""
    without: frozenset[bytes] = frozenset()
    """Fields that `private` or `no-cache` name, lower case."""
    public: bool = False
    must_revalidate: bool = False
    """Never reused stale: must-revalidate, proxy-revalidate (§5.2.2.8), s-maxage (§5.2.2.10) or no-cache."""
    must_understand: bool = False
    shareable: bool = False
    """Whether it may be stored though the request had Authorization (§3.5)."""
    lifetime_s: int | None = None
    """Of s-maxage, else max-age; None when there is neither, 0 when it is invalid."""
    stale_while_revalidate_s: int = 0
    stale_if_error_s: int = 0
    targeted: bool = False
    """Whether a targeted field says so: then Expires does not count."""


class Asked(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a request's Cache-Control asks for (RFC 9111 §5.2.1); times in seconds."""

    no_cache: bool = False
    """Also when the field can't be parsed: then the origin is to make of it what it can."""
    no_store: bool = False
    only_if_cached: bool = False
    max_age_s: int | None = None
    """An invalid one counts as 0."""
    min_fresh_s: int = 0
    """An invalid one counts as longer than anything is fresh."""
    max_stale_s: int = -1
    """-1 when the client takes nothing stale."""
    stale_if_error_s: int = 0


_SILENT = Control()
_SILENT_TARGETED = Control(targeted=True)
_UNCLEAR = Asked(no_cache=True, no_store=True)


def control_of(response: Fields) -> Control | None:
    """What the response says of caching, in its first valid targeted field, else in Cache-Control.

    None when that can't be parsed: then there is nothing in it that could be relied on.
    """
    for name in TARGETED:
        if name in response:
            value = response[name]
            control = _targeted(value) if len(value) <= CONTROL_BYTES_MAX else None
            if control is not None:
                return control
    try:
        value = response[b"cache-control"]
    except KeyError:
        return _SILENT
    return _control(value) if len(value) <= CONTROL_BYTES_MAX else None


def asked_by(request: Fields) -> Asked | None:
    """What a request's Cache-Control asks for, else its Pragma (§5.4); None when it has neither."""
    value = request.get(b"cache-control")
    if value is not None:
        return _asked(value) if len(value) <= CONTROL_BYTES_MAX else _UNCLEAR
    value = request.get(b"pragma")
    return _PRAGMA_NO_CACHE if value is not None and b"no-cache" in value.lower() else None


_PRAGMA_NO_CACHE = Asked(no_cache=True)


def directives(value: bytes | None) -> Directives | None:
    """Parse Cache-Control (RFC 9111 §5.2): each directive once, as this module's opening says of repeated ones.

    None when the field can't be parsed, or is far longer than any that means something.
    """
    if value is None:
        return _NONE
    found = _parsed(value) if len(value) <= CONTROL_BYTES_MAX else None
    return None if found is None else MappingProxyType(found)


def delta_seconds(argument: bytes | None) -> int | None:
    """A delta-seconds (RFC 9111 §1.2.2): too large counts as `MAX_DELTA_S`, anything but digits is None."""
    if argument is None or not argument.isdigit():
        return None
    digits = argument.lstrip(b"0") or b"0"
    return MAX_DELTA_S if len(digits) > len(str(MAX_DELTA_S)) else min(int(digits), MAX_DELTA_S)


def field_names(value: bytes) -> tuple[bytes, ...] | None:
    """A list of field names (RFC 9110 §5.6.1) in lower case, sorted, each once; None when a member is no name."""
    names = {name.strip(b" \t").lower() for name in value.split(b",")} - {b""}
    return tuple(sorted(names)) if all(_TOKEN.fullmatch(name) for name in names) else None


# --- reading


def _parsed(value: bytes) -> dict[bytes, bytes | None] | None:
    found: dict[bytes, bytes | None] = {}
    position = 0
    end = len(value.rstrip(b" \t,"))
    while position < end:
        match = _DIRECTIVE.match(value, position)
        if match is None:
            return None
        token, quoted, unquoted = match.groups()
        name = token.lower()
        argument = unquoted if quoted is None else _QUOTED_PAIR.sub(rb"\1", quoted)
        if name in _QUALIFIED and (quoted is None or not field_names(quoted)):
            argument = None
        found[name] = _merged(name, found[name], argument) if name in found else argument
        position = match.end() + 1
    return found


def _merged(name: bytes, first: bytes | None, later: bytes | None) -> bytes | None:
    """The argument of a directive that comes twice."""
    if name in _QUALIFIED:
        return None if first is None or later is None else first + b"," + later
    if name not in _DELTAS or first == later:
        return first
    one, other = delta_seconds(first), delta_seconds(later)
    return first if one is not None and other is not None and one <= other and name != b"min-fresh" else _INVALID


@lru_cache(maxsize=1024)
def _control(value: bytes) -> Control | None:
    # Few values make up nearly all traffic: reading each once saves 4 µs a miss.
    found = _parsed(value)
    return None if found is None else _read(found, targeted=False)


@lru_cache(maxsize=1024)
def _asked(value: bytes) -> Asked:
    found = _parsed(value)
    if found is None:
        return _UNCLEAR
    min_fresh = delta_seconds(found.get(b"min-fresh", b"0"))
    return Asked(
        no_cache=b"no-cache" in found,
        no_store=b"no-store" in found,
        only_if_cached=b"only-if-cached" in found,
        max_age_s=_seconds(found, b"max-age") if b"max-age" in found else None,
        min_fresh_s=MAX_DELTA_S if min_fresh is None else min_fresh,
        max_stale_s=_max_stale(found),
        stale_if_error_s=_seconds(found, b"stale-if-error"),
    )


def _max_stale(found: Directives) -> int:
    if b"max-stale" not in found:
        return -1
    argument = found[b"max-stale"]
    if argument is None:
        return MAX_DELTA_S
    seconds = delta_seconds(argument)
    return -1 if seconds is None else seconds


@lru_cache(maxsize=1024)
def _targeted(value: bytes) -> Control | None:
    """A targeted field (RFC 9213 §2.1): a dictionary, parameters ignored; None when it is empty or not valid."""
    try:
        members = cast("dict[str, tuple[object, object]]", http_sf.parse(value, tltype="dictionary"))
    except (ValueError, RecursionError):
        return None
    if not members:
        return None
    found: dict[bytes, bytes | None] = {}
    for key, (item, _) in members.items():
        name = key.encode()
        if item is True:
            found[name] = None
        elif isinstance(item, bool):
            continue
        elif name in _QUALIFIED:
            found[name] = item.encode() if isinstance(item, str) else None
        else:
            found[name] = b"%d" % item if isinstance(item, int) else _INVALID
    return _read(found, targeted=True) if found else _SILENT_TARGETED


def _read(found: Directives, *, targeted: bool) -> Control:
    private, no_cache = _qualified(found, b"private"), _qualified(found, b"no-cache")
    s_maxage = b"s-maxage" in found
    lifetime_s = None
    for name in (b"s-maxage", b"max-age"):
        if name in found:
            lifetime_s = _seconds(found, name)
            break
    must_revalidate = b"must-revalidate" in found
    return Control(
        no_store=b"no-store" in found,
        private=private == (),
        no_cache=no_cache == (),
        without=frozenset((*(private or ()), *(no_cache or ()))),
        public=b"public" in found,
        must_revalidate=must_revalidate or b"proxy-revalidate" in found or s_maxage or no_cache == (),
        must_understand=b"must-understand" in found,
        shareable=must_revalidate or s_maxage or b"public" in found,
        lifetime_s=lifetime_s,
        stale_while_revalidate_s=_seconds(found, b"stale-while-revalidate"),
        stale_if_error_s=_seconds(found, b"stale-if-error"),
        targeted=targeted,
    )


def _qualified(found: Directives, name: bytes) -> tuple[bytes, ...] | None:
    """The fields that a directive names; empty when it is about the whole response, None when it is absent."""
    if name not in found:
        return None
    argument = found[name]
    return () if argument is None else field_names(argument) or ()


def _seconds(found: Directives, name: bytes) -> int:
    return delta_seconds(found.get(name)) or 0
