"""The scribe as a process: real ledgers of real worker processes, killed, starved and rotated; every line exactly
once.
"""

import json
import os
import random
import resource
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path

import pytest

from edgeproxy.ledger import LedgerReader, Stage, ledger_files
from edgeproxy.node.scribe import LOCK_FILE
from tests.ledger.parts import (
    PATIENCE_S,
    ROOT,
    Feeder,
    Scribe,
    feed_all,
    feeder,
    lines_of,
    record,
    scribe,
    span_id,
    span_ids,
    wait_until,
)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    path = tmp_path / "run"
    path.mkdir()
    return path


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "logs"
    path.mkdir()
    return path / "access.log"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one MiB; needs root."""
    path = tmp_path / "disk"
    path.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", path], capture_output=True, check=False
    ).returncode:
        pytest.skip("can't mount a tmpfs here")
    yield path
    subprocess.run(["umount", "-l", path], check=True)


def expected(worker: int, count: int) -> list[str]:
    return [span_id(worker, seq) for seq in range(count)]


def drained(run: Path) -> bool:
    return not ledger_files(run)


def test_lines_appear_soon_after_they_were_published(run: Path, log: Path) -> None:
    with scribe(run, log), feeder(run, lines=100, stay=True) as worker:
        worker.wait_done()
        wait_until(lambda: len(lines_of(log)) == 100, "all lines are in the log", patience_s=10)
        assert span_ids(log) == expected(0, 100)


def test_a_worker_that_ended_leaves_nothing_behind(run: Path, log: Path) -> None:
    with scribe(run, log):
        feed_all(run, 3000)
        wait_until(lambda: drained(run), "the ledger is deleted")
        assert span_ids(log) == expected(0, 3000)


def test_being_told_to_end_it_writes_everything_first(run: Path, log: Path) -> None:
    with scribe(run, log) as one, feeder(run, lines=15_000, stay=True) as worker:
        worker.wait_done()
        assert one.stop() == 0
        assert span_ids(log) == expected(0, 15_000)


@pytest.mark.parametrize("log_format", ["json", "nginx"])
def test_a_scribe_killed_again_and_again_loses_no_line_and_writes_none_twice(
    run: Path, log: Path, log_format: str
) -> None:
    """Two workers, one so fast that its ledger overflows and it appends to the log by itself."""
    lines = 10_000
    chance = random.Random(1)
    one = Scribe(run, log, log_format)
    options = {"log": log, "format": log_format, "lines": lines, "ring": 256 * 1024}
    kills = 0
    with feeder(run, worker=1, **options) as fast, feeder(run, worker=2, pause_s=0.005, **options) as slow:
        while kills < 8 or any(worker.popen.poll() is None for worker in (fast, slow)):
            one.start()
            before = log.stat().st_size
            goal = before + chance.randrange(1, 1_000_000)
            deadline = time.monotonic() + chance.random() * 0.3
            while log.stat().st_size < goal and time.monotonic() < deadline:
                pass
            one.kill()
            kills += 1
    one.start()
    wait_until(lambda: drained(run), "the ledgers are deleted")
    assert one.stop() == 0
    if log_format == "json":
        assert sorted(span_ids(log)) == sorted(expected(1, lines) + expected(2, lines))
    else:
        paths = [line.split(b" ")[6] for line in lines_of(log)]
        assert sorted(paths) == sorted(b"/%d" % seq for seq in range(lines) for _ in range(2))


def test_a_killed_workers_requests_are_written_as_lost(run: Path, log: Path) -> None:
    with scribe(run, log) as one, feeder(run, worker=5, lines=40, leave_open=6) as worker:
        worker.wait_done()
        worker.kill()
        wait_until(lambda: drained(run), "the ledger is deleted")
        records = [json.loads(line) for line in lines_of(log)]
        assert span_ids(log) == expected(5, 46)
        assert [each["outcome"] for each in records] == ["ok"] * 40 + ["lost"] * 6
        assert [each["stage"] for each in records[40:]] == [stage.word for stage in islice(cycle(Stage), 40, 46)]
        assert records[40]["error"]["message"] == (
            f"worker 5 (pid {worker.popen.pid}) died while the request was in flight"
        )
        wait_until(lambda: one.said("requests lost"), "the loss is reported")
        assert one.said("requests lost")[0]["requests"] == 6


def test_lost_requests_are_written_once_though_the_scribe_dies_too(run: Path, log: Path) -> None:
    chance = random.Random(2)
    one = Scribe(run, log)
    for round_ in range(4):
        with feeder(run, worker=round_, lines=300, leave_open=60) as worker:
            worker.wait_done()
        # Anywhere between its start and its end of the work; ready comes before or after, whatever.
        ready = one.spawn()
        limit = time.monotonic() + 0.2 + chance.random() * 0.2
        while time.monotonic() < limit and not drained(run):
            pass
        one.kill()
        os.close(ready)
    one.start()
    wait_until(lambda: drained(run), "the ledgers are deleted")
    assert one.stop() == 0
    assert sorted(span_ids(log)) == sorted(each for worker in range(4) for each in expected(worker, 360))


def test_workers_killed_under_load_leave_no_gap(run: Path, log: Path) -> None:
    """Every seq up to the highest has its line: published, or lost."""
    with scribe(run, log):
        for worker in range(3):
            with feeder(run, worker=worker, lines=10**9, log=log, ring=64 * 1024):
                size = log.stat().st_size if log.exists() else 0
                wait_until(lambda: log.exists() and log.stat().st_size > size + 300_000, "it wrote something")  # noqa: B023
            wait_until(lambda: drained(run), "the ledger is deleted")
    found: dict[int, list[int]] = {}
    for line in lines_of(log):
        one = json.loads(line)
        found.setdefault(one["worker"], []).append(one["seq"])
    assert sorted(found) == [0, 1, 2]
    for seqs in found.values():
        assert sorted(seqs) == list(range(len(seqs)))


def test_rotation_under_load_splits_the_log_between_lines(run: Path, log: Path) -> None:
    lines = 20_000
    rotated: list[Path] = []
    with scribe(run, log) as one, feeder(run, lines=lines, log=log, pause_s=0.002) as worker:
        while worker.popen.poll() is None:
            number = len(rotated)
            if not log.exists() or not log.stat().st_size:
                continue
            rotated.append(log.rename(log.with_name(f"access.log.{number}")))
            one.signal(signal.SIGUSR1)
            limit = time.monotonic() + 0.02
            while time.monotonic() < limit:
                pass
        wait_until(lambda: drained(run), "the ledger is deleted")
        assert one.stop() == 0
    assert len(rotated) > 3
    assert sorted(span_ids(*rotated, *([log] if log.exists() else []))) == expected(0, lines)


def test_a_rotation_that_nobody_announced_is_noticed(run: Path, log: Path) -> None:
    with scribe(run, log) as one, feeder(run, lines=10**9, pause_s=0.05):
        wait_until(lambda: log.exists() and log.stat().st_size, "there are lines")
        log.rename(log.with_name("access.log.1"))
        log.touch()
        wait_until(lambda: log.stat().st_size, "the new file is written to")
        assert one.stop() == 0


# Refusing disks.


def test_a_full_disk_is_waited_out(run: Path, log: Path) -> None:
    """No byte beyond the limit for this process: the log stops in the middle of a line, the ledger holds the rest."""
    with scribe(run, log) as one, feeder(run, lines=1500, stay=True) as worker:
        _, hard = resource.prlimit(one.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(one.pid, resource.RLIMIT_FSIZE, (100_007, hard))
        worker.wait_done()
        wait_until(lambda: one.said("can't be written"), "it is reported")
        (event,) = one.said("can't be written")
        assert event["path"] == str(log)
        assert event["error"] == "File too large"
        assert log.stat().st_size == 100_007
        assert not log.read_bytes().endswith(b"\n")
        resource.prlimit(one.pid, resource.RLIMIT_FSIZE, (hard, hard))
        wait_until(lambda: one.said("can be written again"), "it is well again")
        wait_until(lambda: len(lines_of(log)) == 1500, "all lines are there")
        assert span_ids(log) == expected(0, 1500)
        # Once each, though it was tried each second.
        assert len(one.said("access log")) == 2


def test_a_log_that_was_cut_short_is_continued_with_whole_lines(run: Path, log: Path) -> None:
    with feeder(run, lines=1500, stay=True) as worker:
        worker.wait_done()
        with scribe(run, log) as one:
            wait_until(lambda: len(lines_of(log)) == 1500, "all lines are there")
            one.kill()
        with log.open("r+b") as file:
            file.truncate(100_007)  # what a crash of the machine may leave; the ledger does not know
        with scribe(run, log):
            feed_all(run, 5, worker=1)
            wait_until(lambda: len(lines_of(log)) >= 5 and lines_of(log)[-1] == record(4, 1), "it goes on")
    # Nothing torn is left, all lines are whole.
    assert span_ids(log)[-5:] == expected(1, 5)


def test_a_disk_of_one_megabyte_fills_and_empties(run: Path, small_disk: Path) -> None:
    log = small_disk / "access.log"
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * 600_000)
    with scribe(run, log) as one, feeder(run, lines=1100, stay=True) as worker:
        worker.wait_done()
        wait_until(lambda: one.said("can't be written"), "it is reported")
        assert one.said("can't be written")[0]["error"] == "No space left on device"
        ballast.unlink()
        wait_until(lambda: len(lines_of(log)) == 1100, "all lines are there")
        assert span_ids(log) == expected(0, 1100)
        wait_until(lambda: one.said("can be written again"), "it is well again")


def test_lines_that_nothing_takes_are_counted_and_reported(run: Path) -> None:
    with scribe(run, "/dev/full") as one, feeder(run, lines=2000, ring=65536, log="/dev/full", stay=True) as worker:
        worker.wait_done()
        wait_until(lambda: one.said("lines lost"), "the loss is reported")
        reader = LedgerReader.open(ledger_files(run)[0], writable=False)
        lost = 2000 - sum(bytes(piece).count(b"\n") for piece in reader.pending())
        assert sum(event["lines"] for event in one.said("lines lost")) <= lost
        assert one.said("can't be written")[0]["errno"] == 28
        reader.close()


@pytest.mark.parametrize("obstacle", ["missing directory", "directory in its place", "no permission"])
def test_a_log_that_cant_be_opened_is_tried_again(run: Path, log: Path, obstacle: str) -> None:
    if obstacle == "no permission" and os.geteuid() == 0:
        pytest.skip("root may write anywhere")
    match obstacle:
        case "missing directory":
            log.parent.rmdir()
        case "directory in its place":
            log.mkdir()
        case _:
            log.parent.chmod(0o500)
    with scribe(run, log) as one, feeder(run, lines=10, stay=True) as worker:
        worker.wait_done()
        assert one.said("can't be written")[0]["path"] == str(log)
        match obstacle:
            case "missing directory":
                log.parent.mkdir()
            case "directory in its place":
                log.rmdir()
            case _:
                log.parent.chmod(0o700)
        wait_until(lambda: log.is_file() and len(lines_of(log)) == 10, "the lines are there")
        wait_until(lambda: one.said("can be written again"), "it is well again")


def test_ending_with_a_log_that_takes_nothing_keeps_the_lines_for_the_next(run: Path, log: Path) -> None:
    with feeder(run, lines=10, leave_open=2) as worker:
        worker.wait_done()
    with scribe(run, "/dev/full") as one:
        assert one.stop() == 0
        assert one.said("lines stay in the ledgers")
    with scribe(run, log) as one:
        wait_until(lambda: drained(run), "the ledger is deleted")
    assert span_ids(log) == expected(0, 12)


# Standard output.


def test_standard_output_gets_the_lines_and_nothing_else(run: Path, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    with scribe(run, "-", stdout=writing) as one, feeder(run, lines=2000, stay=True) as worker:
        os.close(writing)
        worker.wait_done()
        with os.fdopen(reading, "rb") as file:
            assert [file.readline() for _ in range(2000)] == [record(seq) for seq in range(2000)]
            assert one.stop() == 0
            assert file.read() == b""


def test_a_reader_that_stalls_stops_neither_the_scribe_nor_loses_a_line(run: Path) -> None:
    reading, writing = os.pipe()
    with scribe(run, "-", stdout=writing) as one, feeder(run, lines=2000, stay=True) as worker:
        os.close(writing)
        worker.wait_done()
        # The pipe is full, nobody reads: the scribe still hears its signals, and waits some seconds for the reader.
        assert select.select([reading], [], [], PATIENCE_S)[0]
        one.signal(signal.SIGTERM)
        with os.fdopen(reading, "rb") as file:
            assert file.read() == b"".join(record(seq) for seq in range(2000))


# Who may write.


def test_a_second_scribe_waits_for_the_firsts_end(run: Path, log: Path) -> None:
    with scribe(run, log) as first:
        second = Scribe(run, log)
        ready = second.spawn()
        feed_all(run, 50)
        wait_until(lambda: drained(run), "the ledger is deleted")
        assert not select.select([ready], [], [], 0)[0]
        assert first.stop() == 0
        assert select.select([ready], [], [], PATIENCE_S)[0]
        os.close(ready)
        assert second.stop() == 0
    assert span_ids(log) == expected(0, 50)
    assert (run / LOCK_FILE).exists()


PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-m", "edgeproxy.node.scribe", *sys.argv[1:]])
print(child.pid, flush=True)
sys.stdin.read()
"""


