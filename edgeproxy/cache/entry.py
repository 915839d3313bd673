"""A stored response: what stores keep of it (`Stored`), and the form in which it is served (`Entry`). No I/O."""

import msgspec

Lines = list[tuple[bytes, bytes]]

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


class Stored(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """All that is kept of a response beside its body; times in nanoseconds since the epoch. Stores write it as it is:
    a field that is added, removed or moved makes another format.
    """

    key: bytes
    """Primary key: url and what else the route's key has (`key.KeyRules`)."""
    url: bytes
    """`scheme://host/path?query` as keyed: what purges by URL and prefix match."""
    vary: tuple[bytes, ...]
    """Request fields that select it, lower case, sorted."""
    variant: bytes
    """Their values (`key.variant`); empty when there are none."""
    status: int
    reason: bytes
    lines: Lines
    """Fields as they are served, Content-Length, Age and what belongs to one request left out."""
    born_ns: int
    """When its age was 0."""
    fresh_until_ns: int
    stale_while_revalidate_ns: int
    """For how long after `fresh_until_ns` it may be served while it is being revalidated."""
    stale_if_error_ns: int
    must_revalidate: bool
    """Whether it may never be served stale (RFC 9111 §5.2.2.2)."""
    stored_ns: int
    """When it was stored or last freshened."""
    filled_by: str
    """The traceparent of the attempt that fetched it."""
    origin: str
    """Name of the origin that it came from."""
    etag: bytes | None = None
    last_modified: bytes | None = None
    tags: tuple[bytes, ...] = ()
    purge_seq: int = 0
    """The purge log's last rule when its request went to the origin: only later rules can be about it."""
    uncacheable: str = ""
    """When not empty this is no response: it remembers, until `fresh_until_ns`, that the key's responses are not
    stored, and why."""

    def field(self, name: bytes) -> bytes | None:
        """The value of the first field of that name, lower case."""
        return next((value for line, value in self.lines if line.lower() == name), None)


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
        return f"HTTP/1.1 {stored.status} {stored.reason.decode('latin-1')}\r\n{_text(stored.lines)}"

    @property
    def head_304(self) -> str:
        """The head of a 304 for it (RFC 9110 §15.4.5)."""
        if self._head_304 is None:
            kept = [line for line in self.stored.lines if line[0].lower() not in _NO_CONTENT_FIELDS]
            self._head_304 = "HTTP/1.1 304 Not Modified\r\n" + _text(kept)
        return self._head_304

    def _rendered(self) -> str:
        return f"{self.fields_head}Content-Length: {len(self.body)}\r\n" if self.has_content else self.fields_head

    def with_stored(self, stored: Stored) -> "Entry":
        """The same body under a freshened head (RFC 9111 §4.3.4)."""
        return Entry(stored, self.body, tier=self.tier)


def _text(lines: Lines) -> str:
    return b"".join(b"%b: %b\r\n" % line for line in lines).decode("latin-1")
