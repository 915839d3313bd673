"""`edgeproxy purge`: what is cached for URLs, prefixes or tags, or all of it, is used no more.

Gives rules to the node, with a store in Redis to all nodes that share it, and returns once every worker of this one
has confirmed. Where no node runs, the rules hold for what the store has kept, from the next start on.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import click

from edgeproxy.cli.common import MISCONFIGURED, config_option, fail, find_node, plain_errors, runtime_dir_option
from edgeproxy.node import NotRunningError, RuntimeDir
from edgeproxy.node.purging import TIMEOUT_S, Outcome, PurgeError, Wanted, append, running, share, understood
from edgeproxy.node.purging import purge as purge_node
from edgeproxy.node.source import Source
from edgeproxy.node.storage import storage_paths


@click.command()
@click.argument("urls", nargs=-1, metavar="[URL]…")
@click.option("--prefix", "prefixes", multiple=True, help="All URLs that begin like this, host included; repeatable.")
@click.option("--tag", "tags", multiple=True, help="All responses with this Surrogate-Key or Cache-Tag; repeatable.")
@click.option("--all", "everything", is_flag=True, help="All there is.")
@click.option("--soft", is_flag=True, help="Make it stale instead: it is revalidated, and served where stale may be.")
@config_option
@runtime_dir_option
@click.option(
    "--timeout", "timeout_s", type=click.FloatRange(min=0), default=TIMEOUT_S, show_default=True, metavar="SECONDS",
    help="How long the workers may take to confirm.",
)  # fmt: skip
def purge(
    urls: tuple[str, ...],
    prefixes: tuple[str, ...],
    tags: tuple[str, ...],
    everything: bool,
    soft: bool,
    config_path: Path | None,
    runtime_dir: Path | None,
    timeout_s: float,
) -> None:
    """Purge what is cached; returns once every worker has confirmed.

    From then on nothing is served that was fetched or asked for before. Exits with 1 when a worker does not confirm in
    time, which it still does once it goes on.
    """
    if not (urls or prefixes or tags or everything):
        raise click.UsageError("nothing to purge: name URLs, --prefix, --tag or --all")
    wanted = Wanted(urls=urls, prefixes=prefixes, tags=tags, all=everything, soft=soft)
    with plain_errors(), plain_purge_errors():
        runtime = find_node(config_path, runtime_dir)
        try:
            place = running(runtime.path)
        except NotRunningError as error:
            _purge_stopped(config_path, runtime, wanted, error)
            return
        _report(purge_node(place, wanted, timeout_s=timeout_s), wanted, timeout_s)


@contextlib.contextmanager
def plain_purge_errors() -> Iterator[None]:
    """Turn what can't be understood of a command line into a message and its exit code."""
    try:
        yield
    except PurgeError as error:
        fail(str(error), MISCONFIGURED)


def _purge_stopped(config_path: Path | None, runtime: RuntimeDir, wanted: Wanted, error: NotRunningError) -> None:
    """Purge what the store of a node has that does not run."""
    config = Source(config_path).read().config
    if config.cache.store == "redis":
        noted = share(config, understood(config, wanted))
        click.echo(f"{error}; {_words(wanted)} for all nodes that share its Redis Cluster", err=True)
        _warn(noted.warning)
        return
    log = storage_paths(config, runtime.path).purge_log
    if config.cache.store == "memory" or not log.exists():
        fail(f"{error}, and nothing is stored")
    append(log, understood(config, wanted))
    click.echo(f"{error}; {_words(wanted)} in {log.parent}, from the next start on", err=True)


def _warn(warning: str) -> None:
    if warning:
        click.echo(f"edgeproxy: {warning}", err=True)


def _report(outcome: Outcome, wanted: Wanted, timeout_s: float) -> None:
    _warn(outcome.warning)
    if outcome.late:
        names = ", ".join(f"{late.worker} (pid {late.pid})" for late in outcome.late)
        fail(f"not confirmed in {timeout_s:g} s by worker {names}")
    count = len(outcome.confirmed)
    click.echo(f"{_words(wanted)}: confirmed by {count} worker{'' if count == 1 else 's'}")


def _words(wanted: Wanted) -> str:
    counts = (
        (len(wanted.urls), "URL", "URLs"),
        (len(wanted.prefixes), "prefix", "prefixes"),
        (len(wanted.tags), "tag", "tags"),
    )
    named = ", ".join(f"{count} {one if count == 1 else many}" for count, one, many in counts if count)
    return f"{'everything' if wanted.all else named} {'made stale' if wanted.soft else 'purged'}"
