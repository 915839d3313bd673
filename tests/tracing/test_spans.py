"""A record comes to spans: whose children they are, when they were, what they say; the same each time."""

import json
from typing import Any

import pytest

from edgeproxy.tracing.recorded import Recorded, decode
from edgeproxy.tracing.spans import Kind, Link, Span, spans_of

TRACE = "01a1ff10df1a917a942f076949055a86"
ROOT = "b7ad6b7169203331"
CLIENT = "00f067aa0ba902b7"
STARTED_NS = 1_749_999_999_873_456_000
"""When the first byte of `a_record` came: its `ts` less the 250 ms of its head."""
OTHER = "00-4bf92f3577b34da6a3ce929d0e0e4736-53995c3f42cd8ad8-01"


def a_record(**fields: Any) -> Recorded:
    given = {
        "ts": "2025-06-15T15:06:40.123456Z",
        "head_ms": 250.0,
        "trace_id": TRACE,
        "span_id": ROOT,
        "parent_id": None,
        "sampled": True,
        "exported": True,
        "sampling": "ratio",
        "request_id": "01979a4e-6b21-7c3f-8a51-6f0b1d2c3e4f",
        "worker": 1,
        "client": "192.0.2.7",
        "method": "GET",
        "scheme": "http",
        "host": "www.example.com:8080",
        "path": "/static/a.css",
        "query": "v=2",
        "protocol": "HTTP/1.1",
        "route": "/static/*",
        "status": 200,
        "bytes_in": 0,
        "bytes_out": 785,
        "user_agent": "curl/8",
        "duration_ms": 400.5,
        "outcome": "ok",
        "stage": "done",
    }
    return decode(json.dumps(given | fields).encode())


def an_attempt(**fields: Any) -> dict[str, Any]:
    given = {
        "address": "origin.test:8443",
        "scheme": "https",
        "span_id": "1111111111111111",
        "at_ms": 260.0,
        "ms": 100.0,
        "dns_ms": 1.0,
        "connect_ms": 2.0,
        "tls_ms": 3.0,
        "send_ms": 4.0,
        "first_byte_ms": 50.0,
        "transfer_ms": 30.0,
        "reused": False,
        "status": 200,
        "error": None,
    }
    return given | fields


def an_operation(**fields: Any) -> dict[str, Any]:
    given = {
        "op": "MGET",
        "span_id": "2222222222222222",
        "node": "10.0.0.5:6379",
        "slot": 7,
        "at_ms": 251.0,
        "us": 800,
        "outcome": "miss",
        "error": "",
    }
    return given | fields


def root_of(**fields: Any) -> Span:
    return spans_of(a_record(**fields))[0]


def after_ms(ms: float) -> int:
    """A moment, milliseconds after the request's first byte."""
    return STARTED_NS + round(ms * 1_000_000)


# --- the request


def test_the_root_is_a_server_span_from_the_first_byte_to_the_last() -> None:
    root = root_of(parent_id=CLIENT)
    assert (root.name, root.kind) == ("GET /static/*", Kind.SERVER)
    assert (root.trace_id, root.span_id, root.parent_id, root.flags) == (TRACE, ROOT, CLIENT, 1)
    assert (root.start_ns, root.end_ns) == (STARTED_NS, after_ms(400.5))
    assert root.error is None
    assert list(root.events) == list(root.links) == []


def test_the_root_says_what_was_asked_and_answered_in_the_conventions_words() -> None:
    root = root_of(cache="HIT", cache_tier="memory", cache_age=12, cache_ttl=48, filled_by=OTHER, cache_key="k")
    assert root.attributes == {
        "http.request.method": "GET",
        "url.scheme": "http",
        "url.path": "/static/a.css",
        "url.query": "v=2",
        "http.route": "/static/*",
        "http.response.status_code": 200,
        "client.address": "192.0.2.7",
        "network.peer.address": "192.0.2.7",
        "user_agent.original": "curl/8",
        "http.response.body.size": 785,
        "server.address": "www.example.com",
        "server.port": 8080,
        "network.protocol.name": "http",
        "network.protocol.version": "1.1",
        "edgeproxy.outcome": "ok",
        "edgeproxy.stage": "done",
        "edgeproxy.request_id": "01979a4e-6b21-7c3f-8a51-6f0b1d2c3e4f",
        "edgeproxy.worker": 1,
        "edgeproxy.sampling.reason": "ratio",
        "edgeproxy.cache.status": "HIT",
        "edgeproxy.cache.tier": "memory",
        "edgeproxy.cache.age": 12,
        "edgeproxy.cache.ttl": 48,
        "edgeproxy.cache.key": "k",
        "edgeproxy.cache.filled_by": OTHER,
    }


