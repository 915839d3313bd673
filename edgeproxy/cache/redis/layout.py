"""Where a stored response lies in Redis, and how its values are made. Pure; no I/O, no clock.

    PREFIX:1:{URL}KEY            head of the response without Vary, or the vary mark
    PREFIX:1:{URL}KEY:VARIANT    head of one that varies
    ….b                          the body of either, behind its head's name
    PREFIX:1:{purges}            the purge rules (`rules`)
    PREFIX:1:{trail}             sampled operations (`trail`)

URL is the URL as keyed, KEY what the primary key has beside it, VARIANT a digest of Vary's generation and the request's
values. The braces are a hash tag: all that is stored for a URL lies in one slot. The 1 is the version of this layout:
another version has other names, and is never read.

Whatever is written begins with the traceparent of the operation that wrote it (a head with its version and kind before
that), so that MONITOR and SLOWLOG show it.
"""

import hashlib
import re
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from edgeproxy.cache.key import variant
from edgeproxy.cache.stored import Stored

VERSION = 1
TRACEPARENT_BYTES = 55
GENERATION_BYTES = 8
BODY = b".b"
"""What a body's name has behind its head's."""
TTL_REST_MS = 60_000
"""How long a response stays that can't be served any more: it may still be validated."""
MAX_TTL_MS = 400 * 86_400_000
_ENTRY = b"e"
_VARY = b"v"
_MARK = struct.Struct(f">cc{TRACEPARENT_BYTES}s{GENERATION_BYTES}s")
_HEAD = struct.Struct(f">cc{TRACEPARENT_BYTES}sBIII")
"""Version, kind, traceparent; encoding of the body, length of the body as it is sent to clients, length and checksum of
it as it is stored."""
_CHECKSUM = struct.Struct(">I")
"""Behind that: of all else in the head."""
_VERSION = b"%d" % VERSION
_decode = msgspec.msgpack.Decoder(Stored).decode
_decode_vary = msgspec.msgpack.Decoder(tuple[bytes, ...]).decode
_encode = msgspec.msgpack.Encoder().encode

_BEHIND_KEY = re.compile(rb"(?::[0-9a-f]{32})?(?:\.b)?\Z")
"""What a name has behind its primary key: which variant, and whether it is a body's."""

PLAIN = 0
DEFLATED = 1


class DamagedError(Exception):
    """A value is not as this version of edgeproxy writes it; the message says how."""


class VaryMark(NamedTuple):
    """What stands where a resource's responses vary: which request fields select one."""

    vary: tuple[bytes, ...]
    generation: bytes
    """Bytes that change when variants are begun anew: those from before are not found any more."""


class Head(NamedTuple):
    """A response as stored, without its body."""

    stored: Stored
    encoding: int
    body_bytes: int
    """Of the body as clients get it."""
    kept_bytes: int
    """Of the body as it is kept."""
    checksum: int


class Names:
    """Names of keys under one prefix."""

    def __init__(self, prefix: str) -> None:
        """`prefix` holds no brace."""
        self.root = f"{prefix}:{VERSION}:".encode()
        self._urls = self.root + b"{"
        self.urls = self._urls + b"http"
        """What the names of all that is stored for URLs begin with."""
        self.purges = self.root + b"{purges}"
        self.trail = self.root + b"{trail}"

    def url(self, url: bytes) -> bytes:
        """The beginning of all names for a URL as keyed."""
        return b"%b{%b}" % (self.root, url)

    def primary(self, key: bytes, url: bytes) -> bytes:
        """The head's name for a primary key, which begins with its URL."""
        return b"%b{%b}%b" % (self.root, url, key[len(url) :])

    def variant(self, primary: bytes, mark: VaryMark, values: bytes) -> bytes:
        """The head's name for a variant; `values` are the request's (`key.variant`)."""
        digest = hashlib.blake2b(values, digest_size=16, key=mark.generation).hexdigest()
        return b"%b:%b" % (primary, digest.encode())

    def is_reachable(self, name: bytes, stored: Stored, marks: Mapping[bytes, VaryMark]) -> bool:
        """Whether a look-up finds the response under a name, given the vary marks of its URL: variants of an earlier
        generation are not found.
        """
        primary = self.primary(stored.key, stored.url)
        if not stored.vary:
            return name == primary
        mark = marks.get(primary)
        return mark is not None and name == self.variant(primary, mark, stored.variant)

    def key_of(self, name: bytes) -> bytes | None:
        """The primary key that a name is for; None when it is for none."""
        if not name.startswith(self._urls):
            return None
        rest = name[len(self._urls) :]
        url, more, parts = rest.partition(b"}\x00")  # no URL holds a zero byte; what follows one may hold braces
        if more:
            return url + b"\x00" + _BEHIND_KEY.sub(b"", parts)
        url, brace, behind = rest.rpartition(b"}")
        return url if brace and not _BEHIND_KEY.sub(b"", behind) else None


