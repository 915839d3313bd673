"""Does the tracing backend take spans? Asked with an empty export, which no backend keeps anything of.

Connects, and judges what comes back. Values of header fields, which may be secrets, are never shown.
"""

import contextlib
import gzip
import http.client
import socket
import ssl
import time
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

import edgeproxy
from edgeproxy.config import Tracing
from edgeproxy.doctor.findings import Finding, Verdict
from edgeproxy.export.batch import Refused, Unavailable
from edgeproxy.export.grpc import GrpcMissing, OtlpGrpc
from edgeproxy.export.http import endpoint, tls_context
from edgeproxy.export.otlp import Frame

SOON_DAYS = 14
"""A certificate that ends earlier is to be renewed."""
_DAY_S = 86_400
_BODY_BYTES = 1024 * 1024
_PORTS = {"http": 80, "https": 443}
_GRPC_PORT = 4317


class Answer(NamedTuple):
    """What a backend said to an empty export."""

    status: int
    retry_after: str
    content_type: str
    body: bytes
    took_ms: float


def check_backend(tracing: Tracing, exports_to: tuple[str, ...]) -> list[Finding]:
    """Whether the collector can be reached, vouches for itself, and takes what is sent."""
    if "otlp" not in exports_to:
        return [
            _backend(
                Verdict.SKIPPED,
                "spans are not sent to a collector",
                "set tracing.otlp_endpoint, or OTEL_EXPORTER_OTLP_ENDPOINT",
            )
        ]
    url = endpoint(tracing)
    try:
        context = tls_context(tracing.otlp) if urlsplit(url).scheme == "https" else None
    except OSError as error:
        found = f"the certificates for the collector can't be read: {_said(error)}"
        return [_backend(Verdict.FAIL, found, "look at ca_file, cert_file and key_file in tracing.otlp")]
    reached = _reach(tracing, url, context)
    if any(finding.verdict is Verdict.FAIL for finding in reached):
        return reached
    return [*reached, _ask_grpc(tracing, url) if tracing.otlp.protocol == "grpc" else _ask_http(tracing, url, context)]


def _reach(tracing: Tracing, url: str, context: ssl.SSLContext | None) -> list[Finding]:
    """Connect: what is wrong with that, or how the collector's certificate is; nothing without TLS."""
    parts = urlsplit(url)
    port = parts.port or (_GRPC_PORT if tracing.otlp.protocol == "grpc" else _PORTS[parts.scheme])
    figures = {"endpoint": url}
    try:
        with contextlib.closing(_connect(parts.hostname or "", port, context, tracing.otlp.timeout)) as sock:
            ends_at = _ends_at(sock) if isinstance(sock, ssl.SSLSocket) else None
    except ssl.SSLCertVerificationError as error:
        return [_distrusted(url, error, figures)]
    except OSError as error:
        return [
            _backend(
                Verdict.FAIL,
                f"{url} can't be reached: {_said(error)}",
                "look whether the collector runs, listens at this address, and is let through by firewalls",
                figures,
            )
        ]
    return [] if ends_at is None else [judge_certificate(ends_at, time.time())]


def _ask_http(tracing: Tracing, url: str, context: ssl.SSLContext | None) -> Finding:
    """Send nothing by HTTP, and judge the answer."""
    try:
        answer = _export_nothing(tracing, url, context)
    except (OSError, http.client.HTTPException) as error:
        advice = "is this the collector's port for OTLP over HTTP (4318; 4317 is gRPC's)?"
        # With TLS 1.3 a client learns only now that its certificate is missed, by an alert or by the end.
        if isinstance(error, ssl.SSLError) or (context is not None and isinstance(error, ConnectionError)):
            advice = "does it want a certificate of the node's (tracing.otlp.cert_file and key_file), or another one?"
        found = f"{url} takes connections, but gives no answer: {_said(error)}"
        return _backend(Verdict.FAIL, found, advice, {"endpoint": url})
    return judge_answer(answer, url)


def _connect(host: str, port: int, context: ssl.SSLContext | None, timeout_s: float) -> socket.socket:
    sock = socket.create_connection((host, port), timeout=timeout_s)
    if context is None:
        return sock
    try:
        return context.wrap_socket(sock, server_hostname=host)
    except BaseException:
        sock.close()
        raise


def _ends_at(sock: ssl.SSLSocket) -> float | None:
    certificate = sock.getpeercert() or {}
    ends = certificate.get("notAfter")
    return ssl.cert_time_to_seconds(ends) if isinstance(ends, str) else None


def _export_nothing(tracing: Tracing, url: str, context: ssl.SSLContext | None) -> Answer:
    """Send an ExportTraceServiceRequest without spans, which is no bytes at all."""
    parts = urlsplit(url)
    connection: http.client.HTTPConnection
    if context is not None:
        connection = http.client.HTTPSConnection(parts.netloc, timeout=tracing.otlp.timeout, context=context)
    else:
        connection = http.client.HTTPConnection(parts.netloc, timeout=tracing.otlp.timeout)
    fields = {
        "User-Agent": f"edgeproxy-doctor/{edgeproxy.__version__}",
        **tracing.otlp.headers,
        "Content-Type": "application/x-protobuf",
    }
    body = b""
    if tracing.otlp.compression == "gzip":
        body = gzip.compress(body)
        fields["Content-Encoding"] = "gzip"
    began = time.monotonic()
    with contextlib.closing(connection):
        connection.request("POST", (parts.path or "/") + (f"?{parts.query}" if parts.query else ""), body, fields)
        response = connection.getresponse()
        return Answer(
            status=response.status,
            retry_after=response.getheader("Retry-After") or "",
            content_type=response.getheader("Content-Type") or "",
            body=response.read(_BODY_BYTES),
            took_ms=(time.monotonic() - began) * 1000,
        )


