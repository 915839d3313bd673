"""Waiting for what another thread or process is about to do: asking again until a deadline, never just sleeping."""

import time
from collections.abc import Callable

POLL_S = 0.005
PATIENCE_S = 20.0
"""Long enough for a busy machine; a test that passes never waits that long."""


def until[T](condition: Callable[[], T | None], what: str = "", *, timeout: float = PATIENCE_S) -> T:
    """Ask until the answer is true, and return it; AssertionError that names `what` after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > deadline:
            name = what or getattr(condition, "__name__", "condition")
            raise AssertionError(f"waited {timeout} s in vain for: {name}; last answer: {answer!r}")
        time.sleep(POLL_S)
