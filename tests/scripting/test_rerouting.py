"""Requests that scripts send elsewhere: another path, another host, another server; and what the cache makes of it."""

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from tests.scripting.builders import DOES, Site, do
from tests.support import Origin, free_port, gated, reply, request, until

FRESH = "Cache-Control: max-age=60"


class TlsOrigin(Origin):
    """A scripted origin that speaks TLS."""

    def __init__(self, certificate: trustme.LeafCert) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(self._context)
        super().__init__()
        self.url = self.url.replace("http:", "https:")

    def _serve(self, sock: socket.socket, number: int) -> None:
        with contextlib.suppress(OSError):  # the edge may not believe the certificate
            super()._serve(self._context.wrap_socket(sock, server_side=True), number)


class World:
    """A node with three origins, of which its default route leads to the first, and one that it does not know."""

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(folder / "ca.pem")
        self.second = Origin()
        self.secure = TlsOrigin(authority.issue_cert("127.0.0.1"))
        self.unknown = Origin()
        toml = f"""
            [[origin]]
            name = "second"
            urls = ["{self.second.url}"]
            [[origin]]
            name = "secure"
            urls = ["{self.secure.url}"]
            tls_ca_file = "{folder}/ca.pem"
            [[route]]
            match = "/second/*"
            origin = "second"
            [[route]]
            match = "/*"
            host = "second.test"
            origin = "second"
            [[route]]
            match = "/never/*"
            origin = "app"
            cache.enabled = false
        """
        self.site = Site(DOES, toml=toml)

    def origins(self) -> list[Origin]:
        return [self.site.origin, self.second, self.secure, self.unknown]

    def stop(self) -> None:
        for one in self.origins():
            one.stop()


@pytest.fixture(scope="module")
def shared_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    world = World(tmp_path_factory.mktemp("world"))
    with world.site:
        yield world
    world.stop()


@pytest.fixture
def world(shared_world: World) -> Iterator[World]:
    for origin in shared_world.origins():
        origin.requests.clear()
    with shared_world.site.watched():
        yield shared_world


def to(origin: Origin, *, keeps_host: bool = True) -> str:
    """Code that sends a request to this server."""
    kept = "; request.host_header = 'edge.test'" if keeps_host else ""
    return (
        f"request.host, request.port, request.scheme = '127.0.0.1', {origin.port}, '{origin.url.split(':')[0]}'{kept}"
    )


def test_the_path_decides_on_key_and_on_what_the_origin_is_asked(world: World) -> None:
    site = world.site
    site.origin.on("/new", reply(b"new", FRESH))
    answers = [site.get("/old?a=1", *do(request="request.path = '/new?b=2'")), site.get("/new?b=2")]
    assert [answer.body for answer in answers] == [b"new"] * 2
    assert [site.record(answer)["cache"] for answer in answers] == ["MISS", "HIT"]
    record = site.record(answers[0])
    assert (record["path"], record["query"]) == ("/old", "a=1")
    assert record["script"]["rewritten"] == "http://edge.test/new?b=2"
    assert [asked.target for asked in site.origin.requests] == ["/new?b=2"]


def test_the_path_decides_on_the_route(world: World) -> None:
    site = world.site
    answer = site.get("/first", *do(requestheaders="request.path = '/second/x'"))
    assert (site.record(answer)["origin"], site.record(answer)["route"]) == ("second", "/second/*")
    assert [asked.target for asked in world.second.requests] == ["/second/x"]
    site.origin.on("/never/x", reply(b"x", FRESH))
    answers = [site.get("/cached", *do(request="request.path = '/never/x'")) for _ in range(2)]
    assert [site.record(answer)["cache"] for answer in answers] == ["BYPASS"] * 2


def test_the_path_that_stays_is_no_rewriting(world: World) -> None:
    answer = world.site.get("/same?a", *do(request="request.path = request.path"))
    assert world.site.script(answer)["rewritten"] is None


def test_the_host_decides_on_the_route_and_on_the_key(world: World) -> None:
    site = world.site
    world.second.on("/h", reply(b"second", FRESH))
    answer = site.get("/h", *do(request="request.host_header = 'second.test'"))
    assert (answer.body, site.record(answer)["origin"]) == (b"second", "second")
    (asked,) = world.second.requests
    assert asked["host"] == "second.test"
    assert site.record(site.get("/h", host="second.test"))["cache"] == "HIT"
    assert site.record(answer)["host"] == "edge.test"


