"""An origin as a user of OpenTelemetry writes one in Python: the SDK, a span a request, OTLP to a collector.

    OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318 python origin.py      prints its port

The answer says what the SDK made of the request. /ratio/R/… is sampled by the SDK's own TraceIdRatioBased of R, all
else by the default, ParentBased(ALWAYS_ON).
"""

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry import propagate
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import DEFAULT_ON, Sampler, SamplingResult, TraceIdRatioBased
from opentelemetry.trace import SpanKind


class ByPath(Sampler):
    """Chooses the sampler by the path asked for."""

    def should_sample(self, parent_context: Any, trace_id: int, name: str, *rest: Any, **more: Any) -> SamplingResult:
        word, ratio, *_ = [*name.removeprefix("GET /").split("/"), ""]
        sampler = TraceIdRatioBased(float(ratio)) if word == "ratio" else DEFAULT_ON
        return sampler.should_sample(parent_context, trace_id, name, *rest, **more)

    def get_description(self) -> str:
        return "ByPath"


provider = TracerProvider(sampler=ByPath(), resource=Resource.create({"service.name": "origin-python"}))
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(), schedule_delay_millis=50))
tracer = provider.get_tracer("origin")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1

    def do_GET(self) -> None:
        context = propagate.extract({name.lower(): value for name, value in self.headers.items()})
        with tracer.start_as_current_span(f"GET {self.path}", context=context, kind=SpanKind.SERVER) as span:
            own = span.get_span_context()
            answer = {
                "trace_id": f"{own.trace_id:032x}",
                "span_id": f"{own.span_id:016x}",
                "sampled": own.trace_flags.sampled,
            }
            body = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Cache-Control", "no-store")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nothing is logged."""


def main() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_address[1], flush=True)
    sys.stdin.read()  # whoever started it is gone when standard input ends
    provider.shutdown()


if __name__ == "__main__":
    main()
