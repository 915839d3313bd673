"""EdgeCache where the oracle does not look: origins that fail, requests at once, TLS, several origins, no config."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
import trustme

from tests.addons.mitmdump import Mitmdump
from tests.addons.tls import TlsOrigin
from tests.support import Conversation, Origin, chunked, free_port, gated, raw, reply, silent

KEPT = reply(b"kept", "Cache-Control: max-age=60")
OLD = reply(b"old", "Cache-Control: max-age=0, stale-if-error=600", 'ETag: "1"')


class World:
    """One mitmdump, with a route to each of several origins: `/NAME/…`; everything else goes to `origin`."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        authority, stranger = trustme.CA(), trustme.CA()
        authority.cert_pem.write_to_path(folder / "ca.pem")
        trusting = {"tls_ca_file": str(folder / "ca.pem")}
        self.origin = stack.enter_context(Origin())
        self.leaving = stack.enter_context(Origin())
        self.second = stack.enter_context(Origin(default=reply(b"second")))
        self.good = stack.enter_context(TlsOrigin(authority.issue_cert("localhost")))
        self.strange = stack.enter_context(TlsOrigin(stranger.issue_cert("localhost")))
        self.misnamed = stack.enter_context(TlsOrigin(authority.issue_cert("elsewhere.test")))
        self.closed = f"http://127.0.0.1:{free_port()}"
        origins: dict[str, dict[str, object]] = {
            "leaving": {"urls": [self.leaving.url]},
            "second": {"urls": [self.second.url]},
            "closed": {"urls": [self.closed]},
            "unknown": {"urls": ["http://nobody.invalid:80"]},
            "failover": {"urls": [f"http://127.0.0.1:{free_port()}", self.origin.url]},
            "hasty": {"urls": [self.origin.url], "first_byte_timeout": 0.3},
            "named": {"urls": [self.origin.url], "host": "inside.test"},
            "good": {"urls": [self.good.url], **trusting},
            "strange": {"urls": [self.strange.url], **trusting},
            "misnamed": {"urls": [self.misnamed.url], **trusting},
            "system": {"urls": [self.good.url]},
        }
        self.mitmdump = stack.enter_context(
            Mitmdump(
                self.origin.url,
                cache={"purge_allow": ["127.0.0.1"]},
                toml="".join(_toml(name, table) for name, table in origins.items()),
            )
        )
        self.get = self.mitmdump.get


def _toml(name: str, table: dict[str, object]) -> str:
    keys = "".join(f"{key} = {value!r}\n" for key, value in table.items())
    return f'[[origin]]\nname = "{name}"\n{keys}[[route]]\nmatch = "/{name}/*"\norigin = "{name}"\n'


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with ExitStack() as stack:
        yield World(stack, tmp_path_factory.mktemp("world"))


# --- an origin that fails


def test_a_miss_gets_the_edges_own_error_and_a_line_that_says_why(world: World) -> None:
    got = world.get("/closed/miss")
    assert got.status == 502
    assert got.problem["code"] == "origin_connect_error"
    (line,) = world.mitmdump.lines_of("/closed/miss")
    assert (line["trace_id"], line["outcome"], line["stage"]) == (got.trace_id, "origin_error", "connect")
    assert line["error"]["causes"][0]["type"] == "ConnectionRefusedError"
    assert f"http://{line['attempts'][0]['address']}" == world.closed


def test_a_name_that_nobody_knows_is_an_error_of_its_own(world: World) -> None:
    assert world.get("/unknown/miss").problem["code"] == "origin_dns_error"


def test_a_hit_needs_none_and_a_stale_response_is_served_instead_rfc5861_4(world: World) -> None:
    world.leaving.on("/leaving/kept", KEPT)
    world.leaving.on("/leaving/old", OLD)
    for name in ("kept", "old"):
        world.get(f"/leaving/{name}")
    world.leaving.stop()
    kept, old = (world.get(f"/leaving/{name}") for name in ("kept", "old"))
    assert (kept.status, kept.body, kept["x-cache"]) == (200, b"kept", "HIT")
    assert (old.status, old.body, old["x-cache"]) == (200, b"old", "STALE")
    assert old["cache-status"].endswith("detail=origin_connect_error")
    _, line = world.mitmdump.lines_of("/leaving/old", 2)
    assert (line["cache"], line["outcome"], line["error"]) == ("STALE", "ok", None)
    assert line["attempts"][0]["error"]["type"] == "origin_connect_error"


