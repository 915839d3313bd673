"""A node's processes as a whole: the workers of the generation that serves, those that drain, the scribe, the sockets.

Puts a new generation in an old one's place without refusing a connection: the new workers accept on the same sockets
before the old ones stop to. Why there is a new generation is the supervisor's business.
"""

import asyncio
import contextlib
import os
import signal

import msgspec

from edgeproxy.config import Config
from edgeproxy.ledger import ledger_files
from edgeproxy.node.control import Control, ControlWord
from edgeproxy.node.crew import Crew
from edgeproxy.node.errors import NodeError
from edgeproxy.node.process import Keeper, Program
from edgeproxy.node.runtime import RuntimeDir
from edgeproxy.node.sockets import Listeners
from edgeproxy.node.storage import Suspicion, storage_paths
from edgeproxy.node.workers import worker_count

SCRIBE_PATIENCE_S = 10.0
"""How long the scribe may take to write what is left in the ledgers."""
SURPLUS_GRACE_S = 1.0
"""How long a socket that is to go keeps its worker, for handshakes that were under way."""
SURPLUS_PATIENCE_S = 5.0
_POLL_S = 0.05


class Programs:
    """Which modules the processes run."""

    def __init__(self, worker: str = "edgeproxy.node.worker", scribe: str = "edgeproxy.node.scribe") -> None:
        """The node's own, unless a test has others."""
        self.worker = worker
        self.scribe = scribe


