"""An HTTP/1 client that sends exactly the bytes it is told to, and reads exactly those of the response.

    with Client(node.port) as client:
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.response().status == 200

From a shell: `python -m tests.support.client PORT 'GET / HTTP/1.1' 'Host: a'` prints the exchange.
"""

import json
import socket
import struct
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Self

import httpx

from tests.support.messages import Cut, Message, Stream

TIMEOUT_S = 20.0


@dataclass
class Response(Message):
    """A final response, with the 1xx responses that came before it."""

    status: int = 0
    reason: str = ""
    version: str = ""
    interim: list["Response"] = field(default_factory=list)

    @property
    def problem(self) -> dict[str, Any]:
        """The problem details (RFC 9457) in the body."""
        assert self["content-type"] == "application/problem+json", self.raw_head
        found = json.loads(self.body)
        assert isinstance(found, dict)
        return found

    @property
    def trace_id(self) -> str:
        """The trace id that the node sent along."""
        return self["x-trace-id"]


class Client:
    """One connection to a node."""

    def __init__(self, port: int, *, timeout: float = TIMEOUT_S, receive_buffer: int = 0, source: str = "") -> None:
        """Connect. `receive_buffer` bytes (0 = the system's choice) bound what the kernel takes for a slow reader."""
        self.sock = socket.socket()
        self.sock.settimeout(timeout)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if receive_buffer:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        if source:
            self.sock.bind((source, 0))
        self.sock.connect(("127.0.0.1", port))
        self.stream = Stream(self.sock)

    def send(self, data: bytes) -> Self:
        """Send bytes as they are."""
        self.sock.sendall(data)
        return self

    def send_in_pieces(self, pieces: Iterable[bytes]) -> Self:
        """Send each piece in a segment of its own."""
        for piece in pieces:
            self.sock.sendall(piece)
        return self

    def get(self, target: str, *fields: str, method: str = "GET", body: bytes = b"") -> Response:
        """Send an ordinary request and read its response."""
        return self.send(request(target, *fields, method=method, body=body)).response(method)

    def response(self, method: str = "GET") -> Response:
        """Read the next final response. `method` is its request's: HEAD has no body."""
        interim: list[Response] = []
        while True:
            found = self.head()
            if found.status >= 200:
                break
            interim.append(found)
        found.interim = interim
        self.stream.response_body(found, found.status, method)
        return found

    def head(self) -> Response:
        """Read the next head, final or 1xx, and leave its body unread."""
        message = self.stream.message()
        if message is None:
            raise Cut("the connection was closed where a response was due")
        version, status, reason = message.start.decode("latin-1").split(" ", 2)
        assert version == "HTTP/1.1", message.start
        return Response(
            message.raw_head, message.start, message.fields, status=int(status), reason=reason, version=version
        )

    def rest(self) -> bytes:
        """All that still comes until the node ends its side."""
        return self.stream.rest()

    def is_ended(self) -> bool:
        """Wait for the node to end the connection in order; False when something else comes first."""
        return not self.stream.buffer and not self.stream.more()

    def half_close(self) -> Self:
        """End this side; responses may still come."""
        self.sock.shutdown(socket.SHUT_WR)
        return self

    def close(self) -> None:
        """Close in order."""
        self.sock.close()

    def reset(self) -> None:
        """Vanish: the node gets a TCP reset."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def request(target: str, *fields: str, method: str = "GET", body: bytes = b"", host: str = "edge.test") -> bytes:
    """An ordinary HTTP/1.1 request; a body gets its Content-Length."""
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}", *fields]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def http_client(url: str, **options: Any) -> httpx.Client:
    """An httpx client for a node's url that takes nothing from the environment.

    The url is plain HTTP: the certificates of all authorities, which take a client longer to read than a hundred
    requests, are left unread.
    """
    return httpx.Client(**{"base_url": url, "trust_env": False, "timeout": TIMEOUT_S, "verify": False, **options})


if __name__ == "__main__":
    with Client(int(sys.argv[1])) as shown:
        shown.send("\r\n".join([*sys.argv[2:], "", ""]).encode())
        answer = shown.response(sys.argv[2].partition(" ")[0])
        sys.stdout.write((answer.raw_head + answer.raw_body).decode("latin-1"))
