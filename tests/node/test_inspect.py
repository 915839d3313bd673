"""What a worker says of its cache: on a real socket, of real tiers."""

import asyncio
import contextlib
import os
import socket
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
import uvloop

from edgeproxy.cache import Entry, HotMemory, Stored
from edgeproxy.cache.embedded import EmbeddedStore, prepare
from edgeproxy.cache.key import KeyRules, variant
from edgeproxy.cache.purge import Kind
from edgeproxy.cache.purge_log import PurgeLog
from edgeproxy.cache.tiers import Tiers
from edgeproxy.node import inspect
from edgeproxy.node.inspect import Answer, Inspector, Question, answer, ask, socket_name
from tests.support import until

SECOND = 1_000_000_000
NOW = 1_800_000_000 * SECOND
URL = b"http://a.test/x?q=1"
FILLED_BY = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def stored(**changes: Any) -> Stored:
    values: dict[str, Any] = {
        "key": URL,
        "url": URL,
        "vary": (),
        "variant": b"",
        "status": 200,
        "reason": b"OK",
        "lines": [(b"Content-Type", b"text/plain")],
        "born_ns": NOW - 30 * SECOND,
        "fresh_until_ns": NOW + 60 * SECOND,
        "stale_while_revalidate_ns": 5 * SECOND,
        "stale_if_error_ns": 7 * SECOND,
        "must_revalidate": False,
        "stored_ns": NOW - 20 * SECOND,
        "filled_by": FILLED_BY,
        "origin": "app",
        "etag": b'"v1"',
        "last_modified": b"Wed, 21 Oct 2015 07:28:00 GMT",
        "tags": (b"red", b"blue"),
        "purge_seq": 0,
    }
    return Stored(**(values | changes))


@pytest.fixture
def log(tmp_path: Path) -> PurgeLog:
    return PurgeLog.create(tmp_path / "purge.log")


@pytest.fixture
def tiers(log: PurgeLog) -> Tiers:
    return Tiers(HotMemory(1024 * 1024), None, log, None)


def asked(tiers: Tiers, url: bytes = URL, *, now_ns: int = NOW) -> Answer:
    return asyncio.run(looked(tiers, url, now_ns=now_ns))


async def looked(tiers: Tiers, url: bytes = URL, *, now_ns: int = NOW) -> Answer:
    return await answer(Question(url=url.decode("latin-1"), store=True, now_ns=now_ns), tiers)


def test_all_that_is_known_of_a_response_is_said(tiers: Tiers) -> None:
    tiers.put(Entry(stored(), b"hello"))
    (copy,) = asked(tiers).memory
    assert msgspec.structs.asdict(copy) == {
        "url": "http://a.test/x?q=1",
        "key": "",
        "vary": {},
        "status": 200,
        "size_bytes": 5,
        "state": "fresh",
        "age_s": 30.0,
        "fresh_s": 60.0,
        "stale_while_revalidate_s": 5.0,
        "stale_if_error_s": 7.0,
        "must_revalidate": False,
        "etag": '"v1"',
        "last_modified": "Wed, 21 Oct 2015 07:28:00 GMT",
        "tags": ("red", "blue"),
        "filled_by": FILLED_BY,
        "origin": "app",
        "stored": "2027-01-15T07:59:40.000+00:00",
        "why": "",
    }


def test_each_variant_is_named_by_what_selects_it(tiers: Tiers) -> None:
    rules = KeyRules(headers=["X-Shop"])
    vary = (b"accept-encoding", b"accept-language")
    for names in ({b"accept-language": b"de", b"x-shop": b"1"}, {b"accept-encoding": b"br", b"accept-language": b""}):
        key = rules.primary(URL, names)
        tiers.put(Entry(stored(key=key, vary=vary, variant=variant(vary, names)), b""))
    found = {copy.key: copy.vary for copy in asked(tiers).memory}
    assert found == {
        "h:x-shop=1:1;": {"accept-encoding": None, "accept-language": "de"},
        "h:x-shop;": {"accept-encoding": "br", "accept-language": ""},
    }


def test_only_the_url_asked_for_is_shown_and_looking_is_no_use_of_it(tiers: Tiers) -> None:
    entry = Entry(stored(), b"")
    tiers.put(entry)
    tiers.put(Entry(stored(key=URL + b"0", url=URL + b"0"), b""))
    assert len(asked(tiers).memory) == 1
    assert asked(tiers, b"http://a.test/x").memory == ()
    assert not entry.visited


def test_the_state_follows_the_clock(tiers: Tiers) -> None:
    tiers.put(Entry(stored(), b""))
    (copy,) = asked(tiers, now_ns=NOW + 61 * SECOND).memory
    assert (copy.state, copy.age_s, copy.fresh_s) == ("stale", 91.0, -1.0)


def test_a_purge_shows_before_the_entry_is_gone(tiers: Tiers, log: PurgeLog) -> None:
    tiers.put(Entry(stored(), b""))
    log.append(Kind.TAG, b"red", True, NOW - SECOND)
    tiers.take_rules()
    (copy,) = asked(tiers).memory
    assert (copy.state, copy.fresh_s) == ("stale", -1.0)
    log.append(Kind.URL, URL, False, NOW)
    tiers.take_rules()
    (copy,) = asked(tiers).memory
    assert copy.state == "purged"


