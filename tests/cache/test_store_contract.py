"""What every store promises, whatever it is made of (`cache.store`). Another store is one more place in PLACES."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Protocol

import msgspec
import pytest

from edgeproxy.cache.embedded import EmbeddedStore, prepare
from edgeproxy.cache.memory import HotMemory
from edgeproxy.cache.purge_log import PurgeLog
from edgeproxy.cache.redis import open_store
from edgeproxy.cache.redis.store import RedisStore
from edgeproxy.cache.store import Store
from edgeproxy.config import RedisCache
from edgeproxy.tracing import IdSource
from tests.cache.stores import SECOND_NS, URL, entry, find, put, settle
from tests.support import RedisServers

MIB = 1024 * 1024


class Place(Protocol):
    """Where a store lies, empty at first."""

    async def opened(self) -> Store:
        """The store, as another process would open it."""

    async def entries(self, store: Store) -> int:
        """How many responses there are."""


class Folder:
    """The embedded store's."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self.folder: Path = request.getfixturevalue("tmp_path")

    async def opened(self) -> EmbeddedStore:
        log = PurgeLog.ensure(self.folder / "purge.log")
        prepare(self.folder / "store", 64 * MIB, log.instance)
        log.close()
        return EmbeddedStore.open(self.folder / "store", self.folder / "purge.log")

    async def entries(self, store: Store) -> int:
        return (await store.status()).entries


