"""What can change while a worker runs, as the request path sees it: a number to compare, and what to read when it has
moved.
"""

from typing import Protocol

from edgeproxy.tracing import SamplerKind
from edgeproxy.tracing.policy import Head, Tail


class TracingState(Protocol):
    """Tracing as it is to be done now."""

    @property
    def enabled(self) -> bool:
        """Whether requests are traced."""

    @property
    def sampler(self) -> SamplerKind:
        """Who decides which are sampled."""

    @property
    def ratio(self) -> float:
        """The sampler's ratio, 0 to 1."""

    @property
    def head(self) -> Head | None:
        """What decides on top of the sampler; None where the sampler is all there is."""

    @property
    def tail(self) -> Tail | None:
        """What is exported for what became of it; None where nothing is."""


class Settings(Protocol):
    """Where the settings come from."""

    epoch: "memoryview[int]"
    """One number in shared memory that moves with every change."""

    def read(self) -> tuple[int, TracingState]:
        """The settings, and the epoch that they are of."""
