"""An OpenTelemetry collector's front door: OTLP/HTTP with protobuf on a free port, which keeps every span that it took.

    with OtlpReceiver() as receiver:
        ...  # someone exports to receiver.url (receiver.endpoint is the path of the traces)
        root, *children = receiver.until_spans(4)
        assert root.attributes["http.route"] == "/*" and root.resource["service.name"] == "edgeproxy"

It can be told to be a bad one: `refuse(503, retry_after="1")`, `hold()` (takes requests, answers none), `delay(0.2)`,
`answer(b"not HTTP")`, `reject(3)` (partial success), `go_down()`; `accept()` makes it good again. With `tls=True` it
shows a certificate of its own authority (`ca_file`), with `mutual=True` it asks for one (`client_file`, `key_file`).
From a shell: `python -m tests.support.otlp [PORT]` prints what comes.
"""

import contextlib
import gzip
import shutil
import socket
import ssl
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import trustme
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.support.wait import PATIENCE_S, until

PATH = "/v1/traces"
_PROTOBUF = "application/x-protobuf"


@dataclass(frozen=True)
class ReceivedSpan:
    """A span as it arrived: ids as hex text, attributes as dicts; `proto` is the decoded message itself."""

    proto: Span
    resource: dict[str, Any]
    scope: str
    """Name of the instrumentation scope."""

    @property
    def name(self) -> str:
        """The span's name."""
        return str(self.proto.name)

    @property
    def kind(self) -> int:
        """OTLP's number of its kind: 1 internal, 2 server, 3 client."""
        return int(self.proto.kind)

    @property
    def trace_id(self) -> str:
        """32 hex digits."""
        return self.proto.trace_id.hex()

    @property
    def span_id(self) -> str:
        """16 hex digits."""
        return self.proto.span_id.hex()

    @property
    def parent_id(self) -> str:
        """16 hex digits, or empty where there is no parent."""
        return self.proto.parent_span_id.hex()

    @property
    def start_ns(self) -> int:
        """Nanoseconds since the epoch."""
        return int(self.proto.start_time_unix_nano)

    @property
    def end_ns(self) -> int:
        """Nanoseconds since the epoch."""
        return int(self.proto.end_time_unix_nano)

    @property
    def attributes(self) -> dict[str, Any]:
        """Its attributes; arrays as tuples."""
        return attributes_of(self.proto.attributes)

    @property
    def events(self) -> list[tuple[str, int, dict[str, Any]]]:
        """Its events: name, nanoseconds since the epoch, attributes."""
        return [(event.name, event.time_unix_nano, attributes_of(event.attributes)) for event in self.proto.events]

    @property
    def links(self) -> list[tuple[str, str, dict[str, Any]]]:
        """Its links: trace id, span id, attributes."""
        return [(link.trace_id.hex(), link.span_id.hex(), attributes_of(link.attributes)) for link in self.proto.links]

    @property
    def status(self) -> int:
        """0 unset, 1 ok, 2 error."""
        return int(self.proto.status.code)

    @property
    def resource_service(self) -> str:
        """The service that it belongs to."""
        return str(self.resource.get("service.name", ""))


@dataclass(frozen=True)
class ReceivedExport:
    """One request to the collector."""

    path: str
    headers: dict[str, str]
    """By lower-case name."""
    size_bytes: int
    """Of its body as it came, compressed or not."""
    spans: int
    client_name: str
    """Common name of the client's certificate; empty without one."""
    connection: int
    """Number of the connection that it came on, from 0."""


@dataclass
class _Manners:
    """How requests are answered just now."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    raw: bytes | None = None
    body: bytes | None = None
    rejected: int = 0
    message: str = ""
    delay_s: float = 0.0
    held: bool = False
    over: threading.Event = field(default_factory=threading.Event)
    """Set when other manners hold: who waits goes on."""


def attributes_of(pairs: Sequence[KeyValue]) -> dict[str, Any]:
    """Protobuf's key-values as a dict."""
    return {pair.key: value_of(pair.value) for pair in pairs}


def value_of(value: AnyValue) -> Any:
    """What an AnyValue holds; an array is a tuple."""
    which = value.WhichOneof("value")
    if which is None:
        return None
    if which == "array_value":
        return tuple(value_of(item) for item in value.array_value.values)
    if which == "kvlist_value":
        return attributes_of(value.kvlist_value.values)
    return getattr(value, which)


