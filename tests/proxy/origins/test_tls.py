"""Origins behind TLS: whom the edge believes, and where a response ends."""

import contextlib
import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.proxy.edges import Edge
from tests.support import Conversation, Cut, Origin, raw, reply

FRESH = "Cache-Control: max-age=60"


class TlsOrigin(Origin):
    """A scripted origin that speaks TLS."""

    def __init__(self, certificate: trustme.LeafCert) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(self._context)
        super().__init__()
        self.url = self.url.replace("http:", "https:")

    def _serve(self, sock: socket.socket, number: int) -> None:
        with self._lock:
            self._open.discard(sock)
        try:
            secured = self._context.wrap_socket(sock, server_side=True)
        except OSError:
            sock.close()  # the edge does not believe the certificate
            return
        with self._lock:
            self._open.add(secured)
        super()._serve(secured, number)


class PlainOrigin(Origin):
    """A server that speaks HTTP without TLS: it answers what it can't read with 400, as real ones do."""

    def _serve(self, sock: socket.socket, number: int) -> None:
        sock.recv(1)
        sock.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        super()._serve(sock, number)


def close_notify(talk: Conversation) -> None:
    """End a response as TLS has it: with a closure alert."""
    assert isinstance(talk.stream.sock, ssl.SSLSocket)
    with contextlib.suppress(OSError):
        talk.stream.sock.unwrap()
    talk.end = "close"


class World:
    """One node, origins with certificates of several kinds."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        ca, stranger = trustme.CA(), trustme.CA()
        ca_file = folder / "ca.pem"
        ca.cert_pem.write_to_path(str(ca_file))
        self.good = stack.enter_context(TlsOrigin(ca.issue_cert("127.0.0.1", "localhost")))
        self.strange = stack.enter_context(TlsOrigin(stranger.issue_cert("127.0.0.1")))
        self.other_name = stack.enter_context(TlsOrigin(ca.issue_cert("other.test")))
        self.plain = stack.enter_context(PlainOrigin())
        trusting: dict[str, Any] = {"tls_ca_file": str(ca_file)}
        self.edge = stack.enter_context(
            Edge(
                good={**trusting, "urls": [self.good.url]},
                named={**trusting, "urls": [self.good.url.replace("127.0.0.1", "localhost")]},
                strange={**trusting, "urls": [self.strange.url]},
                system={"urls": [self.good.url]},
                other={**trusting, "urls": [self.other_name.url]},
                plain={**trusting, "urls": [self.plain.url.replace("http:", "https:")]},
                next={**trusting, "urls": [self.strange.url, self.good.url]},
            )
        )


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with ExitStack() as stack:
        yield World(stack, tmp_path_factory.mktemp("tls"))


@pytest.mark.parametrize("name", ["good", "named"])
def test_an_origin_whose_certificate_holds_is_asked_and_its_connection_kept(world: World, name: str) -> None:
    path = f"/{name}/x"
    world.good.on(path, reply(b"secret"))
    records = []
    for _ in range(3):
        response = world.edge.get(path)
        assert response.body == b"secret"
        records.append(world.edge.record(response))
    assert records[0]["tls_ms"] > 0
    assert records[0]["connect_ms"] > 0
    assert [(record["origin_reused"], record["tls_ms"]) for record in records[1:]] == [(True, None)] * 2
    assert len({request.connection for request in world.good.seen(path)}) == 1


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        pytest.param("strange", "SSLCertVerificationError", id="another-authority"),
        pytest.param("system", "SSLCertVerificationError", id="not-one-that-the-system-trusts"),
        pytest.param("other", "SSLCertVerificationError", id="another-name"),
        pytest.param("plain", "SSLError", id="no-tls-at-all"),
    ],
)
def test_an_origin_that_can_not_be_believed_gets_no_request(world: World, name: str, cause: str) -> None:
    response = world.edge.get(f"/{name}/x")
    assert (response.status, response.problem["code"]) == (502, "origin_tls_error")
    record = world.edge.record(response)
    assert (record["outcome"], record["stage"]) == ("origin_error", "connect")
    assert record["error"]["causes"][0]["type"] == cause
    for origin in (world.strange, world.other_name, world.plain):
        assert origin.requests == []


def test_the_next_url_is_tried_when_one_can_not_be_believed(world: World) -> None:
    responses = [world.edge.get("/next/x") for _ in range(3)]
    assert [response.status for response in responses] == [200] * 3
    tried = [len(world.edge.record(response)["attempts"]) for response in responses]
    assert sorted(tried) == [1, 1, 2]


def test_a_body_that_ends_with_the_connection_ends_with_a_closure_alert_rfc9112_9_8(world: World) -> None:
    def handle(talk: Conversation) -> None:
        talk.send(f"HTTP/1.1 200 OK\r\n{FRESH}\r\n\r\nwhole".encode())
        close_notify(talk)

    world.good.on("/good/whole", handle)
    assert world.edge.get("/good/whole").body == b"whole"


def test_without_a_closure_alert_it_is_cut_off_and_not_stored(world: World) -> None:
    """Anyone on the way can close a TCP connection; only the origin can say that its response is whole."""

    def handle(talk: Conversation) -> None:
        talk.send(f"HTTP/1.1 200 OK\r\n{FRESH}\r\n\r\nha".encode())
        talk.end = "close"

    world.good.on("/good/half", handle)
    for _ in range(2):
        with pytest.raises(Cut):
            world.edge.get("/good/half")
    assert len(world.good.seen("/good/half")) == 2


def test_a_body_whose_end_is_stated_needs_no_closure_alert(world: World) -> None:
    world.good.on("/good/stated", raw(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwhole", then="close"))
    assert world.edge.get("/good/stated").body == b"whole"
