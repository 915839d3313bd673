"""`edgeproxy tail`: the access log, followed, one readable line a request.

The log's text comes from strangers: nothing of it reaches the terminal but what can be printed.
"""

import os
import sys
import time
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import click

from edgeproxy.cli.common import FAILED, MISCONFIGURED, config_option, fail, find_node, plain_errors
from edgeproxy.config import load
from edgeproxy.ledger import CACHE_WORDS
from edgeproxy.logging import select
from edgeproxy.logging.follow import Follower
from edgeproxy.logging.select import Shown, Test
from edgeproxy.node.errors import NodeError
from edgeproxy.node.status import read_control

LOOK_S = 0.1
"""How often a log is looked at that is followed."""
OUTCOMES = ("ok", "client_abort", "origin_error", "timeout", "refused", "lost")
_STATUS_COLOURS = {2: "green", 3: "cyan", 4: "yellow", 5: "red"}
_CACHE_COLOURS = {"HIT": "green", "REVALIDATED": "green", "COLLAPSED": "cyan", "STALE": "yellow", "EXPIRED": "yellow"}
_SLOW_MS = 1000

type Paint = Callable[..., str]


def _read_by(read: Callable[[str], Any]) -> Callable[[click.Context, click.Parameter, Any], Any]:
    """Make an option's callback of a function that reads its text and says what is wrong with it."""

    def callback(_ctx: click.Context, _param: click.Parameter, value: Any) -> Any:  # noqa: ANN401  as click has it
        try:
            return tuple(map(read, value)) if isinstance(value, tuple) else value and read(value)
        except ValueError as error:
            raise click.BadParameter(str(error)) from None

    return callback


@click.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
@config_option
@click.option(
    "-n", "--lines", default=10, show_default=True, type=click.IntRange(0), help="How many old lines to show."
)
@click.option("--follow/--no-follow", default=True, help="Whether to wait for new lines.")
@click.option("--trace-id", metavar="PREFIX", help="Only traces whose id begins so.")
@click.option(
    "--status",
    multiple=True,
    metavar="5xx|404|400-499",
    callback=_read_by(select.status_range),
    help="Only such status.",
)
@click.option("--cache", multiple=True, type=click.Choice(CACHE_WORDS, case_sensitive=False), help="Only such results.")
@click.option("--path", "paths", multiple=True, metavar="GLOB", help="Only such paths; * matches slashes, too.")
@click.option(
    "--slower-than", metavar="200ms|1.5s|2m", callback=_read_by(select.duration_ms), help="Only what took longer."
)
@click.option("--outcome", multiple=True, type=click.Choice(OUTCOMES, case_sensitive=False), help="Only such ends.")
@click.option("--json", "raw", is_flag=True, help="Print the lines as they stand in the log.")
def tail(
    file: Path | None,
    config_path: Path | None,
    lines: int,
    follow: bool,
    trace_id: str | None,
    status: tuple[tuple[int, int], ...],
    cache: tuple[str, ...],
    paths: tuple[str, ...],
    slower_than: float | None,
    outcome: tuple[str, ...],
    raw: bool,
) -> None:
    """Follow the access log, one line a request: time (UTC), status, cache, duration, size, client, trace id, request.

    FILE is the log; by default that of the running node, or of the configuration given with -c; "-" reads standard
    input. With options that choose, a line must fit all of them, and the old lines shown are the last ones that do.
    """
    tests: list[Test] = []
    if trace_id:
        tests.append(select.by_trace(trace_id))
    if status:
        tests.append(select.by_status(list(status)))
    if cache:
        tests.append(select.by_cache(list(cache)))
    if paths:
        tests.append(select.by_path(list(paths)))
    if slower_than is not None:
        tests.append(select.slower_than(slower_than))
    if outcome:
        tests.append(select.by_outcome(list(outcome)))
    with plain_errors():
        log = file or _log_of(config_path)
        out = _Printer(tests, raw=raw, source=str(log))
        if str(log) == "-":
            for line in sys.stdin.buffer:
                out.show([line])
        else:
            _tail(log, out, lines=lines, follow=follow)


def _log_of(config_path: Path | None) -> Path:
    """Find the log of the running node, else of the configuration."""
    node = find_node(config_path)
    try:
        path = read_control(node).describe().access_log
    except NodeError as error:
        if config_path is None:
            fail(f"{error}; name the log file, or its configuration with -c")
        path = load(config_path, os.environ).log.access
    if path == "-":
        fail(
            'the access log goes to standard output (log.access = "-"), there is no file to follow;\n'
            "set log.access to a file, or pipe the node's output into `edgeproxy tail -`",
            MISCONFIGURED,
        )
    return Path(path)


