"""The types that keys have: with their units, ranges and forms, and the words for what they allow.

May know: the notations in `checks`. Must not: know a key.
"""

from collections.abc import Callable
from typing import Annotated, Any, Literal

from msgspec import Meta

from edgeproxy.config import checks

_A_DAY_S = 86400
_TEN_YEARS_S = 3650 * _A_DAY_S
_FAR = 1e300  # what JSON, and so a worker, can be told: neither endless nor no number at all
KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB


def unit(name: str) -> Meta:
    """What a number counts."""
    return Meta(extra={"unit": name})


def form(check: Callable[[Any], bool], words: str) -> Meta:
    """What a type can't say: a check, and the words for what it lets pass."""
    return Meta(extra={"check": check, "allowed": words})


def says(sentence: str, **extra: object) -> Meta:
    """A key's sentence, and what else `schema` wants to know: absent, allowed, empty and example."""
    return Meta(description=sentence, extra=extra or None)


type SamplerWord = Literal[
    "parentbased_traceidratio",
    "parentbased_always_on",
    "parentbased_always_off",
    "traceidratio",
    "always_on",
    "always_off",
]
type PropagatorWord = Literal["tracecontext", "baggage", "b3", "b3multi", "jaeger", "none"]
type Seconds = Annotated[float, Meta(gt=0, le=_A_DAY_S), unit("seconds")]
type SecondsFrom0 = Annotated[float, Meta(ge=0, le=_A_DAY_S), unit("seconds")]
type Lifetime = Annotated[float, Meta(ge=0, le=_TEN_YEARS_S), unit("seconds")]
type Bytes = Annotated[int, Meta(ge=0), unit("bytes")]
type Count = Annotated[int, Meta(ge=1)]
type CountFrom0 = Annotated[int, Meta(ge=0)]
type Name = Annotated[str, form(checks.is_name, "1 to 255 letters, digits, dots, dashes and underscores")]
type ReadableFile = Annotated[str, form(checks.is_readable_file, "a file that is there and can be read")]
type Address = Annotated[str, form(checks.is_listen_address, '"host:port" or "[ipv6]:port"')]
type Network = Annotated[
    str, form(checks.is_network, 'a network such as "10.0.0.0/8", with no bits set beyond its prefix')
]
type FieldName = Annotated[str, form(checks.is_token, 'the name of a header field, such as "Accept-Language"')]
type LoggableField = Annotated[
    str,
    form(
        checks.is_loggable_field,
        f'the name of a request header such as "x-tenant", and never {", ".join(checks.SECRET_FIELDS[:-1])} '
        f"or {checks.SECRET_FIELDS[-1]}",
    ),
]
type CookieName = Annotated[str, form(checks.is_token, "the name of a cookie")]
type Parameter = Annotated[
    str,
    form(checks.is_parameter, 'the name of a query parameter as it is in a request, or the beginning of some: "utm_*"'),
]
type StatusWord = Annotated[str, form(checks.is_status, '"200" to "599" or "2xx" to "5xx"')]
type Condition = Annotated[
    str, form(checks.is_condition, '"header:NAME", "cookie:NAME" or "query:NAME", each perhaps with "=VALUE"')
]
type FilterExpression = Annotated[
    str, form(checks.is_filter, 'a filter expression of mitmproxy, such as "~u /api & ~m POST"')
]
type OptionName = Annotated[str, form(checks.is_option_name, "the name of an option: letters, digits, underscores")]
type OptionValue = Annotated[
    bool
    | Annotated[int, Meta(ge=-(1 << 63), le=(1 << 63) - 1)]
    | Annotated[float, Meta(ge=-_FAR, le=_FAR)]
    | str
    | list[str],
    Meta(extra={"allowed": "true or false, a number, text or a list of texts"}),
]
type OriginUrl = Annotated[
    str,
    form(
        checks.is_origin_url, 'http:// or https:// and a host, perhaps a port: "http://10.0.0.1:8000"; no path, no user'
    ),
]
type Trust = Literal["all", "none"] | list[Network]
