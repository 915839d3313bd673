"""The two engines as the oracle drives them: real processes on one configuration, each with an origin of its own.

Both cache in memory alone and log to a file; what they log is read here, by sequence.
"""

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol, Self

from tests.oracle.clock import Clock
from tests.oracle.generator import ROUTES
from tests.oracle.resources import Resource
from tests.oracle.scripted import SEQUENCE, ScriptedOrigin
from tests.support import Node, Record, until

_LISTENING = re.compile(rb"listening at (?:http://)?127\.0\.0\.1:(\d+)")
START_S = 30.0


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
            number = SEQUENCE.search(record["path"] or "")
            if number is not None:
                self._by_sequence.setdefault(int(number[1]), []).append(record)


Changes = Mapping[str, Mapping[str, object]]
"""Tables of the configuration, with the keys that are not as they are for both."""
_AS_IT_IS: Changes = {}


def _paper(origin: ScriptedOrigin, clock: Clock, changes: Changes) -> Node:
    """A node that is not started: its folder and configuration are what both engines go by."""
    tables: dict[str, Any] = {
        "cache": {"store": "memory"},
        "log": {"request_headers": ["accept-language", "x-tenant", "via"]},
    }
    for name, table in changes.items():
        tables.setdefault(name, {}).update(table)
    return Node(origin.url, toml=ROUTES, default_route=False, environ=clock.environ, **tables)


class FastNode:
    """The node itself."""

    def __init__(
        self, clock: Clock, resources: Iterable[Resource], changes: Changes = _AS_IT_IS, name: str = "node"
    ) -> None:
        """Prepare it."""
        self.name = name
        self.origin = ScriptedOrigin(clock, resources)
        self._node = _paper(self.origin, clock, changes)
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

    def __init__(self, clock: Clock, resources: Iterable[Resource], changes: Changes = _AS_IT_IS) -> None:
        """Prepare it."""
        self.name = "mitmdump"
        self.origin = ScriptedOrigin(clock, resources)
        self._paper = _paper(self.origin, clock, changes)
        outside = {name: value for name, value in os.environ.items() if not name.startswith(("EDGEPROXY_", "OTEL_"))}
        self._environ = {**outside, "EDGEPROXY_ENV_FILE": str(self._paper.env_file), **clock.environ}
        self._process: subprocess.Popen[bytes] | None = None
        self.log = Log(self._paper.access_log)
        self.port = 0

    @property
    def output(self) -> bytes:
        """What it wrote to standard output and error."""
        return self._paper.stderr_file.read_bytes()

    def __enter__(self) -> Self:
        script = subprocess.run(
            [sys.executable, "-m", "edgeproxy.addons"], check=True, capture_output=True, text=True
        ).stdout.strip()
        options = {
            "confdir": str(self._paper.folder / "mitmproxy"),
            "edge_config": str(self._paper.config_file),
            "edge_access_log": str(self._paper.access_log),
            "keep_host_header": "true",
            "flow_detail": "0",
            "http2": "false",
        }
        command = [
            *(str(Path(sys.executable).parent / "mitmdump"), "-s", script, "--mode", f"reverse:{self.origin.url}"),
            *("--listen-host", "127.0.0.1", "--listen-port", "0"),
            *(part for name, value in options.items() for part in ("--set", f"{name}={value}")),
        ]
        with self._paper.stderr_file.open("ab") as output:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=self._environ
            )
        try:
            self.port = until(self._listens, "mitmdump to listen", timeout=START_S)
        except BaseException:
            self.__exit__()
            raise
        return self

    def _listens(self) -> int:
        assert self._process is not None
        assert self._process.poll() is None, self.output.decode(errors="replace")
        found = _LISTENING.search(self.output)
        return int(found[1]) if found else 0

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._paper.__exit__()
        self.origin.__exit__()
