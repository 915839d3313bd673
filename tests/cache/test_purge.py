"""What purge rules say of stored responses: kinds, soft and hard, order, bounds; tags; PURGE requests."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.cache.purge import MAX_TAG_BYTES, MAX_TAGS, Kind, Purge, Purges, Rule, Verdict, purge_request, tags_of

URL = b"http://a.test/x/1?q=2"
TAGS = (b"red", b"blue")
KEPT = Verdict(purged=False, stale_at_ns=None)
PURGED = Verdict(purged=True, stale_at_ns=None)


def known(*rules: tuple[Kind, bytes] | tuple[Kind, bytes, bool], max_values: int = 100) -> Purges:
    """Rules 1, 2, 3 …, given at 10, 20, 30 …"""
    purges = Purges(max_values)
    for seq, (kind, value, *soft) in enumerate(rules, 1):
        purges.add(Rule(kind, value, bool(soft and soft[0]), seq * 10, seq))
    return purges


@pytest.mark.parametrize(
    ("kind", "value", "is_about_it"),
    [
        (Kind.URL, URL, True),
        (Kind.URL, URL[:-1], False),
        (Kind.URL, b"http://a.test/x/1", False),
        (Kind.PREFIX, b"http://a.test/x/", True),
        (Kind.PREFIX, b"h", True),
        (Kind.PREFIX, URL, True),
        (Kind.PREFIX, URL + b"3", False),
        (Kind.PREFIX, b"http://a.test/y", False),
        (Kind.TAG, b"blue", True),
        (Kind.TAG, b"Blue", False),
        (Kind.TAG, b"blu", False),
        (Kind.ALL, b"", True),
    ],
)
def test_a_rule_is_about_what_it_names(kind: Kind, value: bytes, is_about_it: bool) -> None:
    assert known((kind, value)).check(URL, TAGS, 0) == (PURGED if is_about_it else KEPT)
    softly = known((kind, value, True)).check(URL, TAGS, 0)
    assert softly == (Verdict(purged=False, stale_at_ns=10) if is_about_it else KEPT)


@pytest.mark.parametrize("kind", list(Kind))
def test_only_rules_later_than_the_entry_count(kind: Kind) -> None:
    value = {Kind.URL: URL, Kind.PREFIX: b"http://a.test/", Kind.TAG: b"red", Kind.ALL: b""}[kind]
    purges = known((Kind.TAG, b"other"), (kind, value), (Kind.TAG, b"other"))
    assert purges.seq == 3
    assert [purges.check(URL, TAGS, since).purged for since in range(4)] == [True, True, False, False]


def test_a_rule_does_not_hide_an_earlier_one_about_the_same() -> None:
    purges = known((Kind.URL, URL), (Kind.URL, URL, True))
    assert purges.check(URL, (), 0) == PURGED
    assert purges.check(URL, (), 1) == Verdict(purged=False, stale_at_ns=20)
    purges = known((Kind.ALL, b""), (Kind.ALL, b"", True))
    assert purges.check(URL, (), 0) == PURGED
    assert purges.check(URL, (), 1) == Verdict(purged=False, stale_at_ns=20)


def test_a_hard_rule_wins_over_soft_ones_and_the_earliest_soft_one_over_later_ones() -> None:
    purges = known((Kind.TAG, b"red", True), (Kind.PREFIX, b"http://", True), (Kind.ALL, b"", True))
    assert purges.check(URL, TAGS, 0) == Verdict(purged=False, stale_at_ns=10)
    assert purges.check(URL, (), 0) == Verdict(purged=False, stale_at_ns=20)
    purges.add(Rule(Kind.URL, URL, soft=False, at_ns=40, seq=4))
    assert purges.check(URL, TAGS, 0) == PURGED
    purges = known((Kind.URL, URL, True), (Kind.TAG, b"red", True))
    assert purges.check(URL, TAGS, 0) == Verdict(purged=False, stale_at_ns=10)


def test_what_all_is_about_frees_the_tables() -> None:
    purges = known((Kind.PREFIX, b"http://a.test/"), (Kind.TAG, b"red"), (Kind.ALL, b""), (Kind.TAG, b"red"))
    assert purges.check(URL, TAGS, 2) == PURGED
    assert purges.check(URL, (), 3) == KEPT
    assert purges.check(URL, TAGS, 3) == PURGED


@pytest.mark.parametrize("kind", [Kind.URL, Kind.PREFIX, Kind.TAG])
def test_what_is_dropped_counts_as_purged_and_what_came_later_is_exact(kind: Kind) -> None:
    purges = known(*((kind, b"http://b.test/%d/" % number) for number in range(12)), max_values=10)
    # Rules 1 and 2 had to go.
    assert purges.check(URL, (), 1) == PURGED
    assert purges.check(URL, (), 2) == KEPT
    last = b"http://b.test/11/"
    assert purges.check(last, (last,), 11) == PURGED


def test_a_value_purged_again_and_again_takes_one_place() -> None:
    purges = known((Kind.URL, b"http://b.test/"), *[(Kind.URL, URL)] * 50, max_values=2)
    assert purges.check(b"http://b.test/", (), 0) == PURGED
    assert purges.check(b"http://c.test/", (), 0) == KEPT


def test_the_value_longest_without_a_rule_goes_first() -> None:
    purges = known((Kind.URL, b"a"), (Kind.URL, b"b"), (Kind.URL, b"a"), (Kind.URL, b"c"), max_values=2)
    assert purges.check(URL, (), 1) == PURGED
    assert purges.check(URL, (), 2) == KEPT


def test_long_values_are_bounded_in_bytes() -> None:
    purges = known(*((Kind.URL, b"%d" % number * 60_000) for number in range(200)), max_values=1000)
    assert purges.check(b"http://c.test/", (), 0) == PURGED
    assert purges.check(b"http://c.test/", (), 199) == KEPT


values = st.sampled_from([b"a", b"ab", b"abc", b"b", b"ba"])
rules = st.lists(st.tuples(st.sampled_from(list(Kind)), values, st.booleans()), max_size=30)


@given(rules, values, st.sets(values, max_size=3), st.integers(0, 30), st.sampled_from([2, 100]))
def test_nothing_that_a_rule_is_about_is_ever_kept(
    given_rules: list[tuple[Kind, bytes, bool]], url: bytes, tags: set[bytes], since: int, max_values: int
) -> None:
    """Against the plain reading of the rules; with little room more may be purged, never less."""
    purges = known(*given_rules, max_values=max_values)
    hard, soft = False, False
    for seq, (kind, value, is_soft) in enumerate(given_rules, 1):
        matches = {
            Kind.URL: url == value,
            Kind.PREFIX: url.startswith(value),
            Kind.TAG: value in tags,
            Kind.ALL: True,
        }[kind]
        if seq > since and matches:
            hard, soft = hard or not is_soft, soft or is_soft
    verdict = purges.check(url, sorted(tags), since)
    if max_values == 100:
        assert verdict.purged == hard
        assert (verdict.stale_at_ns is not None) == (soft and not hard)
    else:
        assert verdict.purged >= hard
        assert verdict.purged or (verdict.stale_at_ns is not None) == soft


@pytest.mark.parametrize(
    ("fields", "tags"),
    [
        ({}, ()),
        ({b"surrogate-key": b"a b\tc  a"}, (b"a", b"b", b"c")),
        ({b"surrogate-key": b"a b, c"}, (b"a", b"b", b"c")),
        ({b"surrogate-key": b""}, ()),
        ({b"surrogate-key": b" , "}, ()),
        ({b"cache-tag": b"a,b c ,, A"}, (b"a", b"b c", b"A")),
        ({b"surrogate-key": b"a", b"cache-tag": b"b,a"}, (b"a", b"b")),
        ({b"cache-tag": b"a," + b"x" * (MAX_TAG_BYTES + 1)}, (b"a",)),
    ],
)
def test_tags_are_read_from_both_fields(fields: dict[bytes, bytes], tags: tuple[bytes, ...]) -> None:
    assert tags_of(fields) == tags


def test_tags_are_bounded_in_number() -> None:
    names = b",".join(b"%d" % number for number in range(MAX_TAGS + 5))
    assert tags_of({b"cache-tag": names}) == tuple(b"%d" % number for number in range(MAX_TAGS))


@pytest.mark.parametrize(
    ("fields", "url", "purges"),
    [
        ({}, URL, [Purge(Kind.URL, URL)]),
        ({b"x-purge-soft": b"1"}, URL, [Purge(Kind.URL, URL, soft=True)]),
        ({b"x-purge-soft": b"0"}, URL, [Purge(Kind.URL, URL)]),
        ({b"x-purge-soft": b" No"}, URL, [Purge(Kind.URL, URL)]),
        ({b"fastly-soft-purge": b"1"}, URL, [Purge(Kind.URL, URL, soft=True)]),
        ({}, b"http://a.test/x/*", [Purge(Kind.PREFIX, b"http://a.test/x/")]),
        ({b"surrogate-key": b"a b"}, URL, [Purge(Kind.TAG, b"a"), Purge(Kind.TAG, b"b")]),
        ({b"cache-tag": b"a", b"x-purge-soft": b"true"}, URL, [Purge(Kind.TAG, b"a", soft=True)]),
    ],
)
def test_a_purge_request_says_what_it_is_about(fields: dict[bytes, bytes], url: bytes, purges: list[Purge]) -> None:
    assert purge_request(fields, url) == purges
