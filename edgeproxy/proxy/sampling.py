"""From the tracing settings to what decides by them: the parts of `tracing` put together for one worker.

A part whose own settings have not changed is kept over a change of others: a cap goes on counting, and the adaptive
ratio stays where it was.
"""

from typing import NamedTuple

import structlog

from edgeproxy.config import TracingSettings
from edgeproxy.config.sampling import Sampling, SamplingRule
from edgeproxy.proxy.routing import matcher
from edgeproxy.tracing.adaptive import Adaptive
from edgeproxy.tracing.policy import Head, Tail
from edgeproxy.tracing.rate import Rate, share
from edgeproxy.tracing.remote import Remote, StrategyError, parse
from edgeproxy.tracing.rules import Rule, Rules
from edgeproxy.tracing.sampler import SamplerKind


class State(NamedTuple):
    """Tracing as it is to be done now (`settings.TracingState`)."""

    enabled: bool
    sampler: SamplerKind
    ratio: float
    head: Head | None = None
    tail: Tail | None = None


class Policies:
    """One worker's, whose rates are its share of the node's."""

    def __init__(self, worker: int, workers: int) -> None:
        """Decide for the worker of that index among so many."""
        self._worker = worker
        self._workers = max(workers, worker + 1)
        self._adaptive: tuple[tuple[float, float], Adaptive] | None = None
        self._remote: tuple[str, Remote | None] = ("", None)
        self._caps: tuple[float, Rate | None, Rate | None] = (0.0, None, None)

    def of(self, settings: TracingSettings) -> State:
        """What decides by these settings; nothing more than the sampler where they have no more."""
        kind = SamplerKind.from_word(settings.sampler)
        sampling = settings.sampling
        if not settings.enabled:
            return State(False, kind, settings.ratio)
        _, cap, tail_cap = self._capped(sampling.max_per_second)
        rules = Rules([_rule(rule) for rule in sampling.rules]) if sampling.rules else None
        remote = self._remotely(settings.strategies)
        adaptive = self._adapting(sampling)
        head = None
        if rules or remote or adaptive or cap:
            head = Head(rules=rules, remote=remote, adaptive=adaptive, cap=cap)
        tail = None
        if sampling.errors or sampling.slow_ms:
            tail = Tail(errors=sampling.errors, slow_s=sampling.slow_ms / 1000, rate=tail_cap)
        return State(True, kind, settings.ratio, head, tail)

    def _capped(self, per_second: float) -> tuple[float, Rate | None, Rate | None]:
        if self._caps[0] != per_second:
            mine = share(per_second, self._worker, self._workers)
            self._caps = (per_second, Rate(mine), Rate(mine)) if per_second else (0.0, None, None)
        return self._caps

    def _adapting(self, sampling: Sampling) -> Adaptive | None:
        wanted = (sampling.adaptive_target, sampling.adaptive_floor)
        if not sampling.adaptive_target:
            self._adaptive = None
        elif self._adaptive is None or self._adaptive[0] != wanted:
            self._adaptive = wanted, Adaptive(wanted[0] / self._workers, wanted[1] / self._workers)
        return None if self._adaptive is None else self._adaptive[1]

    def _remotely(self, strategies: str) -> Remote | None:
        if self._remote[0] != strategies:
            self._remote = strategies, None
            if strategies:
                try:
                    self._remote = strategies, Remote(parse(strategies), 1 / self._workers)
                except StrategyError as error:
                    structlog.get_logger().error("strategies_unusable", error=str(error))
        return self._remote[1]


def _rule(rule: SamplingRule) -> Rule:
    return Rule(
        rule.ratio,
        route=rule.route.encode(),
        path=matcher(rule.path) if rule.path else None,
        method=rule.method.encode(),
        header=rule.header.encode(),
    )