@pytest.mark.parametrize(
    ("host", "address", "port"),
    [("a.test", "a.test", 80), ("a.test:81", "a.test", 81), ("[::1]", "::1", 80), ("[::1]:82", "::1", 82)],
)
def test_the_host_that_was_asked_for_is_the_servers_address_and_port(host: str, address: str, port: int) -> None:
    attributes = root_of(host=host).attributes
    assert (attributes["server.address"], attributes["server.port"]) == (address, port)


def test_a_method_that_is_not_known_names_no_span_and_is_kept_as_it_came() -> None:
    root = root_of(method="BREW")
    assert root.name == "HTTP /static/*"
    assert root.attributes["http.request.method"] == "_OTHER"
    assert root.attributes["http.request.method_original"] == "BREW"
    _, attempt = spans_of(a_record(method="BREW", attempts=[an_attempt()]))
    assert (attempt.name, attempt.attributes["http.request.method_original"]) == ("HTTP", "BREW")


def test_what_signs_an_url_is_left_out() -> None:
    query = "Signature=a&X-Amz-Signature=b&v=2&sig=c&design=d&X-Goog-Signature=e"
    safe = "Signature=REDACTED&X-Amz-Signature=REDACTED&v=2&sig=REDACTED&design=d&X-Goog-Signature=REDACTED"
    record = a_record(query=query, cache_key=f"http://h/?{query}", attempts=[an_attempt()], lookup_ms=0.0)
    root, lookup, attempt = spans_of(record)
    assert (root.attributes["url.query"], root.attributes["edgeproxy.cache.key"]) == (safe, f"http://h/?{safe}")
    assert lookup.attributes["edgeproxy.cache.key"] == f"http://h/?{safe}"
    assert attempt.attributes["url.full"] == f"https://origin.test:8443/static/a.css?{safe}"


def test_without_a_route_the_span_is_named_by_its_method_alone() -> None:
    assert root_of(route=None, status=404, outcome="refused").name == "GET"


def test_a_request_that_could_not_be_read_has_a_span_with_what_is_known() -> None:
    nothing = dict.fromkeys(("method", "scheme", "host", "path", "query", "route"))
    error = {"type": "malformed", "message": "the head is no HTTP", "causes": []}
    root = root_of(**nothing, status=400, outcome="refused", error=error)
    assert root.name == "HTTP"
    assert not {"http.request.method", "url.path", "server.address", "http.route"} & root.attributes.keys()


@pytest.mark.parametrize(
    ("fields", "kind", "error"),
    [
        ({"status": 404}, None, None),
        ({"status": 503}, "503", ""),
        ({"status": 413, "outcome": "refused", "error": {"type": "too_large", "message": "long"}}, None, None),
        ({"status": 200, "outcome": "client_abort", "error": {"type": "client_gone", "message": "left"}}, None, None),
        ({"status": 502, "outcome": "origin_error", "error": {"type": "connect", "message": "no"}}, "connect", "no"),
        ({"status": 504, "outcome": "timeout", "error": {"type": "slow", "message": "60 s"}}, "slow", "60 s"),
        (
            {"status": None, "outcome": "lost", "error": {"type": "worker_died", "message": "gone"}},
            "worker_died",
            "gone",
        ),
    ],
    ids=["404", "503 of the origin", "refused", "client left", "origin failed", "timeout", "lost"],
)
def test_the_status_is_an_error_where_the_servers_side_failed(
    fields: dict[str, Any], kind: str | None, error: str | None
) -> None:
    root = root_of(**fields)
    assert (root.attributes.get("error.type"), root.error) == (kind, error)


