"""The access log, each line once: the writer may die after any byte of any write, and the next one puts it right."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeproxy.ledger import LedgerReader, LedgerWriter
from edgeproxy.logging import AccessLog, AppendSink, nginx_line, writer
from edgeproxy.logging.target import Target
from tests.ledger.parts import lines_of, prefix, record

RING = 64 * 1024


class DiedError(BaseException):
    """The scribe is gone at this point."""


class Mortal:
    """`os` as the writer sees it: every write is cut off after some bytes, and the process dies with it."""

    def __init__(self, after: int) -> None:
        self.left = after

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def writev(self, fd: int, pieces: Any) -> int:
        return self.write(fd, b"".join(pieces))

    def write(self, fd: int, data: Any) -> int:
        written = os.write(fd, bytes(data)[: self.left])
        self.left -= written
        if not self.left:
            raise DiedError
        return written


class Node:
    """A ledger with its writer, a log, and scribes that come and go."""

    def __init__(self, directory: Path, log_format: Any = "json", ring_bytes: int = RING) -> None:
        self.path = directory / "access.log"
        self.format = log_format
        self.writer = LedgerWriter.create(directory, 0, 1, slots=4, ring_bytes=ring_bytes)
        self.reader = LedgerReader.open(self.writer.path)
        self.log = AccessLog(str(self.path), log_format)

    def publish(self, *seqs: int, **changes: Any) -> None:
        for seq in seqs:
            self.writer.publish(self.writer.open(seq, prefix(seq)), record(seq, **changes))

    def drain(self) -> None:
        while self.log.drain(self.reader):
            pass

    def succeed(self) -> None:
        """A new scribe takes over, with nothing but what is in the ledger and the file."""
        self.close_scribe()
        self.reader = LedgerReader.open(self.writer.path)
        self.log = AccessLog(str(self.path), self.format)

    def die_after(self, count: int, patch: pytest.MonkeyPatch) -> bool:
        """Drain until `count` bytes are written, and die; False when there was less to write."""
        with patch.context() as context:
            context.setattr(writer, "os", Mortal(count))
            try:
                self.drain()
            except DiedError:
                return True
        return False

    def line(self, seq: int) -> bytes:
        return nginx_line(record(seq)) if self.format == "nginx" else record(seq)

    def close_scribe(self) -> None:
        self.log.close()
        self.reader.close()

    def close(self) -> None:
        self.close_scribe()
        self.writer.close()
        self.writer.path.unlink()


@pytest.fixture(params=["json", "nginx"])
def node(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Node]:
    one = Node(tmp_path, request.param)
    yield one
    one.close()


def whole(node: Node, *paths: Path) -> list[bytes]:
    """Lines that are records; torn pieces are no records."""
    known = {node.line(seq) for seq in range(100)}
    return [line for path in paths for line in lines_of(path) if line in known]


def test_lines_are_moved_as_they_are(node: Node) -> None:
    node.publish(*range(50))
    node.drain()
    assert node.path.read_bytes() == b"".join(node.line(seq) for seq in range(50))
    assert node.reader.fill == 0
    assert node.reader.batch is None


def test_a_ring_that_wrapped_is_moved_in_order(node: Node) -> None:
    for seq in range(60):
        node.publish(*range(seq, seq + 20))
        node.drain()
    expected = [node.line(each) for seq in range(60) for each in range(seq, seq + 20)]
    assert node.path.read_bytes() == b"".join(expected)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    log_format=st.sampled_from(["json", "nginx"]),
    count=st.integers(1, 6),
    deaths=st.lists(st.integers(1, 4000), min_size=1, max_size=4),
    others=st.lists(st.booleans(), min_size=4, max_size=4),
    rotations=st.lists(st.sampled_from(["", "rename", "create"]), min_size=4, max_size=4),
)
def test_a_scribe_that_dies_after_any_byte_leaves_each_line_once(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    log_format: str,
    count: int,
    deaths: list[int],
    others: list[bool],
    rotations: list[str],
) -> None:
    """Between two scribes, a worker may have appended a line of its own, and the file may have been rotated."""
    node = Node(tmp_path, log_format)
    paths = [node.path]
    try:
        node.publish(*range(count))
        appended = []
        for index, after in enumerate(deaths):
            if not node.die_after(after, monkeypatch):
                break
            if rotations[index] and node.path.exists():
                paths.append(node.path.rename(tmp_path / f"access.log.{index}"))
                if rotations[index] == "create":
                    node.path.touch()
            if others[index]:
                sink = AppendSink(str(node.path), node.format)
                assert sink.append(record(50 + index))
                sink.close()
                appended.append(50 + index)
            node.succeed()
        node.drain()
        lines = [line for path in paths for line in lines_of(path)]
        if log_format == "nginx" and appended:
            # A torn piece that someone else has written behind can't be told from other text.
            lines = whole(node, *paths)
        assert sorted(lines) == sorted(node.line(seq) for seq in [*range(count), *appended])
    finally:
        node.close()
        for path in paths:
            path.unlink(missing_ok=True)


def test_every_single_byte_of_a_batch_is_a_good_place_to_die(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for after in range(1, len(record(0) + record(1) + record(2)) + 1):
        node = Node(tmp_path)
        node.publish(0, 1, 2)
        assert node.die_after(after, monkeypatch)
        node.succeed()
        node.drain()
        assert lines_of(node.path) == [record(0), record(1), record(2)], after
        node.close()
        node.path.unlink()


def test_a_scribe_that_dies_while_it_completes_a_line_leaves_the_rest_to_the_next(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.publish(0, 1, 2)
    for _ in range(len(node.line(0) * 3) // 10 + 1):
        node.die_after(10, monkeypatch)
        node.succeed()
    node.drain()
    assert lines_of(node.path) == [node.line(0), node.line(1), node.line(2)]


def test_lines_that_a_worker_appended_in_between_are_passed_over(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the note of the file's size and the write, and after it."""
    node.publish(0, 1)
    sink = AppendSink(str(node.path), node.format)
    sink.append(record(60))
    node.log.open()

    class Late(Mortal):
        def writev(self, fd: int, pieces: Any) -> int:
            sink.append(record(61))
            return super().writev(fd, pieces)

    with monkeypatch.context() as patch:
        patch.setattr(writer, "os", Late(len(node.line(0))))
        with pytest.raises(DiedError):
            node.drain()
    sink.append(record(62))
    node.succeed()
    node.publish(2)
    node.drain()
    assert lines_of(node.path) == [node.line(seq) for seq in (60, 61, 0, 62, 1, 2)]
    sink.close()


