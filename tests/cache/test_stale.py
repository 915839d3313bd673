"""Stale responses (RFC 5861, RFC 9111 §4.2.4): served while they are revalidated, and instead of an error."""

import re
from collections.abc import Iterator

import pytest

from tests.cache.crowds import Held, answers, ask, lines_of, under_way, words
from tests.proxy.edges import Edge
from tests.support import Handler, Origin, free_port, raw, reply, silent, until

ETAG = 'ETag: "1"'
UNCHANGED = b'HTTP/1.1 304 Not Modified\r\nCache-Control: max-age=60\r\nETag: "1"\r\n\r\n'
FAILURES = ["500 Internal Server Error", "502 Bad Gateway", "503 Service Unavailable", "504 Gateway Timeout"]


@pytest.fixture(scope="module")
def edge() -> Iterator[Edge]:
    with Edge(
        app={"first_byte_timeout": 0.5, "retries": 0},
        floor={"retries": 0, "route": {"stale_while_revalidate": 5, "stale_if_error": 60}},
    ) as started:
        yield started


@pytest.fixture
def path(request: pytest.FixtureRequest) -> str:
    return "/app/" + re.sub(r"[^A-Za-z0-9]+", "-", request.node.name)


def stale(*directives: str, seconds: int = 10) -> list[str]:
    """Fields of a response that has been stale for so many seconds when it arrives."""
    return [f"Cache-Control: {', '.join(['max-age=60', *directives])}", f"Age: {60 + seconds}", ETAG]


def store(edge: Edge, path: str, *fields: str, origin: str = "app") -> None:
    """Have a response stored."""
    edge[origin].on(path, reply(b"old", *fields))
    assert "stored" in edge.get(path)["cache-status"]


def fails(origin_does: str) -> Handler:
    """What an origin does that fails."""
    if origin_does == "closes":
        return raw(then="close")
    if origin_does == "resets":
        return raw(then="reset")
    return silent if origin_does == "is silent" else reply(b"sorry", status=origin_does)


# --- instead of an error (RFC 5861 §4)


@pytest.mark.parametrize("origin_does", ["closes", "resets", "is silent", *FAILURES])
def test_when_the_origin_fails_a_stale_response_is_served(edge: Edge, path: str, origin_does: str) -> None:
    store(edge, path, *stale("stale-if-error=60"))
    edge["app"].on(path, fails(origin_does))
    response = edge.get(path)
    assert (response.status, response.body, response["x-cache"]) == (200, b"old", "STALE")
    assert 70 <= int(response["age"]) < 90
    status = origin_does[:3] if origin_does in FAILURES else ""
    errors = {"": f"status-{status}", "is silent": "origin_first_byte_timeout"}
    why = errors.get(origin_does if not status else "", "origin_closed")
    forwarded = f"fwd=stale; fwd-status={status}" if status else "fwd=stale"
    assert re.fullmatch(rf"edge-1; {forwarded}; ttl=-1\d; detail={why}", response["cache-status"])
    line = edge.record(response)
    assert (line["cache"], line["outcome"], line["status"], line["origin_status"]) == (
        "STALE",
        "ok",
        200,
        int(status) if status else None,
    )
    assert line["filled_by"] == edge["app"].seen(path)[0]["traceparent"]
    assert len(line["attempts"]) == 1
    assert edge.get(path).body == b"old", "and again"
    edge["app"].on(path, reply(b"new", "Cache-Control: max-age=60"))
    assert edge.get(path).body == b"new"


@pytest.mark.parametrize("status", ["501 Not Implemented", "404 Not Found", "403 Forbidden", "429 Too Many Requests"])
def test_what_is_no_failure_of_the_origin_is_passed_on(edge: Edge, path: str, status: str) -> None:
    store(edge, path, *stale("stale-if-error=60"))
    edge["app"].on(path, reply(b"no", status=status))
    assert edge.get(path).status == int(status[:3])


def test_when_the_origin_is_away_a_stale_response_is_served() -> None:
    port = free_port()
    with Edge(
        away={"urls": [f"http://127.0.0.1:{port}"], "connect_timeout": 2, "route": {"stale_if_error": 60}}
    ) as edge:
        with Origin(port) as origin:
            origin.on("/away/x", reply(b"old", *stale()))
            assert edge.get("/away/x").body == b"old"
        until(lambda: edge.get("/away/x")["x-cache"] == "STALE", "the origin to be away")
        response = edge.get("/away/x")
        assert response.body == b"old"
        assert response["cache-status"].endswith("detail=origin_connect_error")


@pytest.mark.parametrize("failure", [reply(status="503 Service Unavailable"), raw(then="close")], ids=["503", "closes"])
def test_the_route_may_allow_it_where_the_origin_says_nothing(edge: Edge, path: str, failure: Handler) -> None:
    for route, status in (("app", None), ("floor", 200)):
        target = path.replace("/app/", f"/{route}/")
        store(edge, target, *stale(), origin=route)
        edge[route].on(target, failure)
        assert edge.get(target).status in ([status] if status else [502, 503])


