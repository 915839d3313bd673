"""`edgeproxy check`: what a configuration comes to, environment included, as TOML that could be run."""

from collections.abc import Iterator
from pathlib import Path

import click
import msgspec

from edgeproxy.cli.common import plain_errors, required_config_option
from edgeproxy.config import Config, effective, load
from edgeproxy.config.toml import toml_value
from edgeproxy.node.source import Source
from edgeproxy.node.workers import worker_count


@click.command()
@required_config_option
def check(config_path: Path) -> None:
    """Check a configuration, and print what is effective: file, environment and defaults together.

    Exits with 2 when something is wrong, after naming each problem: file, key, value, and what is allowed.
    """
    with plain_errors():
        source = Source(config_path)
        found = source.read()
        stands = load(config_path, {})
    run = found.as_run
    run = msgspec.structs.replace(run, node=msgspec.structs.replace(run.node, workers=worker_count(run)))
    there = "" if found.seen else " (there is none now)"
    click.echo(f"# {config_path} is valid. Environment file: {source.env_file}{there}.")
    for difference in differences(stands, run):
        click.echo(f"# {difference}")
    click.echo(f"\n{effective(run)}", nl=False)


def differences(stands: Config, run: Config) -> Iterator[str]:
    """Say what is not as the configuration file has it, and why."""
    if stands.node.workers != run.node.workers:
        yield f"node.workers: one for each processor, instead of {toml_value(stands.node.workers)}"
    before, after = msgspec.structs.asdict(stands.tracing), msgspec.structs.asdict(run.tracing)
    for key, was in before.items():
        if was != after[key]:
            yield f"tracing.{key}: from the environment, instead of {toml_value(was)}"
