"""The purge rules that all nodes of a cluster share: a stream in Redis, read by every worker.

A rule's number is its entry's id in the stream (`seq_of`), so it is the same on all nodes, and what one of them stores
can be checked by any other. Redis tells every worker when the stream changes (client tracking); besides, it is read
every `POLL_S`, so a worker that can't read it knows: then nothing that is stored is to be used, as it might have been
purged (`is_current`).

The stream holds the last `MAX_RULES` rules. Each rule says which is the oldest that there is (`floor`): what knows no
rule as late as that is taken for purged.
"""

import asyncio
import time
from array import array
from collections.abc import Callable, Sequence

import structlog

from edgeproxy.cache.purge import Kind, Purge, Rule
from edgeproxy.cache.purge_layout import check_purge
from edgeproxy.cache.redis.cluster import Answer, Cluster
from edgeproxy.cache.redis.commands import command
from edgeproxy.cache.redis.layout import DamagedError, Names
from edgeproxy.cache.redis.link import RedisError, Reply
from edgeproxy.cache.redis.node import Node

POLL_S = 0.25
CURRENT_S = 0.8
"""A reading of the rules holds for so long: a purge takes effect within a second everywhere."""
MAX_RULES = 10_000
TRIM_RULES = 1000
"""So many of the oldest go at once when there are too many."""
_PAGE = 1000
_COUNTER_BITS = 20

_NOTHING = Purge(Kind.TAG, b"")
"""A rule about nothing: no response has an empty tag."""
_log = structlog.get_logger()


def seq_of(entry_id: bytes) -> int:
    """A rule's number from its id in the stream (`milliseconds-counter`)."""
    milliseconds, _, counter = entry_id.partition(b"-")
    return int(milliseconds) << _COUNTER_BITS | int(counter)


def id_of(seq: int) -> str:
    """The id of a rule's number."""
    return f"{seq >> _COUNTER_BITS}-{seq & (1 << _COUNTER_BITS) - 1}"


def fields_of(purge: Purge, now_ns: int, floor: int) -> list[bytes]:
    """A rule's fields in the stream."""
    return [
        *(b"kind", purge.kind.name.lower().encode()),
        *(b"value", purge.value),
        *(b"soft", b"1" if purge.soft else b"0"),
        *(b"at", b"%d" % now_ns),
        *(b"floor", b"%d" % floor),
    ]


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
        """Called when the rules can't be read any more."""
        self._cluster = cluster
        self._name = names.purges
        self._new: list[Rule] = []
        self._read_at = float("-inf")
        self._stale = True
        self._reading = False
        self._again = False
        self._page: list[Rule] = []
        self._floor = 0
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
        if not self._stale and not self.is_current:
            self._stale = True
            _log.error("redis: the purge rules can't be read; nothing from the cache is used", since_s=CURRENT_S)
            self.on_stale()
        self.read()

    def close(self) -> None:
        """Read no more."""
        if self._timer is not None:
            self._timer.cancel()

    def read(self) -> None:
        """Read what is new, now."""
        if self._reading:
            self._again = True
            return
        self._reading = True
        asked_at = time.monotonic()
        last = self._page[-1].seq if self._page else self.seq
        after = f"({id_of(last)}" if last else "-"
        self._cluster.ask(
            self._name,
            command("XRANGE", self._name, after, "+", "COUNT", _PAGE),
            lambda reply, _node: self._got(reply, asked_at),
        )

    def _got(self, reply: Reply, asked_at: float) -> None:
        self._reading = False
        if isinstance(reply, RedisError):
            self._again = False
            return
        for entry_id, fields in reply:
            self._add(entry_id, fields)
        if len(reply) == _PAGE:
            self.read()
            return
        self._take()
        self._read_at = asked_at
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

    def _take(self) -> None:
        """All rules that are new have been read. Where some are no longer there, one about everything goes first."""
        if self._floor > self.seq:
            self._new.append(Rule(Kind.ALL, b"", soft=False, at_ns=0, seq=self._floor))
        self._new += self._page
        if self._page:
            self.seq_word[0] = self._page[-1].seq
        self._page = []

    def read_new(self) -> list[Rule]:
        """The rules since the last call."""
        new, self._new = self._new, []
        return new

    def give(self, purge: Purge, now_ns: int, given: Callable[[int, Exception | None], None]) -> None:
        """Have a rule hold on all nodes; `given` gets its number, or what went wrong, later. Raises ValueError for a
        purge that can't be a rule.
        """
        check_purge(purge)

        def answered(reply: Reply, _node: Node | None) -> None:
            if isinstance(reply, RedisError):
                given(0, reply)
                return
            self.read()
            given(seq_of(reply), None)
            self._cluster.ask(self._name, command("XLEN", self._name), self._counted)

        self._add_rule(purge, now_ns, 0, answered)

    def _add_rule(self, purge: Purge, now_ns: int, floor: int, answered: Answer) -> None:
        self._cluster.ask(self._name, command("XADD", self._name, "*", *fields_of(purge, now_ns, floor)), answered)

    # --- the stream's length

    def _counted(self, reply: Reply, _node: Node | None) -> None:
        if isinstance(reply, int) and reply > MAX_RULES + TRIM_RULES:
            oldest = command("XRANGE", self._name, "-", "+", "COUNT", reply - MAX_RULES)
            self._cluster.ask(self._name, oldest, self._trim)

    def _trim(self, reply: Reply, _node: Node | None) -> None:
        """Take out the oldest rules, having said so first: what knows none as late is purged by that."""
        if isinstance(reply, RedisError) or not reply:
            return
        last = reply[-1][0]

        def told(reply: Reply, _node: Node | None) -> None:
            if not isinstance(reply, RedisError):
                after = id_of(seq_of(last) + 1)
                self._cluster.ask(self._name, command("XTRIM", self._name, "MINID", after), lambda _, __: None)

        self._add_rule(_NOTHING, 0, seq_of(last), told)
