"""The head decision: is this trace recorded?

Knows: OpenTelemetry's sampler words and its TraceIdRatioBased and ParentBased rules. Must not: know headers, spans or export,
or keep any state between decisions.
"""

from enum import IntEnum

_ALL = "g"  # sorts after every hex digit
_NONE = ""  # sorts before every text


class SamplerKind(IntEnum):
    """OpenTelemetry's standard samplers; the numbers travel in the control page."""

    ALWAYS_OFF = 0
    ALWAYS_ON = 1
    TRACEIDRATIO = 2
    PARENTBASED_ALWAYS_OFF = 3
    PARENTBASED_ALWAYS_ON = 4
    PARENTBASED_TRACEIDRATIO = 5

    @property
    def word(self) -> str:
        """The word that OTEL_TRACES_SAMPLER and the configuration use."""
        return self.name.lower()

    @classmethod
    def from_word(cls, word: str) -> "SamplerKind":
        """The kind that OTEL_TRACES_SAMPLER or the configuration names; ValueError lists the words there are."""
        for kind in cls:
            if kind.word == word:
                return kind
        raise ValueError(f"unknown sampler {word!r}: one of {', '.join(kind.word for kind in cls)}")


class Sampler:
    """Decides by kind and ratio. Equal trace ids get equal decisions here and in every SDK."""

    __slots__ = ("bound", "kind", "parent_based", "ratio")

    def __init__(self, kind: SamplerKind, ratio: float) -> None:
        if not 0.0 <= ratio <= 1.0:
            raise ValueError(f"sampling ratio {ratio!r}: must be from 0 to 1")
        self.kind = kind
        self.ratio = ratio
        self.parent_based = kind >= SamplerKind.PARENTBASED_ALWAYS_OFF
        self.bound = _bound(kind, ratio)

    def minted(self, trace_id: str) -> bool:
        """Sample a trace that begins here?"""
        return trace_id[16:] < self.bound

    def continued(self, trace_id: str, parent_sampled: bool) -> bool:
        """Sample a trace that a remote parent began?"""
        return parent_sampled if self.parent_based else trace_id[16:] < self.bound


def _bound(kind: SamplerKind, ratio: float) -> str:
    """The hex text that the low half of a sampled trace id sorts below."""
    if kind in (SamplerKind.ALWAYS_ON, SamplerKind.PARENTBASED_ALWAYS_ON):
        return _ALL
    if kind in (SamplerKind.ALWAYS_OFF, SamplerKind.PARENTBASED_ALWAYS_OFF):
        return _NONE
    limit = round(ratio * (1 << 64))
    return _ALL if limit >= 1 << 64 else f"{limit:016x}"
