"""The purge rules that all nodes of a cluster share: a stream in Redis, read by every worker.

A rule's number is its entry's id in the stream (`seq_of`), so it is the same on all nodes, and what one of them stores
can be checked by any other. Redis tells every worker when the stream changes (client tracking); besides, it is read
every `POLL_S`, so a worker that can't read it knows: then nothing that is stored is to be used, as it might have been
purged (`is_current`).

The stream holds the last `MAX_RULES` rules. Before older ones are taken out, a rule about nothing says up to which
(`floor`): what knows no rule as late as that is taken for purged.

The stream is never empty where the cache is used, and what was read last is read again with what is new. So a stream
that is lost, or whose last rules are (a failover may lose them), shows: then a rule about everything takes their place.
"""

import asyncio
import time
from array import array
from collections.abc import Callable, Sequence
from math import inf

import structlog
from redis.crc import key_slot

from edgeproxy.cache.purge import Kind, Purge, Rule
from edgeproxy.cache.purge_layout import check_purge
from edgeproxy.cache.redis.cluster import Cluster
from edgeproxy.cache.redis.commands import command
from edgeproxy.cache.redis.layout import MAX_TTL_MS, DamagedError, Names
from edgeproxy.cache.redis.link import NoAnswerError, RedisError, Reply
from edgeproxy.cache.redis.node import Node

POLL_S = 0.2
CURRENT_S = 0.75
"""A reading of the rules holds for so long. With one `POLL_S` until that is noticed, a purge takes effect within a
second even where it can't be read.
"""
PATIENCE_S = 5.0
"""A worker that has not read the rules for so long since its start says so, and why."""
MAX_RULES = 10_000
TRIM_RULES = 100
"""So many of the oldest go at once when there are too many."""
PAGE = 500
"""So many rules are read at once, fewer where that takes too long."""
STREAM_TTL_MS = MAX_TTL_MS + 86_400_000
"""Rules outlive what they are about."""
_COUNTER_BITS = 20

_ALL = Purge(Kind.ALL, b"")
_NOTHING = Purge(Kind.TAG, b"")
"""A rule about nothing: no response has an empty tag."""
Given = Callable[[int, Exception | None], None]
_log = structlog.get_logger()


def seq_of(entry_id: bytes) -> int:
    """A rule's number from its id in the stream (`milliseconds-counter`)."""
    milliseconds, _, counter = entry_id.partition(b"-")
    return int(milliseconds) << _COUNTER_BITS | int(counter)


def id_of(seq: int) -> str:
    """The id of a rule's number."""
    return f"{seq >> _COUNTER_BITS}-{seq & (1 << _COUNTER_BITS) - 1}"


Words = tuple[bytes | str | int, ...]
"""A command's words."""


def adding(name: bytes, purge: Purge, now_ns: int, *, floor: int = 0, seq: int = 0) -> Words:
    """The command that gives a rule; by the number `seq`, if there is none as late yet, or by the next one."""
    return (
        *("XADD", name, id_of(seq) if seq else "*"),
        *(b"kind", purge.kind.name.lower().encode()),
        *(b"value", purge.value),
        *(b"soft", b"1" if purge.soft else b"0"),
        *(b"at", b"%d" % now_ns),
        *(b"floor", b"%d" % floor),
    )


def keeping(name: bytes) -> Words:
    """The command that has the stream stay for as long as what its rules are about."""
    return "PEXPIRE", name, STREAM_TTL_MS


def surplus(length: int) -> int:
    """How many of the oldest rules are to go now that there are so many."""
    return min(length - MAX_RULES, TRIM_RULES) if length >= MAX_RULES + TRIM_RULES else 0


def oldest(name: bytes, count: int) -> Words:
    """The command that reads the oldest rules."""
    return "XRANGE", name, "-", "+", "COUNT", count


def telling(name: bytes, last: int) -> Words:
    """The command that says that rules up to number `last` are going to be taken out: it comes before `trimming`."""
    return adding(name, _NOTHING, 0, floor=last)


def trimming(name: bytes, last: int) -> Words:
    """The command that takes out the rules up to number `last`."""
    return "XTRIM", name, "MINID", id_of(last + 1)


def beginning(name: bytes, now_ns: int) -> Words:
    """The command for a stream that was empty: what was stored by then may have been purged by rules that are lost."""
    return adding(name, _ALL, now_ns)


