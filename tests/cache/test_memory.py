"""Hot memory: bounded in bytes, evicting by SIEVE, one response a key and variant."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeproxy.cache import Entry, HotMemory
from edgeproxy.cache.entry import Filling, Variants

ENTRY_BYTES = Entry.OVERHEAD_BYTES + 100
KEY_BYTES = 10
NO_FIELDS: Mapping[bytes, bytes] = {}


def entry(size_bytes: int = ENTRY_BYTES, mark: bytes = b"") -> Entry:
    """A stored response that counts `size_bytes` without its key; `mark` is what tells it from others."""
    body = mark.ljust(size_bytes - Entry.OVERHEAD_BYTES, b".")
    return Entry(
        status=200,
        head="",
        head_without_content="",
        body=body,
        etag=None,
        born_ns=0,
        fresh_until_ns=1,
        filled_by="",
    )


def key(name: str) -> bytes:
    """A key of `KEY_BYTES` bytes."""
    return name.encode().ljust(KEY_BYTES, b"/")


def memory(entries: int) -> HotMemory:
    """A memory with room for that many ordinary entries."""
    return HotMemory(entries * (ENTRY_BYTES + KEY_BYTES))


def put(hot: HotMemory, *names: str) -> None:
    for name in names:
        assert hot.put(key(name), (), NO_FIELDS, entry(mark=name.encode()))


def held(hot: HotMemory, *names: str) -> str:
    """Which of these are there, looked at without marking them as visited."""
    return "".join(name for name in names if key(name) in hot._entries)


def test_what_was_put_is_got() -> None:
    hot = memory(2)
    stored = entry()
    assert hot.get(key("a"), NO_FIELDS) is None
    assert hot.put(key("a"), (), NO_FIELDS, stored)
    assert hot.get(key("a"), NO_FIELDS) is stored
    assert hot.get(key("b"), NO_FIELDS) is None


def test_a_newer_response_takes_the_place_of_the_older() -> None:
    hot = memory(2)
    put(hot, "a")
    newer = entry()
    hot.put(key("a"), (), NO_FIELDS, newer)
    assert hot.get(key("a"), NO_FIELDS) is newer
    assert len(hot) == 1
    assert hot.size_bytes == ENTRY_BYTES + KEY_BYTES
    assert hot.evictions == 0


class TestTheBound:
    def test_key_head_body_and_overhead_all_count(self) -> None:
        stored = Entry(
            status=200,
            head="h" * 10,
            head_without_content="w" * 20,
            body=b"b" * 30,
            etag=None,
            born_ns=0,
            fresh_until_ns=1,
            filled_by="",
        )
        hot = HotMemory(10_000)
        hot.put(b"k" * 40, (), NO_FIELDS, stored)
        assert hot.size_bytes == 100 + Entry.OVERHEAD_BYTES

    def test_it_may_be_filled_to_the_last_byte(self) -> None:
        hot = memory(3)
        put(hot, "a", "b", "c")
        assert hot.size_bytes == hot.capacity_bytes
        assert held(hot, "a", "b", "c") == "abc"
        assert hot.evictions == 0

    def test_one_byte_more_evicts(self) -> None:
        hot = memory(3)
        put(hot, "a", "b")
        hot.put(key("c"), (), NO_FIELDS, entry(ENTRY_BYTES + 1))
        assert held(hot, "a", "b", "c") == "bc"
        assert hot.evictions == 1

    def test_a_large_response_evicts_as_many_as_it_needs(self) -> None:
        hot = memory(4)
        put(hot, "a", "b", "c", "d")
        hot.put(key("e"), (), NO_FIELDS, entry(3 * ENTRY_BYTES))
        assert held(hot, "a", "b", "c", "d", "e") == "de"

    def test_what_can_never_fit_is_refused_and_evicts_nothing(self) -> None:
        hot = memory(2)
        put(hot, "a", "b")
        assert not hot.put(key("c"), (), NO_FIELDS, entry(3 * ENTRY_BYTES))
        assert held(hot, "a", "b", "c") == "ab"

    def test_what_can_never_fit_still_takes_the_old_response_away(self) -> None:
        hot = memory(2)
        put(hot, "a", "b")
        assert not hot.put(key("a"), (), NO_FIELDS, entry(3 * ENTRY_BYTES))
        assert held(hot, "a", "b") == "b"

    def test_a_memory_of_no_bytes_holds_nothing(self) -> None:
        hot = HotMemory(0)
        assert not hot.put(key("a"), (), NO_FIELDS, entry())
        assert hot.get(key("a"), NO_FIELDS) is None
        assert hot.size_bytes == 0

    def test_emptied_and_filled_again_it_counts_from_zero(self) -> None:
        hot = memory(2)
        put(hot, "a", "b")
        hot.discard(key("a"))
        hot.discard(key("b"))
        assert (len(hot), hot.size_bytes) == (0, 0)
        put(hot, "a", "b", "c")
        assert held(hot, "a", "b", "c") == "bc"

    def test_resources_that_vary_ever_anew_do_not_grow_its_index(self) -> None:
        hot = memory(8)
        for number in range(1000):
            hot.put(key(str(number)), (b"accept",), {b"accept": b"*/*"}, entry())
        assert hot.size_bytes <= hot.capacity_bytes
        assert len(hot._variants) == len(hot) > 4

    def test_no_resource_is_lost_for_the_sake_of_others_in_its_index(self) -> None:
        hot = memory(1000)
        names = [str(number) for number in range(600)]
        for name in names:
            hot.put(key(name), (b"accept",), {b"accept": b"*/*"}, entry())
        assert all(hot.get(key(name), {b"accept": b"*/*"}) for name in names)


class TestSieve:
    def test_the_first_to_come_goes_first_when_nothing_was_asked_for(self) -> None:
        hot = memory(3)
        put(hot, "a", "b", "c", "d", "e")
        assert held(hot, *"abcde") == "cde"

    def test_what_was_asked_for_stays(self) -> None:
        hot = memory(3)
        put(hot, "a", "b", "c")
        hot.get(key("a"), NO_FIELDS)
        put(hot, "d")
        assert held(hot, *"abcd") == "acd"

    def test_a_second_chance_is_one_and_the_hand_goes_on_from_where_it_was(self) -> None:
        hot = memory(3)
        put(hot, "a", "b", "c")
        hot.get(key("a"), NO_FIELDS)
        put(hot, "d")  # the hand passes a, takes b and stands at c
        put(hot, "e")  # c has not been asked for
        assert held(hot, *"abcde") == "ade"

    def test_when_all_were_asked_for_the_hand_goes_round(self) -> None:
        hot = memory(3)
        put(hot, "a", "b", "c")
        for name in "abc":
            hot.get(key(name), NO_FIELDS)
        put(hot, "d")
        assert held(hot, *"abcd") == "bcd"
        put(hot, "e")  # their marks are gone: b is next
        assert held(hot, *"abcde") == "cde"

    def test_a_one_time_scan_leaves_what_is_asked_for_again_and_again(self) -> None:
        hot = memory(10)
        put(hot, "hot1", "hot2")
        for number in range(200):
            put(hot, f"cold{number}")
            assert hot.get(key("hot1"), NO_FIELDS)
            assert hot.get(key("hot2"), NO_FIELDS)

    def test_the_hand_survives_the_end_of_the_entry_it_stands_at(self) -> None:
        hot = memory(3)
        put(hot, "a", "b", "c")
        hot.get(key("a"), NO_FIELDS)
        put(hot, "d")
        hot.discard(key("c"))
        put(hot, "e", "f")  # first in the room that c left, then for d, where the hand stands now
        assert held(hot, *"abcdef") == "aef"


class TestVariants:
    def test_each_variant_is_found_by_its_own_fields(self) -> None:
        hot = memory(4)
        stored = {coding: entry(mark=coding) for coding in (b"gzip", b"br")}
        for coding, one in stored.items():
            hot.put(key("a"), (b"accept-encoding",), {b"accept-encoding": coding}, one)
        for coding, one in stored.items():
            assert hot.get(key("a"), {b"accept-encoding": coding, b"accept": b"x"}) is one
        assert hot.get(key("a"), {b"accept-encoding": b"zstd"}) is None

    def test_an_absent_field_is_not_an_empty_one(self) -> None:
        hot = memory(4)
        hot.put(key("a"), (b"cookie",), {b"cookie": b""}, entry())
        assert hot.get(key("a"), NO_FIELDS) is None
        assert hot.get(key("a"), {b"cookie": b""}) is not None

    def test_order_and_repetition_in_vary_do_not_matter(self) -> None:
        hot = memory(4)
        request = {b"a": b"1", b"b": b"2"}
        hot.put(key("x"), (b"b", b"a", b"b"), request, entry())
        newer = entry()
        hot.put(key("x"), (b"a", b"b"), request, newer)
        assert hot.get(key("x"), request) is newer
        assert len(hot) == 1

    def test_values_do_not_run_into_one_another(self) -> None:
        hot = memory(4)
        hot.put(key("x"), (b"a", b"b"), {b"a": b"1", b"b": b"22"}, entry())
        assert hot.get(key("x"), {b"a": b"12", b"b": b"2"}) is None

    def test_the_latest_vary_counts_and_older_variants_are_not_found(self) -> None:
        hot = memory(4)
        request = {b"a": b"1", b"b": b"2"}
        hot.put(key("x"), (b"a",), request, entry())
        newest = entry()
        hot.put(key("x"), (b"b",), request, newest)
        assert hot.get(key("x"), {b"a": b"1"}) is None
        assert hot.get(key("x"), {b"b": b"2"}) is newest

    def test_a_response_that_varies_takes_the_place_of_one_that_did_not(self) -> None:
        hot = memory(4)
        put(hot, "x")
        hot.put(key("x"), (b"a",), {b"a": b"1"}, entry())
        assert hot.get(key("x"), {b"a": b"2"}) is None
        assert len(hot) == 1

    def test_a_response_that_does_not_vary_is_for_everybody(self) -> None:
        hot = memory(4)
        hot.put(key("x"), (b"a",), {b"a": b"1"}, entry(mark=b"1"))
        plain = entry(mark=b"plain")
        hot.put(key("x"), (), NO_FIELDS, plain)
        for request in (NO_FIELDS, {b"a": b"1"}, {b"a": b"2"}):
            assert hot.get(key("x"), request) is plain

    def test_discarding_takes_every_variant_for_good(self) -> None:
        hot = memory(4)
        request = {b"a": b"1"}
        hot.put(key("x"), (b"a",), request, entry())
        assert hot.discard(key("x"))
        assert hot.get(key("x"), request) is None
        hot.put(key("x"), (b"a",), {b"a": b"2"}, entry())
        assert hot.get(key("x"), request) is None

    def test_discarding_nothing_says_so(self) -> None:
        hot = memory(4)
        assert not hot.discard(key("x"))


class TestFilling:
    @staticmethod
    def filling(*, has_content: bool = True) -> Filling:
        return Filling(
            status=200,
            head=b"HTTP/1.1 200 OK\r\nX: \xe9\r\n",
            head_without_content=b"HTTP/1.1 304 Not Modified\r\n",
            has_content=has_content,
            etag=b'"e"',
            born_ns=1,
            fresh_until_ns=2,
            filled_by="00-a-b-01",
            vary=(),
        )

    def test_the_pieces_become_one_body_of_known_length(self) -> None:
        filling = self.filling()
        assert filling.add(b"abc", 10)
        assert filling.add(b"defg", 10)
        stored = filling.entry()
        assert stored.body == b"abcdefg"
        assert stored.head == "HTTP/1.1 200 OK\r\nX: \xe9\r\nContent-Length: 7\r\n"

    def test_a_status_without_content_gets_no_length(self) -> None:
        assert "Content-Length" not in self.filling(has_content=False).entry().head

    def test_the_limit_is_the_largest_that_may_be_stored(self) -> None:
        filling = self.filling()
        assert filling.add(b"12345", 10)
        assert filling.add(b"67890", 10)
        assert not filling.add(b"1", 10)


# --- against a model


@dataclass
class Line:
    """An entry in the model."""

    name: tuple[str, int, str | None]
    size: int
    body: bytes
    visited: bool = False


@dataclass
class Model:
    """SIEVE over a list, oldest first, as the paper has it."""

    capacity: int
    lines: list[Line] = field(default_factory=list)
    hand: Line | None = None
    vary: dict[str, int | None] = field(default_factory=dict)
    """For each resource the generation of its variants, None while it has none."""
    generation: int = 0

    def get(self, name: str, value: str) -> bytes | None:
        found = self._find(self._name(name, value))
        if found is None:
            return None
        found.visited = True
        return found.body

    def put(self, name: str, value: str | None, size: int, body: bytes) -> bool:
        generation = None if value is None else self.vary.get(name)
        if value is None:
            self.vary[name] = None
        elif generation is None:
            self.discard(name)
            self.generation += 1
            generation = self.generation
        full = (name, generation or 0, value)
        self._remove(self._find(full))
        if size > self.capacity:
            return False
        while sum(line.size for line in self.lines) + size > self.capacity:
            self._evict()
        self.lines.append(Line(full, size, body))
        self.vary[name] = generation
        return True

    def discard(self, name: str) -> None:
        self._remove(self._find((name, 0, None)))
        self.vary[name] = None

    def _name(self, name: str, value: str) -> tuple[str, int, str | None]:
        generation = self.vary.get(name)
        return (name, 0, None) if generation is None else (name, generation, value)

    def _find(self, name: tuple[str, int, str | None]) -> Line | None:
        return next((line for line in self.lines if line.name == name), None)

    def _remove(self, line: Line | None) -> None:
        if line is None:
            return
        if self.hand is line:
            self.hand = self._newer(line)
        self.lines.remove(line)
        name, generation, _ = line.name
        if self.vary.get(name) == generation and all(other.name[:2] != (name, generation) for other in self.lines):
            self.vary[name] = None

    def _newer(self, line: Line) -> Line | None:
        at = self.lines.index(line) + 1
        return self.lines[at] if at < len(self.lines) else None

    def _evict(self) -> None:
        line = self.hand or self.lines[0]
        while line.visited:
            line.visited = False
            line = self._newer(line) or self.lines[0]
        self.hand = self._newer(line)
        self._remove(line)


NAMES = st.sampled_from("abcdef")
VALUES = st.sampled_from("xyz")
STEPS = st.one_of(
    st.tuples(st.just("get"), NAMES, VALUES),
    st.tuples(st.just("put"), NAMES, st.one_of(st.none(), VALUES), st.integers(0, 900)),
    st.tuples(st.just("discard"), NAMES),
)


@settings(deadline=None)
@given(st.lists(STEPS, max_size=60))
def test_any_run_of_calls_gives_what_the_model_gives(steps: list[tuple[str, ...]]) -> None:
    capacity = 2600
    hot, model = HotMemory(capacity), Model(capacity)
    for number, step in enumerate(steps):
        match step:
            case ("get", name, value):
                found = hot.get(key(name), {b"v": value.encode()})
                assert (found and found.body) == model.get(name, value)
            case ("put", name, value, extra):
                stored = entry(Entry.OVERHEAD_BYTES + 4 + int(extra), mark=b"%d" % number)
                size = stored.size_bytes + KEY_BYTES
                fields = {b"v": value.encode()} if value else NO_FIELDS
                if value:
                    # The variant's key has generation and value behind the primary key, each behind a NUL.
                    changes = model.vary.get(name) is None
                    generation = model.generation + 1 if changes else model.vary[name]
                    size += len(f"\0{generation}\0{value}") + Variants.SIZE_BYTES
                kept = hot.put(key(name), (b"v",) if value else (), fields, stored)
                assert kept == model.put(name, value, size, stored.body)
            case ("discard", name):
                hot.discard(key(name))
                model.discard(name)
        assert hot.size_bytes == sum(line.size for line in model.lines) <= capacity
        assert len(hot) == len(model.lines)


@pytest.mark.parametrize("capacity", [1, Entry.OVERHEAD_BYTES, 5000])
@settings(deadline=None)
@given(sizes=st.lists(st.integers(0, 6000), max_size=30))
def test_the_bound_holds_whatever_is_put(capacity: int, sizes: list[int]) -> None:
    hot = HotMemory(capacity)
    for number, size in enumerate(sizes):
        hot.put(b"%d" % number, (), NO_FIELDS, entry(Entry.OVERHEAD_BYTES + size))
        assert hot.size_bytes <= capacity
