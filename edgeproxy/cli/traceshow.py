"""`edgeproxy trace show ID`: a request's whole story, from the traces that the node keeps or from its access log alone.

Most of what it prints comes from strangers: nothing of it reaches the terminal but what can be printed.
"""

import contextlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.console import Console

from edgeproxy.cli.common import MISCONFIGURED, config_option, fail, find_node, plain_errors, runtime_dir_option
from edgeproxy.cli.linkcost import PHASES, AttemptCost, attempts, shares, totals
from edgeproxy.cli.storyboard import StoryPrinter, links_of
from edgeproxy.cli.tail import printable
from edgeproxy.config import Config
from edgeproxy.export.traces import TraceStore, TraceStoreError
from edgeproxy.node import NotRunningError, RuntimeDir
from edgeproxy.node.purging import running
from edgeproxy.node.source import Source
from edgeproxy.node.spans import trace_store_folder
from edgeproxy.node.status import Status, read_status
from edgeproxy.node.story import Nothing, Story, Wanted, WantedError, tell
from edgeproxy.tracing.spans import Span, spans_of


@click.command()
@click.argument("wanted_id", metavar="ID")
@config_option
@runtime_dir_option
@click.option(
    "--log", "log_path", type=click.Path(path_type=Path), help="Look into this access log, with what was rotated away."
)
@click.option("--json", "as_json", is_flag=True, help="Print all of it as one JSON object.")
def show(
    wanted_id: str, config_path: Path | None, runtime_dir: Path | None, log_path: Path | None, as_json: bool
) -> None:
    """Show the whole story of a trace: its requests, their spans, what Redis and the origin cost, other traces.

    ID is a trace id, or the first 8 or more digits of one, or a request id. Looks into the traces that the node keeps,
    then into its access log. Exits with 1 when nothing is known of it, with 2 when ID is none or fits several traces.
    """
    with plain_errors():
        try:
            wanted = Wanted.parse(wanted_id)
            place = _Place(config_path, runtime_dir, log_path)
            story = place.tell(wanted)
        except WantedError as error:
            fail(printable_lines(str(error)), MISCONFIGURED)
    if isinstance(story, Nothing):
        _say_nothing(wanted, story, place)
    elif as_json:
        click.echo(_json(story))
    else:
        StoryPrinter(Console(highlight=False)).show(story)


class _Place:
    """A node, running or not, or a log alone."""

    def __init__(self, config_path: Path | None, runtime_dir: Path | None, log_path: Path | None) -> None:
        """Find it. Raises NodeError or SettingsError where there is nothing to look into."""
        self.config: Config | None = None
        self.status: Status | None = None
        self.log = log_path
        self.unread = ""
        """Why the access log is not read."""
        self.unkept = ""
        """Why the traces that the node keeps are not read."""
        self._runtime: RuntimeDir | None = None
        if log_path is not None and config_path is None and runtime_dir is None:
            return
        runtime = find_node(config_path, runtime_dir)
        try:
            self.config = running(runtime.path).config
            self.status = read_status(runtime.path, oldest=1_000_000)
            access_log = self.status.access_log
        except NotRunningError:
            if config_path is None:
                if log_path is not None:
                    return
                raise
            self.config = Source(config_path).read().config
            access_log = self.config.log.access
        self._runtime = runtime
        if log_path is not None:
            return
        if access_log == "-":
            self.unread = 'the access log goes to standard output (log.access = "-"): name a file of it with --log'
        elif self.config.log.format != "json":
            self.unread = 'the access log is in Nginx\'s format, which tells too little: that takes log.format = "json"'
        else:
            self.log = Path(access_log)

    def tell(self, wanted: Wanted) -> Story | Nothing:
        """Look for a trace. Raises WantedError."""
        if self._runtime is None or self.config is None:
            return tell(wanted, None, "", self.log)
        folder = trace_store_folder(self.config, self._runtime.path)
        try:
            with contextlib.closing(TraceStore.open(folder)) as store:
                return tell(wanted, store, str(folder), self.log)
        except TraceStoreError as error:
            # There is none before the first trace was kept; otherwise the log may still know.
            self.unkept = str(error) if folder.exists() else f"no traces are kept in {folder}"
            return tell(wanted, None, "", self.log)

    def in_flight(self, wanted: Wanted) -> list[str]:
        """The requests of a trace that are under way now, in words."""
        if self.status is None or wanted.is_request:
            return []
        return [
            f"{one.method} {one.host}{one.path} is under way in worker {one.worker}: {one.stage}, "
            + ("" if one.age_ms is None else f"since {one.age_ms / 1000:.1f} s")
            for one in self.status.requests
            if one.trace_id.startswith(wanted.text)
        ]


