"""`edgeproxy keytrace`: which Redis commands a trace ran, and which traces touched what is stored for a URL.

What it prints comes from clients and other nodes: nothing of it reaches the terminal but what can be printed.
"""

import json
import re
import time
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from pathlib import Path

import click
import msgspec

from edgeproxy.cli.common import config_option, fail, find_node, plain_errors, runtime_dir_option
from edgeproxy.cli.purge import plain_purge_errors
from edgeproxy.cli.tail import LOOK_S, printable
from edgeproxy.config import Config
from edgeproxy.node import NotRunningError
from edgeproxy.node.purging import keyed_urls, running
from edgeproxy.node.source import Source
from edgeproxy.node.status import read_control
from edgeproxy.node.touches import Fill, Log, SharedTrail, SourceError, Touch, Wanted, merged
from edgeproxy.proxy.plan import Plans
from edgeproxy.proxy.routing import Routes

AGAIN_S = 2.0
"""How long Redis is left alone when it can't be read."""
REMEMBERED = 10_000
"""So many operations that were shown are known by their span ids when they come from the other source."""
_TRACE_ID = re.compile(r"[0-9a-f]{32}")


def _trace_id(_ctx: click.Context, _param: click.Parameter, value: str | None) -> str:
    if value is None:
        return ""
    if not _TRACE_ID.fullmatch(value.lower()):
        raise click.BadParameter(f"{value!r} is no trace id: 32 hex digits")
    return value.lower()


@click.command()
@click.option("--trace-id", metavar="ID", callback=_trace_id, help="The operations of this trace.")
@click.option("--key", "url", metavar="URL", help="The operations on what is stored for this URL, and who filled it.")
@click.option(
    "-f", "--follow", is_flag=True, help="Go on with what comes, of that trace or URL or of all, until Ctrl-C."
)
@click.option(
    "-n", "--lines", default=1000, show_default=True, type=click.IntRange(1), help="How many to show of the past."
)
@click.option("--json", "as_json", is_flag=True, help="Print each as one line of JSON.")
@config_option
@runtime_dir_option
def keytrace(
    trace_id: str,
    url: str | None,
    follow: bool,
    lines: int,
    as_json: bool,
    config_path: Path | None,
    runtime_dir: Path | None,
) -> None:
    """Show operations of the store that nodes share: from this node's access log, and from the trail in Redis, which
    has a share of those of all nodes (cache.redis.trail_ratio).

    Exits with 1 when there is nothing to show, with 2 when what is asked for can't be understood.
    """
    if trace_id and url is not None:
        raise click.UsageError("--trace-id and --key do not go together")
    if not (trace_id or url is not None or follow):
        raise click.UsageError("nothing to show: name --trace-id, --key or --follow")
    with plain_errors(), plain_purge_errors():
        config, access_log = _node(config_path, runtime_dir)
        routes = Routes(config)
        urls = () if url is None else tuple(keyed_urls(routes, url))
        wanted = Wanted(trace_id=trace_id, urls=urls)
        sources = _Sources(config, access_log, wanted, Plans(routes))
        out = _Printer(as_json=as_json, has_trace=not trace_id, has_url=not urls)
        found = False
        try:
            if trace_id or urls:
                found = out.show(sources.past(lines))
                found = out.show_fills(sources.fills()) or found
            while follow:
                out.show(sources.new())
                time.sleep(LOOK_S)
        finally:
            sources.close()
    if not found:
        fail(f"nothing is known of {trace_id or url}")


def _node(config_path: Path | None, runtime_dir: Path | None) -> tuple[Config, str]:
    """The configuration of the node that runs, else of the file; and where the access log is."""
    runtime = find_node(config_path, runtime_dir)
    try:
        config = running(runtime.path).config
        return config, read_control(runtime).describe().access_log
    except NotRunningError:
        if config_path is None:
            raise
        config = Source(config_path).read().config
        return config, config.log.access


