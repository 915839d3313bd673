"""The embedded store through what happens to it: killed processes, damaged files, full disks, purges."""

import asyncio
import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import lmdb
import pytest

from edgeproxy.cache.embedded import EmbeddedStore, StoreError, Sweeper, finish, layout, prepare
from edgeproxy.cache.embedded import sweeper as sweeper_module
from edgeproxy.cache.embedded import writer as writer_module
from edgeproxy.cache.embedded.environment import Environment
from edgeproxy.cache.embedded.files import StoreFiles
from edgeproxy.cache.embedded.tables import Change
from edgeproxy.cache.entry import Entry
from edgeproxy.cache.purge import Kind, Rule
from edgeproxy.cache.purge_layout import RING_BYTES
from edgeproxy.cache.purge_log import PurgeLog
from tests.cache.churn import KEYS, is_whole, url
from tests.cache.stores import SECOND_NS, URL, entry, find, put, settle, stored
from tests.support import until

MIB = 1024 * 1024
ROOT = Path(__file__).parent.parent.parent


class Place:
    """A folder with a store and its purge log, as a supervisor prepares them."""

    def __init__(self, folder: Path, size_bytes: int = 16 * MIB) -> None:
        self.folder = folder
        self.store = folder / "store"
        self.log_path = folder / "purge.log"
        self.size_bytes = size_bytes
        self.log = PurgeLog.ensure(self.log_path)
        self.prepare()

    def prepare(self) -> None:
        prepare(self.store, self.size_bytes, self.log.instance)

    def open(self) -> EmbeddedStore:
        return EmbeddedStore.open(self.store, self.log_path)

    @contextlib.contextmanager
    def opened(self) -> Iterator[EmbeddedStore]:
        store = self.open()
        try:
            yield store
        finally:
            store.close()

    @property
    def aside(self) -> list[Path]:
        return list(self.folder.glob("store.set-aside-*"))

    def purge(self, kind: Kind, value: bytes = b"", *, soft: bool = False) -> int:
        return self.log.append(kind, value, soft, time.time_ns(), durable=False)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def inconsistencies(place: Place) -> list[str]:
    """What does not fit together in the tables."""
    found: list[str] = []
    with Environment.acquired(StoreFiles(place.store)) as environment, environment.env.begin() as txn:
        tables = environment.tables
        numbers, cost, wanted = {}, 0, {"urls": set(), "tags": set(), "variants": set(), "bodies": set()}
        marks, primaries = set(), set()
        for name, value in txn.cursor(db=tables.heads):
            record = layout.unpack(memoryview(value))
            if isinstance(record, layout.VaryMark):
                marks.add(name)
                continue
            head = layout.stored_of(record.head)
            numbers[record.number] = name
            wanted["urls"].add(layout.url_key(head.url, name))
            wanted["tags"] |= {layout.tag_key(tag, name) for tag in head.tags}
            if head.vary:
                primaries.add(layout.key_name(head.key))
                wanted["variants"].add(layout.key_name(head.key) + name)
            wanted["bodies"] |= {layout.chunk_key(record.number, index) for index in range(record.chunks)}
        ordered = {}
        for key, value in txn.cursor(db=tables.order):
            line = layout.unpack_place(value)
            ordered[layout.number_of(key)] = line.name
            cost += line.cost
        if ordered != numbers:
            found.append(f"order {len(ordered)} and heads {len(numbers)} differ")
        if marks != primaries:
            found.append("Vary marks and variants differ")
        for table, keys in wanted.items():
            there = {key for key, _ in txn.cursor(db=getattr(tables, table))}
            if there != keys:
                found.append(f"{table}: {len(there - keys)} too many, {len(keys - there)} missing")
        counters = tables.counters(txn)
        if (counters.entries, counters.cost_bytes) != (len(numbers), cost):
            found.append(f"counters {counters} and tables ({len(numbers)}, {cost}) differ")
    return found


# Processes that die.


@contextlib.contextmanager
def churning(place: Place, seed: int) -> Iterator["subprocess.Popen[str]"]:
    """A process that writes to the store without end."""
    command = (sys.executable, "-m", "tests.cache.churn", str(place.folder), str(seed))
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        try:
            yield process
        finally:
            process.kill()


