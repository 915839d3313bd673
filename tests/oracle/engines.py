"""The two engines as the oracle drives them: real processes on one configuration, each with an origin of its own.

Both cache in memory alone and log to a file; what they log is read here, by sequence.
"""

import json
import os
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol, Self

from tests.addons import mitmdump
from tests.oracle.clock import Clock
from tests.oracle.resources import Resource
from tests.oracle.routes import ROUTES
from tests.oracle.scripted import SEQUENCE, ScriptedOrigin
from tests.support import Node, Record


class Engine(Protocol):
    """An edge in front of its scripted origin; a context manager."""

    name: str
    origin: ScriptedOrigin
    log: "Log"
    port: int

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


class Log:
    """An access log that is being written, as records by the sequence that their path names."""

    def __init__(self, path: Path) -> None:
        """Read this file from its beginning; it need not be there yet."""
        self._path = path
        self._offset = 0
        self._lock = threading.Lock()
        self._by_sequence: dict[int, list[Record]] = {}
        self._by_span: dict[str, Record] = {}

    def of_span(self, span_id: str) -> Record | None:
        """The record of the request with that span id; one that was not read has no path, so no sequence."""
        with self._lock:
            self._read()
            return self._by_span.get(span_id)

    def records(self, sequence: int) -> list[Record]:
        """A sequence's records so far, in order."""
        with self._lock:
            self._read()
            return list(self._by_sequence.get(sequence, ()))

    def refreshed(self, sequence: int, span_id: str) -> Record | None:
        """The record of the background fetch that the request of that span caused."""
        found = (record for record in self.records(sequence) if span_id in (record["caused_by"] or ""))
        return next(found, None)

    def _read(self) -> None:
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._offset)
            lines = file.read().rpartition(b"\n")[0]
        self._offset += len(lines) + bool(lines)
        for line in lines.splitlines():
            record = json.loads(line)
            self._by_span[record["span_id"]] = record
            number = SEQUENCE.search(record["path"] or "")
            if number is not None:
                self._by_sequence.setdefault(int(number[1]), []).append(record)


Changes = Mapping[str, Mapping[str, object]]
"""Tables of the configuration, with the keys that are not as they are for both."""
_AS_IT_IS: Changes = {}


_ROUTED: Mapping[str, Any] = {"toml": ROUTES, "default_route": False}


def _tables(changes: Changes, script: Path | None) -> dict[str, Any]:
    """The configuration that both engines go by."""
    tables: dict[str, Any] = {
        "cache": {"store": "memory"},
        "log": {"request_headers": ["accept-language", "x-tenant", "via"]},
    }
    if script is not None:
        tables["addons"] = {"scripts": [str(script)]}
    for name, table in changes.items():
        tables.setdefault(name, {}).update(table)
    return tables


class FastNode:
    """The node itself."""

    def __init__(
        self,
        clock: Clock,
        resources: Iterable[Resource],
        changes: Changes = _AS_IT_IS,
        script: Path | None = None,
        name: str = "node",
    ) -> None:
        """Prepare it."""
        self.name = name
        self.origin = ScriptedOrigin(clock, resources)
        self._node = Node(self.origin.url, environ=clock.environ, **_tables(changes, script), **_ROUTED)
        self.log = Log(self._node.access_log)
        self.port = 0

    def __enter__(self) -> Self:
        self._node.__enter__()
        self.port = self._node.port
        return self

    def __exit__(self, *_: object) -> None:
        self._node.__exit__()
        self.origin.__exit__()


class Mitmdump:
    """Stock mitmdump with the addons of `edgeproxy.addons`."""

    def __init__(
        self,
        clock: Clock,
        resources: Iterable[Resource],
        changes: Changes = _AS_IT_IS,
        script: Path | None = None,
    ) -> None:
        """Prepare it."""
        self.name = "mitmdump"
        self.origin = ScriptedOrigin(clock, resources)
        scripts: list[str | Path] = ["all", *([] if script is None else [script])]
        environ = {"EDGEPROXY_ENV_FILE": os.devnull, **clock.environ}
        self._mitmdump = mitmdump.Mitmdump(
            self.origin.url, scripts=scripts, environ=environ, **_tables(changes, script), **_ROUTED
        )
        self.log = Log(self._mitmdump.access_log)
        self.port = 0

    def __enter__(self) -> Self:
        self._mitmdump.__enter__()
        self.port = self._mitmdump.port
        return self

    def __exit__(self, *_: object) -> None:
        self._mitmdump.__exit__()
        self.origin.__exit__()
