"""What tests of stores share: responses to store, and stores as a test uses them."""

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from edgeproxy.cache.entry import Entry
from edgeproxy.cache.key import variant
from edgeproxy.cache.store import Store
from edgeproxy.cache.stored import Stored

SECOND_NS = 1_000_000_000
URL = b"http://example.com/page"
TRACEPARENT = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"


def stored(url: bytes = URL, *, vary: Mapping[bytes, bytes] | None = None, **fields: Any) -> Stored:
    """A fresh 200 response; `vary` has the request's fields that selected it."""
    now = time.time_ns()
    names = tuple(sorted(vary or ()))
    return Stored(
        **{
            "key": url,
            "url": url,
            "vary": names,
            "variant": variant(names, vary or {}),
            "status": 200,
            "reason": b"OK",
            "lines": [(b"Content-Type", b"text/html"), (b"ETag", b'"1"'), (b"Cache-Control", b"max-age=600")],
            "born_ns": now,
            "fresh_until_ns": now + 600 * SECOND_NS,
            "stale_while_revalidate_ns": 0,
            "stale_if_error_ns": 0,
            "must_revalidate": False,
            "stored_ns": now,
            "filled_by": TRACEPARENT,
            "origin": "default",
            "etag": b'"1"',
        }
        | fields
    )


def entry(url: bytes = URL, body: bytes = b"body", **fields: Any) -> Entry:
    """A response to store."""
    return Entry(stored(url, **fields), body)


async def put(store: Store, *entries: Entry) -> None:
    """Store these, and wait until others can find them."""
    loop = asyncio.get_running_loop()
    waiting = [loop.create_future() for _ in entries]
    for item, future in zip(entries, waiting, strict=True):
        store.put(item, lambda future=future: future.set_result(None))  # type: ignore[misc]
    await asyncio.wait_for(asyncio.gather(*waiting), 30)


async def find(store: Store, key: bytes = URL, names: Mapping[bytes, bytes] | None = None) -> Entry | None:
    """What the store has for a request."""
    future: asyncio.Future[Entry | None] = asyncio.get_running_loop().create_future()
    store.lookup(key, names or {}, future.set_result)
    return await asyncio.wait_for(future, 10)


async def settle(store: Store) -> None:
    """Wait until all that the store was told to do is done: it does things in their order."""
    await put(store, entry(b"http://settle.example/"))
