"""Is the sampler effective? What is set, what of that shows in the access log, and whether a route never gets a trace.

May read the access log. Judging is pure: settings and counts in, findings out.
"""

import math
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec

from edgeproxy.config import TracingSettings
from edgeproxy.doctor.findings import Finding, Verdict
from edgeproxy.doctor.patient import Patient
from edgeproxy.logging.past import newest
from edgeproxy.tracing.policy import Tail

LINES = 20_000
"""So many of the log's last lines are looked at."""
TRAFFIC = 20
"""A route that had fewer requests is not said to starve."""
DEVIATIONS = 4.5
"""How far a share may be from the ratio, in standard deviations, before it is no chance: 1 in 100,000."""
_SHOWN = 5
_NO_ROUTE = "(none)"
_LATER = "ask again when there was traffic"


class Seen(msgspec.Struct, frozen=True):
    """What of a record is looked at."""

    ts: str = ""
    route: str | None = None
    sampled: bool = False
    exported: bool = False
    sampling: str | None = None
    caused_by: str | None = None
    status: int | None = None
    outcome: str = ""
    duration_ms: float = 0.0


class Route(NamedTuple):
    """What became of a route's requests."""

    requests: int
    traced: int
    """Those of which spans were exported, whatever the reason."""


_decode = msgspec.json.Decoder(Seen).decode


def check_sampler(patient: Patient) -> list[Finding]:
    """Both findings: what is set, and what comes of it. Raises OSError when the log can't be read."""
    effective = settings(patient.tracing)
    if effective.verdict is not Verdict.OK:
        return [effective]
    remote = patient.status.tracing.remote
    effective = doubtful(
        effective,
        patient.tracing,
        [route.match for route in patient.config.route],
        "" if remote is None or not remote.error else f"since {remote.failing_since}: {remote.error}",
    )
    if patient.log is None:
        return [
            effective,
            Finding(
                check="sampled_share",
                verdict=Verdict.SKIPPED,
                found="the access log can't be read back",
                advice='set log.access to a file and log.format = "json"',
            ),
        ]
    return [effective, *shares(patient.tracing, _since(patient, newest(patient.log, _read, LINES)))]


def _read(line: bytes) -> Iterator[Seen]:
    try:
        yield _decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return


def _since(patient: Patient, newest_first: Iterable[Seen]) -> list[Seen]:
    """The requests that began under the settings that hold now, background fetches left out."""
    since = _iso(patient.settled_at)
    return [one for one in newest_first if one.ts >= since and one.caused_by is None]


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def settings(tracing: TracingSettings) -> Finding:
    """Whether anything can be sampled at all."""
    figures = {
        "enabled": tracing.enabled,
        "sampler": tracing.sampler,
        "ratio": tracing.ratio,
        "exporters": list(tracing.exporters),
    }

    def finding(verdict: Verdict, found: str, advice: str = "") -> Finding:
        return Finding(check="sampler", verdict=verdict, found=found, advice=advice, figures=figures)

    if not tracing.exporters:
        return finding(
            Verdict.FAIL,
            "spans go nowhere: the exporter is none",
            "take OTEL_TRACES_EXPORTER=none out of the environment file, or set tracing.exporters",
        )
    if not tracing.enabled:
        return finding(Verdict.FAIL, "tracing is off", "switch it on: `edgeproxy trace on`")
    found = f"tracing is on, sampler {tracing.sampler}, ratio {tracing.ratio:g}, to {', '.join(tracing.exporters)}"
    # What else may say yes: parents, rules, a target, strategies from elsewhere.
    others = [
        *(["rules"] if any(rule.ratio for rule in tracing.sampling.rules) else []),
        *(["an adaptive target"] if tracing.sampling.adaptive_target else []),
        *(["remote strategies"] if tracing.strategies else []),
    ]
    if is_zero(tracing) and not others:
        parents = tracing.sampler.startswith("parentbased")
        return finding(
            Verdict.WARN if parents else Verdict.FAIL,
            f"{found}: " + ("only traces that a parent has sampled are" if parents else "no trace is sampled"),
            "set another sampler (OTEL_TRACES_SAMPLER, tracing.sampler)"
            if tracing.sampler.endswith("always_off")
            else "set OTEL_TRACES_SAMPLER_ARG or tracing.ratio to more than 0",
        )
    return finding(Verdict.OK, found + (f", with {' and '.join(others)}" if others else ""))


def is_zero(tracing: TracingSettings) -> bool:
    """Whether the sampler by itself takes nothing."""
    return tracing.sampler.endswith("always_off") or (tracing.sampler.endswith("traceidratio") and tracing.ratio == 0)


