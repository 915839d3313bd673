"""Purging: what a rule says, and which stored responses it is about. Pure; no I/O, no clock.

Nothing is searched when something is purged. A rule gets the next number of the purge log (`purge_log`), and every
stored response carries the number of the last rule that was known when its request went to the origin. Whoever is about
to use one whose number is not the latest asks `Purges.check`, so a response whose fetch began before the purge is
caught as well, however late it arrives.

- A *hard* purge: what it is about is not used again.
- A *soft* purge: what it is about has been stale since then; it may be revalidated, and served where stale may be.
"""

from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import NamedTuple

import msgspec

MAX_VALUE_BYTES = 65536
"""The longest URL or prefix that a rule can be about."""
MAX_VALUES = 16_384
MAX_TABLE_BYTES = 4 * 1024 * 1024
"""How many values of a kind, and how many bytes of them, are told apart; what goes beyond is purged more generously."""
MAX_TAGS = 1000
MAX_TAG_BYTES = 1024
"""How many tags of a response count, and how long one may be; what goes beyond is ignored, as elsewhere."""

_SOFT_FIELDS = (b"x-purge-soft", b"fastly-soft-purge")
_NO = frozenset({b"", b"0", b"false", b"no", b"off"})


class Kind(IntEnum):
    """What a rule's value is."""

    URL = 0
    """A URL as keyed (`key.KeyRules.url`): all that is stored for it."""
    PREFIX = 1
    """The beginning of such URLs."""
    TAG = 2
    """One of a response's tags (`tags_of`)."""
    ALL = 3
    """Nothing: the rule is about all that is stored."""


class Purge(msgspec.Struct, frozen=True):
    """What somebody wants purged."""

    kind: Kind
    value: bytes
    soft: bool = False


class Rule(msgspec.Struct, frozen=True):
    """A purge as it stands in the log."""

    kind: Kind
    value: bytes
    soft: bool
    at_ns: int
    """When it was given, nanoseconds since the epoch."""
    seq: int
    """Its number, counted from 1."""


class Verdict(NamedTuple):
    """What the rules say of a stored response."""

    purged: bool
    """Whether it must not be used."""
    stale_at_ns: int | None
    """Since when it has been stale by a soft rule; None where there was none."""


KEPT = Verdict(purged=False, stale_at_ns=None)
PURGED = Verdict(purged=True, stale_at_ns=None)


class _Mark:
    """The last rules about one value."""

    __slots__ = ("at_ns", "hard", "soft")

    def __init__(self) -> None:
        self.hard = 0
        """Number of the last hard rule; 0 when there was none."""
        self.soft = 0
        self.at_ns = 0
        """When the last soft one was given."""


class _Table:
    """Values of one kind, those longest without a rule first."""

    def __init__(self, max_values: int) -> None:
        self.marks: dict[bytes, _Mark] = {}
        self._max_values = max_values
        self._bytes = 0

    def add(self, rule: Rule) -> int:
        """Note a rule; the number of the last rule that was dropped for it, 0 when none was."""
        value = rule.value
        mark = self.marks.pop(value, None)
        if mark is None:
            mark = _Mark()
            self._bytes += len(value)
        self.marks[value] = mark
        if rule.soft:
            mark.soft = rule.seq
            mark.at_ns = rule.at_ns
        else:
            mark.hard = rule.seq
        dropped = 0
        while len(self.marks) > self._max_values or (self._bytes > MAX_TABLE_BYTES and len(self.marks) > 1):
            oldest = next(iter(self.marks))
            gone = self.marks.pop(oldest)
            self._bytes -= len(oldest)
            self.dropped(oldest)
            dropped = max(dropped, gone.hard, gone.soft)
        return dropped

    def dropped(self, value: bytes) -> None:
        """A value is no longer here."""

    def clear(self) -> None:
        """Hold nothing."""
        self.marks.clear()
        self._bytes = 0


class _Prefixes(_Table):
    """Prefixes, found by their lengths: a URL is looked up once for each length, however many prefixes there are."""

    def __init__(self, max_values: int) -> None:
        super().__init__(max_values)
        self.lengths: dict[int, int] = {}

    def add(self, rule: Rule) -> int:
        if rule.value not in self.marks:
            length = len(rule.value)
            self.lengths[length] = self.lengths.get(length, 0) + 1
        return super().add(rule)

    def dropped(self, value: bytes) -> None:
        length = len(value)
        self.lengths[length] -= 1
        if not self.lengths[length]:
            del self.lengths[length]

    def clear(self) -> None:
        super().clear()
        self.lengths.clear()


