"""`edgeproxy status`: how a running node is, for people and as JSON."""

from datetime import UTC, datetime
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

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
    _show_node(seen, console)
    console.print()
    console.print(_workers(seen.workers))
    if any(worker.store for worker in seen.workers):
        console.print()
        console.print(_stores(seen.workers))
    if seen.export:
        console.print()
        console.print(_exporters(seen))
    if seen.requests:
        console.print()
        _show_requests(seen.requests, console)
    if hidden := seen.in_flight - len(seen.requests):
        console.print(f"and {hidden} more", style="dim")


def _show_node(seen: Status, console: Console) -> None:
    tracing = seen.tracing
    rows = {
        "node": f"{seen.node} ({seen.state}, up {_ago(seen.started)})",
        "supervisor": f"pid {seen.supervisor_pid}",
        "scribe": f"pid {seen.scribe_pid}" if seen.scribe_pid else "none just now",
        "listening": ", ".join(seen.listen),
        "admin": seen.admin or "off",
        "tracing": f"{'on' if tracing.enabled else 'off'}, sampler {tracing.sampler}, ratio {tracing.ratio:g}",
        "configuration": f"{seen.config or 'defaults'} (generation {seen.generation})",
        "environment": seen.env_file,
        "access log": "standard output" if seen.access_log == "-" else seen.access_log,
        "in flight": str(seen.in_flight),
        "restarts": f"{seen.worker_restarts} of workers, {seen.scribe_restarts} of the scribe",
        "refused": f"{seen.refused} changes",
    }
    if (remote := tracing.remote) is not None:
        state = f"failing since {remote.failing_since}: {remote.error}" if remote.error else "well"
        rows["strategies"] = f"{remote.url}, {state}"
    if (scripts := seen.scripts) is not None:
        rows["scripts"] = (
            f"{scripts.flows} requests seen; of their hooks {scripts.errors} failed "
            f"({scripts.timeouts} took too long), {scripts.blocks} blocked a worker; "
            f"{scripts.load_failures} failed to load"
        )
    if seen.last_error:
        rows["last error"] = seen.last_error
    for name, value in rows.items():
        style = "red" if name == "last error" else ""
        line = Text.assemble((f"{name:<15}", "bold"), (_plain(value), style))
        console.print(line, soft_wrap=True)


def _workers(workers: tuple[WorkerStatus, ...]) -> Table:
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for column in ("worker", "pid", "state", "gen", "tracing", "clients", "open", "requests", "lines lost", "ledger"):
        table.add_column(column, no_wrap=True)
    for one in workers:
        table.add_row(
            str(one.index),
            str(one.pid),
            f"[{_STATE_COLOURS[one.state]}]{one.state}[/]",
            str(one.generation),
            ("on" if one.tracing else "off") + ("" if one.confirmed else "?"),
            str(one.connections),
            str(one.in_flight),
            str(one.requests),
            str(one.lines_lost),
            f"{one.ledger_share:.1%}",
        )
    return table


def _stores(workers: tuple[WorkerStatus, ...]) -> Table:
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for column in ("worker", "redis nodes", "in use", "operations", "failed", "not stored", "damaged", "rests"):
        table.add_column(column, no_wrap=True)
    for one in workers:
        if one.store is None:
            continue
        store = one.store
        colour = "green" if store.nodes_well == store.nodes else "red"
        table.add_row(
            str(one.index),
            f"[{colour}]{store.nodes_well} of {store.nodes} answer[/]",
            "yes" if store.usable else "[red]no: purge rules unknown[/]",
            *map(str, (store.operations, store.failures, store.dropped, store.damaged, store.breaks)),
        )
    return table


def _exporters(seen: Status) -> Table:
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for column in ("exporter", "in use", "spans exported", "failed", "dropped", "queued"):
        table.add_column(column, no_wrap=True)
    for one in seen.export:
        failed, dropped = (f"[red]{count}[/]" if count else "0" for count in (one.failed, one.dropped))
        table.add_row(one.name, "yes" if one.active else "no", str(one.exported), failed, dropped, str(one.queued))
    if seen.spans_unseen:
        table.add_row("none: ledger full", "", "", "", f"[red]{seen.spans_unseen}[/]", "")
    return table


def _show_requests(requests: tuple[RequestStatus, ...], console: Console) -> None:
    """Print a line each: no table, since a long path must neither squeeze the other columns nor be cut."""
    rows: list[tuple[str, ...]] = [("age", "stage", "worker", "trace id", "client", "request")]
    for one in requests:
        age = "?" if one.age_ms is None else f"{one.age_ms / 1000:.3f} s"
        request = f"{one.method} {one.host}{one.path}"
        rows.append((age, one.stage, str(one.worker), *map(_plain, (one.trace_id, one.client, request))))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for number, row in enumerate(rows):
        line = "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        console.print(Text(line, style="" if number else "bold"), soft_wrap=True)


def _plain(text: str) -> str:
    """Make of a client's text what can't command a terminal."""
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text.replace("\n", "; "))


def _ago(started: str) -> str:
    seconds = int((datetime.now(UTC) - datetime.fromisoformat(started)).total_seconds())
    days, rest = divmod(max(seconds, 0), 86400)
    return f"{days} d " * bool(days) + f"{rest // 3600}:{rest // 60 % 60:02}:{rest % 60:02}"
