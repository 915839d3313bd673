"""Load on a node while something is done to it: clients that notice each request that is refused or cut off.

with Load(node.port) as load:
    ...
assert not load.failures
assert load.answered
"""

import threading
from collections.abc import Callable
from typing import Self

from tests.support import Client, Cut, until

THREADS = 6
PAUSE_S = 0.02
"""What a client waits between two requests: enough that the node is busy, and leaves the machine to other tests."""


class Load:
    """Clients that ask again and again, each request on a connection of its own or all on one that is kept."""

    def __init__(self, port: int, *, keep_alive: bool = False, path: str = "/") -> None:
        """Prepare; the context is the load."""
        self.failures: list[str] = []
        self.answered = 0
        self._port = port
        self._path = path
        self._stop = threading.Event()
        work = self._kept if keep_alive else self._single
        self._threads = [threading.Thread(target=self._guard, args=(work,), daemon=True) for _ in range(THREADS)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        self.more(10 * THREADS)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)

    def more(self, requests: int) -> None:
        """Wait until that many more requests were answered, or one failed."""
        goal = self.answered + requests
        until(lambda: self.answered >= goal or self.failures, f"{requests} more requests")

    def _guard(self, work: Callable[[], None]) -> None:
        while not self._stop.is_set() and not self.failures:
            try:
                work()
                self._stop.wait(PAUSE_S)
            except (OSError, AssertionError) as error:
                self.failures.append(repr(error))

    def _single(self) -> None:
        with Client(self._port) as client:
            self._note(client.get(self._path, "Connection: close").status)

    def _kept(self) -> None:
        """As HTTP has it (RFC 9112, 9.3.1): a kept connection may end between two requests, a new one may not."""
        with Client(self._port) as client:
            self._note(client.get(self._path).status)
            while not self._stop.is_set():
                try:
                    response = client.get(self._path)
                except (OSError, Cut):
                    if client.stream.buffer:
                        raise
                    return
                self._note(response.status)
                self._stop.wait(PAUSE_S)
                if (response.get("connection") or "").lower() == "close":
                    return

    def _note(self, status: int) -> None:
        assert status == 200, status
        self.answered += 1
