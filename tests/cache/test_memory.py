"""Hot memory: bounded in bytes, evicting by SIEVE, large responses apart, one response a key and variant."""

import pytest

from edgeproxy.cache.entry import Entry
from edgeproxy.cache.memory import VARIANT_BYTES, HotMemory, Sieve
from tests.cache.stored import NO_FIELDS, UNIT, entry, key, large, memory


def put(hot: HotMemory, *names: str) -> None:
    for name in names:
        assert hot.put(entry(name))


def numbered(prefix: str, count: int) -> list[str]:
    return [f"{prefix}{number}" for number in range(count)]


def held(hot: HotMemory, *names: str) -> list[str]:
    """Which of these are there, looked at without marking them as asked for."""
    return [name for name in names if hot.entries_of(key(name))]


def test_what_was_put_is_got() -> None:
    hot = memory(64)
    stored = entry()
    assert hot.get(key("a"), NO_FIELDS) is None
    assert hot.put(stored)
    assert hot.get(key("a"), NO_FIELDS) is stored
    assert hot.get(key("b"), NO_FIELDS) is None


def test_a_newer_response_takes_the_place_of_the_older() -> None:
    hot = memory(64)
    put(hot, "a", "b")
    newer = entry("a", b"12345")
    hot.put(newer)
    assert hot.get(key("a"), NO_FIELDS) is newer
    assert (len(hot), hot.size_bytes, hot.evictions) == (2, newer.size_bytes + UNIT, 0)


def test_emptied_and_filled_again_it_counts_from_zero() -> None:
    hot = memory(64)
    put(hot, "a", "b")
    hot.put(large("c", 8))
    for name in "abc":
        hot.discard(key(name))
    assert (len(hot), hot.size_bytes) == (0, 0)
    put(hot, *numbered("a", 65))
    assert held(hot, *numbered("a", 65)) == numbered("a", 65)[1:]


def test_nothing_fits_into_no_memory() -> None:
    hot = HotMemory(0)
    assert not hot.put(entry())
    assert (len(hot), hot.size_bytes) == (0, 0)


def test_what_is_larger_than_half_of_it_is_refused_and_displaces_only_its_predecessor() -> None:
    hot = memory(64)
    put(hot, "a", "b")
    assert not hot.put(large("a", 33))
    assert held(hot, "a", "b") == ["b"]
    assert hot.evictions == 0


def test_what_is_just_half_of_it_is_kept() -> None:
    half = large("a", 33)
    hot = HotMemory(2 * half.size_bytes)
    assert hot.put(half)
    assert not HotMemory(2 * half.size_bytes - 1).put(half)


@pytest.mark.parametrize("vary", [(), (b"v",)], ids=["plain", "varying"])
def test_one_response_is_forgotten_only_while_it_is_the_one_stored(vary: tuple[bytes, ...]) -> None:
    hot = memory(64)
    older, newer = entry(vary=vary), entry(vary=vary)
    for each in (older, newer):
        hot.put(each)
    hot.remove(older)
    assert hot.get(key("a"), NO_FIELDS) is newer
    hot.remove(newer)
    hot.remove(newer)
    assert (len(hot), hot.size_bytes) == (0, 0)


# --- SIEVE


def queued(names: str) -> tuple[Sieve, dict[str, Entry]]:
    queue, found = Sieve(), {name: entry(name) for name in names}
    for each in found.values():
        queue.push(each, 1)
    return queue, found


def evicted(queue: Sieve, count: int) -> str:
    """The first letters of what it gives up next."""
    found = ""
    while len(found) < count:
        victim = queue.victim()
        assert victim
        queue.remove(victim, 1)
        found += chr(victim.key[0])
    return found


def test_the_first_to_come_goes_first_when_nothing_was_asked_for() -> None:
    queue, _ = queued("abc")
    assert evicted(queue, 3) == "abc"
    assert (queue.entries, queue.size_bytes, queue.oldest, queue.newest) == (0, 0, None, None)


def test_what_was_asked_for_gets_one_more_chance() -> None:
    queue, found = queued("abc")
    found["a"].visited = True
    assert evicted(queue, 3) == "bca"


def test_the_hand_goes_on_from_where_it_was() -> None:
    queue, found = queued("abcd")
    found["a"].visited = found["c"].visited = True
    assert evicted(queue, 1) == "b"
    found["a"].visited = True
    assert evicted(queue, 3) == "dca"


