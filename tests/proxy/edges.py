"""A node in front of several scripted origins at once, each with settings and a route of its own.

    with Edge(plain={}, one={"max_connections": 1}) as edge:
        edge["one"].on("/one/x", reply(b"hi"))
        assert edge.get("/one/x").body == b"hi"

Starting a node takes a second, so the tests of a module share one and keep to paths of their own.
"""

import json
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any, Self

from tests.support import Client, Node, Origin, Record, Response


class Edge:
    """The node and its origins; a context manager."""

    def __init__(self, *, tables: dict[str, Any] | None = None, **settings: Mapping[str, Any]) -> None:
        """`settings` are the origins' by name: keys of [[origin]], and `route` (keys of the route `/NAME/*`).

        An origin without `urls` gets a scripted one of its own; `tables` are the node's other tables.
        """
        self._settings = settings
        self._tables = tables or {}
        self._stack = ExitStack()
        self.origins: dict[str, Origin] = {}
        self.node: Node

    def __enter__(self) -> Self:
        try:
            parts = [self._origin(name, dict(settings)) for name, settings in self._settings.items()]
            self.node = self._stack.enter_context(Node(toml="\n".join(parts), **self._tables))
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def __getitem__(self, name: str) -> Origin:
        return self.origins[name]

    def _origin(self, name: str, settings: dict[str, Any]) -> str:
        route = settings.pop("route", {})
        if "urls" not in settings:
            origin = self.origins[name] = self._stack.enter_context(Origin())
            settings["urls"] = [origin.url]
        keys = "".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items())
        cache = "".join(f"cache.{key} = {_toml(value)}\n" for key, value in route.items())
        return f'[[origin]]\nname = "{name}"\n{keys}[[route]]\nmatch = "/{name}/*"\norigin = "{name}"\n{cache}'

    def connect(self, **options: Any) -> Client:
        """A raw client's connection to the node."""
        return self.node.connect(**options)

    def get(self, target: str, *fields: str, method: str = "GET", body: bytes = b"") -> Response:
        """One request on a connection of its own, and its response."""
        with self.node.connect() as client:
            return client.get(target, *fields, method=method, body=body)

    def record(self, response: Response) -> Record:
        """The access-log line of a response."""
        return self.node.record(response.trace_id)

    def settle(self) -> None:
        """Return when the worker has handled all that was sent to it before: a round trip without an origin."""
        assert self.get("/no-such-route").status == 404


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {_toml(one)}" for key, one in value.items()) + "}"
    return json.dumps(value)