async def look_at_everything(store: EmbeddedStore) -> int:
    """Look everything up; how many were found, all of them whole."""
    found = 0
    for index in range(KEYS):
        for accept in range(3):
            entry_found = await find(store, url(index), {b"accept": b"%d" % accept})
            if entry_found is not None:
                assert is_whole(entry_found), entry_found.stored
                found += 1
    return found


async def test_writers_killed_at_any_moment_leave_no_torn_entry(place: Place) -> None:
    dice = random.Random(1)
    seen = 0
    for round_ in range(3):
        with contextlib.ExitStack() as stack, place.opened() as store:
            processes = [stack.enter_context(churning(place, 10 * round_ + index)) for index in range(3)]
            for process in processes:
                until_s = time.monotonic() + dice.uniform(0.02, 0.3)
                while time.monotonic() < until_s:
                    seen += await look_at_everything(store)
                process.send_signal(signal.SIGKILL)
                process.wait()
            await look_at_everything(store)
            await asyncio.wait_for(put(store, entry()), 10)  # the killed ones' lock is free
        assert inconsistencies(place) == []
        place.prepare()
    assert seen > 0
    assert place.aside == []


async def test_what_was_there_is_there_after_everybody_was_killed(place: Place) -> None:
    with churning(place, 1), place.opened() as store:
        await put(store, entry(body=b"mine" * 10_000))
    place.prepare()
    with place.opened() as store:
        found = await find(store)
        assert found is not None
        assert found.body == b"mine" * 10_000


