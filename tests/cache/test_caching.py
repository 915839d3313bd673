"""The cache at work: a real node, a real origin that counts, and what clients get to see (RFC 9111, RFC 9211)."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from tests.proxy.edges import Edge
from tests.support import Conversation, Handler, Response, chunked, raw, reply, request, until, until_close

FRESH = "Cache-Control: max-age=60"
SLOW_S = 10
"""What a busy machine may take between two requests, seconds."""
MISS = "edge-1; fwd=uri-miss; fwd-status=200"


@pytest.fixture(scope="module")
def edge() -> Iterator[Edge]:
    with Edge(
        app={},
        off={"route": {"enabled": False}},
        small={"route": {"max_object_bytes": 1000}},
        authorized={"route": {"authorized": True}},
    ) as started:
        yield started


@pytest.fixture
def path(request: pytest.FixtureRequest) -> str:
    """A path of the test's own."""
    return "/app/" + re.sub(r"[^A-Za-z0-9]+", "-", request.node.name)


def date(offset_s: float) -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=offset_s), usegmt=True)


def asked(edge: Edge, path: str) -> int:
    """How often the origin was asked for a path."""
    return len(edge["app"].seen(path))


def counting(*fields: str, status: str = "200 OK") -> Handler:
    """Answers every request with another body: its number on that connection and the connection's."""

    def handle(talk: Conversation) -> None:
        number = len(talk.origin.seen(talk.request.target.partition("?")[0]))
        reply(f"answer {number}".encode(), *fields, status=status)(talk)

    return handle


def is_hit(response: Response) -> bool:
    return response["cache-status"].startswith("edge-1; hit; ttl=")


# --- hit and miss


def test_a_fresh_response_is_served_again_without_the_origin(edge: Edge, path: str) -> None:
    edge["app"].on(path, reply(b"hello", FRESH, 'ETag: "x"', "X-A: 1", "x-a: 2", "Content-Type: text/plain"))
    miss, hit = edge.get(path), edge.get(path)
    assert asked(edge, path) == 1
    assert (miss.body, hit.body) == (b"hello", b"hello")
    assert miss["cache-status"] == f"{MISS}; stored"
    age = int(hit["age"])
    assert age < SLOW_S
    assert miss.get("age") is None
    assert re.fullmatch(rf"edge-1; hit; ttl=({59 - age}|{60 - age})", hit["cache-status"])
    edge_own = {b"age", b"x-cache", b"cache-status", b"x-trace-id", b"traceresponse", b"server-timing"}
    edge_own |= {b"content-length", b"date"}
    kept = [[line for line in one.fields if line[0].lower() not in edge_own] for one in (miss, hit)]
    assert kept[0] == kept[1]
    assert miss["content-length"] == hit["content-length"] == "5"
    assert miss["date"] == hit["date"]


def test_the_log_says_who_filled_the_entry_that_a_hit_came_from(edge: Edge, path: str) -> None:
    edge["app"].on(path, reply(b"hello", FRESH))
    miss, hit = edge.record(edge.get(path)), edge.record(edge.get(path))
    assert (miss["cache"], miss["cache_age"], miss["cache_tier"], miss["filled_by"]) == ("MISS", None, None, None)
    assert (hit["cache"], hit["cache_tier"]) == ("HIT", "memory")
    assert hit["cache_age"] < SLOW_S
    assert hit["filled_by"] == f"00-{miss['trace_id']}-{miss['attempts'][0]['span_id']}-03"
    assert hit["trace_id"] != miss["trace_id"]
    assert (hit["origin"], hit["attempts"], hit["bytes_out"]) == (None, [], 5)


def test_what_says_nothing_of_its_freshness_is_asked_for_every_time(edge: Edge, path: str) -> None:
    edge["app"].on(path, counting())
    responses = [edge.get(path) for _ in range(3)]
    assert [response.text for response in responses] == ["answer 1", "answer 2", "answer 3"]
    assert responses[0]["cache-status"] == f"{MISS}; detail=no-freshness"
    assert responses[1]["cache-status"] == "edge-1; fwd=miss; fwd-status=200; detail=no-freshness"