def test_the_chain_of_causes_becomes_exception_events_outermost_first() -> None:
    causes = [{"type": "OSError", "message": "refused"}, {"type": "Deep", "message": "why"}]
    root = root_of(status=502, outcome="origin_error", error={"type": "connect", "message": "no", "causes": causes})
    assert [(event.name, event.attributes) for event in root.events] == [
        ("exception", {"exception.type": "connect", "exception.message": "no"}),
        ("exception", {"exception.type": "OSError", "exception.message": "refused"}),
        ("exception", {"exception.type": "Deep", "exception.message": "why"}),
    ]
    assert {event.time_ns for event in root.events} == {root.end_ns}


def test_request_headers_that_are_logged_are_attributes() -> None:
    attributes = root_of(headers={"x-tenant": "acme"}).attributes
    assert attributes["http.request.header.x-tenant"] == ("acme",)


# --- links


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"cache": "HIT", "filled_by": OTHER}, "filled_by"),
        ({"cache": "COLLAPSED", "filled_by": OTHER}, "collapsed_onto"),
        ({"caused_by": OTHER, "client": None}, "caused_by"),
    ],
)
def test_other_traces_are_linked_with_the_reason(fields: dict[str, Any], why: str) -> None:
    trace_id, span_id = OTHER.split("-")[1:3]
    assert root_of(**fields).links == [Link(trace_id, span_id, 1, {"edgeproxy.link": why})]


def test_the_trace_that_a_stranger_brought_is_linked() -> None:
    trace_id, span_id = OTHER.split("-")[1:3]
    links = root_of(restarted_from=f"{trace_id}-{span_id}").links
    assert links == [Link(trace_id, span_id, 0, {"edgeproxy.link": "restarted_from"})]


def test_what_a_request_filled_itself_is_no_link() -> None:
    assert not root_of(cache="MISS", filled_by=f"00-{TRACE}-1111111111111111-01", attempts=[an_attempt()]).links


def test_what_another_request_of_the_same_trace_filled_is_a_link() -> None:
    links = root_of(cache="COLLAPSED", filled_by=f"00-{TRACE}-1111111111111111-01").links
    assert links == [Link(TRACE, "1111111111111111", 1, {"edgeproxy.link": "collapsed_onto"})]


def test_what_the_edge_fetches_on_its_own_account_serves_nobody() -> None:
    root = root_of(caused_by=OTHER, client=None)
    assert (root.kind, root.name) == (Kind.INTERNAL, "revalidate GET /static/*")


# --- below it


def test_a_look_up_is_a_child_from_the_end_of_the_head_on() -> None:
    root, lookup = spans_of(a_record(lookup_ms=1.5, cache="HIT", cache_tier="embedded"))
    assert (lookup.name, lookup.kind, lookup.parent_id) == ("cache lookup", Kind.INTERNAL, root.span_id)
    assert (lookup.start_ns, lookup.end_ns) == (after_ms(250), after_ms(251.5))
    assert lookup.attributes == {"edgeproxy.cache.status": "HIT", "edgeproxy.cache.tier": "embedded"}


def test_an_attempt_is_a_client_span_with_the_id_that_the_origin_saw() -> None:
    root, attempt = spans_of(a_record(attempts=[an_attempt()], origin="app"))
    assert (attempt.name, attempt.kind, attempt.span_id, attempt.parent_id) == (
        "GET",
        Kind.CLIENT,
        "1111111111111111",
        root.span_id,
    )
    assert (attempt.start_ns, attempt.end_ns) == (after_ms(260), after_ms(360))
    assert attempt.attributes == {
        "http.request.method": "GET",
        "server.address": "origin.test",
        "server.port": 8443,
        "url.full": "https://origin.test:8443/static/a.css?v=2",
        "http.response.status_code": 200,
        "network.protocol.name": "http",
        "network.protocol.version": "1.1",
        "edgeproxy.origin": "app",
        "edgeproxy.origin.reused": False,
    }
    assert attempt.error is None


def test_an_attempts_phases_are_events_at_their_ends_after_what_it_waited_for_a_connection() -> None:
    (_, attempt) = spans_of(a_record(attempts=[an_attempt()]))
    assert [(event.name, event.time_ns) for event in attempt.events] == [
        ("dns", after_ms(271)),
        ("connected", after_ms(273)),
        ("tls", after_ms(276)),
        ("request sent", after_ms(280)),
        ("first byte", after_ms(330)),
    ]


