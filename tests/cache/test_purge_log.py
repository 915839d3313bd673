"""The purge log on real files and between real processes: order, overrun readers, deaths in the middle, damage."""

import contextlib
import mmap
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgeproxy.cache.purge import MAX_TAG_BYTES, MAX_VALUE_BYTES, Kind, Purge, Purges, Rule
from edgeproxy.cache.purge_layout import HEADER_BYTES, LEAP, PURGE_SEQ, PurgeWord, encode, record_bytes
from edgeproxy.cache.purge_log import PurgeLog, PurgeLogError

NOW = 1_700_000_000_000_000_000
SMALL = 4096
"""A ring that is soon full."""
APPENDER = """
import sys
from pathlib import Path
from edgeproxy.cache.purge import Kind
from edgeproxy.cache.purge_log import PurgeLog
path, name, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
log = PurgeLog.open(path)
print("ready", flush=True)
for number in range(count):
    log.append(Kind.TAG, b"%s-%d-%s" % (name.encode(), number, b"x" * (number * 7 % 90)), False, number, durable=False)
"""
FOREVER = 10**9


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "purges"


@pytest.fixture
def log(path: Path) -> Iterator[PurgeLog]:
    with contextlib.closing(PurgeLog.create(path)) as made:
        yield made


@pytest.fixture
def small(path: Path) -> Iterator[PurgeLog]:
    with contextlib.closing(PurgeLog.create(path, ring_bytes=SMALL)) as made:
        yield made


