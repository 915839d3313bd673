"""Cache keys: which requests are for the same stored response. Pure; knows nothing of stores or configuration.

Three rules keep a key safe. Nothing is decoded: `%2F` and `/` are two keys, as they may be two resources. What is left
out of the key is left out of what the origin is asked (`KeyRules.target`, `KeyRules.host`), so nobody can fill an entry
with an answer to something that the next client did not ask. And what is in the key is in it with its name and length,
so no value can pass for another.
"""

import re
from collections.abc import Mapping, Sequence
from enum import Enum

type Fields = Mapping[bytes, bytes]
"""Lower-case names to values, several lines of a name joined by `, `."""

_SPACES = re.compile(rb"[ \t]*,[ \t]*")
_WHITE = b" \t"
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
        if self._cookies:
            cookie = names.get(b"cookie", b"")
            parts += [_part(b"c", name, cookie_parts(cookie, name)) for name in self._cookies]
        return url + _REQUEST_PARTS + b"".join(parts)

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
        """Whether a request with these fields and this target has it.

        A field of several members has the value of each and of the whole.
        """
        if self._subject is Subject.HEADER:
            found = names.get(self._name)
            return found is not None and (self._value is None or found == self._value or self._value in _members(found))
        if self._subject is Subject.COOKIE:
            return any(self._fits(text) for piece in _cookies(names.get(b"cookie", b"")) for text in _readings(piece))
        return any(self._fits(text) for text in target.partition(b"?")[2].split(b"&") if text)

    def _fits(self, text: bytes) -> bool:
        name, _, value = text.partition(b"=")
        return self._patterns.match(name.strip(_WHITE)) and (self._value is None or value.strip(_WHITE) == self._value)


def cookie_parts(cookie: bytes, name: bytes) -> bytes | None:
    """All of a Cookie field that an origin may take for the cookie of this name; None if there is nothing.

    Pairs are told apart by `;` (RFC 6265 §4.2.1). Where a comma may stand between two lines of the field or in a value,
    and where a quote may hold a `;`, the whole stretch counts: what an origin may read in two ways has a key for each.
    """
    if name not in cookie:
        return None
    kept: list[bytes] = []
    quoted = False
    for piece in _cookies(cookie):
        if quoted or any(_name(text).strip(_WHITE) == name for text in _readings(piece)):
            kept.append(piece)
            quoted = quoted or piece.count(b'"') % 2 == 1
    return b"; ".join(kept) if kept else None


def _cookies(cookie: bytes) -> list[bytes]:
    return [text for piece in cookie.split(b";") if (text := piece.strip(_WHITE))]


def _readings(piece: bytes) -> list[bytes]:
    """A stretch of a Cookie field as it is, and what it is if its commas stand between lines."""
    return [piece, *_members(piece)] if b"," in piece else [piece]


def _members(value: bytes) -> list[bytes]:
    return [member.strip(_WHITE) for member in value.split(b",")]


def _name(parameter: bytes) -> bytes:
    return parameter.partition(b"=")[0]


def _part(kind: bytes, name: bytes, value: bytes | None) -> bytes:
    """One value in a key. Names are tokens, without `=` and `;`; absent differs from empty."""
    return b"%b:%b;" % (kind, name) if value is None else b"%b:%b=%d:%b;" % (kind, name, len(value), value)


def _normalized(scheme: bytes, host: bytes) -> bytes:
    name, colon, port = host.rpartition(b":")
    if not colon or b"]" in port:
        name, port = host, b""
    if name.endswith(b".") and not name.endswith(b"..") and name != b".":
        name = name[:-1]
    return name if port in {b"", _DEFAULT_PORTS.get(scheme)} else name + b":" + port