def _say_nothing(wanted: Wanted, nothing: Nothing, place: _Place) -> None:
    under_way = place.in_flight(wanted)
    if under_way:
        fail("\n".join(map(printable, [*under_way, "its spans and its line come when it ends"])))
    looked = [*filter(None, [place.unkept]), *nothing.looked, *filter(None, [place.unread])]
    fail("\n".join(map(printable, [f"nothing is known of {wanted.text}", *looked, *_advice(wanted, nothing, place)])))


def _advice(wanted: Wanted, nothing: Nothing, place: _Place) -> Iterator[str]:
    """What the reason may be, and what to do about it."""
    minted, oldest = wanted.minted, nothing.oldest
    if minted is not None and minted < datetime.now(UTC):
        yield f"if edgeproxy minted this id, that was at {minted:%Y-%m-%dT%H:%M:%SZ}"
    if oldest is not None:
        if minted is not None and minted < oldest:
            yield f"the log goes back to {oldest:%Y-%m-%dT%H:%M:%SZ} only: name an older file with --log"
        else:
            yield f"the log goes back to {oldest:%Y-%m-%dT%H:%M:%SZ}"
    if place.status is not None:
        tracing = place.status.tracing
        state = f"{tracing.sampler}, ratio {tracing.ratio:g}" if tracing.enabled else "tracing is off"
        yield f"the node keeps the traces that were sampled ({state}); the access log has every request"
    yield "a trace that began elsewhere may never have come to this node: ask the others (`node` in their logs)"


def printable_lines(text: str) -> str:
    """Text of several lines, each of them printable."""
    return "\n".join(map(printable, text.splitlines()))


# --- for programs


def _json(story: Story) -> str:
    """All of it, as ASCII that can be printed: it may go to a terminal."""
    records = [one.record for one in story.found]
    spans = [span for record in records for span in spans_of(record)]
    costs = attempts(records)
    told = {
        "trace_id": story.trace_id,
        "source": story.source,
        "where": story.where,
        "requests": [json.loads(one.line) for one in story.found],
        "spans": [_span_json(span) for span in spans],
        "redis": [
            {"request": record.span_id, **msgspec.to_builtins(one)} for record in records for one in record.store
        ],
        "origin": {
            "attempts": [_cost_json(cost) for cost in costs],
            "totals_ms": dict(zip((*PHASES, "total"), totals(costs), strict=True)),
        },
        "shares": [
            {
                "request": one.request.span_id,
                "origin_ms": one.origin_ms,
                "redis_ms": one.redis_ms,
                "own_ms": one.own_ms,
            }
            for one in map(shares, records)
        ],
        "links": [
            {"why": why, "trace_id": trace_id, "span_id": span_id, "request": request}
            for why, trace_id, span_id, request in links_of(spans)
        ],
    }
    return json.dumps(told, indent=2).replace("\x7f", "\\u007f")


def _span_json(span: Span) -> dict[str, Any]:
    fields = span._asdict()
    fields["kind"] = span.kind.name
    fields["events"] = [event._asdict() for event in span.events]
    fields["links"] = [link._asdict() for link in span.links]
    return fields


def _cost_json(cost: AttemptCost) -> dict[str, Any]:
    return {
        "request": cost.request.span_id,
        "span_id": cost.attempt.span_id,
        "address": cost.attempt.address,
        "reused": cost.attempt.reused,
        "status": cost.attempt.status,
        "error": cost.attempt.error and cost.attempt.error.type,
        **{f"{name.replace(' ', '_')}_ms": phase for name, phase in zip(PHASES, cost.phases, strict=True)},
        "total_ms": cost.total_ms,
    }
