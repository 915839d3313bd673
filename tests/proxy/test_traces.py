"""Trace context on the wire: what comes in, what reaches the origin, what the client gets, what the log says."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.proxy.edges import Edge
from tests.support import Received, Record, Response, reply, request, until

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01"
UUID7 = r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
FRESH = "Cache-Control: max-age=60"


@pytest.fixture(scope="module")
def edge() -> Iterator[Edge]:
    with Edge(app={}, dead={"urls": ["http://127.0.0.1:1"]}) as started:
        yield started


@pytest.fixture(scope="module")
def off() -> Iterator[Edge]:
    with Edge(app={}, tables={"environ": {"EDGEPROXY_TRACING": "off"}}) as started:
        yield started


@pytest.fixture(scope="module")
def wary() -> Iterator[Edge]:
    with Edge(app={}, tables={"tracing": {"trust": ["127.0.0.2/32", "2001:db8::/32"]}}) as started:
        yield started


@pytest.fixture(scope="module")
def alone() -> Iterator[Edge]:
    with Edge(app={}, tables={"tracing": {"trust": "none"}}) as started:
        yield started


@pytest.fixture(scope="module")
def quiet() -> Iterator[Edge]:
    switches = ["x_trace_id", "traceresponse", "server_timing", "cache_status", "send_x_trace_id", "send_x_request_id"]
    with Edge(app={}, tables={"tracing": {"sampler": "always_off", **dict.fromkeys(switches, False)}}) as started:
        yield started


def through(edge: Edge, *fields: str, source: str = "", path: str = "/app/x") -> tuple[Response, Received, Record]:
    """One request's response, the request as the origin saw it, and its line."""
    before = len(edge["app"].requests)
    with edge.connect(source=source) as client:
        response = client.get(path, *fields)
    assert response.status == 200
    (seen,) = edge["app"].requests[before:]
    return response, seen, line_of(edge, request_id=seen["x-request-id"])


def line_of(edge: Edge, **values: str) -> Record:
    """The one line with these values: those of a trace that came in are not enough to find it."""

    def found() -> list[Record]:
        return [line for line in edge.node.lines() if all(line[key] == value for key, value in values.items())]

    (record,) = until(found, f"the line with {values}")
    return record


def traceparent(seen: Received) -> list[str]:
    """The parts of the one traceparent."""
    return seen["traceparent"].split("-")


# --- a trace begins


def test_a_trace_begins_here_when_none_came_in(edge: Edge) -> None:
    response, seen, record = through(edge)
    assert traceparent(seen) == ["00", record["trace_id"], record["attempts"][0]["span_id"], "03"]
    assert response["x-trace-id"] == seen["x-trace-id"] == record["trace_id"]
    assert response["traceresponse"] == f"00-{record['trace_id']}-{record['span_id']}-03"
    assert (record["parent_id"], record["sampled"]) == (None, True)
    assert record["span_id"] != record["attempts"][0]["span_id"]
    assert seen.get("tracestate") is None


def test_the_request_id_is_a_uuid7_and_the_origin_has_the_same(edge: Edge) -> None:
    _, seen, record = through(edge)
    assert re.fullmatch(UUID7, record["request_id"])
    assert seen["x-request-id"] == record["request_id"]


def test_the_clients_word_for_the_ids_does_not_count(edge: Edge) -> None:
    _, seen, record = through(edge, "X-Request-Id: mine", "X-Trace-Id: mine", "x-request-id: mine")
    assert (seen["x-request-id"], seen["x-trace-id"]) == (record["request_id"], record["trace_id"])


# --- a trace goes on


@pytest.mark.parametrize(
    ("flags", "sent", "sampled"),
    [("01", "01", True), ("00", "00", False), ("03", "03", True), ("02", "02", False), ("ff", "03", True)],
)
def test_a_trace_that_came_in_goes_on(edge: Edge, flags: str, sent: str, sampled: bool) -> None:
    response, seen, record = through(edge, f"traceparent: 00-{TRACE}-{SPAN}-{flags}")
    assert traceparent(seen) == ["00", TRACE, record["attempts"][0]["span_id"], sent]
    assert (record["trace_id"], record["parent_id"], record["sampled"]) == (TRACE, SPAN, sampled)
    assert response["x-trace-id"] == TRACE
    assert response["traceresponse"] == f"00-{TRACE}-{record['span_id']}-{sent}"
    assert len({SPAN, record["span_id"], record["attempts"][0]["span_id"]}) == 3


