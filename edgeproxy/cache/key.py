"""Cache keys: which requests are for the same stored response. Pure; knows nothing of stores or configuration.

Three rules keep a key safe. Nothing is decoded: `%2F` and `/` are two keys, as they may be two resources. What is left
out of the key is left out of what the origin is asked (`KeyRules.target`, `KeyRules.host`), so nobody can fill an entry
with an answer to something that the next client did not ask. And what is in the key is in it with its name and length,
so no value can pass for another.
"""

import re
from collections.abc import Sequence

from edgeproxy.cache.readings import Fields, NamePatterns, aliases, cgi_name, cookie_parts, name_of, underscored

_SPACES = re.compile(rb"[ \t]*,[ \t]*")
_CASELESS = frozenset({b"accept-charset", b"accept-encoding", b"accept-language"})
"""Fields of names and ranges that compare without case (RFC 9110 §8.3.2, §8.4.1, §12.5.4)."""
_DEFAULT_PORTS = {b"http": b"80", b"https": b"443"}
_REQUEST_PARTS = b"\x00\x03"
"""Between a URL and what else is in a key. A variant, which follows a key after `\\x00`, never begins with `\\x03`."""


def primary_key(scheme: bytes, host: bytes, target: bytes) -> bytes:
    """Key of a target URI (RFC 9111 §2): scheme, host in lower case with its port, path and query as received.

    GET and HEAD share it. A host holds no `/`, so no two targets give the same key.
    """
    return scheme + b"://" + host + target


def url_of(key: bytes) -> bytes:
    """The URL as keyed that a primary key is for."""
    return key.partition(b"\x00")[0]


def variant(vary: Sequence[bytes], names: Fields) -> bytes:
    """A request's values of the fields that Vary names (RFC 9111 §4.1), without what makes no difference to what they
    mean: white space around list members, and case where the field's definition has it so.

    An absent field differs from an empty one; values can't hold the separators, which are control bytes.
    """
    return b"\x01".join(_normal(name, names[name]) if name in names else b"\x02" for name in vary)


def _normal(name: bytes, value: bytes) -> bytes:
    text = _SPACES.sub(b",", value)
    return text.lower() if name in _CASELESS else text


class KeyRules:
    """What of a request a route's keys are made of."""

    __slots__ = (
        "_allow",
        "_cgi_names",
        "_cookies",
        "_deny",
        "_fixed_host",
        "_keeps_query",
        "_normalizes_host",
        "_sorts",
        "has_request_parts",
        "headers",
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
        lower = [name.lower().encode() for name in headers]
        self.headers: tuple[bytes, ...] = tuple(sorted({*lower, *map(cgi_name, lower)}))
        """Request fields whose values are in each key, lower case."""
        self._cgi_names = frozenset(map(cgi_name, self.headers))
        self._cookies = [(name, aliases(name)) for name in sorted({name.encode() for name in cookies})]
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

    def primary(self, url: bytes, names: Fields, more: bytes = b"") -> bytes:
        """The primary key: the URL as keyed, and what the request's fields add to it, and `more` (`extra_parts`).
        Fields that Connection names end at the edge (RFC 9110 §7.6.1): the origin answers as if they were not there,
        and so they are not.
        """
        if not self.has_request_parts:
            return url + _REQUEST_PARTS + more if more else url
        if b"connection" in names:
            ended = {name.strip(b" \t").lower() for name in names[b"connection"].split(b",")}
            names = {name: value for name, value in names.items() if name not in ended}
        parts = [_part(b"h", name, names.get(name)) for name in self.headers]
        if self.headers:
            others = [name for name in underscored(names) if name not in self.headers]
            parts += [_part(b"h", name, names[name]) for name in others if cgi_name(name) in self._cgi_names]
        if self._cookies:
            cookie = names.get(b"cookie", b"")
            parts += [_part(b"c", name, cookie_parts(cookie, wanted)) for name, wanted in self._cookies]
        return url + _REQUEST_PARTS + b"".join(parts) + more

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
            parameters = [text for text in parameters if self._allow.match(name_of(text))]
        elif self._deny is not None:
            parameters = [text for text in parameters if not self._deny.match(name_of(text))]
        if self._sorts:
            parameters.sort(key=name_of)
        return path + mark + b"&".join(parameters) if parameters else path


def extra_parts(parts: Sequence[tuple[bytes, bytes]]) -> bytes:
    """What others than the route's rules add to a key: pairs of name and value, in an order that is always the same."""
    return b"".join(_part(b"s", b"%d:%b" % (len(name), name), value) for name, value in parts)


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
