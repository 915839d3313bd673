"""The open-loop load: requests at a constant rate, whether or not the server keeps up; `python -m bench.openloop`.

wrk waits for an answer before it sends the next request, so a server that stalls is asked less and its stall is
counted once: coordinated omission. Here request i is due at start + i / rate. If no connection is free then, it waits
in line, and its latency counts from when it was due, as its user would. What the generator itself adds is told apart:
`lag` is how late a request was sent although a connection was free.

No asyncio: its timers are whole milliseconds, more than the latencies to be measured. One epoll set, sockets that
don't block, select() for its microseconds, and a turn of busy polling before each due time. A process of its own,
pinned to the load's core.
"""

import argparse
import gc
import itertools
import json
import math
import re
import select
import socket
import time
from array import array
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

CONTENT_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)
SPIN_SECONDS = 60e-6  # waking up from a sleep takes about this long
DRAIN_SECONDS = 5.0
RECEIVE_BYTES = 256 * 1024


def percentile(ordered: Sequence[float], share: float) -> float:
    """The nearest-rank percentile of values in order; 0 if there are none."""
    return ordered[max(0, math.ceil(len(ordered) * share) - 1)] if ordered else 0.0


def answer_size(received: bytes) -> int | None:
    """How long the answer is whose beginning this is; None while its head is incomplete."""
    head_end = received.find(b"\r\n\r\n")
    if head_end < 0:
        return None
    length = CONTENT_LENGTH.search(received, 0, head_end)
    if length is None:
        raise ValueError("an answer without Content-Length")
    return head_end + 4 + int(length[1])


def varied(path: str, variety: int) -> list[str]:
    """So many paths that differ in their query; 0 for the path itself."""
    return [f"{path}?{number}" for number in range(variety)] or [path]


class Connection:
    """One keep-alive connection with at most one request under way."""

    __slots__ = ("due", "received", "sock")

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.setblocking(False)
        self.due = 0.0
        self.received = b""

    def finished(self) -> bool:
        """Takes what has come; True once the answer is whole. Raises ConnectionError if the server closed, ValueError
        if this is no good answer."""
        data = self.sock.recv(RECEIVE_BYTES)
        if not data:
            raise ConnectionError("the server closed the connection")
        if self.received:
            data = self.received + data
        size = answer_size(data)
        if size is None or len(data) < size:
            self.received = data
            return False
        if len(data) > size or data[9:12] != b"200":
            raise ValueError(data[:100])
        self.received = b""
        return True


@dataclass(slots=True)
class Tally:
    """Latencies in seconds, from when a request was due, and the generator's own lag."""

    latencies: "array[float]" = field(default_factory=lambda: array("d"))
    dues: "array[float]" = field(default_factory=lambda: array("d"))  # of the same requests, by the monotonic clock
    lags: "array[float]" = field(default_factory=lambda: array("d"))
    failed: int = 0
    unanswered: int = 0
    seconds: float = 0.0  # from the first due time to the last answer

    def summary(self, rate: float) -> dict[str, float]:
        """The figures in the form in which the parent process reads them."""
        latencies, lags = sorted(self.latencies), sorted(self.lags)
        marks = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999, "max": 1.0}
        told = {name: percentile(latencies, share) * 1000 for name, share in marks.items()}
        return told | {
            "requests": len(latencies),
            "asked_rate": rate,
            "seconds": self.seconds,
            "failed": self.failed,
            "unanswered": self.unanswered,
            "lag_p99": percentile(lags, 0.99) * 1000,
        }


class Generator:
    """The loop: what is due goes out on a free connection, what has come is counted."""

    def __init__(self, port: int, path: str, rate: float, connections: int, variety: int = 0) -> None:
        """`variety`: so many URLs in turn, which differ in their query."""
        self.port = port
        self.rate = rate
        self.requests = itertools.cycle(
            f"GET {one} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode() for one in varied(path, variety)
        )
        self.tally = Tally()
        self.epoll = select.epoll()
        self.by_fd: dict[int, Connection] = {}
        self.free: deque[Connection] = deque()
        for _ in range(connections):
            self.open()

    def open(self) -> None:
        """One more connection, free."""
        connection = Connection(self.port)
        self.by_fd[connection.sock.fileno()] = connection
        self.epoll.register(connection.sock, select.EPOLLIN)
        self.free.append(connection)

    def run(self, seconds: float) -> Tally:
        """Sends for so long, then waits for the last answers."""
        total = int(self.rate * seconds)
        interval = 1 / self.rate
        clock, poll = time.perf_counter, self.epoll.poll
        begin = clock() + 0.01
        sent = 0
        freed = begin  # when a connection last became free after all had been in use
        while sent < total:
            now = clock()
            due = begin + sent * interval
            starved = not self.free
            if not starved and due <= now:
                self.send(due, now - max(due, freed))
                sent += 1
            elif (wait := 0.05 if starved else due - now - SPIN_SECONDS) > 0:
                select.select([self.epoll.fileno()], [], [], wait)
            for fd, _ in poll(0):
                self.take(self.by_fd[fd])
            if starved and self.free:
                freed = clock()
        deadline = clock() + DRAIN_SECONDS
        while len(self.free) < len(self.by_fd) and clock() < deadline:
            for fd, _ in poll(0.05):
                self.take(self.by_fd[fd])
        self.tally.unanswered = len(self.by_fd) - len(self.free)
        self.tally.seconds = clock() - begin
        return self.tally

    def send(self, due: float, lag: float) -> None:
        """Sends the request that was due at that time on the connection that rested longest."""
        connection = self.free.popleft()
        connection.due = due
        self.tally.lags.append(lag)
        try:
            connection.sock.send(next(self.requests))
        except OSError:
            self.replace(connection)

    def take(self, connection: Connection) -> None:
        """Takes what has come on a connection and counts the answer if it is whole."""
        try:
            if connection.finished():
                self.tally.latencies.append(time.perf_counter() - connection.due)
                self.tally.dues.append(connection.due)
                self.free.append(connection)
        except (OSError, ValueError):
            self.replace(connection)

    def replace(self, connection: Connection) -> None:
        """A failed request; its connection is of no more use."""
        self.tally.failed += 1
        del self.by_fd[connection.sock.fileno()]
        if connection in self.free:
            self.free.remove(connection)
        self.epoll.unregister(connection.sock)
        connection.sock.close()
        self.open()


def main() -> None:
    """Prints one line of JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench.openloop", description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("path")
    parser.add_argument("--rate", type=float, required=True, help="requests per second")
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--variety", type=int, default=0, help="so many URLs in turn, not one")
    parser.add_argument("--each", action="store_true", help="tell when each request was due, and its latency, too")
    options = parser.parse_args()
    generator = Generator(options.port, options.path, options.rate, options.connections, options.variety)
    gc.disable()
    tally = generator.run(options.seconds)
    each = {"each": list(zip(tally.dues, tally.latencies, strict=True))} if options.each else {}
    print(json.dumps(tally.summary(options.rate) | each))


if __name__ == "__main__":
    main()
