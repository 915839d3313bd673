"""Cache keys: which requests are for the same stored response. Pure; knows nothing of stores or configuration.

Three rules keep a key safe. Nothing is decoded: `%2F` and `/` are two keys, as they may be two resources. What is left
out of the key is left out of what the origin is asked (`KeyRules.target`, `KeyRules.host`), so nobody can fill an entry
with an answer to something that the next client did not ask. And what is in the key is in it with its name and length,
so no value can pass for another.
"""

import re
from collections.abc import Mapping, Sequence
from enum import Enum
from urllib.parse import unquote_to_bytes

type Fields = Mapping[bytes, bytes]
"""Lower-case names to values, several lines of a name joined by `, `."""

_SPACES = re.compile(rb"[ \t]*,[ \t]*")
_WHITE = b" \t"
_INVISIBLE = bytes(range(0x21)) + bytes(range(0x7F, 0x100))
_UNDERSCORED = bytes.maketrans(b". [", b"___")
_DEFAULT_PORTS = {b"http": b"80", b"https": b"443"}
_REQUEST_PARTS = b"\x00\x03"
"""Between a URL and what else is in a key. A variant, which follows a key after `\\x00`, never begins with `\\x03`."""


def primary_key(scheme: bytes, host: bytes, target: bytes) -> bytes:
    """Key of a target URI (RFC 9111 §2): scheme, host in lower case with its port, path and query as received.

    GET and HEAD share it. A host holds no `/`, so no two targets give the same key.
    """
    return scheme + b"://" + host + target


def variant(vary: Sequence[bytes], names: Fields) -> bytes:
    """A request's values of the fields that Vary names (RFC 9111 §4.1), white space around list members left out.

    An absent field differs from an empty one; values can't hold the separators, which are control bytes.
    """
    return b"\x01".join(_SPACES.sub(b",", names[name]) if name in names else b"\x02" for name in vary)


class KeyRules:
    """What of a request a route's keys are made of."""

    __slots__ = (
        "_allow",
        "_cgi_names",
        "_cookies",
        "_deny",
        "_fixed_host",
        "_headers",
        "_keeps_query",
        "_normalizes_host",
        "_sorts",
        "has_request_parts",
        "plain",
    )

    def __init__(
        self,
        *,
        query: bool = True,
        query_allow: Sequence[str] = (),
        query_deny: Sequence[str] = (),
        query_sort: bool = False,
        headers: Sequence[str] = (),
        cookies: Sequence[str] = (),
        host: str = "host",
    ) -> None:
        """`query_allow`, when there is any, names the parameters that stay, `query_deny` those that go; a name may end
        in `*`. `host` is "host" (as received), "normalized" or the host that all others are folded into.
        """
        self._keeps_query = query
        self._allow = NamePatterns(query_allow) if query_allow else None
        self._deny = NamePatterns(query_deny) if query_deny else None
        self._sorts = query_sort
        self._headers = tuple(sorted({name.lower().encode() for name in headers}))
        self._cgi_names = frozenset(map(_cgi_name, self._headers))
        self._cookies = tuple(sorted({name.encode() for name in cookies}))
        self._normalizes_host = host == "normalized"
        self._fixed_host = b"" if host in {"host", "normalized"} else host.encode()
        self.has_request_parts: bool = bool(headers or cookies)
        """Whether a key depends on the request's fields, and not on its URL alone."""
        self.plain: bool = (
            query and not (query_allow or query_deny or query_sort or headers or cookies) and host == "host"
        )
        """Whether every key is the target URI as received: `primary_key`."""

    def url(self, scheme: bytes, host: bytes, target: bytes) -> bytes:
        """The target URI as keyed, which is what purges match; `host` is lower case."""
        return primary_key(scheme, self.host(scheme, host), self.target(target))

    def primary(self, url: bytes, names: Fields) -> bytes:
        """The primary key: the URL as keyed, and what the request's fields add to it."""
        if not self.has_request_parts:
            return url
        parts = [_part(b"h", name, names.get(name)) for name in self._headers]
        if self._headers:
            parts += [_part(b"h", name, names[name]) for name in names if self._is_twin(name)]
        if self._cookies:
            cookie = names.get(b"cookie", b"")
            parts += [_part(b"c", name, cookie_parts(cookie, name)) for name in self._cookies]
        return url + _REQUEST_PARTS + b"".join(parts)

    def _is_twin(self, name: bytes) -> bool:
        return name not in self._headers and _cgi_name(name) in self._cgi_names

    def host(self, scheme: bytes, host: bytes) -> bytes:
        """The host as keyed, and as the origin may be sent it where the response may be stored.

        Normalized it has no default or empty port (RFC 9110 §4.2.3) and no dot at its end.
        """
        if self._fixed_host:
            return self._fixed_host
        return _normalized(scheme, host) if self._normalizes_host else host

    def target(self, target: bytes) -> bytes:
        """Path and query as keyed, and as the origin is to be asked for them where the response may be stored.

        The parameters that stay are as they came, repeated ones in their order, also when names are sorted. A query of
        which nothing stays goes with its question mark.
        """
        path, mark, query = target.partition(b"?")
        if not mark or (self._keeps_query and self._allow is None and self._deny is None and not self._sorts):
            return target
        if not self._keeps_query:
            return path
        parameters = query.split(b"&")
        if self._allow is not None:
            parameters = [text for text in parameters if self._allow.match(_name(text))]
        elif self._deny is not None:
            parameters = [text for text in parameters if not self._deny.match(_name(text))]
        if self._sorts:
            parameters.sort(key=_name)
        return path + mark + b"&".join(parameters) if parameters else path


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


