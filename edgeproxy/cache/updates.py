"""What a validation, or a HEAD, changes in a stored response (RFC 9111 §3.2, §4.3.4, §4.3.5). Pure."""

from email.utils import formatdate
from enum import Enum

import msgspec

from edgeproxy.cache.dates import http_date_ns
from edgeproxy.cache.directives import SECOND_NS, Fields
from edgeproxy.cache.freshness import Terms
from edgeproxy.cache.stored import Lines, Stored

_NOT_UPDATED = frozenset(
    {
        *(b"connection", b"keep-alive", b"proxy-connection", b"proxy-authenticate", b"proxy-authentication-info"),
        *(b"proxy-authorization", b"te", b"trailer", b"transfer-encoding", b"upgrade"),
        *(b"content-length", b"content-encoding", b"content-range"),
        *(b"content-md5", b"digest", b"content-digest", b"repr-digest"),
        *(b"age", b"set-cookie", b"cache-status", b"server-timing", b"x-request-id", b"x-trace-id", b"traceresponse"),
    }
)
"""Fields of a 304 or HEAD that leave the stored response's own alone (RFC 9111 §3.1, §3.2): of one hop or one moment,
about the stored body as it is, or for the one client that asked.
"""


class HeadUpdate(Enum):
    """What a response to HEAD says of the stored response to GET."""

    FRESHEN = "freshen"
    INVALIDATE = "invalidate"
    NOTHING = "nothing"


def answers_for(stored: Stored, update: Fields) -> bool:
    """Is a 304 about this stored response (RFC 9111 §4.3.4)?

    A strong entity tag must be the stored one. One without validators is taken to be about the only response whose
    validators its request had.
    """
    etag = update.get(b"etag")
    if etag is not None:
        if not etag.startswith(b"W/"):
            return etag == stored.etag
        return stored.etag is not None and etag.removeprefix(b"W/") == stored.etag.removeprefix(b"W/")
    modified = update.get(b"last-modified")
    return modified is None or _same_date(modified, stored.last_modified)


def _same_date(one: bytes, other: bytes | None) -> bool:
    return one == other or (other is not None and http_date_ns(one) == http_date_ns(other) is not None)


def head_update(stored: Stored, body_bytes: int, status: int, response: Fields) -> HeadUpdate:
    """What a response to HEAD says of the stored response to GET (RFC 9111 §4.3.5).

    Every validator and length that it has must be the stored one's; one without validators about a response with them
    proves nothing.
    """
    if status != 200 or stored.status != 200:
        return HeadUpdate.NOTHING
    etag, modified = response.get(b"etag"), response.get(b"last-modified")
    length = response.get(b"content-length")
    if (
        (etag is not None and etag != stored.etag)
        or (modified is not None and not _same_date(modified, stored.last_modified))
        or (length is not None and not _is_number(length, body_bytes))
    ):
        return HeadUpdate.INVALIDATE
    if etag is None and modified is None and (stored.etag is not None or stored.last_modified is not None):
        return HeadUpdate.NOTHING
    return HeadUpdate.FRESHEN


def _is_number(text: bytes, number: int) -> bool:
    return text.isdigit() and (text.lstrip(b"0") or b"0") == b"%d" % number


def updated_lines(stored: Stored, update_lines: Lines, now_ns: int, without: frozenset[bytes] = frozenset()) -> Lines:
    """The stored response's fields after a 304 or HEAD (RFC 9111 §3.2): those that it has stand where the stored ones
    stood, new ones behind them.

    Fields in `without` are not kept. Where it has no Date, it was made now (RFC 9110 §6.6.1).
    """
    taken: dict[bytes, Lines] = {}
    for line in update_lines:
        name = line[0].lower()
        if name not in _NOT_UPDATED and name not in without:
            taken.setdefault(name, []).append(line)
    taken.setdefault(b"date", [(b"Date", formatdate(now_ns // SECOND_NS, usegmt=True).encode())])
    replaced = taken.keys() | without
    lines: Lines = []
    for line in stored.lines:
        name = line[0].lower()
        if name in taken:
            lines += taken.pop(name)
        elif name not in replaced:
            lines.append(line)
    for new in taken.values():
        lines += new
    return lines


def updated_fields(stored: Stored, update_lines: Lines, update: Fields, now_ns: int) -> dict[bytes, bytes]:
    """What `storing` is to decide by after a 304 or HEAD: the updated fields, with the age that the update arrived
    with (RFC 9111 §4.3.4).
    """
    fields: dict[bytes, bytes] = {}
    for line, value in updated_lines(stored, update_lines, now_ns):
        name = line.lower()
        fields[name] = fields[name] + b", " + value if name in fields else value
    if b"age" in update:
        fields[b"age"] = update[b"age"]
    return fields


def freshened(
    stored: Stored,
    update_lines: Lines,
    update: Fields,
    terms: Terms | None,
    now_ns: int,
    without: frozenset[bytes] = frozenset(),
) -> Stored:
    """The stored response after a 304 or HEAD that is about it (RFC 9111 §3.2, §4.3.4), on the terms that `storing`
    gives for its `updated_fields`; None of them leaves it stale.

    Its Vary is taken to be as it was: where `storing` names other fields, it has another place and can't be kept here.
    """
    terms = Terms(0, 0) if terms is None else terms
    born_ns = now_ns - terms.age_ns
    return msgspec.structs.replace(
        stored,
        lines=updated_lines(stored, update_lines, now_ns, without),
        born_ns=born_ns,
        fresh_until_ns=born_ns + terms.lifetime_ns,
        stale_while_revalidate_ns=terms.stale_while_revalidate_ns,
        stale_if_error_ns=terms.stale_if_error_ns,
        must_revalidate=terms.must_revalidate,
        stored_ns=now_ns,
        etag=update.get(b"etag", stored.etag),
        last_modified=update.get(b"last-modified", stored.last_modified),
    )