class _Sources:
    """The log and the trail, or the one of them that there is; what is wrong with the other is said once."""

    def __init__(self, config: Config, access_log: str, wanted: Wanted, plans: Plans) -> None:
        self._log: Log | None = None
        self._trail: SharedTrail | None = None
        self._said: set[str] = set()
        self._again_at = 0.0
        if access_log == "-":
            self._say('the access log goes to standard output (log.access = "-") and is not read')
        elif config.log.format != "json":
            self._say('the access log does not tell of operations: that takes log.format = "json"')
        else:
            self._log = Log(Path(access_log), wanted, plans)
        if config.cache.store == "redis":
            self._trail = SharedTrail(config.cache.redis, wanted)
        else:
            self._say(f'there is no trail: cache.store is "{config.cache.store}", not "redis"')

    def past(self, limit: int) -> list[Touch]:
        """The last operations that there are."""
        found: list[Touch] = []
        if self._log is not None:
            found += self._log.past(limit)
            for problem in self._log.problems:
                self._say(problem)
        if self._trail is not None:
            try:
                found += self._trail.past(limit)
            except SourceError as error:
                self._failed(error)
        return merged(found, limit)

    def new(self) -> list[Touch]:
        """The operations that came since. Redis is tried again from time to time."""
        found: list[Touch] = []
        if self._log is not None:
            try:
                found += self._log.new()
            except SourceError as error:
                self._say(str(error))
        if self._trail is not None and time.monotonic() >= self._again_at:
            try:
                found += self._trail.new()
            except SourceError as error:
                self._failed(error)
        return merged(found, len(found)) if found else []

    def _failed(self, error: SourceError) -> None:
        self._again_at = time.monotonic() + AGAIN_S
        self._say(str(error))

    def fills(self) -> list[Fill]:
        """What Redis has stored now."""
        try:
            return self._trail.fills() if self._trail is not None and time.monotonic() >= self._again_at else []
        except SourceError as error:
            self._failed(error)
            return []

    def _say(self, problem: str) -> None:
        if problem not in self._said:
            self._said.add(problem)
            click.echo(f"edgeproxy: {printable(problem)}", err=True)

    def close(self) -> None:
        """Let go of both."""
        for source in (self._log, self._trail):
            if source is not None:
                source.close()


class _Printer:
    """Prints operations as aligned lines under a heading, or as JSON; each once."""

    def __init__(self, *, as_json: bool, has_trace: bool, has_url: bool) -> None:
        """`has_trace` and `has_url`: whether those differ from line to line."""
        self._as_json = as_json
        self._has_trace = has_trace
        self._has_url = has_url
        self._is_begun = False
        self._shown: OrderedDict[str, None] = OrderedDict()

    def show(self, touches: Iterable[Touch]) -> bool:
        """Print what was not printed yet; whether there was anything."""
        new = [touch for touch in touches if touch.span_id not in self._shown]
        for touch in new:
            self._shown[touch.span_id] = None
            if len(self._shown) > REMEMBERED:
                self._shown.popitem(last=False)
            if self._as_json:
                click.echo(_json("operation", touch))
            else:
                if not self._is_begun:
                    self._is_begun = True
                    click.echo(self._line(_HEADING))
                click.echo(self._line(_cells(touch)))
        return bool(new)

    def show_fills(self, fills: Sequence[Fill]) -> bool:
        """Print what is stored now; whether there is anything."""
        for fill in fills:
            if self._as_json:
                click.echo(_json("stored", fill))
                continue
            what = f"no response, because of {fill.why}" if fill.why else f"{fill.status}, {fill.size_bytes} bytes"
            vary = "".join(f"; {name}: {'(none)' if one is None else one}" for name, one in fill.vary.items())
            line = f"stored now: {fill.url}{vary}: {what}, filled by trace {fill.trace_id} at {fill.stored}"
            click.echo(printable(line))
        return bool(fills)

    def _line(self, cells: "_Cells") -> str:
        when, trace_id, op, node, slot, took, outcome, edge, url, error = map(printable, cells)
        fields = [
            f"{when:<27}",
            *([f"{trace_id:<32}"] if self._has_trace else []),
            f"{op:<6}",
            f"{node:<21}",
            f"{slot:>5}",
            f"{took:>9}",
            f"{outcome:<7}",
            f"{edge:<12}",
            *([url] if self._has_url else []),
            *([error] if error else []),
        ]
        return "  ".join(fields).rstrip()


def _json(kind: str, value: msgspec.Struct) -> str:
    """One line, of ASCII that can be printed: it may go to a terminal."""
    return json.dumps({"type": kind, **msgspec.structs.asdict(value)}).replace("\x7f", "\\u007f")


_Cells = tuple[str, str, str, str, str, str, str, str, str, str]
_HEADING: _Cells = ("time", "trace", "op", "redis node", "slot", "took", "outcome", "edge node", "url", "")


def _cells(touch: Touch) -> _Cells:
    return (
        touch.time,
        touch.trace_id,
        touch.op,
        touch.redis_node or "-",
        str(touch.slot),
        f"{touch.us / 1000:.2f}ms",
        touch.outcome,
        touch.edge_node,
        touch.url,
        touch.error,
    )
