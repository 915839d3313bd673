"""Web cache poisoning and web cache deception, as they are known from the field: an attacker sends something first, the
origin reflects it, and a victim asks for the same. What the victim gets must be what it would have got anyway.
"""

import threading
import zlib
from collections.abc import Iterator

import pytest

from tests.cache.scripted import FRESH, answering, counting, date, is_hit, path_for
from tests.proxy.edges import Edge
from tests.support import Conversation, Handler, Received, Response, reply, request

EVIL = "evil"


@pytest.fixture(scope="module")
def edge() -> Iterator[Edge]:
    with Edge(
        app={},
        ttl={"route": {"ttl": 60}},
        default={"route": {"default_ttl": 60}},
        status={"route": {"status_ttl": {"2xx": 60, "4xx": 60, "5xx": 60}}},
        deny={"route": {"query_deny": ["utm_*", "fbclid"]}},
        allow={"route": {"query_allow": ["a"]}},
        none={"route": {"query": "none"}},
        normal={"route": {"key_host": "normalized"}},
        fixed={"route": {"key_host": "edge.test"}},
        keyed={"route": {"key_headers": ["X-Tenant"], "key_cookies": ["lang"]}},
        tables={"cache": {"store": "memory"}},
    ) as started:
        yield started


def some_path(route: str, test: pytest.FixtureRequest) -> str:
    """A path of the test's own that says nothing of what it tries."""
    return f"/{route}/{zlib.crc32(test.node.name.encode()):08x}"


@pytest.fixture
def path(request: pytest.FixtureRequest) -> str:
    return some_path("app", request)


def reflecting(*fields: str) -> Handler:
    """Puts all that it was sent into what it answers, and lets everybody keep it."""

    def handle(talk: Conversation) -> None:
        talk.read_body()
        head = talk.request.raw_head.decode("latin-1").replace("\r\n", "\n")
        line = f"X-Reflected: {talk.request.target}"
        reply((head + talk.request.body.decode("latin-1")).encode("latin-1"), line, *(fields or (FRESH,)))(talk)

    return handle


def send(edge: Edge, raw: bytes, method: str = "GET") -> Response:
    with edge.connect() as client:
        return client.send(raw).response(method)


def is_clean(response: Response) -> bool:
    return EVIL not in (response.raw_head + response.body).decode("latin-1").lower()


# --- what the key does not hold can't change what is stored under it


UNKEYED = [
    "X-Forwarded-Host: evil.test",
    "X-Forwarded-Host: edge.test, evil.test",
    "X-Forwarded-Scheme: evil",
    "X-Forwarded-Port: 1337\r\nX-Forwarded-Prefix: /evil",
    "X-Forwarded-Proto: evil",
    "X-Forwarded-Server: evil.test",
    "X-Forwarded-Host: evil.test\r\nX-Forwarded-Scheme: http",
    "Forwarded: host=evil.test",
    "Forwarded: for=192.0.2.1;Host=evil.test;proto=evil",
    'Forwarded: for="evil;host=evil.test',
    'Forwarded: for=x;host="evil.test"\r\nForwarded: proto="evil"',
    "X_Forwarded_Host: evil.test",
    "X-Forwarded_Host: evil.test",
    "X-Host: evil.test",
    "X-Original-Host: evil.test",
    "X-HTTP-Host-Override: evil.test",
    "X-Original-URL: /evil",
    "X-Rewrite-URL: /evil",
    "X-HTTP-Method-Override: EVIL",
    "X-HTTP-Method: EVIL",
    "X-Method-Override: EVIL",
    "Front-End-Https: evil",
    "Connection: X-Forwarded-Host\r\nX-Forwarded-Host: evil.test",
    "Connection: close, X-Original-URL\r\nX-Original-URL: /evil",
    "Connection: Host, Forwarded, X-Forwarded-Host\r\nForwarded: host=evil.test",
    "Transfer-Encoding: chunked\r\nX-Body: 1\r\n\r\n4\r\nevil\r\n0",
    "Content-Length: 4\r\n\r\nevil",
    "Range: bytes=0-0\r\nX-Original-URL: /evil",
    'If-None-Match: "evil"\r\nX-Forwarded-Scheme: evil',
]


