"""The purge rules of a cache that one process has for itself: a list in memory, where a node has a log in a file."""

import array

from edgeproxy.cache.owed import Given
from edgeproxy.cache.purge import MAX_VALUE_BYTES, Purge, Rule


class LocalRules:
    """The rules, for the one who reads them (`tiers.RuleLog`)."""

    def __init__(self) -> None:
        """There are none yet."""
        self.seq_word = memoryview(array.array("Q", [0]))
        self._new: list[Rule] = []

    def give(self, purge: Purge, now_ns: int, given: Given) -> None:
        """Have a rule hold from now on. Raises ValueError for a purge that can't be a rule."""
        if len(purge.value) > MAX_VALUE_BYTES:
            raise ValueError(f"what is to be purged is over {MAX_VALUE_BYTES} bytes")
        self.seq_word[0] += 1
        self._new.append(Rule(purge.kind, purge.value, purge.soft, now_ns, self.seq_word[0]))
        given(self.seq_word[0], None)

    def read_new(self) -> list[Rule]:
        """The rules since the last call."""
        new, self._new = self._new, []
        return new