def test_what_is_remembered_as_not_stored_is_no_response(tiers: Tiers) -> None:
    tiers.put(Entry(stored(uncacheable="set-cookie"), b""))
    (copy,) = asked(tiers).memory
    assert (copy.state, copy.why) == ("not stored", "set-cookie")


def test_many_variants_are_cut_and_counted(tiers: Tiers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspect, "MAX_COPIES", 3)
    for number in range(5):
        value = b"%d" % number
        tiers.put(Entry(stored(vary=(b"a",), variant=value, stored_ns=NOW + number), b""))
    found = asked(tiers)
    assert [copy.vary["a"] for copy in found.memory] == ["4", "3", "2"]
    assert found.more == 2


async def test_the_store_is_asked_as_well(tmp_path: Path, log: PurgeLog) -> None:
    folder = tmp_path / "store"
    prepare(folder, 16 * 1024 * 1024, log.instance)
    store = EmbeddedStore.open(folder, log.path)
    try:
        tiers = Tiers(HotMemory(0), store, log, None)
        written = asyncio.Event()
        store.put(Entry(stored(), b"hello"), written.set)
        await written.wait()
        found = await looked(tiers)
        assert found.memory == ()
        assert [(copy.state, copy.size_bytes) for copy in found.store] == [("fresh", 5)]
        assert found.stats is not None
        assert (found.stats.kind, found.stats.entries) == ("embedded", 1)
        assert (await answer(Question(url=URL.decode(), now_ns=NOW), tiers)).store == ()
    finally:
        store.close()


# --- the socket


class Served:
    """An inspector in a loop of its own, as a worker has it."""

    def __init__(self, folder: Path, tiers: Tiers, index: int = 0) -> None:
        self._parts = folder, index, tiers

    async def __aenter__(self) -> Inspector:
        self._inspector = Inspector(*self._parts)
        await self._inspector.start()
        return self._inspector

    async def __aexit__(self, *_: object) -> None:
        self._inspector.close()


def unfinished(folder: Path) -> list[Path]:
    return list(folder.glob(".*"))


async def asked_at(folder: Path, index: int = 0, **options: Any) -> Answer | None:
    question = Question(url=URL.decode(), now_ns=NOW)
    return await asyncio.to_thread(lambda: ask(folder, index, question, **options))


@pytest.mark.parametrize("run", [uvloop.run, asyncio.run])
def test_a_worker_answers_on_its_socket(tmp_path: Path, tiers: Tiers, run: Any) -> None:
    tiers.put(Entry(stored(), b"hello"))

    async def go() -> None:
        async with Served(tmp_path, tiers, 3):
            found = await asked_at(tmp_path, 3)
            assert found == await looked(tiers)
            assert found.pid == os.getpid()

    run(go())


async def test_a_deep_directory_is_no_obstacle(tmp_path: Path, tiers: Tiers) -> None:
    folder = tmp_path / ("x" * 120)
    folder.mkdir()
    async with Served(folder, tiers):
        assert await asked_at(folder) is not None


async def test_the_next_worker_of_an_index_takes_the_name_over(tmp_path: Path, tiers: Tiers) -> None:
    other = Tiers(HotMemory(1024), None, PurgeLog.open(tmp_path / "purge.log"), None)
    other.put(Entry(stored(), b""))
    async with Served(tmp_path, other) as first, Served(tmp_path, tiers):
        first.close()
        answered = await asked_at(tmp_path)
    assert answered is not None
    assert answered.memory == ()
    assert unfinished(tmp_path) == []


async def test_nobody_there_and_nobody_who_answers_are_the_same(tmp_path: Path, tiers: Tiers) -> None:
    assert await asked_at(tmp_path) is None
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / socket_name(0)))
        assert await asked_at(tmp_path) is None
        left.listen()
        before = time.monotonic()
        assert await asked_at(tmp_path, timeout_s=0.1) is None
        assert time.monotonic() - before < 5


async def test_what_can_not_be_understood_ends_the_connection_and_nothing_else(tmp_path: Path, tiers: Tiers) -> None:
    async with Served(tmp_path, tiers):
        for nonsense in (b"\n", b"nonsense\n", b'{"url": 3}\n', b"x" * 1_000_000, b""):
            reader, writer = await asyncio.open_unix_connection(tmp_path / socket_name(0))
            with contextlib.suppress(ConnectionError):
                writer.write(nonsense)
                writer.write_eof()
                assert await reader.read() == b""
            writer.close()
        assert await asked_at(tmp_path) is not None


async def test_who_asks_and_says_nothing_is_left(tmp_path: Path, tiers: Tiers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspect, "TIMEOUT_S", 0.05)
    async with Served(tmp_path, tiers):
        reader, writer = await asyncio.open_unix_connection(tmp_path / socket_name(0))
        assert await asyncio.wait_for(reader.read(), 10) == b""
        writer.close()


async def test_a_directory_that_is_gone_is_said_and_the_worker_goes_on(
    tmp_path: Path, tiers: Tiers, capfd: pytest.CaptureFixture[str]
) -> None:
    async with Served(tmp_path / "gone", tiers):
        pass
    until(lambda: "can't be asked" in "".join(capfd.readouterr()), "the message")
