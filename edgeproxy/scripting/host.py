"""The scripts of one worker: loaded, configured, loaded anew when their files change, and done at its end.

A change is taken as a whole: a script that can't be loaded leaves the last good one in place. Stands in for mitmproxy's
master, so that `ctx.options`, `ctx.master.commands` and logging are what scripts know.
"""

import asyncio
import contextvars
import inspect
import time
from collections import Counter as Counts
from collections.abc import Awaitable
from functools import partial
from typing import Any

import structlog
from mitmproxy import connection
from mitmproxy.addonmanager import Loader

from edgeproxy.config import Addons
from edgeproxy.ledger import Counter
from edgeproxy.proxy.exchange import Exchange
from edgeproxy.proxy.http1 import ClientConnection
from edgeproxy.proxy.scripted import ScriptedPipeline
from edgeproxy.scripting import logs, spans
from edgeproxy.scripting.calls import Calls
from edgeproxy.scripting.chain import Chain, Hook
from edgeproxy.scripting.edge_master import EdgeMaster
from edgeproxy.scripting.errors import ScriptError, told
from edgeproxy.scripting.filters import Selector
from edgeproxy.scripting.loading import Addon, Script, Stamp, read_script, stamp_of
from edgeproxy.scripting.messages import client_of
from edgeproxy.scripting.run import FlowRun


class _AllScripts:
    """The one addon that mitmproxy's manager knows of: all others are below it."""

    name = "edgeproxy"

    def __init__(self) -> None:
        self.addons: list[Any] = []


class _Outside:
    """Hooks that are called for no request: those of connections, and of the scripts' own lives."""

    trace_id = ""

    def __init__(self) -> None:
        self.context = contextvars.copy_context()
        self.dropped: set[asyncio.Task[None]] = set()

    @property
    def failed(self) -> bool:
        """Never: each hook is called, whatever becomes of those before it."""
        return False

    @failed.setter
    def failed(self, failed: bool) -> None:
        """No request is refused for it."""

    def selects(self, hook: Hook) -> bool:
        """No filter counts."""
        del hook
        return True

    def note(self) -> None:
        """Nothing is undone."""

    def undo(self, noted: object) -> None:
        """Nothing is undone."""

    def check(self) -> None:
        """Nothing is to be used."""

    def resumed(self) -> Awaitable[None] | None:
        """Nothing can be stopped."""
        return None


