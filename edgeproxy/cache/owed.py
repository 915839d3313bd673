"""Purge rules that nobody will ask for again: what could not be given is given again until it holds.

Who purges by hand is told that it has failed. What a request to the origin has changed (RFC 9111 §4.4) would be served
as it was for as long as it is fresh, once rules can be given again. Knows neither stores nor what a rule does.
"""

from collections.abc import Callable

from edgeproxy.cache.purge import Kind, Purge

MAX_OWED = 1000
"""With more than that, everything is purged in their place."""
Given = Callable[[int, Exception | None], None]
"""A purge rule was given: its number, and None or what went wrong."""
_ALL = Purge(Kind.ALL, b"")


class Owed:
    """Those of one worker."""

    def __init__(self, give: Callable[[Purge, int, Given], None]) -> None:
        """`give` has a rule hold, at a time in nanoseconds, and tells what became of it, at once or later."""
        self._give = give
        self._left: dict[Purge, None] = {}
        self._trying = False

    def __len__(self) -> int:
        """How many are still to be given."""
        return len(self._left)

    def give(self, purge: Purge, now_ns: int, failed: Callable[[Exception], None] = lambda _: None) -> None:
        """Have a rule hold, now or as soon as that is possible; `failed` is called when it is not possible now."""

        def given(_seq: int, error: Exception | None) -> None:
            if error is not None:
                self._owe(purge)
                failed(error)

        self._give(purge, now_ns, given)

    def _owe(self, purge: Purge) -> None:
        if len(self._left) >= MAX_OWED or _ALL in self._left:
            self._left = {_ALL: None}
        else:
            self._left[purge] = None

    def retry(self, now_ns: int) -> None:
        """Give one that is owed, and if that goes well the others; to be called some times a second."""
        if not self._left or self._trying:
            return
        self._trying = True
        first = next(iter(self._left))

        def given(_seq: int, error: Exception | None) -> None:
            self._trying = False
            if error is None:
                left, self._left = self._left, {}
                left.pop(first, None)
                for purge in left:
                    self.give(purge, now_ns)

        self._give(first, now_ns, given)
