"""What stores keep of a response beside its body. Values only.

A module of its own: what is compiled (`make fast`) can't have msgspec's types in it.
"""

import msgspec

Lines = list[tuple[bytes, bytes]]


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
