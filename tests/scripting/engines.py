"""The two engines that run mitmproxy scripts: the node, and stock mitmdump. What is a mitmproxy script runs on both.

with engine("mitmdump", origin.url, SCRIPT, options={"header_value": "x"}) as proxy:
    assert proxy.get("/").status == 200
"""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, Self

from tests.support import Client, Node, Response, until

type Value = bool | int | float | str | list[str]
ENGINES = ("fast", "mitmdump")
_LISTENS = re.compile(r"listening at (?:http://)?(?:\S*?):(\d+)")
_RUN = "from mitmproxy.tools.main import mitmdump; mitmdump()"


class Engine(Protocol):
    """What tests need of either."""

    @property
    def name(self) -> str: ...
    @property
    def said(self) -> str:
        """What scripts logged and printed."""
        ...

    def connect(self) -> Client: ...
    def stop(self) -> object: ...


class Mitmdump:
    """Stock mitmdump as a reverse proxy of an origin, with scripts and nothing of edgeproxy's; a context manager."""

    name = "mitmdump"

    def __init__(self, origin: str, *scripts: Path, options: Mapping[str, Value] | None = None) -> None:
        """`options` are those of the scripts."""
        self.folder = Path(tempfile.mkdtemp(prefix="edgeproxy-mitmdump-"))
        self.port = 0
        sets = [f"{key}={text}" for key, value in (options or {}).items() for text in _texts(value)]
        self._command = [
            *(sys.executable, "-c", _RUN, "--mode", f"reverse:{origin}", "--listen-host", "127.0.0.1"),
            *("--listen-port", "0", "--set", f"confdir={self.folder}", "--set", "keep_host_header=true"),
            *("--set", "flow_detail=0", "--set", "termlog_verbosity=debug"),
            *(part for script in scripts for part in ("-s", str(script))),
            *(part for text in sets for part in ("--set", text)),
        ]
        self._output = self.folder / "output"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        environ = {**os.environ, "PYTHONUNBUFFERED": "1"}
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environ
            )
        try:
            self.port = int(until(self._listening, "mitmdump to listen")[1])
        except BaseException:
            self.__exit__()
            raise
        return self

    def _listening(self) -> re.Match[str] | None:
        assert self._process is not None
        assert self._process.poll() is None, self.said
        return _LISTENS.search(self.said)

    def stop(self) -> None:
        """End it in order, so that scripts see `done`."""
        if self._process and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(20)
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait()

    def __exit__(self, *_: object) -> None:
        try:
            self.stop()
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def said(self) -> str:
        """All that it and its scripts wrote."""
        return self._output.read_text(errors="replace") if self._output.exists() else ""

    def connect(self) -> Client:
        """A raw client's connection."""
        return Client(self.port)


class Fast:
    """A node with scripts; a context manager."""

    name = "fast"

    def __init__(self, origin: str, *scripts: Path, options: Mapping[str, Value] | None = None, **tables: Any) -> None:
        """`tables` are further ones of the node's, `addons` among them."""
        addons = {"scripts": [str(script) for script in scripts], "options": dict(options or {})}
        self.node = Node(origin, addons={**addons, **tables.pop("addons", {})}, **tables)

    def __enter__(self) -> Self:
        self.node.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.node.__exit__()

    def stop(self) -> int:
        """End it in order."""
        return self.node.stop()

    @property
    def said(self) -> str:
        """What its processes wrote; its scripts' words are in there as events."""
        return self.node.stderr

    def connect(self) -> Client:
        """A raw client's connection."""
        return self.node.connect()


@contextlib.contextmanager
def engine(
    name: str, origin: str, *scripts: Path, options: Mapping[str, Value] | None = None, **tables: Any
) -> Iterator[Engine]:
    """One of the two, running; `tables` are for the node alone."""
    if name == "fast":
        with Fast(origin, *scripts, options=options, **tables) as fast:
            yield fast
    else:
        with Mitmdump(origin, *scripts, options=options) as mitmdump:
            yield mitmdump


def get(proxy: Engine | Node, target: str, *fields: str, host: str = "", **options: Any) -> Response:
    """One request on a connection of its own."""
    from tests.support import request

    method, body = options.get("method", "GET"), options.get("body", b"")
    with proxy.connect() as client:
        named = {"host": host} if host else {}
        return client.send(request(target, *fields, method=method, body=body, **named)).response(method)


def _texts(value: Value) -> Sequence[str]:
    """As `--set` takes values: a list an item each."""
    if isinstance(value, list):
        return value
    return [json.dumps(value)] if isinstance(value, bool) else [str(value)]
