"""A worker's memory while something goes on: its size before, its peak, and what of it is its own.

The peak is the kernel's own (VmHWM, started anew), so nothing falls between samples. PSS, which shares out pages that
several processes map, has no peak in the kernel and is sampled.
"""

import contextlib
import threading
from collections.abc import Iterator

from bench import machine

SAMPLE_SECONDS = 0.05


def _pss(pid: int) -> int:
    return machine.memory_bytes(pid, "Pss", "smaps_rollup")


@contextlib.contextmanager
def watched(pid: int) -> Iterator[dict[str, int]]:
    """Fills the yielded dict when the block ends: rss_before, rss_peak, rss_after, pss_before, pss_peak, in bytes."""
    figures: dict[str, int] = {}
    exact = machine.reset_peak_memory(pid)
    figures["rss_before"] = machine.memory_bytes(pid)
    figures["pss_before"] = pss_peak = _pss(pid)
    rss_peak = figures["rss_before"]
    ended = threading.Event()

    def sample() -> None:
        nonlocal pss_peak, rss_peak
        while not ended.wait(SAMPLE_SECONDS):
            with contextlib.suppress(OSError):
                pss_peak = max(pss_peak, _pss(pid))
                rss_peak = max(rss_peak, machine.memory_bytes(pid))

    sampler = threading.Thread(target=sample, name="memory", daemon=True)
    sampler.start()
    try:
        yield figures
    finally:
        ended.set()
        sampler.join()
        with contextlib.suppress(OSError):
            figures["rss_after"] = machine.memory_bytes(pid)
            figures["rss_peak"] = machine.memory_bytes(pid, "VmHWM") if exact else max(rss_peak, figures["rss_after"])
            figures["pss_peak"] = max(pss_peak, _pss(pid))


def growth(figures: dict[str, int]) -> int:
    """How much larger the worker was at its peak than before; by RSS or PSS, whichever grew more."""
    return max(figures["rss_peak"] - figures["rss_before"], figures["pss_peak"] - figures["pss_before"])
