"""The ratio that follows the traffic, so that so many traces a second come of it. Pure: the clock is passed in.

How it works: requests are counted; each second the ratio is set to what would have given the target at the rate of
late, and a trace is sampled if its id is within that ratio, as TraceIdRatioBased has it. Two things go beside it. A
route that has had fewer than `floor` traces a second gets one whatever the id, and these count towards the target. And
when traffic soars within a second, what goes beyond anything that chance would bring at the target is not sampled, so
that one second's burst can't flood the collector.
"""

import math

from edgeproxy.tracing.rate import Allowance
from edgeproxy.tracing.sampler import Sampler, SamplerKind

TURN_S = 1.0
"""How often the ratio is set."""
MEMORY_S = 2.0
"""How much of the past counts: the weight of what is that long ago is 1/e. Longer is smoother, slower to follow."""
ROUTES_MAX = 4096
_SPREAD = 4.0
"""How many standard deviations of a Poisson distribution chance may bring; more is a surge."""


class Adaptive:
    """Steers towards `target` traces a second, of which each route gets `floor` if it has them."""

    __slots__ = ("_begun_s", "_bound", "_floor", "_floored", "_floors", "_floors_rate", "_most", "_rate", "_seen",
                 "_taken", "_target", "ratio")  # fmt: skip

    def __init__(self, target: float, floor: float = 0.0) -> None:
        """Both in traces a second. The ratio begins with 1."""
        self._target = target
        self._floor = floor
        self._floors: dict[bytes, Allowance] = {}
        self._rate = self._floors_rate = 0.0
        self._begun_s = -math.inf
        self._seen = self._taken = self._floored = 0
        self._most = target + _SPREAD * math.sqrt(target) + 1
        self.ratio = 1.0
        """The ratio that holds now."""
        self._bound = Sampler(SamplerKind.TRACEIDRATIO, 1.0).bound

    def decide(self, low_half: str, route: bytes, now_s: float) -> tuple[bool, str]:
        """Whether to sample the trace whose id has this low half, and why: `adaptive`, or `floor`."""
        if now_s - self._begun_s >= TURN_S:
            self._turn(now_s)
        self._seen += 1
        floor = self._floor_of(route)
        if low_half < self._bound and self._taken < self._most:
            self._taken += 1
            if floor is not None:
                floor.take(now_s)
            return True, "adaptive"
        if floor is not None and floor.take(now_s):
            self._floored += 1
            return True, "floor"
        return False, "adaptive"

    def _floor_of(self, route: bytes) -> Allowance | None:
        if not self._floor:
            return None
        floor = self._floors.get(route)
        if floor is None and len(self._floors) < ROUTES_MAX:
            floor = self._floors[route] = Allowance(self._floor)
        return floor

    def _turn(self, now_s: float) -> None:
        """A second is over: set the ratio for the next one."""
        elapsed_s = now_s - self._begun_s
        self._begun_s = now_s
        if math.isfinite(elapsed_s):
            weight = 1.0 if not self._rate else 1.0 - math.exp(-elapsed_s / MEMORY_S)
            self._rate += weight * (self._seen / elapsed_s - self._rate)
            self._floors_rate += weight * (self._floored / elapsed_s - self._floors_rate)
            wanted = max(0.0, self._target - self._floors_rate)
            self.ratio = min(1.0, wanted / self._rate) if self._rate else 1.0
            self._bound = Sampler(SamplerKind.TRACEIDRATIO, self.ratio).bound
        self._seen = self._taken = self._floored = 0