def test_a_file_that_was_deleted_meanwhile_is_written_anew(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    node.publish(0, 1)
    assert node.die_after(len(node.line(0)), monkeypatch)
    node.path.unlink()
    node.succeed()
    node.drain()
    assert lines_of(node.path) == [node.line(0), node.line(1)]


@pytest.mark.parametrize("length", [1, 5, 7, 8, 300, len(record(9)) - 1])
def test_a_torn_record_that_a_dead_worker_left_is_cut_off(tmp_path: Path, length: int) -> None:
    node = Node(tmp_path)
    node.path.write_bytes(record(8) + record(9)[:length])
    node.publish(0)
    node.drain()
    assert lines_of(node.path) == [record(8), record(0)]
    node.close()


@pytest.mark.parametrize("text", [b"192.0.2.7 - 00", b"not ours", b'{"tsar":1', b"{}"])
def test_torn_text_that_is_no_record_stays_a_line_of_its_own(node: Node, text: bytes) -> None:
    node.path.write_bytes(text)
    node.publish(0)
    node.drain()
    assert lines_of(node.path) == [text + b"\n", node.line(0)]


def test_a_write_under_way_is_not_taken_for_a_torn_line(tmp_path: Path) -> None:
    """Its writer holds a lock; another process that appends leaves the end alone."""
    node = Node(tmp_path)
    other = Target.open(str(node.path))
    assert not other.begin()
    os.write(other.fd, record(9)[:100])
    node.publish(0)
    node.drain()
    os.write(other.fd, b"\n")
    other.end()
    other.close()
    assert lines_of(node.path) == [record(9)[:100] + record(0), b"\n"]
    node.close()


# Disks and devices that refuse.


class Short:
    """`os` of a disk with so many bytes left: short writes, then none."""

    def __init__(self, room: int) -> None:
        self.room = room

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def write(self, fd: int, data: Any) -> int:
        if not self.room:
            raise OSError(28, "No space left on device")
        written = os.write(fd, bytes(data)[: self.room])
        self.room -= written
        return written

    def writev(self, fd: int, pieces: Any) -> int:
        return self.write(fd, b"".join(pieces))


@pytest.mark.parametrize("room", [0, 1, 100, 300, 400])
def test_a_disk_that_fills_up_in_the_middle_of_a_line_gets_the_rest_when_it_has_room(
    node: Node, room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.publish(*range(5))
    disk = Short(room)
    monkeypatch.setattr(writer, "os", disk)
    for _ in range(3):
        with pytest.raises(OSError, match="No space left") as caught:
            node.drain()
        assert caught.value.filename == str(node.path)
    node.publish(5)
    disk.room = 1_000_000
    node.drain()
    assert lines_of(node.path) == [node.line(seq) for seq in range(6)]


def test_a_worker_that_appends_behind_a_line_cut_by_a_full_disk_breaks_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Room came back, and the worker saw it before the scribe did."""
    node = Node(tmp_path)
    node.publish(0, 1, 2)
    disk = Short(len(record(0)) + 100)
    with monkeypatch.context() as patch:
        patch.setattr(writer, "os", disk)
        with pytest.raises(OSError, match="No space left"):
            node.drain()
    sink = AppendSink(str(node.path))
    assert sink.append(record(50))
    node.drain()
    assert lines_of(node.path) == [record(0), record(50), record(1), record(2)]
    sink.close()
    node.close()


def test_a_disk_that_fills_again_and_again_gets_each_line_once(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    node.publish(*range(5))
    disk = Short(0)
    monkeypatch.setattr(writer, "os", disk)
    while node.reader.fill:
        try:
            node.drain()
        except OSError:
            disk.room = 37
    assert lines_of(node.path) == [node.line(seq) for seq in range(5)]


def test_a_directory_that_is_not_there_is_an_error_until_it_is(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.path = tmp_path / "logs" / "access.log"
    node.log = AccessLog(str(node.path))
    node.publish(0)
    with pytest.raises(FileNotFoundError):
        node.drain()
    node.path.parent.mkdir()
    node.drain()
    assert lines_of(node.path) == [record(0)]
    node.close()


# Rotation.


def test_reopening_continues_in_the_new_file(node: Node, tmp_path: Path) -> None:
    node.publish(0)
    node.drain()
    old = node.path.rename(tmp_path / "access.log.1")
    node.publish(1)
    node.drain()
    node.log.reopen()
    node.publish(2)
    node.drain()
    assert lines_of(old) == [node.line(0), node.line(1)]
    assert lines_of(node.path) == [node.line(2)]


@pytest.mark.parametrize("how", ["replaced", "deleted"])
def test_a_file_that_was_taken_away_is_noticed(node: Node, tmp_path: Path, how: str) -> None:
    node.publish(0)
    node.drain()
    if how == "deleted":
        node.path.unlink()
    else:
        node.path.rename(tmp_path / "access.log.1")
        node.log.follow()
        assert not node.path.exists()
        node.path.touch()
    node.log.follow()
    node.publish(1)
    node.drain()
    assert lines_of(node.path) == [node.line(1)]


def test_a_line_torn_before_a_rotation_is_completed_in_its_file(node: Node, tmp_path: Path, monkeypatch: Any) -> None:
    node.publish(0, 1, 2)
    assert node.die_after(len(node.line(0)) + 20, monkeypatch)
    old = node.path.rename(tmp_path / "access.log-20260304")
    node.path.touch()
    node.succeed()
    node.drain()
    assert lines_of(old) == [node.line(0), node.line(1)]
    assert lines_of(node.path) == [node.line(2)]


# Streams.


class Pipe:
    """A pipe that the log is written to by its path."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()
        os.set_blocking(self.reading, False)
        self.path = f"/proc/self/fd/{self.writing}"
        self.received = b""

    def read(self, size: int = 1_000_000) -> bool:
        try:
            data = os.read(self.reading, size)
        except BlockingIOError:
            return False
        self.received += data
        return bool(data)

    def close(self) -> None:
        os.close(self.reading)
        os.close(self.writing)


@pytest.mark.parametrize("log_format", ["json", "nginx"])
@pytest.mark.parametrize("agent", [0, 3000, 10000])
def test_a_stream_gets_each_line_once_however_slowly_it_is_read(tmp_path: Path, agent: int, log_format: str) -> None:
    pipe = Pipe()
    node = Node(tmp_path, log_format, ring_bytes=1024 * 1024)
    node.log = AccessLog(pipe.path, node.format)
    render: Callable[[bytes], bytes] = nginx_line if log_format == "nginx" else bytes
    sent = b""
    blocked = 0
    for seq in range(60):
        node.publish(seq, user_agent="x" * agent)
        sent += render(record(seq, user_agent="x" * agent))
        node.drain()
        blocked += node.log.blocked_on is not None
        pipe.read(1500)
    for _ in range(10_000):
        if not node.reader.fill:
            break
        pipe.read(3000)
        node.drain()
    while pipe.read():
        pass
    assert pipe.received == sent
    assert blocked or agent < 10000
    assert node.log.blocked_on is None
    node.close()
    pipe.close()


def test_a_stream_whose_reader_is_gone_is_an_error(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    node = Node(tmp_path)
    node.log = AccessLog(f"/proc/self/fd/{writing}")
    node.log.open()
    os.close(reading)
    node.publish(1)
    with pytest.raises(BrokenPipeError):
        node.drain()
    assert node.reader.fill == len(record(1))
    os.close(writing)
    node.close()


def test_a_full_device_is_an_error_and_keeps_the_line_in_the_ring(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.log = AccessLog("/dev/full")
    node.publish(1)
    with pytest.raises(OSError, match="No space left"):
        node.drain()
    assert node.reader.fill == len(record(1))
    node.close()
