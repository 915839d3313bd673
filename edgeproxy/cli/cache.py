"""`edgeproxy cache stats|show`: what a running node has cached, for people and as JSON."""

from collections import Counter
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgeproxy.cache.store import StoreStats
from edgeproxy.cli.common import config_option, find_node, plain_errors, runtime_dir_option
from edgeproxy.cli.purge import plain_purge_errors
from edgeproxy.node import cached
from edgeproxy.node.cached import CacheStats, Kept, Shown
from edgeproxy.node.inspect import Copy
from edgeproxy.node.purging import running

_STATE_STYLES = {"fresh": "green", "stale": "yellow", "purged": "red", "not stored": "dim"}
_json_option = click.option("--json", "as_json", is_flag=True, help="Print all of it as one JSON object.")


@click.group()
def cache() -> None:
    """Show what a running node has cached."""


@cache.command()
@_json_option
@config_option
@runtime_dir_option
def stats(as_json: bool, config_path: Path | None, runtime_dir: Path | None) -> None:
    """Show how full the cache is, and what requests found there."""
    with plain_errors():
        seen = cached.stats(running(find_node(config_path, runtime_dir).path))
    if as_json:
        _print_json(seen)
    else:
        _print_stats(seen, Console(highlight=False))


@cache.command()
@click.argument("url")
@_json_option
@config_option
@runtime_dir_option
def show(url: str, as_json: bool, config_path: Path | None, runtime_dir: Path | None) -> None:
    """Show what is stored for a URL: each variant, how fresh it is, where it lies and who fetched it."""
    with plain_errors(), plain_purge_errors():
        seen = cached.show(running(find_node(config_path, runtime_dir).path), url)
    if as_json:
        _print_json(seen)
    else:
        _print_shown(seen, Console(highlight=False))


def _print_json(seen: msgspec.Struct) -> None:
    click.echo(msgspec.json.format(msgspec.json.encode(seen), indent=2))


def _print_stats(seen: CacheStats, console: Console) -> None:
    rows = {"kept in": seen.kind}
    if seen.store is not None:
        rows |= _store_rows(seen.store)
    rows["purges"] = f"up to rule {seen.purge_seq}" if seen.purge_seq else "none yet"
    _print_rows(rows, console, indent="")
    console.print()
    console.print(_workers_table(seen))
    console.print()
    counts = Counter[str]()
    for one in seen.workers:
        counts.update(one.requests)
    _print_rows({"requests": ", ".join(f"{count} {name}" for name, count in counts.items())}, console, indent="")


def _store_rows(store: StoreStats) -> dict[str, str]:
    share = _share(store.size_bytes, store.capacity_bytes)
    return {
        "path": store.path,
        "stored": f"{store.entries} responses, {store.size_bytes} of {store.capacity_bytes} bytes ({share})",
        "evicted": f"{store.evictions} responses",
        "failures": str(store.failures),
    }


def _workers_table(seen: CacheStats) -> Table:
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for column in ("worker", "pid", "responses", "bytes", "share", "evicted", "purges"):
        table.add_column(column, no_wrap=True)
    for one in seen.workers:
        table.add_row(
            str(one.worker),
            str(one.pid),
            str(one.memory_entries),
            str(one.memory_bytes),
            _share(one.memory_bytes, seen.memory_capacity_bytes),
            str(one.evictions),
            str(one.purge_seq) + ("" if one.purge_seq >= seen.purge_seq else " (not yet all)"),
        )
    return table


def _share(size_bytes: int, capacity_bytes: int) -> str:
    return f"{size_bytes / capacity_bytes if capacity_bytes else 0.0:.1%}"


def _print_shown(seen: Shown, console: Console) -> None:
    for keyed in seen.keyed:
        console.print(Text(_plain(keyed), style="bold"), soft_wrap=True)
    for kept in seen.found:
        console.print()
        _print_kept(kept, console)
    if seen.more:
        console.print(f"and {seen.more} more", style="dim")
    if not seen.found:
        console.print("nothing is stored")
    if seen.silent:
        console.print(f"no answer from worker {', '.join(map(str, seen.silent))}", style="red")


def _print_kept(kept: Kept, console: Console) -> None:
    copy = kept.copy
    vary = "; ".join(f"{name}: {'(none)' if value is None else value}" for name, value in copy.vary.items())
    rows = {"key": copy.key, "variant": vary}
    if copy.why:
        head = f"because of {copy.why}, remembered for {max(copy.fresh_s, 0):.1f} s"
    else:
        head = f"status {copy.status}, {copy.size_bytes} bytes, age {copy.age_s:.1f} s"
        validators = {"ETag": copy.etag, "Last-Modified": copy.last_modified}
        rows |= {
            "freshness": _freshness(copy),
            "validators": ", ".join(f"{name} {value}" for name, value in validators.items() if value is not None),
            "tags": " ".join(copy.tags),
            "filled by": f"trace {_trace_id(copy.filled_by)}, from {copy.origin}, at {copy.stored}",
        }
    rows["lies in"] = ", ".join(kept.tiers)
    console.print(Text.assemble((copy.state, _STATE_STYLES[copy.state]), _plain(f" {head}")), soft_wrap=True)
    _print_rows({name: value for name, value in rows.items() if value}, console)


def _freshness(copy: Copy) -> str:
    words = [f"fresh for {copy.fresh_s:.1f} s" if copy.fresh_s > 0 else f"stale for {-copy.fresh_s:.1f} s"]
    if copy.stale_while_revalidate_s:
        words.append(f"while revalidated {copy.stale_while_revalidate_s:g} s more")
    if copy.stale_if_error_s:
        words.append(f"on errors {copy.stale_if_error_s:g} s more")
    if copy.must_revalidate:
        words.append("never stale")
    return ", ".join(words)


def _trace_id(traceparent: str) -> str:
    """The trace id of a traceparent, which leads to the request in the access log."""
    parts = traceparent.split("-")
    return parts[1] if len(parts) == 4 else traceparent or "(unknown)"


def _plain(text: str) -> str:
    """Make of a client's or an origin's text what can't command a terminal."""
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)


def _print_rows(rows: dict[str, str], console: Console, *, indent: str = "  ") -> None:
    for name, value in rows.items():
        console.print(Text.assemble((f"{indent}{name:<12}", "bold"), _plain(value)), soft_wrap=True)