class Fleet:
    """The processes of a node and the sockets that they serve."""

    def __init__(self, runtime: RuntimeDir, listeners: Listeners, control: Control, programs: Programs) -> None:
        """Take the sockets, which must be open, and the control page; nothing is started yet."""
        self._runtime = runtime
        self._listeners = listeners
        self._control = control
        self._programs = programs
        self._crew: Crew | None = None
        self._config: Config | None = None
        self._scribe: Keeper | None = None
        self._leaving: dict[asyncio.Task[None], Crew] = {}
        self._suspicion = Suspicion()

    @property
    def address(self) -> str:
        """Where clients connect, as bound."""
        return self._listeners.address

    @property
    def workers(self) -> list[int]:
        """Pids of the workers that serve, by index; 0 where one is being replaced."""
        return self._crew.pids if self._crew else []

    @property
    def scribe(self) -> int:
        """The scribe's pid; 0 while there is none."""
        return self._scribe.pid if self._scribe else 0

    async def start(self, config: Config) -> None:
        """Start everything. Raises StartError; what was started by then is `stop`'s to end."""
        self._write_config(1, config)
        self._config = config
        self._crew = self._new_crew(1, self._listeners, config)
        self._scribe = self._new_scribe(1)
        self._publish(self._crew)
        await asyncio.gather(self._scribe.start(), self._crew.start())

    async def switch(self, config: Config) -> None:
        """Put a new generation in the present one's place.

        Raises NodeError, with the present one untouched, when the new address can't be had or the workers don't start.
        """
        assert self._crew  # noqa: S101  only a started fleet is told to switch
        old = self._crew
        workers = worker_count(config)
        same = config.listen.http == self._listeners.configured
        before = len(self._listeners)
        listeners = self._listeners if same else Listeners(config.listen.http, config.listen.backlog)
        if same:
            listeners.extend(workers)
        else:
            listeners.open(workers)
        try:
            self._write_config(old.generation + 1, config)
            crew = self._new_crew(old.generation + 1, listeners, config)
            await crew.start()
        except BaseException:
            listeners.close_from(before if same else 0)
            raise
        self._crew = crew
        self._config = config
        self._publish(crew)
        await self._hand_over(old, crew, config)

    async def _hand_over(self, old: Crew, new: Crew, config: Config) -> None:
        """The new workers accept: let the old ones go."""
        leave = asyncio.Event()
        self._let_go(old, leave)
        try:
            if new.listeners is self._listeners:
                self._listeners.set_backlog(config.listen.backlog)
                if len(old) != len(new):
                    self._listeners.spread(len(new))
                await self._empty_surplus(len(new))
            else:
                # Closed before its workers are told to go: nobody is to be left waiting on a socket that none serves.
                self._listeners.close()
                self._listeners = new.listeners
        finally:
            leave.set()
        if self._scribe:
            await self._scribe.stop(_scribe_patience_s(config))
        self._scribe = self._new_scribe(new.generation)
        self._scribe.launch()

    async def _empty_surplus(self, count: int) -> None:
        """Wait until the old workers have taken what waits on the sockets from `count` on, and close those."""
        surplus = range(count, len(self._listeners))
        if not surplus:
            return
        await asyncio.sleep(SURPLUS_GRACE_S)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SURPLUS_PATIENCE_S):
                while any(self._listeners.waiting(index) for index in surplus):  # noqa: ASYNC110  the kernel tells nobody
                    await asyncio.sleep(_POLL_S)
        self._listeners.close_from(count)

    async def stop(self) -> None:
        """Let the workers drain, then the scribe write what they left."""
        self._listeners.close()
        if self._crew:
            self._let_go(self._crew)
        if self._leaving:
            await asyncio.wait(self._leaving)
        for leftover in self._runtime.path.glob("worker-*.sock"):
            leftover.unlink(missing_ok=True)
        if self._scribe:
            await self._scribe.stop(_scribe_patience_s(self._config))
        if self._config and ledger_files(self._runtime.path):
            await self._write_rest(self._config)
        self._control.set(ControlWord.SCRIBE_PID, 0)

    async def _write_rest(self, config: Config) -> None:
        """Have one more scribe write what is left where the last one went before the workers, as in a switch."""
        generation = self._control.generation
        scribe = self._new_scribe(generation)
        with contextlib.suppress(NodeError):
            self._write_config(generation, config)  # it went with the workers
            await scribe.start()
        await scribe.stop(_scribe_patience_s(config))
        self._runtime.config(generation).unlink(missing_ok=True)

    def hurry(self) -> None:
        """Wait for no client any more."""
        for crew in self._leaving.values():
            crew.kill()

    def reopen_log(self) -> None:
        """Have the scribe open the access log anew."""
        if self._scribe:
            self._scribe.signal(signal.SIGUSR1)

    def _let_go(self, crew: Crew, leave: asyncio.Event | None = None) -> None:
        async def end() -> None:
            if leave:
                await leave.wait()
            await crew.stop()

        task = asyncio.create_task(end(), name=f"end generation {crew.generation}")
        self._leaving[task] = crew
        task.add_done_callback(self._leaving.pop)

    def _publish(self, crew: Crew) -> None:
        self._control.set(ControlWord.GENERATION, crew.generation)
        self._control.set(ControlWord.WORKERS, len(crew))

    def _new_crew(self, generation: int, listeners: Listeners, config: Config) -> Crew:
        return Crew(
            self._programs.worker,
            generation,
            self._runtime,
            listeners,
            workers=worker_count(config),
            drain_timeout_s=config.limits.drain_timeout,
            on_death=self._worker_died,
        )

    def _worker_died(self, code: int) -> None:
        self._control.add(ControlWord.WORKER_RESTARTS)
        if self._config:
            self._suspicion.note(code, self._config, self._runtime.path)

    def _new_scribe(self, generation: int) -> Keeper:
        arguments = ("--config", str(self._runtime.config(generation)), "--runtime-dir", str(self._runtime.path))
        return Keeper(
            Program("scribe", self._programs.scribe, arguments),
            on_death=lambda _code: self._control.add(ControlWord.SCRIBE_RESTARTS),
            on_pid=lambda pid: self._control.set(ControlWord.SCRIBE_PID, pid),
        )

    def _write_config(self, generation: int, config: Config) -> None:
        """Write the effective configuration, which workers and scribe read whenever they start; it may hold secrets.

        Where the cache lies is written out: a command that is run in another user's environment finds it, too.
        """
        if config.cache.store == "embedded":
            directory = str(storage_paths(config, self._runtime.path).directory)
            config = msgspec.structs.replace(config, cache=msgspec.structs.replace(config.cache, path=directory))
        path = self._runtime.config(generation)
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(fd, "wb") as file:
                file.write(config.to_json())
        except OSError as error:
            raise NodeError(f"{path} can't be written: {error.strerror}") from error


def _scribe_patience_s(config: Config | None) -> float:
    """How long a scribe may take to end: what is left to write, and to export."""
    return SCRIBE_PATIENCE_S + (config.tracing.batch.flush_timeout if config else 0.0)
