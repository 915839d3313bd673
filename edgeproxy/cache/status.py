"""Cache-Status (RFC 9211): how a cache handled a request, as one member of the field. Pure: values in, text out."""

import re
from typing import Literal

Forward = Literal["bypass", "method", "uri-miss", "vary-miss", "miss", "request", "stale", "partial"]
"""Why a request went to the origin (§2.2)."""

_TOKEN = re.compile(r"[A-Za-z*][!#$%&'*+.^_`|~0-9A-Za-z:/-]*")
_ESCAPED = re.compile(r'["\\]')
_OUTSIDE = re.compile(r"[^\x20-\x7e]")
_INTEGER_MAX = 999_999_999_999_999


def member(
    name_text: str,
    *,
    hit: bool = False,
    fwd: Forward | None = None,
    ttl: int | None = None,
    fwd_status: int | None = None,
    stored: bool = False,
    collapsed: bool = False,
    key: bytes | str | None = None,
    detail: str | None = None,
) -> str:
    """One cache's member of Cache-Status (RFC 9211 §2); `name_text` is its name as `name` renders it.

    `hit` and `fwd` exclude each other: what went forward was no hit. `fwd_status`, `stored` and `collapsed` say
    something of what went forward, and are left out where nothing did. `ttl` is in seconds, negative when stale.
    """
    parts = [name_text]
    if fwd is not None:
        parts.append(f"fwd={fwd}")
        if fwd_status is not None:
            parts.append(f"fwd-status={fwd_status}")
        if stored:
            parts.append("stored")
        if collapsed:
            parts.append("collapsed")
    elif hit:
        parts.append("hit")
    if ttl is not None:
        parts.append(f"ttl={max(-_INTEGER_MAX, min(ttl, _INTEGER_MAX))}")
    if key is not None:
        parts.append(f"key={quoted(key)}")
    if detail is not None:
        parts.append(f"detail={name(detail)}")
    return "; ".join(parts)


def name(text: str) -> str:
    """A name or a detail: a token where it can be one, else a string (RFC 8941 §3.3.3, §3.3.4)."""
    return text if _TOKEN.fullmatch(text) else quoted(text)


def quoted(value: bytes | str) -> str:
    """A string (RFC 8941 §3.3.3). It can hold printable ASCII only: all else is percent-encoded, as UTF-8 where it is
    text, octet by octet where it is bytes.
    """
    if isinstance(value, bytes):
        text = _OUTSIDE.sub(lambda match: f"%{ord(match[0]):02X}", value.decode("latin-1"))
    else:
        text = _OUTSIDE.sub(_percent_encoded, value)
    return '"' + _ESCAPED.sub(r"\\\g<0>", text) + '"'


def _percent_encoded(match: re.Match[str]) -> str:
    return "".join(f"%{octet:02X}" for octet in match[0].encode("utf-8", "surrogatepass"))
