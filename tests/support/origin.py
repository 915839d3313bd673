"""A scriptable HTTP/1 origin: each path has a handler that decides over every byte, and every request is recorded.

    with Origin() as origin:
        origin.on("/hello", reply(b"hi"))
        origin.on("/half", raw(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", then="close"))
        ...
        assert origin.requests[0]["via"] == "1.1 edgeproxy"

One thread a connection, so a handler may block: on `Event`s that the test sets, on reading a body slowly, for ever (it
ends when the origin stops). Paths that have no handler are answered with `echo`. From a shell:
`python -m tests.support.origin [PORT]` answers every request with its own head.
"""

import contextlib
import queue
import socket
import struct
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Self

from tests.support.messages import Broken, Message, Stream
from tests.support.wait import PATIENCE_S, until

End = Literal["keep", "close", "reset"]
"""What becomes of the connection behind a response: it waits for the next request, is closed in order, or reset."""


class Stopped(Exception):
    """The origin was stopped while a handler was at work."""


@dataclass
class Received(Message):
    """A request as it reached the origin."""

    connection: int = 0
    """Number of its connection, from 0, in the order accepted."""
    position: int = 0
    """Its place among the requests of that connection, from 0."""
    complete: bool = False
    """Whether head and body are both here."""

    @property
    def method(self) -> str:
        """The request method."""
        return self.start.split(b" ")[0].decode("latin-1")

    @property
    def target(self) -> str:
        """The request target."""
        return self.start.split(b" ")[1].decode("latin-1")


class Conversation:
    """One request on one connection, in a handler's hands."""

    def __init__(self, origin: "Origin", stream: Stream, request: Received) -> None:
        """Made by the origin for each request."""
        self.origin = origin
        self.request = request
        self.stream = stream
        self.end: End = "keep"

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.stream.sock.sendall(data)

    def read_body(self) -> bytes:
        """Read the whole body into the request; doing it again is harmless."""
        request = self.request
        if request.complete:
            return request.body
        if request.values("transfer-encoding"):
            self.stream.chunked_body(request)
        else:
            self.stream.sized_body(request, int(request.get("content-length") or 0))
        request.complete = True
        return request.body

    def receive(self, count: int = 65536) -> bytes:
        """Take in some raw bytes of the body and forget them: for uploads too large to keep. Empty at the end."""
        if not self.stream.buffer and not self.stream.more():
            return b""
        return self.stream.take(min(count, len(self.stream.buffer)))

    def wait(self, event: threading.Event) -> None:
        """Go on when the test sets the event; end when the origin is stopped."""
        while not event.wait(0.05):
            if self.origin.stopping:
                raise Stopped

    def wait_for_close(self) -> bool:
        """Wait until the edge closes or resets the connection; False if it sends something instead."""
        try:
            return not self.stream.buffer and not self.stream.more()
        except Broken:
            return True

    def close(self) -> None:
        """Close the connection in order, now."""
        self.end = "close"
        with contextlib.suppress(OSError):
            self.stream.sock.shutdown(socket.SHUT_RDWR)

    def reset(self) -> None:
        """Break the connection off with a TCP reset when the handler returns."""
        self.end = "reset"


Handler = Callable[[Conversation], None]


def reply(body: bytes = b"ok", *fields: str, status: str = "200 OK") -> Handler:
    """Answer with a body of stated length (HEAD gets its head only)."""
    lines = [f"HTTP/1.1 {status}", *fields, f"Content-Length: {len(body)}"]
    head = "\r\n".join([*lines, "", ""]).encode("latin-1")

    def handle(talk: Conversation) -> None:
        talk.read_body()
        talk.send(head if talk.request.method == "HEAD" else head + body)

    return handle


def raw(*pieces: bytes, then: End = "keep") -> Handler:
    """Answer with these very bytes, a write each."""

    def handle(talk: Conversation) -> None:
        talk.read_body()
        for piece in pieces:
            talk.send(piece)
        talk.end = then

    return handle


def chunked(*pieces: bytes, fields: Sequence[str] = (), trailers: Sequence[str] = ()) -> Handler:
    """Answer with a body in chunks, one a piece."""
    head = "\r\n".join(["HTTP/1.1 200 OK", *fields, "Transfer-Encoding: chunked", "", ""]).encode("latin-1")
    last = "\r\n".join(["0", *trailers, "", ""]).encode("latin-1")
    return raw(head, *(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces), last)