@pytest.mark.parametrize(
    "field",
    [
        pytest.param(f"TRACEPARENT:  \t{PARENT} ", id="case-and-spaces"),
        pytest.param(f"traceparent: cc-{TRACE}-{SPAN}-01-what-the-future-brings", id="later-version"),
        pytest.param(f"traceparent: 01-{TRACE}-{SPAN}-01", id="next-version"),
    ],
)
def test_it_does_in_every_valid_form(edge: Edge, field: str) -> None:
    _, seen, record = through(edge, field)
    assert traceparent(seen)[:2] == ["00", TRACE]
    assert record["parent_id"] == SPAN


def test_tracestate_goes_on_in_one_line(edge: Edge) -> None:
    _, seen, _ = through(edge, f"traceparent: {PARENT}", "tracestate: a=1 , b=2", "Tracestate: c=3")
    assert seen["tracestate"] == "a=1,b=2,c=3"


def test_a_tracestate_that_is_none_is_dropped(edge: Edge) -> None:
    for state in ("a", "a=1,b=" + "x" * 300, ",".join(f"k{number}=v" for number in range(33))):
        _, seen, record = through(edge, f"traceparent: {PARENT}", f"tracestate: {state}")
        assert seen.get("tracestate") is None
        assert record["trace_id"] == TRACE


def test_baggage_is_passed_on_as_it_is(edge: Edge) -> None:
    _, seen, _ = through(edge, "baggage: a=1;p=2 ,b=%20", "Baggage: c")
    assert [line for line in seen.fields if line[0].lower() == b"baggage"] == [
        (b"baggage", b"a=1;p=2 ,b=%20"),
        (b"Baggage", b"c"),
    ]


# --- a trace begins anew


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param([f"traceparent: ff-{TRACE}-{SPAN}-01"], id="version-ff"),
        pytest.param([f"traceparent: 00-{TRACE.upper()}-{SPAN}-01"], id="upper-case"),
        pytest.param([f"traceparent: 00-{'0' * 32}-{SPAN}-01"], id="trace-id-of-zeros"),
        pytest.param([f"traceparent: 00-{TRACE}-{'0' * 16}-01"], id="span-id-of-zeros"),
        pytest.param([f"traceparent: 00-{TRACE[1:]}-{SPAN}-01"], id="too-short"),
        pytest.param([f"traceparent: {PARENT}-more"], id="00-with-more"),
        pytest.param(["traceparent: "], id="empty"),
        pytest.param([f"traceparent: {PARENT}, {PARENT}"], id="a-list"),
        pytest.param([f"traceparent: {PARENT}", f"Traceparent: {PARENT}"], id="twice-the-same"),
        pytest.param([f"traceparent: {PARENT}", f"traceparent: 00-{TRACE[::-1]}-{SPAN}-00"], id="two"),
    ],
)
def test_an_invalid_context_begins_a_new_trace_and_its_state_ends(edge: Edge, fields: list[str]) -> None:
    response, seen, record = through(edge, *fields, "tracestate: a=1", "baggage: b=2")
    assert traceparent(seen) == ["00", record["trace_id"], record["attempts"][0]["span_id"], "03"]
    assert record["trace_id"] not in {TRACE, TRACE[::-1]}
    assert (record["parent_id"], response["x-trace-id"]) == (None, record["trace_id"])
    assert seen.get("tracestate") is None
    assert seen["baggage"] == "b=2"


def test_an_untrusted_peers_trace_begins_anew(alone: Edge) -> None:
    _, seen, record = through(alone, f"traceparent: {PARENT}", "tracestate: a=1", "baggage: b=2")
    assert traceparent(seen) == ["00", record["trace_id"], record["attempts"][0]["span_id"], "03"]
    assert record["trace_id"] != TRACE
    assert record["parent_id"] is None
    assert seen.get("tracestate") is None
    assert seen.get("baggage") is None