class Parent:
    """A supervisor that dies: starts a scribe, says its pid, and is killed."""

    def __init__(self, run: Path, log: Path) -> None:
        Scribe(run, log)  # writes the configuration
        self.reading, theirs = os.pipe()
        self.popen = subprocess.Popen(
            [
                sys.executable,
                "-c",
                PARENT.replace("*sys.argv[1:]]", f"*sys.argv[1:]], pass_fds=[{theirs}]"),
                f"--config={run}/config-1.json",
                f"--runtime-dir={run}",
                f"--ready-fd={theirs}",
            ],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[theirs],
        )
        os.close(theirs)
        assert self.popen.stdout is not None
        self.scribe = int(self.popen.stdout.readline())
        assert os.read(self.reading, 1) == b"1"

    def die(self) -> None:
        self.popen.kill()
        self.popen.wait()

    def scribe_is_alive(self) -> bool:
        try:
            return Path(f"/proc/{self.scribe}/stat").read_text().split()[2] != "Z"
        except FileNotFoundError:
            return False

    def close(self) -> None:
        self.die()
        os.close(self.reading)
        for pipe in (self.popen.stdin, self.popen.stdout):
            assert pipe is not None
            pipe.close()
        if self.scribe_is_alive():
            os.kill(self.scribe, signal.SIGKILL)