class Subject(Enum):
    """What of a request a condition looks at."""

    HEADER = "header"
    COOKIE = "cookie"
    QUERY = "query"


class Condition:
    """Something that a request may have: a header, cookie or query parameter, of any value or of a certain one."""

    __slots__ = ("_name", "_patterns", "_subject", "_value", "text")

    def __init__(self, text: str) -> None:
        """`header:NAME`, `cookie:NAME` or `query:NAME`, each perhaps with `=VALUE`.

        The name of a cookie or parameter may end in `*`. ValueError for anything else.
        """
        subject, _, rest = text.partition(":")
        name, equals, value = rest.partition("=")
        if not name:
            raise ValueError(f"{text!r} names nothing")
        self.text = text
        self._subject = Subject(subject)
        self._name = name.lower().encode()
        self._patterns = NamePatterns([name])
        self._value = value.encode() if equals else None

    def met(self, names: Fields, target: bytes) -> bool:
        """Whether a request with these fields and this target has it, in any way in which an origin may read them.

        A field of several members has the value of each and of the whole.
        """
        match self._subject:
            case Subject.HEADER:
                twin = _cgi_name(self._name)
                found = [value for name, value in names.items() if _cgi_name(name) == twin]
                return any(self._value in (None, value) or self._value in _members(value) for value in found)
            case Subject.COOKIE:
                pieces = _cookies(names.get(b"cookie", b""))
                return any(map(self._fits, [text for piece in pieces for text in _readings(piece, b",")]))
            case Subject.QUERY:
                parameters = target.partition(b"?")[2].split(b"&")
                return any(map(self._fits, [text for piece in parameters for text in _readings(piece, b";") if text]))

    def _fits(self, pair: bytes) -> bool:
        value = pair.partition(b"=")[2].strip(_WHITE)
        return self._value in (None, value, unquote_to_bytes(value)) and any(map(self._patterns.match, _aliases(pair)))


def cookie_parts(cookie: bytes, name: bytes) -> bytes | None:
    """All of a Cookie field that an origin may take for the cookie of this name; None if there is nothing.

    Pairs are told apart by `;` (RFC 6265 §4.2.1). Where origins differ all counts: a comma may stand between two lines
    of the field or in a value, a quoted value may hold a `;`, and names may be taken loosely (`_aliases`).
    """
    pieces = _cookies(cookie)
    if b'"' in cookie and _is_open(cookie, pieces):
        return cookie
    wanted = _aliases(name)
    kept = [piece for piece in pieces if any(wanted & _aliases(text) for text in _readings(piece, b","))]
    return b"; ".join(kept) if kept else None


def _is_open(cookie: bytes, pieces: list[bytes]) -> bool:
    """Whether a quoted value may go on beyond a `;`."""
    return b"\\" in cookie or any(piece.count(b'"') % 2 for piece in pieces)


def _cookies(cookie: bytes) -> list[bytes]:
    return [text for piece in cookie.split(b";") if (text := piece.strip(_WHITE))]


def _readings(piece: bytes, separator: bytes) -> list[bytes]:
    """A piece as it is, and what it is to origins to which this separates, too."""
    return [piece, *(part.strip(_WHITE) for part in piece.split(separator))] if separator in piece else [piece]


def _aliases(pair: bytes) -> set[bytes]:
    """The names that origins give a cookie or parameter: some decode `%63`, leave out white space beyond ASCII, take
    dots and blanks for underscores (PHP) or `a[b]` for an `a`.
    """
    raw = _name(pair)
    name = (unquote_to_bytes(raw) if b"%" in raw else raw).strip(_INVISIBLE)
    return {raw.strip(_WHITE), name, name.translate(_UNDERSCORED), name.partition(b"[")[0].translate(_UNDERSCORED)}


def _cgi_name(name: bytes) -> bytes:
    """A field's name as far as origins that speak CGI or WSGI can tell it from others: to them `X_Lang` is X-Lang."""
    return name.replace(b"_", b"-")


def _members(value: bytes) -> list[bytes]:
    return [member.strip(_WHITE) for member in value.split(b",")]


def _name(parameter: bytes) -> bytes:
    return parameter.partition(b"=")[0]


def _part(kind: bytes, name: bytes, value: bytes | None) -> bytes:
    """One value in a key. Names are tokens, without `=` and `;`; absent differs from empty."""
    return b"%b:%b;" % (kind, name) if value is None else b"%b:%b=%d:%b;" % (kind, name, len(value), value)


def _normalized(scheme: bytes, host: bytes) -> bytes:
    name, colon, port = host.rpartition(b":")
    if not colon:
        name, port = host, b""
    if name.endswith(b".") and not name.endswith(b"..") and name != b".":
        name = name[:-1]
    return name if port in {b"", _DEFAULT_PORTS.get(scheme)} else name + b":" + port
