"""Requests that belong together, as values: what one connection sends, and when.

A sequence has resources of its own, so its outcome depends on no other sequence: a difference is replayed by running
that sequence alone.
"""

from dataclasses import dataclass

from tests.oracle.resources import Pair, Resource

STEPS_S = (1, 2, 3, 6, 20, 40, 100, 700, 4000)
"""How far the clock is stepped between two epochs. Within an epoch it stands still."""
EPOCHS = len(STEPS_S) + 1


@dataclass(frozen=True)
class Ask:
    """One request."""

    epoch: int
    method: str
    target: str
    fields: tuple[Pair, ...] = ()
    body: bytes = b""
    host: str = "edge.test"
    is_chunked: bool = False
    refreshes: bool = False
    """Whether an answer of `STALE` to it means that the edge validates in the background."""

    @property
    def wire(self) -> bytes:
        """Its bytes."""
        lines = [
            f"{self.method} {self.target} HTTP/1.1",
            f"Host: {self.host}",
            *(f"{name}: {value}" for name, value in self.fields),
        ]
        body = self.body
        if self.is_chunked:
            lines.append("Transfer-Encoding: chunked")
            pieces = [body[at : at + 7000] for at in range(0, len(body), 7000)]
            body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
        elif body or self.method in {"POST", "PUT", "PATCH"}:
            lines.append(f"Content-Length: {len(body)}")
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + body

    @property
    def closes(self) -> bool:
        """Whether the connection is not to be used for another request."""
        return any(name.lower() == "connection" and "close" in value.lower() for name, value in self.fields)


@dataclass(frozen=True)
class Sequence:
    """Requests in their order, epochs rising, and what the origin has for them."""

    number: int
    theme: str
    resources: tuple[Resource, ...]
    asks: tuple[Ask, ...]
