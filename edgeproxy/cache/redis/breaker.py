"""A circuit breaker: after some failures in a row nobody waits for a node any more, until a probe has found it well.

Pure: the clock is the caller's. Requests are never probes; whoever owns the breaker probes when `wants_probe`.
"""

from enum import Enum

FAILURES = 5
"""So many failures in a row open it."""
REST_S = 0.25
"""How long it stays open before the first probe; twice as long after each that fails, up to `REST_MAX_S`."""
REST_MAX_S = 4.0


class State(Enum):
    """What a breaker lets through."""

    CLOSED = "closed"
    """Everything."""
    OPEN = "open"
    """Nothing."""
    HALF_OPEN = "half-open"
    """A probe that is under way."""


class Breaker:
    """One node's."""

    def __init__(self) -> None:
        """Trust the node."""
        self.state = State.CLOSED
        self.opened = 0
        """How often it has opened."""
        self._failures = 0
        self._rest_s = REST_S
        self._probe_at = 0.0

    def succeeded(self) -> bool:
        """The node has answered, the probe if there is one under way; says whether this has closed the breaker. An
        answer to what was asked before it opened closes nothing.
        """
        if self.state is State.OPEN:
            return False
        self._failures = 0
        if self.state is State.CLOSED:
            return False
        self.state = State.CLOSED
        self._rest_s = REST_S
        return True

    def failed(self, now: float) -> bool:
        """The node has not answered, or is gone; says whether this has opened the breaker."""
        self._failures += 1
        if self.state is State.HALF_OPEN:
            self._rest_s = min(REST_MAX_S, self._rest_s * 2)
            self._rest(now)
            return False
        if self.state is State.CLOSED and self._failures >= FAILURES:
            self.opened += 1
            self._rest(now)
            return True
        return False

    def trip(self, now: float) -> bool:
        """The connection is lost: no more failures need be waited for. Says whether this has opened the breaker."""
        self._failures = max(self._failures, FAILURES - 1)
        return self.failed(now)

    def wants_probe(self, now: float) -> bool:
        """Whether it is time to find out if the node is well again."""
        return self.state is State.OPEN and now >= self._probe_at

    def probing(self) -> None:
        """A probe is under way: `succeeded` or `failed` is its end."""
        self.state = State.HALF_OPEN

    def _rest(self, now: float) -> None:
        self.state = State.OPEN
        self._probe_at = now + self._rest_s