class RedisCluster:
    """The shared store's."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self.servers: RedisServers = request.getfixturevalue("small_redis_cluster")

    async def opened(self) -> RedisStore:
        config = RedisCache(nodes=self.servers.addresses, max_object_bytes=8 * MIB, timeout_ms=5000)
        store = open_store(config, HotMemory(0), IdSource().span_id, {})
        store.start()
        async with asyncio.timeout(20):
            while not (store.rules.is_current and all(node.is_well for node in store.cluster.masters)):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        return store

    async def entries(self, store: Store) -> int:
        """Those that a look-up finds: what lies under an earlier Vary is left to its TTL."""
        urls = await asyncio.to_thread(self._urls)
        return sum([len(await store.show(url)) for url in urls])

    def _urls(self) -> set[bytes]:
        names = [name for node in self.servers.masters() for name in self.servers.client(node).keys("*:{*://*")]
        return {name.partition(b"{")[2].rpartition(b"}")[0] for name in names}


PLACES: dict[str, Callable[[pytest.FixtureRequest], Place]] = {"embedded": Folder, "redis": RedisCluster}


@pytest.fixture(scope="module")
def all_small_redis_cluster() -> Iterator[RedisServers]:
    with RedisServers(node_timeout_ms=5000, config={"maxmemory": "24mb", "maxmemory-policy": "allkeys-lfu"}) as started:
        yield started


@pytest.fixture
def small_redis_cluster(all_small_redis_cluster: RedisServers) -> RedisServers:
    all_small_redis_cluster.flush()
    return all_small_redis_cluster


@pytest.fixture(params=PLACES.values(), ids=PLACES.keys())
def place(request: pytest.FixtureRequest) -> Place:
    return request.param(request)  # type: ignore[no-any-return]


@pytest.fixture
async def store(place: Place) -> AsyncIterator[Store]:
    made = await place.opened()
    yield made
    made.close()


LANGUAGE = {b"accept-language": b"de"}


async def test_what_was_put_is_found_as_it_was(store: Store) -> None:
    whole = entry(
        body=bytes(range(256)) * 1000,
        lines=[(b"X-A", b"1"), (b"x-a", b"\xff 2"), (b"Set-Cookie", b"")],
        last_modified=b"Mon, 20 Jan 2025 10:10:10 GMT",
        tags=(b"a", b"b"),
        purge_seq=7,
        must_revalidate=True,
        stale_if_error_ns=5,
    )
    await put(store, whole)
    found = await find(store)
    assert found is not None
    assert (found.stored, found.body, found.head) == (whole.stored, whole.body, whole.head)
    assert found.purge_seq >= 7


async def test_nothing_is_found_where_nothing_was_put(store: Store) -> None:
    await put(store, entry())
    assert await find(store, URL + b"/other") is None
    assert await find(store, b"") is None


@pytest.mark.parametrize("size", [0, 1, 100, 1400, 1500, 2000, 4096, 32752, 32753, 65504, 3 * MIB])
async def test_bodies_of_every_size_come_back(store: Store, size: int) -> None:
    body = bytes(index * 7 % 251 for index in range(1024)) * (size // 1024 + 1)
    await put(store, entry(body=body[:size]))
    found = await find(store)
    assert found is not None
    assert found.body == body[:size]


async def test_keys_and_urls_of_every_length_are_told_apart(store: Store) -> None:
    urls = [b"http://example.com/" + b"x" * length for length in (0, 1, 400, 420, 421, 422, 500, 511, 512, 9000, 9001)]
    await put(store, *(entry(url, url) for url in urls))
    for url in urls:
        found = await find(store, url)
        assert found is not None
        assert found.body == url
        assert [head.url for head, _ in await store.show(url)] == [url]


@pytest.mark.parametrize("body", [b"new", b""], ids=["some-body", "no-body"])
async def test_what_is_put_later_takes_the_place_of_what_was_there(store: Store, place: Place, body: bytes) -> None:
    await put(store, entry(body=b"old" * 40000, tags=(b"old",)))
    await put(store, entry(body=body))
    found = await find(store)
    assert found is not None
    assert found.body == body
    assert await place.entries(store) == 1


async def test_variants_are_told_apart_by_the_requests_fields(store: Store) -> None:
    await put(store, *(entry(body=value, vary={b"accept-language": value}) for value in (b"de", b"en")))
    for value in (b"de", b"en"):
        found = await find(store, names={b"accept-language": value, b"accept": b"*/*"})
        assert found is not None
        assert found.body == value
    assert await find(store, names={b"accept-language": b"fr"}) is None
    assert await find(store, names={}) is None


async def test_one_variant_is_replaced_and_the_others_stay(store: Store) -> None:
    await put(store, *(entry(body=value, vary={b"accept-language": value}) for value in (b"de", b"en")))
    await put(store, entry(body=b"neu", vary=LANGUAGE))
    assert {size for _, size in await store.show(URL)} == {2, 3}


async def test_a_resource_that_varies_by_other_fields_is_another_one(store: Store, place: Place) -> None:
    await put(store, entry(body=b"de", vary=LANGUAGE))
    await put(store, entry(body=b"gz", vary={b"accept-encoding": b"gzip"}))
    assert await find(store, names=LANGUAGE) is None
    found = await find(store, names=LANGUAGE | {b"accept-encoding": b"gzip"})
    assert found is not None
    assert found.body == b"gz"
    assert await place.entries(store) == 1


async def test_a_resource_that_varies_no_more_is_for_everybody(store: Store, place: Place) -> None:
    await put(store, entry(body=b"de", vary=LANGUAGE))
    await put(store, entry(body=b"all"))
    for names in ({}, LANGUAGE):
        found = await find(store, names=names)
        assert found is not None
        assert found.body == b"all"
    await put(store, entry(body=b"de", vary=LANGUAGE))
    assert await find(store, names={}) is None
    assert await place.entries(store) == 1


async def test_keys_with_more_than_the_url_share_it(store: Store) -> None:
    await put(store, *(entry(key=URL + b"\x00" + device, body=device) for device in (b"phone", b"tablet")))
    assert await find(store) is None
    found = await find(store, URL + b"\x00phone")
    assert found is not None
    assert found.body == b"phone"
    assert len(await store.show(URL)) == 2


async def test_a_fresher_head_keeps_the_body(store: Store, place: Place) -> None:
    old = entry(body=b"body" * 20000, tags=(b"a",))
    await put(store, old)
    head = msgspec.structs.replace(
        old.stored, lines=[(b"X-New", b"line" * 600)], fresh_until_ns=old.fresh_until_ns + SECOND_NS, tags=(b"b",)
    )
    store.freshen(old.with_stored(head))
    await settle(store)
    found = await find(store)
    assert found is not None
    assert (found.stored, found.body) == (head, old.body)
    assert await place.entries(store) == 2  # and what `settle` put


@pytest.mark.parametrize("size", [10, 100_000])
async def test_a_fresher_head_never_gets_another_responses_body(store: Store, size: int) -> None:
    old = entry(body=b"o" * size)
    await put(store, old)
    await put(store, entry(body=b"n" * size, etag=b'"2"'))
    store.freshen(old.with_stored(msgspec.structs.replace(old.stored, fresh_until_ns=old.fresh_until_ns + 1)))
    await settle(store)
    found = await find(store)
    assert found is not None
    assert (found.stored.etag, found.body) in {(b'"1"', b"o" * size), (b'"2"', b"n" * size)}


async def test_a_head_is_freshened_though_its_response_is_gone(store: Store) -> None:
    store.freshen(entry(body=b"whole"))
    await settle(store)
    found = await find(store)
    assert found is None or found.body == b"whole"


async def test_what_is_discarded_is_gone_at_once_with_all_its_variants(store: Store, place: Place) -> None:
    other = URL + b"/other"
    await put(store, entry(other), *(entry(vary={b"accept-language": value}) for value in (b"de", b"en", b"fr")))
    store.discard(URL)
    assert await find(store, names=LANGUAGE) is None
    await settle(store)
    assert await find(store, names=LANGUAGE) is None
    assert await find(store, other) is not None
    assert await store.show(URL) == []
    assert await place.entries(store) == 2  # the other one, and what `settle` put


async def test_what_is_put_after_it_was_discarded_is_found(store: Store) -> None:
    await put(store, entry(body=b"old"))
    store.discard(URL)
    store.discard(URL + b"/never-there")
    await put(store, entry(body=b"new"))
    found = await find(store)
    assert found is not None
    assert found.body == b"new"


async def test_that_a_key_is_not_stored_is_remembered(store: Store) -> None:
    await put(store, entry(body=b"", uncacheable="set-cookie"))
    found = await find(store)
    assert found is not None
    assert found.stored.uncacheable == "set-cookie"
    assert found.fresh_until_ns == 0


async def test_variants_say_what_is_stored_for_a_url(store: Store) -> None:
    await put(store, entry(body=b"1234", vary=LANGUAGE, tags=(b"a",)), entry(URL + b"?x=1"))
    ((head, size),) = await store.show(URL)
    assert (head.variant, head.tags, size) == (b"de", (b"a",), 4)
    assert await store.show(URL[:-1]) == []


async def test_stats_count_what_is_there(store: Store, place: Place) -> None:
    assert await place.entries(store) == 0
    await put(store, *(entry(URL + b"/%d" % index, b"x" * 10_000) for index in range(100)))
    stats = await store.status()
    assert await place.entries(store) == 100
    assert 1_000_000 <= stats.size_bytes <= stats.capacity_bytes
    assert (stats.evictions, stats.failures) == (0, 0)


async def test_what_can_never_fit_is_not_stored_and_said_to_be_done(store: Store) -> None:
    await put(store, entry(body=bytes((await store.status()).capacity_bytes)))
    assert await find(store) is None


async def test_more_than_fits_makes_room_for_itself(store: Store, place: Place) -> None:
    capacity = (await store.status()).capacity_bytes
    body = bytes(MIB)
    count = 2 * capacity // MIB
    for index in range(count):
        await put(store, entry(URL + b"/%d" % index, body))
    stats = await store.status()
    assert stats.size_bytes <= capacity
    assert await place.entries(store) >= capacity // MIB // 2
    assert stats.evictions >= count // 3
    assert stats.failures == 0
    assert await find(store, URL + b"/%d" % (count - 1)) is not None


async def test_what_is_asked_for_again_and_again_stays(store: Store) -> None:
    capacity = (await store.status()).capacity_bytes
    await put(store, entry(body=b"wanted" * 1000))
    for index in range(3 * capacity // MIB):
        await put(store, entry(URL + b"/%d" % index, bytes(MIB)))
        assert await find(store) is not None, index


async def test_a_store_that_is_closed_with_work_to_do_does_it_first(place: Place) -> None:
    first = await place.opened()
    for index in range(300):
        first.put(entry(URL + b"/%d" % index))
    await first.finish()
    first.close()
    first.close()  # nothing more happens
    second = await place.opened()
    assert await place.entries(second) == 300
    assert await find(second, URL + b"/299") is not None
    second.close()