@pytest.fixture
def parent(run: Path, log: Path) -> Iterator[Parent]:
    one = Parent(run, log)
    yield one
    one.close()


def test_an_orphan_goes_on_until_the_last_worker_is_gone(run: Path, log: Path, parent: Parent) -> None:
    with feeder(run, lines=50, leave_open=1) as worker:
        worker.wait_done()
        wait_until(lambda: len(lines_of(log)) == 50, "the lines are there")
        parent.die()
        feed_all(run, 50, worker=1)
        wait_until(lambda: len(ledger_files(run)) == 1, "the second worker's ledger is done")
        assert parent.scribe_is_alive()
    wait_until(lambda: not parent.scribe_is_alive(), "the scribe has gone")
    assert drained(run)
    assert sorted(span_ids(log)) == sorted(expected(0, 51) + expected(1, 50))


def test_an_orphan_makes_room_for_a_new_supervisors_scribe(run: Path, log: Path, parent: Parent) -> None:
    import fcntl

    with feeder(run, lines=10**9, pause_s=0.05, log=log):
        wait_until(lambda: log.exists() and log.stat().st_size, "there are lines")
        parent.die()
        with (run / "supervisor.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with scribe(run, log) as successor:
                assert not parent.scribe_is_alive()
                size = log.stat().st_size
                wait_until(lambda: log.stat().st_size > size, "the successor writes")
                assert successor.stop() == 0
    seqs = [json.loads(line)["seq"] for line in lines_of(log)]
    assert sorted(seqs) == list(range(len(seqs)))


def test_a_ledger_of_another_version_is_reported_once_and_left_alone(run: Path, log: Path) -> None:
    feed_all(run, 1)
    (path,) = ledger_files(run)
    with path.open("r+b") as file:
        file.seek(8)
        file.write(b"\x63")
    with scribe(run, log) as one:
        feed_all(run, 5, worker=1)
        wait_until(lambda: len(lines_of(log)) == 5, "the good ledger is drained")
        assert one.stop() == 0
    assert path.exists()
    (event,) = one.said("ledger can't be read")
    assert "version 99" in event["error"]


# What it costs.


def test_the_bulk_path_is_cheap(run: Path, log: Path) -> None:
    """A figure to look at, with a bound far above it for busy machines: CPU of the whole process per line."""
    lines = 100_000
    with scribe(run, log) as one, Feeder(run, lines=lines, log=log, pause_s=0.002).popen as worker:
        worker.wait(120)
        wait_until(lambda: drained(run), "the ledger is deleted")
        stat = Path(f"/proc/{one.pid}/stat").read_text().rpartition(")")[2].split()
        cpu_s = (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")
        print(f"scribe: {cpu_s / lines * 1e6:.2f} us a line, start included")
        assert cpu_s / lines < 20e-6
    assert len(lines_of(log)) == lines
