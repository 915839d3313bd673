"""A stored response in the form in which it is served. No I/O."""

from edgeproxy.cache.stored import Lines, Stored

UNSERVED = b"Edgeproxy-Cache-Control"
"""A field that is kept, as validations count on it (RFC 9213), and that no client gets to see."""
_NO_CONTENT_FIELDS = frozenset(
    {
        b"content-encoding",
        b"content-language",
        b"content-length",
        b"content-range",
        b"content-type",
        b"transfer-encoding",
    }
)
"""Fields about a content that a 304 does not have (RFC 9110 §15.4.5)."""


class Entry:
    """A stored response in hot memory: its head rendered once, its body as it came.

    A plain class with slots: SIEVE links entries and marks them on every hit.
    """

    __slots__ = (
        "_head_304",
        "body",
        "born_ns",
        "etag",
        "filled_by",
        "fresh_until_ns",
        "head",
        "key",
        "newer",
        "older",
        "purge_seq",
        "size_bytes",
        "status",
        "stored",
        "tier",
        "visited",
    )

    OVERHEAD_BYTES = 1024
    """What an entry costs beside its head, body and key: objects, links, a place in the index."""
    LINE_BYTES = 128
    """What each of its fields costs beside name and value: three objects and a place in their list."""

    def __init__(self, stored: Stored, body: bytes, *, tier: str = "memory") -> None:
        """Serve `stored` with this body; `tier` is where it was found, for the log."""
        self.stored = stored
        self.body = body
        self.tier = tier
        self.key = stored.key if not stored.vary else stored.key + b"\x00" + stored.variant
        self.status = stored.status
        self.born_ns = stored.born_ns
        self.fresh_until_ns = 0 if stored.uncacheable else stored.fresh_until_ns
        """As in `stored`, but 0 for what is no response: a look-up then needs no second question."""
        self.etag = stored.etag if stored.status == 200 else None
        """What If-None-Match is held against: conditions are for a 200 (RFC 9111 §4.3.2)."""
        self.filled_by = stored.filled_by
        self.purge_seq = stored.purge_seq
        self.head = self._rendered()
        """Status line and fields, each line with its CRLF, the blank line left out."""
        self._head_304: str | None = None
        fields = 2 * len(self.head) + self.LINE_BYTES * len(stored.lines)
        self.size_bytes = fields + len(body) + 2 * len(self.key) + self.OVERHEAD_BYTES
        self.visited = False
        self.newer: Entry | None = None
        self.older: Entry | None = None

    @property
    def has_content(self) -> bool:
        """Whether it has a body, if an empty one."""
        return self.status not in (204, 304)

    @property
    def fields_head(self) -> str:
        """The head without what says how long the body is."""
        stored = self.stored
        return f"HTTP/1.1 {stored.status} {stored.reason.decode('latin-1')}\r\n{text_of(stored.lines)}"

    @property
    def head_304(self) -> str:
        """The head of a 304 for it (RFC 9110 §15.4.5)."""
        if self._head_304 is None:
            kept = [line for line in self.stored.lines if line[0].lower() not in _NO_CONTENT_FIELDS]
            self._head_304 = "HTTP/1.1 304 Not Modified\r\n" + text_of(kept)
        return self._head_304

    def _rendered(self) -> str:
        return f"{self.fields_head}Content-Length: {len(self.body)}\r\n" if self.has_content else self.fields_head

    def with_stored(self, stored: Stored) -> "Entry":
        """The same body under a freshened head (RFC 9111 §4.3.4)."""
        return Entry(stored, self.body, tier=self.tier)


def text_of(lines: Lines) -> str:
    """Fields as clients get them, each with its CRLF."""
    return b"".join(b"%b: %b\r\n" % line for line in lines if line[0] != UNSERVED).decode("latin-1")
