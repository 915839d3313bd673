"""How many in a second. Pure: whoever asks says what time it is, by a clock that never goes back.

Two buckets of tokens, for a bound from above and for one from below. From above, a token comes back a second after it
was taken: other than where they drip in evenly, no second has more than the bucket holds, so that "at most 100 a
second" is true of every second. From below they drip in, and some are saved: what is owed to those that come at random,
and not when a token is just there, is made up for later.
"""

import math
from collections import deque

_SAVED = 5.0
_SAVED_S = 10.0


class Rate:
    """At most so many a second: as many as come at once, but then none before the second is over."""

    __slots__ = ("_taken", "_window_s", "most")

    def __init__(self, per_second: float) -> None:
        """Bound to `per_second`: a whole number of it in a second, or one in a longer time. 0 lets nothing pass."""
        self.most = math.floor(per_second) if per_second >= 1 else math.ceil(per_second)
        """How many there may be in one window."""
        self._window_s = 1.0 if per_second >= 1 else 1.0 / per_second if per_second > 0 else math.inf
        self._taken: deque[float] = deque()

    def take(self, now_s: float) -> bool:
        """Whether one more may be, now; if so it counts."""
        taken = self._taken
        while taken and now_s - taken[0] >= self._window_s:
            taken.popleft()
        if len(taken) >= self.most:
            return False
        taken.append(now_s)
        return True


class Allowance:
    """At least so many a second, where there are as many; for a while it may be more, to make up for less before."""

    __slots__ = ("_at_s", "_most", "_per_second", "_tokens")

    def __init__(self, per_second: float) -> None:
        """Owe `per_second`, and save what is owed in ten seconds, five at least."""
        self._per_second = per_second
        self._most = max(_SAVED, _SAVED_S * per_second) if per_second > 0 else 0.0
        self._tokens = self._most
        self._at_s = -math.inf

    def take(self, now_s: float) -> bool:
        """Whether one more is owed, now; if so it counts."""
        if self._tokens < self._most:
            self._tokens = min(self._most, self._tokens + (now_s - self._at_s) * self._per_second)
        self._at_s = now_s
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True


def share(per_second: float, index: int, count: int) -> float:
    """What one of `count` workers may have of a rate, so that together they never have more of it in a second.

    Whole ones are dealt out by the worker's index. Of fewer than one for each, each has the same fraction, and none
    goes without: then it is on average that they have no more, and at one moment there may be one from each.
    """
    if per_second < count:
        return per_second / count
    whole, rest = divmod(math.floor(per_second), count)
    return float(whole + (index < rest))