def test_host_path_and_query_each_make_another_resource(edge: Edge, path: str) -> None:
    edge["app"].on(path, counting(FRESH))
    edge["app"].on(path.upper(), counting(FRESH))
    targets = [path, f"{path}?", f"{path}?a", f"{path}?A", f"{path}?a&b", f"{path}?b&a"]
    assert len({edge.get(target).text for target in targets}) == len(targets)
    with edge.connect() as client:
        other = client.send(request(path, host="other.test")).response()
        again = client.send(request(path, host="OTHER.Test")).response()
        port = client.send(request(path, host="other.test:81")).response()
    assert other.text == again.text
    assert is_hit(again)
    assert port.text not in {edge.get(path).text, other.text}


def test_head_is_answered_from_what_get_left(edge: Edge, path: str) -> None:
    edge["app"].on(path, reply(b"hello", FRESH))
    with edge.connect() as client:
        assert not is_hit(client.get(path, method="HEAD"))
        assert not is_hit(client.get(path, method="HEAD"))
        client.get(path)
        head = client.get(path, method="HEAD")
        assert is_hit(head)
        assert (head["content-length"], head.body) == ("5", b"")
        assert client.get(path).body == b"hello"
    assert edge.record(head)["bytes_out"] == 0
    assert [seen.method for seen in edge["app"].seen(path)] == ["HEAD", "HEAD", "GET"]


def test_a_client_of_1_0_gets_hits_as_well(edge: Edge, path: str) -> None:
    edge["app"].on(path, chunked(b"hel", b"lo", fields=[FRESH]))
    edge.get(path)
    with edge.connect() as client:
        for _ in range(2):
            hit = client.send(
                f"GET {path} HTTP/1.0\r\nHost: edge.test\r\nConnection: keep-alive\r\n\r\n".encode()
            ).response()
            assert is_hit(hit)
            assert (hit.body, hit["content-length"], hit["connection"]) == (b"hello", "5", "keep-alive")
        last = client.send(f"GET {path} HTTP/1.0\r\nHost: edge.test\r\n\r\n".encode()).response()
        assert (last.body, last["connection"]) == (b"hello", "close")
        assert client.is_ended()


@pytest.mark.parametrize("size", [0, 1, 32 * 1024, 32 * 1024 + 1, 3_000_000])
def test_bodies_of_any_size_come_back_as_they_were(edge: Edge, path: str, size: int) -> None:
    body = bytes(number * 7 % 251 for number in range(size))
    edge["app"].on(path, reply(body, FRESH))
    with edge.connect() as client:
        responses = [client.get(path) for _ in range(3)]
    assert all(response.body == body for response in responses)
    assert [is_hit(response) for response in responses] == [False, True, True]


@pytest.mark.parametrize("status", ["203 N", "204 No Content", "301 Moved", "404 Not Found", "410 Gone", "501 No"])
def test_other_final_statuses_are_stored_with_their_reason(edge: Edge, path: str, status: str) -> None:
    if status.startswith("204"):
        edge["app"].on(path, raw(f"HTTP/1.1 {status}\r\n{FRESH}\r\n\r\n".encode()))
    else:
        edge["app"].on(path, reply(b"", FRESH, "Location: /x", status=status))
    edge.get(path)
    hit = edge.get(path)
    assert is_hit(hit)
    assert hit.start.decode() == f"HTTP/1.1 {status}"
    assert edge.record(hit)["status"] == int(status[:3])


# --- freshness (RFC 9111 §4.2)


