"""OTLP over HTTP with protobuf: one keep-alive connection to a collector.

Which answers mean "later" and which "never" is OTLP's to say (https://opentelemetry.io/docs/specs/otlp/#otlphttp-response).
Knows one connection and its own deadline, nothing of queues. Proxies of the environment are not used.
"""

import contextlib
import email.utils
import gzip
import http.client
import socket
import ssl
import threading
import time
from urllib.parse import urlsplit

import edgeproxy
from edgeproxy.config import Otlp, Tracing
from edgeproxy.export.batch import Refused, Unavailable
from edgeproxy.export.otlp import Frame

TRACES_PATH = "/v1/traces"
_LATER = frozenset({429, 502, 503, 504})
_PROTOBUF = "application/x-protobuf"
_MAX_ANSWER_BYTES = 65536


def traces_url(endpoint: str, traces_endpoint: str) -> str:
    """Where traces are posted: the traces' own endpoint as it is, or the path below the one for all signals."""
    return traces_endpoint or endpoint.rstrip("/") + TRACES_PATH


def endpoint(tracing: Tracing) -> str:
    """Where the exporter `otlp` sends spans to; OpenTelemetry's defaults where nothing is said."""
    otlp = tracing.otlp
    if otlp.protocol == "grpc":
        return otlp.traces_endpoint or tracing.otlp_endpoint or "http://localhost:4317"
    return traces_url(tracing.otlp_endpoint or "http://localhost:4318", otlp.traces_endpoint)


def tls_context(settings: Otlp) -> ssl.SSLContext:
    """How the collector is believed, and what it is shown. Raises OSError when a certificate or key can't be used."""
    context = ssl.create_default_context(cafile=settings.ca_file or None)
    if settings.cert_file:
        context.load_cert_chain(settings.cert_file, settings.key_file or None)
    return context


class OtlpHttp:
    """A sink for encoded spans."""

    def __init__(self, url: str, settings: Otlp, frame: Frame) -> None:
        """Prepare; nothing is connected yet. Raises OSError when a certificate or key can't be used."""
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port
        self._target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._frame = frame
        self._timeout_s = settings.timeout
        self._gzip = settings.compression == "gzip"
        self._headers = {"User-Agent": f"edgeproxy/{edgeproxy.__version__}", **settings.headers}
        self._headers["Content-Type"] = _PROTOBUF
        if self._gzip:
            self._headers["Content-Encoding"] = "gzip"
        self._tls = tls_context(settings) if parts.scheme == "https" else None
        self._connection: http.client.HTTPConnection | None = None

    def send(self, payloads: list[bytes], spans: int, timeout_s: float) -> int:
        """Post them; how many of the spans the collector says it has not taken."""
        body = self._frame.request(payloads)
        if self._gzip:
            body = gzip.compress(body, 1, mtime=0)
        deadline = time.monotonic() + min(timeout_s, self._timeout_s)
        reused = self._connection is not None
        try:
            try:
                status, headers, answer = self._post(body, deadline)
            except (ConnectionError, http.client.RemoteDisconnected):
                # An idle connection that the collector has closed by now says nothing of the collector.
                if not reused or time.monotonic() >= deadline:
                    raise
                status, headers, answer = self._post(body, deadline)
        except ssl.SSLCertVerificationError as error:
            raise Unavailable(f"its certificate is not believed: {error.verify_message}") from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            # Cut off for its time, a connection looks as if the collector had closed it.
            raise Unavailable(_words(TimeoutError() if time.monotonic() >= deadline else error)) from error
        if status in _LATER:
            raise Unavailable(f"it answers {status}", _retry_after_s(headers.get("Retry-After")))
        if not 200 <= status < 300:
            raise Refused(f"it answers {status}")
        return rejected_spans(answer, spans) if headers.get_content_type() == _PROTOBUF else 0

    def _post(self, body: bytes, deadline: float) -> tuple[int, http.client.HTTPMessage, bytes]:
        """One request on the connection, which is closed unless all went well."""
        connection, self._connection = self._connection or self._connect(deadline), None
        # A time limit for each read would not hold against a peer that sends a byte now and then.
        # The socket itself: a connection that the collector is going to close has let go of it by the time it is read.
        watch = threading.Timer(max(0.001, deadline - time.monotonic()), _cut, (connection.sock,))
        watch.daemon = True
        watch.start()
        try:
            connection.request("POST", self._target, body, self._headers)
            response = connection.getresponse()
            answer = response.read(_MAX_ANSWER_BYTES)
            if time.monotonic() >= deadline:
                raise TimeoutError  # cut off, which looks like an end to whoever reads a head or a body without length
            if response.isclosed() and not response.will_close:
                self._connection = connection
            return response.status, response.headers, answer
        finally:
            watch.cancel()
            if self._connection is None:
                connection.close()

    def _connect(self, deadline: float) -> http.client.HTTPConnection:
        timeout_s = max(0.001, deadline - time.monotonic())
        if self._tls is None:
            connection = http.client.HTTPConnection(self._host, self._port, timeout=timeout_s)
        else:
            connection = http.client.HTTPSConnection(self._host, self._port, timeout=timeout_s, context=self._tls)
        connection.connect()
        connection.sock.settimeout(self._timeout_s)
        return connection

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _cut(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        # Past TLS, which would wait for the peer's goodbye.
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


def _words(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "it did not answer in time"
    return f"{type(error).__name__}: {error}"


def _retry_after_s(text: str | None) -> float | None:
    """Retry-After in seconds, be it a number of them or a date (RFC 9110 §10.2.3); None where it says nothing."""
    if text is None:
        return None
    if text.strip().isdecimal():
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (TypeError, ValueError):
        return None


def rejected_spans(answer: bytes, spans: int) -> int:
    """How many spans an ExportTraceServiceResponse says were rejected. Garbage says nothing: they were taken."""
    if not answer:
        return 0
    from opentelemetry.proto.collector.trace.v1 import trace_service_pb2  # noqa: PLC0415  rare, and slow to import

    try:
        response = trace_service_pb2.ExportTraceServiceResponse.FromString(answer)
    except Exception:  # noqa: BLE001  protobuf's errors have no common name across its versions
        return 0
    return min(max(0, int(response.partial_success.rejected_spans)), spans)
