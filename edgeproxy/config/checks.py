"""What a text in the configuration must look like: addresses, urls, networks, names.

May know: the notations. Must not: know keys, files or defaults. Each check answers yes or no; the words for what is
allowed stand with the key in `model`. No name is looked up: one that does not resolve today may do so tomorrow.
"""

import os
import re
from ipaddress import IPv4Address, IPv6Address, ip_network
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

_NAME = re.compile(r"[A-Za-z0-9._-]{1,255}")
_FRAMING_FIELDS = frozenset({"content-encoding", "content-length", "content-type", "host", "transfer-encoding"})
"""Those that say what a request is: nobody else may."""
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\.?")
_LOOKS_LIKE_IPV4 = re.compile(r"[0-9.]+")
_AUTHORITY = re.compile(r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]+)\]|(?P<host>[^:\[\]]+))(?::(?P<port>[0-9]{1,5}))?")
_PATH_PATTERN = re.compile(r"[/*][!-~]*")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,255}")
_PARAMETER = re.compile(r"[!-~]{1,255}")
_STATUS = re.compile(r"[2-5](?:[0-9]{2}|xx)")
_FIELD_VALUE = re.compile(r"(?:[!-~](?:[ -~]*[!-~])?)?")
_RESERVED_FIELDS = frozenset(
    {
        *("age", "cache-control", "cache-status", "connection", "content-encoding", "content-length", "content-range"),
        *("content-type", "date", "etag", "expires", "keep-alive", "last-modified", "location", "set-cookie", "te"),
        *("trailer", "transfer-encoding", "upgrade", "vary", "via"),
    }
)
"""Fields whose meaning a word of ours would break."""
SECRET_FIELDS = ("authorization", "cookie", "proxy-authorization", "set-cookie")
"""Fields whose values are as good as a password."""
_DELIMITERS = frozenset("&=# ")
"""What can't stand in a query parameter's name."""
_HOST_NAME_CHARACTERS = 253
_HIGHEST_PORT = 65535


def split_address(text: str) -> tuple[str, int]:
    """`"[::1]:8080"` → `("::1", 8080)`: the host and port of a listen address; ValueError if it is none."""
    host, port = _split_authority(text)
    if port is None:
        raise ValueError(f"{text!r} has no port")
    return host, port


def is_name(text: str) -> bool:
    """What can stand in a header and in a log line as it is."""
    return _NAME.fullmatch(text) is not None


def is_listen_address(text: str) -> bool:
    """`host:port`, `1.2.3.4:port` or `[ipv6]:port`; port 0 lets the system choose."""
    try:
        split_address(text)
    except ValueError:
        return False
    return True


def is_host_header(text: str) -> bool:
    """What may be sent as Host: a host and perhaps a port."""
    try:
        return _split_authority(text)[1] != 0
    except ValueError:
        return False


def is_host_pattern(text: str) -> bool:
    """`www.example.com`, `*.example.com` or an address; lower case, as hosts are compared."""
    if text != text.lower():
        return False
    if text.startswith("*."):
        return _is_host_name(text[2:])
    try:
        return _split_authority(text)[1] is None
    except ValueError:
        return False


def is_loggable_field(text: str) -> bool:
    """The name of a field whose values may stand in a log: not of one that lets whoever reads it in."""
    return is_token(text) and text.lower() not in SECRET_FIELDS


def is_path_pattern(text: str) -> bool:
    """A path as it stands in a request line, in which `*` stands for any run of characters."""
    return _PATH_PATTERN.fullmatch(text) is not None and "?" not in text and "#" not in text


def is_origin_url(text: str) -> bool:
    """`http://host[:port]` or `https://host[:port]`, and nothing after it, not even a slash."""
    url = _split_url(text)
    return url is not None and text == f"{url.scheme}://{url.netloc}"


def is_endpoint(text: str) -> bool:
    """An http or https url, with a path if need be, without a user and password."""
    return _split_url(text) is not None


def is_url(text: str) -> bool:
    """An http or https url, with a path and query if need be, without a user and password, or a fragment."""
    return _split_url(text) is not None and "#" not in text


def is_header_condition(text: str) -> bool:
    """`NAME` or `NAME=VALUE` of a header field."""
    name, _, value = text.partition("=")
    return is_token(name) and _FIELD_VALUE.fullmatch(value) is not None


def is_token(text: str) -> bool:
    """What names a header field or a cookie (RFC 9110 §5.6.2, RFC 6265 §4.1.1)."""
    return _TOKEN.fullmatch(text) is not None


def is_own_field(text: str) -> bool:
    """The name of a response field that is free for use."""
    return is_token(text) and text.lower() not in _RESERVED_FIELDS


def is_parameter(text: str) -> bool:
    """The name of a query parameter as it stands in a request, which may end in `*`."""
    return _PARAMETER.fullmatch(text) is not None and _DELIMITERS.isdisjoint(text) and "*" not in text[:-1]


