"""A child process, and a keeper that replaces it when it dies.

Knows how the node's programs are started, how they say that they are ready, and how they are ended. What they do, and
which of them a node has, is not known here.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import structlog

import edgeproxy
from edgeproxy.node.errors import StartError

READY_TIMEOUT_S = 30.0
QUICK_DEATH_S = 5.0
"""A process that lived shorter than this died quickly."""
QUICK_DEATHS = 5
"""That many quick deaths in a row, and the next start waits."""
BACK_OFF_S = 1.0

_log = structlog.get_logger()


class Program(NamedTuple):
    """A module to run as a process of the node.

    It is given `--ready-fd`, and writes a byte there once it does its work.
    """

    name: str
    """For the log: "worker 0"."""
    module: str
    arguments: tuple[str, ...]
    fds: tuple[int, ...] = ()
    """Descriptors that the process inherits, under the same numbers."""


class Process:
    """A running child: its pid, when it is ready, when and how it ended."""

    def __init__(self, program: Program) -> None:
        """Start it, in a session of its own: Ctrl-C at a terminal is the supervisor's to act on. Raises OSError."""
        self.program = program
        self.started = time.monotonic()
        loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[bool] = loop.create_future()
        """True once it does its work, False when it died before."""
        self.exited: asyncio.Future[int] = loop.create_future()
        """Its exit code, negative for the signal that killed it."""
        arguments = [*python_command(program.module), *program.arguments]
        self._pipe, theirs = os.pipe()
        arguments += ["--ready-fd", str(theirs)]
        try:
            self._popen = _popen(arguments, (*program.fds, theirs))
        except OSError:
            os.close(self._pipe)
            raise
        finally:
            os.close(theirs)
        os.set_blocking(self._pipe, False)
        loop.add_reader(self._pipe, self._announced)
        self.pid = self._popen.pid
        self._pidfd = os.pidfd_open(self.pid)
        loop.add_reader(self._pidfd, self._reap)

    def _announced(self) -> None:
        if self._pipe < 0:
            return
        said = b""
        with contextlib.suppress(BlockingIOError):
            said = os.read(self._pipe, 1)
        asyncio.get_running_loop().remove_reader(self._pipe)
        os.close(self._pipe)
        self._pipe = -1
        self.ready.set_result(bool(said))

    def _reap(self) -> None:
        code = self._popen.wait()
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._announced()
        self.exited.set_result(code)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal; nothing happens when it is dead."""
        with contextlib.suppress(ProcessLookupError):
            self._popen.send_signal(number)

    async def wait_ready(self) -> bool:
        """Wait until it does its work; one that takes too long is killed. False when it died instead."""
        with contextlib.suppress(TimeoutError):
            return await asyncio.wait_for(asyncio.shield(self.ready), READY_TIMEOUT_S)
        _log.error("process_not_ready", name=self.program.name, pid=self.pid, timeout_s=READY_TIMEOUT_S)
        self.signal(signal.SIGKILL)
        await asyncio.shield(self.exited)
        return False

    async def stop(self, patience_s: float) -> int:
        """Ask it to end, wait, and kill it when it takes longer than `patience_s`; its exit code."""
        self.signal(signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            return await asyncio.wait_for(asyncio.shield(self.exited), patience_s)
        _log.error("process_killed", name=self.program.name, pid=self.pid, reason="did not end", patience_s=patience_s)
        self.signal(signal.SIGKILL)
        return await asyncio.shield(self.exited)


class Keeper:
    """Keeps one program running: replaces its process at once when it dies, until told to stop."""

    def __init__(
        self, program: Program, *, on_death: Callable[[int], None], on_pid: Callable[[int], None] = lambda _pid: None
    ) -> None:
        """`on_death` hears the exit code of each process that ended without being asked to, `on_pid` each new pid, 0 in
        between.
        """
        self.program = program
        self._on_death = on_death
        self._on_pid = on_pid
        self._process: Process | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        """The process's pid, 0 while there is none."""
        return self._process.pid if self._process else 0

    async def start(self) -> None:
        """Start the program and wait until it does its work. Raises StartError when it does not come to that."""
        name = self.program.name
        try:
            process = self._spawn()
        except OSError as error:
            raise StartError(f"{name} can't be started: {error}") from error
        if not await process.wait_ready():
            self._gone()
            raise StartError(f"{name} ended before it was ready ({describe_exit(await process.exited)})")
        _log.info("process_ready", name=name, pid=process.pid, after_ms=_since_ms(process))
        self._task = asyncio.create_task(self._keep(process), name=f"keep {name}")

    def launch(self) -> None:
        """Start the program and keep at it: it need not come to its work at once."""
        self._task = asyncio.create_task(self._launch(), name=f"keep {self.program.name}")

    async def _launch(self) -> None:
        process = await self._replace(0.0)
        if await process.wait_ready():
            _log.info("process_ready", name=self.program.name, pid=process.pid, after_ms=_since_ms(process))
        await self._keep(process)

    def signal(self, number: signal.Signals) -> None:
        """Send the process a signal, if there is one."""
        if self._process:
            self._process.signal(number)

    async def stop(self, patience_s: float) -> None:
        """End the process for good: SIGTERM, and SIGKILL when it takes longer than `patience_s`."""
        if self._task:
            self._task.cancel()
            await asyncio.wait([self._task])
        if process := self._process:
            code = await process.stop(patience_s)
            self._gone()
            _log.info("process_ended", name=self.program.name, pid=process.pid, how=describe_exit(code))

    def kill(self) -> None:
        """Make an end of waiting for a process that was told to stop."""
        self.signal(signal.SIGKILL)

    def _spawn(self) -> Process:
        self._process = process = Process(self.program)
        self._on_pid(process.pid)
        return process

    def _gone(self) -> None:
        self._process = None
        self._on_pid(0)

    async def _keep(self, process: Process) -> None:
        quick = 0
        name = self.program.name
        while True:
            code = await asyncio.shield(process.exited)
            self._gone()
            self._on_death(code)
            lived_s = round(time.monotonic() - process.started, 3)
            quick = quick + 1 if lived_s < QUICK_DEATH_S else 0
            how = describe_exit(code)
            _log.error("process_died", name=name, pid=process.pid, how=how, lived_s=lived_s, quick=quick)
            process = await self._replace(BACK_OFF_S if quick >= QUICK_DEATHS else 0.0)
            if await process.wait_ready():
                _log.info("process_replaced", name=name, pid=process.pid, after_ms=_since_ms(process))

    async def _replace(self, delay_s: float) -> Process:
        while True:
            await asyncio.sleep(delay_s)
            try:
                return self._spawn()
            except OSError as error:
                # No memory, or no more processes: the node lives on with what it has, and this is tried again.
                _log.error("process_not_started", name=self.program.name, error=str(error))
                delay_s = BACK_OFF_S


def describe_exit(code: int) -> str:
    """How a process ended, in words."""
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"killed by {signal.Signals(-code).name}"
        return f"killed by signal {-code}"
    return f"exit code {code}"


def _since_ms(process: Process) -> int:
    return round((time.monotonic() - process.started) * 1000)


def python_command(module: str) -> list[str]:
    """How to run a module of this package in a process of its own."""
    # -P: what lies in the working directory must not stand in for a module. Only a checkout that was never installed
    # has the package itself there.
    here = Path(edgeproxy.__file__).parents[1] == Path.cwd()
    return [sys.executable, *([] if here else ["-P"]), "-m", module]


def _popen(arguments: list[str], fds: tuple[int, ...]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(arguments, stdin=subprocess.DEVNULL, pass_fds=fds, start_new_session=True)
