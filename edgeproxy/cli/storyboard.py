"""A trace's story on a terminal: requests, spans as a waterfall, what Redis and the origin cost, other traces.

Only prints. Most of the text comes from strangers: nothing of it reaches the terminal but what can be printed.
"""

from collections.abc import Iterable, Sequence

import click
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from edgeproxy.cli.linkcost import PHASES, AttemptCost, attempts, shares, totals
from edgeproxy.cli.tail import describe, printable
from edgeproxy.cli.waterfall import Row, waterfall
from edgeproxy.logging import select
from edgeproxy.node.story import Found, Story
from edgeproxy.tracing.recorded import Recorded
from edgeproxy.tracing.spans import Kind, Span, spans_of

_NAME_CELLS = 44
_TIMES_CELLS = 22
_LEAST_BAR = 20
_COLOURS = {Kind.SERVER: "green", Kind.INTERNAL: "blue", Kind.CLIENT: "cyan"}
_OUTCOMES = {"error": "red", "hit": "green"}
_WORDS = {
    "filled_by": "filled by",
    "collapsed_onto": "collapsed onto",
    "restarted_from": "restarted from",
    "caused_by": "caused by",
}


def links_of(spans: Iterable[Span]) -> list[tuple[str, str, str, str]]:
    """Why, the other trace, its span, the request's span; each once."""
    return list(
        dict.fromkeys(
            (str(link.attributes.get("edgeproxy.link", "")), link.trace_id, link.span_id, span.span_id)
            for span in spans
            for link in span.links
        )
    )


class StoryPrinter:
    """Prints a story, section by section."""

    def __init__(self, console: Console) -> None:
        """Print to a console."""
        self._console = console

    def show(self, story: Story) -> None:
        """Print all of it."""
        records = [one.record for one in story.found]
        spans = [span for record in records for span in spans_of(record)]
        count = len(records)
        self._line(
            Text.assemble(
                ("trace ", "bold"),
                (printable(story.trace_id), "bold"),
                f"  {count} request{'' if count == 1 else 's'}",
                (", the last ones" if story.is_cut else ""),
                f", from {'the traces kept in' if story.source == 'store' else 'the access log'} ",
                printable(story.where),
            )
        )
        for one in story.found:
            self._request(one)
        self._heading("Spans")
        self._waterfall(spans)
        if any(record.store for record in records):
            self._heading("Redis")
            self._operations(records)
        costs = attempts(records)
        self._heading("The line to the origin")
        if costs:
            self._costs(costs)
        self._shares(records)
        if links := [link for link in links_of(spans) if link[1] != story.trace_id]:
            self._heading("Other traces")
            for why, trace_id, _, _ in dict.fromkeys((why, trace_id, "", "") for why, trace_id, *_ in links):
                self._line(
                    Text.assemble(
                        f"{_WORDS.get(why, why):<15}", (f"edgeproxy trace show {printable(trace_id)}", "bold")
                    )
                )

    def _line(self, text: Text) -> None:
        self._console.print(text, soft_wrap=True)

    def _heading(self, words: str) -> None:
        self._console.print()
        self._line(Text(words, "bold"))

    def _request(self, found: Found) -> None:
        shown = select.parse(found.line)
        if shown is not None:
            self._line(Text.from_ansi(describe(shown, click.style)))
        record = found.record
        how = f"sampled: {'yes' if record.sampled else 'no'}"
        if record.sampling:
            how += f" ({printable(record.sampling)})"
        if record.exported:
            how += ", exported"
        place = (
            f"  node {printable(record.node)}, worker {record.worker}, request {printable(record.request_id)}, {how}"
        )
        self._line(Text(place, "dim"))

    def _waterfall(self, spans: Sequence[Span]) -> None:
        names = [_name(row) for row in waterfall(spans, 1)]
        name_cells = min(_NAME_CELLS, max(name.cell_len for name in names))
        bar_cells = max(_LEAST_BAR, self._console.width - name_cells - _TIMES_CELLS - 2)
        for row, name in zip(waterfall(spans, bar_cells), names, strict=True):
            name.truncate(name_cells, overflow="ellipsis", pad=True)
            colour = "red" if row.span.error is not None else _COLOURS[row.span.kind]
            times = f" {row.start_ms:>9.2f} {row.duration_ms:>8.2f} ms "
            self._line(Text.assemble(name, times, (row.bar.rstrip(), colour)))
            below = _cut(row.below, name_cells - 4)
            for number, note in enumerate(row.notes):
                style = "red" if row.span.error is not None and (number or not row.span.events) else "dim"
                self._line(Text.assemble(below, (f"  {printable(note)}", style)))

    def _operations(self, records: Sequence[Recorded]) -> None:
        rows = [
            (
                *_cells(one.op, one.node, one.slot, f"{one.at_ms:.2f}", one.us),
                Text(printable(one.outcome), _OUTCOMES.get(one.outcome, "")),
                *_cells(one.error),
            )
            for record in records
            for one in record.store
        ]
        self._table(("op", "redis node", ">slot", ">at ms", ">µs", "outcome", "error"), rows)

    def _costs(self, costs: Sequence[AttemptCost]) -> None:
        rows = [
            (
                *_cells(one.request.origin, one.attempt.address),
                *_cells("reused" if one.attempt.reused else "new", one.attempt.status),
                *map(_figure, one.phases),
                _figure(one.total_ms),
                Text("" if one.attempt.error is None else printable(one.attempt.error.type), "red"),
            )
            for one in costs
        ]
        if len(costs) > 1:
            rows.append((Text(), Text("in all"), Text(), Text(), *map(_figure, totals(costs)), Text()))
        columns = ("origin", "address", "conn", ">status", *(f">{name}" for name in PHASES), ">ms in all", "error")
        self._table(columns, rows)

    def _table(self, columns: Sequence[str], rows: Sequence[Sequence[Text]]) -> None:
        """Aligned lines, never cut: a terminal that is too narrow wraps them. `>` begins a column of figures."""
        lines: list[Sequence[Text]] = [[Text(column.lstrip(">"), "dim") for column in columns], *rows]
        for index, column in enumerate(columns):
            width = max(line[index].cell_len for line in lines)
            for line in lines:
                line[index].align("right" if column.startswith(">") else "left", width)
        for line in lines:
            joined = Text("  ").join(line)
            joined.rstrip()
            self._line(joined)

    def _shares(self, records: Sequence[Recorded]) -> None:
        for record in records:
            one = shares(record)
            words = f"{printable(record.path or '-')}: of {record.duration_ms:.2f} ms: origin {one.origin_ms:.2f}, "
            if record.store:
                words += f"Redis {one.redis_ms:.2f}, "
            words += f"the edge itself {one.own_ms:.2f}"
            if record.cache == "COLLAPSED":
                words += ", waiting for another request's fetch included"
            elif not record.attempts:
                words += "; the origin was not asked"
            self._line(Text(words))


def _name(row: Row) -> Text:
    branch = _cut(row.branch, _NAME_CELLS - 16)
    return Text.assemble(branch, (printable(row.name), "bold"), (f" {printable(row.remark)}".rstrip(), "dim"))


def _cut(drawn: str, cells: int) -> str:
    """What is drawn before a name, of which the end tells most."""
    return drawn if cell_len(drawn) <= cells else f"…{drawn[-cells:]}"


def _cells(*values: object) -> list[Text]:
    return [Text("-" if value is None else printable(str(value))) for value in values]


def _figure(milliseconds: float | None) -> Text:
    return Text("-" if milliseconds is None else f"{milliseconds:.2f}")
