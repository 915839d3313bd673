"""A worker's memory stays as it is, however many URLs come that never came before: what it remembers of any of them is
bounded, and what was under way leaves nothing behind.
"""

import gc
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import pytest

from edgeproxy.cache.memory import HotMemory
from edgeproxy.cache.operations import Operations
from edgeproxy.cache.purge import Kind, Purge
from edgeproxy.cache.redis import RedisStore, open_store, reading, rules
from edgeproxy.cache.redis.cluster import SLOTS
from edgeproxy.config import RedisCache
from tests.cache.redis.scripted import OK, Scripted, soon
from tests.cache.stores import entry

BATCH = 240
WARM_UP_URLS, URLS = 10 * BATCH, 40 * BATCH
BOUND = 100
"""Of what is remembered, here: it is full before the warm-up has ended."""
LEFT_BLOCKS = URLS // 20
"""How many more objects there may be afterwards: what remembers one URL in twenty has more than that."""
LANGUAGE = {b"accept-language": b"de"}


def text(value: bytes | None) -> bytes:
    """A bulk string, or null."""
    return b"$-1\r\n" if value is None else b"$%d\r\n%b\r\n" % (len(value), value)


def array(*parts: bytes) -> bytes:
    return b"*%d\r\n%b" % (len(parts), b"".join(parts))


class Values:
    """A Redis of one server that knows what was set, until it is told to forget it. URLs under /refused/ are errors,
    those under /damaged/ have values that nobody can read.
    """

    def __init__(self, server: Scripted) -> None:
        """Answer for a server."""
        self.values: dict[bytes, bytes] = {}
        self.is_silent = False
        self._server = server
        words = rules.adding(b"", Purge(Kind.TAG, b"none"), 0)[3:]
        self._rules = array(array(text(b"1-0"), array(*(text(bytes(word)) for word in words if type(word) is bytes))))
        server.answer = self.answer

    def answer(self, words: list[bytes]) -> bytes | None:
        self._server.commands.clear()  # it is not what is watched here
        if self.is_silent:
            return None
        name, first = words[0], words[1] if len(words) > 1 else b""
        if name == b"CLUSTER":
            address = array(text(b"127.0.0.1"), b":%d\r\n" % self._server.port, text(b"me"))
            return array(array(b":0\r\n", b":%d\r\n" % (SLOTS - 1), address))
        if name == b"XRANGE":
            return self._rules
        if name not in (b"MGET", b"SET", b"UNLINK"):
            return OK
        if b"/refused/" in first:
            return b"-ERR it does not want to\r\n"
        if name == b"SET":
            self.values[first] = words[2]
        elif name == b"UNLINK":
            self.values.pop(first, None)
        elif b"/damaged/" in first:
            return array(*[text(b"nothing that can be read")] * (len(words) - 1))
        else:
            return array(*(text(self.values.get(key)) for key in words[1:]))
        return OK


@dataclass
class Trace:
    trace_id: str
    flags: int = 1


NOTED, OTHER = Trace("0" * 31 + "1"), Trace("f" * 32)
"""A trace whose operations are noted in the trail, too, and one whose are not."""


@dataclass
class Asker:
    """A request."""

    trace: Trace
    operations: Operations | None = None
    started: float = 0.0


class Used:
    """A store, and requests that use it, each for a URL of its own."""

    def __init__(self, store: RedisStore, values: Values) -> None:
        """With the Redis behind it."""
        self.store = store
        self.values = values
        self.urls = 0
        self.found = 0

    async def use(self, urls: int) -> None:
        """Do all that can be done with a URL, to so many of them."""
        kinds = [self._stored, self._varying, self._missing, self._refused, self._damaged, self._discarded]
        for _ in range(urls // BATCH):
            for at in range(BATCH):
                self.urls += 1
                kinds[at % len(kinds)](b"%d" % self.urls)
            await self.settled()

    async def miss(self, urls: int) -> None:
        """Look so many of them up, none of which is there."""
        for at in range(urls):
            self.urls += 1
            self._missing(b"%d" % self.urls)
            if at % BATCH == BATCH - 1:
                await self.settled()

    async def settled(self) -> None:
        """Wait until nothing is under way; Redis forgets what it has."""
        await self.store.finish()
        self.values.values.clear()

    def asker(self) -> Asker:
        """A request; one of many is of a trace that is noted."""
        return Asker(OTHER if self.urls % 10 else NOTED)

    def look(self, url: bytes, then: Callable[[], None] = lambda: None) -> None:
        """Look a URL up, then do something else."""

        def found(item: object) -> None:
            self.found += item is not None
            then()

        self.store.lookup(url, LANGUAGE, found, self.asker())

    def _stored(self, number: bytes) -> None:
        url = b"http://test/stored/" + number
        self.store.put(entry(url), lambda: self.look(url, lambda: self.look(url)), self.asker())

    def _varying(self, number: bytes) -> None:
        url = b"http://test/varying/" + number
        self.store.put(entry(url, vary=LANGUAGE), lambda: self.look(url), self.asker())

    def _missing(self, number: bytes) -> None:
        self.look(b"http://test/missing/" + number)

    def _refused(self, number: bytes) -> None:
        url = b"http://test/refused/" + number
        self.look(url)
        self.store.put(entry(url, vary=LANGUAGE), None, self.asker())

    def _damaged(self, number: bytes) -> None:
        self.look(b"http://test/damaged/" + number)

    def _discarded(self, number: bytes) -> None:
        url = b"http://test/discarded/" + number
        self.store.put(entry(url, vary=LANGUAGE), lambda: self.store.discard(url, self.asker()), self.asker())


@pytest.fixture
async def used(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Used]:
    monkeypatch.setattr(reading, "MARKS_MAX", BOUND)
    monkeypatch.setattr(reading, "KNOWN_MAX", BOUND)
    monkeypatch.setattr(reading, "DAMAGES_SAID", 0)
    monkeypatch.setattr(rules, "CURRENT_S", float("inf"))  # whatever happens, and how slow the machine is
    async with Scripted() as server:
        values = Values(server)
        config = RedisCache(nodes=[f"127.0.0.1:{server.port}"], timeout_ms=1000)
        store = open_store(config, HotMemory(0), lambda: "0" * 16, {})
        store.start()
        await soon(lambda: store.health().nodes_well and store.rules.is_current, "the store to be usable")
        yield Used(store, values)
        store.close()


def blocks() -> int:
    """How many small objects there are."""
    gc.collect()
    return sys.getallocatedblocks()


async def test_memory_does_not_grow_with_unique_urls(used: Used) -> None:
    await used.use(WARM_UP_URLS)
    before = blocks()
    await used.use(URLS)
    assert used.found == (WARM_UP_URLS + URLS) // 6 * 3, "twice what was stored, once what varies"
    assert blocks() - before < LEFT_BLOCKS


async def test_look_ups_that_get_no_answer_leave_nothing(used: Used) -> None:
    used.values.is_silent = True
    before = blocks()
    await used.miss(BATCH)  # these wait in vain
    assert used.store.health().breaks == 1
    await used.miss(URLS)  # these are refused
    assert used.store.health().failures >= BATCH + URLS
    assert blocks() - before < LEFT_BLOCKS
