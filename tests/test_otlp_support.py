"""The collector that tests export to: what the SDK's own exporter sends it, and its bad manners."""

import threading

import pytest
import requests
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExportResult

from tests.support import OtlpReceiver


def sent_to(exporter: OTLPSpanExporter, name: str = "hello") -> SpanExportResult:
    provider = TracerProvider(resource=Resource({"service.name": "me"}))
    results = []

    class Noting(SimpleSpanProcessor):
        def on_end(self, span: ReadableSpan) -> None:
            results.append(self.span_exporter.export((span,)))

    provider.add_span_processor(Noting(exporter))
    with provider.get_tracer("test").start_as_current_span(name, attributes={"n": 1, "list": ["a", "b"]}):
        pass
    provider.shutdown()
    return results[0]


@pytest.mark.parametrize("compression", [Compression.NoCompression, Compression.Gzip], ids=["plain", "gzip"])
def test_what_the_sdk_exports_is_there_with_its_resource(compression: Compression) -> None:
    with OtlpReceiver() as receiver:
        assert sent_to(OTLPSpanExporter(receiver.endpoint, compression=compression)) is SpanExportResult.SUCCESS
        (span,) = receiver.until_spans(1)
        assert (span.name, span.attributes) == ("hello", {"n": 1, "list": ("a", "b")})
        assert span.resource["service.name"] == "me"
        assert span.scope == "test"
        assert (span.parent_id, span.status) == ("", 0)
        assert receiver.exports[0].headers.get("content-encoding") == (
            "gzip" if compression is Compression.Gzip else None
        )


def test_a_client_shows_its_certificate_and_believes_the_collectors(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):  # the SDK's exporter would believe these instead
        monkeypatch.delenv(name, raising=False)
    with OtlpReceiver(mutual=True) as receiver:
        exporter = OTLPSpanExporter(
            receiver.endpoint,
            certificate_file=str(receiver.ca_file),
            client_certificate_file=str(receiver.client_file),
            client_key_file=str(receiver.key_file),
        )
        assert sent_to(exporter) is SpanExportResult.SUCCESS
        assert receiver.exports[0].client_name == "client"
        with pytest.raises(requests.exceptions.ConnectionError):
            requests.post(receiver.endpoint, data=b"", verify=str(receiver.ca_file), timeout=5)


def test_it_can_refuse_hold_garble_reject_and_be_down() -> None:
    headers = {"Content-Type": "application/x-protobuf"}
    with OtlpReceiver() as receiver, requests.Session() as session:
        receiver.refuse(503, retry_after="7")
        response = session.post(receiver.endpoint, data=b"", headers=headers, timeout=5)
        assert (response.status_code, response.headers["Retry-After"]) == (503, "7")
        receiver.reject(2, "full")
        assert (
            session.post(receiver.endpoint, data=b"", headers=headers, timeout=5).content
            == b"\n\x08\x08\x02\x12\x04full"
        )
        receiver.answer(b"what?\r\n\r\n")
        with pytest.raises(requests.exceptions.ConnectionError):
            session.post(receiver.endpoint, data=b"", headers=headers, timeout=5)
        receiver.hold()
        with pytest.raises(requests.exceptions.ReadTimeout):
            session.post(receiver.endpoint, data=b"", headers=headers, timeout=0.05)
        waiting = threading.Thread(target=requests.post, args=(receiver.endpoint, b""), kwargs={"headers": headers})
        waiting.start()
        receiver.accept()
        waiting.join()
        receiver.go_down()
        with pytest.raises(requests.exceptions.ConnectionError):
            session.post(receiver.endpoint, data=b"", headers=headers, timeout=5)
        receiver.come_up()
        assert session.post(receiver.endpoint, data=b"", headers=headers, timeout=5).status_code == 200
