"""`edgeproxy trace on|off|status`: the tracing toggle of a running node; `trace show` is in `traceshow`.

Writes the environment file that the node watches, and sees the change through: the supervisor has read the file, and
every worker has confirmed. It tells the node nothing by any other way, so an edit by hand does just the same.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import click
from rich.console import Console
from rich.table import Table

from edgeproxy.cli.common import config_option, fail, find_node, plain_errors, runtime_dir_option
from edgeproxy.cli.tail import printable
from edgeproxy.config import env_file_path, read_env_file, set_env_value
from edgeproxy.node import NotRunningError, RuntimeDir
from edgeproxy.node.status import Status, TracingStatus, WorkerStatus, read_control, read_status
from edgeproxy.node.watch import fingerprint

TIMEOUT_S = 5.0
TOGGLE = "EDGEPROXY_TRACING"
_POLL_S = 0.02

_timeout_option = click.option(
    "--timeout", "timeout_s", type=click.FloatRange(min=0), default=TIMEOUT_S, show_default=True, metavar="SECONDS",
    help="How long the workers may take to confirm.",
)  # fmt: skip


class _Commands(click.Group):
    """Loads `show`, which brings much along, when it is called and not before: switching is quick."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*super().list_commands(ctx), "show"]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name != "show":
            return super().get_command(ctx, name)
        from edgeproxy.cli.traceshow import show  # noqa: PLC0415

        return show


@click.group(cls=_Commands)
def trace() -> None:
    """Switch tracing on or off in a running node, or show it. No restart, no request dropped. Show a trace."""


@trace.command()
@config_option
@runtime_dir_option
@_timeout_option
def on(config_path: Path | None, runtime_dir: Path | None, timeout_s: float) -> None:
    """Switch tracing on; returns once every worker has confirmed."""
    _switch(config_path, runtime_dir, timeout_s, wanted=True)


@trace.command()
@config_option
@runtime_dir_option
@_timeout_option
def off(config_path: Path | None, runtime_dir: Path | None, timeout_s: float) -> None:
    """Switch tracing off; returns once every worker has confirmed."""
    _switch(config_path, runtime_dir, timeout_s, wanted=False)


@trace.command()
@config_option
@runtime_dir_option
def status(config_path: Path | None, runtime_dir: Path | None) -> None:
    """Show the tracing settings, and each worker's."""
    with plain_errors():
        seen = read_status(find_node(config_path, runtime_dir).path)
    tracing = seen.tracing
    click.echo(f"tracing {_word(tracing.enabled)}, sampler {tracing.sampler}, ratio {tracing.ratio:g}")
    for line in sampling_lines(tracing):
        click.echo(printable(line))
    click.echo(f"environment file {seen.env_file}")
    if seen.last_error:
        click.echo(f"last error {seen.last_error}")
    table = Table("worker", "pid", "tracing", "confirmed", box=None, header_style="bold")
    for worker in seen.workers:
        table.add_row(
            str(worker.index), str(worker.pid), _word(worker.tracing), "yes" if worker.confirmed else "not yet"
        )
    Console().print(table)


def sampling_lines(tracing: TracingStatus) -> Iterator[str]:
    """What is said of tracing beyond sampler and ratio: a line for each thing that is set."""
    yield f"exporters {', '.join(tracing.exporters) or 'none'}"
    for rule in tracing.rules:
        conditions = (
            f"{name} {value}" for name in ("route", "path", "method", "header") if (value := getattr(rule, name))
        )
        yield f"rule {', '.join(conditions) or 'everything'}: ratio {rule.ratio:g}"
    if tracing.max_per_second:
        yield f"at most {tracing.max_per_second:g} traces a second"
    if tracing.adaptive_target:
        floor = f", at least {tracing.adaptive_floor:g} of each route" if tracing.adaptive_floor else ""
        yield f"adaptive: {tracing.adaptive_target:g} traces a second{floor}"
    afterwards = [
        *(["errors"] if tracing.errors else []),
        *([f"what takes {tracing.slow_ms:g} ms"] if tracing.slow_ms else []),
    ]
    if afterwards:
        yield f"exported though not sampled: {' and '.join(afterwards)}"
    if (remote := tracing.remote) is not None:
        known = f"in force, confirmed {remote.fetched}" if remote.in_force else "none yet"
        yield f"strategies from {remote.url}: {known}"
        if remote.error:
            yield f"strategies failing since {remote.failing_since}: {remote.error}"