def test_the_next_url_gets_its_chance(world: World) -> None:
    assert {world.get(f"/failover/{number}").status for number in range(2)} == {200}
    tried = [len(world.mitmdump.lines_of(f"/failover/{number}")[0]["attempts"]) for number in range(2)]
    assert sum(tried) == 3, "the url that failed is passed over afterwards"


@pytest.mark.parametrize(("method", "times"), [("GET", 2), ("POST", 1)])
def test_who_closes_without_an_answer_is_asked_again_where_that_is_safe(world: World, method: str, times: int) -> None:
    world.origin.on(f"/gone-{method}", Conversation.close)
    got = world.get(f"/gone-{method}", method=method, body=b"x" if method == "POST" else b"")
    assert got.problem["code"] == "origin_closed"
    assert len(world.origin.seen(f"/gone-{method}")) == times


def test_silence_ends(world: World) -> None:
    world.origin.on("/hasty/silent", silent)
    got = world.get("/hasty/silent")
    assert (got.status, got.problem["code"]) == (504, "origin_first_byte_timeout")
    (line,) = world.mitmdump.lines_of("/hasty/silent")
    assert (line["outcome"], line["stage"]) == ("timeout", "request_sent")


def test_trailers_are_more_than_mitmproxy_understands(world: World) -> None:
    world.origin.on("/trailers", chunked(b"x", trailers=["X-Sum: 1"]))
    assert world.get("/trailers").problem["code"] == "origin_malformed"


# --- requests at once


def test_requests_for_the_same_share_one_fetch(world: World) -> None:
    gate = threading.Event()
    world.origin.on("/slow", gated(gate, KEPT))
    answers = ask_while_it_is_fetched(world, "/slow", 5, gate)
    assert [one.body for one in answers] == [b"kept"] * 5
    assert sorted(one["x-cache"] for one in answers) == ["COLLAPSED"] * 4 + ["MISS"]
    assert len(world.origin.seen("/slow")) == 1


def test_what_is_not_stored_is_fetched_by_each(world: World) -> None:
    gate = threading.Event()
    world.origin.on("/own", gated(gate, reply(b"own", "Cache-Control: private")))
    answers = ask_while_it_is_fetched(world, "/own", 3, gate)
    assert {one["x-cache"] for one in answers} == {"MISS"}
    assert len(world.origin.seen("/own")) == 3


def test_one_that_fails_fails_for_all_who_wait(world: World) -> None:
    gate = threading.Event()

    def close_at_last(talk: Conversation) -> None:
        talk.wait(gate)
        talk.close()

    world.origin.on("/fails", close_at_last)
    answers = ask_while_it_is_fetched(world, "/fails", 3, gate)
    assert [one.problem["code"] for one in answers] == ["origin_closed"] * 3
    assert len(world.origin.seen("/fails")) == 2, "the one fetch, and its second attempt"


def ask_while_it_is_fetched(world: World, path: str, clients: int, gate: threading.Event) -> list:
    with ExitStack() as stack:
        connections = [stack.enter_context(world.mitmdump.connect()) for _ in range(clients)]
        for connection in connections:
            connection.send(b"GET %b HTTP/1.1\r\nHost: edge.test\r\n\r\n" % path.encode())
            world.get(f"/behind{path}")  # mitmproxy takes things in order: by now the request waits
        world.origin.wait_for(path)
        gate.set()
        return [connection.response() for connection in connections]


def test_a_client_that_leaves_harms_nobody(world: World) -> None:
    gate = threading.Event()
    world.origin.on("/left", gated(gate, KEPT))
    with world.mitmdump.connect() as leaving:
        leaving.send(b"GET /left HTTP/1.1\r\nHost: edge.test\r\n\r\n")
        world.origin.wait_for("/left")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(world.get, "/left")
        world.get("/behind/left")
        gate.set()
        assert waiting.result().body == b"kept"
    assert {line["outcome"] for line in world.mitmdump.lines_of("/left", 2)} == {"client_abort", "ok"}


