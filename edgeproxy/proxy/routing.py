"""Which route a request takes: the first whose host and path match. Pure."""

import re
from dataclasses import dataclass

from edgeproxy.config import Config, Route


@dataclass(frozen=True, slots=True)
class Target:
    """Where a route leads and how its responses may be cached."""

    origin: str
    cache: bool
    max_object_bytes: int


class Routes:
    """The configured routes, compiled."""

    def __init__(self, config: Config) -> None:
        """Compile the routes of a valid configuration."""
        self._routes = [
            (_pattern(route.host, anything=not route.host), _pattern(route.match), _target(config, route))
            for route in config.route
        ]

    def find(self, host: bytes, path: bytes) -> Target | None:
        """The target of the first route that matches; `host` is lower case, without its port taken into account."""
        name = _PORT.sub(b"", host)
        for host_pattern, path_pattern, target in self._routes:
            if path_pattern.fullmatch(path) and host_pattern.fullmatch(name):
                return target
        return None


_PORT = re.compile(rb":[0-9]*$")


def _pattern(match: str, *, anything: bool = False) -> re.Pattern[bytes]:
    if anything:
        return re.compile(rb".*", re.DOTALL)
    return re.compile(b".*".join(re.escape(part.encode()) for part in match.split("*")), re.DOTALL)


def _target(config: Config, route: Route) -> Target:
    limit = route.cache.max_object_bytes
    return Target(
        origin=route.origin or config.origin[0].name,
        cache=route.cache.enabled and config.cache.memory_bytes > 0,
        max_object_bytes=config.cache.max_object_bytes if limit is None else limit,
    )
