"""Does the trace reach the origin, and its id the client? Judged by a probe's way through the edge and back.

Pure: a probe and the edge's settings in, findings out.
"""

from collections.abc import Sequence
from typing import Any

from edgeproxy.config import Tracing, TracingSettings
from edgeproxy.doctor.echo import Context, Echo, read_echo
from edgeproxy.doctor.findings import Finding, Verdict
from edgeproxy.doctor.probe import Probe
from edgeproxy.tracing.recorded import Recorded

HOW = (
    "name a path of the origin that answers with the request's header fields, as JSON or text: --echo /path; "
    "or look in the tracing backend whether the origin's spans hang under the edge's"
)
_SHOWN = 200
_FIELDS = {"tracecontext": "traceparent", "b3": "b3", "b3multi": "x-b3-traceid", "jaeger": "uber-trace-id"}
"""By which field a format is known."""


def judge_origin(probe: Probe, tracing: TracingSettings, propagators: Sequence[str]) -> Finding:
    """Whether the origin saw exactly one context, of the right trace, with the edge's span as parent."""
    unseen = _unseen(probe, propagators)
    if unseen is not None:
        return unseen
    echo = read_echo(probe.body)
    if not echo.fields:
        return _finding(Verdict.SKIPPED, "the echo path does not answer with the request's header fields", HOW)
    figures: dict[str, Any] = {
        "sent": {"trace_id": probe.trace_id, "span_id": probe.span_id},
        "seen": [context._asdict() for context in echo.contexts],
    }
    spoiled = _spoiled(echo, figures)
    if spoiled is not None:
        return spoiled
    same = _same_trace(probe, tracing, echo.contexts, figures)
    if same.verdict is Verdict.OK:
        return _incomplete(echo.contexts, propagators, figures) or same
    return same


def _unseen(probe: Probe, propagators: Sequence[str]) -> Finding | None:
    """Why what the origin receives is not known, or does not matter; None where the probe's answer should tell."""
    if not {*propagators} - {"none", "baggage"}:
        return _finding(
            Verdict.WARN,
            f"trace context is not sent on: tracing.propagators is {', '.join(propagators)}",
            'set it to ["tracecontext", "baggage"] unless that is what you want',
        )
    if not probe.is_echo:
        return _finding(Verdict.SKIPPED, "no echo path is known, so what the origin receives is not seen", HOW)
    if probe.status != 200:
        return _finding(
            Verdict.SKIPPED, f"the echo path answers {probe.status}: what the origin receives is not seen", HOW
        )
    uncached = "choose an echo path whose responses are not stored: Cache-Control: no-store"
    if probe.record is not None and not probe.record.attempts:
        found = f"the edge answered by itself (cache: {probe.record.cache}), the origin saw nothing"
        return _finding(Verdict.SKIPPED, found, uncached)
    if "age" in probe.fields:
        found = "the response comes out of a cache (it has an Age): what it says is another request's"
        return _finding(Verdict.SKIPPED, found, uncached)
    return None


def _spoiled(echo: Echo, figures: dict[str, Any]) -> Finding | None:
    """What is wrong with the fields themselves, whatever trace they are of."""
    if echo.invalid:
        return _finding(
            Verdict.FAIL,
            f"the origin saw what is no trace context: {echo.invalid[0][:_SHOWN]}",
            "something between edge and origin changes the field: look at each hop",
            figures,
        )
    if not echo.contexts:
        return _finding(
            Verdict.FAIL,
            f"the origin saw no trace context among {echo.fields} header fields",
            "a hop between edge and origin strips it (a proxy, a gateway, a framework): let traceparent and tracestate "
            "through; if the edge has none to send, look at tracing.propagators",
            figures,
        )
    fields = [context.field for context in echo.contexts]
    doubled = sorted({field for field in fields if fields.count(field) > 1})
    if doubled:
        return _finding(
            Verdict.FAIL,
            f"the origin saw {fields.count(doubled[0])} {doubled[0]} fields: receivers take none of them, or any",
            "the edge sends one: a hop between adds its own beside it; have it replace the field, or trace nothing",
            figures,
        )
    return None


def _incomplete(contexts: tuple[Context, ...], propagators: Sequence[str], figures: dict[str, Any]) -> Finding | None:
    """Whether a format that is sent did not arrive beside another one."""
    fields = {context.field for context in contexts}
    missing = [field for word, field in _FIELDS.items() if word in propagators and field not in fields]
    if not missing:
        return None
    return _finding(
        Verdict.WARN,
        f"the origin saw {', '.join(sorted(fields))}, but no {', '.join(missing)}, which the edge sends, too",
        "a hop between edge and origin strips it: let it through, or take it out of tracing.propagators if nobody "
        "reads it",
        figures,
    )


