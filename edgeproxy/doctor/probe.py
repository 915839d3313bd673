"""A request of our own through the edge to the origin: what was sent, what came back, and the edge's record of it.

Does the I/O for the checks of propagation and of clocks; judges nothing.
"""

import contextlib
import http.client
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import msgspec

import edgeproxy
from edgeproxy.doctor.patient import Patient
from edgeproxy.logging.follow import Follower
from edgeproxy.tracing import SAMPLED, IdSource, Propagation, RequestTrace, Tracer
from edgeproxy.tracing.recorded import Recorded, decode

TIMEOUT_S = 10.0
"""How long the edge may take to answer."""
RECORD_S = 5.0
"""How long its line may take to be in the access log."""
BODY_BYTES = 1024 * 1024
PARAMETER = "edgeproxy-doctor"
"""Query parameter that no other request has: by it the probe misses every cache, and its line is found."""
_POLL_S = 0.02


class ProbeError(Exception):
    """The edge did not answer; the message says why."""


class Probe(NamedTuple):
    """A request, and all that is known of what became of it."""

    target: str
    is_echo: bool
    """Whether the path is one that answers with the request's header fields."""
    trace_id: str
    span_id: str
    status: int
    fields: dict[str, str]
    """The response's, by lower-case name."""
    body: bytes
    sent_at: float
    """Seconds since the epoch, as are the others."""
    answered_at: float
    record: Recorded | None
    """None where the access log does not tell."""


def send_probe(patient: Patient, echo: str | None) -> Probe:
    """Ask the edge for a path, or for a URL's host and path, with a sampled trace context. Raises ProbeError.

    Without `echo` it is HEAD for the root, which any origin answers somehow.
    """
    trace_id, span_id = secrets.token_hex(16), secrets.token_hex(8)
    host, target = _target(echo)
    address, port = _listener(patient.status.listen)
    await_record = _record_of(patient.log, target)
    fields = [
        ("Host", host or (f"[{address}]:{port}" if ":" in address else f"{address}:{port}")),
        *_context(patient.config.tracing.propagators, trace_id, span_id),
        ("Cache-Control", "no-cache, no-store"),
        ("User-Agent", f"edgeproxy-doctor/{edgeproxy.__version__}"),
        ("Accept", "application/json, text/plain;q=0.9, */*;q=0.1"),
        ("Connection", "close"),
    ]
    connection = http.client.HTTPConnection(address, port, timeout=TIMEOUT_S)
    sent_at = time.time()
    try:
        with contextlib.closing(connection):
            connection.putrequest("GET" if echo else "HEAD", target, skip_host=True, skip_accept_encoding=True)
            for name, value in fields:
                connection.putheader(name, value)
            connection.endheaders()
            response = connection.getresponse()
            answered_at = time.time()
            body = _body(response)
    except (OSError, http.client.HTTPException) as error:
        said = str(error) or type(error).__name__
        raise ProbeError(f"the edge at {address}:{port} does not answer: {said}") from error
    return Probe(
        target=target,
        is_echo=echo is not None,
        trace_id=trace_id,
        span_id=span_id,
        status=response.status,
        fields={name.lower(): value for name, value in response.getheaders()},
        body=body,
        sent_at=sent_at,
        answered_at=answered_at,
        record=await_record(),
    )


def _context(propagators: Sequence[str], trace_id: str, span_id: str) -> Iterator[tuple[str, str]]:
    """A sampled context in every format that the edge speaks."""
    trace = RequestTrace(trace_id, span_id, "", flags=SAMPLED, sampled=True)
    lines = Propagation(propagators, Tracer(IdSource())).attempt_fields(trace, span_id)
    for line in lines.decode("ascii").splitlines():
        name, _, value = line.partition(": ")
        yield name, value


def _body(response: http.client.HTTPResponse) -> bytes:
    """The response's body, or as much of it as came in time: it may be a stream without end."""
    body, deadline = b"", time.monotonic() + TIMEOUT_S
    while len(body) < BODY_BYTES and time.monotonic() < deadline and (piece := response.read1(BODY_BYTES)):
        body += piece
    return body


def _target(echo: str | None) -> tuple[str, str]:
    """Host (empty: the listener's own) and target, with the parameter in it."""
    url = urlsplit(echo or "/")
    parameter = f"{PARAMETER}={secrets.token_hex(8)}"
    return url.netloc.rpartition("@")[2], f"{url.path or '/'}?{url.query + '&' if url.query else ''}{parameter}"


def _listener(listen: tuple[str, ...]) -> tuple[str, int]:
    """Where this host reaches the edge's first listener."""
    host, _, port = listen[0].rpartition(":")
    host = host.strip("[]")
    return {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}.get(host, host), int(port)


def _record_of(log: Path | None, target: str) -> Callable[[], Recorded | None]:
    """Note where the log ends; the function waits for the record of `target` behind that."""
    if log is None:
        return lambda: None
    follower = Follower(log)
    with contextlib.suppress(OSError):
        follower.last()
    needle = target.rpartition("=")[2].encode()

    def wait() -> Recorded | None:
        deadline = time.monotonic() + RECORD_S
        with contextlib.closing(follower), contextlib.suppress(OSError):
            while time.monotonic() < deadline:
                for line in follower.new():
                    if needle in line:
                        with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
                            return decode(line)
                time.sleep(_POLL_S)
        return None

    return wait