def until_close(*pieces: bytes, fields: Sequence[str] = (), then: End = "close") -> Handler:
    """Answer with a body that ends with the connection."""
    head = "\r\n".join(["HTTP/1.1 200 OK", *fields, "", ""]).encode("latin-1")
    return raw(head, *pieces, then=then)


def gated(gate: threading.Event, handler: Handler) -> Handler:
    """Hold an answer back until the test sets `gate`."""

    def handle(talk: Conversation) -> None:
        talk.read_body()
        talk.wait(gate)
        handler(talk)

    return handle


def silent(talk: Conversation) -> None:
    """Never answer; end when the edge closes the connection."""
    talk.wait_for_close()
    talk.end = "close"


def echo(talk: Conversation) -> None:
    """Answer with the request's own head and body, uncacheable."""
    talk.read_body()
    body = talk.request.raw_head + talk.request.body
    head = (
        f"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nCache-Control: no-store\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    talk.send(head.encode() + (b"" if talk.request.method == "HEAD" else body))


class Origin:
    """The server; a context manager that listens on a free port of 127.0.0.1."""

    def __init__(self, port: int = 0, *, default: Handler = echo, receive_buffer: int = 0) -> None:
        """Listen. `receive_buffer` bytes (0 = the system's choice) bound what the kernel takes in for a slow reader."""
        self.requests: list[Received] = []
        """Every request whose head came, in the order in which they came."""
        self.connections = 0
        """How many connections were accepted."""
        self.broken: list[Broken] = []
        """What came that was no HTTP request."""
        self.stopping = False
        self.default = default
        self.errors: queue.SimpleQueue[BaseException] = queue.SimpleQueue()
        self._handlers: dict[str, Handler] = {}
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if receive_buffer:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._listener.bind(("127.0.0.1", port))
        self._listener.listen(1024)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._accept, name=f"origin {self.port}", daemon=True).start()

    def on(self, path: str, handler: Handler) -> None:
        """Have a handler answer a path (without its query), whatever the method."""
        self._handlers[path] = handler

    def seen(self, path: str) -> list[Received]:
        """The requests for a path, whatever their query."""
        return [request for request in list(self.requests) if request.target.partition("?")[0] == path]

    def wait_for(self, path: str, count: int = 1, *, timeout: float = PATIENCE_S) -> list[Received]:
        """Wait until that many requests for a path have come, their heads at least."""

        def enough() -> list[Received] | None:
            found = self.seen(path)
            return found if len(found) >= count else None

        return until(enough, f"{count} requests for {path} at the origin", timeout=timeout)

    @property
    def open_connections(self) -> int:
        """How many connections are open now."""
        return len(self._open)

    def drop_connections(self) -> None:
        """Close every open connection, as a server does that restarts."""
        with self._lock:
            for sock in self._open:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    def stop(self) -> None:
        """Stop listening and close everything."""
        self.stopping = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.drop_connections()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            number = self.connections
            self.connections += 1
            with self._lock:
                self._open.add(sock)
            threading.Thread(target=self._serve, args=(sock, number), daemon=True).start()

    def _serve(self, sock: socket.socket, number: int) -> None:
        end: End = "close"
        try:
            end = self._converse(Stream(sock), number)
        except Broken as error:
            self.broken.append(error)
        except (OSError, Stopped):
            pass  # the edge has gone, or the test is over
        finally:
            with self._lock:
                self._open.discard(sock)
            if end == "reset":
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()

    def _converse(self, stream: Stream, number: int) -> End:
        position = 0
        while not self.stopping:
            message = stream.message()
            if message is None:
                return "close"
            request = Received(message.raw_head, message.start, message.fields, connection=number, position=position)
            self.requests.append(request)
            position += 1
            talk = Conversation(self, stream, request)
            self._handlers.get(request.target.partition("?")[0], self.default)(talk)
            if talk.end != "keep" or not _is_done(request):
                return talk.end if talk.end == "reset" else "close"
        return "close"


def _is_done(request: Received) -> bool:
    has_body = request.values("transfer-encoding") or int(request.get("content-length") or 0)
    return request.complete or not has_body


def pieces_of(data: bytes, size: int) -> Iterable[bytes]:
    """Cut bytes into pieces of `size`."""
    return (data[at : at + size] for at in range(0, len(data), size))


if __name__ == "__main__":
    with Origin(int(sys.argv[1]) if len(sys.argv) > 1 else 0) as served:
        print(served.url, flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()