def test_a_stale_response_is_validated_behind_the_clients_back_rfc5861_3(world: World) -> None:
    world.origin.on("/swr", reply(b"swr", "Cache-Control: max-age=0, stale-while-revalidate=60"))
    world.get("/swr")
    got = world.get("/swr")
    assert got["x-cache"] == "STALE"
    world.origin.wait_for("/swr", 2)
    (line,) = [line for line in world.mitmdump.lines_of("/swr", 3) if line["client"] is None]
    assert got.trace_id in line["caused_by"]
    assert line["trace_id"] != got.trace_id


# --- what is refused, cut or purged


@pytest.mark.parametrize(
    "head",
    [
        b"GET /malformed HTTP/1.1\r\nHost: edge.test\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"CONNECT elsewhere.test:443 HTTP/1.1\r\nHost: elsewhere.test:443\r\n\r\n",
    ],
    ids=["two lengths", "CONNECT"],
)
def test_what_mitmproxy_refuses_has_its_line(world: World, head: bytes) -> None:
    before = len(world.mitmdump.lines())
    with world.mitmdump.connect() as client:
        assert client.send(head).response().status == 400
    *_, line = world.mitmdump.log_lines(before + 1)
    assert (line["method"], line["status"], line["outcome"]) == (head.split()[0].decode(), 400, "refused")
    assert line["error"]["type"] in ("malformed_request", "connect_refused")


def test_a_response_that_breaks_off_is_none(world: World) -> None:
    world.origin.on(
        "/cut", raw(b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 9\r\n\r\nhal", then="close")
    )
    assert [world.get("/cut").problem["code"] for _ in range(2)] == ["origin_closed"] * 2


def test_the_method_purge_forgets_a_url(world: World) -> None:
    world.origin.on("/purged", KEPT)
    world.get("/purged")
    assert world.get("/purged")["x-cache"] == "HIT"
    assert world.get("/purged", method="PURGE").status == 200
    assert world.get("/purged")["x-cache"] == "MISS"


# --- where requests go


def test_requests_go_by_route_to_one_of_several_origins(world: World) -> None:
    world.origin.on("/first", reply(b"first"))
    assert world.get("/second/x").body == b"second"
    assert world.get("/first").body == b"first"
    assert [world.mitmdump.lines_of(path)[0]["origin"] for path in ("/second/x", "/first")] == ["second", "app"]


def test_requests_go_with_the_clients_host(world: World) -> None:
    world.get("/host")
    assert world.origin.seen("/host")[0]["host"] == "edge.test"


def test_requests_go_with_the_host_that_is_configured(world: World) -> None:
    world.get("/named/host")
    (seen,) = world.origin.seen("/named/host")
    assert (seen["host"], seen["x-forwarded-host"]) == ("inside.test", "edge.test")


def test_requests_without_a_route_go_nowhere(origin: Origin) -> None:
    toml = '[[route]]\nmatch = "/only"\norigin = "app"\n'
    with Mitmdump(origin.url, toml=toml, default_route=False) as mitmdump:
        assert mitmdump.get("/else").problem["code"] == "no_route"
        assert mitmdump.get("/only").status == 200
        assert mitmdump.get("/only", method="PURGE").problem["code"] == "purge_refused"
    assert len(origin.requests) == 1


def test_requests_go_where_mitmproxys_mode_leads_without_a_configuration(origin: Origin) -> None:
    origin.on("/kept", KEPT)
    with Mitmdump(origin.url, configured=False) as mitmdump:
        assert [mitmdump.get("/kept")["x-cache"] for _ in range(2)] == ["MISS", "HIT"]
        assert mitmdump.log_lines(2)[0]["origin"] == origin.url


# --- origins with TLS


def test_an_origin_that_the_configured_authority_vouches_for_is_asked(world: World) -> None:
    world.good.on("/good/kept", KEPT)
    assert world.get("/good/kept").body == b"kept"
    (line,) = world.mitmdump.lines_of("/good/kept")
    assert line["attempts"][0]["scheme"] == "https"
    assert line["tls_ms"] > 0


@pytest.mark.parametrize("name", ["strange", "misnamed", "system"])
def test_no_other_origin_with_tls_is_asked(world: World, name: str) -> None:
    got = world.get(f"/{name}/kept")
    assert (got.status, got.problem["code"]) == (502, "origin_tls_error")
    assert not any(one.seen(f"/{name}/kept") for one in (world.good, world.strange, world.misnamed))
