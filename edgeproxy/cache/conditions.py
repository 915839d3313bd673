"""Conditions by which a route sends requests past the cache. Pure; knows nothing of configuration."""

from enum import Enum
from urllib.parse import unquote_to_bytes

from edgeproxy.cache.readings import (
    PLAIN_NAME,
    WHITE,
    Fields,
    NamePatterns,
    aliases,
    cgi_name,
    cookie_pairs,
    members,
    name_of,
    query_pairs,
    underscored,
)


class Subject(Enum):
    """What of a request a condition looks at."""

    HEADER = "header"
    COOKIE = "cookie"
    QUERY = "query"


class Condition:
    """Something that a request may have: a header, cookie or query parameter, of any value or of a certain one."""

    __slots__ = ("_cgi_name", "_name", "_patterns", "_subject", "_value", "text")

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
        self._cgi_name = cgi_name(self._name)
        self._patterns = NamePatterns([name])
        self._value = value.encode() if equals else None

    def met(self, names: Fields, target: bytes) -> bool:
        """Whether a request with these fields and this target has it, in any way in which an origin may read them.

        A field of several members has the value of each and of the whole. What is too much to look at has everything.
        """
        if self._subject is Subject.HEADER:
            return self._in_fields(names)
        if self._subject is Subject.COOKIE:
            pairs = cookie_pairs(names.get(b"cookie", b""))
        else:
            pairs = query_pairs(target.partition(b"?")[2])
        return pairs is None or any(map(self._fits, pairs))

    def _in_fields(self, names: Fields) -> bool:
        others = [name for name in underscored(names) if cgi_name(name) == self._cgi_name]
        for name in (self._name, self._cgi_name, *others):
            value = names.get(name)
            if value is not None and (self._value in (None, value) or self._value in members(value)):
                return True
        return False

    def _fits(self, pair: bytes) -> bool:
        raw = name_of(pair)
        matches = self._patterns.match
        # that plain names have no other one is asked here, too: most are, and that takes a third of the time
        if not matches(raw) and (PLAIN_NAME.fullmatch(raw) or not any(map(matches, aliases(pair)))):
            return False
        value = pair.partition(b"=")[2].strip(WHITE)
        return self._value in (None, value, unquote_to_bytes(value))