class OtlpReceiver:
    """A collector for one test; a context manager."""

    def __init__(self, *, tls: bool = False, mutual: bool = False, port: int = 0) -> None:
        """Prepare one that listens on `port`, or any free one; `mutual` implies `tls`."""
        self._tls = tls or mutual
        self._mutual = mutual
        self._folder: Path | None = None
        self._port = port
        self._server: _Server | None = None
        self._manners = _Manners()
        self._lock = threading.Lock()
        self._requests: list[ExportTraceServiceRequest] = []
        self._spans: list[ReceivedSpan] = []
        self._decoded = 0
        self.exports: list[ReceivedExport] = []
        """Every request that was read, in order, whatever it was answered."""
        self.span_count = 0
        """How many spans were accepted."""
        self.offered_count = 0
        """How many spans came, those included that were refused."""
        self.connections = 0
        """How many connections were ever accepted."""

    # --- where it is

    @property
    def url(self) -> str:
        """The base url: what OTEL_EXPORTER_OTLP_ENDPOINT takes."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self._port}"

    @property
    def endpoint(self) -> str:
        """The url of the traces themselves: what OTEL_EXPORTER_OTLP_TRACES_ENDPOINT takes."""
        return self.url + PATH

    @property
    def ca_file(self) -> Path:
        """The authority that has signed both certificates."""
        return self._certificates / "ca.pem"

    @property
    def client_file(self) -> Path:
        """A certificate that it believes."""
        return self._certificates / "client.pem"

    @property
    def key_file(self) -> Path:
        """Its key."""
        return self._certificates / "client.key"

    # --- what came

    @property
    def spans(self) -> list[ReceivedSpan]:
        """All spans that were accepted so far, in the order of their arrival."""
        with self._lock:
            for request in self._requests[self._decoded :]:
                for one in request.resource_spans:
                    resource = attributes_of(one.resource.attributes)
                    for scoped in one.scope_spans:
                        self._spans.extend(ReceivedSpan(span, resource, scoped.scope.name) for span in scoped.spans)
            self._decoded = len(self._requests)
            return list(self._spans)

    def until_spans(self, count: int, *, timeout: float = PATIENCE_S) -> list[ReceivedSpan]:
        """Wait until at least `count` spans have been accepted, and return all."""
        until(lambda: self.span_count >= count, f"{count} spans at the collector", timeout=timeout)
        return self.spans

    def until_trace(self, trace_id: str, count: int = 1, *, timeout: float = PATIENCE_S) -> list[ReceivedSpan]:
        """Wait until at least `count` spans of a trace have been accepted, and return those."""

        def found() -> list[ReceivedSpan]:
            spans = [span for span in self.spans if span.trace_id == trace_id]
            return spans if len(spans) >= count else []

        return until(found, f"{count} spans of {trace_id}", timeout=timeout)

    def clear(self) -> None:
        """Forget what came."""
        with self._lock:
            self._requests.clear()
            self._spans.clear()
            self.exports.clear()
            self._decoded = self.span_count = self.offered_count = 0

    # --- how it behaves

    def accept(self) -> None:
        """Take everything, at once: as it is from the start."""
        self._behave(_Manners())

    def refuse(self, status: int, *, retry_after: str | None = None) -> None:
        """Answer with an error."""
        self._behave(_Manners(status=status, headers={} if retry_after is None else {"Retry-After": retry_after}))

    def hold(self) -> None:
        """Read requests and do not answer, until it is told something else: then those that wait are answered so."""
        self._behave(_Manners(held=True))

    def delay(self, seconds: float) -> None:
        """Accept everything, but late."""
        self._behave(_Manners(delay_s=seconds))

    def answer(self, raw: bytes) -> None:
        """Send these bytes in place of a response, and close."""
        self._behave(_Manners(raw=raw))

    def answer_body(self, body: bytes) -> None:
        """Answer 200 with a body that need not be OTLP; the spans count as accepted."""
        self._behave(_Manners(body=body))

    def reject(self, count: int, message: str = "rejected by the test") -> None:
        """Answer each request with a partial success: `count` of its spans were not taken. All are kept."""
        self._behave(_Manners(rejected=count, message=message))

    def go_down(self) -> None:
        """Close the port and every connection; connections are refused until `come_up`."""
        self._manners.over.set()
        if self._server is not None:
            self._server.stop()
            self._server = None

    def come_up(self) -> None:
        """Listen on the same port again."""
        self._listen()

    def _behave(self, manners: _Manners) -> None:
        before, self._manners = self._manners, manners
        before.over.set()

    # --- its life

    def __enter__(self) -> Self:
        if self._tls:
            self._folder = Path(tempfile.mkdtemp(prefix="edgeproxy-otlp-"))
            self._issue(self._folder)
        self._listen()
        return self

    def __exit__(self, *_: object) -> None:
        self.go_down()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def _certificates(self) -> Path:
        assert self._folder is not None, "only with tls, once it is entered"
        return self._folder

    def _issue(self, folder: Path) -> None:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(folder / "ca.pem")
        for name in ("server", "client"):
            certificate = authority.issue_cert("127.0.0.1", "localhost", common_name=name)
            certificate.private_key_pem.write_to_path(folder / f"{name}.key")
            (chain,) = certificate.cert_chain_pems
            chain.write_to_path(folder / f"{name}.pem")

    def _listen(self) -> None:
        context = None
        if self._tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self._certificates / "server.pem", self._certificates / "server.key")
            if self._mutual:
                context.verify_mode = ssl.CERT_REQUIRED
                context.load_verify_locations(self.ca_file)
        self._server = _Server(self, self._port, context)
        self._port = self._server.server_address[1]

    # --- one request

    def take(self, export: ReceivedExport, request: ExportTraceServiceRequest) -> _Manners:
        """Note a request and say how it is answered; called on a connection's thread."""
        manners = self._manners
        while manners.held:
            manners.over.wait()
            if manners is self._manners:  # it went down meanwhile
                break
            manners = self._manners
        if manners.delay_s:
            manners.over.wait(manners.delay_s)
        with self._lock:
            self.exports.append(export)
            self.offered_count += export.spans
            if manners.status == 200 and manners.raw is None and not manners.held:
                self._requests.append(request)
                self.span_count += export.spans
        return manners