def test_each_further_attempt_is_a_span_of_its_own_that_says_so() -> None:
    error = {"type": "origin_closed", "message": "closed", "causes": [{"type": "OSError", "message": "reset"}]}
    failed = an_attempt(status=None, error=error, first_byte_ms=None, transfer_ms=None)
    again = an_attempt(span_id="3333333333333333", at_ms=365.0)
    _, first, second = spans_of(a_record(attempts=[failed, again]))
    assert (first.error, first.attributes["error.type"]) == ("closed", "origin_closed")
    assert [event.attributes.get("exception.type") for event in first.events][-2:] == ["origin_closed", "OSError"]
    assert "http.request.resend_count" not in first.attributes
    assert (second.span_id, second.attributes["http.request.resend_count"]) == ("3333333333333333", 1)


@pytest.mark.parametrize(("status", "is_error"), [(200, False), (304, False), (404, True), (500, True)])
def test_to_a_client_4xx_and_5xx_are_errors(status: int, is_error: bool) -> None:
    _, attempt = spans_of(a_record(attempts=[an_attempt(status=status)]))
    assert (attempt.error is not None) is is_error
    assert attempt.attributes.get("error.type") == (str(status) if is_error else None)


def test_an_operation_of_redis_is_a_client_span_of_a_database_below_the_look_up() -> None:
    _, lookup, operation = spans_of(a_record(lookup_ms=1.0, store=[an_operation()]))
    assert (operation.name, operation.kind, operation.parent_id) == ("MGET", Kind.CLIENT, lookup.span_id)
    assert operation.span_id == "2222222222222222"
    assert (operation.start_ns, operation.end_ns) == (after_ms(251), after_ms(251.8))
    assert operation.attributes == {
        "db.system.name": "redis",
        "db.operation.name": "MGET",
        "server.address": "10.0.0.5",
        "server.port": 6379,
        "network.peer.address": "10.0.0.5",
        "network.peer.port": 6379,
        "edgeproxy.redis.slot": 7,
        "edgeproxy.redis.outcome": "miss",
    }


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [("OOM command not allowed", "OOM", "OOM"), ("no reply in time", "redis", None)],
)
def test_a_failed_operation_says_how_redis_put_it(error: str, kind: str, code: str | None) -> None:
    _, _, operation = spans_of(a_record(lookup_ms=1.0, store=[an_operation(outcome="error", error=error)]))
    assert (operation.error, operation.attributes["error.type"]) == (error, kind)
    assert operation.attributes.get("db.response.status_code") == code


def test_storing_is_a_child_that_lasts_until_the_last_write_was_answered() -> None:
    writes = [an_operation(op="SET", at_ms=400.2, us=2000, outcome="ok")]
    root, stored, written = spans_of(a_record(stored_at_ms=400.0, cache_ttl=60, store=writes))
    assert (stored.name, stored.kind, stored.parent_id) == ("cache store", Kind.INTERNAL, root.span_id)
    assert (stored.start_ns, stored.end_ns) == (after_ms(400), after_ms(402.2))
    assert written.parent_id == stored.span_id


# --- what holds of all


def test_the_same_record_comes_to_the_same_spans_with_ids_of_their_own() -> None:
    record = a_record(lookup_ms=1.0, stored_at_ms=2.0, attempts=[an_attempt()], store=[an_operation()])
    spans = spans_of(record)
    assert spans == spans_of(record)
    ids = [span.span_id for span in spans]
    assert len(set(ids)) == len(ids) == 5
    assert all(len(one) == 16 and int(one, 16) for one in ids)


def test_a_record_of_an_earlier_version_is_read() -> None:
    line = b'{"ts":"2025-06-15T15:06:40.123456Z","trace_id":"%b","span_id":"%b","status":200}\n'
    (root,) = spans_of(decode(line % (TRACE.encode(), ROOT.encode())))
    assert root.start_ns == root.end_ns == 1_750_000_000_123_456_000


def test_an_unsampled_trace_that_is_exported_after_the_fact_says_so_in_its_flags() -> None:
    assert root_of(sampled=False, sampling="error").flags == 0