@pytest.mark.parametrize(
    ("fields", "stored"),
    [
        (["Cache-Control: s-maxage=60, max-age=0"], True),
        (["Cache-Control: s-maxage=0, max-age=60"], False),
        (["Cache-Control: max-age=0"], False),
        (["Expires: FUTURE"], True),
        (["Expires: PAST"], False),
        (["Expires: 0"], False),
        (["Expires: PAST", FRESH], True),
        ([FRESH, "Date: PAST"], False),
        ([FRESH, "Age: 60"], False),
        ([FRESH, "Age: 30"], True),
        (["Cache-Control: no-store, max-age=60"], False),
        (["Cache-Control: private, max-age=60"], False),
        (["Cache-Control: no-cache, max-age=60"], False),
        ([FRESH, "Set-Cookie: a=b"], False),
        ([FRESH, "Vary: *"], False),
        (["Cache-Control: max-age=60", "Cache-Control: no-store"], False),
    ],
    ids=lambda value: ", ".join(value) if isinstance(value, list) else "",
)
def test_what_the_origin_says_decides(edge: Edge, path: str, fields: list[str], stored: bool) -> None:
    lines = [line.replace("FUTURE", date(600)).replace("PAST", date(-600)) for line in fields]
    edge["app"].on(path, counting(*lines))
    first, second = edge.get(path), edge.get(path)
    assert (second.text == first.text) is stored
    assert is_hit(second) is stored
    assert first["cache-status"].endswith("; stored") is stored
    assert edge.record(second)["cache"] == ("HIT" if stored else "MISS")


def test_the_age_that_the_origin_states_counts(edge: Edge, path: str) -> None:
    edge["app"].on(path, reply(b"x", FRESH, "Age: 30"))
    assert edge.get(path)["age"] == "30"
    hit = edge.get(path)
    age = int(hit["age"])
    assert 30 <= age < 30 + SLOW_S
    assert re.fullmatch(rf"edge-1; hit; ttl=({59 - age}|{60 - age})", hit["cache-status"])
    assert edge.record(hit)["cache_age"] == age


def test_a_response_that_has_expired_is_asked_for_again(edge: Edge, path: str) -> None:
    edge["app"].on(path, counting("Cache-Control: max-age=1"))
    assert edge.get(path).text == "answer 1"
    expired = until(lambda: found if not is_hit(found := edge.get(path)) else None, "the response to expire")
    assert expired.text == "answer 2"
    assert expired["cache-status"] == "edge-1; fwd=stale; fwd-status=200; stored"
    assert edge.record(expired)["cache"] == "EXPIRED"
    assert edge.get(path).text in {"answer 2", "answer 3"}


# --- variants (RFC 9111 §4.1)


def test_each_variant_is_kept_for_those_who_ask_for_it(edge: Edge, path: str) -> None:
    edge["app"].on(path, counting(FRESH, "Vary: Accept-Language, accept"))
    languages = ["Accept-Language: de", "Accept-Language: fr", "X: no language at all"]
    first = [edge.get(path, language).text for language in languages]
    assert first == ["answer 1", "answer 2", "answer 3"]
    assert [edge.get(path, language).text for language in languages] == first
    assert edge.get(path, "Accept-Language: de", "Accept: text/css").text == "answer 4"
    assert edge.get(path, "Accept-Language: de", "Cookie: other=field").text == "answer 1"


def test_what_varies_by_the_clients_address_is_not_mixed_up(edge: Edge, path: str) -> None:
    """The origin sees X-Forwarded-For as the edge wrote it, not as the client sent it."""

    def handle(talk: Conversation) -> None:
        reply(talk.request["x-forwarded-for"].encode(), FRESH, "Vary: X-Forwarded-For")(talk)

    edge["app"].on(path, handle)
    for source in ("127.0.0.1", "127.0.0.2", "127.0.0.1"):
        with edge.connect(source=source) as client:
            assert client.get(path).text == source


# --- conditional requests


@pytest.mark.parametrize("condition", ['"x"', 'W/"x"', '"y", "x"', "*"])
def test_who_has_it_already_is_told_so(edge: Edge, path: str, condition: str) -> None:
    edge["app"].on(path, reply(b"hello", FRESH, 'ETag: "x"', "Content-Type: text/css", "Vary: Accept", "X-A: 1"))
    with edge.connect() as client:
        client.get(path)
        response = client.get(path, f"If-None-Match: {condition}")
        assert (response.status, response.body) == (304, b"")
        assert is_hit(response)
        assert (response["etag"], response["vary"], response["cache-control"]) == ('"x"', "Accept", "max-age=60")
        assert (response.get("content-type"), response.get("content-length")) == (None, None)
        assert client.get(path).body == b"hello"
    record = edge.record(response)
    assert (record["status"], record["cache"], record["bytes_out"]) == (304, "HIT", 0)
    assert asked(edge, path) == 1