def doubtful(effective: Finding, tracing: TracingSettings, routes: Iterable[str], remote_error: str) -> Finding:
    """The finding about settings that do sample, or a warning where a part of them does nothing."""
    known = {*routes} or {"/*"}
    lost = [rule.route for rule in tracing.sampling.rules if rule.route and rule.route not in known]
    if lost:
        return msgspec.structs.replace(
            effective,
            verdict=Verdict.WARN,
            found=f"{effective.found}; a sampling rule is for {lost[0]}, which is no route's match: it fits nothing",
            advice=f"name one that there is: {', '.join(sorted(known)[:_SHOWN])}",
        )
    if remote_error:
        kept = "the last good ones hold" if tracing.strategies else "there have been none yet, tracing.sampler decides"
        return msgspec.structs.replace(
            effective,
            verdict=Verdict.WARN,
            found=f"{effective.found}; remote strategies fail {remote_error}; {kept}",
            advice="look at tracing.sampling.remote_url, and at what answers there",
        )
    return effective


def shares(tracing: TracingSettings, seen: Iterable[Seen]) -> list[Finding]:
    """Whether what is sampled agrees with what is set, and which routes get no trace."""
    routes: dict[str, Route] = {}
    by_ratio = sampled_by_ratio = 0
    # Of errors and slow requests the record gives that as the reason, where the ratio said no: they are left out, those
    # that it took as well, or the share of the others would seem larger than it is.
    tail = Tail(errors=tracing.sampling.errors, slow_s=tracing.sampling.slow_ms / 1000)
    for one in seen:
        name = one.route or _NO_ROUTE
        requests, traced = routes.get(name, Route(0, 0))
        routes[name] = Route(requests + 1, traced + (one.exported or one.sampled))
        if one.sampling == "ratio" and tail.reason(one.status or 0, one.outcome, one.duration_ms / 1000) is None:
            by_ratio += 1
            sampled_by_ratio += one.sampled
    return [_share(tracing, routes, by_ratio, sampled_by_ratio), _starving(tracing, routes)]


def _share(tracing: TracingSettings, routes: dict[str, Route], by_ratio: int, sampled_by_ratio: int) -> Finding:
    requests = sum(route.requests for route in routes.values())
    traced = sum(route.traced for route in routes.values())
    figures = {
        "requests": requests,
        "traced": traced,
        "routes": {name: {"requests": one.requests, "traced": one.traced} for name, one in routes.items()},
    }

    def finding(verdict: Verdict, found: str, advice: str = "") -> Finding:
        return Finding(check="sampled_share", verdict=verdict, found=found, advice=advice, figures=figures)

    if not requests:
        return finding(Verdict.SKIPPED, "no request since these settings hold", _LATER)
    found = f"{traced} of the last {requests} requests have their spans exported ({traced / requests:.2%})"
    ratio = tracing.ratio
    # A cap takes of those that the ratio took, and leaves it the others.
    is_alone = not (tracing.sampling.adaptive_target or tracing.sampling.max_per_second)
    if by_ratio and tracing.sampler.endswith("traceidratio") and is_alone:
        share = sampled_by_ratio / by_ratio
        chance = DEVIATIONS * math.sqrt(max(ratio * (1 - ratio), 1e-12) / by_ratio)
        if abs(share - ratio) > chance + 1e-9:
            return finding(
                Verdict.WARN,
                f"of {by_ratio} traces that the ratio decided {share:.2%} are sampled, not {ratio:.2%}",
                "ids that are not random at their end are decided alike: look which client makes them; "
                "`edgeproxy trace status` shows whether every worker has the settings",
            )
    if not traced:
        return finding(
            Verdict.WARN,
            f"{found}: no trace of anything",
            "if parents decide, they say no; otherwise set a larger ratio",
        )
    return finding(Verdict.OK, found)


def _starving(tracing: TracingSettings, routes: dict[str, Route]) -> Finding:
    busy = {name: one for name, one in routes.items() if one.requests >= TRAFFIC}
    starving = sorted((name for name, one in busy.items() if not one.traced), key=lambda name: -busy[name].requests)
    figures = {"routes": len(routes), "busy": len(busy), "starving": starving}

    def finding(verdict: Verdict, found: str, advice: str = "") -> Finding:
        return Finding(check="starving_routes", verdict=verdict, found=found, advice=advice, figures=figures)

    if not busy:
        return finding(Verdict.SKIPPED, f"no route had {TRAFFIC} requests since these settings hold", _LATER)
    if not starving:
        return finding(Verdict.OK, f"each of {len(busy)} routes with traffic has traces")
    listed = ", ".join(f"{name} ({busy[name].requests} requests)" for name in starving[:_SHOWN])
    more = f" and {len(starving) - _SHOWN} more" if len(starving) > _SHOWN else ""
    return finding(
        Verdict.WARN,
        f"no trace of {listed}{more}",
        "give them a rule with a larger ratio (tracing.sampling.rules), or an adaptive target with a floor"
        + ("" if tracing.sampling.adaptive_floor else " (tracing.sampling.adaptive_floor)"),
    )
