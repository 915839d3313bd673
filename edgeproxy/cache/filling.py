"""A response that is being stored while it streams to those who asked for it. No I/O."""

from edgeproxy.cache.entry import Entry
from edgeproxy.cache.stored import Stored


class Filling:
    """The response so far; `pieces` are what readers are fed from, each at its own pace."""

    __slots__ = ("is_too_large", "limit_bytes", "pieces", "size_bytes", "stored")

    def __init__(self, stored: Stored, limit_bytes: int) -> None:
        """Begin with a head; a body over `limit_bytes` will not be stored."""
        self.stored = stored
        self.limit_bytes = limit_bytes
        self.pieces: list[bytes] = []
        self.size_bytes = 0
        self.is_too_large = False

    def add(self, data: bytes) -> None:
        """Keep a piece of the body."""
        self.pieces.append(data)
        self.size_bytes += len(data)
        if self.size_bytes > self.limit_bytes:
            self.is_too_large = True

    def entry(self) -> Entry:
        """The stored response, now that it is whole."""
        pieces = self.pieces
        return Entry(self.stored, pieces[0] if len(pieces) == 1 else b"".join(pieces))
