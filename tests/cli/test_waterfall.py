"""Spans drawn as a waterfall: tables of spans and of the rows that they come to."""

import pytest

from edgeproxy.cli.waterfall import Row, waterfall
from edgeproxy.tracing.spans import Event, Kind, Span

TRACE = "0" * 31 + "1"
MS = 1_000_000


def span(
    name: str, parent: str | None, start: float, end: float, *events: tuple[str, float], error: str | None = None,
    span_id: str = "", kind: Kind = Kind.INTERNAL, **attributes: object,
) -> Span:  # fmt: skip
    """A span that is called as its id; times in ms."""
    return Span(
        name=name, kind=kind, trace_id=TRACE, span_id=span_id or name, parent_id=parent, flags=1, tracestate="",
        start_ns=round(start * MS), end_ns=round(end * MS),
        attributes={key.replace("__", "."): value for key, value in attributes.items()},  # type: ignore[misc]
        events=[Event(word, round(at * MS), {}) for word, at in events], error=error,
    )  # fmt: skip


def drawn(rows: list[Row]) -> list[str]:
    return [f"{row.branch}{row.name}|{row.bar}|" for row in rows]


@pytest.mark.parametrize(
    ("spans", "rows"),
    [
        pytest.param([], [], id="nothing"),
        pytest.param([span("a", None, 0, 10)], ["a|━━━━━━━━━━|"], id="one span is all there is"),
        pytest.param([span("a", None, 5, 5)], ["a|━         |"], id="a span without duration has a mark"),
        pytest.param(
            [span("a", None, 0, 10), span("b", "a", 2, 5), span("c", "a", 5, 10)],
            ["a|━━━━━━━━━━|", "├─ b|  ━━━     |", "└─ c|     ━━━━━|"],
            id="what follows begins where the other ends",
        ),
        pytest.param(
            [span("c", "a", 6, 9), span("d", "z", 1, 3), span("z", "a", 1, 4), span("a", None, 0, 10)],
            ["a|━━━━━━━━━━|", "├─ z| ━━━      |", "│  └─ d| ━━       |", "└─ c|      ━━━ |"],
            id="in the order in which they began, whatever order they come in",
        ),
        pytest.param(
            [span("a", "stranger", 0, 4), span("b", "a", 0, 2), span("c", "stranger", 6, 10), span("d", None, 9, 10)],
            ["a|━━━━      |", "└─ b|━━        |", "c|      ━━━━|", "d|         ━|"],
            id="several requests of a trace stand on one scale",
        ),
        pytest.param(
            [span("a", "b", 0, 10), span("b", "a", 0, 10), span("c", "c", 0, 5)],
            ["c|━━━━━     |", "a|━━━━━━━━━━|", "└─ b|━━━━━━━━━━|"],
            id="circles are drawn once",
        ),
        pytest.param(
            [span("a", None, 0, 10, ("dns", 2), ("first byte", 7.5)), span("b", "a", 0, 1, ("late", 9))],
            ["a|━━┃━━━━┃━━|", "└─ b|━         |"],
            id="moments are marks, and none outside of its span",
        ),
    ],
)  # fmt: skip
def test_rows(spans: list[Span], rows: list[str]) -> None:
    assert drawn(waterfall(spans, 10)) == rows


def test_bars_are_never_longer_than_asked_for_at_any_scale() -> None:
    spans = [span(str(n), None, n / 7, n / 7 + 0.001 * n) for n in range(500)]
    for cells in (1, 7, 40, 200):
        assert {len(row.bar) for row in waterfall(spans, cells)} == {cells}
        assert all(row.bar.strip() for row in waterfall(spans, cells))


def test_chains_may_be_of_any_length() -> None:
    spans = [span(str(n), str(n - 1), n, n + 1) for n in range(3000)]
    assert [row.name for row in waterfall(spans, 10)] == [one.name for one in spans]


def test_times_count_from_the_first_span() -> None:
    first, second = waterfall([span("a", None, 100, 110), span("b", "a", 104.5, 105.75)], 10)
    assert (first.start_ms, first.duration_ms) == (0, 10)
    assert (second.start_ms, second.duration_ms) == (4.5, 1.25)


def test_notes_tell_what_it_passed_and_why_it_failed() -> None:
    failed = span("a", None, 0, 10, ("dns", 1), ("connected", 2.5), error="no answer", error__type="timeout")
    (row,) = waterfall([failed], 10)
    assert row.notes == ("dns +1.00 · connected +2.50 ms", "error timeout: no answer")
    chain = [
        Event("exception", 0, {"exception.type": "origin_unreachable", "exception.message": "all failed"}),
        Event("exception", 0, {"exception.type": "ConnectionRefusedError", "exception.message": "refused"}),
    ]
    (row,) = waterfall([failed._replace(events=chain)], 10)
    assert row.notes == ("origin_unreachable: all failed", "because of ConnectionRefusedError: refused")


def test_remarks_say_what_came_of_each_kind_of_span() -> None:
    attempt = span("GET", None, 0, 1, kind=Kind.CLIENT, server__address="10.0.0.1", server__port=80,
                   http__response__status_code=503)  # fmt: skip
    operation = span("MGET", None, 0, 1, kind=Kind.CLIENT, db__system__name="redis", server__address="10.0.0.2",
                     edgeproxy__redis__outcome="hit")  # fmt: skip
    request = span("GET /*", None, 0, 1, kind=Kind.SERVER, edgeproxy__outcome="ok", url__path="/a",
                   http__response__status_code=200, edgeproxy__cache__status="HIT")  # fmt: skip
    lookup = span("cache lookup", None, 0, 1, edgeproxy__cache__status="HIT", edgeproxy__cache__tier="memory")
    remarks = [waterfall([one], 1)[0].remark for one in (attempt, operation, request, lookup)]
    assert remarks == ["10.0.0.1:80 503", "10.0.0.2 hit", "/a 200 HIT", "memory"]
