"""OTLP over gRPC, which is an extra."""

import sys
from concurrent import futures
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from edgeproxy.config import Otlp
from edgeproxy.export.batch import Refused, Unavailable
from edgeproxy.export.grpc import GrpcMissing, OtlpGrpc
from edgeproxy.export.otlp import Encoder, Frame
from edgeproxy.tracing.spans import Kind, Span

FRAME = Frame({"service.name": "edge"}, "edgeproxy", "1")
SPANS = Encoder().spans([Span("GET", Kind.SERVER, "ab" * 16, "cd" * 8, None, 1, "", 1, 2, {})])


def test_without_it_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "grpc", None)
    with pytest.raises(GrpcMissing, match=r'pip install "edgeproxy\[grpc\]"'):
        OtlpGrpc("http://127.0.0.1:4317", Otlp(), FRAME)


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_spans_arrive_past_proxies_and_answers_mean_what_otlp_says(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    grpc = pytest.importorskip("grpc")
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    received: list[tuple[ExportTraceServiceRequest, dict[str, Any]]] = []
    answers: list[Any] = [ExportTraceServiceResponse()]

    def export(body: bytes, context: Any) -> bytes:
        received.append((ExportTraceServiceRequest.FromString(body), dict(context.invocation_metadata())))
        if not isinstance(answers[-1], ExportTraceServiceResponse):
            context.abort(answers[-1], "no")
        return answers[-1].SerializeToString()

    server = grpc.server(futures.ThreadPoolExecutor(2))
    handlers = {"Export": grpc.unary_unary_rpc_method_handler(export)}
    service = "opentelemetry.proto.collector.trace.v1.TraceService"
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    port = server.add_insecure_port(f"{host}:0")
    server.start()
    sink = OtlpGrpc(f"http://{host}:{port}", Otlp(headers={"X-Tenant": "me"}, compression="gzip"), FRAME)
    assert sink.send([SPANS], 1, 10.0) == 0
    request, metadata = received[0]
    assert request.resource_spans[0].scope_spans[0].spans[0].name == "GET"
    assert metadata["x-tenant"] == "me"
    partial = ExportTraceServiceResponse()
    partial.partial_success.rejected_spans = 1
    answers.append(partial)
    assert sink.send([SPANS, SPANS], 2, 10.0) == 1
    for status, error in ((grpc.StatusCode.UNAVAILABLE, Unavailable), (grpc.StatusCode.INVALID_ARGUMENT, Refused)):
        answers.append(status)
        with pytest.raises(error, match=status.name):
            sink.send([SPANS], 1, 10.0)
    sink.close()
    server.stop(0).wait()
