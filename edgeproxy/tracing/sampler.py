"""The head decision: is a trace recorded?

May know: OpenTelemetry's sampler words and the rules of its TraceIdRatioBased and ParentBased. Must not: know headers,
spans or export, or remember anything from one decision to the next.

Every kind comes down to two facts: the text that the low half of a sampled trace id sorts below, and whether a remote
parent's decision goes before it.
"""

from enum import IntEnum
from typing import Self

LOW_HALF = slice(16, None)
"""The half of a trace id that the SDKs' TraceIdRatioBased compares."""

_LOW_HALF_LIMIT = 1 << 64
_ABOVE_ALL = "g"  # sorts after every hex digit
_BELOW_ALL = ""


class SamplerKind(IntEnum):
    """OpenTelemetry's standard samplers. The numbers are a contract: they stand in the control page."""

    ALWAYS_OFF = 0
    ALWAYS_ON = 1
    TRACEIDRATIO = 2
    PARENTBASED_ALWAYS_OFF = 3
    PARENTBASED_ALWAYS_ON = 4
    PARENTBASED_TRACEIDRATIO = 5

    @property
    def word(self) -> str:
        """Its name in OTEL_TRACES_SAMPLER and in the configuration."""
        return self.name.lower()

    @classmethod
    def from_word(cls, word: str) -> Self:
        """The kind of that name; ValueError names those there are."""
        for kind in cls:
            if kind.word == word:
                return kind
        raise ValueError(f"{word!r} is no sampler: allowed are {', '.join(kind.word for kind in cls)}")


_REASONS = {
    kind: word
    for word, kinds in {
        "always_off": (SamplerKind.ALWAYS_OFF, SamplerKind.PARENTBASED_ALWAYS_OFF),
        "always_on": (SamplerKind.ALWAYS_ON, SamplerKind.PARENTBASED_ALWAYS_ON),
        "ratio": (SamplerKind.TRACEIDRATIO, SamplerKind.PARENTBASED_TRACEIDRATIO),
    }.items()
    for kind in kinds
}


class Sampler:
    """A sampler of one kind and ratio. The same trace id gets the same decision here and in every SDK."""

    __slots__ = ("bound", "kind", "parent_based", "ratio", "reason")

    def __init__(self, kind: SamplerKind, ratio: float) -> None:
        self.kind = kind
        self.ratio = ratio
        self.parent_based = kind >= SamplerKind.PARENTBASED_ALWAYS_OFF
        self.bound = _bound(kind, ratio)
        self.reason = _REASONS[kind]
        """Why it decides as it does about a trace that begins here."""

    def minted(self, trace_id: str) -> bool:
        """Whether to sample a trace that begins here."""
        return trace_id[LOW_HALF] < self.bound

    def continued(self, trace_id: str, parent_sampled: bool) -> bool:
        """Whether to sample a trace that came with a remote parent."""
        return parent_sampled if self.parent_based else trace_id[LOW_HALF] < self.bound


def _bound(kind: SamplerKind, ratio: float) -> str:
    if not 0.0 <= ratio <= 1.0:
        raise ValueError(f"{ratio!r} is no sampling ratio: allowed is 0 to 1")
    if kind in (SamplerKind.ALWAYS_ON, SamplerKind.PARENTBASED_ALWAYS_ON):
        return _ABOVE_ALL
    if kind in (SamplerKind.ALWAYS_OFF, SamplerKind.PARENTBASED_ALWAYS_OFF):
        return _BELOW_ALL
    limit = round(ratio * _LOW_HALF_LIMIT)
    return f"{limit:016x}" if limit < _LOW_HALF_LIMIT else _ABOVE_ALL