class _Server(ThreadingHTTPServer):
    """One listening port and the threads of its connections."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, receiver: OtlpReceiver, port: int, context: ssl.SSLContext | None) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.receiver = receiver
        self._open: set[socket.socket] = set()
        if context is not None:
            # The handshake is made on the connection's thread, at its first read.
            self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def get_request(self) -> tuple[socket.socket, Any]:
        sock, address = super().get_request()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._open.add(sock)
        self.receiver.connections += 1
        return sock, address

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away, or did not believe the certificate, is no failure here."""

    def stop(self) -> None:
        self.shutdown()
        self.server_close()
        for sock in list(self._open):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    server: _Server

    def setup(self) -> None:
        super().setup()
        self._number = self.server.receiver.connections - 1

    def do_POST(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self._chunks() if "transfer-encoding" in headers else self.rfile.read(int(headers["content-length"]))
        size = len(body)
        if headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        if self.path != PATH or headers.get("content-type") != _PROTOBUF:
            self._respond(404 if self.path != PATH else 415, b"", {})
            return
        request = ExportTraceServiceRequest.FromString(body)
        spans = sum(len(scoped.spans) for one in request.resource_spans for scoped in one.scope_spans)
        export = ReceivedExport(self.path, headers, size, spans, self._client_name(), self._number)
        manners = self.server.receiver.take(export, request)
        if manners.held:
            self.close_connection = True
        elif manners.raw is not None:
            self.wfile.write(manners.raw)
            self.close_connection = True
        elif manners.body is not None:
            self._respond(200, manners.body, {})
        elif manners.status != 200:
            self._respond(manners.status, b"", manners.headers)
        else:
            response = ExportTraceServiceResponse()
            if manners.rejected or manners.message:
                response.partial_success.CopyFrom(
                    ExportTracePartialSuccess(rejected_spans=manners.rejected, error_message=manners.message)
                )
            self._respond(200, response.SerializeToString(), {})

    def _chunks(self) -> bytes:
        """A chunked body, as Node.js sends it."""
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _respond(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        self.send_header("Content-Type", _PROTOBUF)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _client_name(self) -> str:
        if not isinstance(self.connection, ssl.SSLSocket):
            return ""
        subject: Any = (self.connection.getpeercert() or {}).get("subject", ())
        return next((value for part in subject for name, value in part if name == "commonName"), "")

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Nothing is logged."""


def main(port: int) -> None:
    """Print what comes until Ctrl-C."""
    with OtlpReceiver(port=port) as receiver, contextlib.suppress(KeyboardInterrupt):
        print(receiver.url, flush=True)
        seen = 0
        while True:
            spans = receiver.until_spans(seen + 1, timeout=86400)
            for span in spans[seen:]:
                print(
                    span.trace_id,
                    span.span_id,
                    span.parent_id or "-" * 16,
                    span.resource_service,
                    span.name,
                    flush=True,
                )
            seen = len(spans)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