@pytest.mark.parametrize(("source", "continued"), [("127.0.0.1", False), ("127.0.0.2", True), ("127.0.0.3", False)])
def test_a_network_may_be_trusted(wary: Edge, source: str, continued: bool) -> None:
    _, seen, record = through(wary, f"traceparent: {PARENT}", "tracestate: a=1", source=source)
    assert record["client"] == source
    assert (record["trace_id"] == TRACE) is continued
    assert (traceparent(seen)[1] == TRACE) is continued
    assert seen.get("tracestate") == ("a=1" if continued else None)


# --- exactly one, always


@pytest.mark.parametrize(
    "fields",
    [
        [],
        [f"traceparent: {PARENT}"],
        [f"traceparent: {PARENT}", f"TraceParent: {PARENT}", "traceparent: x"],
        ["Connection: traceparent", f"traceparent: {PARENT}"],
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_exactly_one_traceparent_leaves(edge: Edge, off: Edge, fields: list[str], method: str) -> None:
    for node in (edge, off):
        before = len(node["app"].requests)
        assert node.get("/app/x", *fields, method=method).status == 200
        (seen,) = node["app"].requests[before:]
        assert len(seen.values("traceparent")) == 1


def test_no_two_requests_share_an_id(edge: Edge) -> None:
    def client(number: int) -> list[Response]:
        with edge.connect() as connection:
            return [connection.get(f"/app/ids?{number}") for _ in range(50)]

    with ThreadPoolExecutor(8) as threads:
        responses = [response for found in threads.map(client, range(8)) for response in found]

    def all_lines() -> list[Record]:
        found = [line for line in edge.node.lines() if line["path"] == "/app/ids"]
        return found if len(found) >= len(responses) else []

    records = until(all_lines, "a line for each request")
    assert len(records) == len(responses) == 400
    assert {record["trace_id"] for record in records} == {response.trace_id for response in responses}
    assert len({record["trace_id"] for record in records}) == 400
    assert len({record["request_id"] for record in records}) == 400
    spans = [record["span_id"] for record in records] + [record["attempts"][0]["span_id"] for record in records]
    assert len(set(spans)) == 800
    assert len({record["seq"] for record in records}) == 400


# --- who did not get there


@pytest.mark.parametrize(
    ("message", "status"),
    [
        (request("/nowhere", f"traceparent: {PARENT}"), 404),
        (request("/dead/x", f"traceparent: {PARENT}"), 502),
        (request("/app/x", f"traceparent: {PARENT}", "Expect: wonders"), 417),
    ],
)
def test_a_request_that_fails_is_part_of_its_trace_all_the_same(edge: Edge, message: bytes, status: int) -> None:
    with edge.connect() as client:
        response = client.send(message).response()
    assert response.status == status
    assert response.problem["trace_id"] == response["x-trace-id"] == TRACE
    assert response["traceresponse"].startswith(f"00-{TRACE}-")
    record = line_of(edge, request_id=response.problem["request_id"])
    assert (record["trace_id"], record["parent_id"], record["status"]) == (TRACE, SPAN, status)
    assert record["span_id"] == response["traceresponse"].split("-")[2]


def test_what_can_not_even_be_read_has_a_trace_id_in_the_log(edge: Edge) -> None:
    with edge.connect() as client:
        response = client.send(b"\x16\x03\x01 hello\r\n\r\n").response()
    record = edge.record(response)
    assert response.problem["trace_id"] == record["trace_id"]
    assert re.fullmatch("[0-9a-f]{32}", record["trace_id"])
    assert re.fullmatch("[0-9a-f]{16}", record["span_id"])


def test_a_hit_is_part_of_the_trace_of_who_asked(edge: Edge) -> None:
    edge["app"].on("/app/hit", reply(b"x", FRESH))
    filled = edge.get("/app/hit")
    hit = edge.get("/app/hit", f"traceparent: {PARENT}")
    assert hit["x-trace-id"] == TRACE
    record = line_of(edge, path="/app/hit", trace_id=TRACE)
    assert (record["cache"], record["parent_id"]) == ("HIT", SPAN)
    assert record["filled_by"].split("-")[1] == filled.trace_id


# --- what can be turned off


def test_every_field_can_be_turned_off_but_the_context_itself(quiet: Edge) -> None:
    quiet["app"].on("/app/x", reply(b"x", "traceresponse: theirs", "X-Trace-Id: theirs", FRESH))
    for expected in ("MISS", "HIT"):
        response = quiet.get("/app/x", "X-Request-Id: mine", "X-Trace-Id: mine")
        for name in ("x-trace-id", "traceresponse", "server-timing", "cache-status"):
            assert response.get(name) is None, (expected, name)
    (seen,) = quiet["app"].seen("/app/x")
    assert (seen.get("x-trace-id"), seen.get("x-request-id")) == (None, None)
    lines = until(lambda: found if len(found := quiet.node.lines()) >= 2 else [], "both lines")
    miss, hit = lines
    assert traceparent(seen) == ["00", miss["trace_id"], miss["attempts"][0]["span_id"], "02"]
    assert [line["cache"] for line in lines] == ["MISS", "HIT"]
    assert [line["sampled"] for line in lines] == [False, False]
    assert len({line["trace_id"] for line in lines}) == 2
    assert re.fullmatch(UUID7, hit["request_id"])


# --- exported after all

UNSAMPLED = {"sampler": "always_off"}


def verdict(record: Record) -> tuple[bool, str, bool]:
    """The decision at the head, the reason, and what it came to in the end."""
    return record["sampled"], record["sampling"], record["exported"]


def test_what_failed_is_exported_though_it_was_not_sampled() -> None:
    dead = {"urls": ["http://127.0.0.1:1"]}
    with Edge(app={}, dead=dead, tables={"tracing": UNSAMPLED}) as edge:
        edge["app"].on("/app/gone", reply(b"no", status="404 Not Found"))
        edge["app"].on("/app/bad", reply(b"no", status="500 Internal Server Error"))
        seen = {path: verdict(edge.record(edge.get(path))) for path in ("/app/x", "/app/gone", "/app/bad", "/dead/x")}
        assert seen == {
            "/app/x": (False, "always_off", False),
            "/app/gone": (False, "always_off", False),
            "/app/bad": (False, "error", True),
            "/dead/x": (False, "error", True),
        }
        assert {traceparent(request)[3] for request in edge["app"].requests} == {"02"}, "nobody knew it before"


@pytest.mark.parametrize(("enabled", "expected"), [(True, (False, "slow", True)), (False, (False, "off", False))])
def test_what_was_slow_is_exported_where_requests_are_traced(enabled: bool, expected: tuple[bool, str, bool]) -> None:
    tracing = {**UNSAMPLED, "enabled": enabled, "sampling": {"slow_ms": 0.0001}}
    with Edge(app={}, tables={"tracing": tracing}) as edge:
        edge["app"].on("/app/x", reply(b"x", FRESH))
        records = [edge.record(edge.get("/app/x")) for _ in range(2)]
    assert [record["cache"] for record in records] == ["MISS", "HIT"]
    assert list(map(verdict, records)) == [expected, expected]


# --- tracing off


@pytest.mark.parametrize(
    "value",
    [PARENT, f"00-{TRACE}-{SPAN}-00", f"00-{TRACE}-{SPAN}-fe", f"cc-{TRACE}-{SPAN}-01-what the future, brings"],
)
def test_off_means_that_a_context_goes_through_byte_for_byte(off: Edge, value: str) -> None:
    state = ["tracestate: a=1 ,  B=broken", "tracestate: a=2"]
    response, seen, record = through(off, f"traceparent: {value}", *state, "baggage: x=y")
    assert seen["traceparent"] == value
    assert [part.strip() for part in ",".join(seen.values("tracestate")).split(",")] == ["a=1", "B=broken", "a=2"]
    assert seen["baggage"] == "x=y"
    assert (record["trace_id"], record["parent_id"], record["sampled"]) == (TRACE, SPAN, False)
    assert response["x-trace-id"] == seen["x-trace-id"] == TRACE


def test_off_still_means_ids_that_join_the_logs(off: Edge) -> None:
    response, seen, record = through(off)
    assert traceparent(seen) == ["00", record["trace_id"], record["attempts"][0]["span_id"], "00"]
    assert response["x-trace-id"] == seen["x-trace-id"] == record["trace_id"]
    assert seen["x-request-id"] == record["request_id"]
    assert record["sampled"] is False