@pytest.mark.parametrize("name", ["second", "secure", "unknown"])
def test_the_server_is_who_is_asked(world: World, name: str) -> None:
    site = world.site
    server: Origin = getattr(world, name)
    server.on("/server", reply(name.encode(), FRESH))
    site.origin.on("/server", reply(b"app", FRESH))
    there = do(requestheaders=to(server))
    answers = [site.get("/server"), site.get("/server", *there), site.get("/server", *there), site.get("/server")]
    assert [answer.body.decode() for answer in answers] == ["app", name, name, "app"]
    found = [site.record(answer)["cache"] for answer in answers[1:]]
    assert found == ["MISS", "HIT", "HIT"]
    record = site.record(answers[1])
    assert record["origin"] == (server.url if name == "unknown" else name)
    (asked,) = server.requests
    assert asked["host"] == "edge.test"
    assert asked["x-trace-id"] == answers[1].trace_id


def test_the_server_gives_its_name_as_host_unless_a_script_keeps_the_clients(world: World) -> None:
    world.site.get("/named", *do(request=to(world.second, keeps_host=False)))
    assert world.second.requests[0]["host"] == f"127.0.0.1:{world.second.port}"


def test_the_server_may_be_set_as_a_url(world: World) -> None:
    site = world.site
    answer = site.get("/old", *do(request=f"request.url = '{world.second.url}/new?x=1'"))
    assert world.second.requests[0].target == "/new?x=1"
    assert site.script(answer)["rewritten"] == f"{world.second.url}/new?x=1"


def test_the_server_that_is_the_routes_own_changes_nothing(world: World) -> None:
    site = world.site
    site.origin.on("/own", reply(b"x", FRESH))
    answers = [site.get("/own"), site.get("/own", *do(request=to(site.origin)))]
    assert [site.record(answer)["cache"] for answer in answers] == ["MISS", "HIT"]


def test_the_server_keeps_its_connections(world: World) -> None:
    before = world.unknown.connections
    for _ in range(3):
        world.site.get("/again", *do(request=to(world.unknown)), method="POST", body=b"x")
    assert world.unknown.connections <= before + 1
    assert [asked.body for asked in world.unknown.requests] == [b"x"] * 3


def test_the_server_that_is_not_there_is_a_bad_gateway(world: World) -> None:
    site = world.site
    port = free_port()
    answer = site.get(
        "/none",
        *do(request=f"request.host, request.port = '127.0.0.1', {port}", error="log['error'] = flow.error.msg"),
    )
    assert (answer.status, answer.problem["code"]) == (502, "origin_connect_error")
    assert str(port) in site.logged(answer)["error"]


def test_the_server_that_is_not_believed_is_a_bad_gateway(world: World) -> None:
    code = f"request.scheme, request.host, request.port = 'https', 'localhost', {world.secure.port}"
    assert world.site.get("/tls", *do(request=code)).status == 502


def test_the_server_has_uploads_that_stream_too(world: World) -> None:
    body = bytes(range(256)) * 1000
    code = to(world.second) + "; request.stream = True"
    world.site.get("/up", *do(requestheaders=code), method="PUT", body=body)
    assert world.second.requests[0].body == body


def test_the_server_is_kept_for_those_who_wait_for_it_while_many_others_come(world: World) -> None:
    """More servers than are remembered: none that is still wanted is forgotten."""
    site = world.site
    gate = threading.Event()
    world.unknown.on("/slow", gated(gate, reply(b"slow", "Cache-Control: no-store")))
    with site.node.connect() as first, site.node.connect() as second:
        for client in (first, second):
            client.send(request("/slow", *do(request=to(world.unknown))))
        until(lambda: len(site.in_flight("/slow")) == 2, "both to wait")
        with site.node.connect() as client:
            for port in range(1, 301):  # nobody listens at 127.1.1.1
                code = f"request.host, request.port = '127.1.1.1', {port}; request.host_header = 'edge.test'"
                assert site.ask(client, f"/{port}", *do(request=code)).status == 502
        gate.set()
        assert [site.saw(client.response()).body for client in (first, second)] == [b"slow"] * 2
