"""Crowds: clients that ask for the same at once, an origin that answers them step by step, and what is under way.

held = Held(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n", b"01234")
edge["app"].on(path, held)
leader = ask(edge, path)
edge["app"].wait_for(path)
follower = ask(edge, path)
under_way(edge, path, collapsed=1)
held.go()
"""

import contextlib
import queue
import select
import threading
from collections import Counter

from edgeproxy.node.status import read_status
from tests.proxy.edges import Edge
from tests.support import Client, Conversation, Handler, Record, Response, request, silent, until
from tests.support.origin import End, Stopped

SLOTS = 2000
"""More than any test has in flight."""


class Held:
    """A handler whose first request is answered with pieces when the test says so, and all later ones by `later`."""

    def __init__(self, *pieces: bytes, later: Handler = silent) -> None:
        """Hold these pieces back until `go` or `begin`."""
        self.left = threading.Event()
        """Set when the edge has closed the connection on which it was answered."""
        self._pieces = pieces
        self._later = later
        self._steps: queue.SimpleQueue[bytes | End] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._taken = False

    def go(self, how: End = "keep") -> None:
        """Send the pieces, which are the whole response."""
        self.send(*self._pieces)
        self.end(how)

    def begin(self) -> None:
        """Send the pieces; more follow."""
        self.send(*self._pieces)

    def send(self, *pieces: bytes) -> None:
        """Send more."""
        for piece in pieces:
            self._steps.put(piece)

    def end(self, how: End = "keep") -> None:
        """The response is all sent, or breaks off."""
        self._steps.put(how)

    def __call__(self, talk: Conversation) -> None:
        with self._lock:
            first, self._taken = not self._taken, True
        if not first:
            self._later(talk)
            return
        while isinstance(step := self._next(talk), bytes):
            with contextlib.suppress(OSError):
                talk.send(step)
        talk.end = step

    def _next(self, talk: Conversation) -> bytes | End:
        hung_up = select.poll()
        hung_up.register(talk.stream.sock, select.POLLRDHUP)
        while True:
            try:
                return self._steps.get(timeout=0.02)
            except queue.Empty:
                if talk.origin.stopping:
                    raise Stopped from None
                if hung_up.poll(0):
                    self.left.set()


def ask(edge: Edge, path: str, *fields: str, version: str = "1.1", receive_buffer: int = 0, source: str = "") -> Client:
    """A connection on which a request has been sent."""
    asked = request(path, *fields).replace(b" HTTP/1.1\r\n", f" HTTP/{version}\r\n".encode(), 1)
    return edge.connect(receive_buffer=receive_buffer, source=source).send(asked)


def under_way(edge: Edge, path: str, **stages: int) -> None:
    """Wait until exactly so many requests for a path are in flight in these stages; none given: none at all."""

    def found() -> bool:
        requests = read_status(edge.node.runtime_dir, oldest=SLOTS).requests
        return Counter(one.stage for one in requests if one.path == path) == stages

    until(found, f"requests for {path} in flight: {stages}")


def lines_of(edge: Edge, path: str, count: int) -> list[Record]:
    """The log lines of a path, when no request for it is in flight any more and all that is published is written."""
    under_way(edge, path)
    until(lambda: not any(worker.ledger_bytes for worker in edge.node.status().workers), "the log to be written")
    found = [line for line in edge.node.lines() if line["path"] == path]
    assert len(found) == count, [(line["cache"], line["outcome"], line["error"]) for line in found]
    return found


def words(responses: list[Response]) -> Counter[str]:
    """How often each word stands in X-Cache."""
    return Counter(response["x-cache"] for response in responses)


def answers(clients: list[Client]) -> list[Response]:
    """Every client's response, and the end of the connections."""
    found = [client.response() for client in clients]
    for client in clients:
        client.close()
    return found