@pytest.mark.parametrize("asked", [[], ["Cache-Control: stale-if-error=60"]], ids=["", "asked-for"])
@pytest.mark.parametrize("route", ["app", "floor"])
@pytest.mark.parametrize("directive", ["must-revalidate", "proxy-revalidate", "s-maxage=60", "no-cache"])
def test_what_must_be_revalidated_is_never_served_stale(
    edge: Edge, path: str, directive: str, route: str, asked: list[str]
) -> None:
    path = path.replace("/app/", f"/{route}/")
    store(edge, path, *stale(directive, "stale-while-revalidate=60", "stale-if-error=60"), origin=route)
    for failure in (reply(b"sorry", status="503 Service Unavailable"), raw(then="close")):
        edge[route].on(path, failure)
        response = edge.get(path, *asked)
        assert response.status in {502, 503}
        assert b"old" not in response.body


@pytest.mark.parametrize("allowed_s", [5, 60])
def test_only_for_so_long(edge: Edge, path: str, allowed_s: int) -> None:
    store(edge, path, *stale(f"stale-if-error={allowed_s}"))
    edge["app"].on(path, reply(b"sorry", status="503 Service Unavailable"))
    assert edge.get(path).status == (503 if allowed_s == 5 else 200)


def test_an_error_leaves_what_is_stored_where_it_is(edge: Edge, path: str) -> None:
    """It may not be served stale, but it can still be validated when the origin is well again."""
    store(edge, path, *stale())
    edge["app"].on(path, reply(b"sorry", status="503 Service Unavailable"))
    assert edge.get(path).status == 503
    edge["app"].on(path, raw(UNCHANGED))
    assert (edge.get(path).body, edge["app"].seen(path)[-1]["if-none-match"]) == (b"old", '"1"')


def test_a_client_may_ask_for_a_stale_response_instead_of_an_error(edge: Edge, path: str) -> None:
    store(edge, path, *stale())
    edge["app"].on(path, reply(b"sorry", status="503 Service Unavailable"))
    assert edge.get(path, "Cache-Control: stale-if-error=60").body == b"old"
    assert edge.get(path).status == 503


@pytest.mark.parametrize("origin_does", ["closes", "503 Service Unavailable"])
def test_all_who_wait_are_served_stale(edge: Edge, path: str, origin_does: str) -> None:
    edge["app"].on(path, reply(b"old", "Cache-Control: max-age=60, stale-if-error=60", ETAG))
    edge.get(path)
    held = Held(
        b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", later=reply(b"own", "Cache-Control: no-store")
    )
    edge["app"].on(path, held)
    leader = ask(edge, path, "Cache-Control: no-cache")
    edge["app"].wait_for(path, 2)
    crowd = [leader, *(ask(edge, path, "Cache-Control: no-cache") for _ in range(3))]
    under_way(edge, path, request_sent=1, collapsed=3)
    if origin_does == "closes":
        held.end("close")
    else:
        held.go()
    responses = answers(crowd)
    assert [response.body for response in responses] == [b"old"] * 4
    assert words(responses) == {"STALE": 1, "COLLAPSED": 3}
    assert len(edge["app"].seen(path)) == 2
    assert {line["outcome"] for line in lines_of(edge, path, 5)} == {"ok"}


def test_each_client_speaks_for_itself(edge: Edge, path: str) -> None:
    """One of those who wait takes a stale response, the other does not; whose request went out makes no difference."""
    edge["app"].on(path, reply(b"old", "Cache-Control: max-age=60", ETAG))
    edge.get(path)
    for leads, follows in (("no-cache", "no-cache, stale-if-error=60"), ("no-cache, stale-if-error=60", "no-cache")):
        held = Held()
        edge["app"].on(path, held)
        seen = len(edge["app"].seen(path))
        leader = ask(edge, path, f"Cache-Control: {leads}")
        edge["app"].wait_for(path, seen + 1)
        follower = ask(edge, path, f"Cache-Control: {follows}")
        under_way(edge, path, request_sent=1, collapsed=1)
        held.end("close")
        first, second = answers([leader, follower])
        assert (first.status, second.status) == ((200, 502) if "stale" in leads else (502, 200))


# --- at the client's word (RFC 9111 §5.2.1.2)


@pytest.mark.parametrize(
    ("field", "response_says", "served"),
    [
        ("max-stale", [], True),
        ("max-stale=100", [], True),
        ("max-stale=5", [], False),
        ("max-stale=100", ["must-revalidate"], False),
        ("max-stale=100", ["s-maxage=60"], False),
        ("max-stale=100, no-cache", [], False),
        ("max-stale=100, max-age=30", [], False),
    ],
)
def test_a_client_may_take_stale_responses(
    edge: Edge, path: str, field: str, response_says: list[str], served: bool
) -> None:
    store(edge, path, *stale(*response_says))
    edge["app"].on(path, reply(b"new", "Cache-Control: max-age=60"))
    response = edge.get(path, f"Cache-Control: {field}")
    assert response.body == (b"old" if served else b"new")
    if served:
        assert response["x-cache"] == "STALE"
        assert re.fullmatch(r"edge-1; hit; ttl=-1\d", response["cache-status"])
        line = edge.record(response)
        assert (line["cache"], line["origin"], line["cache_age"]) == ("STALE", None, int(response["age"]))
    assert len(edge["app"].seen(path)) == (1 if served else 2)
