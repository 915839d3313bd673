"""`python -m tests.cache.churn FOLDER SEED`: put, freshen and discard without end, until killed.

Whatever it stores can be told to be whole: a response's body follows from its entity tag.
"""

import asyncio
import hashlib
import random
import sys
import time
from pathlib import Path

from edgeproxy.cache.embedded import EmbeddedStore
from edgeproxy.cache.entry import Entry
from tests.cache.stores import entry

KEYS = 40
SIZES = (0, 10, 700, 1500, 2500, 20_000, 100_000, 300_000)


def url(index: int) -> bytes:
    return b"http://example.com/%d" % index


def body_of(tag: bytes) -> bytes:
    """The only right body for an entity tag."""
    digest = hashlib.sha256(tag).digest()
    return (digest * (SIZES[-1] // 32 + 1))[: SIZES[digest[0] % len(SIZES)]]


def is_whole(found: Entry) -> bool:
    return found.stored.etag is not None and found.body == body_of(found.stored.etag)


async def churn(folder: Path, seed: int) -> None:
    store = EmbeddedStore.open(folder / "store", folder / "purge.log")
    dice = random.Random(seed)
    loop = asyncio.get_running_loop()
    print("ready", flush=True)
    while True:
        done: list[asyncio.Future[None]] = []
        for _ in range(dice.randrange(1, 40)):
            tag = b"%d-%d" % (seed, time.monotonic_ns())
            place = url(dice.randrange(KEYS))
            vary = {b"accept": b"%d" % dice.randrange(3)} if dice.random() < 0.3 else None
            made = entry(place, body_of(tag), etag=tag, vary=vary, tags=(b"t%d" % dice.randrange(5),))
            what = dice.random()
            if what < 0.1:
                store.discard(place)
            elif what < 0.3:
                store.freshen(made)
            else:
                future = loop.create_future()
                done.append(future)
                store.put(made, lambda future=future: future.set_result(None))  # type: ignore[misc]
        for future in done:
            await future


if __name__ == "__main__":
    asyncio.run(churn(Path(sys.argv[1]), int(sys.argv[2])))
