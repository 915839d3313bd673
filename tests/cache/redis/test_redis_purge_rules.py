"""The stream of purge rules: how many it holds, what knows them, and what a purge costs Redis."""

import asyncio
import json
import time
from collections.abc import Callable

import pytest

from edgeproxy.cache.entry import Entry
from edgeproxy.cache.memory import HotMemory
from edgeproxy.cache.purge import Kind, Purge
from edgeproxy.cache.redis import RedisStore, giver, open_store, rules
from edgeproxy.cache.redis.access import Access
from edgeproxy.cache.redis.layout import Names
from edgeproxy.cache.tiers import Tiers
from edgeproxy.config import RedisCache
from tests.cache.redis.load import is_busy
from tests.cache.redis.purging import FRESH, PREFIX, SITE, WITHIN_S, by_api, get, ready, stream, tables
from tests.cache.stores import URL, entry, put
from tests.support import Node, Origin, RedisServers, reply, until

PATH = "/page"


def access(cluster: RedisServers) -> Access:
    return Access(RedisCache(nodes=cluster.addresses), {})


def give(cluster: RedisServers, *purges: Purge) -> int:
    """Give rules as the command line does."""
    return giver.give(access(cluster), Names(PREFIX), purges).seq


def test_the_oldest_rules_go_and_what_knows_none_as_late_counts_as_purged(
    origin: Origin, redis_cluster: RedisServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "MAX_RULES", 20)
    monkeypatch.setattr(rules, "TRIM_RULES", 5)
    settings = tables(redis_cluster)
    origin.on(PATH, reply(b"old", FRESH))
    origin.on("/late", reply(b"late", FRESH))
    with Node(origin.url, **settings) as node:
        ready(node)
        assert get(node, PATH).body == b"old"
        for number in range(24):
            give(redis_cluster, Purge(Kind.TAG, b"t%d" % number))
        seq = give(redis_cluster, Purge(Kind.TAG, b"t"))
        until(lambda: node.worker().purge_seq >= seq, "the rules to be known")
        origin.on(PATH, reply(b"new", FRESH))
        assert get(node, PATH).body == b"old"  # it has read all of them, and none is about it
        assert get(node, "/late").body == b"late"
        until(lambda: redis_cluster.cluster_client().get(Names(PREFIX).primary(*[f"{SITE}/late".encode()] * 2)), "it")
        origin.on("/late", reply(b"later", FRESH))
    client, name = stream(redis_cluster)
    assert 20 <= client.xlen(name) <= 26
    with Node(origin.url, **settings) as later:
        ready(later)
        assert get(later, PATH).body == b"new"
        assert get(later, "/late").body == b"late"


def test_rules_that_are_lost_while_no_node_runs_do_not_bring_back_what_they_purged(
    origin: Origin, redis_cluster: RedisServers
) -> None:
    settings = tables(redis_cluster)
    client, name = stream(redis_cluster)
    url = f"{SITE}{PATH}".encode()
    origin.on(PATH, reply(b"old", FRESH))
    with Node(origin.url, **settings) as node:
        ready(node)
        assert get(node, PATH).body == b"old"
        until(lambda: client.exists(Names(PREFIX).primary(url, url)), "it to be stored")
        by_api(node, "url", PATH)
    origin.on(PATH, reply(b"new", FRESH))
    client.delete(name)
    with Node(origin.url, **settings) as later:
        ready(later)
        assert get(later, PATH).body == b"new"


async def test_a_worker_keeps_the_stream_bounded_and_has_it_stay(
    redis_cluster: RedisServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "MAX_RULES", 20)
    monkeypatch.setattr(rules, "TRIM_RULES", 5)
    store, tiers = opened(redis_cluster)
    client, name = stream(redis_cluster)
    try:
        await settled(lambda: store.rules.is_current)
        given: list[int] = []
        for number in range(100):
            tiers.purge(
                Purge(Kind.TAG, b"%d" % number), 0, lambda seq, error: given.append(seq if error is None else -1)
            )
            await settled(lambda number=number: len(given) == number + 1)  # type: ignore[misc]
        assert given == sorted(set(given))
        assert given[-1] <= tiers.purges.seq
        await settled(lambda: client.xlen(name) <= 26)
        assert client.pttl(name) > 300 * 86_400_000
        assert tiers.purges.check(b"", [b"99"], given[-2]).purged
        assert not tiers.purges.check(b"", [b"98"], given[-2]).purged
    finally:
        store.close()


