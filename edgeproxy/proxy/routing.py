"""Which route a request takes: the first whose host and path match. Pure."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from edgeproxy.config import Config, Route


@dataclass(frozen=True, slots=True)
class Target:
    """Where a route leads and how its responses may be cached."""

    origin: str
    cache: bool
    max_object_bytes: int


type Matcher = Callable[[bytes], object]
"""Says whether a host or path matches, by a true or false value."""


class Routes:
    """The configured routes, compiled."""

    def __init__(self, config: Config) -> None:
        """Compile the routes of a valid configuration; without any, everything goes to the one origin."""
        self._routes = [
            (_matcher(route.host) if route.host else None, _matcher(route.match), _target(config, route))
            for route in config.route or [Route(match="/*")]
        ]

    def find(self, host: bytes, path: bytes) -> Target | None:
        """The target of the first route that matches; `host` is lower case, its port does not count."""
        for host_matches, path_matches, target in self._routes:
            if path_matches(path) and (host_matches is None or host_matches(_PORT.sub(b"", host))):
                return target
        return None


_PORT = re.compile(rb":[0-9]*$")


def _matcher(match: str) -> Matcher:
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
    limit = route.cache.max_object_bytes
    return Target(
        origin=route.origin or config.origin[0].name,
        cache=route.cache.enabled and config.cache.memory_bytes > 0,
        max_object_bytes=config.cache.max_object_bytes if limit is None else limit,
    )
