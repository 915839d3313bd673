"""A stored response, in the form in which it is served: its head rendered once, its body as it came. No I/O."""

from typing import Final


class Variants:
    """Stands in the index for a resource whose responses vary: which request fields select among them."""

    __slots__ = ("entries", "generation", "key", "vary")

    SIZE_BYTES: Final = 256
    """What it costs; counted with every entry, of which most resources have one or two."""

    def __init__(self, key: bytes, vary: tuple[bytes, ...], generation: int) -> None:
        """Belong to a primary key, with no entry yet."""
        self.key = key
        self.vary = vary
        self.generation = generation
        self.entries = 0


class Entry:
    """A complete stored response.

    A plain class with slots and not a frozen dataclass: SIEVE links entries and marks them on every hit.
    """

    __slots__ = (
        "body",
        "born_ns",
        "etag",
        "filled_by",
        "fresh_until_ns",
        "head",
        "head_without_content",
        "key",
        "newer",
        "older",
        "size_bytes",
        "status",
        "variants",
        "visited",
    )

    OVERHEAD_BYTES: Final = 512
    """What an entry costs beside its head, body and key: objects, links, a place in the index."""

    def __init__(
        self,
        *,
        status: int,
        head: str,
        head_without_content: str,
        body: bytes,
        etag: bytes | None,
        born_ns: int,
        fresh_until_ns: int,
        filled_by: str,
    ) -> None:
        """Keep a response.

        `head` is the status line and the stored fields, each line with its CRLF, the blank line left out;
        `head_without_content` is the same for a 304 (RFC 9110 §15.4.5). `born_ns` is when its age was 0, in nanoseconds
        since the epoch; `filled_by` is the traceparent of the attempt that fetched it.
        """
        self.key = b""
        self.status = status
        self.head = head
        self.head_without_content = head_without_content
        self.body = body
        self.etag = etag
        self.born_ns = born_ns
        self.fresh_until_ns = fresh_until_ns
        self.filled_by = filled_by
        self.size_bytes = len(head) + len(head_without_content) + len(body) + self.OVERHEAD_BYTES
        self.visited = False
        self.newer: Entry | None = None
        self.older: Entry | None = None
        self.variants: Variants | None = None


class Filling:
    """A response that is being stored while it streams to its client."""

    def __init__(
        self,
        *,
        status: int,
        head: bytes,
        head_without_content: bytes,
        has_content: bool,
        etag: bytes | None,
        born_ns: int,
        fresh_until_ns: int,
        filled_by: str,
        vary: tuple[bytes, ...],
    ) -> None:
        """Take the head as for `Entry`, but in bytes and without the Content-Length that only the end tells."""
        self.vary = vary
        self._status = status
        self._head = head
        self._head_without_content = head_without_content
        self._has_content = has_content
        self._etag = etag
        self._born_ns = born_ns
        self._fresh_until_ns = fresh_until_ns
        self._filled_by = filled_by
        self._pieces: list[bytes] = []
        self._size_bytes = 0

    def add(self, data: bytes, limit_bytes: int) -> bool:
        """Keep a piece of the body; False when the whole has become too large to be stored."""
        self._size_bytes += len(data)
        self._pieces.append(data)
        return self._size_bytes <= limit_bytes

    def entry(self) -> Entry:
        """The stored response, now that it is whole."""
        head = self._head.decode("latin-1")
        if self._has_content:
            head += f"Content-Length: {self._size_bytes}\r\n"
        return Entry(
            status=self._status,
            head=head,
            head_without_content=self._head_without_content.decode("latin-1"),
            body=b"".join(self._pieces),
            etag=self._etag,
            born_ns=self._born_ns,
            fresh_until_ns=self._fresh_until_ns,
            filled_by=self._filled_by,
        )
