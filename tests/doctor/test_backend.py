"""The doctor asks a backend: collectors that are well, and ones that are down, refuse, stall or can't be trusted."""

import importlib.util
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trustme

from edgeproxy.config import Tracing
from edgeproxy.doctor.backend import check_backend
from edgeproxy.doctor.findings import Finding, Verdict
from edgeproxy.export.http import endpoint
from tests.support import OtlpReceiver
from tests.support.ports import free_port

OK, WARN, FAIL, SKIPPED = Verdict.OK, Verdict.WARN, Verdict.FAIL, Verdict.SKIPPED


@pytest.fixture(scope="module")
def shared() -> Iterator[OtlpReceiver]:
    with OtlpReceiver() as receiver:
        yield receiver


@pytest.fixture
def receiver(shared: OtlpReceiver) -> Iterator[OtlpReceiver]:
    yield shared
    shared.accept()
    shared.clear()


@pytest.fixture(scope="module")
def secure() -> Iterator[OtlpReceiver]:
    with OtlpReceiver(tls=True) as receiver:
        yield receiver


def examined(url: str, **otlp: Any) -> list[Finding]:
    otlp = {"timeout": 5, **otlp}
    return check_backend(msgspec.convert({"otlp_endpoint": url, "otlp": otlp}, Tracing), ("otlp",))


def examined_one(url: str, **otlp: Any) -> Finding:
    (found,) = examined(url, **otlp)
    return found


def test_a_collector_that_takes_exports_is_well(receiver: OtlpReceiver) -> None:
    found = examined_one(receiver.url, headers={"x-tenant": "shop"})
    assert (found.check, found.verdict) == ("backend", OK)
    (export,) = receiver.exports
    assert (export.path, export.spans, export.headers["x-tenant"]) == ("/v1/traces", 0, "shop")


def test_compressed_exports_are_tried_compressed(receiver: OtlpReceiver) -> None:
    assert examined_one(receiver.url, compression="gzip").verdict is OK
    assert receiver.exports[0].headers["content-encoding"] == "gzip"


@pytest.mark.parametrize(
    ("status", "verdict", "words"),
    [
        (400, FAIL, "does not understand"),
        (401, FAIL, "wants to know who sends"),
        (403, FAIL, "does not accept the credentials"),
        (404, FAIL, "has nothing at this path"),
        (429, WARN, "is asked too much (Retry-After: 7)"),
        (503, WARN, "is overloaded or not ready (Retry-After: 7)"),
        (500, FAIL, "does not take an export"),
    ],
)
def test_refusals_are_said_in_words(receiver: OtlpReceiver, status: int, verdict: Verdict, words: str) -> None:
    receiver.refuse(status, retry_after="7" if status in (429, 503) else None)
    found = examined_one(receiver.url)
    assert (found.verdict, words in found.found) == (verdict, True), found
    assert found.advice
    assert found.figures["status"] == status


def test_what_it_is_told_to_send_along_is_not_shown(receiver: OtlpReceiver) -> None:
    receiver.refuse(401)
    assert "s3cret" not in str(examined_one(receiver.url, headers={"authorization": "Bearer s3cret"}))


def test_a_partial_success_is_a_warning(receiver: OtlpReceiver) -> None:
    receiver.reject(3, "quota")
    found = examined_one(receiver.url)
    assert (found.verdict, found.figures["rejected_spans"]) == (WARN, 3)
    assert "3 spans rejected, quota" in found.found


def test_a_web_page_is_no_backend(receiver: OtlpReceiver) -> None:
    receiver.answer_body(b"<!doctype html><title>Welcome</title>")
    found = examined_one(receiver.url)
    assert (found.verdict, "not as OTLP has it" in found.found) == (FAIL, True)


def test_what_speaks_no_http_is_no_backend(receiver: OtlpReceiver) -> None:
    receiver.answer(b"SSH-2.0-OpenSSH_9.2\r\n")
    found = examined_one(receiver.url)
    assert (found.verdict, "gives no answer" in found.found) == (FAIL, True)


def test_a_backend_that_stalls_is_not_waited_for_longer_than_configured(receiver: OtlpReceiver) -> None:
    receiver.hold()
    found = examined_one(receiver.url, timeout=0.2)
    assert (found.verdict, "no answer in time" in found.found) == (FAIL, True)


def test_a_backend_that_is_down_or_unknown_is_said() -> None:
    found = examined_one(f"http://127.0.0.1:{free_port()}")
    assert (found.verdict, "Connection refused" in found.found) == (FAIL, True)
    assert examined_one("http://collector.invalid:4318").verdict is FAIL