class ScriptHost:
    """One worker's scripts; `proxy.scripted.Scripts` says what the pipeline's calls mean."""

    def __init__(self, settings: Addons, counters: "memoryview[int]", node: str, level: str) -> None:
        """Load nothing yet. `node` is the node's name, `level` the least of what scripts log that is kept."""
        self.node = node
        self.sees_hits = settings.hits
        self.body_bytes = settings.body_bytes
        self.is_strict = settings.on_error == "refuse"
        self.calls = Calls(counters, settings.timeout, is_strict=self.is_strict)
        self.chain = Chain({}, [], [])
        self._settings = settings
        self._counters = counters
        self._level = level
        self._scripts: dict[str, Script | None] = dict.fromkeys(settings.scripts)
        """By path, in their order; None where it was never loaded."""
        self._current: list[Script] = []
        self._users: Counts[int] = Counts()
        """In how many generations a script still is, by its module's identity."""
        self._stamps: dict[str, Stamp | None] = {}
        self._clients: dict[ClientConnection, connection.Client] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        """Hooks of clients that wait for something."""
        self._all = _AllScripts()
        self._master: EdgeMaster

    # --- their lives

    def start(self) -> None:
        """Load all scripts; from within the running loop, before the first connection."""
        logs.install(self._level)
        spans.install(self._counters)
        self._master = EdgeMaster(asyncio.get_running_loop())
        self._master.addons.chain = [self._all]
        for path in self._scripts:
            self._stamps[path] = stamp_of(path)
            self._scripts[path] = self._loaded(path)
        self._say_unknown_options()
        self._take_over()
        for script in self._scripts.values():
            if script is not None:
                self._live(script, "running")

    def look(self) -> None:
        """Load anew what has changed. Cheap: one look at each file."""
        for path, known in self._stamps.items():
            stamp = stamp_of(path)
            if stamp == known:
                continue
            self._stamps[path] = stamp
            if stamp is None:
                structlog.get_logger().warning("script_missing", script=path, action="the last good one stays")
                continue
            script = self._loaded(path)
            if script is not None:
                self._scripts[path] = script
                self._take_over()
                self._live(script, "running")

    async def finish(self) -> None:
        """The worker ends: tell the scripts, and wait for those that wait for something, within `addons.timeout`; those
        that are still told of their clients' ends come first.
        """
        await asyncio.gather(*self._tasks, return_exceptions=True)
        told = [self._live(script, "done") for script in self._scripts.values() if script is not None]
        await asyncio.gather(*(task for task in told if task is not None))

    def _loaded(self, path: str) -> Script | None:
        """Read a script, and have it declare its options; None, said and counted, where that fails."""
        began = time.monotonic()
        try:
            script = read_script(path, self._settings.filters.get(path), self._settings.filter)
            self._prepare(script)
        except BaseException as error:  # noqa: BLE001  whatever a script does, the node goes on
            self._counters[Counter.SCRIPT_LOAD_FAILURES] += 1
            is_first = self._scripts[path] is None
            structlog.get_logger().error(
                "script_not_loaded",
                script=path,
                error=str(error) if isinstance(error, ScriptError) else f"{path}: {told(error)}",
                action="the last good one stays" if not is_first else f"on_error = {self._settings.on_error}",
                exc_info=error.__cause__ or error,
            )
            return None
        self._counters[Counter.SCRIPT_LOADS] += 1
        structlog.get_logger().info("script_loaded", script=path, ms=round((time.monotonic() - began) * 1e3, 1))
        if script.not_called:
            structlog.get_logger().warning("script_hooks_not_called", script=path, hooks=script.not_called)
        return script

    def _prepare(self, script: Script) -> None:
        loader = Loader(self._master)
        for addon in script.addons:
            self._must(script, addon, "load", loader)
            self._master.commands.collect_commands(addon.instance)
        self._set_options()
        for addon in script.addons:
            self._must(script, addon, "configure", set(self._master.options.keys()))

    @staticmethod
    def _must(script: Script, addon: Addon, name: str, argument: object) -> None:
        """Call a hook without which the script is not loaded."""
        if name not in addon.hooks:
            return
        try:
            outcome = addon.hooks[name](argument)
        except BaseException as error:
            raise ScriptError(f"{script.path}: {name}: {told(error)}") from error
        if inspect.iscoroutine(outcome):
            outcome.close()
            raise ScriptError(f"{script.path}: {name} is a coroutine, which mitmproxy does not wait for")

    def _set_options(self) -> None:
        """Give options their configured values, as soon as there are such options."""
        known = self._master.options
        for name, value in self._settings.options.items():
            if name not in known:
                continue
            declared = known._options[name].typespec  # noqa: SLF001  mitmproxy has no other way to ask
            wanted = float(value) if declared is float and isinstance(value, int) else value
            if getattr(known, name) != wanted:
                try:
                    known.update(**{name: wanted})
                except TypeError as error:
                    raise ScriptError(f"addons.options.{name}: {error}") from error

    def _say_unknown_options(self) -> None:
        for name in self._settings.options:
            if name not in self._master.options:
                structlog.get_logger().error("script_option_unknown", option=name, hint="no script has declared it")

    def _take_over(self) -> None:
        """Have the requests that come from now on meet the scripts that there are now."""
        scripts = [script for script in self._scripts.values() if script is not None]
        hooks: dict[str, list[Hook]] = {}
        selectors: list[Selector] = []
        for script in scripts:
            for addon in script.addons:
                if addon.hooks:
                    selectors.append(addon.selector)
                for name, function in addon.hooks.items():
                    hooks.setdefault(name, []).append(Hook(script.name, name, function, len(selectors) - 1))
        former, self.chain = self.chain, Chain(hooks, selectors, self._missing())
        self._users.update(map(_identity, scripts))
        self._all.addons = [script.module for script in scripts]
        lookup = {str(getattr(one, "name", type(one).__name__.lower())): one for one in self._instances(scripts)}
        self._master.addons.lookup = lookup
        former.retire = partial(self._part_with, self._current)
        self._current = scripts
        former.end_if_idle()

    def _part_with(self, scripts: list[Script]) -> None:
        """A generation of scripts is no longer in use: those that are in no other are done."""
        for script in scripts:
            number = _identity(script)
            self._users[number] -= 1
            if not self._users[number]:
                del self._users[number]
                self._live(script, "done")

    @staticmethod
    def _instances(scripts: list[Script]) -> list[Any]:
        return [addon.instance for script in scripts for addon in script.addons]

    def _missing(self) -> list[Selector]:
        """The filters of scripts that never were loaded, as far as they are configured."""
        settings = self._settings
        return [
            Selector(settings.filters.get(path, settings.filter))
            for path, script in self._scripts.items()
            if script is None and self.is_strict
        ]

    def _live(self, script: Script, name: str) -> asyncio.Task[None] | None:
        """Call a hook of a script's own life; the task that it is under way in, where it waits for something."""
        functions = [addon.hooks[name] for addon in script.addons if name in addon.hooks]
        return self.calls.all(
            [Hook(script.name, name, function, 0) for function in functions], (), _Outside(), _nothing
        )

    # --- the pipeline's calls

    def wants(self, exchange: Exchange) -> bool:
        """Whether some script may want to see this request."""
        return self.chain.wants(exchange)

    def run(self, pipeline: ScriptedPipeline, exchange: Exchange) -> FlowRun:
        """Begin a request's way through the scripts."""
        return FlowRun(self, pipeline, exchange)

    def client_of(self, client: ClientConnection) -> connection.Client:
        """What scripts know a client's connection as: the same for all its requests."""
        found = self._clients.get(client)
        if found is None:
            wire = client.transport
            made = client_of(wire.get_extra_info("peername"), wire.get_extra_info("sockname"), time.time())
            found = self._clients[client] = made
        return found

    def connected(self, client: ClientConnection) -> None:
        """A client has connected; a script may turn it away by setting `error`."""
        hooks = self.chain.hooks.get("client_connected")
        if hooks:
            seen = self.client_of(client)
            self._under_way(self.calls.all(hooks, (seen,), _Outside(), lambda: client.close() if seen.error else None))

    def disconnected(self, client: ClientConnection) -> None:
        """A client's connection is closed."""
        hooks = self.chain.hooks.get("client_disconnected")
        if hooks:
            seen = self.client_of(client)
            seen.state = connection.ConnectionState.CLOSED
            seen.timestamp_end = time.time()
            self._under_way(self.calls.all(hooks, (seen,), _Outside(), _nothing))
        self._clients.pop(client, None)

    def _under_way(self, task: asyncio.Task[None] | None) -> None:
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)


def _identity(script: Script) -> int:
    return id(script.module)


def _nothing() -> None:
    """What follows on hooks that nothing depends on."""
