"""Hot memory against a model, and against what the process really takes."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeproxy.cache.memory import LARGE_SHARE, VARIANT_BYTES
from tests.cache.stored import entry, key, memory


@dataclass
class Line:
    """An entry in the model."""

    name: tuple[str, str | None]
    size: int
    body: bytes
    visited: bool = False


@dataclass
class Queue:
    """A SIEVE queue as the paper has it, oldest first."""

    lines: list[Line] = field(default_factory=list)
    hand: Line | None = None

    @property
    def size(self) -> int:
        return sum(line.size for line in self.lines)

    def remove(self, line: Line) -> None:
        if self.hand is line:
            self.hand = self.after(line)
        self.lines.remove(line)

    def after(self, line: Line) -> Line | None:
        at = self.lines.index(line) + 1
        return self.lines[at] if at < len(self.lines) else None

    @property
    def next(self) -> Line | None:
        return self.hand or (self.lines[0] if self.lines else None)

    def spare(self) -> None:
        assert self.next
        self.next.visited = False
        self.hand = self.after(self.next)

    def evict(self) -> int:
        """Gives the size of what went."""
        while self.next and self.next.visited:
            self.spare()
        victim = self.hand = self.next
        assert victim
        self.remove(victim)
        return victim.size


@dataclass
class Model:
    """A queue of small ones and one of large ones."""

    capacity: int
    small: Queue = field(default_factory=Queue)
    large: Queue = field(default_factory=Queue)
    freed: int = 0

    @property
    def lines(self) -> Iterator[Line]:
        return iter(self.small.lines + self.large.lines)

    @property
    def size(self) -> int:
        return self.small.size + self.large.size

    def get(self, name: str, value: str) -> bytes | None:
        for line in self.lines:
            if line.name in ((name, None), (name, value)):
                line.visited = True
                return line.body
        return None

    def put(self, name: str, value: str | None, size: int, body: bytes) -> bool:
        for line in list(self.lines):
            replaced = line.name == (name, value) if value else line.name[0] == name
            if replaced or (line.name == (name, None)):
                self.remove(line)
        if size > self.capacity // 2:
            return False
        is_large = size * LARGE_SHARE > self.capacity
        while self.size + size > self.capacity:
            if self.large.size + is_large * size > self.capacity // 2:
                self.large.evict()
            else:
                self.evict()
        (self.large if is_large else self.small).lines.append(Line((name, value), size, body))
        return True

    def discard(self, name: str) -> None:
        for line in list(self.lines):
            if line.name[0] == name:
                self.remove(line)

    def remove(self, line: Line) -> None:
        next(queue for queue in (self.small, self.large) if line in queue.lines).remove(line)

    def evict(self) -> None:
        """A small one, but for a large one that as many freed bytes have paid for, and that was not asked for."""
        large = self.large.next
        self.freed = self.freed if large else 0
        if large and self.freed >= large.size:
            self.freed -= large.size
            if not large.visited:
                self.large.evict()
                return
            self.large.spare()
        if self.small.lines:
            self.freed += self.small.evict()
        else:
            self.large.evict()


NAMES = st.sampled_from("abcdef")
VALUES = st.sampled_from("xyz")
BODIES = st.one_of(st.integers(0, 200), st.sampled_from([1000, 4000, 20_000, 80_000]))
STEPS = st.one_of(
    st.tuples(st.just("get"), NAMES, VALUES),
    st.tuples(st.just("put"), NAMES, st.one_of(st.none(), VALUES), BODIES),
    st.tuples(st.just("discard"), NAMES),
)


@pytest.mark.parametrize("units", [1, 4, 64, 70], ids=lambda units: f"room-for-{units}")
@settings(deadline=None)
@given(steps=st.lists(STEPS, max_size=100), ballast=st.integers(0, 64))
def test_any_run_of_calls_gives_what_the_model_gives(units: int, steps: list[tuple[str, ...]], ballast: int) -> None:
    hot = memory(units)
    model = Model(hot.capacity_bytes)
    filling = [("put", f"s{number}", None, 0) for number in range(ballast)]
    for number, step in enumerate((*filling, *steps)):
        match step:
            case ("get", name, value):
                found = hot.get(key(name), {b"v": value.encode()})
                assert (found and found.body) == model.get(name, value)
            case ("put", name, value, extra):
                body = b"%d" % number + b"." * int(extra)
                each = entry(name, body, vary=(b"v",) if value else (), names={b"v": (value or "").encode()})
                size = each.size_bytes + (VARIANT_BYTES if value else 0)
                assert hot.put(each) == model.put(name, value, size, body)
            case ("discard", name):
                hot.discard(key(name))
                model.discard(name)
        assert hot.size_bytes == model.size <= hot.capacity_bytes
        assert len(hot) == len(list(model.lines))


# --- what it really takes

REAL = """
import os, random, sys
from edgeproxy.cache.entry import Entry
from edgeproxy.cache.stored import Stored
from edgeproxy.cache.memory import HotMemory

fields, body_bytes, vary, mib = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "varying", int(sys.argv[4])
chance = random.Random(1)

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

def entry(number):
    key = b"http://www.example.com/pictures/%d.jpg" % number
    stored = Stored(
        key=key, url=key, vary=(b"accept-encoding",) if vary else (), variant=b"gzip" if vary else b"", status=200,
        reason=b"OK", lines=[(b"Field-%d" % n, b"value %d of some length" % number) for n in range(fields)],
        born_ns=10**18 + number, fresh_until_ns=2 * 10**18 + number, stale_while_revalidate_ns=0, stale_if_error_ns=0,
        must_revalidate=False, stored_ns=10**18 + number, filled_by=f"00-{number:032x}-{number:016x}-01", origin="o",
        etag=b'"%d"' % number)
    return Entry(stored, os.urandom(chance.randrange(body_bytes // 2, body_bytes * 2)))

hot, number = HotMemory(mib << 20), 0
for number in range(200):
    hot.put(entry(number))
before, counted = resident(), hot.size_bytes
while hot.evictions < 2 * len(hot):
    number += 1
    hot.put(entry(number))
print((resident() - before) / (hot.size_bytes - counted))
"""


@pytest.mark.parametrize(
    ("fields", "body_bytes", "vary", "mib"),
    [
        (1, 100, "plain", 32),
        (7, 785, "plain", 48),
        (7, 785, "varying", 48),
        (20, 785, "plain", 48),
        (7, 60_000, "plain", 96),
    ],
    ids=["tiny", "small", "varying", "many-fields", "60kB"],
)
def test_real_memory_stays_within_a_tenth_of_the_bound(fields: int, body_bytes: int, vary: str, mib: int) -> None:
    arguments = [str(fields), str(body_bytes), vary, str(mib)]
    done = subprocess.run([sys.executable, "-c", REAL, *arguments], capture_output=True, text=True, check=True)
    assert 0.85 < float(done.stdout) < 1.1
