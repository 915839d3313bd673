"""What of a request an origin may read in more than one way: names, cookies, lists. Pure.

Keys and conditions are on the safe side where origins differ. What some origin may take for a keyed cookie or field is
in the key, or somebody could fill an entry by a name that the origin knows and the cache does not. How real parsers
differ is written down here and nowhere else.
"""

import re
from collections.abc import Mapping, Sequence
from urllib.parse import unquote_to_bytes

type Fields = Mapping[bytes, bytes]
"""Lower-case names to values, several lines of a name joined by `, `."""

WHITE = b" \t"
_INVISIBLE = bytes(range(0x21)) + bytes(range(0x7F, 0x100))
_UNDERSCORED = bytes.maketrans(b". [", b"___")
PLAIN_NAME = re.compile(rb"[A-Za-z0-9_!#$&'*+^`|~-]+")
"""A name that every origin reads as it stands."""
_PLAIN_COOKIE = re.compile(rb"""%b=[^;,"\\]*(?:; %b=[^;,"\\]*)*""" % (PLAIN_NAME.pattern, PLAIN_NAME.pattern))
"""A Cookie field that every origin reads alike, which most are; it takes an eighth of the time of others."""
_PIECES_MAX = 250
"""Of how many pieces a Cookie field or query may be that is looked at piece by piece."""


class NamePatterns:
    """Names, some of which may end in `*` for any run of characters."""

    __slots__ = ("_exact", "_prefixes")

    def __init__(self, patterns: Sequence[str]) -> None:
        """The patterns, in the case that names have."""
        self._exact = frozenset(text.encode() for text in patterns if not text.endswith("*"))
        self._prefixes = tuple(text[:-1].encode() for text in patterns if text.endswith("*"))

    def match(self, name: bytes) -> bool:
        """Whether any of them stands for this name."""
        return name in self._exact or name.startswith(self._prefixes)


def cookie_parts(cookie: bytes, wanted: frozenset[bytes]) -> bytes | None:
    """All of a Cookie field that an origin may take for a cookie of one of these names; None if there is nothing.

    Pairs are told apart by `;` (RFC 6265 §4.2.1). Where origins differ all counts: a comma may stand between two lines
    of the field or in a value, a quoted value may hold a `;`, and names may be taken loosely (`aliases`).
    """
    if _PLAIN_COOKIE.fullmatch(cookie):
        kept = [pair for pair in cookie.split(b"; ") if name_of(pair) in wanted]
    else:
        pieces = _pieces(cookie, b";", b",")
        if pieces is None or (b'"' in cookie and _is_open(cookie, pieces)):
            return cookie
        kept = [piece for piece in pieces if any(wanted & aliases(text) for text in _readings(piece, b","))]
    return b"; ".join(kept) if kept else None


def cookie_pairs(cookie: bytes) -> list[bytes] | None:
    """All that an origin may take for a cookie, each `NAME=VALUE`; None if that is too much to look at."""
    if _PLAIN_COOKIE.fullmatch(cookie):
        return cookie.split(b"; ")
    pieces = _pieces(cookie, b";", b",")
    return None if pieces is None else [text for piece in pieces for text in _readings(piece, b",")]


def query_pairs(query: bytes) -> list[bytes] | None:
    """All that an origin may take for a parameter, each `NAME=VALUE`; None if that is too much to look at."""
    pieces = _pieces(query, b"&", b";")
    return None if pieces is None else [text for piece in pieces for text in _readings(piece, b";")]


def _pieces(text: bytes, separator: bytes, other: bytes) -> list[bytes] | None:
    if text.count(separator) + text.count(other) >= _PIECES_MAX:
        return None
    return [piece for found in text.split(separator) if (piece := found.lstrip(WHITE))]


def _readings(piece: bytes, separator: bytes) -> list[bytes]:
    """A piece as it is, and what it is to origins to which this separates, too."""
    return [piece, *members(piece, separator)] if separator in piece else [piece]


def _is_open(cookie: bytes, pieces: list[bytes]) -> bool:
    """Whether a quoted value may go on beyond a `;`."""
    return b"\\" in cookie or any(piece.count(b'"') % 2 for piece in pieces)


def aliases(pair: bytes) -> frozenset[bytes]:
    """The names that origins give a cookie or parameter: some decode `%63`, leave out white space beyond ASCII, take
    dots and blanks for underscores (PHP) or `a[b]` for an `a`.
    """
    raw = name_of(pair)
    if PLAIN_NAME.fullmatch(raw):
        return frozenset((raw,))
    name = (unquote_to_bytes(raw) if b"%" in raw else raw).strip(_INVISIBLE)
    loose = (name.translate(_UNDERSCORED), name.partition(b"[")[0].translate(_UNDERSCORED))
    return frozenset((raw.strip(WHITE), name, *loose))


def cgi_name(name: bytes) -> bytes:
    """A field's name as far as origins that speak CGI or WSGI can tell it from others: to them `X_Lang` is X-Lang."""
    return name.replace(b"_", b"-")


def underscored(names: Fields) -> list[bytes]:
    """Names with an underscore in them."""
    # most requests have none: to see that in all names at once takes a quarter of the time
    return [name for name in names if b"_" in name] if b"_" in b"".join(names) else []


def members(value: bytes, separator: bytes = b",") -> list[bytes]:
    """What stands between the commas of a field's value."""
    return [member.strip(WHITE) for member in value.split(separator)]


def name_of(parameter: bytes) -> bytes:
    """What stands before the first `=`."""
    return parameter.partition(b"=")[0]