def _tail(path: Path, out: "_Printer", *, lines: int, follow: bool) -> None:
    log = Follower(path)
    try:
        old = log.last()
    except FileNotFoundError:
        if not follow:
            fail(f"{path}: there is no such file", FAILED)
        click.echo(f"edgeproxy: {path} is not there yet; waiting for it", err=True)
    else:
        out.show(reversed(list(islice(filter(out.wants, old), lines))))
    if not follow:
        out.show(log.new() + log.rest())
    try:
        while follow:
            out.show(log.new())
            time.sleep(LOOK_S)
    finally:
        log.close()


class _Printer:
    """Chooses lines, and prints them in the way that was asked for."""

    def __init__(self, tests: list[Test], *, raw: bool, source: str) -> None:
        self._tests = tests
        self._raw = raw
        self._source = source
        self._out = sys.stdout.buffer
        self._is_terminal = self._out.isatty()
        self._paint: Paint = click.style
        if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not self._is_terminal:
            self._paint = _unpainted

    def wants(self, line: bytes) -> bool:
        """Whether a line is to be shown; one that is no record only where nothing is chosen."""
        if not self._tests:
            return True
        record = select.parse(line)
        if record is None and select.is_nginx_line(line):
            fail(f'{self._source} is in Nginx\'s format; choosing lines needs log.format = "json"', MISCONFIGURED)
        return record is not None and all(test(record) for test in self._tests)

    def show(self, lines: Iterable[bytes]) -> None:
        """Print those of the lines that are wanted, and have them seen at once."""
        for line in lines:
            if self.wants(line):
                self._out.write(self._raw_line(line) if self._raw else self._readable(line))
        self._out.flush()

    def _raw_line(self, line: bytes) -> bytes:
        # A program that reads them gets them byte for byte; a terminal must not get what it would act on.
        return _bytes(printable(_text(line))) if self._is_terminal else line

    def _readable(self, line: bytes) -> bytes:
        record = select.parse(line)
        if record is not None:
            return _bytes(describe(record, self._paint))
        text = printable(_text(line))
        return _bytes(text if select.is_nginx_line(line) else self._paint(text, dim=True))


def describe(record: Shown, paint: Paint) -> str:
    """Render a record as one aligned line."""
    status = "-" if record.status is None else str(record.status)
    colour = _STATUS_COLOURS.get((record.status or 0) // 100, "magenta")
    cache = printable(record.cache or "-")
    fields = [
        paint(printable(record.ts[11:23] or record.ts), dim=True),
        paint(f"{status:>3}", fg=colour, bold=True),
        paint(f"{cache:<11}", fg=_CACHE_COLOURS.get(cache)),
        paint(f"{_duration(record.duration_ms):>8}", fg="yellow" if record.duration_ms >= _SLOW_MS else None),
        f"{_size(record.bytes_out):>7}",
        f"{printable(record.client or '-'):<15}",
        paint(printable(record.trace_id), dim=True),
        f"{printable(record.method or '-'):<4}",
        printable(_target(record)),
    ]
    if record.outcome != "ok":
        message = (record.error or {}).get("message")
        end = f"{record.outcome} at {record.stage}" + (f": {message}" if message else "")
        fields.append(paint(printable(end), fg="red"))
    return " ".join(fields)


def _target(record: Shown) -> str:
    query = f"?{record.query}" if record.query else ""
    return f"{record.host or ''}{record.path or ''}{query}" or "-"


def _duration(milliseconds: float) -> str:
    if milliseconds < 100:
        return f"{milliseconds:.2f}ms"
    return f"{milliseconds:.0f}ms" if milliseconds < 10_000 else f"{milliseconds / 1000:.1f}s"


def _size(count: int | None) -> str:
    if count is None:
        return "-"
    size = float(count)
    for unit in ("B", "K", "M"):
        if size < 1000:
            return f"{size:.0f}{unit}" if unit == "B" or size >= 100 else f"{size:.1f}{unit}"
        size /= 1024
    return f"{size:.1f}G"


def printable(text: str) -> str:
    """Show what can't be printed (control characters, marks that turn the writing direction) as an escape."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escape(ord(char)) for char in text)


def _escape(code: int) -> str:
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _text(line: bytes) -> str:
    return line.rstrip(b"\n").decode("utf-8", "backslashreplace")


def _bytes(text: str) -> bytes:
    return text.encode(sys.stdout.encoding or "utf-8", "backslashreplace") + b"\n"


def _unpainted(text: str, **_style: object) -> str:
    return text
