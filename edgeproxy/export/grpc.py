"""OTLP over gRPC: needs grpcio, which `pip install edgeproxy[grpc]` brings.

The bytes are those that HTTP carries, too; which answers mean "later" is OTLP's to say
(https://opentelemetry.io/docs/specs/otlp/#failures).
"""

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from edgeproxy.config import Otlp
from edgeproxy.export.batch import Refused, Unavailable
from edgeproxy.export.http import rejected_spans
from edgeproxy.export.otlp import Frame

_METHOD = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
_OPTIONS = (("grpc.enable_http_proxy", 0),)
"""As over HTTP: proxies of the environment are not used."""
_LATER = frozenset({"CANCELLED", "DEADLINE_EXCEEDED", "ABORTED", "OUT_OF_RANGE", "UNAVAILABLE", "DATA_LOSS"})


class GrpcMissing(Exception):
    """grpcio is not installed."""

    code = "grpc_missing"


class OtlpGrpc:
    """A sink for encoded spans."""

    def __init__(self, url: str, settings: Otlp, frame: Frame) -> None:
        """Prepare a channel. Raises GrpcMissing, or OSError when a certificate or key can't be read."""
        try:
            import grpc  # type: ignore[import-untyped, import-not-found, unused-ignore]  # noqa: PLC0415  an extra
        except ImportError as error:
            raise GrpcMissing('tracing.otlp.protocol = "grpc" needs grpcio: pip install "edgeproxy[grpc]"') from error
        self._error: type[Exception] = grpc.RpcError
        self._frame = frame
        self._timeout_s = settings.timeout
        self._metadata = [(name.lower(), value) for name, value in settings.headers.items()]
        parts = urlsplit(url)
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        target = f"{host}:{parts.port or 4317}"
        compression = grpc.Compression.Gzip if settings.compression == "gzip" else grpc.Compression.NoCompression
        if parts.scheme == "https":
            read = [Path(name).read_bytes() if name else None for name in (settings.ca_file, settings.cert_file)]
            key = Path(settings.key_file or settings.cert_file).read_bytes() if settings.cert_file else None
            credentials = grpc.ssl_channel_credentials(read[0], key, read[1])
            self._channel: Any = grpc.secure_channel(target, credentials, _OPTIONS, compression)
        else:
            self._channel = grpc.insecure_channel(target, _OPTIONS, compression)
        self._export = self._channel.unary_unary(_METHOD)

    def send(self, payloads: list[bytes], spans: int, timeout_s: float) -> int:
        """Send them; how many of the spans the collector says it has not taken."""
        body = self._frame.request(payloads)
        try:
            answer = self._export(body, timeout=min(timeout_s, self._timeout_s), metadata=self._metadata)
        except self._error as error:
            status: Any = error
            code = status.code().name
            words = f"it answers {code}: {status.details()}"
            raise (Unavailable(words) if code in _LATER else Refused(words)) from error
        return rejected_spans(answer, spans)

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()