def test_when_all_were_asked_for_the_hand_goes_round() -> None:
    queue, found = queued("abc")
    for each in found.values():
        each.visited = True
    assert evicted(queue, 3) == "abc"


def test_the_hand_comes_to_what_came_after_it_stood_still() -> None:
    queue, found = queued("abc")
    found["a"].visited = True
    assert evicted(queue, 1) == "b"
    queue.push(entry("d"), 1)
    assert evicted(queue, 3) == "cda"


@pytest.mark.parametrize(("gone", "rest"), [("a", "cd"), ("c", "da"), ("d", "ca")])
def test_the_hand_survives_the_end_of_any_entry(gone: str, rest: str) -> None:
    queue, found = queued("abcd")
    found["a"].visited = True
    assert evicted(queue, 1) == "b"
    queue.remove(found[gone], 1)
    assert evicted(queue, 2) == rest


def test_an_entry_begins_as_not_asked_for_wherever_it_was_before() -> None:
    queue, found = queued("ab")
    queue.remove(found["a"], 1)
    found["a"].visited = True
    queue.push(found["a"], 1)
    queue.push(entry("c"), 1)
    assert evicted(queue, 3) == "bac"


def test_a_one_time_scan_leaves_what_is_asked_for_again_and_again() -> None:
    hot = memory(100)
    put(hot, "hot1", "hot2")
    for name in numbered("cold", 1000):
        put(hot, name)
        assert hot.get(key("hot1"), NO_FIELDS)
        assert hot.get(key("hot2"), NO_FIELDS)
    assert hot.evictions == 902


# --- large ones and small ones


def test_large_ones_never_flush_small_ones_that_fit_into_half() -> None:
    hot = memory(256)
    small = numbered("s", 128)
    put(hot, *small)
    for name in numbered("L", 200):
        assert hot.put(large(name, 30))
    assert held(hot, *small) == small


def test_large_ones_get_their_half_of_a_memory_full_of_small_ones_and_no_more() -> None:
    hot = memory(256)
    small = numbered("s", 256)
    put(hot, *small)
    for name in numbered("L", 200):
        assert hot.put(large(name, 16))
    assert len(held(hot, *small)) >= 128
    assert len(held(hot, *numbered("L", 200))) in (7, 8)


def test_large_ones_may_have_all_the_room_that_nobody_else_needs() -> None:
    hot = memory(256)
    for name in numbered("L", 16):
        assert hot.put(large(name, 15))
    assert len(held(hot, *numbered("L", 16))) == 16
    put(hot, *numbered("s", 128))
    assert held(hot, *numbered("s", 128)) == numbered("s", 128)
    assert len(held(hot, *numbered("L", 16))) == 8


def test_a_large_one_that_is_asked_for_stays_while_others_pass_through() -> None:
    hot = memory(256)
    hot.put(large("hot", 30))
    for name in numbered("L", 100):
        hot.put(large(name, 30))
        assert hot.get(key("hot"), NO_FIELDS)


def test_large_ones_that_nobody_asks_for_leave_when_small_ones_keep_coming() -> None:
    hot = memory(256)
    for name in ("hot", "L0", "L1", "L2"):
        hot.put(large(name, 30))
    for name in numbered("s", 600):
        put(hot, name)
        assert hot.get(key("hot"), NO_FIELDS)
    assert held(hot, "hot", "L0", "L1", "L2") == ["hot"]


def test_a_large_one_that_was_asked_for_once_gets_one_more_chance() -> None:
    hot = memory(256)
    hot.put(large("once", 30))
    assert hot.get(key("once"), NO_FIELDS)
    put(hot, *numbered("s", 226 + 50))
    assert held(hot, "once") == ["once"]
    put(hot, *numbered("t", 50))
    assert held(hot, "once") == []


def test_what_small_ones_freed_before_there_was_a_large_one_does_not_count_against_it() -> None:
    hot = memory(256)
    put(hot, *numbered("s", 1000))
    hot.put(large("L", 30))
    put(hot, *numbered("t", 20))
    assert held(hot, "L") == ["L"]


# --- variants

ACCEPT = (b"accept",)