@pytest.mark.parametrize("field", UNKEYED, ids=lambda field: field.replace("\r\n", " | "))
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_unkeyed_input_does_not_reach_the_next_client(edge: Edge, path: str, field: str, method: str) -> None:
    edge["app"].on(path, reflecting())
    send(edge, f"{method} {path} HTTP/1.1\r\nHost: edge.test\r\n{field}\r\n\r\n".encode(), method)
    first, second = edge.get(path), edge.get(path)
    assert (is_clean(first), is_clean(second), is_hit(second)) == (True, True, True)
    assert "\nhost: edge.test\n" in first.text.lower()


def test_who_follows_an_attackers_fetch_does_not_get_its_response(edge: Edge, path: str) -> None:
    gate = threading.Event()

    def handle(talk: Conversation) -> None:
        if talk.request.get("x-original-url"):
            talk.wait(gate)
        reflecting()(talk)

    edge["app"].on(path, handle)
    with edge.connect() as attacker, edge.connect() as victim:
        attacker.send(request(path, "X-Original-URL: /evil"))
        edge["app"].wait_for(path)
        victim.send(request(path))
        edge.settle()
        gate.set()
        assert not is_clean(attacker.response())
        assert is_clean(victim.response())


@pytest.mark.parametrize("status", ["301 Moved Permanently", "404 Not Found", "405 No", "501 No"])
def test_an_answer_to_an_overridden_method_or_url_is_not_stored(edge: Edge, path: str, status: str) -> None:
    def handle(talk: Conversation) -> None:
        overridden = talk.request.get("x-http-method-override") or talk.request.get("x-original-url")
        (reply(b"evil", FRESH, "Location: http://evil.test/", status=status) if overridden else reply(b"good", FRESH))(
            talk
        )

    edge["app"].on(path, handle)
    for field in ("X-HTTP-Method-Override: POST", "X-Original-URL: /nothing"):
        assert edge.get(path, field).status == int(status[:3])
    assert edge.get(path).body == b"good"


def test_what_the_origin_varies_by_may_be_stored_with_it(edge: Edge, path: str) -> None:
    edge["app"].on(path, reflecting(FRESH, "Vary: X-Forwarded-Scheme"))
    assert not is_clean(edge.get(path, "X-Forwarded-Scheme: evil"))
    assert is_hit(edge.get(path, "X-Forwarded-Scheme: evil"))
    assert is_clean(edge.get(path))


# --- parameters that the key leaves out


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    ("route", "attack", "seen"),
    [
        ("deny", "?a=1&utm_content=evil", "?a=1"),
        ("deny", "?utm_content=evil&a=1", "?a=1"),
        ("deny", "?a=1&fbclid=evil", "?a=1"),
        ("deny", "?a=1&utm_content=x;a=evil", "?a=1"),
        ("deny", "?a=1&utm_content", "?a=1"),
        ("allow", "?a=1&b=evil", "?a=1"),
        ("allow", "?a=1&b=x;a=evil", "?a=1"),
        ("allow", "?a=1&A=evil", "?a=1"),
    ],
)
def test_the_origin_is_not_sent_what_the_key_leaves_out(
    edge: Edge, request: pytest.FixtureRequest, route: str, attack: str, seen: str, method: str
) -> None:
    path = some_path(route, request)
    edge[route].on(path, reflecting())
    edge.get(path + attack, method=method)
    first, second = edge.get(f"{path}?a=1"), edge.get(path + attack)
    assert [one.target for one in edge[route].seen(path)] == [path + seen] * (1 if method == "GET" else 2)
    assert (is_clean(first), is_clean(second), is_hit(second)) == (True, True, True)


def test_a_route_that_ignores_queries_does_not_send_them(edge: Edge) -> None:
    edge["none"].on("/none/x", reflecting())
    edge.get("/none/x?evil")
    assert is_clean(edge.get("/none/x"))
    assert edge["none"].seen("/none/x")[0].target == "/none/x"


