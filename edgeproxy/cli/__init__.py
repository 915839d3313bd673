"""The `edgeproxy` command.

A command's module is imported when that command is called and not before: `edgeproxy --help` is quick, and `edgeproxy
tail` has nothing of the data plane in it.
"""

import os
import sys
from importlib import import_module

import click

from edgeproxy import __version__
from edgeproxy.platform import require_linux

COMMANDS = {
    "run": "Run a node.",
    "demo": "Run a node in front of a demo site, with things to try.",
    "check": "Check a configuration and print what is effective.",
    "trace": "Switch tracing on or off in a running node, or show it; show the story of a trace.",
    "doctor": "Examine a running node for the places where trace data gets lost.",
    "tail": "Follow the access log.",
    "inspect": "Look into live flows in mitmweb, on a node's configuration.",
    "keytrace": "Show which Redis commands a trace ran, and which traces touched a URL's keys.",
    "status": "Show how a running node is.",
    "purge": "Purge what is cached: by URL, prefix or tag, or all of it.",
    "cache": "Show what a running node has cached.",
}
_INTERRUPTED = 130
_BROKEN_PIPE = 141


class _Commands(click.Group):
    """Finds commands by name, in the module that is called like them."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, _ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command: click.Command = getattr(import_module(f"edgeproxy.cli.{name}"), name)
        return command

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> object:
        require_linux()
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            ctx.exit(_INTERRUPTED)
        except BrokenPipeError:
            # Whoever read the output has had enough. Python would complain once more when it flushes at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(_BROKEN_PIPE)


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="edgeproxy")
def main() -> None:
    """Run and look into edgeproxy: a caching reverse proxy that accounts for every request exactly once."""
