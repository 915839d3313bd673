"""Deciding beyond the plain sampler: before a request is answered (`Head`), and after (`Tail`). Pure.

The order in which a head decision is found: a trusted parent's, where the sampler is parent-based; the first rule that
fits; remote strategies; the adaptive ratio; the sampler. Whoever decided to sample, the cap has the last word.
"""

import time
from collections.abc import Callable, Mapping
from typing import Literal

from edgeproxy.tracing.adaptive import Adaptive
from edgeproxy.tracing.context import RANDOM, SAMPLED, RequestTrace
from edgeproxy.tracing.naming import span_name
from edgeproxy.tracing.rate import Rate
from edgeproxy.tracing.remote import Remote
from edgeproxy.tracing.rules import Rules
from edgeproxy.tracing.sampler import LOW_HALF

TailReason = Literal["error", "slow"]
"""Why a request is exported whose trace is not sampled."""
_SERVER_ERROR = 500
_REQUEST_TIMEOUT = 408


class Head:
    """What decides on top of the sampler, as far as it is configured."""

    __slots__ = ("_adaptive", "_cap", "_remote", "_rules")

    def __init__(
        self,
        *,
        rules: Rules | None = None,
        remote: Remote | None = None,
        adaptive: Adaptive | None = None,
        cap: Rate | None = None,
    ) -> None:
        """Decide by those that are given."""
        self._rules = rules
        self._remote = remote
        self._adaptive = adaptive
        self._cap = cap

    @property
    def adaptive_ratio(self) -> float | None:
        """The ratio that the adaptive mode has come to."""
        return None if self._adaptive is None else self._adaptive.ratio

    def decide(
        self,
        trace: RequestTrace,
        route: bytes,
        target: bytes,
        method: bytes,
        names: Mapping[bytes, bytes],
        now_s: float,
    ) -> None:
        """Decide anew on a trace that the sampler has decided on; `route` is empty where none matches.

        What a parent has decided (`parent`) stays, which is not the same as having one: B3 knows decisions without
        ids, and ids without a decision.
        """
        sampled, reason = trace.sampled, trace.reason
        if reason != "parent":
            low_half = trace.trace_id[LOW_HALF]
            bound = None if self._rules is None else self._rules.find(route, target, method, names)
            if bound is not None:
                sampled, reason = low_half < bound, "rule"
            elif self._remote is not None:
                operation = span_name(method.decode("latin-1"), route.decode("latin-1"))
                sampled, reason = self._remote.decide(low_half, operation, now_s)
            elif self._adaptive is not None:
                sampled, reason = self._adaptive.decide(low_half, route, now_s)
        if sampled and self._cap is not None and not self._cap.take(now_s):
            sampled, reason = False, "cap"
        trace.sampled = sampled
        trace.reason = reason
        trace.flags = (trace.flags & RANDOM) | (SAMPLED if sampled else 0)


class Tail:
    """Which requests are exported for what became of them, though they were not sampled."""

    __slots__ = ("_clock", "_errors", "_rate", "slow_s")

    def __init__(
        self, *, errors: bool, slow_s: float, rate: Rate | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Take those that failed, and those that took `slow_s` (0: none), but no more than `rate` allows."""
        self._errors = errors
        self.slow_s = slow_s
        """From how many seconds on a request is slow; 0: none is."""
        self._rate = rate
        self._clock = clock

    def reason(self, status: int, outcome: str, duration_s: float) -> TailReason | None:
        """`error`, `slow`, or None: it is not exported. For a request of a traced node that was not sampled.

        An error is a status of the 5xx class or an outcome that the origin or the node is to blame for, also behind a
        status of success. A client that leaves, is refused or dawdles makes none.
        """
        if self._errors and (
            status >= _SERVER_ERROR
            or outcome in ("origin_error", "lost")
            or (outcome == "timeout" and status != _REQUEST_TIMEOUT)
        ):
            found: TailReason = "error"
        elif self.slow_s and duration_s >= self.slow_s:
            found = "slow"
        else:
            return None
        return found if self._rate is None or self._rate.take(self._clock()) else None