class Purges:
    """The rules as one process knows them; add them in the log's order.

    Bounded: where a value has to be dropped, all that its rule could have been about counts as purged.
    """

    def __init__(self, max_values: int = MAX_VALUES) -> None:
        """Know no rule yet; tell up to `max_values` values of each kind apart."""
        self.seq = 0
        """Number of the last rule."""
        self._floor = 0
        """Whatever knows no rule as late as this is purged."""
        self._all_soft = 0
        self._all_soft_at_ns = 0
        self._urls = _Table(max_values)
        self._prefixes = _Prefixes(max_values)
        self._tags = _Table(max_values)

    def add(self, rule: Rule) -> None:
        """Know one rule more."""
        kind = rule.kind
        self.seq = max(self.seq, rule.seq)
        dropped = 0
        if kind == Kind.URL:
            dropped = self._urls.add(rule)
        elif kind == Kind.PREFIX:
            dropped = self._prefixes.add(rule)
        elif kind == Kind.TAG:
            dropped = self._tags.add(rule)
        elif rule.soft:
            self._all_soft = rule.seq
            self._all_soft_at_ns = rule.at_ns
        else:
            dropped = rule.seq
            for table in (self._urls, self._prefixes, self._tags):  # none of theirs is later
                table.clear()
        self._floor = max(self._floor, dropped)

    def check(self, url: bytes, tags: Sequence[bytes], since_seq: int) -> Verdict:
        """What the rules after `since_seq` say of the response stored for `url` with these tags.

        Of several soft rules about one value the last one counts. What is not purged by it may take on `seq` as its
        own number once the verdict has been acted on.
        """
        if since_seq >= self.seq:
            return KEPT
        if since_seq < self._floor:
            return PURGED
        found: list[_Mark] = []
        mark = self._urls.marks.get(url)
        if mark is not None:
            found.append(mark)
        prefixes = self._prefixes.marks
        for length in self._prefixes.lengths:
            mark = prefixes.get(url[:length])
            if mark is not None:
                found.append(mark)
        if self._tags.marks:
            for tag in tags:
                mark = self._tags.marks.get(tag)
                if mark is not None:
                    found.append(mark)
        stale_at_ns = self._all_soft_at_ns if since_seq < self._all_soft else None
        for mark in found:
            if since_seq < mark.hard:
                return PURGED
            if since_seq < mark.soft and (stale_at_ns is None or mark.at_ns < stale_at_ns):
                stale_at_ns = mark.at_ns
        return KEPT if stale_at_ns is None else Verdict(purged=False, stale_at_ns=stale_at_ns)


def tags_of(names: Mapping[bytes, bytes]) -> tuple[bytes, ...]:
    """The tags of a response: Surrogate-Key, separated by white space, and Cache-Tag, separated by commas; case counts.

    At most `MAX_TAGS` of `MAX_TAG_BYTES` each; later and longer ones are ignored.
    """
    surrogate_key = names.get(b"surrogate-key")
    cache_tag = names.get(b"cache-tag")
    if surrogate_key is None and cache_tag is None:
        return ()
    # Several lines of Surrogate-Key arrive joined by a comma.
    found = [token.removesuffix(b",") for token in surrogate_key.split()] if surrogate_key else []
    if cache_tag:
        found += [token.strip() for token in cache_tag.split(b",")]
    tags = dict.fromkeys(tag for tag in found if tag and len(tag) <= MAX_TAG_BYTES)
    return tuple(tags)[:MAX_TAGS]


def purge_request(names: Mapping[bytes, bytes], url: bytes) -> list[Purge]:
    """What a PURGE request asks for; `names` are its fields, lower case, `url` is its target as keyed.

    - with Surrogate-Key or Cache-Tag: these tags, wherever they are;
    - a target that ends in `*`: all that begins with what is before it;
    - else the target.

    `X-Purge-Soft: 1` (or `Fastly-Soft-Purge: 1`) makes it a soft one.
    """
    soft = any(names.get(name, b"").strip().lower() not in _NO for name in _SOFT_FIELDS)
    tags = tags_of(names)
    if tags:
        return [Purge(Kind.TAG, tag, soft) for tag in tags]
    if url.endswith(b"*"):
        return [Purge(Kind.PREFIX, url[:-1], soft)]
    return [Purge(Kind.URL, url, soft)]
