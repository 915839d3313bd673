"""What scripts know as `ctx.master`: mitmproxy's options, commands and register of addons, without the rest of it.

mitmproxy's own master brings all its stock addons along, 30 MB and most of a second for each worker.
"""

import asyncio
import importlib
import sys
from importlib.abc import MetaPathFinder
from typing import Any, cast

import structlog
from mitmproxy import addonmanager, command, ctx, log, options


class EdgeMaster:
    """Stands where a script expects mitmproxy's master."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Be what scripts find in `mitmproxy.ctx`; there is one in a process."""
        mine = cast("Any", self)
        self.options = options.Options()
        self.commands = command.CommandManager(mine)
        self.addons = addonmanager.AddonManager(mine)
        self.log = log.Log(mine)
        self.event_loop = loop
        self.should_exit = asyncio.Event()
        ctx.master = mine
        ctx.options = self.options
        ctx.log = self.log
        sys.meta_path.insert(0, _BeforeConcurrent())

    def shutdown(self) -> None:
        """Nothing: a node is not a script's to stop."""
        structlog.get_logger().warning("script_shutdown_ignored", hint="a script can't stop the node; stop its unit")


class _BeforeConcurrent(MetaPathFinder):
    """Has the names of all hooks known before a script imports `@concurrent`, which asks for them.

    They are known to mitmproxy's protocol layers, which take as long to import as all else that scripts need.
    """

    def find_spec(self, fullname: str, path: object, target: object = None) -> None:
        """Find nothing, but notice."""
        del path, target
        if fullname == "mitmproxy.script.concurrent":
            importlib.import_module("mitmproxy.proxy.layers.http")
            importlib.import_module("mitmproxy.proxy.server_hooks")