async def test_a_reader_killed_in_the_middle_of_a_look_up_keeps_nobody_from_using_pages_again(place: Place) -> None:
    with place.opened() as store:
        await put(store, entry())
        await asyncio.to_thread(die_reading, place)
        for index in range(60):
            await put(store, entry(URL + b"/%d" % (index % 3), os.urandom(MIB // 2)))
        assert store.stats().failures == 0


def die_reading(place: Place) -> None:
    program = (
        "import lmdb, os, signal; "
        f"env = lmdb.open({str(place.store)!r}, map_size={place.size_bytes}, max_dbs=9); "
        "txn = env.begin(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run((sys.executable, "-c", program), check=False)


# Files that can't be used.


def overwrite(path: Path, start: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(start)
        file.write(data)


def cut(path: Path, size: int) -> None:
    os.truncate(path, size)


def change_meta(store: Path, key: bytes, value: bytes) -> None:
    with lmdb.open(str(store), map_size=16 * MIB, max_dbs=9) as env:
        meta = env.open_db(b"meta")
        with env.begin(write=True) as txn:
            txn.put(key, value, db=meta)


def other_database(store: Path) -> None:
    shutil.rmtree(store)
    with lmdb.open(str(store), map_size=16 * MIB) as env, env.begin(write=True) as txn:
        txn.put(b"a", b"b")


NOISE = random.Random(2).randbytes(2 * MIB)
UNUSABLE: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda store: cut(store / "data.mdb", 0), "can't be opened"),
    "cut in the first page": (lambda store: cut(store / "data.mdb", 100), ""),
    "cut short": (lambda store: cut(store / "data.mdb", MIB), "cut short"),
    "noise all over": (lambda store: overwrite(store / "data.mdb", 0, NOISE), ""),
    "noise for meta pages": (lambda store: overwrite(store / "data.mdb", 0, NOISE[:8192]), ""),
    "noise behind meta pages": (lambda store: overwrite(store / "data.mdb", 8192, NOISE), ""),
    "zeros behind meta pages": (lambda store: overwrite(store / "data.mdb", 8192, bytes(len(NOISE))), ""),
    "a text": (lambda store: (store / "data.mdb").write_text("hello\n" * 10000), ""),
    "a directory for a file": (lambda store: ((store / "data.mdb").unlink(), (store / "data.mdb").mkdir()), ""),
    "no data file": (lambda store: (store / "data.mdb").unlink(), "missing"),
    "a file for the directory": (lambda store: (shutil.rmtree(store), store.write_text("")), ""),
    "another LMDB database": (other_database, ""),
    "an older format": (lambda store: change_meta(store, layout.META_FORMAT, b"0"), "its format is 0"),
    "another purge log's": (lambda store: change_meta(store, layout.META_INSTANCE, b"1"), "purge log"),
    "counters that can't be": (lambda store: change_meta(store, layout.META_COUNTERS, b"x"), "counters"),
    "found damaged by a worker": (
        lambda store: (store / "damaged").write_text("a page is missing"),
        "a page is missing",
    ),
    "in use when the system went down": (
        lambda store: (store / "in-use").write_text("another boot"),
        "system went down",
    ),
}


@pytest.mark.parametrize(("damage", "reason"), UNUSABLE.values(), ids=UNUSABLE.keys())
async def test_what_can_not_be_used_is_set_aside_and_said(
    place: Place, damage: Callable[[Path], object], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with place.opened() as store:
        await put(store, *(entry(URL + b"/%d" % index, bytes(20_000)) for index in range(100)))
    damage(place.store)
    place.prepare()
    assert len(place.aside) == 1
    output = capsys.readouterr()
    said = output.out + output.err
    assert "set aside" in said
    assert reason in said
    with place.opened() as store:
        assert store.stats().entries == 0
        await put(store, entry())
        assert await find(store) is not None


MENDED: dict[str, Callable[[Path], object]] = {
    "no marks": lambda store: (store / "marks").unlink(),
    "marks cut short": lambda store: cut(store / "marks", 5),
    "noise for marks": lambda store: overwrite(store / "marks", 0, NOISE[:8192]),
    "no lock file": lambda store: (store / "lock.mdb").unlink(),
    "noise for a lock file": lambda store: overwrite(store / "lock.mdb", 0, NOISE[:8192]),
    "an empty lock file": lambda store: cut(store / "lock.mdb", 0),
}


@pytest.mark.parametrize("damage", MENDED.values(), ids=MENDED.keys())
async def test_what_can_be_made_anew_costs_no_entries(place: Place, damage: Callable[[Path], object]) -> None:
    with place.opened() as store:
        await put(store, entry())
    damage(place.store)
    place.prepare()
    assert place.aside == []
    with place.opened() as store:
        assert await find(store) is not None


def test_only_the_last_store_that_was_set_aside_is_kept(place: Place) -> None:
    for reason in ("first", "second", "third"):
        (place.store / "damaged").write_text(reason)
        place.prepare()
    (aside,) = place.aside
    assert (aside / "damaged").read_text() == "third"


@pytest.mark.parametrize("size", [500, 50_000], ids=["in its record", "in chunks"])
async def test_bodies_that_rot_are_never_served_and_their_entries_go(place: Place, size: int) -> None:
    bodies = {URL + b"/%d" % index: random.Random(index).randbytes(size) for index in range(50)}
    with place.opened() as store:
        await put(store, *(entry(key, body) for key, body in bodies.items()))
    data = (place.store / "data.mdb").read_bytes()
    for body in list(bodies.values())[::2]:
        for found in re.finditer(re.escape(body[:100]), data):  # older copies lie about
            overwrite(place.store / "data.mdb", found.start() + 200, b"rotten")
    with place.opened() as store:
        for _ in range(2):
            served = [await find(store, key) for key in bodies]
            assert [item is not None for item in served] == [False, True] * 25
            assert all(item.body == bodies[item.key] for item in served if item is not None)
            await settle(store)
        assert store.stats().failures == 25  # the second time they were gone
        await put(store, *(entry(key, body) for key, body in bodies.items()))
        served = [await find(store, key) for key in bodies]
        assert [item.body for item in served if item is not None] == list(bodies.values())
    place.prepare()
    assert place.aside == []


async def test_looking_at_an_entry_that_rots_costs_that_entry_alone(place: Place) -> None:
    with place.opened() as store:
        await put(store, *(entry(vary={b"accept": value}, body=value * 100) for value in (b"a", b"b")))
        name = layout.variant_name(layout.key_name(URL), stored(vary={b"accept": b"a"}).variant)
        with store._env.begin(write=True) as txn:
            txn.put(name, bytes(100), db=store._tables.heads)
        assert [size for _, size in store.variants(URL)] == [100]
        assert store.stats().failures == 1
        await settle(store)
        assert [size for _, size in store.variants(URL)] == [100]
        assert store.stats().failures == 1
        assert await find(store, names={b"accept": b"b"}) is not None
    place.prepare()
    assert place.aside == []


async def test_a_worker_that_meets_damage_does_without_the_store_and_the_next_start_sets_it_aside(place: Place) -> None:
    with place.opened() as store:
        await put(store, *(entry(URL + b"/%d" % index) for index in range(2000)))
        change_in_place(store, layout.META_COUNTERS, b"x")
        store.put(entry())
        await asyncio.to_thread(until, (place.store / "damaged").exists, "the damage is noted")
        assert await find(store, URL + b"/1") is None
        await put(store, entry())  # says that it is done
        store.discard(URL)
        assert list(store.variants(URL)) is not None
    with pytest.raises(StoreError, match="damaged"):
        place.open()
    place.prepare()
    assert len(place.aside) == 1


def change_in_place(store: EmbeddedStore, key: bytes, value: bytes) -> None:
    with store._env.begin(write=True) as txn:
        txn.put(key, value, db=store._tables.meta)


def test_a_store_that_was_finished_is_trusted_in_another_boot(place: Place) -> None:
    finish(place.store)
    assert not (place.store / "in-use").exists()
    place.prepare()
    assert place.aside == []


async def test_another_size_is_taken_on_where_it_can_be(place: Place) -> None:
    with place.opened() as store:
        await put(store, entry())
    place.size_bytes = 32 * MIB
    place.prepare()
    with place.opened() as store:
        assert store.stats().capacity_bytes == 32 * MIB
        assert await find(store) is not None
    place.size_bytes = 16 * MIB
    place.prepare()
    with place.opened() as store:
        assert store.stats().capacity_bytes == 16 * MIB
        assert store.stats().entries == 0


def test_a_store_that_was_not_prepared_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="can't be opened"):
        EmbeddedStore.open(tmp_path / "store")


# Lack of room.


async def test_a_full_map_of_small_entries_goes_on_and_keeps_to_its_size(place: Place) -> None:
    with place.opened() as store:
        for batch in range(25):
            await put(store, *(entry(URL + b"/%d-%d" % (batch, index), os.urandom(700)) for index in range(500)))
        stats = store.stats()
        assert stats.failures == 0
        assert stats.evictions > 2000
        assert stats.entries * 1600 > stats.capacity_bytes * 2 // 3, stats
    assert (place.store / "data.mdb").stat().st_size == place.size_bytes
    assert inconsistencies(place) == []


async def test_mixed_sizes_find_room_among_scattered_pages(place: Place) -> None:
    dice = random.Random(3)
    with place.opened() as store:
        for index in range(1500):
            size = dice.choice((100, 1000, 3000, 30_000, 300_000, 900_000))
            store.put(entry(URL + b"/%d" % index, bytes(size)))
            if index % 20 == 0:
                await settle(store)
        stats = store.stats()
        assert stats.failures == 0
        assert stats.size_bytes > stats.capacity_bytes // 2, stats
    assert inconsistencies(place) == []


async def test_what_can_not_be_served_any_more_goes_though_it_was_asked_for(place: Place) -> None:
    past = time.time_ns() - 10 * SECOND_NS
    with place.opened() as store:
        await put(store, *(entry(URL + b"/old/%d" % index, bytes(MIB // 2), fresh_until_ns=past) for index in range(6)))
        await put(store, entry(URL + b"/new", bytes(MIB // 2)))
        for index in range(28):
            for old in range(6):
                await find(store, URL + b"/old/%d" % old)
            assert await find(store, URL + b"/new") is not None
            await put(store, entry(URL + b"/more/%d" % index, bytes(MIB // 2)))
        assert not [old for old in range(6) if await find(store, URL + b"/old/%d" % old)]
        assert await find(store, URL + b"/new") is not None


async def test_a_map_that_is_full_all_the_same_drops_what_has_no_room(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "RESERVE", 10**9)  # as if the estimate were far off
    with place.opened() as store:
        for index in range(100):
            await put(store, entry(URL + b"/%d" % index, bytes(MIB // 2)))
        found = await find(store, URL + b"/99")
        assert store.stats().entries > 3
        assert found is not None or store.stats().failures > 0
    assert inconsistencies(place) == []


FULL_DISK = """
import asyncio, os, sys
from pathlib import Path
sys.path.insert(0, {root!r})
from tests.cache.stores import entry, find, put, URL
from tests.cache.test_embedded import Place

async def main(folder, fill):
    place = Place(Path(folder), 64 * 2**20)
    with place.opened() as store:
        await put(store, entry(URL, b"first"))
        fill()
        for index in range(40):
            await put(store, entry(URL + b"/%d" % index, os.urandom(300_000)))
        found = await find(store)
        assert found is None or found.body == b"first"
        print(f"failures={{store.stats().failures}}", flush=True)
        FREE
        await put(store, entry(URL + b"/again", b"again"))
        found = await find(store, URL + b"/again")
        assert found is not None and found.body == b"again"
"""


def test_a_full_disk_is_counted_and_said_once_and_the_store_goes_on(tmp_path: Path) -> None:
    # A limit on files' sizes is what a disk that is full looks like to one who writes: no writing beyond it.
    program = (
        FULL_DISK.format(root=str(ROOT)).replace("FREE", "resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))")
        + f"""
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2 * 2**20, -1))
asyncio.run(main({str(tmp_path)!r}, limit))
"""
    )
    done = subprocess.run((sys.executable, "-c", program), capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    said = done.stdout + done.stderr
    assert said.count("cache store is full") <= 1
    assert "damaged" not in said


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting takes root")
def test_a_disk_that_is_full_ends_nobody(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ("mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(disk)), capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("this system lets nobody mount")
    try:
        filler = disk / "filler"
        program = (
            FULL_DISK.format(root=str(ROOT)).replace("FREE", f"os.unlink({str(filler)!r})")
            + f"""
def fill():
    with open({str(filler)!r}, "wb", buffering=0) as file:
        try:
            while True: file.write(bytes(4096))
        except OSError: pass
asyncio.run(main({str(disk)!r}, fill))
"""
        )
        done = subprocess.run((sys.executable, "-c", program), capture_output=True, text=True, check=False, timeout=60)
    finally:
        subprocess.run(("umount", str(disk)), check=True)
    assert done.returncode == 0, done.stderr
    assert "failures=0" not in done.stdout
    assert "damaged" not in done.stdout + done.stderr


def prepare_without_room(store: Path, size_bytes: int, instance: int, room_bytes: int) -> str:
    """Prepare a store where no file may become longer than that; what is said of it."""
    program = (
        f"import resource, signal, sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from pathlib import Path\n"
        "from edgeproxy.cache.embedded import prepare, StoreError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({room_bytes}, -1))\n"
        f"try: prepare(Path({str(store)!r}), {size_bytes}, {instance})\n"
        "except StoreError as error: print(error)\n"
    )
    done = subprocess.run((sys.executable, "-c", program), capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def test_a_store_that_has_no_room_to_be_made_is_an_error_with_a_message(tmp_path: Path) -> None:
    assert "can't be made" in prepare_without_room(tmp_path / "store", 16 * MIB, 1, 1000)


def test_marks_that_have_no_room_leave_nothing_behind(place: Place) -> None:
    (place.store / "marks").unlink()
    assert "can't be made" in prepare_without_room(place.store, place.size_bytes, place.log.instance, 4096)
    assert [path.name for path in place.store.glob("marks*")] == []


async def test_a_start_on_a_full_disk_costs_no_store_that_is_there(place: Place) -> None:
    with place.opened() as store:
        await put(store, entry())
    prepare_without_room(place.store, place.size_bytes, place.log.instance, 0)
    place.prepare()
    assert place.aside == []
    with place.opened() as store:
        assert await find(store) is not None


@pytest.mark.parametrize("write", [EmbeddedStore.put, EmbeddedStore.freshen])
async def test_what_would_take_too_large_a_part_of_the_store_is_not_stored(
    place: Place, write: Callable[[EmbeddedStore, Entry, Callable[[], None]], None]
) -> None:
    with place.opened() as store:
        done = asyncio.Event()
        write(store, entry(body=bytes(MIB)), done.set)
        await asyncio.wait_for(done.wait(), 10)
        assert await find(store) is None


async def test_what_comes_faster_than_it_can_be_written_is_dropped_and_counted(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "QUEUE_BYTES", MIB)
    with place.opened() as store:
        await put(store, *(entry(URL + b"/%d" % index, bytes(200_000)) for index in range(50)))
        stats = store.stats()
        assert 0 < stats.failures < 50
        assert stats.entries == 50 - stats.failures
        store.discard(URL + b"/0")
        await settle(store)
        assert await find(store, URL + b"/0") is None


# Purges.


RULES = {
    "URL": (Kind.URL, URL),
    "prefix": (Kind.PREFIX, b"http://example.com/p"),
    "tag": (Kind.TAG, b"red"),
    "all": (Kind.ALL, b""),
}


def swept(place: Place, store: EmbeddedStore) -> None:
    log = PurgeLog.open(place.log_path)
    log.seek(store.applied_seq)
    assert store.sweep(log.read_new())
    log.close()


@pytest.mark.parametrize(("kind", "value"), RULES.values(), ids=RULES.keys())
async def test_a_sweep_takes_out_what_was_purged_and_nothing_else(place: Place, kind: Kind, value: bytes) -> None:
    other = b"http://example.com/other"
    with place.opened() as store:
        await put(store, entry(tags=(b"red", b"blue")), entry(other, tags=(b"blue",)), entry(other + URL))
        seq = place.purge(kind, value)
        swept(place, store)
        assert await find(store) is None
        found = await find(store, other)
        assert (found is None) == (kind == Kind.ALL)
        if found is not None:
            assert found.purge_seq == seq
        assert store.applied_seq == seq
    assert inconsistencies(place) == []


@pytest.mark.parametrize(("kind", "value"), RULES.values(), ids=RULES.keys())
async def test_a_soft_purge_makes_stale_what_it_is_about(place: Place, kind: Kind, value: bytes) -> None:
    with place.opened() as store:
        old = entry(tags=(b"red",))
        await put(store, old)
        seq = place.purge(kind, value, soft=True)
        swept(place, store)
        found = await find(store)
        assert found is not None
        assert found.fresh_until_ns < old.fresh_until_ns
        assert found.fresh_until_ns <= time.time_ns()
        assert (found.purge_seq, found.body) == (seq, old.body)


@pytest.mark.parametrize(("kind", "value"), RULES.values(), ids=RULES.keys())
async def test_what_was_fetched_before_a_purge_is_not_stored_after_it(place: Place, kind: Kind, value: bytes) -> None:
    with place.opened() as store:
        seq = place.purge(kind, value)
        await put(store, entry(tags=(b"red",)))
        assert await find(store) is None
        store.freshen(entry(tags=(b"red",)))
        await settle(store)
        assert await find(store) is None
        await put(store, entry(tags=(b"red",), purge_seq=seq))
        assert await find(store) is not None


async def test_what_was_fetched_before_a_soft_purge_is_stored_stale(place: Place) -> None:
    with place.opened() as store:
        place.purge(Kind.TAG, b"red", soft=True)
        await put(store, entry(tags=(b"red",)))
        found = await find(store)
        assert found is not None
        assert found.fresh_until_ns <= time.time_ns()


async def test_a_sweep_leaves_what_was_fetched_after_the_purge(place: Place) -> None:
    with place.opened() as store:
        seq = place.purge(Kind.URL, URL)
        await put(store, entry(purge_seq=seq))
        swept(place, store)
        assert await find(store) is not None


async def test_a_sweep_waits_for_who_is_writing_without_having_seen_the_purge(place: Place) -> None:
    with place.opened() as store:
        begun, purged = threading.Event(), threading.Event()

        def write() -> None:
            with store._env.begin(write=True) as txn:
                change = Change(store._tables, txn, store._marks)
                change.put(entry().stored, b"body")
                change.finish()
                begun.set()
                assert purged.wait(10)
                time.sleep(0.2)

        writing = asyncio.create_task(asyncio.to_thread(write))
        await asyncio.to_thread(begun.wait)
        place.purge(Kind.URL, URL)
        purged.set()
        swept(place, store)
        await writing
        assert await find(store) is None


async def test_a_job_that_goes_wrong_stops_neither_the_thread_nor_who_waits_for_it(place: Place) -> None:
    with place.opened() as store:
        await put(store, entry(vary={b"x": b"1"}), Entry(stored(status=2**70), b""))
        assert store.stats().failures > 0
        await put(store, entry())
        assert await find(store) is not None


async def test_the_last_variant_takes_along_what_says_that_there_are_some(place: Place) -> None:
    with place.opened() as store:
        await put(store, *(entry(vary={b"accept": value}, tags=(value,)) for value in (b"a", b"b")))
        place.purge(Kind.TAG, b"a")
        swept(place, store)
        assert await find(store, names={b"accept": b"a"}) is None
        assert await find(store, names={b"accept": b"b"}) is not None
        assert inconsistencies(place) == []
        place.purge(Kind.TAG, b"b")
        swept(place, store)
        assert store.stats().entries == 0
    assert inconsistencies(place) == []


async def test_a_found_entry_says_which_rules_can_not_be_about_it(place: Place) -> None:
    with place.opened() as store:
        await put(store, entry())
        place.purge(Kind.URL, b"http://example.com/another")
        found = await find(store)
        assert found is not None
        assert found.purge_seq == 0  # nobody has looked yet
        swept(place, store)
        found = await find(store)
        assert found is not None
        assert found.purge_seq == 1


async def test_urls_too_long_for_the_index_are_purged_by_what_they_are(place: Place) -> None:
    long = URL + b"?" + b"x" * 1000
    urls = (long + b"1", long + b"2", long + b"22")
    with place.opened() as store:
        await put(store, *(entry(item) for item in urls))
        place.purge(Kind.URL, long + b"2")
        swept(place, store)
        assert [await find(store, item) is not None for item in urls] == [True, False, True]
        place.purge(Kind.PREFIX, long + b"2")
        swept(place, store)
        assert [await find(store, item) is not None for item in urls] == [True, False, False]


async def test_a_sweep_of_many_entries_goes_in_portions_and_is_resumed(place: Place) -> None:
    with place.opened() as store:
        await put(store, *(entry(URL + b"/%d" % index, tags=(b"red",)) for index in range(1000)))
        place.purge(Kind.TAG, b"red")
        stopping = threading.Event()
        stopping.set()
        log = PurgeLog.open(place.log_path)
        rules = log.read_new()
        log.close()
        assert not store.sweep(rules, stopping)
        assert store.applied_seq == 0
        assert store.sweep(rules)
        assert store.stats().entries == 0
    assert inconsistencies(place) == []


async def test_a_sweeper_acts_on_what_was_purged_while_there_was_none_and_on_what_comes(place: Place) -> None:
    with place.opened() as store:
        await put(store, entry(), entry(URL + b"/2"))
        place.purge(Kind.URL, URL)
        sweeper = Sweeper.open(place.store, place.log_path)
        await asyncio.to_thread(until, lambda: store.applied_seq == 1, "what was purged before is swept")
        assert await find(store) is None
        place.purge(Kind.PREFIX, URL)
        await asyncio.to_thread(until, lambda: store.applied_seq == 2, "what was purged then is swept")
        assert await find(store, URL + b"/2") is None
        sweeper.close()
    place.prepare()
    with place.opened() as store:
        assert store.applied_seq == 2


async def test_a_sweep_that_is_resumed_does_not_take_out_everything_again(place: Place) -> None:
    with place.opened() as store:
        seq = place.purge(Kind.ALL)
        place.purge(Kind.TAG, b"red")
        stopping = threading.Event()
        stopping.set()
        with contextlib.closing(PurgeLog.open(place.log_path)) as log:
            assert not store.sweep(log.read_new(), stopping)
        await put(store, entry(purge_seq=seq))
        swept(place, store)
        assert store.applied_seq == seq + 1
        assert await find(store) is not None


def test_a_sweeper_that_can_not_sweep_keeps_no_more_rules_than_the_log(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[Sequence[Rule]] = []
    monkeypatch.setattr(sweeper_module, "RETRY_S", 0.01)
    with monkeypatch.context() as failing:
        failing.setattr(EmbeddedStore, "sweep", lambda _store, rules, _stopping: tried.append(list(rules)))
        sweeper = Sweeper.open(place.store, place.log_path)
        value = b"x" * 60_000
        for _ in range(2 * RING_BYTES // len(value)):
            seq = place.purge(Kind.PREFIX, value)
            until(lambda seq=seq: tried and tried[-1][-1].seq == seq, "the rule is tried")  # type: ignore[misc]
    assert sum(len(rule.value) for rule in tried[-1]) <= RING_BYTES
    until(lambda: sweeper._store.applied_seq == seq, "all is swept in the end")
    sweeper.close()


async def test_readers_and_writers_of_several_processes_see_no_purged_entry_once_it_is_swept(place: Place) -> None:
    sweeper = Sweeper.open(place.store, place.log_path)
    with churning(place, 5), place.opened() as store:
        for _ in range(5):
            await asyncio.sleep(0.1)
            seq = place.purge(Kind.ALL)
            await asyncio.to_thread(until, lambda seq=seq: store.applied_seq >= seq, "the purge is swept")  # type: ignore[misc]
            # The other process stores what it "fetched" with the number 0: the log has a later rule about everything.
            assert await look_at_everything(store) == 0
    sweeper.close()
