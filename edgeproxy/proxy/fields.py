"""Header fields as they travel: pairs of bytes in the order and case received, and a folded view for looking things up.
Pure.
"""

from collections.abc import Mapping
from functools import lru_cache

FieldLines = list[tuple[bytes, bytes]]
"""Field lines as received: name in its own case, value without surrounding white space."""

Names = Mapping[bytes, bytes]
"""Lower-case names to values, several lines of a name joined by `, ` (RFC 9110 §5.3)."""

HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"te",
        b"transfer-encoding",
        b"upgrade",
        b"http2-settings",
    }
)
"""Fields that end at this hop whether Connection names them or not (RFC 9110 §7.6.1)."""


def fold(lines: FieldLines) -> dict[bytes, bytes]:
    """The folded view of field lines."""
    names = {name.lower(): value for name, value in lines}
    if len(names) != len(lines):
        names = {}
        for name, value in lines:
            lower = name.lower()
            names[lower] = names[lower] + b", " + value if lower in names else value
    return names


def values_of(lines: FieldLines, name: bytes) -> list[bytes]:
    """The values of one field, a value a line; `name` is lower case."""
    return [value for line, value in lines if line.lower() == name]


def tokens(value: bytes | None) -> frozenset[bytes]:
    """The members of a list of tokens, lower case."""
    if not value:
        return frozenset()
    return frozenset(token.strip().lower() for token in value.split(b",") if token.strip())


def end_to_end(lines: FieldLines, names: Names, dropped: frozenset[bytes] = HOP_BY_HOP) -> FieldLines:
    """The lines without those in `dropped` (lower case; take `HOP_BY_HOP` in) and those that Connection names."""
    connection = names.get(b"connection")
    if connection is not None:
        named = _options(connection) if len(connection) <= _KNOWN_OPTIONS_BYTES else tokens(connection)
        if not named <= dropped:
            dropped |= named
    if len(names) == len(lines):  # then both are in the same order, and nothing needs to be put into lower case again
        return [line for line, name in zip(lines, names, strict=True) if name not in dropped]
    return [line for line in lines if line[0].lower() not in dropped]


_KNOWN_OPTIONS_BYTES = 256
"""Longer values of Connection are not remembered: they need not recur, and would take up memory."""


@lru_cache(maxsize=256)
def _options(connection: bytes) -> frozenset[bytes]:
    # `close` and `keep-alive` are options, not names of fields; taken for names they drop nothing that is wanted.
    return tokens(connection)


def render(lines: FieldLines) -> bytes:
    """Field lines as they go over the wire, each with its CRLF."""
    return b"\r\n".join([*map(b": ".join, lines), b""])