@pytest.mark.parametrize("condition", ['"y"', "x", 'W/"y"'])
def test_who_has_something_else_gets_it_whole(edge: Edge, path: str, condition: str) -> None:
    edge["app"].on(path, reply(b"hello", FRESH, 'ETag: "x"'))
    edge.get(path)
    response = edge.get(path, f"If-None-Match: {condition}")
    assert (response.status, response.body, is_hit(response)) == (200, b"hello", True)


def test_who_has_what_is_not_stored_yet_fills_the_cache_and_is_told_so(edge: Edge, path: str) -> None:
    edge["app"].on(path, reply(b"hello", FRESH, 'ETag: "x"'))
    response = edge.get(path, 'If-None-Match: "x"')
    assert (response.status, response["etag"], response.body) == (304, '"x"', b"")
    assert response["cache-status"].startswith("edge-1; fwd=uri-miss; fwd-status=200; ")
    assert edge.record(response)["status"] == 304
    assert edge["app"].seen(path)[0].get("if-none-match") is None
    hit = edge.get(path)
    assert (is_hit(hit), hit.body) == (True, b"hello")


def test_a_condition_on_what_is_never_stored_is_the_origins_to_judge(edge: Edge, path: str) -> None:
    edge["app"].on(path, reply(b"mine", "Cache-Control: private", 'ETag: "x"'))
    edge.get(path)
    edge["app"].on(path, raw(b'HTTP/1.1 304 Not Modified\r\nETag: "x"\r\nCache-Control: private\r\n\r\n'))
    response = edge.get(path, 'If-None-Match: "x"')
    assert (response.status, response["etag"], is_hit(response)) == (304, '"x"', False)
    assert edge["app"].seen(path)[1]["if-none-match"] == '"x"'


def test_a_condition_changes_nothing_about_a_stored_404(edge: Edge, path: str) -> None:
    edge["app"].on(path, reply(b"none", FRESH, 'ETag: "x"', status="404 Not Found"))
    edge.get(path)
    for condition in ('"x"', "*"):
        response = edge.get(path, f"If-None-Match: {condition}")
        assert (response.status, response.body, is_hit(response)) == (404, b"none", True)


@pytest.mark.parametrize("field", ['If-Match: "x"', "If-Unmodified-Since: Sun, 06 Nov 1994 08:49:37 GMT"])
def test_what_only_the_origin_can_act_on_goes_there(edge: Edge, path: str, field: str) -> None:
    edge["app"].on(path, counting(FRESH))
    edge.get(path)
    response = edge.get(path, field)
    assert response.text == "answer 2"
    assert response["cache-status"] == "edge-1; fwd=bypass; fwd-status=200"
    assert edge.record(response)["cache"] == "BYPASS"
    assert edge.get(path).text == "answer 1"


# --- what the request says (RFC 9111 §5.2.1)


@pytest.mark.parametrize("field", ["Cache-Control: no-cache", "Cache-Control: max-age=0", "Pragma: no-cache"])
def test_who_asks_for_a_new_response_gets_one_and_all_others_with_them(edge: Edge, path: str, field: str) -> None:
    edge["app"].on(path, counting("Cache-Control: max-age=60", "Age: 1"))
    assert edge.get(path).text == "answer 1"
    newer = edge.get(path, field)
    assert newer.text == "answer 2"
    assert newer["cache-status"] == "edge-1; fwd=request; fwd-status=200; stored"
    assert edge.record(newer)["cache"] == "MISS"
    assert edge.get(path).text == "answer 2"


def test_who_forbids_storing_leaves_nothing_behind(edge: Edge, path: str) -> None:
    edge["app"].on(path, counting(FRESH))
    assert edge.get(path, "Cache-Control: no-store")["cache-status"] == f"{MISS}; detail=request-no-store"
    assert edge.get(path).text == "answer 2"
    assert is_hit(edge.get(path))