async def test_many_rules_are_read_in_parts(redis_cluster: RedisServers) -> None:
    client, name = stream(redis_cluster)
    pipeline = client.pipeline()
    for number in range(2 * rules.PAGE + 1):
        pipeline.execute_command(*rules.adding(name, Purge(Kind.TAG, b"%d" % number), 0))
    ids = pipeline.execute()
    store, tiers = opened(redis_cluster)
    try:
        await settled(lambda: store.rules.is_current)
        assert store.rules.seq == rules.seq_of(ids[-1])
        tiers.take_rules()
        for number in (0, rules.PAGE, 2 * rules.PAGE):
            seq = rules.seq_of(ids[number])
            assert tiers.purges.check(b"", [b"%d" % number], seq - 1).purged
            assert not tiers.purges.check(b"", [b"%d" % number], seq).purged
    finally:
        store.close()


def opened(cluster: RedisServers) -> tuple[RedisStore, Tiers]:
    """A worker's cache, in this process; a busy machine is no time-out."""
    memory = HotMemory(0)
    config = RedisCache(nodes=cluster.addresses, prefix=PREFIX, timeout_ms=5000)
    store = open_store(config, memory, lambda: "0" * 16, {})
    tiers = Tiers(memory, store, store.rules, None)
    tiers.start()
    return store, tiers


async def settled(condition: Callable[[], object]) -> None:
    """Let the loop run until a condition holds."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110  Redis tells nobody
            await asyncio.sleep(0.001)


@pytest.mark.parametrize(
    "purge", [Purge(Kind.URL, URL), Purge(Kind.PREFIX, URL[:-1]), Purge(Kind.TAG, b"t"), Purge(Kind.ALL, b"")],
    ids=["url", "prefix", "tag", "all"],
)  # fmt: skip
async def test_what_a_node_stores_before_it_hears_of_a_purge_is_found_by_none(
    redis_cluster: RedisServers, purge: Purge
) -> None:
    (purging, purging_tiers), (filling, filling_tiers) = opened(redis_cluster), opened(redis_cluster)
    try:
        for store, tiers in ((purging, purging_tiers), (filling, filling_tiers)):
            await settled(lambda store=store: store.rules.seq)  # type: ignore[misc]
            tiers.take_rules()
        asked_at = filling_tiers.purges.seq  # its fetch begins, and it takes no rule any more
        given: list[int] = []
        purging_tiers.purge(purge, 0, lambda seq, _: given.append(seq))
        await settled(lambda: given)
        await put(filling, entry(tags=(b"t",), purge_seq=asked_at))
        assert await found(purging_tiers) is None
        filling_tiers.take_rules()
        assert await found(filling_tiers) is None
        await put(filling, entry(tags=(b"t",), purge_seq=given[0]))
        assert await found(purging_tiers) is not None
    finally:
        purging.close()
        filling.close()


async def found(tiers: Tiers) -> Entry | None:
    """What a worker has for the URL."""
    future: asyncio.Future[Entry | None] = asyncio.get_running_loop().create_future()
    tiers.lookup(URL, {}, None, future.set_result)
    return await asyncio.wait_for(future, 10)


@pytest.mark.parametrize("kind", [Kind.PREFIX, Kind.ALL], ids=["prefix", "all"])
def test_a_purge_takes_as_few_commands_with_20_000_entries_as_with_10(redis_cluster: RedisServers, kind: Kind) -> None:
    names = Names(PREFIX)
    client = redis_cluster.cluster_client()
    purge = Purge(kind, b"" if kind == Kind.ALL else SITE.encode())
    give(redis_cluster, purge)
    used = []
    for entries in (10, 20_000):
        pipeline = client.pipeline()
        for number in range(entries):
            url = f"{SITE}/{number}".encode()
            pipeline.set(names.primary(url, url), b"x", px=600_000)
        pipeline.execute()
        before = calls(redis_cluster)
        begun = time.monotonic()
        give(redis_cluster, purge)
        assert time.monotonic() - begun < WITHIN_S or is_busy()
        after = calls(redis_cluster)
        used.append({name: number - before.get(name, 0) for name, number in after.items()})
    few, many = used
    assert sum(many.values()) <= sum(few.values()) + 2, json.dumps([few, many])
    assert not {name for name, number in many.items() if number} & {"keys", "scan", "del", "unlink", "fcall", "eval"}


COMING_AND_GOING = ("cluster", "hello", "auth", "client", "info", "xrange", "ping", "replconf", "echo", "command")
"""What connections, the tests' nodes and the replicas ask for by themselves."""


def calls(cluster: RedisServers) -> dict[str, int]:
    """How often each command was executed by the masters."""
    found: dict[str, int] = {}
    for master in cluster.masters():
        for line, stats in master.control.info("commandstats").items():
            name = line.removeprefix("cmdstat_")
            if not name.startswith(COMING_AND_GOING):
                found[name] = found.get(name, 0) + stats["calls"]
    return found