# --- TLS


def test_a_certificate_tells_how_long_it_is_good(secure: OtlpReceiver) -> None:
    tls, backend = examined(secure.url, ca_file=str(secure.ca_file))
    assert (tls.check, tls.verdict, backend.verdict) == ("backend_tls", OK, OK)
    assert tls.figures["days_left"] > 100


def test_an_authority_that_is_not_known_is_said(secure: OtlpReceiver) -> None:
    found = examined_one(secure.url)
    assert (found.check, found.verdict) == ("backend_tls", FAIL)
    assert "tracing.otlp.ca_file" in found.advice


def test_tls_where_there_is_none_is_said(receiver: OtlpReceiver) -> None:
    found = examined_one(receiver.url.replace("http:", "https:"))
    assert (found.verdict, "can't be reached" in found.found) == (FAIL, True)


def test_a_backend_that_asks_for_a_certificate_gets_it_or_it_is_said() -> None:
    with OtlpReceiver(tls=True, mutual=True) as receiver:
        ca = str(receiver.ca_file)
        *_, without = examined(receiver.url, ca_file=ca)
        assert (without.verdict, "tracing.otlp.cert_file" in without.advice) == (FAIL, True)
        *_, shown = examined(
            receiver.url, ca_file=ca, cert_file=str(receiver.client_file), key_file=str(receiver.key_file)
        )
        assert shown.verdict is OK


def test_certificates_that_are_no_certificates_are_said(secure: OtlpReceiver, tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_text("nonsense")
    found = examined_one(secure.url, ca_file=str(file))
    assert (found.verdict, "can't be read" in found.found) == (FAIL, True)


@contextmanager
def listener(folder: Path, ends: datetime, *names: str) -> Iterator[tuple[str, str]]:
    """A server that shakes hands and no more: its url, and the authority's file."""
    authority = trustme.CA()
    certificate = authority.issue_cert(*names, not_after=ends)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    ca_file = folder / "ca.pem"
    authority.cert_pem.write_to_path(ca_file)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    sock, _ = server.accept()
                except OSError:
                    return
                try:
                    context.wrap_socket(sock, server_side=True).close()
                except OSError:
                    sock.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"https://127.0.0.1:{server.getsockname()[1]}", str(ca_file)
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.mark.parametrize(
    ("days", "name", "verdict", "words"),
    [
        (-1, "127.0.0.1", FAIL, "certificate has expired"),
        (5, "127.0.0.1", WARN, "good for another 5 days"),
        (300, "elsewhere.test", FAIL, "127.0.0.1"),
    ],
)
def test_certificates_that_ended_end_soon_or_are_anothers(
    tmp_path: Path, days: int, name: str, verdict: Verdict, words: str
) -> None:
    with listener(tmp_path, datetime.now(UTC) + timedelta(days=days, hours=1), name) as (url, ca_file):
        found = examined(url, ca_file=ca_file)[0]
    assert (found.check, found.verdict, words in found.found) == ("backend_tls", verdict, True), found


# --- what it is asked for


def test_without_a_collector_there_is_nothing_to_ask() -> None:
    (found,) = check_backend(Tracing(), ("embedded",))
    assert found.verdict is SKIPPED


@pytest.mark.parametrize(
    ("settings", "url"),
    [
        ({"otlp_endpoint": "http://a:4318"}, "http://a:4318/v1/traces"),
        ({"otlp_endpoint": "http://a:4318/otlp/"}, "http://a:4318/otlp/v1/traces"),
        ({"otlp_endpoint": "http://a:4318", "otlp": {"traces_endpoint": "http://b/x"}}, "http://b/x"),
        ({"otlp_endpoint": "http://a:4317", "otlp": {"protocol": "grpc"}}, "http://a:4317"),
        ({"otlp": {"protocol": "grpc"}}, "http://localhost:4317"),
        ({}, "http://localhost:4318/v1/traces"),
    ],
)
def test_the_endpoint_is_the_exporters(settings: dict[str, Any], url: str) -> None:
    assert endpoint(msgspec.convert(settings, Tracing)) == url


def test_grpc_is_asked_by_grpc_where_that_is_installed(receiver: OtlpReceiver) -> None:
    found = examined_one(receiver.url, protocol="grpc", timeout=1)
    if importlib.util.find_spec("grpc") is None:
        assert (found.verdict, 'pip install "edgeproxy[grpc]"' in found.found) == (FAIL, True)
    else:  # the receiver speaks HTTP/1.1
        assert found.verdict in (WARN, FAIL)
