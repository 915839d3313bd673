"""The crowd: many clients that ask for one object at once; `python -m bench.crowd`.

All connections are open before the first request goes out, and each takes its answer as it comes. An answer counts
when all of it has come and is what it should be. A process of its own, pinned to the load's core.
"""

import argparse
import contextlib
import gc
import json
import resource
import select
import socket
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from bench.openloop import RECEIVE_BYTES, answer_size, percentile

SPARE_FILES = 64


@dataclass(slots=True)
class Client:
    """One connection, one request."""

    sock: socket.socket
    sent: float = 0.0
    head: bytes = b""
    left: int = -1
    """Bytes of the body still to come; -1 while the head is incomplete."""
    checksum: int = 0

    def take(self, data: bytes) -> bool:
        """Takes what has come; True once the answer is whole. Raises ValueError if it is no good answer."""
        if not data:
            raise ValueError("the server closed the connection")
        if self.left < 0:
            self.head += data
            size = answer_size(self.head)
            if size is None:
                return False
            if self.head[9:12] != b"200":
                raise ValueError(self.head[:100])
            data = self.head[self.head.index(b"\r\n\r\n") + 4 :]
            self.left = size - (len(self.head) - len(data))
        self.left -= len(data)
        self.checksum = zlib.crc32(data, self.checksum)
        if self.left < 0:
            raise ValueError("more than one answer")
        return self.left == 0


class Crowd:
    """So many clients of one server."""

    def __init__(self, port: int, count: int) -> None:
        """Connects all of them."""
        now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, max(now, count + SPARE_FILES)), most))
        self._clients = {}
        self._poll = select.epoll()
        self.latencies: list[float] = []
        self.failed = 0
        for _ in range(count):
            sock = socket.create_connection(("127.0.0.1", port))
            self._clients[sock.fileno()] = Client(sock)
            self._poll.register(sock, select.EPOLLIN)
            sock.setblocking(False)

    def ask(self, request: bytes, checksum: int, seconds: float) -> float:
        """Sends the request on all connections, and takes answers for at most so long; says how long it took."""
        began = time.perf_counter()
        for client in list(self._clients.values()):
            client.sent = time.perf_counter()
            with contextlib.suppress(OSError):  # it shows when its answer is read
                client.sock.send(request)
        while self._clients and time.perf_counter() - began < seconds:
            for fd, _ in self._poll.poll(0.1):
                self._take(self._clients[fd], checksum)
        return time.perf_counter() - began

    @property
    def unanswered(self) -> int:
        """How many wait still."""
        return len(self._clients)

    def _take(self, client: Client, checksum: int) -> None:
        try:
            if not client.take(client.sock.recv(RECEIVE_BYTES)):
                return
            if client.checksum == checksum:
                self.latencies.append(time.perf_counter() - client.sent)
            else:
                self.failed += 1
        except (OSError, ValueError):
            self.failed += 1
        self._poll.unregister(client.sock)
        del self._clients[client.sock.fileno()]
        client.sock.close()


def summary(latencies: Sequence[float]) -> dict[str, float]:
    """Percentiles in milliseconds."""
    ordered = sorted(latencies)
    marks = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
    return {name: percentile(ordered, share) * 1000 for name, share in marks.items()}


def main() -> None:
    """Prints one line of JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench.crowd", description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("path")
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--checksum", type=int, required=True, help="CRC-32 of the body that all must get")
    parser.add_argument("--seconds", type=float, default=30.0, help="how long to wait for the last answer")
    options = parser.parse_args()
    crowd = Crowd(options.port, options.clients)
    gc.disable()
    request = f"GET {options.path} HTTP/1.1\r\nHost: 127.0.0.1:{options.port}\r\n\r\n".encode()
    seconds = crowd.ask(request, options.checksum, options.seconds)
    told = {"answered": len(crowd.latencies), "failed": crowd.failed, "unanswered": crowd.unanswered}
    print(json.dumps(told | {"seconds": seconds, "latency_ms": summary(crowd.latencies)}))


if __name__ == "__main__":
    main()
