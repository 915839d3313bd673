"""`edgeproxy run`: a node in the foreground, until SIGTERM or Ctrl-C."""

import asyncio
from pathlib import Path

import click

from edgeproxy.cli.common import plain_errors, required_config_option
from edgeproxy.node.source import Source
from edgeproxy.node.supervisor import Supervisor


@click.command()
@required_config_option
def run(config_path: Path) -> None:
    """Run a node in the foreground. What it listens on and what happens to it goes to standard error, as JSON.

    SIGTERM or SIGINT: let requests under way end, then stop; a second one stops at once.
    SIGHUP: read configuration and environment file anew.
    SIGUSR1: open the access log anew (log rotation).
    """
    with plain_errors():
        asyncio.run(Supervisor(Source(config_path)).run())
