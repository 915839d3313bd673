"""Nodes that tests share, each test with scripts of its own: a node takes changed scripts without a restart, and it is
starts that take time.

    with SharedNodes() as nodes:
        with nodes.running("def request(flow): …") as proxy:      # starts a node for one script
            get(proxy, "/a")
        with nodes.running("…", "…", addons={"hits": False}):     # another, for two scripts and with this configuration
            ...

What a node has said and logged begins anew with each `running`, and so does the origin. What it has stored stays: tests
have paths of their own for what may be stored. Tests of a node's start or end have a node of their own (`fresh`).
"""

import contextlib
import itertools
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from tests.scripting.engines import Fast, Value
from tests.support import Origin, Record, echo, until

_NUMBERS = itertools.count()
_IDLE = """
import logging
def running():
    logging.warning("{0}")
"""
"""What is in the place of scripts between tests: it says when it is there."""


class Changing(Fast):
    """A node whose scripts are given as their text, and may be changed; a context manager."""

    def __init__(
        self,
        origin: str,
        *texts: str,
        options: Mapping[str, Value] | None = None,
        filters: Mapping[int, str] | None = None,
        **tables: Any,
    ) -> None:
        """`filters` are those of the scripts by number, `tables` further ones of the node's, `addons` among them."""
        self.folder = Path(tempfile.mkdtemp(prefix="edgeproxy-scripts-"))
        self.scripts = [self.folder / f"script_{number}.py" for number in range(len(texts))]
        for script, text in zip(self.scripts, texts, strict=True):
            script.write_text(text, encoding="utf-8")
        by_path = {str(self.scripts[number]): expression for number, expression in (filters or {}).items()}
        addons = {"filters": by_path, **tables.pop("addons", {})}
        super().__init__(origin, *self.scripts, options=options, addons=addons, **tables)
        self._from_byte = 0
        self._from_line = 0

    def __exit__(self, *_: object) -> None:
        try:
            super().__exit__()
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def change(self, text: str, number: int = 0) -> None:
        """Change a script in one step, as editors and install do."""
        new = self.folder / "new"
        new.write_text(text, encoding="utf-8")
        new.replace(self.scripts[number])

    @contextlib.contextmanager
    def running(self, *texts: str) -> Iterator[Self]:
        """With these in the place of its scripts, one after the other: each loads or says why it does not."""
        self._from_line += len(self.node.flushed()[self._from_line :])
        self._from_byte = self.node.stderr_file.stat().st_size
        for number, text in enumerate(texts):
            before = len(self._looked_at())
            self.change(text, number)
            until(lambda before=before: len(self._looked_at()) > before, "the script to be looked at")
        try:
            yield self
        finally:
            for number in range(len(texts)):
                name = f"idle {next(_NUMBERS)}"
                self.change(_IDLE.format(name), number)
                until(lambda name=name: self.events("script_log", message=name), "the script to be gone")

    def _looked_at(self) -> list[Record]:
        return [one for one in self.events() if one["event"] in ("script_loaded", "script_not_loaded")]

    # --- what it has said and logged, since its scripts are what they are

    @property
    def said(self) -> str:
        """What its processes wrote; its scripts' words are in there as events."""
        with self.node.stderr_file.open("rb") as file:
            file.seek(self._from_byte)
            return file.read().decode(errors="replace")

    def events(self, name: str = "", **fields: Any) -> list[Record]:
        """Its own events of that name, with these fields."""
        whole = self.said.rpartition("\n")[0]
        found = [json.loads(line) for line in whole.splitlines() if line.startswith("{")]
        return [one for one in found if name in ("", one["event"]) and fields.items() <= one.items()]

    def lines(self) -> list[Record]:
        """The access log's lines."""
        return [line for line in self.node.lines() if line["path"] != "/flushed"][self._from_line :]

    def log_lines(self, count: int) -> list[Record]:
        """Wait until there are `count` lines; more than that is a failure."""
        found = until(lambda: got if len(got := self.lines()) >= count else [], f"{count} log lines")
        assert len(found) == count, [(line["method"], line["path"], line["outcome"]) for line in found]
        return found


class SharedNodes:
    """An origin, and the nodes in front of it, one for each configuration that is asked for; a context manager."""

    def __init__(self) -> None:
        self._origin = Origin()
        self._started: dict[str, Changing] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._stack.close()
        finally:
            self._origin.stop()

    def origin(self) -> Origin:
        """The origin, as if it had just been started."""
        self._origin.default = echo
        self._origin.requests.clear()
        self._origin._handlers.clear()
        return self._origin

    @contextlib.contextmanager
    def running(self, *texts: str, **configuration: Any) -> Iterator[Changing]:
        """The node of this configuration (that of `Changing`), with these scripts."""
        name = f"{len(texts)} {configuration}"
        found = self._started.get(name)
        if found is None:
            found = Changing(self._origin.url, *("" for _ in texts), **configuration)
            self._started[name] = self._stack.enter_context(found)
        with found.running(*texts) as node:
            yield node

    def fresh(self, *texts: str, **configuration: Any) -> Changing:
        """A node of one test's own, not yet started, that starts with these scripts."""
        return Changing(self._origin.url, *texts, **configuration)
