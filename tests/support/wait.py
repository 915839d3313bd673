"""Waiting for what another thread or process is about to do: asking again until a deadline, never just sleeping."""

import time
from collections.abc import Callable

POLL_S = 0.005
MAX_POLL_S = 0.05
PATIENCE_S = 20.0
"""Long enough for a busy machine; a test that passes never waits that long."""


def until[T](condition: Callable[[], T | None], what: str = "", *, timeout: float = PATIENCE_S) -> T:
    """Ask until the answer is true, and return it; AssertionError that names `what` after `timeout` seconds."""
    begun = time.monotonic()
    while True:
        answer = condition()
        if answer:
            return answer
        waited_s = time.monotonic() - begun
        if waited_s > timeout:
            name = what or getattr(condition, "__name__", "condition")
            raise AssertionError(f"waited {timeout} s in vain for: {name}; last answer: {answer!r}")
        # A twentieth longer at most: who asks on and on takes the processor from what is waited for.
        time.sleep(min(max(POLL_S, waited_s / 20), MAX_POLL_S))
