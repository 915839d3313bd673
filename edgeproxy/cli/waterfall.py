"""Spans as the rows of a waterfall: who is whose child, when each began, how long it took, drawn to one scale.

Pure: spans in, rows out; colours, columns and terminals are the command's business. Text in rows is as it is in the
spans, which is as strangers sent it.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from edgeproxy.tracing.spans import Event, Kind, Span

BAR, MARK, GAP = "━", "┃", " "
_BRANCH, _LAST_BRANCH = "├─ ", "└─ "
_TRUNK, _NO_TRUNK = "│  ", "   "
_MS_NS = 1e6
_EXCEPTION = "exception"


class Row(NamedTuple):
    """One span."""

    branch: str
    """What is drawn before its name: where it hangs in the tree."""
    span: Span
    name: str
    remark: str
    """What came of it, in a few words."""
    start_ms: float
    """After the first span of all began."""
    duration_ms: float
    bar: str
    """As many characters as were asked for, for the time of all spans."""
    notes: tuple[str, ...]
    """Lines to stand below: the moments that it passed, and what went wrong."""
    below: str
    """What is drawn before those lines."""


def waterfall(spans: Sequence[Span], cells: int) -> list[Row]:
    """The rows for the spans of one trace, with bars of `cells` characters; parents before their children, siblings in
    the order in which they began. A span whose parent is not among them is a root, and there may be several.
    """
    if not spans:
        return []
    begin_ns = min(span.start_ns for span in spans)
    scale = _Scale(begin_ns, max(1, max(span.end_ns for span in spans) - begin_ns), cells)
    return [_row(span, branch, below, scale) for span, branch, below in _tree(spans)]


def _tree(spans: Sequence[Span]) -> Iterator[tuple[Span, str, str]]:
    """Each span once, whatever their parents say."""
    ordered = sorted(spans, key=lambda span: (span.start_ns, -span.end_ns))
    known = {span.span_id for span in ordered}
    children: defaultdict[str | None, list[Span]] = defaultdict(list)
    for span in ordered:
        has_parent = span.parent_id in known and span.parent_id != span.span_id
        children[span.parent_id if has_parent else None].append(span)
    seen: set[int] = set()
    # What hangs in a circle hangs on no root: every span is one in the end. A stack, as chains can be of any length.
    waiting = [(span, "", "") for span in reversed([*children[None], *ordered])]
    while waiting:
        span, branch, trunk = waiting.pop()
        if id(span) in seen:
            continue
        seen.add(id(span))
        own = children[span.span_id]
        yield span, branch, trunk + (_TRUNK if own else _NO_TRUNK)
        for child in reversed(own):
            is_last = child is own[-1]
            waiting.append(
                (child, trunk + (_LAST_BRANCH if is_last else _BRANCH), trunk + (_NO_TRUNK if is_last else _TRUNK))
            )


class _Scale(NamedTuple):
    begin_ns: int
    length_ns: int
    cells: int

    def cell(self, time_ns: int) -> int:
        """The cell that a moment falls into."""
        return min(self.cells - 1, max(0, (time_ns - self.begin_ns) * self.cells // self.length_ns))

    def bar(self, span: Span) -> str:
        first = self.cell(span.start_ns)
        # A span ends in the cell before the one that its end opens.
        last = max(first, self.cell(max(span.start_ns, span.end_ns - 1)))
        drawn = [GAP] * first + [BAR] * (last + 1 - first) + [GAP] * (self.cells - 1 - last)
        for event in span.events:
            if event.name != _EXCEPTION and first <= (at := self.cell(event.time_ns)) <= last:
                drawn[at] = MARK
        return "".join(drawn)


def _row(span: Span, branch: str, below: str, scale: _Scale) -> Row:
    return Row(
        branch=branch,
        span=span,
        name=span.name,
        remark=_remark(span),
        start_ms=(span.start_ns - scale.begin_ns) / _MS_NS,
        duration_ms=(span.end_ns - span.start_ns) / _MS_NS,
        bar=scale.bar(span),
        notes=tuple(_notes(span)),
        below=below,
    )


def _remark(span: Span) -> str:
    said = span.attributes.get
    words: list[object] = []
    if said("db.system.name"):
        words = [said("server.address"), said("edgeproxy.redis.outcome")]
    elif span.kind is Kind.CLIENT:
        port = said("server.port")
        words = [
            f"{said('server.address')}:{port}" if port else said("server.address"),
            said("http.response.status_code"),
        ]
    elif said("edgeproxy.outcome"):
        words = [said("url.path"), said("http.response.status_code"), said("edgeproxy.cache.status")]
    else:
        words = [said("edgeproxy.cache.tier") or said("edgeproxy.cache.status")]
    return " ".join(str(word) for word in words if word)


def _notes(span: Span) -> Iterator[str]:
    passed = [event for event in span.events if event.name != _EXCEPTION]
    if passed:
        yield " · ".join(f"{event.name} +{(event.time_ns - span.start_ns) / _MS_NS:.2f}" for event in passed) + " ms"
    failures = [event for event in span.events if event.name == _EXCEPTION]
    for number, event in enumerate(failures):
        yield ("because of " if number else "") + _failure(event)
    if not failures and span.error is not None:
        yield f"error {span.attributes.get('error.type', '')}".rstrip() + (f": {span.error}" if span.error else "")


def _failure(event: Event) -> str:
    return f"{event.attributes.get('exception.type', '')}: {event.attributes.get('exception.message', '')}"