def test_only_if_cached(edge: Edge, path: str) -> None:
    edge["app"].on(path, counting(FRESH))
    refused = edge.get(path, "Cache-Control: only-if-cached")
    assert (refused.status, refused.problem["code"]) == (504, "not_cached")
    assert asked(edge, path) == 0
    assert edge.record(refused)["outcome"] == "refused"
    edge.get(path)
    assert is_hit(edge.get(path, "Cache-Control: only-if-cached"))


def test_a_request_with_a_body_is_not_answered_from_the_cache(edge: Edge, path: str) -> None:
    edge["app"].on(path, counting(FRESH))
    edge.get(path)
    response = edge.get(path, body=b"query")
    assert response.text == "answer 2"
    assert edge.record(response)["cache"] == "BYPASS"
    assert edge.get(path).text == "answer 1"


def test_a_response_to_an_authorized_request_is_its_own(edge: Edge, path: str) -> None:
    edge["app"].on(path, counting(FRESH))
    assert edge.get(path, "Authorization: Basic eA==")["cache-status"] == f"{MISS}; detail=authorization"
    assert edge.get(path).text == "answer 2"


@pytest.mark.parametrize("route", ["app", "authorized"])
def test_unless_both_the_origin_and_the_route_say_that_it_is_public(edge: Edge, path: str, route: str) -> None:
    path = path.replace("/app/", f"/{route}/")
    edge[route].on(path, counting("Cache-Control: public, max-age=60"))
    first = edge.get(path, "Authorization: Basic eA==").text
    assert (edge.get(path).text == first) is (route == "authorized")


# --- invalidation (RFC 9111 §4.4)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
@pytest.mark.parametrize(
    ("status", "invalidates"), [("200 OK", True), ("303 See Other", True), ("404 Not Found", False), ("500 Oh", False)]
)
def test_a_successful_unsafe_request_takes_what_is_stored_away(
    edge: Edge, path: str, method: str, status: str, invalidates: bool
) -> None:
    def handle(talk: Conversation) -> None:
        (counting(FRESH, "Vary: Accept") if talk.request.method == "GET" else reply(b"", status=status))(talk)

    edge["app"].on(path, handle)
    variants = ["Accept: text/css", "Accept: text/html"]
    before = [edge.get(path, variant).text for variant in variants]
    changed = edge.get(path, method=method, body=b"x")
    assert changed["cache-status"] == f"edge-1; fwd=method; fwd-status={status[:3]}"
    assert edge.record(changed)["cache"] == "BYPASS"
    after = [edge.get(path, variant).text for variant in variants]
    assert (before != after) is invalidates
    assert set(before).isdisjoint(after) is invalidates


# --- what is stored, whole or not at all


def test_a_response_in_chunks_is_stored_whole_with_its_length(edge: Edge, path: str) -> None:
    edge["app"].on(path, chunked(b"hel", b"lo", fields=[FRESH, "Trailer: X-Sum"], trailers=["X-Sum: 5"]))
    assert edge.get(path).trailers == [(b"X-Sum", b"5")]
    hit = edge.get(path)
    assert (hit.body, hit["content-length"], hit.get("transfer-encoding"), hit.get("trailer")) == (
        b"hello",
        "5",
        None,
        None,
    )
    assert is_hit(hit)


def test_a_response_that_ends_with_its_connection_is_stored_whole(edge: Edge, path: str) -> None:
    edge["app"].on(path, until_close(b"hel", b"lo", fields=[FRESH]))
    assert edge.get(path).body == b"hello"
    hit = edge.get(path)
    assert (is_hit(hit), hit.body, hit["content-length"]) == (True, b"hello", "5")


def test_a_response_whose_client_left_is_not_stored_in_part(edge: Edge, path: str) -> None:
    begun = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n%b\r\n\r\nhello" % FRESH.encode()

    def handle(talk: Conversation) -> None:
        if len(talk.origin.seen(path)) > 1:
            reply(b"0123456789", FRESH)(talk)
            return
        talk.send(begun)
        talk.wait_for_close()

    edge["app"].on(path, handle)
    leaving = edge.connect().send(request(path))
    head = leaving.head()
    assert leaving.stream.take(5) == b"hello"
    leaving.reset()
    record = edge.node.record(head.trace_id)
    assert (record["outcome"], record["bytes_out"]) == ("client_abort", 5)
    assert edge.get(path).body == b"0123456789"
    assert asked(edge, path) == 2


