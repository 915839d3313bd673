"""The supervisor: starts a node, follows what changes around it, and ends it. It never touches a request.

It owns the runtime directory and the control page, and answers signals. What the configuration says is `source`'s to
know, what becomes of processes and sockets is `fleet`'s.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Coroutine
from pathlib import Path

import msgspec
import structlog

from edgeproxy.config import SettingsError, TracingSettings
from edgeproxy.logging.app import configure
from edgeproxy.node.control import Control, ControlWord, Description, NodeState
from edgeproxy.node.errors import NodeError, RuntimeDirError
from edgeproxy.node.fleet import Fleet, Programs
from edgeproxy.node.notify import Notifier
from edgeproxy.node.runtime import RuntimeDir
from edgeproxy.node.sockets import Listeners
from edgeproxy.node.source import Effective, Source
from edgeproxy.node.storage import Storage, storage_paths
from edgeproxy.node.strategies import strategies_of
from edgeproxy.node.tracing import put_settings, remove_settings
from edgeproxy.node.watch import changes
from edgeproxy.node.workers import worker_count

ORPHAN_PATIENCE_S = 5.0
"""How long the workers of a supervisor that was killed may still hold the address; they leave when they notice."""

_log = structlog.get_logger()


class Supervisor:
    """A node, from its runtime directory to its last process."""

    def __init__(
        self,
        source: Source,
        *,
        programs: Programs | None = None,
        stop_signals: tuple[signal.Signals, ...] = (signal.SIGINT, signal.SIGTERM),
        on_ready: Callable[[Description], None] = lambda _description: None,
    ) -> None:
        """Say what to run, which signals end it, and whom to tell once it serves."""
        self._source = source
        self._programs = programs or Programs()
        self._stop_signals = stop_signals
        self._on_ready = on_ready
        self._notifier = Notifier(os.environ)
        self._told_to_stop = asyncio.Event()
        self._told_to_reload = asyncio.Event()
        self._refused = {"environment": "", "configuration": ""}
        self._description = Description()
        self._effective: Effective
        self._put_up: TracingSettings
        self._control: Control
        self._fleet: Fleet
        self._runtime: RuntimeDir

    async def run(self) -> None:
        """Run the node until it is told to stop. Raises SettingsError or NodeError when it can't be started."""
        self._hear_signals()
        self._effective = self._source.read()
        configure(self._effective.config.log.level, process="supervisor")
        runtime = RuntimeDir.resolve(self._effective.config.node.runtime_dir, os.environ)
        runtime.prepare()
        lock = runtime.lock()
        try:
            self._open(runtime)
            with contextlib.ExitStack() as held:
                await self._serve(runtime, held)
        finally:
            os.close(lock)

    def _open(self, runtime: RuntimeDir) -> None:
        """Take the address and put up the control page."""
        config = self._effective.config
        listeners = Listeners(config.listen.http, config.listen.backlog)
        # A clean stop removes the page: where there is one, workers of a killed supervisor may still be leaving.
        listeners.open(worker_count(config), patience_s=ORPHAN_PATIENCE_S if runtime.control.exists() else 0.0)
        for leftover in runtime.path.glob("config-*.json"):
            leftover.unlink(missing_ok=True)
        try:
            self._control = Control.create(runtime.control)
            runtime.strategies.parent.mkdir(mode=0o700, exist_ok=True)
            self._put_up = self._wanted_tracing(runtime)
            put_settings(runtime, self._control, self._put_up)
        except OSError as error:
            listeners.close()
            raise RuntimeDirError(f"{runtime.control} can't be made: {error.strerror}") from error
        except RuntimeDirError:
            listeners.close()
            raise
        self._runtime = runtime
        self._fleet = Fleet(runtime, listeners, self._control, self._programs)
        self._describe()

    def _hear_signals(self) -> None:
        """Make signals events of the loop; its first turn comes when all that the handlers ask for is there."""
        loop = asyncio.get_running_loop()
        handlers: dict[signal.Signals, Callable[[], None]] = {
            signal.SIGHUP: self._told_to_reload.set,
            signal.SIGUSR1: self._reopen_log,
            **dict.fromkeys(self._stop_signals, self._stop),
        }
        for number, handler in handlers.items():
            loop.add_signal_handler(number, handler)

    def _reopen_log(self) -> None:
        self._fleet.reopen_log()

    async def _serve(self, runtime: RuntimeDir, held: contextlib.ExitStack) -> None:
        """Serve until told to stop; what is `held` is let go of after the last process has ended."""
        try:
            held.callback(Storage.take(self._effective.config, runtime.path).close)
            await self._until_stopped(self._start(runtime))
            if not self._told_to_stop.is_set():
                await self._until_stopped(self._follow())
        finally:
            self._notifier.stopping()
            self._control.set(ControlWord.STATE, NodeState.STOPPING)
            _log.info("node_stopping")
            await self._fleet.stop()
            self._control.set(ControlWord.STATE, NodeState.STOPPED)
            runtime.control.unlink(missing_ok=True)
            remove_settings(runtime)
            with contextlib.suppress(OSError):  # what strategies there are stays
                runtime.strategies.parent.rmdir()
            _log.info("node_stopped")

    async def _until_stopped(self, work: Coroutine[None, None, None]) -> None:
        """Do `work`, but no longer than until the node is told to stop."""
        task = asyncio.create_task(work)
        stop = asyncio.create_task(self._told_to_stop.wait())
        await asyncio.wait((task, stop), return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    def _stop(self) -> None:
        if self._told_to_stop.is_set():
            self._fleet.hurry()  # told twice
        self._told_to_stop.set()

    async def _start(self, runtime: RuntimeDir) -> None:
        await self._fleet.start(self._effective.config)
        self._control.set(ControlWord.STATE, NodeState.RUNNING)
        described = self._description
        self._notifier.ready(self._status())
        _log.info(
            "node_ready",
            node=described.node,
            listen=described.listen,
            admin=described.admin,
            workers=self._fleet.workers,
            scribe=self._fleet.scribe,
            tracing=self._control.tracing().enabled,
            config=described.config,
            env_file=described.env_file,
            runtime_dir=runtime.path,
        )
        self._on_ready(described)

    async def _follow(self) -> None:
        """Follow what changes around the node, for as long as it runs."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow_env_file())
            group.create_task(self._follow_strategies())
            group.create_task(self._follow_signals())
            if self._notifier.watchdog_s:
                group.create_task(self._feed_watchdog())

    async def _follow_env_file(self) -> None:
        async for _ in changes(self._source.env_file):
            self._toggle()  # in the middle of a reload, too: nobody waits for that

    async def _follow_strategies(self) -> None:
        async for _ in changes(self._runtime.strategies):
            try:
                self._apply_tracing()
            except RuntimeDirError as error:
                _log.error("strategies_refused", code=error.code, error=str(error))

    async def _follow_signals(self) -> None:
        while True:
            await self._told_to_reload.wait()
            self._told_to_reload.clear()
            self._notifier.reloading()
            self._control.set(ControlWord.STATE, NodeState.RELOADING)
            await self._reload()
            self._control.set(ControlWord.STATE, NodeState.RUNNING)
            self._notifier.ready(self._status())

    async def _feed_watchdog(self) -> None:
        while True:
            self._notifier.watchdog()
            await asyncio.sleep(self._notifier.watchdog_s / 2)

    def _toggle(self) -> bool:
        """Act on the environment file alone: tracing on or off, sampler, ratio. False when it is refused."""
        seen = self._source.fingerprint()
        try:
            settings = self._source.read_tracing(self._effective.config)
        except SettingsError as error:
            self._effective = msgspec.structs.replace(self._effective, seen=seen)
            self._refuse("environment", error)
            return False
        self._effective = msgspec.structs.replace(self._effective, tracing=settings, seen=seen)
        try:
            self._apply_tracing()
        except RuntimeDirError as error:
            self._refuse("environment", error)
            return False
        self._refused["environment"] = ""
        self._describe()
        return True

    async def _reload(self) -> None:
        """Act on everything: environment file and configuration; new workers only if the latter changed."""
        if not self._toggle():
            return
        try:
            wanted = self._source.read()
            self._check_change(wanted)
            if wanted.needs_other_processes_than(self._effective):
                await self._fleet.switch(wanted.config)
        except (SettingsError, NodeError) as error:
            self._refuse("configuration", error)
            return
        self._effective = msgspec.structs.replace(self._effective, config=wanted.config)
        self._refused["configuration"] = ""
        configure(wanted.config.log.level, process="supervisor")
        self._toggle()  # on top of the new configuration, and of what the environment file says by now
        _log.info("reloaded", generation=self._control.generation, listen=self._description.listen)

    def _check_change(self, wanted: Effective) -> None:
        if wanted.config.node.runtime_dir != self._effective.config.node.runtime_dir:
            raise NodeError("node.runtime_dir can't change while the node runs: stop it, then start it")
        path = RuntimeDir.resolve(wanted.config.node.runtime_dir, os.environ).path
        if storage_paths(wanted.config, path) != storage_paths(self._effective.config, path):
            raise NodeError("cache.store and cache.path can't change while the node runs: stop it, then start it")

    def _apply_tracing(self) -> None:
        wanted = self._wanted_tracing(self._runtime)
        if wanted != self._put_up:
            epoch = put_settings(self._runtime, self._control, wanted)
            self._put_up = wanted
            _log.info(
                "tracing_changed",
                on=wanted.enabled,
                sampler=wanted.sampler,
                ratio=wanted.ratio,
                exporters=wanted.exporters,
                epoch=epoch,
            )

    def _wanted_tracing(self, runtime: RuntimeDir) -> TracingSettings:
        """The tracing settings with the last good strategies of their url in them."""
        tracing = self._effective.tracing
        strategies = strategies_of(runtime.strategies, tracing.sampling.remote_url)
        return msgspec.structs.replace(tracing, strategies=strategies)

    def _refuse(self, what: str, error: Exception) -> None:
        """Nothing changes, and everybody is told why."""
        self._control.add(ControlWord.RELOAD_ERRORS)
        self._refused[what] = message = str(error)
        self._describe()
        _log.error(
            f"{what}_refused", code=getattr(error, "code", "os"), error=message, generation=self._control.generation
        )

    def _describe(self) -> None:
        """Say what the node is now, and what it refuses to be."""
        config = self._effective.config
        access = config.log.access
        self._description = Description(
            node=config.node.name or os.uname().nodename,
            listen=(self._fleet.address,),
            admin=config.admin.listen,
            config=str(self._source.config_path or ""),
            env_file=str(self._source.env_file),
            env_seen=self._effective.seen,
            access_log=access if access == "-" else str(Path(access).absolute()),
            last_error="\n".join(filter(None, self._refused.values())),
        )
        self._control.set_description(self._description)

    def _status(self) -> str:
        tracing = "on" if self._control.tracing().enabled else "off"
        return f"{len(self._fleet.workers)} workers on {self._fleet.address}, tracing {tracing}"
