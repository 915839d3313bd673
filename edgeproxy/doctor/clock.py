"""Do the edge's clock and the origin's agree? Spans of both are drawn on one axis.

Pure. A Date says the second in which the response was made: somewhere between the request's departure and the answer's
arrival. The offset is the least that explains it, so that neither rounding nor a slow line is taken for one.
"""

from email.utils import parsedate_to_datetime

from edgeproxy.doctor.findings import Finding, Verdict
from edgeproxy.doctor.probe import Probe

TOLERATED_S = 2.0


def least_offset_s(date_s: float, sent_at: float, answered_at: float) -> float:
    """The origin's clock minus the edge's, in seconds; 0 where the two may agree."""
    behind, ahead = date_s - answered_at, date_s + 1 - sent_at
    if behind <= 0 <= ahead:
        return 0.0
    return min(behind, ahead, key=abs)


def judge_clock(probe: Probe) -> Finding:
    """Compare the Date of the probe's response with the time of its way."""

    def finding(verdict: Verdict, found: str, advice: str = "", **figures: float) -> Finding:
        return Finding(check="clock", verdict=verdict, found=found, advice=advice, figures=figures)

    if probe.record is not None and not any(attempt.status for attempt in probe.record.attempts):
        return finding(Verdict.SKIPPED, "the origin has not answered the probe", "name a path that it answers: --echo")
    try:
        date_s = parsedate_to_datetime(probe.fields.get("date", "")).timestamp()
    except ValueError:
        return finding(Verdict.SKIPPED, "the origin's response has no Date", "compare the hosts' clocks by hand")
    offset_s = least_offset_s(date_s, probe.sent_at, probe.answered_at)
    way_s = probe.answered_at - probe.sent_at
    if abs(offset_s) > TOLERATED_S:
        return finding(
            Verdict.WARN,
            f"the origin's clock is {abs(offset_s):.1f} s {'ahead of' if offset_s > 0 else 'behind'} the edge's",
            "let both hosts keep time by NTP (`timedatectl`): its spans are drawn before or after those they belong to",
            offset_s=round(offset_s, 3),
            way_s=round(way_s, 6),
        )
    return finding(
        Verdict.OK,
        f"the origin's Date agrees with the edge's clock within {max(1.0, way_s):.0f} s",
        offset_s=round(offset_s, 3),
        way_s=round(way_s, 6),
    )
