"""The embedded store's format: which tables there are, how their keys and records are made. Pure; knows no database.

Whatever changes here makes another format: files of another `FORMAT` are set aside.

| table    | key                                      | value                                                |
| -------- | ---------------------------------------- | ---------------------------------------------------- |
| meta     | a word                                   | format, instance of the purge log, counters          |
| heads    | name: digest of key (and variant)        | record: checksum, number, head, small body; or Vary  |
| bodies   | number, index of the chunk               | a chunk of a body that is too large for its record   |
| order    | number: counts up with each `put`        | name, cost, when it is of no use any more            |
| urls     | url (cut off), name                      | nothing                                              |
| tags     | digest of a tag, name                    | nothing                                              |
| variants | name of the primary key, name            | nothing                                              |
"""

import struct
import zlib
from hashlib import blake2b
from typing import NamedTuple

import msgspec

from edgeproxy.cache.stored import Stored

FORMAT = f"1 {blake2b(','.join(Stored.__struct_fields__).encode(), digest_size=8).hexdigest()}".encode()
"""Counted up with this module, and another one whenever `Stored` gets other fields."""
META_FORMAT, META_INSTANCE, META_COUNTERS = b"format", b"purge log", b"counters"
TABLES = (b"meta", b"heads", b"bodies", b"order", b"urls", b"tags", b"variants")

PAGE_BYTES = 4096
CHUNK_BYTES = 8 * PAGE_BYTES - 16
"""Of a body: a run of 8 pages with LMDB's header. Short runs are found among free pages however scattered these are."""
INLINE_BYTES = 1900
"""A record with its body of at most this size shares a page with others; a larger value would get pages of its own."""
URL_BYTES = 440
"""What is kept of a URL in its index; LMDB's keys end at 511 bytes."""
NAME_BYTES = 16

_RECORD = struct.Struct("<IBBHIIIQ")  # crc of what follows, kind, inline, -, head bytes, body bytes, body's crc, number
_CRC_BYTES = 4
_ORDER = struct.Struct("<16sIQ")
_NUMBER = struct.Struct(">Q")
_CHUNK = struct.Struct(">QH")
_ENTRY, _VARY = 1, 2

_encoder = msgspec.msgpack.Encoder()
_stored = msgspec.msgpack.Decoder(Stored)


class Damaged(Exception):
    """A record is not what was written."""


class Record(NamedTuple):
    """An entry's record, its head not yet decoded."""

    number: int
    head: memoryview
    body: memoryview | None
    """None when it lies in chunks."""
    body_bytes: int
    body_crc: int

    @property
    def chunks(self) -> int:
        """How many chunks the body has outside of the record."""
        return 0 if self.body is not None else chunk_count(self.body_bytes)


class VaryMark(msgspec.Struct, frozen=True, array_like=True):
    """Stands at a primary key's name when what is stored for it varies."""

    key: bytes
    vary: tuple[bytes, ...]


_vary = msgspec.msgpack.Decoder(VaryMark)


class Place(NamedTuple):
    """An entry's line in the order of eviction."""

    name: bytes
    cost: int
    useless_at_ns: int


class Counters(msgspec.Struct, array_like=True):
    """What the store knows of itself; written with each change."""

    number: int = 0
    """The last that was given to an entry."""
    entries: int = 0
    cost_bytes: int = 0
    evictions: int = 0
    hand: int = 0
    """SIEVE's: the number where the next search for a victim begins."""
    applied_seq: int = 0
    """The purge log's last rule whose entries are all gone."""


_counters = msgspec.msgpack.Decoder(Counters)


def key_name(key: bytes) -> bytes:
    """Name of what is stored for a primary key."""
    return blake2b(key, digest_size=NAME_BYTES).digest()


def variant_name(primary: bytes, variant: bytes) -> bytes:
    """Name of one variant; `primary` is its primary key's name."""
    return blake2b(variant, digest_size=NAME_BYTES, key=primary).digest()


def url_key(url: bytes, name: bytes) -> bytes:
    """Key in the index of URLs; in order of URL as long as they differ in their first `URL_BYTES`."""
    return url[:URL_BYTES] + b"\x00" + name


def tag_key(tag: bytes, name: bytes) -> bytes:
    """Key in the index of tags."""
    return key_name(tag) + name


def number_key(number: int) -> bytes:
    """Key in the order."""
    return _NUMBER.pack(number)


