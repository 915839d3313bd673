"""What every server under measurement has in common: where it lives, how it starts and ends, what it must tell.

A server is a context manager; inside it, it listens. It knows the origin and its own files, nothing of load or
scenarios.
"""

import contextlib
import http.client
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

from bench import machine
from bench.errors import BenchError
from bench.process import Program, accepts, free_port
from bench.transfer import get

CONF = Path(__file__).resolve().parent.parent / "conf"


@dataclass(frozen=True, slots=True)
class Site:
    """Where the servers of one run live."""

    work: Path  # on disk: logs, nginx's cache; the same filesystem for every server
    shared_memory: Path  # on tmpfs: what a server keeps in shared memory by design (Varnish's log, edgeproxy's ledger)
    core: int
    origin_port: int
    redis_port: int = 0


class Server(ABC):
    """One proxy in front of the origin."""

    name: ClassVar[str]
    title: ClassVar[str]
    group: ClassVar[str] = "own"  # where it keeps what it caches; it takes part in the scenarios of that group
    cache_header: ClassVar[str]  # the response header in which it says whether it was a hit

    def __init__(self, site: Site) -> None:
        self.site = site
        self.port = free_port()
        self.folder = site.work / self.name
        self.access_log = self.folder / "access.log"
        self._programs: list[Program] = []

    @abstractmethod
    def launch(self) -> None:
        """Writes the configuration and starts the programs with `start`."""

    @abstractmethod
    def worker_pid(self) -> int:
        """The process that moves the bytes: the one whose memory is looked at."""

    @abstractmethod
    def version(self) -> str:
        """What it calls itself."""

    def start(self, *command: str, environ: Mapping[str, str] | None = None, core: int | None = None) -> Program:
        """Starts one of the server's programs on the server's core; it ends with the server."""
        core = self.site.core if core is None else core
        output = self.folder / f"{Path(command[0]).name}.output"
        program = Program(list(command), core, output, environ)
        self._programs.append(program)
        return program

    def configure(self, template: str, **values: object) -> Path:
        """Writes conf/TEMPLATE into the server's folder with every @NAME@ in it replaced."""
        values |= {
            "conf": CONF,
            "folder": self.folder,
            "origin_port": self.site.origin_port,
            "port": self.port,
            "redis_port": self.site.redis_port,
            "user": "user root;" if os.geteuid() == 0 else "",
        }
        text = (CONF / template).read_text()
        for name, value in values.items():
            text = text.replace(f"@{name.upper()}@", str(value))
        written = self.folder / template
        written.write_text(text)
        return written

    def ended(self) -> str:
        """Which of its programs has ended by itself, with its last words; empty while all run."""
        return "; ".join(f"{p.name} ended: {p.last_words()}" for p in self._programs if not p.alive)

    def said(self, words: str) -> int:
        """How often it has said that on its standard error."""
        return self._programs[0].output.read_text(errors="replace").count(words)

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def pids(self) -> set[int]:
        """Every process of the server as a whole."""
        return machine.family(*(program.pid for program in self._programs))

    def descendant(self, words: str) -> int:
        """The one process of the server whose command line has these words."""
        found = [pid for pid in self.pids() if words in machine.command_line(pid)]
        if len(found) != 1:
            told = self._programs[0].last_words()
            raise BenchError(
                f"{self.name}: {len(found)} processes with {words!r} in their command line, not one:\n{told}"
            )
        return found[0]

    def __enter__(self) -> Self:
        self.folder.mkdir()
        try:
            self.launch()
            self._programs[0].wait_ready(lambda: accepts(self.port))
            self._answer_once()
        except BaseException:
            self.stop()
            raise
        return self

    def _answer_once(self) -> None:
        """A listening socket is not yet a server: edgeproxy's supervisor listens before its worker is there."""
        try:
            get(self.port, "/echo")
        except (OSError, http.client.HTTPException) as error:
            raise BenchError(f"{self.name} listens but does not answer: {error!r}; {self.ended()}") from error

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Ends its programs, the last one started first."""
        with contextlib.ExitStack() as stack:
            for program in self._programs:
                stack.callback(program.stop)
