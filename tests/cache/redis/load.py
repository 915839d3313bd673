"""Load on nodes whose Redis is failing: clients that know what each response has to be, and notice any other.

origin.default = answer
with Load(node.port) as load:
    load.more()          # at least so many more requests, all answered
    cluster.nodes[0].kill()
assert not load.failures
"""

import os
import random
import threading
from collections.abc import Sequence
from itertools import count
from typing import Any, Self

from tests.support import Client, Conversation, Cut, Record, until

THREADS = 4
PAUSE_S = 0.005
"""What a client waits between two requests: the machine is left to other tests."""
HOT = [f"/hot/{number}" for number in range(24)]
"""What is asked for again and again; every master has some of it."""
_loads = count()


class Load:
    """Clients that keep their connections, and ask for a few URLs often and for others once."""

    def __init__(self, *ports: int) -> None:
        """Prepare, for nodes at these ports; the context is the load."""
        self.failures: list[str] = []
        self.answered = 0
        self._ports = ports
        self._name = next(_loads)
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._guard, args=(at,), daemon=True) for at in range(THREADS)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        self.more()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)

    def more(self, requests: int = 100) -> None:
        """Wait until that many more requests were answered."""
        goal = self.answered + requests
        until(lambda: self.answered >= goal or self.failures, f"{requests} more requests")
        assert not self.failures

    def _guard(self, number: int) -> None:
        dice = random.Random(number)
        cold = 0
        try:
            with Client(self._ports[number % len(self._ports)]) as client:
                while not self._stop.is_set():
                    if dice.random() < 0.75:
                        path = dice.choice(HOT)
                    else:
                        cold += 1
                        path = f"/cold/{self._name}/{number}/{cold}"
                    self._ask(client, path)
                    self._stop.wait(PAUSE_S)
        except (OSError, AssertionError, Cut) as error:
            self.failures.append(repr(error))

    def _ask(self, client: Client, path: str) -> None:
        response = client.get(path)
        assert response.status == 200, (path, response.status, response.body)
        assert response.body == body_of(path), (path, response.body)
        self.answered += 1


def body_of(path: str) -> bytes:
    """What the origin has for a path."""
    return f"this is {path}".encode() * 4


def answer(talk: Conversation) -> None:
    """Answer with what may be kept for long: an origin's handler."""
    talk.read_body()
    body = body_of(talk.request.target)
    fields = f"Cache-Control: max-age=600\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}"
    talk.send(f"HTTP/1.1 200 OK\r\n{fields}\r\n\r\n".encode() + body)


def operations(lines: Sequence[Record]) -> list[dict[str, Any]]:
    """What the store was asked for in records."""
    return [operation for line in lines for operation in line["store"] or []]


def is_busy() -> bool:
    """Whether other programs keep the nodes from running: then no time says anything."""
    return os.getloadavg()[0] > 2 * len(os.sched_getaffinity(0))
