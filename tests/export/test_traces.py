"""The store of traces on this host: bounded, readable while it is written, and set aside when it can't be used."""

import subprocess
import sys
import threading
from pathlib import Path

import lmdb
import pytest

from edgeproxy.export.batch import Unavailable
from edgeproxy.export.exporters import stored_payload
from edgeproxy.export.trace_sink import TraceStoreSink
from edgeproxy.export.traces import TraceStore, TraceStoreError

MIB = 1024 * 1024


def line(number: int, size: int = 0) -> bytes:
    return b'{"trace_id":"%032x","n":%d,"pad":"%s"}\n' % (number, number, b"x" * size)


def send(sink: TraceStoreSink, *lines: bytes) -> None:
    assert sink.send([stored_payload(each, ()) for each in lines], len(lines), 1.0) == 0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "traces"


def test_lines_are_found_by_trace_and_by_time(folder: Path) -> None:
    sink = TraceStoreSink(folder, MIB)
    send(sink, line(1), line(2))
    send(sink, line(1, 5))
    store = TraceStore.open(folder)
    assert store.lines(f"{1:032x}") == [line(1), line(1, 5)]
    assert store.lines(f"{9:032x}") == []
    assert store.recent(2) == [line(1, 5), line(2)]
    store.close()
    sink.close()


def test_another_process_reads_while_it_is_written(folder: Path) -> None:
    sink = TraceStoreSink(folder, MIB)
    program = f"""
from edgeproxy.export.traces import TraceStore
from pathlib import Path
print(len(TraceStore.open(Path({str(folder)!r})).recent(99)))
"""
    for count in (1, 2):
        send(sink, line(count))
        read = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert read.stdout == f"{count}\n"
    sink.close()


def test_the_oldest_make_room_and_the_file_stays_within_its_size(folder: Path) -> None:
    sink = TraceStoreSink(folder, MIB)
    for start in range(0, 4000, 100):
        send(sink, *(line(number, 900) for number in range(start, start + 100)))
    store = TraceStore.open(folder)
    kept = store.recent(10_000)
    assert 300 < len(kept) < 1100
    assert kept[0] == line(3999, 900)
    assert store.lines(f"{0:032x}") == []
    store.check()
    store.close()
    sink.close()
    assert (folder / "data.mdb").stat().st_size <= MIB


def test_it_survives_a_restart_and_a_kill(folder: Path) -> None:
    first = TraceStoreSink(folder, MIB)
    send(first, line(1))
    first.close()
    assert not (folder / "in-use").exists()
    killed = f"""
import os, sys
from pathlib import Path
from edgeproxy.export.trace_sink import TraceStoreSink
TraceStoreSink(Path({str(folder)!r}), {MIB}).send([bytes(15) + b"\\2" + {line(2)!r}], 1, 1.0)
os.kill(os.getpid(), 9)
"""
    assert subprocess.run([sys.executable, "-c", killed], check=False).returncode == -9
    assert (folder / "in-use").exists()
    third = TraceStoreSink(folder, MIB)
    send(third, line(3))
    store = TraceStore.open(folder)
    assert [len(store.lines(f"{number:032x}")) for number in (1, 2, 3)] == [1, 1, 1]
    store.close()
    third.close()