@pytest.fixture
def appender(path: Path) -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Start processes that append to the log."""
    started: list[subprocess.Popen[str]] = []

    def start(name: str, count: int = FOREVER) -> "subprocess.Popen[str]":
        command = [sys.executable, "-c", APPENDER, str(path), name, str(count)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def everything(seq: int) -> Rule:
    return Rule(Kind.ALL, b"", soft=False, at_ns=0, seq=seq)


def tag(log: PurgeLog, value: bytes) -> int:
    return log.append(Kind.TAG, value, False, NOW)


def assert_gapless(rules: list[Rule], since: int, to: int) -> None:
    """All rules are here, or are stood for by one about everything."""
    for rule in rules:
        assert rule.seq == since + 1 or (rule.kind is Kind.ALL and rule.seq > since), (since, rule)
        since = rule.seq
    assert since == to


def test_a_log_that_can_not_be_mapped_leaves_no_descriptor(
    log: PurgeLog, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError("cannot allocate memory")

    before = len(list(Path("/proc/self/fd").iterdir()))
    monkeypatch.setattr(mmap, "mmap", fail)
    for make in (PurgeLog.open, PurgeLog.create):
        with pytest.raises(OSError, match="cannot allocate memory"):
            make(path)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert list(path.parent.iterdir()) == [path]


def test_what_one_process_appends_all_others_read_once_and_in_order(log: PurgeLog, path: Path) -> None:
    other = PurgeLog.open(path)
    assert other.read_new() == []
    assert log.append(Kind.URL, b"http://a.test/", False, NOW) == 1
    assert log.append(Kind.PREFIX, b"http://b.test/", True, NOW + 1) == 2
    assert other.words[PURGE_SEQ] == other.seq == 2
    expected = [
        Rule(Kind.URL, b"http://a.test/", soft=False, at_ns=NOW, seq=1),
        Rule(Kind.PREFIX, b"http://b.test/", soft=True, at_ns=NOW + 1, seq=2),
    ]
    assert other.read_new() == expected
    assert other.read_new() == []
    assert other.append(Kind.ALL, b"", False, NOW) == 3
    assert log.read_new() == [*expected, Rule(Kind.ALL, b"", soft=False, at_ns=NOW, seq=3)]
    assert other.read_new() == [Rule(Kind.ALL, b"", soft=False, at_ns=NOW, seq=3)]
    other.close()


def test_it_outlives_those_who_have_it_open(path: Path) -> None:
    first = PurgeLog.ensure(path)
    tag(first, b"a")
    instance = first.instance
    first.close()
    again = PurgeLog.ensure(path)
    assert again.instance == instance
    assert [rule.value for rule in again.read_new()] == [b"a"]
    assert tag(again, b"b") == 2
    again.close()


def test_two_logs_can_be_told_apart(tmp_path: Path) -> None:
    assert PurgeLog.create(tmp_path / "a").instance != PurgeLog.create(tmp_path / "b").instance


def test_many_at_once_are_one_call(log: PurgeLog, path: Path) -> None:
    other = PurgeLog.open(path)
    purges = [Purge(Kind.TAG, b"%d" % number, soft=bool(number % 2)) for number in range(500)]
    assert log.append_all(purges, NOW) == 500
    assert other.read_new() == [Rule(one.kind, one.value, one.soft, NOW, seq) for seq, one in enumerate(purges, 1)]


def test_a_reader_can_begin_behind_what_it_knew(log: PurgeLog, path: Path) -> None:
    for value in (b"a", b"b", b"c"):
        tag(log, value)
    reader = PurgeLog.open(path)
    reader.seek(2)
    assert [rule.value for rule in reader.read_new()] == [b"c"]
    reader.seek(3)
    assert reader.read_new() == []
    tag(log, b"d")
    assert [rule.value for rule in reader.read_new()] == [b"d"]


def test_a_reader_that_was_overrun_gets_a_rule_about_everything_it_missed(small: PurgeLog, path: Path) -> None:
    reader = PurgeLog.open(path)
    tag(small, b"first")
    assert len(reader.read_new()) == 1
    for number in range(300):
        tag(small, b"%d" % number * 5)
    missed, *rest = reader.read_new()
    assert missed == everything(rest[0].seq - 1)
    assert_gapless(rest, missed.seq, 301)
    assert [rule.value for rule in rest] == [b"%d" % number * 5 for number in range(rest[0].seq - 2, 300)]
    # It is up to date again, and so is one that comes anew.
    tag(small, b"next")
    assert [rule.value for rule in reader.read_new()] == [b"next"]
    newcomer = PurgeLog.open(path)
    assert_gapless(newcomer.read_new(), 0, 302)


def test_what_the_ring_holds_is_read_whole_wherever_it_wraps(small: PurgeLog, path: Path) -> None:
    reader = PurgeLog.open(path)
    numbers = random.Random(7)
    for seq in range(1, 3000):
        value = numbers.randbytes(numbers.randint(1, 900))
        tag(small, value)
        assert reader.read_new() == [Rule(Kind.TAG, value, soft=False, at_ns=NOW, seq=seq)]


def test_one_call_may_be_larger_than_the_ring(small: PurgeLog, path: Path) -> None:
    reader = PurgeLog.open(path)
    assert small.append_all([Purge(Kind.TAG, b"%d" % number) for number in range(1000)], NOW) == 1000
    missed, *rest = reader.read_new()
    assert missed.kind is Kind.ALL
    assert_gapless(rest, missed.seq, 1000)
    assert rest[-1].value == b"999"


@pytest.mark.parametrize(
    ("purge", "why"),
    [
        (Purge(Kind.TAG, b""), "a tag to purge can't be empty"),
        (Purge(Kind.URL, b""), "a URL to purge can't be empty"),
        (Purge(Kind.PREFIX, b""), "a prefix to purge can't be empty"),
        (Purge(Kind.ALL, b"x"), "a purge of everything has no value"),
        (Purge(Kind.TAG, b"x" * (MAX_TAG_BYTES + 1)), "a tag to purge has at most 1024 bytes, this one has 1025"),
        (Purge(Kind.URL, b"x" * (MAX_VALUE_BYTES + 1)), "a URL to purge has at most 65536 bytes"),
    ],
)
def test_what_can_be_no_rule_is_refused_with_all_that_came_with_it(log: PurgeLog, purge: Purge, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        log.append_all([Purge(Kind.TAG, b"good"), purge], NOW)
    assert log.seq == 0


def test_the_longest_values_fit(log: PurgeLog, path: Path) -> None:
    value = bytes(range(256)) * (MAX_VALUE_BYTES // 256)
    for _ in range(40):
        log.append(Kind.URL, value, False, NOW)
    *_, last = PurgeLog.open(path).read_new()
    assert last.value == value


# --- several processes


def test_processes_that_append_at_once_lose_nothing(
    log: PurgeLog, path: Path, appender: Callable[..., "subprocess.Popen[str]"]
) -> None:
    processes = [appender(name, 1500) for name in ("a", "b", "c")]
    reader = PurgeLog.open(path)
    rules: list[Rule] = []
    while any(process.poll() is None for process in processes) or reader.seq != (rules[-1].seq if rules else 0):
        rules += reader.read_new()
    assert [rule.seq for rule in rules] == list(range(1, 4501))
    for name in (b"a", b"b", b"c"):
        numbers = [int(rule.value.split(b"-")[1]) for rule in rules if rule.value.startswith(name)]
        assert numbers == list(range(1500))


def test_threads_that_append_at_once_lose_nothing(log: PurgeLog, path: Path) -> None:
    threads = [
        threading.Thread(target=lambda: [log.append(Kind.TAG, b"x", False, NOW, durable=False) for _ in range(100)])
        for _ in range(4)
    ]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert [rule.seq for rule in PurgeLog.open(path).read_new()] == list(range(1, 401))


@pytest.mark.parametrize("ring_bytes", [SMALL, 1024 * 1024])
def test_a_reader_amid_writers_never_misses_a_rule_and_never_reads_half_of_one(
    path: Path, ring_bytes: int, appender: Callable[..., "subprocess.Popen[str]"]
) -> None:
    with contextlib.closing(PurgeLog.create(path, ring_bytes=ring_bytes)) as reader:
        for name in ("a", "b"):
            appender(name)
        purges = Purges()
        overrun = 0
        deadline = time.monotonic() + 3
        pause = random.Random(11)
        while time.monotonic() < deadline:
            before = purges.seq
            rules = reader.read_new()
            for rule in rules:
                purges.add(rule)
                overrun += rule.kind is Kind.ALL
                if rule.kind is Kind.TAG:
                    _, number, filling = rule.value.split(b"-")
                    assert len(filling) == int(number) * 7 % 90
                    assert rule.at_ns == int(number)
            assert_gapless(rules, before, purges.seq)
            time.sleep(pause.choice((0, 0, 0.001, 0.02)))
        assert purges.seq > 500
        assert overrun or ring_bytes > SMALL


@pytest.mark.parametrize("ring_bytes", [SMALL, 1024 * 1024])
def test_writers_killed_at_any_moment_leave_a_log_that_goes_on(
    path: Path, ring_bytes: int, appender: Callable[..., "subprocess.Popen[str]"]
) -> None:
    moments = random.Random(5)
    with contextlib.closing(PurgeLog.create(path, ring_bytes=ring_bytes)) as log:
        reader = PurgeLog.open(path)
        known = 0
        for round_ in range(8):
            victim, other = appender(f"victim{round_}"), appender(f"other{round_}")
            time.sleep(moments.uniform(0.02, 0.15))
            victim.send_signal(signal.SIGKILL)
            victim.wait()
            before = log.seq
            # Nobody waits for a dead one's lock.
            seq = tag(log, b"after")
            assert seq > before
            other.kill()
            other.wait()
            rules = reader.read_new()
            assert_gapless(rules, known, reader.seq)
            known = reader.seq
            # Who comes anew reads the same, and nothing has to be dropped.
            start = log.words[PurgeWord.START]
            PurgeLog.ensure(path).close()
            assert log.words[PurgeWord.START] == start
            assert log.seq == known


def test_a_writer_that_is_stopped_holds_up_no_reader_and_is_reported_to_writers(
    log: PurgeLog, path: Path, appender: Callable[..., "subprocess.Popen[str]"], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeproxy.cache.purge_log.LOCK_PATIENCE_S", 0.05)
    process = appender("a")
    reader = PurgeLog.open(path)

    def stopped_with_the_lock() -> bool:
        os.kill(process.pid, signal.SIGSTOP)
        time.sleep(0.01)
        try:
            tag(log, b"x")
        except PurgeLogError:
            return True
        os.kill(process.pid, signal.SIGCONT)
        time.sleep(random.uniform(0.001, 0.01))
        return False

    deadline = time.monotonic() + 60
    while not stopped_with_the_lock():
        assert time.monotonic() < deadline
    with pytest.raises(PurgeLogError, match=f"{path} is held by another process that does not go on"):
        tag(log, b"x")
    before = time.monotonic()
    assert_gapless(reader.read_new(), 0, reader.seq)
    assert time.monotonic() - before < 1
    os.kill(process.pid, signal.SIGCONT)
    while True:
        with contextlib.suppress(PurgeLogError):
            tag(log, b"x")
            break


# --- what is left half done


def test_a_record_that_no_number_covers_is_overwritten(log: PurgeLog, path: Path) -> None:
    tag(log, b"whole")
    at = HEADER_BYTES + record_bytes(5)
    with path.open("r+b") as file:
        file.seek(at)
        file.write(encode(Rule(Kind.ALL, b"", soft=False, at_ns=1, seq=2))[:20])
    reader = PurgeLog.open(path)
    assert [rule.value for rule in reader.read_new()] == [b"whole"]
    tag(log, b"next")
    assert [rule.value for rule in reader.read_new()] == [b"next"]


def test_an_end_without_its_number_changes_nothing(log: PurgeLog) -> None:
    tag(log, b"a")
    log.words[PurgeWord.ENDS + 0] = 12345  # of rule 2, whose writer died
    tag(log, b"b")
    tag(log, b"c")
    assert [rule.value for rule in log.read_new()] == [b"a", b"b", b"c"]


@pytest.mark.parametrize("which", [0, 1, 2])
def test_damaged_rules_are_read_as_one_about_everything(path: Path, which: int) -> None:
    log = PurgeLog.create(path)
    for value in (b"one", b"two", b"six"):
        tag(log, value)
    with path.open("r+b") as file:
        file.seek(HEADER_BYTES + which * record_bytes(3) + 33)
        file.write(b"?")
    assert PurgeLog.open(path).read_new() == [everything(3)]
    # Still so for those who come after it was mended, and what is appended then is read as it is.
    mended = PurgeLog.ensure(path)
    assert mended.read_new() == [everything(3)]
    assert tag(log, b"next") == 4
    assert [rule.value for rule in mended.read_new()] == [b"next"]
    missed, last = PurgeLog.open(path).read_new()
    assert (missed, last.value) == (everything(3), b"next")


def test_after_a_boot_no_number_is_given_twice(path: Path) -> None:
    log = PurgeLog.ensure(path)
    tag(log, b"a")
    tag(log, b"b")
    reader, late = PurgeLog.open(path), PurgeLog.open(path)
    assert reader.read_new()[-1].seq == 2
    log.words[PurgeWord.BOOT] ^= 1
    PurgeLog.ensure(path).close()
    # An entry may carry a number that the power failure took back: it is before all that comes now.
    assert log.seq == 2 + LEAP
    (leap,) = reader.read_new()
    purges = Purges()
    for rule in late.read_new():
        purges.add(rule)
    assert purges.seq == leap.seq == log.seq
    assert not purges.check(b"http://a.test/", (b"c",), 0).purged
    assert tag(log, b"c") == 3 + LEAP
    assert [rule.seq for rule in reader.read_new()] == [3 + LEAP]
    PurgeLog.ensure(path).close()
    assert log.seq == 3 + LEAP
    # Who was overrun up to the leap itself has missed something.
    seeker = PurgeLog.open(path)
    seeker.seek(1)
    assert [rule.seq for rule in seeker.read_new()] == [2, 2 + LEAP, 3 + LEAP]
    log.words[PurgeWord.START] = 2 * record_bytes(1)
    seeker.seek(1)
    assert seeker.read_new()[0] == everything(1 + LEAP)


# --- files that are no logs


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "is not a purge log"),
        (b"x" * 100_000, "is not a purge log"),
    ],
)
def test_a_foreign_file_is_refused_and_left_alone(path: Path, content: bytes, why: str) -> None:
    path.write_bytes(content)
    for way in (PurgeLog.open, PurgeLog.ensure):
        with pytest.raises(PurgeLogError, match=f"{path} {why}"):
            way(path)
    assert path.read_bytes() == content


def test_another_version_and_a_torn_file_are_refused(path: Path) -> None:
    log = PurgeLog.create(path)
    log.words[PurgeWord.VERSION] = 2
    with pytest.raises(PurgeLogError, match="has purge log version 2; this edgeproxy reads 1"):
        PurgeLog.open(path)
    log.words[PurgeWord.VERSION] = 1
    log.words[PurgeWord.START] = 1 << 40
    with pytest.raises(PurgeLogError, match="is damaged"):
        PurgeLog.open(path)
    log.words[PurgeWord.START] = 0
    log.close()
    os.truncate(path, 50_000)
    with pytest.raises(PurgeLogError, match="is damaged"):
        PurgeLog.open(path)


def test_none_is_no_log_and_a_place_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        PurgeLog.open(tmp_path / "none")
    with pytest.raises(FileNotFoundError):
        PurgeLog.ensure(tmp_path / "none" / "none")


def test_a_log_is_its_owners_alone(path: Path) -> None:
    PurgeLog.create(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(path.parent.iterdir()) == [path]
