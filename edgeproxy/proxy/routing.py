"""Which route a request takes: the first whose host and path match. Pure."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from edgeproxy.cache.conditions import Condition
from edgeproxy.cache.key import KeyRules
from edgeproxy.cache.rules import SECOND_NS, Rules, SetCookie
from edgeproxy.config import Config, Route, RouteCache


@dataclass(frozen=True, slots=True)
class Target:
    """Where a route leads and how its responses may be cached."""

    match: bytes
    """The paths that it is for, as configured."""
    origin: str
    cache: bool
    """Whether they may be at all."""
    rules: Rules
    key: KeyRules
    bypass: tuple[Condition, ...] = ()
    """A request that meets one is neither answered from the cache nor stored."""
    key_parts: bytes = b""
    """What is in its keys beyond `key`'s (`cache.key.extra_parts`)."""
    tags: tuple[bytes, ...] = ()
    """What responses are tagged with beyond what the origin says."""

    @property
    def max_object_bytes(self) -> int:
        """The largest body that is cached."""
        return self.rules.max_object_bytes


type Matcher = Callable[[bytes], object]
"""Says whether a host or path matches, by a true or false value."""


class Routes:
    """The configured routes, compiled."""

    def __init__(self, config: Config) -> None:
        """Compile the routes of a valid configuration; without any, everything goes to the one origin."""
        self._routes = [
            (
                matcher(route.host.removesuffix(".")) if route.host else None,
                matcher(route.match),
                _target(config, route),
            )
            for route in config.route or [Route(match="/*")]
        ]

    def find(self, host: bytes, path: bytes) -> Target | None:
        """The target of the first route that matches; `host` is lower case, its port and a dot at the end of its name
        do not count.
        """
        name: bytes | None = None
        for host_matches, path_matches, target in self._routes:
            if not path_matches(path):
                continue
            if host_matches is None:
                return target
            if name is None:
                name = _PORT.sub(b"", host).removesuffix(b".")
            if host_matches(name):
                return target
        return None


_PORT = re.compile(rb":[0-9]*$")


def matcher(match: str) -> Matcher:
    """What says whether a host or path matches a pattern, in which `*` stands for any run of characters."""
    pattern = match.encode()
    if b"*" not in pattern:
        return pattern.__eq__
    if pattern.find(b"*") == len(pattern) - 1:  # what most routes are, at a third of a pattern's price
        prefix = pattern[:-1]
        return lambda value: value.startswith(prefix)
    first, *between, last = map(re.escape, pattern.split(b"*"))
    # The leftmost place for what stands between stars is as good as any. Atomic groups keep to it: backtracking over
    # several stars would let a long path take minutes.
    groups = b"".join(b"(?>.*?%b)" % part for part in between if part)
    return re.compile(b"%b%b.*%b" % (first, groups, last), re.DOTALL).fullmatch


def _target(config: Config, route: Route) -> Target:
    cache = route.cache
    return Target(
        match=route.match.encode(),
        origin=route.origin or config.origin[0].name,
        cache=cache.enabled and (config.cache.memory_bytes > 0 or config.cache.store != "memory"),
        rules=_rules(cache, config.cache.max_object_bytes),
        key=KeyRules(
            query=cache.query == "all",
            query_allow=cache.query_allow,
            query_deny=cache.query_deny,
            query_sort=cache.query_sort,
            headers=cache.key_headers,
            cookies=cache.key_cookies,
            host=cache.key_host,
        ),
        bypass=tuple(Condition(text) for text in cache.bypass),
    )


def _rules(cache: RouteCache, max_object_bytes: int) -> Rules:
    """What policy decides by: times in nanoseconds, "4xx" as the hundred statuses that it stands for."""
    classes = {word: ttl for word, ttl in cache.status_ttl.items() if word.endswith("xx")}
    status_ttl = {int(word[0]) * 100 + n: _ns(ttl) for word, ttl in classes.items() for n in range(100)}
    status_ttl |= {int(word): _ns(ttl) for word, ttl in cache.status_ttl.items() if word not in classes}
    return Rules(
        methods=frozenset(method.encode() for method in cache.methods),
        ttl_ns=None if cache.ttl is None else _ns(cache.ttl),
        ttl_min_ns=_ns(cache.ttl_min),
        ttl_max_ns=None if cache.ttl_max is None else _ns(cache.ttl_max),
        default_ttl_ns=None if cache.default_ttl is None else _ns(cache.default_ttl),
        heuristic=cache.heuristic,
        status_ttl_ns=status_ttl,
        stale_while_revalidate_ns=_ns(cache.stale_while_revalidate),
        stale_if_error_ns=_ns(cache.stale_if_error),
        set_cookie=SetCookie(cache.set_cookie),
        authorized=cache.authorized,
        client_no_cache=cache.client_no_cache,
        keyed=tuple(name.lower().encode() for name in cache.key_headers),
        max_object_bytes=max_object_bytes if cache.max_object_bytes is None else cache.max_object_bytes,
    )


def _ns(seconds: float) -> int:
    return round(seconds * SECOND_NS)