def number_of(key: bytes | memoryview) -> int:
    """The number of a key in the order."""
    (number,) = _NUMBER.unpack(key)
    return int(number)


def chunk_key(number: int, index: int) -> bytes:
    """Key of a chunk."""
    return _CHUNK.pack(number, index)


def chunk_count(size_bytes: int) -> int:
    """How many chunks a body takes."""
    return -(-size_bytes // CHUNK_BYTES)


def encode(stored: Stored) -> bytes:
    """An entry's head."""
    return _encoder.encode(stored)


def fits_inline(head: bytes, body_bytes: int) -> bool:
    """Whether a body lies in its record."""
    return _RECORD.size + len(head) + body_bytes <= INLINE_BYTES or not body_bytes


def pack(head: bytes, body: bytes | None, body_bytes: int, body_crc: int, number: int) -> bytes:
    """An entry's record; a body that is given lies in it."""
    return _sealed(
        _RECORD.pack(0, _ENTRY, body is not None, 0, len(head), body_bytes, body_crc, number) + head + (body or b"")
    )


def pack_vary(mark: VaryMark) -> bytes:
    """A Vary mark's record."""
    head = _encoder.encode(mark)
    return _sealed(_RECORD.pack(0, _VARY, 0, 0, len(head), 0, 0, 0) + head)


def _sealed(record: bytes) -> bytes:
    crc = zlib.crc32(memoryview(record)[_CRC_BYTES:])
    return crc.to_bytes(_CRC_BYTES, "little") + record[_CRC_BYTES:]


def unpack(record: memoryview) -> Record | VaryMark:
    """What a record holds. Raises Damaged when it is not as it was written."""
    try:
        crc, kind, inline, _, head_bytes, body_bytes, body_crc, number = _RECORD.unpack_from(record)
    except struct.error as error:
        raise Damaged("a record is cut short") from error
    start = _RECORD.size
    end = start + head_bytes
    if zlib.crc32(record[_CRC_BYTES:]) != crc or len(record) != end + (body_bytes if inline else 0):
        raise Damaged("a record's checksum does not fit")
    if kind == _ENTRY:
        return Record(number, record[start:end], record[end:] if inline else None, body_bytes, body_crc)
    try:
        return _vary.decode(record[start:end])
    except msgspec.DecodeError as error:
        raise Damaged("a record can't be decoded") from error


def stored_of(head: memoryview) -> Stored:
    """An entry's head. Raises Damaged when it can't be decoded."""
    try:
        return _stored.decode(head)
    except msgspec.DecodeError as error:
        raise Damaged("a head can't be decoded") from error


def pack_place(place: Place) -> bytes:
    """A line in the order."""
    return _ORDER.pack(*place)


def unpack_place(value: bytes | memoryview) -> Place:
    """A line in the order. Raises Damaged."""
    try:
        return Place(*_ORDER.unpack(value))
    except struct.error as error:
        raise Damaged("a line of the order can't be read") from error


def pack_counters(counters: Counters) -> bytes:
    """The counters' record."""
    return _encoder.encode(counters)


def unpack_counters(value: bytes | memoryview | None) -> Counters:
    """The counters; zeros where nothing was written yet. Raises Damaged."""
    try:
        return Counters() if value is None else _counters.decode(value)
    except msgspec.DecodeError as error:
        raise Damaged("the counters can't be read") from error


def cost_bytes(stored: Stored, record_bytes: int, chunked_bytes: int) -> int:
    """About how much room an entry takes: pages of its own for large values, its share of the trees' pages otherwise,
    which are two thirds full.
    """
    large = record_bytes > INLINE_BYTES
    record = _pages(record_bytes) if large else record_bytes
    shared = (0 if large else record) + len(stored.url[:URL_BYTES]) + 120 + 60 * len(stored.tags)
    whole, last = divmod(chunked_bytes, CHUNK_BYTES)
    chunks = whole * 8 * PAGE_BYTES + (_pages(last) if last else 0)
    return shared * 3 // 2 + (record if large else 0) + chunks


def _pages(size_bytes: int) -> int:
    return -(-(size_bytes + 16) // PAGE_BYTES) * PAGE_BYTES


def useless_at_ns(stored: Stored) -> int:
    """From when on a stored response can't be served any more, fresh or stale."""
    return stored.fresh_until_ns + max(stored.stale_while_revalidate_ns, stored.stale_if_error_ns, 0)