def test_each_variant_is_found_by_its_own_fields() -> None:
    hot = memory(64)
    vary = (b"accept-encoding",)
    stored = {coding: entry(vary=vary, names={vary[0]: coding}) for coding in (b"gzip", b"br")}
    for one in stored.values():
        hot.put(one)
    for coding, one in stored.items():
        assert hot.get(key("a"), {b"accept-encoding": coding, b"accept": b"x"}) is one
    assert hot.get(key("a"), {b"accept-encoding": b"zstd"}) is None
    assert len(hot) == 2
    assert hot.size_bytes == sum(one.size_bytes + VARIANT_BYTES for one in stored.values())


def test_a_newer_response_takes_the_place_of_the_same_variant_only() -> None:
    hot = memory(64)
    older = [entry(vary=ACCEPT, names={b"accept": value}) for value in (b"x", b"y")]
    for one in older:
        hot.put(one)
    newer = entry(vary=ACCEPT, names={b"accept": b"x"})
    hot.put(newer)
    assert hot.get(key("a"), {b"accept": b"x"}) is newer
    assert hot.get(key("a"), {b"accept": b"y"}) is older[1]


def test_the_fields_that_select_are_told_while_anything_is_stored_that_varies() -> None:
    hot = memory(64)
    assert hot.vary_of(key("a")) == ()
    hot.put(entry(vary=(b"accept", b"cookie")))
    assert hot.vary_of(key("a")) == (b"accept", b"cookie")
    hot.put(entry())
    assert hot.vary_of(key("a")) == ()


def test_an_absent_field_is_not_an_empty_one() -> None:
    hot = memory(64)
    hot.put(entry(vary=(b"cookie",), names={b"cookie": b""}))
    assert hot.get(key("a"), NO_FIELDS) is None
    assert hot.get(key("a"), {b"cookie": b""}) is not None


def test_the_latest_vary_counts_and_older_variants_are_gone() -> None:
    hot = memory(64)
    request = {b"a": b"1", b"b": b"2"}
    hot.put(entry(vary=(b"a",), names=request))
    newest = entry(vary=(b"b",), names=request)
    hot.put(newest)
    assert hot.get(key("a"), {b"a": b"1"}) is None
    assert hot.get(key("a"), {b"b": b"2"}) is newest
    assert len(hot) == 1


def test_a_response_that_varies_takes_the_place_of_one_that_did_not() -> None:
    hot = memory(64)
    put(hot, "a")
    hot.put(entry(vary=ACCEPT, names={b"accept": b"1"}))
    assert hot.get(key("a"), {b"accept": b"2"}) is None
    assert len(hot) == 1


def test_a_response_that_does_not_vary_is_for_everybody() -> None:
    hot = memory(64)
    hot.put(entry(vary=ACCEPT, names={b"accept": b"1"}))
    plain = entry()
    hot.put(plain)
    for request in (NO_FIELDS, {b"accept": b"1"}, {b"accept": b"2"}):
        assert hot.get(key("a"), request) is plain
    assert len(hot) == 1


def test_a_variant_is_not_mistaken_for_a_resource_whose_key_has_its_value() -> None:
    hot = memory(64)
    hot.put(entry(vary=ACCEPT, names={b"accept": b"x"}))
    assert hot.get(key("a") + b"\x00x", NO_FIELDS) is None


def test_discarding_takes_every_variant_at_once() -> None:
    hot = memory(64)
    put(hot, "b")
    for value in (b"1", b"2"):
        hot.put(entry(vary=ACCEPT, names={b"accept": value}))
    assert hot.discard(key("a"))
    assert (len(hot), hot.size_bytes) == (1, UNIT)
    assert not hot.discard(key("a"))
    assert hot.discard(key("b"))


def test_resources_that_vary_ever_anew_do_not_grow_its_index() -> None:
    hot = memory(100)
    for name in numbered("r", 1000):
        hot.put(entry(name, vary=ACCEPT))
    assert hot.size_bytes <= hot.capacity_bytes
    assert len(hot._varying) == len(hot) > 50


# --- what there is for a URL


def test_what_is_stored_for_a_url_is_told_with_its_variants_and_left_unmarked() -> None:
    hot = memory(64)
    expected = [
        entry("a/1", url=b"a"),
        *(entry("a", vary=ACCEPT, names={b"accept": v}, url=b"a") for v in (b"x", b"y")),
    ]
    for each in (*expected, entry("a/2", url=b"a/2"), entry("b", url=b"b")):
        hot.put(each)
    assert hot.entries_of(b"a") == expected
    assert not any(each.visited for each in expected)
    assert hot.entries_of(b"c") == []
