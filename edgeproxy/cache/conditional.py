"""Conditional requests as a cache meets them (RFC 9110 §13, RFC 9111 §4.3): which it answers, which are the origin's,
and what it asks the origin itself. Pure. Only for GET and HEAD, and for a stored 200.
"""

import re

from edgeproxy.cache.dates import REFERENCE_NS, http_date_ns
from edgeproxy.cache.directives import SECOND_NS, Fields
from edgeproxy.cache.stored import Stored

_ENTITY_TAGS = re.compile(rb'(?:W/)?("[\x21\x23-\x7e\x80-\xff]*")')
_ENTITY_TAG = re.compile(rb'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"')


def not_modified(
    request: Fields,
    etag: bytes | None,
    last_modified: bytes | None,
    date: bytes | None = None,
    now_ns: int = REFERENCE_NS,
) -> bool:
    """Whether the client has the stored response already, so that the answer is 304 (RFC 9110 §13.2.2).

    If-None-Match comes first; where there is none, If-Modified-Since is held against Last-Modified, else against Date
    (RFC 9111 §4.3.2).
    """
    condition = request.get(b"if-none-match")
    if condition is not None:
        return none_match(condition, etag)
    since = http_date_ns(request.get(b"if-modified-since"), now_ns)
    if since is None:
        return False
    changed = http_date_ns(last_modified, now_ns)
    if changed is None:
        changed = http_date_ns(date, now_ns)
    return changed is not None and changed <= since


def none_match(condition: bytes, etag: bytes | None) -> bool:
    """Whether If-None-Match is false for this entity tag (RFC 9110 §13.1.2): weak comparison, and `*` for whatever
    there is.
    """
    text = condition.strip()
    if text == b"*":
        return True
    if etag is None:
        return False
    if text == etag:
        return True
    opaque = etag.removeprefix(b"W/")
    return any(tag == opaque for tag in _ENTITY_TAGS.findall(condition))


def must_forward(request: Fields) -> bool:
    """Whether a request has conditions that are only for the origin (RFC 9111 §4.3.2)."""
    return b"if-match" in request or b"if-unmodified-since" in request


def if_range(
    value: bytes, etag: bytes | None, last_modified: bytes | None, date: bytes | None = None, now_ns: int = REFERENCE_NS
) -> bool:
    """Whether If-Range holds, so that Range counts (RFC 9110 §13.1.5): by strong comparison only.

    Last-Modified is strong when the response was made a second later or more (§8.8.2.2); without Date nobody knows.
    """
    text = value.strip()
    if text.startswith((b'"', b"W/")):
        return text == etag and text.startswith(b'"') and _ENTITY_TAG.fullmatch(text) is not None
    asked = http_date_ns(text, now_ns)
    modified = http_date_ns(last_modified, now_ns)
    made = http_date_ns(date, now_ns)
    if asked is None or modified is None or made is None:
        return False
    return asked == modified and made - modified >= SECOND_NS


def validators(stored: Stored) -> bytes:
    """The request lines that ask the origin whether a stored response still holds (RFC 9111 §4.3.1), CRLFs included;
    empty when it has no validator.
    """
    lines = b"" if stored.etag is None else b"If-None-Match: %b\r\n" % stored.etag
    if stored.last_modified is not None and http_date_ns(stored.last_modified) is not None:
        lines += b"If-Modified-Since: %b\r\n" % stored.last_modified
    return lines