def is_status(text: str) -> bool:
    """A status that a response may end with, `"404"`, or the hundred of them that begin with a digit, `"4xx"`."""
    return _STATUS.fullmatch(text) is not None


def is_key_host(text: str) -> bool:
    """`"host"`, `"normalized"` or a host with perhaps a port, lower case."""
    return text == text.lower() and is_host_header(text)


def is_condition(text: str) -> bool:
    """`header:NAME`, `cookie:NAME` or `query:NAME`, each perhaps with `=VALUE`; a header's name has no star in it."""
    subject, _, rest = text.partition(":")
    name, _, value = rest.partition("=")
    match subject:
        case "header":
            return is_token(name) and "*" not in name and _FIELD_VALUE.fullmatch(value) is not None
        case "cookie":
            usable = is_token(name) and "*" not in name[:-1]
            return usable and _FIELD_VALUE.fullmatch(value) is not None and ";" not in value
        case "query":
            return is_parameter(name) and _FIELD_VALUE.fullmatch(value) is not None and {*"&# "}.isdisjoint(value)
        case _:
            return False


def is_filter(text: str) -> bool:
    """An expression that mitmproxy's filters understand."""
    from edgeproxy.config.filters import parse_filter  # noqa: PLC0415  which is slow to import

    try:
        parse_filter(text)
    except ValueError:
        return False
    return True


def is_option_name(text: str) -> bool:
    """What a script can declare as an option and ask for as `ctx.options.NAME`."""
    return text.isascii() and text.isidentifier()


def is_network(text: str) -> bool:
    """`10.0.0.0/8`, `2001:db8::/32` or a single address.

    Bits beyond the prefix are a mistake: which network was meant is not guessed where it decides on trust.
    """
    try:
        ip_network(text)
    except ValueError:
        return False
    return True


def is_readable(text: str) -> bool:
    """Something to read, on one line."""
    return bool(text) and text.isprintable()


def is_path(text: str) -> bool:
    """What may name a file or directory."""
    return bool(text) and "\0" not in text


def is_readable_file(text: str) -> bool:
    """A file that is there and that this process may read."""
    return is_path(text) and os.access(text, os.R_OK) and Path(text).is_file()


def can_be_directory(text: str) -> bool:
    """A directory, or what can be made one: of what is there on the way to it, nothing is a file."""
    if not is_path(text):
        return False
    path = Path(text)
    nearest = next((place for place in (path, *path.parents) if os.path.lexists(place)), path)
    return os.path.isdir(nearest)  # noqa: PTH112 where it can't be looked, pathlib raises


EXPORTERS = ("otlp", "console", "embedded")
"""Where spans can go."""


def are_exporters(text: str) -> bool:
    """Names of exporters by comma, or `none` alone."""
    names = [name.strip() for name in text.split(",")]
    return names == ["none"] or (set(names) <= {*EXPORTERS} and len(set(names)) == len(names))


def are_headers(headers: dict[str, str]) -> bool:
    """Header fields that one may send along: names that are tokens, each once whatever its case, values on one line."""
    once = len({name.lower() for name in headers}) == len(headers)
    return once and all(
        is_token(name)
        and name.lower() not in _FRAMING_FIELDS
        and value.isascii()
        and (not value or value.isprintable())
        for name, value in headers.items()
    )


def are_resource_attributes(attributes: dict[str, str]) -> bool:
    """Names with something to read in each. `service.name` is not one of them: it has a key of its own."""
    return "service.name" not in attributes and all(is_readable(text) for pair in attributes.items() for text in pair)


def _split_authority(text: str) -> tuple[str, int | None]:
    found = _AUTHORITY.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no host and port")
    ipv6, host, port = found["ipv6"], found["host"], found["port"]
    if ipv6 is not None:
        host = IPv6Address(ipv6).compressed
    elif not _is_host_name(host):
        raise ValueError(f"{host!r} is no host")
    if port is not None and int(port) > _HIGHEST_PORT:
        raise ValueError(f"{port} is no port")
    return host, None if port is None else int(port)


def _is_host_name(text: str) -> bool:
    if _LOOKS_LIKE_IPV4.fullmatch(text):
        try:
            IPv4Address(text)
        except ValueError:
            return False
        return True
    return len(text) <= _HOST_NAME_CHARACTERS and _HOST_NAME.fullmatch(text) is not None


def _split_url(text: str) -> SplitResult | None:
    """The parts of an absolute http(s) url with a usable host and port and no user; None if it is anything else.

    urlsplit forgives: it drops control characters and lowers the scheme. What it would change is no url here.
    """
    if not text.isascii() or not text.isprintable() or " " in text:
        return None
    try:
        url = urlsplit(text)
        port = _split_authority(url.netloc)[1]
    except ValueError:
        return None
    usable = url.scheme in {"http", "https"} and text.startswith(f"{url.scheme}://") and port != 0
    return url if usable else None
