"""`edgeproxy status`: how a running node is, for people and as JSON."""

from datetime import UTC, datetime
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.table import Table

from edgeproxy.cli.common import config_option, find_node, plain_errors, runtime_dir_option
from edgeproxy.node.status import RequestStatus, Status, WorkerStatus, read_status

_STATE_COLOURS = {"serving": "green", "draining": "yellow", "dead": "red", "orphaned": "red"}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print all of it as one JSON object.")
@config_option
@runtime_dir_option
def status(as_json: bool, config_path: Path | None, runtime_dir: Path | None) -> None:
    """Show how a running node is: its processes, what it listens on, tracing, the requests in flight.

    Exits with 1 when no node runs.
    """
    with plain_errors():
        seen = read_status(find_node(config_path, runtime_dir).path)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(seen), indent=2))
    else:
        show(seen, Console(highlight=False))


def show(seen: Status, console: Console) -> None:
    """Print the tables."""
    console.print(_node(seen))
    console.print()
    console.print(_workers(seen.workers))
    if seen.requests:
        console.print()
        console.print(_requests(seen.requests))
        if hidden := seen.in_flight - len(seen.requests):
            console.print(f"and {hidden} more", style="dim")


def _node(seen: Status) -> Table:
    tracing = seen.tracing
    restarts = f"{seen.worker_restarts} of workers, {seen.scribe_restarts} of the scribe"
    rows = {
        "node": f"{seen.node} ({seen.state}, up {_ago(seen.started)})",
        "supervisor": f"pid {seen.supervisor_pid}",
        "scribe": f"pid {seen.scribe_pid}" if seen.scribe_pid else "[red]none[/]",
        "listening": ", ".join(seen.listen),
        "admin": seen.admin or "off",
        "tracing": f"{'on' if tracing.enabled else 'off'}, sampler {tracing.sampler}, ratio {tracing.ratio:g}",
        "configuration": f"{seen.config or 'defaults'} (generation {seen.generation})",
        "environment": seen.env_file,
        "access log": "standard output" if seen.access_log == "-" else seen.access_log,
        "in flight": str(seen.in_flight),
        "restarts": restarts,
        "refused": f"{seen.refused} reloads",
    }
    table = Table(box=None, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows.items():
        table.add_row(name, value)
    if seen.last_error:
        table.add_row("last error", f"[red]{_plain(seen.last_error)}[/]")
    return table


def _workers(workers: tuple[WorkerStatus, ...]) -> Table:
    table = _table("worker", "pid", "state", "gen", "tracing", "clients", "open", "requests", "lost", "ledger")
    for one in workers:
        tracing = ("on" if one.tracing else "off") + ("" if one.confirmed else "?")
        table.add_row(
            str(one.index),
            str(one.pid),
            f"[{_STATE_COLOURS[one.state]}]{one.state}[/]",
            str(one.generation),
            tracing,
            str(one.connections),
            str(one.in_flight),
            str(one.requests),
            str(one.lines_lost),
            f"{one.ledger_bytes} B ({one.ledger_share:.1%})",
        )
    return table


def _requests(requests: tuple[RequestStatus, ...]) -> Table:
    table = _table("age", "stage", "worker", "trace id", "client", "request")
    for one in requests:
        age = "?" if one.age_ms is None else f"{one.age_ms / 1000:.3f} s"
        request = _plain(f"{one.method} {one.host}{one.path}")
        table.add_row(age, one.stage, str(one.worker), _plain(one.trace_id), _plain(one.client), request)
    return table


def _table(*columns: str) -> Table:
    table = Table(box=None, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column != "request")
    return table


def _plain(text: str) -> str:
    """Clients' text is neither markup nor terminal control."""
    shown = "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text.replace("\n", "; "))
    return shown.replace("[", "\\[")


def _ago(started: str) -> str:
    seconds = int((datetime.now(UTC) - datetime.fromisoformat(started)).total_seconds())
    days, rest = divmod(max(seconds, 0), 86400)
    return f"{days} d " * bool(days) + f"{rest // 3600}:{rest // 60 % 60:02}:{rest % 60:02}"
