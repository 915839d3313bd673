"""The purge log's layout: where each number lies in its header, and how a rule stands in its ring. No I/O.

A log file is a header page of 64-bit words, then the ring of records. Records are contiguous in the order of their
rules and may wrap around the ring's end.
"""

import struct
import zlib
from enum import IntEnum

from edgeproxy.cache.purge import MAX_TAG_BYTES, MAX_VALUE_BYTES, Kind, Purge, Rule

MAGIC = int.from_bytes(b"EDGEPRG\x01", "little")
VERSION = 1
HEADER_BYTES = 4096
RING_BYTES = 1024 * 1024
"""Room for more than 10,000 rules; one needs to stay only until every process has read it."""
RECORD = struct.Struct("<IIQQBBxxxxxx")
"""A record's head: checksum of all that follows, length of the value, number, time, kind, soft. The value follows,
filled up to a multiple of 8 bytes.
"""
LEAP = 10_000_001
"""More rules than can be given in the time that a kernel leaves bytes unwritten; odd, for `ENDS`."""


class PurgeWord(IntEnum):
    """Indices of the header's 64-bit words."""

    MAGIC = 0
    VERSION = 1
    INSTANCE = 2
    """A random number that tells this log from all others."""
    RING_BYTES = 3
    SEQ = 4
    """Number of the last rule: what a hot path compares."""
    START = 5
    """Where the oldest rule begins, in bytes ever appended."""
    BOOT = 6
    """Which boot of the machine the log was last prepared in."""
    ENDS = 8
    """Two words: where the rule ends whose number is even, and that whose number is odd."""


PURGE_SEQ = int(PurgeWord.SEQ)
"""The index in `PurgeLog.words` of the number to compare."""


def check_purge(purge: Purge) -> None:
    """Raise ValueError, with a sentence for whoever asked for it, when a purge can't be a rule."""
    if purge.kind == Kind.ALL:
        if purge.value:
            raise ValueError("a purge of everything has no value")
        return
    what = "URL" if purge.kind == Kind.URL else purge.kind.name.lower()
    if not purge.value:
        raise ValueError(f"a {what} to purge can't be empty")
    limit = MAX_TAG_BYTES if purge.kind == Kind.TAG else MAX_VALUE_BYTES
    if len(purge.value) > limit:
        raise ValueError(f"a {what} to purge has at most {limit} bytes, this one has {len(purge.value)}")


def everything(seq: int) -> Rule:
    """The rule that stands for all up to `seq` that can't be read any more."""
    return Rule(Kind.ALL, b"", soft=False, at_ns=0, seq=seq)


def leap(seq: int) -> Rule:
    """The rule about nothing that lets numbers go on far above `seq`, which stands in its time; no other rule is about
    an empty tag.
    """
    return Rule(Kind.TAG, b"", soft=False, at_ns=seq, seq=seq + LEAP)


def follows(rule: Rule, seq: int) -> bool:
    """Whether no rule is missing between rule `seq` and this one."""
    return rule.seq == seq + 1 or (rule.at_ns == seq and rule.kind == Kind.TAG and not rule.value)


def record_bytes(length: int) -> int:
    """Size of a record whose value has that many bytes."""
    return RECORD.size + (length + 7) // 8 * 8


def encode(rule: Rule) -> bytes:
    """A rule's record."""
    value = rule.value
    head = RECORD.pack(0, len(value), rule.seq, rule.at_ns, rule.kind, rule.soft)[4:]
    checksum = zlib.crc32(value, zlib.crc32(head))
    return checksum.to_bytes(4, "little") + head + value.ljust(record_bytes(len(value)) - RECORD.size, b"\0")


def value_bytes(head: bytes) -> int | None:
    """How long the value behind a record's head is; None when this can't be one."""
    _checksum, length, _seq, _at_ns, kind, soft = RECORD.unpack(head)
    return None if length > MAX_VALUE_BYTES or kind > Kind.ALL or soft > 1 else length


def decode(head: bytes, value: bytes) -> Rule | None:
    """The rule of a record; None when it is not whole."""
    checksum, _length, seq, at_ns, kind, soft = RECORD.unpack(head)
    if zlib.crc32(value, zlib.crc32(head[4:])) != checksum:
        return None
    return Rule(Kind(kind), value, bool(soft), at_ns, seq)


def problem(header: bytes, size: int) -> str:
    """Say why a file of that size, which begins with `header`, can't be used as a purge log; empty when it can."""
    if len(header) < HEADER_BYTES:
        return "is not a purge log"
    magic, version, instance, ring_bytes, seq, start, _boot, _, *ends = struct.unpack_from("=10Q", header)
    if magic != MAGIC:
        return "is not a purge log"
    if version != VERSION:
        return f"has purge log version {version}; this edgeproxy reads {VERSION}"
    # A glance while others append may show START and an end of two moments, but never further apart than this.
    if not instance or size != HEADER_BYTES + ring_bytes or start > ends[seq % 2] + 2 * ring_bytes:
        return "is damaged: its size or its positions can't be"
    return ""