def _ask_grpc(tracing: Tracing, url: str) -> Finding:
    """Send nothing by gRPC, as the exporter would."""
    figures = {"endpoint": url}
    try:
        sink = OtlpGrpc(url, tracing.otlp, Frame({}, "edgeproxy-doctor", edgeproxy.__version__))
    except GrpcMissing as error:
        return _backend(
            Verdict.FAIL, str(error), "install that, or set tracing.otlp.protocol to http/protobuf", figures
        )
    with contextlib.closing(sink):
        try:
            sink.send([], 0, tracing.otlp.timeout)
        except Unavailable as error:
            return _backend(Verdict.WARN, f"{url}: {error}", "look at the collector: it is to be asked again", figures)
        except Refused as error:
            return _backend(Verdict.FAIL, f"{url}: {error}", "look at tracing.otlp.headers, and the endpoint", figures)
    return _backend(Verdict.OK, f"{url} takes exports by gRPC", "", figures)


def _distrusted(url: str, error: ssl.SSLCertVerificationError, figures: dict[str, Any]) -> Finding:
    expired = error.verify_message == "certificate has expired"
    return Finding(
        check="backend_tls",
        verdict=Verdict.FAIL,
        found=f"the certificate of {url} is not good: {error.verify_message or _said(error)}",
        advice="renew it"
        if expired
        else "name the authority that vouches for it in tracing.otlp.ca_file, or call the "
        "collector by a name that is in its certificate",
        figures=figures,
    )


def judge_certificate(ends_at: float, now: float) -> Finding:
    """How long the backend's certificate is still good; both times in seconds since the epoch."""
    days = (ends_at - now) / _DAY_S
    soon = days < SOON_DAYS
    return Finding(
        check="backend_tls",
        verdict=Verdict.WARN if soon else Verdict.OK,
        found=f"the collector's certificate is good for another {days:.0f} days",
        advice="renew it: when it has ended no span arrives" if soon else "",
        figures={"days_left": round(days, 2)},
    )


_REFUSALS = {
    400: (Verdict.FAIL, "does not understand the request", "is it an OTLP endpoint?"),
    401: (Verdict.FAIL, "wants to know who sends", "set the credentials in tracing.otlp.headers (authorization)"),
    403: (Verdict.FAIL, "does not accept the credentials", "look at tracing.otlp.headers, and at the key's rights"),
    404: (Verdict.FAIL, "has nothing at this path", "OTLP's path is /v1/traces; otlp_endpoint goes without it"),
    405: (Verdict.FAIL, "takes no POST at this path", "OTLP's path is /v1/traces; otlp_endpoint goes without it"),
    413: (Verdict.FAIL, "says that even nothing is too large", "look at what stands before the collector"),
    415: (Verdict.FAIL, "takes no protobuf", "use an endpoint for OTLP over HTTP with protobuf"),
    429: (Verdict.WARN, "is asked too much", "send less (sampling), or have the backend's quota raised"),
    502: (Verdict.WARN, "has no collector behind it just now", "look at the collector behind the gateway"),
    503: (Verdict.WARN, "is overloaded or not ready", "look at the collector's own queue and memory limits"),
    504: (Verdict.WARN, "has a collector behind it that does not answer", "look at the collector behind the gateway"),
}


def judge_answer(answer: Answer, url: str) -> Finding:
    """Judge what a backend said to an empty export."""
    figures: dict[str, Any] = {"endpoint": url, "status": answer.status, "took_ms": round(answer.took_ms, 3)}
    if answer.status != 200:
        verdict, found, advice = _REFUSALS.get(
            answer.status, (Verdict.FAIL, "does not take an export", "is it an OTLP endpoint?")
        )
        if answer.retry_after:
            figures["retry_after"] = answer.retry_after
            found += f" (Retry-After: {answer.retry_after})"
        return _backend(verdict, f"{url} answers {answer.status}: it {found}", advice, figures)
    response = ExportTraceServiceResponse()
    try:
        response.ParseFromString(answer.body)
    except DecodeError:
        return _backend(
            Verdict.FAIL,
            f"{url} answers 200, but not as OTLP has it ({answer.content_type or 'no content type'})",
            "is it an OTLP endpoint? A web page answers 200 to anything",
            figures,
        )
    partial = response.partial_success
    if partial.rejected_spans or partial.error_message:
        figures |= {"rejected_spans": partial.rejected_spans, "error_message": partial.error_message}
        return _backend(
            Verdict.WARN,
            f"{url} takes a part only: {partial.rejected_spans} spans rejected"
            + (f", {partial.error_message}" if partial.error_message else ""),
            "look at the backend's limits: rejected spans are not sent again",
            figures,
        )
    return _backend(Verdict.OK, f"{url} takes exports, in {answer.took_ms:.1f} ms", "", figures)


def _backend(verdict: Verdict, found: str, advice: str = "", figures: dict[str, Any] | None = None) -> Finding:
    return Finding(check="backend", verdict=verdict, found=found, advice=advice, figures=figures or {})


def _said(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return error.reason or str(error)
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
