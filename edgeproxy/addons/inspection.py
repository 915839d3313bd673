"""What `edgeproxy inspect` adds to the other addons in its mitmweb: the operator's scripts as the configuration has
them, filters included, and a word to the one who started all this, once it is up.

A script of mitmproxy's; it stands behind `all`.
"""

import asyncio
import json
import logging
import os
import sys
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from mitmproxy import ctx, hooks, http
from mitmproxy.addonmanager import Loader

from edgeproxy.addons.station import station
from edgeproxy.config import Addons
from edgeproxy.scripting.chain import REQUEST_HOOKS
from edgeproxy.scripting.errors import ScriptError
from edgeproxy.scripting.loading import Addon, Script, Stamp, read_script, stamp_of

REPORT_OPTION = "edge_report"
LOOK_S = 1.0
"""How often it is looked whether a script has changed."""


class Gate:
    """One addon of a script: it sees the requests that its filter selects."""

    addons = ()
    """Those below it have gates of their own."""

    def __init__(self, script: Script, index: int, addon: Addon) -> None:
        """Stand before an addon, the script's n-th."""
        self.name = f"{script.path}#{index}"
        self._script = script
        self._addon = addon

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 whatever the addon has
        """What the addon has; a hook of requests only where its filter is met."""
        found = getattr(self._addon.instance, name)
        return partial(self._filtered, found) if name in REQUEST_HOOKS and callable(found) else found

    def _filtered(self, hook: Callable[[http.HTTPFlow], Any], flow: http.HTTPFlow) -> Any:  # noqa: ANN401 None or awaitable
        passage = station.passage(flow)
        if passage is None or not passage.selects(self._addon.selector):
            return None
        passage.saw(self._script.name)
        return hook(flow)


class Gated:
    """A script that is loaded, below its gates."""

    def __init__(self, script: Script) -> None:
        """Take one that was read."""
        self.name = script.path
        self.addons = [Gate(script, index, addon) for index, addon in enumerate(script.addons)]


class Inspection:
    """The addon."""

    def __init__(self) -> None:
        """Load nothing yet."""
        self.addons: list[Gated] = []
        self._stamps: dict[str, Stamp | None] = {}
        self._looking: asyncio.Task[None] | None = None

    def load(self, loader: Loader) -> None:
        """Declare the option."""
        loader.add_option(REPORT_OPTION, str, "", "The file descriptor that is told where edgeproxy inspect listens.")

    def configure(self, updated: set[str]) -> None:
        """Load the operator's scripts, the first time; where one can't be, there is nothing to be looked into."""
        del updated
        if self._stamps:
            return
        for path in self._settings.scripts:
            self._stamps[path] = stamp_of(path)
            try:
                self._take(self._read(path))
            except Exception as error:  # noqa: BLE001 whatever a script does, whoever started this is told
                self._report(error=_said(path, error))
                ctx.master.shutdown()
                return

    def running(self) -> None:
        """All is up, unless something was logged as an error: then mitmproxy is about to end."""
        check = ctx.master.addons.get("errorcheck")
        if check is not None and check.logger.has_errored:
            return
        self._looking = asyncio.get_running_loop().create_task(self._look())
        asyncio.get_running_loop().add_reader(sys.stdin, self._left)
        (host, port, *_), *_ = ctx.master.addons.get("proxyserver").listen_addrs()
        self._report(proxy=f"http://{host}:{port}", web=vars(type(ctx.master))["web_url"].__get__(ctx.master))

    @staticmethod
    def _report(**said: str) -> None:
        report = int(getattr(ctx.options, REPORT_OPTION))
        os.write(report, json.dumps(said).encode() + b"\n")
        os.close(report)

    def done(self) -> None:
        """End."""
        if self._looking is not None:
            self._looking.cancel()

    def _left(self) -> None:
        """Standard input has come to its end: who started this has gone."""
        if not os.read(sys.stdin.fileno(), 1024):
            asyncio.get_running_loop().remove_reader(sys.stdin)
            ctx.master.shutdown()

    # --- the scripts

    @property
    def _settings(self) -> Addons:
        return Addons() if station.node is None else station.node.config.addons

    def _read(self, path: str) -> Script:
        settings = self._settings
        return read_script(path, settings.filters.get(path), settings.filter)

    def _take(self, script: Script) -> None:
        """Use a script; mitmproxy calls its hooks in the order of the configuration, also where it is loaded anew."""
        new = Gated(script)
        names = [one.name for one in self.addons]
        place = names.index(script.path) if script.path in names else len(names)
        for old in self.addons[place : place + 1]:
            ctx.master.addons.remove(old)
        ctx.master.addons.register(new)
        self.addons[place : place + 1] = [new]
        ctx.master.addons.invoke_addon_sync(new, hooks.ConfigureHook(set(ctx.options.keys())))

    async def _look(self) -> None:
        """Load anew what changes; a script that can't be loaded leaves the last good one in place."""
        while True:
            await asyncio.sleep(LOOK_S)
            for path, known in self._stamps.items():
                stamp = stamp_of(path)
                if stamp is None or stamp == known:
                    continue
                self._stamps[path] = stamp
                try:
                    self._take(script := self._read(path))
                    ctx.master.addons.invoke_addon_sync(self._gated(script), hooks.RunningHook())
                except Exception as error:  # noqa: BLE001 as in `configure`
                    logging.getLogger(__name__).error("%s", _said(path, error))

    def _gated(self, script: Script) -> Gated:
        return next(one for one in self.addons if one.name == script.path)


def _said(path: str, error: Exception) -> str:
    """What went wrong with a script, and in which of its lines."""
    frames = traceback.extract_tb((error.__cause__ or error).__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(Path(path).absolute())]
    what = str(error) if isinstance(error, ScriptError) else f"{path}: {type(error).__name__}: {error}"
    return f"{what} (line {lines[-1]})" if lines else what


addons = [Inspection()]