@pytest.mark.parametrize(
    "attack", ["?a=1&%75tm_content=evil", "?a=1;utm_content=evil", "?a=1&a=evil", "?a=1%26utm_x=evil", "?a=1#evil"]
)
def test_what_only_some_would_read_as_left_out_is_a_key_of_its_own(
    edge: Edge, request: pytest.FixtureRequest, attack: str
) -> None:
    path = some_path("deny", request)
    edge["deny"].on(path, reflecting())
    edge.get(path + attack)
    assert is_clean(edge.get(f"{path}?a=1"))


def test_a_head_writes_nothing_into_what_is_stored_that_its_key_leaves_out(edge: Edge) -> None:
    path = "/deny/head-after-get"

    def handle(talk: Conversation) -> None:
        reply(b"body", FRESH, "Age: 1", 'ETag: "x"', f"X-Reflected: {talk.request.target} {talk.request.method}")(talk)

    edge["deny"].on(path, handle)
    edge.get(path)
    edge.get(f"{path}?utm_x=evil", "Cache-Control: no-cache", method="HEAD")
    hit = edge.get(path)
    assert (hit["x-reflected"], is_hit(hit)) == (f"{path} HEAD", True)


# --- hosts


@pytest.mark.parametrize(
    "host", ["edge.test:1337", "EDGE.test.", "edge.test.", "evil.edge.test", "edge.test:80", "edge.test:"]
)
def test_each_spelling_of_a_host_is_a_key_of_its_own(edge: Edge, path: str, host: str) -> None:
    edge["app"].on(path, reflecting())
    assert f"\nHost: {host}\n" in send(edge, request(path, host=host)).text
    assert "\nHost: edge.test\n" in edge.get(path).text
    assert "\nX-Forwarded-Host: edge.test\n" in edge.get(path).text