def _same_trace(
    probe: Probe, tracing: TracingSettings, contexts: tuple[Context, ...], figures: dict[str, Any]
) -> Finding:
    """Whether the contexts are of the trace that the edge continued or began, and whose span is their parent."""
    record = probe.record
    trace_id = (_told(probe) or probe.trace_id) if record is None else record.trace_id
    is_restarted = trace_id != probe.trace_id if record is None else record.restarted_from is not None
    figures["trace_id"] = trace_id
    for context in contexts:
        if context.trace_id != trace_id:
            return _finding(
                Verdict.FAIL,
                f"the origin saw another trace ({context.trace_id}, not {trace_id})",
                "a hop between edge and origin begins traces anew: have it continue the one that comes",
                figures,
            )
        if record is not None and context.sampled is not None and context.sampled != record.sampled and tracing.enabled:
            said = "sampled" if record.sampled else "not sampled"
            return _finding(
                Verdict.FAIL,
                f"the edge sent the trace on as {said}, the origin saw the opposite: traces come in halves",
                "a hop between edge and origin decides anew: have it follow its parent (parentbased)",
                figures,
            )
    parents = {context.span_id for context in contexts}
    if not tracing.enabled:
        return _passed_through(probe, parents, figures, is_restarted=is_restarted)
    how = "; the edge began the trace anew, as this host is not in tracing.trust" if is_restarted else ""
    return _parent(record, parents, how, figures)


def _passed_through(probe: Probe, parents: set[str], figures: dict[str, Any], *, is_restarted: bool) -> Finding:
    """With tracing off: whether the client's context is what the origin saw."""
    if is_restarted:
        found = "tracing is off; the client's context does not come through, as this host is not in tracing.trust"
        return _finding(Verdict.OK, found, "", figures)
    if parents == {probe.span_id}:
        return _finding(Verdict.OK, "tracing is off, and the client's context comes through as it is", "", figures)
    return _finding(
        Verdict.WARN,
        "tracing is off, yet the origin saw another parent than the client's",
        "a hop between edge and origin traces, too: its spans have to be exported to the same backend",
        figures,
    )


def _parent(record: Recorded | None, parents: set[str], how: str, figures: dict[str, Any]) -> Finding:
    """With tracing on: whether the parent that the origin saw is the span of the edge's attempt."""
    if record is None:
        return _finding(
            Verdict.OK,
            f"the origin saw one context of the right trace{how}; whose span it hangs under could not be compared",
            "for that the access log has to be a file of JSON lines",
            figures,
        )
    span_id = record.attempts[-1].span_id
    figures["span_id"] = span_id
    if parents != {span_id}:
        return _finding(
            Verdict.WARN,
            f"the origin saw the right trace, but as its parent {', '.join(sorted(parents))}, not the edge's {span_id}",
            "a hop between edge and origin traces, too: its spans have to be exported to the same backend, "
            "or the origin's hang in the air",
            figures,
        )
    return _finding(
        Verdict.OK, f"the origin saw exactly one context, of the right trace, under the edge's span{how}", "", figures
    )


def _told(probe: Probe) -> str:
    """The trace's id as the client is told it; empty where it is not."""
    _, _, rest = probe.fields.get("traceresponse", "").partition("-")
    return probe.fields.get("x-trace-id") or rest.partition("-")[0]


def _finding(verdict: Verdict, found: str, advice: str = "", figures: dict[str, Any] | None = None) -> Finding:
    return Finding(check="propagation", verdict=verdict, found=found, advice=advice, figures=figures or {})


def judge_client(probe: Probe, config: Tracing) -> Finding:
    """Whether the client was told the trace's id, as far as it is to be."""
    told = {
        **({"x-trace-id": probe.fields.get("x-trace-id")} if config.x_trace_id else {}),
        **({"traceresponse": probe.fields.get("traceresponse")} if config.traceresponse else {}),
    }

    def finding(verdict: Verdict, found: str, advice: str = "") -> Finding:
        return Finding(check="client_ids", verdict=verdict, found=found, advice=advice, figures=told)

    if not told:
        return finding(
            Verdict.SKIPPED,
            "clients are not told the trace's id",
            "tracing.x_trace_id and tracing.traceresponse switch it on",
        )
    missing = [name for name, value in told.items() if not value]
    if missing:
        return finding(
            Verdict.FAIL,
            f"the response came without {' and '.join(missing)}",
            f"look what answers at this address (status {probe.status}): is it this node?",
        )
    trace_id = probe.trace_id if probe.record is None else probe.record.trace_id
    wrong = [name for name, value in told.items() if trace_id not in (value or "")]
    if wrong and probe.record is not None:
        return finding(
            Verdict.FAIL,
            f"{' and '.join(wrong)} told the client another trace than {trace_id}",
            "look for something between that answers from a store",
        )
    return finding(Verdict.OK, f"the client is told the trace's id by {' and '.join(told)}")
