"""Looking responses up: what to ask Redis for, and what its answer is.

Where responses vary, which request fields select one stands under the primary name (the vary mark). A worker remembers
that, so a look-up asks for the right variant at once; where it remembers what is not so any more, it asks again.
"""

import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import NamedTuple

import structlog

from edgeproxy.cache.entry import Entry
from edgeproxy.cache.key import url_of, variant
from edgeproxy.cache.operations import Asker
from edgeproxy.cache.redis import layout
from edgeproxy.cache.redis.cluster import Cluster
from edgeproxy.cache.redis.commands import Commands
from edgeproxy.cache.redis.layout import DamagedError, Names, VaryMark
from edgeproxy.cache.redis.link import RedisError, Reply
from edgeproxy.cache.redis.node import Node
from edgeproxy.cache.redis.operating import Operating, UnderWay
from edgeproxy.cache.store import Found

TIER = "redis"
MARKS_MAX = 8192
"""How many resources are remembered to vary, so that their look-ups take one round trip."""
LOOKS = 3
"""How often one look-up asks, where what it finds shows that something else had to be asked for."""
DAMAGES_SAID = 20
"""So many damaged values are said in the log in a second; the others are counted."""
KNOWN_MAX = 1024
KNOWN_BYTES = 4096
"""Of how many small responses it is known what was made of their values, for as long as Redis says the same: that saves
20 µs a hit, and takes some megabytes at most.
"""
_log = structlog.get_logger()


class Known(NamedTuple):
    """A response as it was read last, and the values that it was made of."""

    head: bytes
    body: bytes | None
    entry: Entry


class Reader:
    """One worker's look-ups."""

    def __init__(
        self, cluster: Cluster, names: Names, commands: Commands, operating: Operating, *, knows: bool
    ) -> None:
        """Look up through a cluster. `knows`: no hot memory lies above, so what was made of a value is kept for the
        next like it.
        """
        self.cluster = cluster
        self.names = names
        self.commands = commands
        self.operating = operating
        self.damaged = 0
        """Values that were not as they should be."""
        self._marks: OrderedDict[bytes, VaryMark] = OrderedDict()
        self._knows = knows
        self._known: dict[bytes, Known] = {}
        self._said_since = float("-inf")
        self._said = 0

    def look(self, key: bytes, fields: Mapping[bytes, bytes], found: Found, asker: Asker | None) -> None:
        """Call `found`, in a later turn of the loop, with what is stored for a primary key and a request's fields."""
        Look(self, key, fields, found, asker).ask()

    # --- how resources vary

    def mark_of(self, key: bytes) -> VaryMark | None:
        """How a resource is known to vary; None where it does not, as far as is known."""
        return self._marks.get(key)

    def remember(self, key: bytes, mark: VaryMark) -> None:
        """A resource varies in this way."""
        self._marks[key] = mark
        self._marks.move_to_end(key)
        if len(self._marks) > MARKS_MAX:
            self._marks.popitem(last=False)

    def forget(self, key: bytes) -> None:
        """A resource does not vary, or may do so in another way by now."""
        self._marks.pop(key, None)

    # --- what Redis said

    def entry_of(self, look: "Look", values: Reply) -> Entry | None:
        """The response that a look-up is for, out of the values of its keys; None where it is not among them. How the
        resource varies is known afterwards. Raises DamagedError.
        """
        if not isinstance(values, list) or len(values) < len(look.keys):
            raise DamagedError("no list of values")
        first, body = values[0], values[len(look.keys) - 1]
        known = self._known.get(look.key)
        if known is not None and look.mark is None and known.head == first and known.body == body:
            known.entry.tier = TIER
            return known.entry
        head = None if first is None else layout.read(first)
        if isinstance(head, VaryMark):
            self.remember(look.key, head)
            head = None if head != look.mark or values[1] is None else layout.read(values[1])
        else:
            self.forget(look.key)
            if look.mark is not None:
                return None  # the body that was asked for is another one's
        if head is None or isinstance(head, VaryMark) or not layout.belongs(head.stored, look.key, look.fields):
            return None
        entry = Entry(head.stored, layout.body(head, body), tier=TIER)
        if self._knows and look.mark is None and len(entry.body) <= KNOWN_BYTES:
            if len(self._known) >= KNOWN_MAX:
                self._known.clear()
            self._known[look.key] = Known(first, body, entry)
        return entry

    def say_damaged(self, key: bytes, asker: Asker | None, damage: DamagedError) -> None:
        """Count a value that is not as it should be; say so, though not for each of thousands."""
        self.damaged += 1
        now = time.monotonic()
        if now - self._said_since >= 1:
            self._said_since, self._said = now, 0
        self._said += 1
        if self._said <= DAMAGES_SAID:
            _log.error(
                "redis: a stored response is damaged, and not used",
                key=key.decode("latin-1"),
                trace_id="" if asker is None else asker.trace.trace_id,
                why=str(damage),
            )


class Look:
    """One look-up, until it has found something or nothing."""

    __slots__ = ("_asker", "_found", "_left", "_name", "_operation", "_reader", "fields", "key", "keys", "mark")

    _operation: UnderWay
    keys: list[bytes]
    """What was asked for last: the primary name first, the body's last."""
    mark: VaryMark | None
    """How the resource was taken to vary when that was asked for."""

    def __init__(
        self, reader: Reader, key: bytes, fields: Mapping[bytes, bytes], found: Found, asker: Asker | None
    ) -> None:
        """Use `Reader.look`."""
        self.key = key
        self.fields = fields
        self._reader = reader
        self._found = found
        self._asker = asker
        self._left = LOOKS
        self._name = reader.names.primary(key, url_of(key))

    def ask(self) -> None:
        """Ask, by what is known of how the resource varies."""
        reader, name = self._reader, self._name
        self._left -= 1
        self.mark = mark = reader.mark_of(self.key)
        if mark is None:
            self.keys = [name, layout.body_name(name)]
        else:
            selected = reader.names.variant(name, mark, variant(mark.vary, self.fields))
            self.keys = [name, selected, layout.body_name(selected)]
        self._operation = operation = reader.operating.begin("MGET", self._asker, name, self.key)
        command = reader.commands.read(self.keys, name, operation.traceparent)
        reader.cluster.ask(operation.slot, command, self._answered, is_read=True)

    def _answered(self, reply: Reply, node: Node | None) -> None:
        operation = self._operation
        if isinstance(reply, RedisError):
            operation.failed(node, reply)
            self._found(None)
            return
        try:
            entry = self._reader.entry_of(self, reply)
        except DamagedError as damage:
            self._reader.say_damaged(self.key, self._asker, damage)
            operation.ended(node, "error", str(damage))
            self._found(None)
            return
        if entry is None and reply[0] is not None and self._left and self._reader.mark_of(self.key) != self.mark:
            operation.ended(node, "ok")  # and shows what else to ask for
            self.ask()
            return
        operation.ended(node, "miss" if entry is None else "hit")
        self._found(entry)