@pytest.mark.parametrize("host", ["edge.test:80", "edge.test:", "edge.test.", "EDGE.TEST.:80"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_normalized_host_is_sent_as_it_is_keyed(
    edge: Edge, host: str, method: str, request: pytest.FixtureRequest
) -> None:
    path = some_path("normal", request)
    edge["normal"].on(path, reflecting())
    raw = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
    send(edge, raw, method)
    seen = edge["normal"].seen(path)[0]
    assert (seen["host"], seen["x-forwarded-host"]) == ("edge.test", "edge.test")
    assert 'host="edge.test"' in seen["forwarded"]


def test_hosts_that_are_folded_into_one_are_sent_as_that_one(edge: Edge) -> None:
    edge["fixed"].on("/fixed/x", reflecting())
    send(edge, request("/fixed/x", host="evil.test"))
    victim = edge.get("/fixed/x")
    assert (is_clean(victim), is_hit(victim)) == (True, True)


@pytest.mark.parametrize(
    "raw",
    [
        "GET {path} HTTP/1.1\r\nHost: edge.test\r\nHost: evil.test\r\n\r\n",
        "GET {path} HTTP/1.1\r\nHost: edge.test evil.test\r\n\r\n",
        "GET {path} HTTP/1.1\r\nHost: edge.test/evil\r\n\r\n",
        "GET {path} HTTP/1.1\r\nHost: edge.test@evil.test\r\n\r\n",
        "GET {path} HTTP/1.1\r\nHost: edge.test:evil\r\n\r\n",
        "GET {path} HTTP/1.1\r\n\r\n",
        "GET http://evil.test{path} HTTP/1.1\r\nHost: edge.test\r\n\r\n",
        "GET http://edge.test@evil.test{path} HTTP/1.1\r\nHost: edge.test\r\n\r\n",
        "GET @evil.test{path} HTTP/1.1\r\nHost: edge.test\r\n\r\n",
        "GET {path} HTTP/1.1\r\n Host: evil.test\r\nHost: edge.test\r\n\r\n",
        "GET {path} HTTP/1.1\r\nHost : evil.test\r\nHost: edge.test\r\n\r\n",
        "GET {path}#evil HTTP/1.1\r\nHost: edge.test\r\n\r\n",
        "GET {path} HTTP/1.1\r\nHost: edge.test\r\nX: a\rX-Forwarded-Host: evil.test\r\n\r\n",
        "GET {path} HTTP/1.1\r\nHost: edge.test\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
)
def test_what_is_ambiguous_is_refused_and_reaches_no_origin(edge: Edge, path: str, raw: str) -> None:
    edge["app"].on(path, reflecting())
    assert send(edge, raw.format(path=path).encode()).status == 400
    assert edge["app"].seen(path) == []


def test_an_absolute_target_is_the_same_resource(edge: Edge, path: str) -> None:
    edge["app"].on(path, reflecting())
    send(edge, f"GET http://EDGE.test{path} HTTP/1.1\r\nHost: edge.test\r\n\r\n".encode())
    assert edge["app"].seen(path)[0].target == path
    assert is_hit(edge.get(path))


def test_a_request_without_a_host_shares_nothing_with_those_that_have_one(edge: Edge, path: str) -> None:
    edge["app"].on(path, counting(FRESH))
    assert send(edge, f"GET {path} HTTP/1.0\r\n\r\n".encode()).text == "answer 1"
    assert edge.get(path).text == "answer 2"
    assert send(edge, f"GET {path} HTTP/1.0\r\nHost:\r\n\r\n".encode()).text == "answer 1"


# --- fields that end at the edge because the client says so (RFC 9110 §7.6.1)


@pytest.mark.parametrize(
    ("fields", "victim"),
    [
        (["X-Tenant: b", "Connection: X-Tenant"], "X-Tenant: b"),
        (["X-Tenant: b", "Connection: close, x-tenant"], "X-Tenant: b"),
        (["Cookie: lang=b", "Connection: cookie"], "Cookie: lang=b"),
    ],
)
def test_a_keyed_field_that_did_not_reach_the_origin_does_not_key_its_response(
    edge: Edge, request: pytest.FixtureRequest, fields: list[str], victim: str
) -> None:
    def text(received: Received) -> str:
        return f"{received.get('x-tenant')} {received.get('cookie')}"

    path = some_path("keyed", request)
    edge["keyed"].on(path, answering(text, FRESH))
    assert edge.get(path, *fields).text == "None None"
    expected = "b None" if victim.startswith("X-Tenant") else "None lang=b"
    assert edge.get(path, victim).text == expected
    assert edge.get(path, *fields).text == "None None"


def test_what_varies_by_a_field_that_did_not_reach_the_origin_is_not_stored(edge: Edge, path: str) -> None:
    edge["app"].on(path, answering(lambda received: str(received.get("cookie")), FRESH, "Vary: Cookie"))
    assert edge.get(path, "Cookie: a=b", "Connection: cookie").text == "None"
    assert edge.get(path, "Cookie: a=b").text == "a=b"
    assert edge.get(path).text == "None"


# --- denial of service by stored errors (CPDoS)


@pytest.mark.parametrize("route", ["app", "ttl", "default", "status"])
@pytest.mark.parametrize(
    "status",
    [
        *("400 Bad Request", "408 Request Timeout", "411 Length Required", "413 Too Large"),
        *("417 Expectation Failed", "421 Misdirected", "426 Upgrade", "429 Slow", "431 Too Large"),
    ],
)
def test_an_error_about_one_request_is_not_everybodys(
    edge: Edge, request: pytest.FixtureRequest, route: str, status: str
) -> None:
    def handle(talk: Conversation) -> None:
        oversized = talk.request.get("x-oversized")
        (reply(b"evil", status=status) if oversized else reply(b"good", FRESH))(talk)

    path = some_path(route, request)
    edge[route].on(path, handle)
    attack = edge.get(path, f"X-Oversized: {'x' * 9000}")
    assert (attack.status, attack["cache-status"].endswith("stored")) == (int(status[:3]), False)
    assert edge.get(path).body == b"good"
    assert is_hit(edge.get(path))


@pytest.mark.parametrize("character", [b"\x00", b"\x07", b"\x7f", b"\x0b"])
def test_meta_characters_end_at_the_edge_or_harm_only_their_sender(edge: Edge, path: str, character: bytes) -> None:
    def handle(talk: Conversation) -> None:
        if talk.request.get("x-meta") is not None:
            reply(b"evil", FRESH, status="400 Bad Request")(talk)
        else:
            reply(b"good", FRESH)(talk)

    edge["app"].on(path, handle)
    raw = f"GET {path} HTTP/1.1\r\nHost: edge.test\r\nX-Meta: a".encode() + character + b"b\r\n\r\n"
    assert send(edge, raw).status == 400
    assert edge.get(path).body == b"good"


def test_a_range_that_can_not_be_satisfied_is_not_stored(edge: Edge, path: str) -> None:
    def handle(talk: Conversation) -> None:
        if talk.request.get("range"):
            reply(b"", FRESH, "Content-Range: bytes */4", status="416 Range Not Satisfiable")(talk)
        else:
            reply(b"good", FRESH)(talk)

    edge["app"].on(path, handle)
    assert edge.get(path, "Range: bytes=99-").status == 416
    assert edge.get(path).body == b"good"


# --- web cache deception: a private page under a path that looks public

ACCOUNT = "/account.php"
LOOKS_PUBLIC = [
    f"{ACCOUNT}/x.css",
    f"{ACCOUNT}/x.CSS",
    f"{ACCOUNT};x.js",
    f"{ACCOUNT}%2fx.png",
    f"{ACCOUNT}%3fx.css",
    f"{ACCOUNT}%23x.css",
    f"{ACCOUNT}%00x.jpg",
    f"{ACCOUNT}%0ax.ico",
    f"{ACCOUNT}%3bx.woff2",
    f"{ACCOUNT}%253fx.css",
    f"{ACCOUNT}/x.js?v=1",
    "/static/..%2faccount.php",
    "/static/%2e%2e/account.php",
    "/static/%2e%2e%2faccount.php",
    "/static/..%5caccount.php",
    "/static/..;/account.php",
    "/static/%252e%252e%252faccount.php",
    "/static/../account.php",
    "/static/..%2faccount.php%3f/x.css",
]


@pytest.mark.parametrize("route", ["app", "ttl", "default", "status"])
@pytest.mark.parametrize("suffix", LOOKS_PUBLIC)
def test_a_private_page_is_not_stored_because_of_how_its_path_looks(edge: Edge, route: str, suffix: str) -> None:
    path = f"/{route}{suffix}"
    fields = ["Content-Type: text/html; charset=utf-8", f"Last-Modified: {date(-86400)}"]
    private = answering(lambda received: f"{received.get('cookie')}'s account", *fields)
    edge[route].on(path.partition("?")[0], private)
    assert edge.get(path, "Cookie: victim").text == "victim's account"
    assert edge.get(path).text == "None's account"


@pytest.mark.parametrize("route", ["ttl", "default", "status"])
def test_a_file_that_is_what_it_looks_like_is_stored_on_the_routes_word(edge: Edge, route: str) -> None:
    for name, media in {"x.css": "text/css", "x.png": "image/png", "x.js": "text/javascript", "x": "text/html"}.items():
        path = f"/{route}/file/{name}"
        edge[route].on(path, reply(b"x", f"Content-Type: {media}"))
        edge.get(path)
        assert is_hit(edge.get(path)), name


@pytest.mark.parametrize("route", ["app", "ttl", "default", "status"])
@pytest.mark.parametrize("control", ["private", "no-store", "private, max-age=60", "no-cache"])
def test_no_route_makes_public_what_the_origin_calls_private(edge: Edge, route: str, control: str) -> None:
    path = path_for(f"private-{control}", under=route)
    fields = [f"Cache-Control: {control}", "Content-Type: text/css"]
    edge[route].on(path, answering(lambda received: str(received.get("cookie")), *fields))
    assert edge.get(path, "Cookie: victim").text == "victim"
    assert edge.get(path).text == "None"


@pytest.mark.parametrize("route", ["app", "ttl", "default", "status"])
def test_no_route_stores_a_cookie_or_an_authorized_response_unasked(edge: Edge, route: str) -> None:
    path = path_for("cookies", under=route)
    edge[route].on(path, reply(b"x", FRESH, "Set-Cookie: session=victim", "Content-Type: text/css"))
    edge.get(path)
    assert not is_hit(edge.get(path))
    path = path_for("authorized", under=route)
    edge[route].on(path, answering(lambda received: str(received.get("authorization")), FRESH))
    assert edge.get(path, "Authorization: Basic dmljdGlt").text == "Basic dmljdGlt"
    assert edge.get(path).text == "None"