def body_name(head: bytes) -> bytes:
    """The name of a body, beside its head's."""
    return head + BODY


def vary_mark(mark: VaryMark, traceparent: bytes) -> bytes:
    """A vary mark's value."""
    return _MARK.pack(_VERSION, _VARY, traceparent, mark.generation) + _encode(mark.vary)


def head(stored: Stored, body: bytes, kept: bytes, encoding: int, traceparent: bytes) -> bytes:
    """A head's value; `kept` is the body as it is kept."""
    fixed = _HEAD.pack(_VERSION, _ENTRY, traceparent, encoding, len(body), len(kept), zlib.crc32(kept))
    encoded = _encode(stored)
    return fixed + _CHECKSUM.pack(zlib.crc32(encoded, zlib.crc32(fixed))) + encoded


def read(value: bytes) -> Head | VaryMark:
    """What stands under a head's name. Raises DamagedError."""
    try:
        version, kind = value[:1], value[1:2]
        if version != _VERSION:
            raise DamagedError(f"a value of format {version!r}; this edgeproxy reads {VERSION}")
        if kind == _VARY:
            return VaryMark(_decode_vary(value[_MARK.size :]), _MARK.unpack_from(value)[3])
        if kind != _ENTRY:
            raise DamagedError(f"a value of unknown kind {kind!r}")
        _, _, _, encoding, body_bytes, kept_bytes, checksum = _HEAD.unpack_from(value)
        encoded = value[_HEAD.size + _CHECKSUM.size :]
        if _CHECKSUM.unpack_from(value, _HEAD.size)[0] != zlib.crc32(encoded, zlib.crc32(value[: _HEAD.size])):
            raise DamagedError("a head that is not as it was written")
        return Head(_decode(encoded), encoding, body_bytes, kept_bytes, checksum)
    except (struct.error, msgspec.DecodeError, ValueError) as error:  # what is no UTF-8 is a ValueError
        raise DamagedError(f"a head that can't be read: {error}") from error


def traceparent(value: bytes) -> str:
    """The operation that wrote a head or a vary mark (which `read` has read)."""
    return value[2 : 2 + TRACEPARENT_BYTES].decode("ascii", "backslashreplace")


def body_value(kept: bytes, traceparent: bytes) -> bytes:
    """A body's value; `kept` is the body as it is kept."""
    return traceparent + kept


def body(head: Head, value: bytes | None) -> bytes:
    """The body as clients get it. Raises DamagedError when it is not the one that belongs to the head."""
    if not head.kept_bytes:
        return b""  # an empty one is not written: what lies there is that of the response before
    if value is None:
        raise DamagedError("a head without its body")
    kept = memoryview(value)[TRACEPARENT_BYTES:]
    if len(kept) != head.kept_bytes or zlib.crc32(kept) != head.checksum:
        raise DamagedError("a body that is not its head's")
    if head.encoding == PLAIN:
        return bytes(kept)
    if head.encoding != DEFLATED:
        raise DamagedError(f"a body in unknown encoding {head.encoding}")
    inflater = zlib.decompressobj()
    try:
        whole = inflater.decompress(kept, head.body_bytes + 1)
    except zlib.error as error:
        raise DamagedError(f"a body that can't be inflated: {error}") from error
    if len(whole) != head.body_bytes or not inflater.eof:
        raise DamagedError("a body that inflates to another length")
    return whole


def belongs(stored: Stored, key: bytes, names: Mapping[bytes, bytes]) -> bool:
    """Whether a response is the one for a primary key and the request's fields."""
    return stored.key == key and (not stored.vary or stored.variant == variant(stored.vary, names))


def ttl_ms(stored: Stored, now_ns: int) -> int:
    """For how long Redis is to keep a response: fresh, stale, and a while for validating it."""
    stale_ns = max(stored.stale_while_revalidate_ns, stored.stale_if_error_ns)
    left_ms = (stored.fresh_until_ns + stale_ns - now_ns) // 1_000_000
    rest = 0 if stored.uncacheable or (stored.etag is None and stored.last_modified is None) else TTL_REST_MS
    return max(1, min(MAX_TTL_MS, left_ms + rest))


class Compression(NamedTuple):
    """Which bodies are kept deflated."""

    min_bytes: int
    """From this size on."""
    types: Sequence[bytes]
    """Beginnings of media types, lower case."""

    def keep(self, stored: Stored, body: bytes) -> tuple[bytes, int]:
        """A body as it is to be kept, and its encoding."""
        if not self.types or len(body) < self.min_bytes or stored.field(b"content-encoding") is not None:
            return body, PLAIN
        media_type = (stored.field(b"content-type") or b"").lower()
        if not any(media_type.startswith(one) for one in self.types):
            return body, PLAIN
        deflated = zlib.compress(body, 1)
        return (deflated, DEFLATED) if len(deflated) < len(body) else (body, PLAIN)
