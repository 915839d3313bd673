"""HTTP/1 messages off a socket, byte by byte as they came: shared by the raw client and the scripted origin.

Reads only what is strictly HTTP and fails loudly otherwise, so that what the node sends is checked on every read.
"""

import re
import socket
from dataclasses import dataclass, field

FieldLines = list[tuple[bytes, bytes]]

_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\r\n\x00]*?)[ \t]*")
_BODILESS = frozenset({204, 304})


class Broken(AssertionError):
    """The peer sent what is no HTTP message, or closed in the middle of one."""


class Cut(Broken):
    """The peer closed the connection, or reset it, in the middle of a message."""


@dataclass
class Message:
    """A request or response as it came over the wire."""

    raw_head: bytes
    start: bytes
    fields: FieldLines
    body: bytes = b""
    raw_body: bytes = b""
    """The body with its chunk framing, if it has any."""
    trailers: FieldLines = field(default_factory=list)

    def values(self, name: str) -> list[str]:
        """All values of a field, one a line."""
        wanted = name.lower().encode()
        return [value.decode("latin-1") for key, value in self.fields if key.lower() == wanted]

    def __getitem__(self, name: str) -> str:
        """The value of a field that must be there exactly once."""
        (value,) = self.values(name)
        return value

    def get(self, name: str) -> str | None:
        """The value of a field that may be there, at most once."""
        values = self.values(name)
        assert len(values) <= 1, f"several {name} fields: {values}"
        return values[0] if values else None

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode()


class Stream:
    """A socket's bytes with a look ahead."""

    def __init__(self, sock: socket.socket) -> None:
        """Read from `sock` from now on, and nobody else."""
        self.sock = sock
        self.buffer = bytearray()
        self.ended = False

    def more(self) -> bool:
        """Read once; False when the peer has ended its side. A reset raises Cut."""
        if self.ended:
            return False
        try:
            data = self.sock.recv(65536)
        except ConnectionError as error:
            raise Cut(f"connection reset with {bytes(self.buffer[:200])!r} unread") from error
        self.ended = not data
        self.buffer += data
        return not self.ended

    def take(self, count: int) -> bytes:
        """Exactly `count` bytes."""
        while len(self.buffer) < count:
            if not self.more():
                raise Cut(f"closed after {len(self.buffer)} of {count} bytes")
        data = bytes(self.buffer[:count])
        del self.buffer[:count]
        return data

    def take_until(self, mark: bytes) -> bytes:
        """All up to and with `mark`."""
        searched = 0
        while (at := self.buffer.find(mark, max(0, searched - len(mark)))) < 0:
            searched = len(self.buffer)
            if not self.more():
                raise Cut(f"closed before {mark!r}, with {bytes(self.buffer[:200])!r} unread")
        return self.take(at + len(mark))

    def rest(self) -> bytes:
        """All up to the end of the peer's side."""
        while self.more():
            pass
        data = bytes(self.buffer)
        self.buffer.clear()
        return data

    def message(self) -> Message | None:
        """The head of the next message; None when the peer has ended its side in between."""
        while not self.buffer:
            if not self.more():
                return None
        raw = self.take_until(b"\r\n\r\n")
        start, *lines = raw[:-4].split(b"\r\n")
        return Message(raw, start, [parse_field(line) for line in lines])

    def sized_body(self, message: Message, length: int) -> None:
        """Read a body of `length` bytes into the message."""
        message.body = message.raw_body = self.take(length)

    def chunked_body(self, message: Message) -> None:
        """Read a body in chunks, and its trailers, into the message."""
        pieces, raw = [], []
        while True:
            line = self.take_until(b"\r\n")
            raw.append(line)
            if not re.fullmatch(rb"[0-9a-fA-F]+(;[^\r\n]*)?\r\n", line):
                raise Broken(f"bad chunk size line {line!r}")
            size = int(line.partition(b";")[0], 16)
            if not size:
                break
            data = self.take(size + 2)
            raw.append(data)
            if not data.endswith(b"\r\n"):
                raise Broken("chunk without its CRLF")
            pieces.append(data[:-2])
        while (line := self.take_until(b"\r\n")) != b"\r\n":
            raw.append(line)
            message.trailers.append(parse_field(line[:-2]))
        raw.append(line)
        message.body, message.raw_body = b"".join(pieces), b"".join(raw)

    def response_body(self, message: Message, status: int, method: str) -> None:
        """Read the body that a response has (RFC 9112 §6.3) into the message."""
        codings, lengths = message.values("transfer-encoding"), message.values("content-length")
        if codings and lengths:
            raise Broken(f"both Transfer-Encoding and Content-Length: {message.raw_head!r}")
        if method == "HEAD" or status < 200 or status in _BODILESS:
            return
        if codings:
            if codings != ["chunked"]:
                raise Broken(f"unexpected transfer codings {codings}")
            self.chunked_body(message)
        elif lengths:
            (length,) = lengths
            self.sized_body(message, int(length))
        else:
            message.body = message.raw_body = self.rest()


def parse_field(line: bytes) -> tuple[bytes, bytes]:
    """A field line as name and value."""
    found = _FIELD.fullmatch(line)
    if not found:
        raise Broken(f"bad field line {line!r}")
    return found[1], found[2]
