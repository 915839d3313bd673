"""One store with so many small objects, and how long a look-up in it takes; `python -m bench.lookups`, a process of its
own for each store and number, pinned to the server's core.

It fills the store, says what an object takes up, then measures a round for each line on its standard input, so that
rounds of several processes can alternate. Nothing but the look-up is timed, as CPU time: the worker's own call, with a
key that was made for it, as a request's is. Three patterns, since they cost different things:

- at random over all objects: the look-up with all that the processor's caches and TLB do not hold;
- the same few of the objects: the look-up alone, whatever it touches being in the caches;
- at random over a plain list of the objects, by number, marking each as a hit does: what reaching so many objects costs
  without any look-up. For what lies in the process's memory only.
"""

import argparse
import asyncio
import gc
import json
import os
import random
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.machine import memory_bytes
from edgeproxy.cache.embedded import EmbeddedStore, prepare
from edgeproxy.cache.entry import Entry
from edgeproxy.cache.memory import HotMemory
from edgeproxy.cache.stored import Stored

FEW = 64
"""Objects that a first-level cache holds with all that a look-up touches."""
BODY_BYTES = 100
BATCH = 1000
MORE_THAN_ENOUGH = 1 << 50
FILE_BYTES_EACH, FILE_BYTES = 8 * 1024, 64 * 1024 * 1024
NO_FIELDS: Mapping[bytes, bytes] = {}


def key(number: int) -> bytes:
    """A key as requests have them, made anew with each call."""
    return b"http://www.example.com/pictures/%d.jpg" % number


def entry(number: int) -> Entry:
    """A small object with four fields, nothing of which it shares with others but its origin's name."""
    its_key = key(number)
    fields = [(b"Content-Type", b"text/plain"), (b"Cache-Control", b"max-age=3600"), (b"Server", b"nginx")]
    stored = Stored(
        key=its_key,
        url=its_key,
        vary=(),
        variant=b"",
        status=200,
        reason=b"OK",
        lines=[(bytes(bytearray(n)), bytes(bytearray(v))) for n, v in (*fields, (b"ETag", b'"%d"' % number))],
        born_ns=time.time_ns(),
        fresh_until_ns=time.time_ns() + 3600 * 10**9,
        stale_while_revalidate_ns=0,
        stale_if_error_ns=0,
        must_revalidate=False,
        stored_ns=time.time_ns(),
        filled_by=f"00-{number:032x}-{number:016x}-01",
        origin="origin",
        etag=b'"%d"' % number,
    )
    return Entry(stored, os.urandom(BODY_BYTES))


class Subject(ABC):
    """A store under measurement."""

    lookups: int
    """How many make a round of one pattern: a tenth of a second or so."""

    @abstractmethod
    async def fill(self, count: int) -> dict[str, float]:
        """Stores objects 0 to `count` - 1; says what each takes up, in bytes: `real_bytes` and as it is `counted`."""

    @abstractmethod
    def look_up(self, keys: Sequence[bytes]) -> float:
        """Looks all of them up; seconds. Raises LookupError if one is not there."""

    def by_number(self, numbers: Sequence[int]) -> float | None:  # noqa: ARG002
        """Reaches these objects without a look-up; seconds, or None where nothing can be reached so."""
        return None


class Memory(Subject):
    """The worker's hot memory."""

    lookups = 100_000

    async def fill(self, count: int) -> dict[str, float]:
        self._hot = HotMemory(MORE_THAN_ENOUGH)
        gc.collect()
        before = memory_bytes(os.getpid())
        for number in range(count):
            self._hot.put(entry(number))
        gc.collect()
        real = (memory_bytes(os.getpid()) - before) / count
        found = (self._hot.get(key(number), NO_FIELDS) for number in range(count))
        self._all = [each for each in found if each is not None]
        return {"real_bytes": real, "counted_bytes": self._hot.size_bytes / count}

    def look_up(self, keys: Sequence[bytes]) -> float:
        get, found = self._hot.get, True
        began = time.thread_time()
        for each in keys:
            if get(each, NO_FIELDS) is None:
                found = False
        seconds = time.thread_time() - began
        if not found:
            raise LookupError("hot memory has lost an object")
        return seconds

    def by_number(self, numbers: Sequence[int]) -> float | None:
        everything = self._all
        began = time.thread_time()
        for number in numbers:
            everything[number].visited = True
        return time.thread_time() - began


class Embedded(Subject):
    """The store that a host's workers share: an entry is decoded, its body copied and its head rendered."""

    lookups = 20_000

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def fill(self, count: int) -> dict[str, float]:
        prepare(self._folder / "store", FILE_BYTES + FILE_BYTES_EACH * count, 1)
        self._store = EmbeddedStore.open(self._folder / "store")
        for first in range(0, count, BATCH):
            batch = [entry(number) for number in range(first, min(first + BATCH, count))]
            done = asyncio.Event()
            for each in batch[:-1]:
                self._store.put(each)
            self._store.put(batch[-1], done.set)
            await done.wait()
        stats = self._store.stats()
        if stats.entries != count:
            raise LookupError(f"the embedded store has {stats.entries:,} of {count:,} objects")
        return {"real_bytes": stats.size_bytes / count, "counted_bytes": stats.size_bytes / count}

    def look_up(self, keys: Sequence[bytes]) -> float:
        lookup, missing = self._store.lookup, 0

        def found(entry: Entry | None) -> None:
            nonlocal missing
            if entry is None:
                missing += 1

        began = time.thread_time()
        for each in keys:
            lookup(each, NO_FIELDS, found)
        seconds = time.thread_time() - began
        if missing:
            raise LookupError(f"the embedded store has lost {missing:,} objects")
        return seconds


def measure(subject: Subject, count: int, chance: random.Random) -> dict[str, float | None]:
    """One round of every pattern; nanoseconds a look-up."""
    each_ns = 1e9 / subject.lookups
    numbers = [chance.randrange(count) for _ in range(subject.lookups)]
    few = [chance.randrange(count) for _ in range(FEW)]
    by_number = subject.by_number(numbers)
    return {
        "by_number_ns": None if by_number is None else by_number * each_ns,
        "random_ns": subject.look_up([key(number) for number in numbers]) * each_ns,
        "few_ns": subject.look_up([key(few[i % FEW]) for i in range(subject.lookups)]) * each_ns,
    }


def main() -> None:
    """Prints a line of JSON when the store is full, and one for each line read."""
    parser = argparse.ArgumentParser(prog="python -m bench.lookups", description=__doc__)
    parser.add_argument("store", choices=["memory", "embedded"])
    parser.add_argument("entries", type=int)
    parser.add_argument("folder", type=Path, help="an empty one, for what is on disk")
    options = parser.parse_args()
    subject = Memory() if options.store == "memory" else Embedded(options.folder)
    gc.disable()
    chance = random.Random(options.entries)
    print(json.dumps(asyncio.run(subject.fill(options.entries))), flush=True)
    measure(subject, options.entries, chance)  # to warm up
    for _ in sys.stdin:
        print(json.dumps(measure(subject, options.entries, chance)), flush=True)


if __name__ == "__main__":
    main()
