"""Where a node's cache lies, whose it is, and what the supervisor makes of what it finds there."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeproxy.cache.embedded import EmbeddedStore
from edgeproxy.cache.purge import Kind
from edgeproxy.cache.purge_log import PurgeLog
from edgeproxy.config import Config
from edgeproxy.config.model import Cache
from edgeproxy.node.errors import CacheDirError
from edgeproxy.node.storage import FAULTS_MAX, Storage, storage_paths
from tests.cache.stores import entry, find, put
from tests.node.test_reload import reload
from tests.support import Node, Origin, reply, until

ROOT = Path(__file__).parent.parent.parent
MIB = 1024 * 1024


def config(path: Path | str = "", store: str = "embedded", size_bytes: int = 16 * MIB) -> Config:
    return Config(cache=Cache(path=str(path), store=store, size_bytes=size_bytes))  # type: ignore[arg-type]


SESSION = {"XDG_RUNTIME_DIR": "/run/user/4711", "XDG_CACHE_HOME": "/home/me/caches", "HOME": "/home/me"}
NO_CACHE_HOME = {"XDG_RUNTIME_DIR": "/run/user/4711", "HOME": "/home/me"}
PLACES = {
    "where it is set": ("/srv/cache", "/run/edgeproxy", SESSION, "/srv/cache"),
    "the system's": ("", "/run/edgeproxy", SESSION, "/var/cache/edgeproxy"),
    "the session's": ("", "/run/user/4711/edgeproxy", SESSION, "/home/me/caches/edgeproxy"),
    "the user's": ("", "/run/user/4711/edgeproxy", NO_CACHE_HOME, "/home/me/.cache/edgeproxy"),
    "in shared memory": ("", "/dev/shm/edgeproxy-4711", {"HOME": "/home/me"}, "/home/me/.cache/edgeproxy"),
    "of one without a home": ("", "/dev/shm/edgeproxy-4711", {}, "/dev/shm/edgeproxy-4711/cache"),
    "a directory of its own": ("", "/srv/run", SESSION, "/srv/run/cache"),
}


@pytest.mark.parametrize(("path", "runtime_dir", "environ", "expected"), PLACES.values(), ids=PLACES.keys())
def test_the_embedded_store_lies_where_what_is_kept_lies(
    path: str, runtime_dir: str, environ: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    paths = storage_paths(config(path), Path(runtime_dir), environ)
    assert paths.directory == Path(expected)
    assert paths.folder == Path(expected) / "store"
    assert paths.purge_log == Path(expected) / "purge.log"
    assert paths.claims == Path(runtime_dir) / "claims"


@pytest.mark.parametrize("store", ["memory", "redis"])
def test_a_store_elsewhere_needs_the_runtime_directory_alone(tmp_path: Path, store: str) -> None:
    paths = storage_paths(config("/srv/cache", store), tmp_path)
    assert {paths.purge_log.parent, paths.claims.parent} == {tmp_path}
    storage = Storage.take(config("/srv/cache", store), tmp_path)
    PurgeLog.open(paths.purge_log).close()
    storage.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["purge.log"]


async def test_what_is_stored_outlives_the_node(tmp_path: Path) -> None:
    for run in range(3):
        storage = Storage.take(config(tmp_path / "cache"), tmp_path)
        store = EmbeddedStore.open(storage.paths.folder, storage.paths.purge_log)
        assert (await find(store) is not None) == (run > 0)
        await put(store, entry())
        store.close()
        storage.close()


def test_all_of_it_is_its_owners_alone(tmp_path: Path) -> None:
    storage = Storage.take(config(tmp_path / "cache"), tmp_path)
    storage.close()
    modes = {path.name: path.stat().st_mode & 0o077 for path in (tmp_path / "cache").rglob("*")}
    assert modes == dict.fromkeys(modes, 0)


def test_two_nodes_never_share_a_directory(tmp_path: Path) -> None:
    first = Storage.take(config(tmp_path / "cache"), tmp_path / "a")
    with pytest.raises(CacheDirError, match=r"another node uses .*cache; give this node its own cache\.path"):
        Storage.take(config(tmp_path / "cache"), tmp_path / "b")
    first.close()
    Storage.take(config(tmp_path / "cache"), tmp_path / "b").close()


def test_a_file_system_without_locks_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    before = len(list(Path("/proc/self/fd").iterdir()))
    monkeypatch.setattr(fcntl, "flock", fail)
    with pytest.raises(CacheDirError, match="lock can't be locked: No locks available"):
        Storage.take(config(tmp_path / "cache"), tmp_path)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_directory_is_free_once_its_node_was_killed(tmp_path: Path) -> None:
    program = (
        "import os, signal; from pathlib import Path; from tests.node.test_storage import config; "
        "from edgeproxy.node.storage import Storage; "
        f"Storage.take(config({str(tmp_path / 'cache')!r}), Path('/tmp')); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run((sys.executable, "-c", program), cwd=ROOT, check=False).returncode == -9
    Storage.take(config(tmp_path / "cache"), tmp_path).close()
    assert not list((tmp_path / "cache").glob("*aside*"))


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CacheDirError, match=r"file/cache can't be made: Not a directory; set cache\.path"):
        Storage.take(config(tmp_path / "file" / "cache"), tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a directory away")
def test_another_users_directory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.chown(tmp_path, 12345, 12345)
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    with pytest.raises(CacheDirError, match="belongs to uid 12345"):
        Storage.take(config(tmp_path), tmp_path)


def test_a_node_that_could_not_be_started_holds_nothing(tmp_path: Path) -> None:
    (tmp_path / "purge.log").mkdir()
    with pytest.raises(CacheDirError, match=r"purge\.log"):
        Storage.take(config(tmp_path), tmp_path)
    (tmp_path / "purge.log").rmdir()
    Storage.take(config(tmp_path), tmp_path).close()


async def test_a_purge_log_that_can_not_be_read_sets_the_store_aside(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    storage = Storage.take(config(tmp_path), tmp_path)
    store = EmbeddedStore.open(storage.paths.folder)
    await put(store, entry())
    store.close()
    storage.close()
    (tmp_path / "purge.log").write_bytes(b"noise" * 10_000)
    storage = Storage.take(config(tmp_path), tmp_path)
    store = EmbeddedStore.open(storage.paths.folder, storage.paths.purge_log)
    assert await find(store) is None
    store.close()
    storage.close()
    said = "".join(capsys.readouterr())
    assert "purge log can't be used" in said
    assert "another purge log" in said


async def test_a_purge_while_no_node_runs_holds_for_the_next_one(tmp_path: Path) -> None:
    storage = Storage.take(config(tmp_path), tmp_path)
    store = EmbeddedStore.open(storage.paths.folder)
    await put(store, entry())
    store.close()
    storage.close()
    log = PurgeLog.open(storage.paths.purge_log)
    seq = log.append(Kind.URL, entry().stored.url, soft=False, now_ns=time.time_ns())
    log.close()
    storage = Storage.take(config(tmp_path), tmp_path)
    store = EmbeddedStore.open(storage.paths.folder, storage.paths.purge_log)
    found = await find(store)
    assert found is not None
    assert found.purge_seq < seq  # whoever found it asks what was purged since
    store.close()
    storage.close()


# With a node's processes.

FRESH = ("Cache-Control: max-age=3600", 'ETag: "1"')


def fetch(node: Node, path: str = "/page") -> bytes:
    with node.connect() as client:
        return client.get(path).body


def test_a_node_that_is_started_again_needs_no_origin_for_what_it_has(
    origin: Origin, start_node: Callable[..., Node]
) -> None:
    origin.on("/page", reply(b"stored" * 10_000, *FRESH))
    node = start_node(workers=2)
    body = fetch(node)
    store = node.runtime_dir / "cache" / "store"
    for stop in (node.stop, lambda: killed(node)):
        until(lambda: stored_entries(store) == 1, "the response is stored")
        stop()
        node.start()
        assert fetch(node) == body
    assert len(origin.seen("/page")) == 1
    assert not list(store.parent.glob("*aside*"))


def killed(node: Node) -> None:
    """SIGKILL for everybody."""
    status = node.status()
    pids = [status.supervisor_pid, status.scribe_pid, *(worker.pid for worker in status.workers)]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    node.wait()
    (node.runtime_dir / "control").unlink()  # what it says would be taken for the next one's word


def stored_entries(folder: Path) -> int:
    store = EmbeddedStore.open(folder)
    try:
        return store.stats().entries
    finally:
        store.close()


def test_a_node_starts_though_its_store_is_damaged(start_node: Callable[..., Node]) -> None:
    node = start_node()
    node.stop()
    (node.runtime_dir / "cache" / "store" / "data.mdb").write_bytes(b"noise" * 100_000)
    node.start()
    assert fetch(node) is not None
    assert "cache store can't be used: set aside" in node.stderr
    assert len(list((node.runtime_dir / "cache").glob("store.set-aside-*"))) == 1


def test_a_store_whose_readers_are_ended_by_faults_is_done_without_and_then_set_aside(
    start_node: Callable[..., Node],
) -> None:
    node = start_node()
    damaged = node.runtime_dir / "cache" / "store" / "damaged"
    for _ in range(FAULTS_MAX):
        assert not damaged.exists()
        pid = node.worker(0).pid
        os.kill(pid, signal.SIGSEGV)  # what a page that can't be does to who reads it
        until(lambda pid=pid: replaced(node, pid), "the worker to be replaced")  # type: ignore[misc]
    assert "SIGSEGV" in damaged.read_text()
    assert fetch(node)
    node.stop()
    node.start()
    assert not damaged.exists()
    assert len(list(damaged.parent.parent.glob("store.set-aside-*"))) == 1


def replaced(node: Node, pid: int) -> bool:
    return any(worker.pid != pid and worker.state == "serving" for worker in node.status().workers)


def test_a_second_node_on_the_same_directory_does_not_start(tmp_path: Path, start_node: Callable[..., Node]) -> None:
    start_node(cache={"path": str(tmp_path)})
    with pytest.raises(AssertionError, match="another node uses the cache directory"):
        start_node(cache={"path": str(tmp_path)})


def test_with_redis_nothing_of_the_embedded_store_is_made_or_held(
    tmp_path: Path, start_node: Callable[..., Node]
) -> None:
    for _ in range(2):  # the second one would find the directory taken
        node = start_node(
            cache={"store": "redis", "path": str(tmp_path / "cache"), "redis": {"nodes": ["127.0.0.1:1"]}}
        )
        assert fetch(node)
        assert not (tmp_path / "cache").exists()
        assert not list(node.runtime_dir.rglob("*store*"))
        assert "is not swept" not in node.stderr


@pytest.mark.parametrize("change", [{"path": "/tmp/elsewhere"}, {"store": "memory"}], ids=["path", "store"])
def test_another_place_is_refused_while_the_node_runs(
    start_node: Callable[..., Node], change: dict[str, object]
) -> None:
    node = start_node()
    node.write_config(cache=change)
    assert "can't change while the node runs" in reload(node).last_error
