"""The examination: every check in the order in which trace data travels, from the sampler to the backend.

Puts the checks together and holds on when one of them can't be made; knows nothing of what they look at.
"""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from edgeproxy.doctor.backend import check_backend
from edgeproxy.doctor.clock import judge_clock
from edgeproxy.doctor.findings import Finding, Verdict
from edgeproxy.doctor.flush import check_flush
from edgeproxy.doctor.patient import Patient
from edgeproxy.doctor.probe import ProbeError, send_probe
from edgeproxy.doctor.propagation import judge_client, judge_origin
from edgeproxy.doctor.queue import check_queue
from edgeproxy.doctor.sampler import check_sampler
from edgeproxy.doctor.surroundings import check_redis, check_resource
from edgeproxy.export.resource import resource_attributes
from edgeproxy.node.purging import running
from edgeproxy.node.status import read_control, read_status
from edgeproxy.node.tracing import read_settings


def find_patient(runtime_dir: Path) -> Patient:
    """Look at the node that runs on a runtime directory. Raises NotRunningError, another NodeError or OSError."""
    place = running(runtime_dir)
    with contextlib.closing(read_control(place.runtime)) as control:
        epoch, tracing = read_settings(place.runtime, control)
        generation = control.generation
    # An epoch's settings and a generation's configuration are written once, when they come to hold.
    written = (place.runtime.tracing(epoch), place.runtime.config(generation))
    return Patient(
        runtime=place.runtime,
        config=place.config,
        tracing=tracing,
        status=read_status(runtime_dir, oldest=0),
        settled_at=max((path.stat().st_mtime for path in written if path.exists()), default=0.0),
    )


def examine(patient: Patient, *, echo: str | None, watch_s: float) -> Iterator[Finding]:
    """Make all checks, and give each finding when it is known.

    `echo` is a path or URL that the origin answers with the request's header fields; the exporters are watched for
    `watch_s` seconds.
    """
    yield from _made("sampler", lambda: check_sampler(patient))
    yield from _probed(patient, echo)
    yield from _made("queue", lambda: check_queue(patient, watch_s))
    yield from _made("flush", lambda: [check_flush(patient)])
    yield from _made("backend", lambda: check_backend(patient.config.tracing, patient.exports_to))
    yield from _made("resource", lambda: [check_resource(resource_attributes(patient.config))])
    yield check_redis(patient.config)


def _probed(patient: Patient, echo: str | None) -> Iterator[Finding]:
    """What one request through the edge shows."""
    try:
        probe = send_probe(patient, echo)
    except ProbeError as error:
        yield Finding(
            check="propagation",
            verdict=Verdict.FAIL,
            found=str(error),
            advice="look at `edgeproxy status`: do its workers serve, and where do they listen?",
        )
        return
    yield judge_origin(probe, patient.tracing, patient.config.tracing.propagators)
    yield judge_client(probe, patient.config.tracing)
    yield judge_clock(probe)


def _made(check: str, make: Callable[[], list[Finding]]) -> list[Finding]:
    """What a check finds; that it can't be made is a finding, too."""
    try:
        return make()
    except OSError as error:
        found = f"could not be checked: {error.filename or ''} {error.strerror or error}".replace(":  ", ": ")
        return [
            Finding(
                check=check,
                verdict=Verdict.SKIPPED,
                found=found,
                advice="run it as a user who may read that: the node's own, or root",
            )
        ]