def _switch(config_path: Path | None, runtime_dir: Path | None, timeout_s: float, *, wanted: bool) -> None:
    with plain_errors():
        runtime = find_node(config_path, runtime_dir)
        try:
            with contextlib.closing(read_control(runtime)) as control:
                env_file = Path(control.describe().env_file)
        except NotRunningError as error:
            env_file = env_file_path(config_path, os.environ)
            set_env_value(env_file, TOGGLE, _word(wanted))
            click.echo(f"{error}; {env_file} now says {TOGGLE}={_word(wanted)}, for the next start", err=True)
            return
        set_env_value(env_file, TOGGLE, _word(wanted))
        deadline = time.monotonic() + timeout_s
        _wait(
            deadline,
            lambda: _is_read(runtime, env_file),
            lambda: f"the node has not read {env_file} in {timeout_s:g} s",
        )
        _confirm(runtime, env_file, deadline, timeout_s, wanted=wanted)


def _confirm(runtime: RuntimeDir, env_file: Path, deadline: float, timeout_s: float, *, wanted: bool) -> None:
    """Wait until every worker does what the file says; exit when it says something else, or when it takes too long."""
    now = read_status(runtime.path, oldest=0)
    if now.tracing.enabled != wanted:
        fail(f"tracing stays {_word(not wanted)}: {_reason(now, env_file)}")

    def late() -> list[WorkerStatus]:
        return [worker for worker in living(read_status(runtime.path, oldest=0)) if not _agrees(worker, wanted=wanted)]

    def complaint() -> str:
        names = ", ".join(f"{worker.index} (pid {worker.pid})" for worker in late())
        return f"not confirmed in {timeout_s:g} s by worker {names}"

    _wait(deadline, lambda: not late(), complaint)
    now = read_status(runtime.path, oldest=0)
    count = len(living(now))
    click.echo(f"tracing is {_word(wanted)}: confirmed by {count} worker{'' if count == 1 else 's'}")


def living(status: Status) -> list[WorkerStatus]:
    """Give the workers that answer requests of this node."""
    return [worker for worker in status.workers if worker.state in {"serving", "draining"}]


def _agrees(worker: WorkerStatus, *, wanted: bool) -> bool:
    return worker.confirmed and worker.tracing == wanted


def _is_read(runtime: RuntimeDir, env_file: Path) -> bool:
    with contextlib.closing(read_control(runtime)) as control:
        return control.describe().env_seen == fingerprint(env_file)


def _reason(status: Status, env_file: Path) -> str:
    if status.last_error:
        return status.last_error
    if read_env_file(env_file).get("OTEL_TRACES_EXPORTER", "").strip().lower() == "none":
        return f"{env_file} also says OTEL_TRACES_EXPORTER=none"
    if not status.tracing.exporters:
        return "the node's own environment says OTEL_TRACES_EXPORTER=none, or tracing.exporters is none"
    return f"{env_file}, or the environment that the node was started with, says OTEL_SDK_DISABLED=true"


def _wait(deadline: float, done: Callable[[], bool], complaint: Callable[[], str]) -> None:
    while not done():
        if time.monotonic() > deadline:
            _timed_out(complaint)
        time.sleep(_POLL_S)


def _timed_out(complaint: Callable[[], str]) -> NoReturn:
    fail(complaint())


def _word(enabled: bool) -> str:
    return "on" if enabled else "off"