@pytest.mark.parametrize("damage", ["garbage", "cut off", "another boot"])
def test_a_store_that_can_not_be_used_is_set_aside(folder: Path, damage: str) -> None:
    before = TraceStoreSink(folder, MIB)
    send(before, *(line(number, 500) for number in range(300)))
    before.close()
    data = folder / "data.mdb"
    (folder / "in-use").write_text(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    match damage:
        case "garbage":
            data.write_bytes(b"\xff" * data.stat().st_size)
        case "cut off":
            data.write_bytes(data.read_bytes()[: data.stat().st_size // 3])
        case _:
            (folder / "in-use").write_text("another")
    sink = TraceStoreSink(folder, MIB)
    send(sink, line(1))
    assert folder.with_name("traces.set-aside").exists()
    store = TraceStore.open(folder)
    assert len(store.recent(99)) == 1
    store.close()
    sink.close()


def test_where_there_is_none_is_an_error_to_readers(folder: Path) -> None:
    with pytest.raises(TraceStoreError, match="can't be opened"):
        TraceStore.open(folder)


READER = """
import sys
from pathlib import Path
from edgeproxy.export.traces import TraceStore
store = TraceStore.open(Path(sys.argv[1]))
with store._env.begin():
    print("reading", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("how", ["killed", "stuck"])
def test_a_reader_that_never_ends_costs_no_trace_that_is_kept(folder: Path, how: str) -> None:
    sink = TraceStoreSink(folder, MIB)
    send(sink, line(1))
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen((sys.executable, "-c", READER, str(folder)), **pipes) as reader:  # type: ignore[call-overload]
        assert reader.stdout.readline() == b"reading\n"
        if how == "killed":
            reader.kill()
            reader.wait()
        refused = 0
        for start in range(0, 4000, 100):
            try:
                send(sink, *(line(number, 900) for number in range(start, start + 100)))
            except Unavailable:
                refused += 1
        reader.kill()
    assert bool(refused) is (how == "stuck")
    send(sink, line(9))
    store = TraceStore.open(folder)
    assert store.recent(1) == [line(9)]
    assert len(store.recent(10_000)) > 200
    store.close()
    sink.close()
    assert not folder.with_name("traces.set-aside").exists()


def test_a_full_disk_costs_no_trace_that_is_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = TraceStoreSink(folder, MIB)
    send(sink, line(1))
    with monkeypatch.context() as full:

        def add(_self: TraceStore, _payloads: list[bytes]) -> None:
            raise lmdb.DiskError("No space left on device")

        full.setattr(TraceStore, "add", add)
        for _ in range(3):
            with pytest.raises(Unavailable, match="No space left"):
                send(sink, line(2))
    send(sink, line(3))
    store = TraceStore.open(folder)
    assert store.recent(9) == [line(3), line(1)]
    store.close()
    sink.close()


def test_a_store_that_is_removed_while_it_is_written_is_begun_anew(folder: Path) -> None:
    sink = TraceStoreSink(folder, MIB)
    send(sink, line(1))
    for name in ("data.mdb", "lock.mdb", "in-use"):
        (folder / name).unlink()
    folder.rmdir()
    send(sink, line(2))
    store = TraceStore.open(folder)
    assert store.recent(9) == [line(2)]
    store.close()
    sink.close()


def test_the_next_writer_waits_until_the_one_before_has_closed(folder: Path) -> None:
    before, after = TraceStoreSink(folder, MIB), TraceStoreSink(folder, MIB)
    send(before, line(1))
    with pytest.raises(Unavailable, match="written by another process"):
        after.send([stored_payload(line(2), ())], 1, 0.05)
    waiting = threading.Thread(target=after.send, args=([stored_payload(line(2), ())], 1, 20.0))
    waiting.start()
    before.close()
    waiting.join()
    store = TraceStore.open(folder)
    assert store.recent(9) == [line(2), line(1)]
    store.close()
    after.close()
    assert not folder.with_name("traces.set-aside").exists()


def test_a_reader_sees_what_came_after_it_opened(folder: Path) -> None:
    sink = TraceStoreSink(folder, MIB)
    send(sink, line(1))
    program = """
import sys
from pathlib import Path
from edgeproxy.export.traces import TraceStore
store = TraceStore.open(Path(sys.argv[1]))
print("open", flush=True)
sys.stdin.read()
print(len(store.recent(9999)))
"""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen((sys.executable, "-c", program, str(folder)), **pipes) as reader:  # type: ignore[call-overload]
        assert reader.stdout.readline() == b"open\n"
        send(sink, *(line(number, 900) for number in range(2, 300)))
        assert reader.communicate()[0] == b"299\n"
    sink.close()
