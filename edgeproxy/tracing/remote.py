"""Sampling strategies as Jaeger's collectors and agents give them, JSON: what they say, and deciding by them. Pure.

Known are `PROBABILISTIC`, `RATE_LIMITING` and, where there are any, `operationSampling`, which goes before both, as in
Jaeger's clients: a probability for each operation, none of which gets less than the lower bound of traces a second if
it has them, or more than the upper. An operation is a root span's name, "METHOD route". Fields that are not known here
are passed over, those that are must be what they should.
"""

import math
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from edgeproxy.tracing.rate import Allowance, Rate
from edgeproxy.tracing.sampler import Sampler, SamplerKind

OPERATIONS_MAX = 2000
"""How many operations have bounds of their own; Jaeger's clients have the same limit."""

type Probability = Annotated[float, Meta(ge=0, le=1)]
type PerSecond = Annotated[float, Meta(ge=0)]


class StrategyError(ValueError):
    """What came is no sampling strategy; the message says why."""


class Probabilistic(Struct, frozen=True, rename="camel"):
    """A share of all traces."""

    sampling_rate: Probability = 0.0  # what protobuf's JSON leaves out where it is 0


class RateLimiting(Struct, frozen=True, rename="camel"):
    """So many a second."""

    max_traces_per_second: PerSecond = 0.0


class OperationStrategy(Struct, frozen=True, rename="camel"):
    """What holds for one operation."""

    operation: str
    probabilistic_sampling: Probabilistic = Probabilistic()


class OperationSampling(Struct, frozen=True, rename="camel"):
    """What holds by operation."""

    default_sampling_probability: Probability = 0.0
    default_lower_bound_traces_per_second: PerSecond = 0.0
    default_upper_bound_traces_per_second: PerSecond | None = None
    per_operation_strategies: tuple[OperationStrategy, ...] | None = ()


class Strategies(Struct, frozen=True, rename="camel"):
    """An answer of `/sampling?service=…`."""

    strategy_type: Literal["PROBABILISTIC", "RATE_LIMITING", 0, 1] = "PROBABILISTIC"
    probabilistic_sampling: Probabilistic | None = None
    rate_limiting_sampling: RateLimiting | None = None
    operation_sampling: OperationSampling | None = None


def parse(data: bytes | str) -> Strategies:
    """What an answer says. Raises StrategyError if it is no JSON, or not such an answer."""
    try:
        strategies = msgspec.json.decode(data, type=Strategies)
    except msgspec.ValidationError as error:
        raise StrategyError(f"no sampling strategies: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise StrategyError(f"no JSON: {error}") from None
    except RecursionError:
        raise StrategyError("no sampling strategies: it is nested too deeply") from None
    if strategies.operation_sampling is None:
        limits = strategies.strategy_type in ("RATE_LIMITING", 1)
        missing = strategies.rate_limiting_sampling if limits else strategies.probabilistic_sampling
        if missing is None:
            name = "rateLimitingSampling" if limits else "probabilisticSampling"
            raise StrategyError(f"no sampling strategies: Object missing required field `{name}`")
    return strategies


class Remote:
    """Decides by strategies; rates are for `share` of a node, 1 being all of it."""

    __slots__ = ("_bounds", "_default", "_limit", "_lower", "_operations", "_share", "_strategies", "_upper")

    def __init__(self, strategies: Strategies, share: float = 1.0) -> None:
        """Take what they say, and begin to count."""
        self._share = share
        self._strategies = strategies
        self._limit: Rate | None = None
        self._lower, self._upper = 0.0, math.inf
        self._bounds: dict[str, str] = {}
        self._operations: dict[str, tuple[Allowance | None, Rate | None]] = {}
        by_operation = strategies.operation_sampling
        if by_operation is not None:
            self._default = _bound(by_operation.default_sampling_probability)
            self._lower = by_operation.default_lower_bound_traces_per_second
            if by_operation.default_upper_bound_traces_per_second is not None:
                self._upper = by_operation.default_upper_bound_traces_per_second
            self._bounds = {
                one.operation: _bound(one.probabilistic_sampling.sampling_rate)
                for one in by_operation.per_operation_strategies or ()
            }
        elif strategies.strategy_type in ("RATE_LIMITING", 1):
            assert strategies.rate_limiting_sampling is not None  # noqa: S101  parse() has looked
            self._default = _bound(1.0)
            self._limit = Rate(strategies.rate_limiting_sampling.max_traces_per_second * share)
        else:
            assert strategies.probabilistic_sampling is not None  # noqa: S101  parse() has looked
            self._default = _bound(strategies.probabilistic_sampling.sampling_rate)

    def decide(self, low_half: str, operation: str, now_s: float) -> tuple[bool, str]:
        """Whether to sample the trace whose id has this low half, and why: `remote`, or `floor` for a lower bound."""
        if self._limit is not None:
            return self._limit.take(now_s), "remote"
        sampled = low_half < self._bounds.get(operation, self._default)
        lower, upper = self._rates_of(operation)
        if sampled:
            if upper is not None and not upper.take(now_s):
                return False, "remote"
            if lower is not None:
                lower.take(now_s)
            return True, "remote"
        if lower is not None and lower.take(now_s):
            return True, "floor"
        return False, "remote"

    def _rates_of(self, operation: str) -> tuple[Allowance | None, Rate | None]:
        rates = self._operations.get(operation)
        if rates is None:
            if len(self._operations) >= OPERATIONS_MAX:
                return None, None
            lower = Allowance(self._lower * self._share) if self._lower else None
            upper = Rate(self._upper * self._share) if math.isfinite(self._upper) else None
            rates = self._operations[operation] = (lower, upper)
        return rates


def _bound(ratio: float) -> str:
    return Sampler(SamplerKind.TRACEIDRATIO, ratio).bound