@pytest.mark.parametrize("framing", ["length", "chunked", "until_close"])
@pytest.mark.parametrize(("size", "stored"), [(1000, True), (1001, False)])
def test_what_is_larger_than_its_route_allows_passes_through(edge: Edge, framing: str, size: int, stored: bool) -> None:
    target = f"/small/{framing}-{size}"
    half, rest = b"x" * 500, b"x" * (size - 500)
    handlers = {
        "length": reply(half + rest, FRESH),
        "chunked": chunked(half, rest, fields=[FRESH]),
        "until_close": until_close(half, rest, fields=[FRESH]),
    }
    edge["small"].on(target, handlers[framing])
    responses = [edge.get(target) for _ in range(3)]
    assert [len(response.body) for response in responses] == [size] * 3
    assert [is_hit(response) for response in responses] == [False, stored, stored]
    assert len(edge["small"].seen(target)) == (1 if stored else 3)


def test_a_route_may_have_no_cache(edge: Edge) -> None:
    edge["off"].on("/off/x", counting(FRESH))
    edge.get("/off/x")
    response = edge.get("/off/x")
    assert response.text == "answer 2"
    assert response["cache-status"] == "edge-1; fwd=bypass; fwd-status=200"
    assert edge.record(response)["cache"] == "BYPASS"


def test_the_key_is_told_where_that_is_asked_for_and_there_is_one() -> None:
    with Edge(app={}, tables={"cache": {"status_key": True}}) as edge:
        edge["app"].on("/app/a", reply(b"a", FRESH))
        key = '; key="http://edge.test/app/a"'
        miss, hit, posted = edge.get("/app/a"), edge.get("/app/a"), edge.get("/app/a", method="POST", body=b"x")
    assert miss["cache-status"] == f"{MISS}; stored{key}"
    assert (is_hit(hit), hit["cache-status"].endswith(key)) == (True, True)
    assert posted["cache-status"] == "edge-1; fwd=method; fwd-status=200"


def test_the_memory_is_bounded() -> None:
    size, count, bound = 20_000, 200, 1_000_000
    with Edge(app={}, tables={"cache": {"store": "memory", "memory_bytes": bound}}) as edge, edge.connect() as client:
        for number in range(count):
            edge["app"].on(f"/app/{number}", reply(b"x" * size, FRESH))
            assert client.get(f"/app/{number}").status == 200
        kept = 0
        for number in range(count):
            response = client.get(f"/app/{number}", "Cache-Control: only-if-cached")
            kept += response.status == 200
        assert 0.8 * bound < kept * size <= bound
        assert client.get(f"/app/{count - 1}", "Cache-Control: only-if-cached").status == 200
        assert client.get("/app/0", "Cache-Control: only-if-cached").status == 504


# --- what belongs to one request (never stored, never served to another)


def test_an_origins_trace_fields_reach_nobody_else(edge: Edge, path: str) -> None:
    fields = [
        FRESH,
        "X-Request-Id: theirs",
        "X-Trace-Id: theirs",
        "traceresponse: theirs",
        "Server-Timing: db;dur=5, traceparent;desc=theirs",
        "Cache-Status: up; hit",
    ]
    edge["app"].on(path, reply(b"x", *fields))
    miss, hit = edge.get(path), edge.get(path)
    assert miss["x-request-id"] == "theirs"
    assert miss.values("server-timing")[0] == "db;dur=5"
    assert miss.values("cache-status") == ["up; hit", f"{MISS}; stored"]
    assert is_hit(hit)
    for response in (miss, hit):
        assert response["x-trace-id"] == response.trace_id != "theirs"
        assert response["traceresponse"].startswith("00-" + response.trace_id)
    assert b"theirs" not in hit.raw_head
    assert hit.get("x-request-id") is None
    assert len(hit.values("server-timing")) == 1
