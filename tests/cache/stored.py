"""Stored responses for the tests of hot memory."""

from collections.abc import Mapping

from edgeproxy.cache.entry import Entry
from edgeproxy.cache.key import variant
from edgeproxy.cache.memory import HotMemory
from edgeproxy.cache.stored import Stored

NO_FIELDS: Mapping[bytes, bytes] = {}


def key(name: str) -> bytes:
    """A key of ten bytes."""
    return name.encode().ljust(10, b"/")


def entry(
    name: str = "a",
    body: bytes = b"",
    *,
    vary: tuple[bytes, ...] = (),
    names: Mapping[bytes, bytes] = NO_FIELDS,
    url: bytes | None = None,
) -> Entry:
    """A stored response to a request with these fields; what has equally long bodies is equally large."""
    return Entry(
        Stored(
            key=key(name),
            url=key(name) if url is None else url,
            vary=vary,
            variant=variant(vary, names),
            status=200,
            reason=b"OK",
            lines=[],
            born_ns=0,
            fresh_until_ns=1,
            stale_while_revalidate_ns=0,
            stale_if_error_ns=0,
            must_revalidate=False,
            stored_ns=0,
            filled_by="",
            origin="",
        ),
        body,
    )


UNIT = entry().size_bytes
"""What the least entry counts."""


def memory(units: int) -> HotMemory:
    """A memory with room for that many of the least entries; they are small in it from 64 on."""
    return HotMemory(units * UNIT)


def large(name: str, units: int) -> Entry:
    """An entry that counts as much as so many of the least, give or take the digits of its length."""
    return entry(name, b"." * ((units - 1) * UNIT))