def rule_of(entry_id: bytes, fields: Sequence[bytes]) -> tuple[Rule, int]:
    """The rule of an entry in the stream, and the floor that it tells. Raises DamagedError."""
    found = dict(zip(fields[::2], fields[1::2], strict=False))
    try:
        kind = Kind[found[b"kind"].decode().upper()]
        rule = Rule(kind, found[b"value"], found[b"soft"] == b"1", int(found[b"at"]), seq_of(entry_id))
        return rule, int(found[b"floor"])
    except (KeyError, ValueError) as error:
        raise DamagedError(f"a purge rule that can't be read: {error}") from error


class SharedRules:
    """One worker's reading of the stream; what `Tiers` takes for its log of rules."""

    def __init__(self, cluster: Cluster, names: Names) -> None:
        """Read through a cluster; `start` begins."""
        self.seq_word = memoryview(array("Q", [0]))
        """One word: the number of the last rule that was read."""
        self.on_stale: Callable[[], None] = lambda: None
        """Called when the rules can't be read any more, and again and again until they can."""
        self._cluster = cluster
        self._name = names.purges
        self._slot: int = key_slot(self._name)
        self._new: list[Rule] = []
        self._read_at = float("-inf")
        self._stale = True
        self._stale_at = float("-inf")
        self._reading = False
        self._again = False
        self._page: list[Rule] = []
        self._page_size = PAGE
        self._floor = 0
        self._missed = 0
        """Number of a rule that was there and is not any more; 0 when there is none."""
        self._given: list[tuple[int, Given]] = []
        """Rules that were given and not read back yet."""
        self._reported = ""
        self._last_error = ""
        self._say_at = 0.0
        """When it is to be said that the rules were never read; infinite once that is said, or is not so."""
        self._timer: asyncio.TimerHandle | None = None

    @property
    def seq(self) -> int:
        """The number of the last rule that was read."""
        return self.seq_word[0]

    @property
    def is_current(self) -> bool:
        """Whether the rules are known as they were a moment ago."""
        return time.monotonic() - self._read_at < CURRENT_S

    def start(self) -> None:
        """Begin to read; needs a running loop."""
        self._timer = asyncio.get_running_loop().call_later(POLL_S, self.start)
        if not self.is_current:
            self._suspect()
        self.read()

    def _suspect(self) -> None:
        """The rules are not known. What is fetched meanwhile may be purged as well, so it is not trusted for long."""
        now = time.monotonic()
        self._say_at = self._say_at or now + PATIENCE_S
        if now >= self._say_at:
            self._say_at = inf
            _log.error("redis: the purge rules are not known; nothing from Redis is used", error=self._last_error)
        if self._stale and now - self._stale_at < CURRENT_S:
            return
        if not self._stale:
            self._stale = True
            _log.error("redis: the purge rules can't be read; nothing from the cache is used", since_s=CURRENT_S)
        self._stale_at = now
        self.on_stale()
        unread, self._given = self._given, []
        for seq, given in unread:
            given(0, RedisError(f"purge rule {seq} was given, and could not be read back"))

    def close(self) -> None:
        """Read no more."""
        if self._timer is not None:
            self._timer.cancel()

    # --- reading

    def read(self) -> None:
        """Read what is new, now."""
        if self._reading:
            self._again = True
            return
        self._reading = True
        asked_at = time.monotonic()
        count = self._page_size
        last = self._page[-1].seq if self._page else self.seq
        self._cluster.ask(
            self._slot,
            command("XRANGE", self._name, id_of(last) if last else "-", "+", "COUNT", count + 1),
            lambda reply, _node: self._got(reply, last, count, asked_at),
        )

    def _got(self, reply: Reply, last: int, count: int, asked_at: float) -> None:
        self._reading = False
        if isinstance(reply, RedisError):
            self._again = False
            self._last_error = str(reply)
            self._page_size = max(1, count // 2)
            self._report(reply)
            return
        self._page_size = min(PAGE, count * 2)
        found = reply
        if last:
            if found and seq_of(found[0][0]) == last:
                found = found[1:]
            else:
                self._missed = max(self._missed, last)
        for entry_id, fields in found:
            self._add(entry_id, fields)
        if len(reply) > count:
            self.read()
            return
        if self._is_lost():
            self._repair()
            return
        self._take()
        self._reported = ""
        self._read_at = asked_at
        self._say_at = inf
        if self._stale:
            self._stale = False
            _log.info("redis: the purge rules are known")
        if self._again:
            self._again = False
            self.read()

    def _add(self, entry_id: bytes, fields: Sequence[bytes]) -> None:
        try:
            rule, floor = rule_of(entry_id, fields)
        except DamagedError as error:
            _log.error("redis: a purge rule is damaged; everything is purged in its place", error=str(error))
            rule, floor = Rule(Kind.ALL, b"", soft=False, at_ns=0, seq=seq_of(entry_id)), 0
        self._page.append(rule)
        self._floor = max(self._floor, floor)

    def _is_lost(self) -> bool:
        """Whether rules are missing of which nothing says that they are."""
        if not self._missed:
            return not self._page and not self.seq
        purged = (rule.seq for rule in self._page if rule.kind == Kind.ALL and not rule.soft)
        return max(self._floor, *purged, 0) < self._missed

    def _repair(self) -> None:
        """Purge everything, for all nodes: what was stored by then may have been purged by rules that are lost."""
        last = self._page[-1].seq if self._page else self._missed
        self._page = []
        if self._missed:
            _log.error("redis: purge rules are lost; everything is purged in their place", last=id_of(self._missed))
        # By a number of its own, which only one of the workers that find this out together can give.
        seq = max(last, self._missed) + 1 if self._missed else 0
        self._missed = 0

        def answered(reply: Reply, _node: Node | None) -> None:
            if isinstance(reply, RedisError):
                self._report(reply)  # the next reading finds the same, or that another worker was faster
            else:
                self._keep()
                self.read()

        self._cluster.ask(self._slot, command(*adding(self._name, _ALL, time.time_ns(), seq=seq)), answered)

    def _report(self, error: RedisError) -> None:
        """Say once what Redis has against it; that it does not answer is said of the node."""
        if not isinstance(error, NoAnswerError) and "smaller than" not in str(error) and str(error) != self._reported:
            self._reported = str(error)
            _log.error("redis: purge rules are refused", error=str(error))

    def _take(self) -> None:
        """All rules that are new have been read. Where some are no longer there, one about everything goes first."""
        if self._floor > self.seq:
            self._new.append(Rule(Kind.ALL, b"", soft=False, at_ns=0, seq=self._floor))
        self._new += self._page
        self._missed = 0
        if self._page:
            self.seq_word[0] = self._page[-1].seq
        self._page = []
        read = [one for one in self._given if one[0] <= self.seq]
        self._given = [one for one in self._given if one[0] > self.seq]
        for seq, given in read:
            given(seq, None)

    def read_new(self) -> list[Rule]:
        """The rules since the last call."""
        new, self._new = self._new, []
        return new

    # --- giving

    def give(self, purge: Purge, now_ns: int, given: Given) -> None:
        """Have a rule hold on all nodes; `given` gets its number once this worker knows it, or what went wrong. Raises
        ValueError for a purge that can't be a rule.
        """
        check_purge(purge)

        def answered(reply: Reply, _node: Node | None) -> None:
            if isinstance(reply, RedisError):
                given(0, reply)
                return
            self._given.append((seq_of(reply), given))
            self.read()
            self._keep()
            self._cluster.ask(self._slot, command("XLEN", self._name), self._counted)

        self._cluster.ask(self._slot, command(*adding(self._name, purge, now_ns)), answered)

    # --- the stream's length

    def _keep(self) -> None:
        self._cluster.ask(self._slot, command(*keeping(self._name)), lambda _, __: None)

    def _counted(self, reply: Reply, _node: Node | None) -> None:
        if isinstance(reply, int) and (count := surplus(reply)):
            self._cluster.ask(self._slot, command(*oldest(self._name, count)), self._trim)

    def _trim(self, reply: Reply, _node: Node | None) -> None:
        """Take out the oldest rules, having said so first: what knows none as late is purged by that."""
        if isinstance(reply, RedisError) or not reply:
            return
        last = seq_of(reply[-1][0])

        def told(reply: Reply, _node: Node | None) -> None:
            if not isinstance(reply, RedisError):
                self._cluster.ask(self._slot, command(*trimming(self._name, last)), lambda _, __: None)

        self._cluster.ask(self._slot, command(*telling(self._name, last)), told)
