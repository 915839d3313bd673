"""Do spans survive a stop? How long the node may take to stop, against how long it needs.

Asks systemd where the node is a service of its. Judging is pure.
"""

import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from edgeproxy.config import Config
from edgeproxy.doctor.findings import Finding, Verdict
from edgeproxy.doctor.patient import Patient
from edgeproxy.node.crew import KILL_AFTER_S
from edgeproxy.node.fleet import SCRIBE_PATIENCE_S

_ASK_S = 5.0
_SERVICE = re.compile(r"/([^/]+\.service)$")
_UNITS_S = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_PART = re.compile(r"([0-9.]+)(us|ms|s|min|h|d|w)")


class Allowed(NamedTuple):
    """How long whoever started the node lets it stop."""

    unit: str
    """The service's name; empty where the node is no service."""
    stop_s: float | None
    """None: for ever, or nobody knows."""


def check_flush(patient: Patient) -> Finding:
    """Whether what still waits is exported when the node stops."""
    if not patient.exports_to:
        return Finding(check="flush", verdict=Verdict.SKIPPED, found="no spans are exported")
    return judge_flush(patient.config, _allowed(patient.status.supervisor_pid))


def judge_flush(config: Config, allowed: Allowed) -> Finding:
    """Compare what a stop needs at most with what it is given."""
    flush_s = config.tracing.batch.flush_timeout
    export_s = config.tracing.batch.export_timeout
    # Requests are finished first, then the scribe writes what they left and exports what waits.
    needed_s = config.limits.drain_timeout + KILL_AFTER_S + SCRIBE_PATIENCE_S + flush_s
    figures = {
        "drain_s": config.limits.drain_timeout,
        "flush_s": flush_s,
        "export_s": export_s,
        "needed_s": needed_s,
        "allowed_s": allowed.stop_s,
        "unit": allowed.unit,
    }

    def finding(verdict: Verdict, found: str, advice: str = "") -> Finding:
        return Finding(check="flush", verdict=verdict, found=found, advice=advice, figures=figures)

    if flush_s == 0:
        return finding(
            Verdict.FAIL,
            "a node that stops exports nothing of what waits: tracing.batch.flush_timeout is 0",
            "set it to some seconds",
        )
    if allowed.stop_s is not None and allowed.stop_s < needed_s:
        return finding(
            Verdict.FAIL,
            f"{allowed.unit} is killed {allowed.stop_s:g} s after it was told to stop, and may need {needed_s:g} s: "
            f"{config.limits.drain_timeout:g} s for requests, then the log and the spans",
            f"set TimeoutStopSec={needed_s:.0f} or more in {allowed.unit}, or a smaller limits.drain_timeout",
        )
    if flush_s < export_s:
        return finding(
            Verdict.WARN,
            f"flush_timeout ({flush_s:g} s) is shorter than what one batch may take (export_timeout, {export_s:g} s)",
            "a slow collector then loses what waits at a stop: make flush_timeout the longer one",
        )
    given = (
        f"{allowed.unit} gives it {allowed.stop_s:g} s"
        if allowed.stop_s is not None
        else f"{allowed.unit} lets it take its time"
        if allowed.unit
        else f"no service manager is known: whatever stops the node has to give it {needed_s:g} s"
    )
    return finding(Verdict.OK, f"a stop takes {needed_s:g} s at most, {flush_s:g} s of them to export; {given}")


def _allowed(pid: int) -> Allowed:
    """Ask systemd about the service whose main process this is."""
    try:
        groups = Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8")
    except OSError:
        return Allowed("", None)
    service = next((match[1] for line in groups.splitlines() if (match := _SERVICE.search(line))), None)
    if service is None or shutil.which("systemctl") is None:
        return Allowed("", None)
    command = ["systemctl", "show", service, "--property=MainPID,TimeoutStopUSec"]
    try:
        shown = subprocess.run(command, capture_output=True, text=True, timeout=_ASK_S, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return Allowed("", None)
    return understood(service, pid, shown)


def understood(service: str, pid: int, shown: str) -> Allowed:
    """Read what `systemctl show` prints; another main process means that the service is not the node's own."""
    properties = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
    if properties.get("MainPID") != str(pid):
        return Allowed("", None)
    parts = [_PART.fullmatch(part) for part in properties.get("TimeoutStopUSec", "").split()]
    if not parts or None in parts:
        return Allowed(service, None)  # "infinity"
    return Allowed(service, sum(float(part[1]) * _UNITS_S[part[2]] for part in parts if part))
