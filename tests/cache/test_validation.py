"""Stored responses that must be asked about before they are used again, and requests that say what they would take
(RFC 9111 §4.3, §5.2; RFC 9110 §13; RFC 9213): a real node, and an origin that answers by a script.
"""

import threading
import time
from collections.abc import Iterator

import pytest

from tests.cache.scripted import (
    FRESH,
    SLOW_S,
    STALE,
    conditions,
    counting,
    date,
    is_hit,
    path_for,
    steps,
    ttl,
    unchanged,
)
from tests.proxy.edges import Edge
from tests.support import Response, chunked, gated, reply, request, until

TAG = 'ETag: "one"'
LONG_AGO = "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT"
SINCE = LONG_AGO.partition(": ")[2]


@pytest.fixture(scope="module")
def edge() -> Iterator[Edge]:
    with Edge(app={}, deaf={"route": {"client_no_cache": False}}) as started:
        yield started


@pytest.fixture
def path(request: pytest.FixtureRequest) -> str:
    return path_for(request.node.name)


def filled(edge: Edge, path: str, *fields: str) -> Response:
    """The response that fills the cache."""
    response = edge.get(path, *fields)
    assert response["cache-status"].endswith("; stored"), response["cache-status"]
    return response


# --- asking (RFC 9111 §4.3.1)


@pytest.mark.parametrize(
    ("fields", "asked_by"),
    [
        ([TAG, LONG_AGO], ('"one"', SINCE)),
        ([TAG], ('"one"', None)),
        (['ETag: W/"one"'], ('W/"one"', None)),
        ([LONG_AGO], (None, SINCE)),
        ([TAG, "Last-Modified: some day"], ('"one"', None)),
    ],
    ids=["both", "etag", "weak-etag", "last-modified", "invalid-date"],
)
def test_the_origin_is_asked_by_all_validators_there_are(
    edge: Edge, path: str, fields: list[str], asked_by: tuple[str | None, str | None]
) -> None:
    edge["app"].on(path, steps(reply(b"hello", STALE, "Content-Type: text/css", *fields), unchanged()))
    filled(edge, path)
    response = edge.get(path)
    assert (response.status, response.body, response["content-type"]) == (200, b"hello", "text/css")
    assert response["content-length"] == "5"
    assert response["cache-status"].startswith("edge-1; fwd=stale; fwd-status=304; ttl=")
    assert conditions(edge["app"].seen(path)[0]) == (None, None)
    assert conditions(edge["app"].seen(path)[1]) == asked_by
    record = edge.record(response)
    assert (record["cache"], record["status"], record["bytes_out"]) == ("REVALIDATED", 200, 5)


def test_a_clients_conditions_and_ranges_do_not_reach_the_origin_with_the_edges_own(edge: Edge, path: str) -> None:
    edge["app"].on(path, steps(reply(b"hello", STALE, TAG), unchanged(TAG)))
    filled(edge, path)
    mine = ['If-None-Match: "mine"', f"If-Modified-Since: {SINCE}", "Range: bytes=0-1", 'If-Range: "mine"']
    response = edge.get(path, *mine)
    assert (response.status, response.body) == (200, b"hello")
    seen = edge["app"].seen(path)[1]
    assert conditions(seen) == ('"one"', None)
    assert (seen.get("range"), seen.get("if-range")) == (None, None)


def test_who_has_what_has_just_been_validated_is_told_so(edge: Edge, path: str) -> None:
    edge["app"].on(path, steps(reply(b"hello", STALE, TAG), unchanged(TAG, "X-New: yes")))
    filled(edge, path)
    response = edge.get(path, 'If-None-Match: W/"one"')
    assert (response.status, response.body, response["etag"], response["x-new"]) == (304, b"", '"one"', "yes")
    assert edge.record(response)["cache"] == "REVALIDATED"


def test_a_part_of_what_has_just_been_validated(edge: Edge, path: str) -> None:
    edge["app"].on(path, steps(reply(b"hello", STALE, TAG), unchanged(TAG)))
    filled(edge, path)
    response = edge.get(path, "Range: bytes=1-3")
    assert (response.status, response.body, response["content-range"]) == (206, b"ell", "bytes 1-3/5")


def test_what_has_no_validator_is_asked_for_without_conditions(edge: Edge, path: str) -> None:
    edge["app"].on(path, counting("Cache-Control: max-age=60", "Age: 1"))
    filled(edge, path)
    assert edge.get(path, "Cache-Control: no-cache").text == "answer 2"
    assert conditions(edge["app"].seen(path)[1]) == (None, None)


# --- what a 304 changes (RFC 9111 §3.2, §4.3.4)


def test_a_304_makes_a_stored_response_fresh_again(edge: Edge, path: str) -> None:
    edge["app"].on(path, steps(reply(b"hello", STALE, TAG), unchanged(FRESH, TAG)))
    filled(edge, path)
    first = edge.get(path)
    assert 60 - SLOW_S < ttl(first) <= 60
    assert (first["cache-control"], first["age"]) == ("max-age=60", "0")
    hit = edge.get(path)
    assert (is_hit(hit), hit.body) == (True, b"hello")
    assert len(edge["app"].seen(path)) == 2
    assert edge.record(hit)["filled_by"].startswith(f"00-{first.trace_id}-")


def test_a_304_replaces_the_fields_that_it_has_and_no_others(edge: Edge, path: str) -> None:
    kept = ["X-Kept: 1", "Content-Type: text/css", "X-Twice: 1", "X-Twice: 2"]
    edge["app"].on(
        path,
        steps(
            reply(b"hello", STALE, TAG, "X-Changed: old", "X-Changed: older", *kept),
            unchanged(FRESH, TAG, "x-changed: new", "X-Added: yes"),
        ),
    )
    filled(edge, path)
    for response in (edge.get(path), edge.get(path)):
        assert response.values("x-changed") == ["new"]
        assert (response["x-added"], response["x-kept"], response["content-type"]) == ("yes", "1", "text/css")
        assert response.values("x-twice") == ["1", "2"]
        assert response.values("via") == ["1.1 edgeproxy"]


ABOUT_THE_BODY = {
    "Content-Length": "5",
    "Content-Encoding": "identity",
    "Content-MD5": "XUFAKrxLKna5cZ2REBfFkg==",
    "Digest": "sha-256=LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=",
    "Content-Digest": "sha-256=:LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=:",
    "Repr-Digest": "sha-256=:LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=:",
}


@pytest.mark.parametrize("name", [name for name in ABOUT_THE_BODY if name != "Content-Length"])
def test_a_304_does_not_change_what_describes_the_stored_body(edge: Edge, path: str, name: str) -> None:
    edge["app"].on(
        path, steps(reply(b"hello", STALE, TAG, f"{name}: {ABOUT_THE_BODY[name]}"), unchanged(FRESH, TAG, f"{name}: x"))
    )
    filled(edge, path)
    for response in (edge.get(path), edge.get(path)):
        assert (response[name], response.body) == (ABOUT_THE_BODY[name], b"hello")


def test_what_belongs_to_the_304_alone_stays_with_it(edge: Edge, path: str) -> None:
    of_the_304 = [
        "Age: 5",
        "Set-Cookie: a=b",
        "X-Request-Id: theirs",
        "Keep-Alive: timeout=5",
        "Content-Range: bytes 0-1/2",
    ]
    edge["app"].on(path, steps(reply(b"hello", STALE, TAG), unchanged(FRESH, TAG, *of_the_304)))
    filled(edge, path)
    for response in (edge.get(path), edge.get(path)):
        assert 5 <= int(response["age"]) < 5 + SLOW_S
        for name in ("set-cookie", "x-request-id", "keep-alive", "content-range"):
            assert response.get(name) is None


def test_a_304_without_freshness_of_its_own_leaves_the_stored_one_to_count_anew(edge: Edge, path: str) -> None:
    edge["app"].on(path, steps(reply(b"hello", FRESH, "Age: 60", TAG), unchanged()))
    filled(edge, path)
    validated = edge.get(path)
    assert (int(validated["age"]) < SLOW_S, 60 - SLOW_S < ttl(validated) <= 60) == (True, True)
    assert is_hit(edge.get(path))


def test_a_304_that_forbids_storing_ends_what_is_stored(edge: Edge, path: str) -> None:
    edge["app"].on(
        path, steps(reply(b"hello", STALE, TAG), unchanged("Cache-Control: no-store", TAG), reply(b"new", FRESH))
    )
    filled(edge, path)
    validated = edge.get(path)
    assert (validated.body, validated["cache-control"]) == (b"hello", "no-store")
    assert edge.get(path).body == b"new"
    assert conditions(edge["app"].seen(path)[2]) == (None, None)


def test_a_304_that_names_other_selecting_fields_leaves_nothing_to_select_from(edge: Edge, path: str) -> None:
    edge["app"].on(
        path, steps(reply(b"old", FRESH, "Age: 60", TAG), unchanged(FRESH, TAG, "Vary: Accept"), reply(b"new", FRESH))
    )
    filled(edge, path)
    validated = edge.get(path)
    assert (validated.body, validated["vary"]) == (b"old", "Accept")
    assert edge.get(path).body == b"new"


@pytest.mark.parametrize(
    ("fields", "shared"),
    [
        ([FRESH], True),
        (["Cache-Control: private"], False),
        (["Cache-Control: no-store"], False),
        ([FRESH, "Vary: *"], False),
    ],
)
def test_those_who_wait_for_a_validation_get_only_what_is_for_all(
    edge: Edge, path: str, fields: list[str], shared: bool
) -> None:
    gate = threading.Event()
    first = reply(b"old", "Cache-Control: max-age=1", TAG)
    edge["app"].on(path, steps(first, gated(gate, unchanged(TAG, *fields)), reply(b"new", "Cache-Control: no-store")))
    filled(edge, path)
    expired_at = time.monotonic() + 1.1
    until(lambda: time.monotonic() > expired_at, "the response to expire")
    with edge.connect() as leader, edge.connect() as follower:
        leader.send(request(path))
        edge["app"].wait_for(path, 2)
        follower.send(request(path))
        edge.settle()
        gate.set()
        assert leader.response().body == b"old"
        assert follower.response().body == (b"old" if shared else b"new")


def test_a_validation_for_an_authorized_request_is_for_it_alone(edge: Edge, path: str) -> None:
    """What is private to it does not get into what is stored (RFC 9111 §3.5)."""
    mine = unchanged(FRESH, TAG, "X-User: me")
    edge["app"].on(path, steps(reply(b"old", FRESH, "Age: 60", TAG), mine, unchanged(FRESH, TAG)))
    filled(edge, path)
    assert edge.get(path, "Authorization: Basic eA==")["x-user"] == "me"
    response = edge.get(path)
    assert (response.body, response.get("x-user"), is_hit(response)) == (b"old", None, False)
    assert is_hit(edge.get(path))


@pytest.mark.parametrize(
    "other", ['ETag: "two"', 'ETag: W/"two"', f"Last-Modified: {date(-60)}"], ids=["strong", "weak", "date"]
)
def test_a_304_about_something_else_is_not_believed(edge: Edge, path: str, other: str) -> None:
    edge["app"].on(path, steps(reply(b"old", STALE, TAG, LONG_AGO), unchanged(FRESH, other), reply(b"new", FRESH)))
    filled(edge, path)
    response = edge.get(path)
    assert (response.status, response.body) == (200, b"new")
    seen = edge["app"].seen(path)
    assert [conditions(one) for one in seen] == [(None, None), ('"one"', SINCE), (None, None)]
    assert edge.get(path).body == b"new"


def test_a_304_may_tell_a_weak_tag_by_its_opaque_part(edge: Edge, path: str) -> None:
    edge["app"].on(path, steps(reply(b"hello", STALE, TAG), unchanged(FRESH, 'ETag: W/"one"')))
    filled(edge, path)
    assert edge.get(path).body == b"hello"
    assert is_hit(edge.get(path))


def test_a_whole_response_instead_of_a_304_takes_the_old_ones_place(edge: Edge, path: str) -> None:
    edge["app"].on(path, steps(reply(b"old", STALE, TAG, "X-Old: 1"), reply(b"new", FRESH, 'ETag: "two"')))
    filled(edge, path)
    changed = edge.get(path)
    assert (changed.body, changed["etag"], changed.get("x-old")) == (b"new", '"two"', None)
    assert changed["cache-status"] == "edge-1; fwd=stale; fwd-status=200; stored"
    assert edge.record(changed)["cache"] == "EXPIRED"
    hit = edge.get(path)
    assert (is_hit(hit), hit.body, hit["etag"]) == (True, b"new", '"two"')


@pytest.mark.parametrize("status", ["404 Not Found", "410 Gone"])
def test_what_is_gone_takes_the_stored_response_with_it(edge: Edge, path: str, status: str) -> None:
    edge["app"].on(
        path, steps(reply(b"old", STALE, TAG), reply(b"none", "Cache-Control: no-store", status=status), unchanged())
    )
    filled(edge, path)
    assert edge.get(path).status == int(status[:3])
    edge["app"].on(path, reply(b"new", FRESH))
    assert edge.get(path).body == b"new"
    assert conditions(edge["app"].seen(path)[2]) == (None, None)


def test_a_failed_validation_leaves_the_stored_response_to_the_next(edge: Edge, path: str) -> None:
    edge["app"].on(
        path, steps(reply(b"hello", STALE, TAG), reply(b"oh", status="500 Internal Server Error"), unchanged(FRESH))
    )
    filled(edge, path)
    assert edge.get(path).status == 500
    again = until(lambda: found if (found := edge.get(path)).status == 200 else None, "the origin to be asked again")
    assert again.body == b"hello"
    assert conditions(edge["app"].seen(path)[-1])[0] == '"one"'


# --- stored, and asked about each time


@pytest.mark.parametrize("control", ["no-cache", "max-age=0", "no-cache, max-age=60", "max-age=0, must-revalidate"])
def test_what_may_not_be_used_unasked_is_stored_and_asked_about_each_time(edge: Edge, path: str, control: str) -> None:
    edge["app"].on(path, steps(reply(b"hello" * 1000, f"Cache-Control: {control}", TAG), unchanged(TAG)))
    filled(edge, path)
    responses = [edge.get(path) for _ in range(3)]
    assert all(response.body == b"hello" * 1000 for response in responses)
    assert [edge.record(response)["cache"] for response in responses] == ["REVALIDATED"] * 3
    assert [conditions(one)[0] for one in edge["app"].seen(path)] == [None, '"one"', '"one"', '"one"']


def test_fields_that_no_cache_names_are_not_served_unasked(edge: Edge, path: str) -> None:
    fields = ['Cache-Control: max-age=60, no-cache="X-User", private="X-Token"', "X-User: me", "X-Token: t", "X-A: 1"]
    edge["app"].on(path, reply(b"hello", *fields))
    first = filled(edge, path)
    assert (first["x-user"], first["x-token"]) == ("me", "t")
    hit = edge.get(path)
    assert (is_hit(hit), hit.get("x-user"), hit.get("x-token"), hit["x-a"]) == (True, None, None, "1")


# --- the client's conditions on a fresh response (RFC 9111 §4.3.2)


@pytest.mark.parametrize(
    ("condition", "status"),
    [
        ('If-None-Match: W/"one"', 304),
        ('If-None-Match: "two", W/"one"', 304),
        ('If-None-Match: "two"', 200),
        (f"If-Modified-Since: {SINCE}", 304),
        ("If-Modified-Since: Sunday, 06-Nov-94 08:49:37 GMT", 304),
        ("If-Modified-Since: Sun Nov  6 08:49:37 1994", 304),
        ("If-Modified-Since: Sun, 06 Nov 1994 08:49:36 GMT", 200),
        ("If-Modified-Since: Sun, 06 Nov 1994 08:49:37 CET", 200),
        (f'If-None-Match: "two"\r\nIf-Modified-Since: {SINCE}', 200),
        ('If-None-Match: "one"\r\nIf-Modified-Since: Sun, 06 Nov 1994 08:49:36 GMT', 304),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_condition_is_judged_by_what_is_stored(
    edge: Edge, path: str, condition: str, status: int, method: str
) -> None:
    edge["app"].on(path, reply(b"hello", FRESH, TAG, LONG_AGO))
    filled(edge, path)
    response = edge.get(path, condition, method=method)
    assert (response.status, is_hit(response)) == (status, True)
    assert response.body == (b"hello" if (status, method) == (200, "GET") else b"")
    assert response["etag"] == '"one"'
    assert len(edge["app"].seen(path)) == 1


def test_without_last_modified_the_responses_date_counts(edge: Edge, path: str) -> None:
    edge["app"].on(path, reply(b"hello", FRESH, f"Date: {date(-5)}"))
    filled(edge, path)
    assert edge.get(path, f"If-Modified-Since: {date(-5)}").status == 304
    assert edge.get(path, f"If-Modified-Since: {date(-50)}").status == 200


# --- HEAD (RFC 9111 §4.3.5)


def test_head_is_answered_with_what_get_would_be(edge: Edge, path: str) -> None:
    edge["app"].on(path, chunked(b"hel", b"lo", fields=[FRESH, TAG, "Content-Type: text/css"]))
    filled(edge, path)
    get, head = edge.get(path), edge.get(path, method="HEAD")
    moving = {b"x-trace-id", b"traceresponse", b"server-timing", b"age", b"cache-status"}
    lines = [[line for line in one.fields if line[0].lower() not in moving] for one in (get, head)]
    assert lines[0] == lines[1]
    assert (head["content-length"], head.body, is_hit(head)) == ("5", b"", True)


def test_a_head_that_shows_the_same_freshens_what_is_stored(edge: Edge, path: str) -> None:
    edge["app"].on(path, steps(reply(b"hello", STALE, TAG, "X-A: old"), reply(b"hello", FRESH, TAG, "X-A: new")))
    filled(edge, path)
    assert not is_hit(edge.get(path, method="HEAD"))
    hit = edge.get(path)
    assert (is_hit(hit), hit.body, hit["x-a"]) == (True, b"hello", "new")
    assert [one.method for one in edge["app"].seen(path)] == ["GET", "HEAD"]


@pytest.mark.parametrize(
    "now", [reply(b"hello", FRESH, 'ETag: "two"'), reply(b"longer", FRESH, TAG)], ids=["etag", "length"]
)
def test_a_head_that_shows_something_else_ends_what_is_stored(edge: Edge, path: str, now: object) -> None:
    edge["app"].on(path, steps(reply(b"hello", FRESH, TAG, "Age: 1"), now, reply(b"third", FRESH)))
    filled(edge, path)
    edge.get(path, "Cache-Control: no-cache", method="HEAD")
    response = edge.get(path)
    assert (response.body, is_hit(response)) == (b"third", False)
    assert conditions(edge["app"].seen(path)[2]) == (None, None)


def test_an_error_to_head_says_nothing_of_what_is_stored(edge: Edge, path: str) -> None:
    edge["app"].on(path, steps(reply(b"hello", FRESH, TAG, "Age: 1"), reply(b"", status="503 Busy")))
    filled(edge, path)
    assert edge.get(path, "Cache-Control: no-cache", method="HEAD").status == 503
    assert is_hit(edge.get(path))


# --- Vary together with validation (RFC 9111 §4.1, §4.3)


def test_each_variant_is_validated_by_its_own_tag(edge: Edge, path: str) -> None:
    def tagged(language: str) -> str:
        return f'"{language}"'

    def handle(talk: object) -> None:
        language = talk.request.get("accept-language") or ""
        if talk.request.get("if-none-match") == tagged(language):
            unchanged(f"ETag: {tagged(language)}", STALE, "Vary: Accept-Language")(talk)
        else:
            reply(language.encode(), f"ETag: {tagged(language)}", STALE, "Vary: Accept-Language")(talk)

    edge["app"].on(path, handle)
    for _ in range(2):
        for language in ("de", "fr"):
            assert edge.get(path, f"Accept-Language: {language}").text == language
    assert [conditions(one)[0] for one in edge["app"].seen(path)] == [None, None, '"de"', '"fr"']


def test_freshening_one_variant_leaves_the_others_as_they_were(edge: Edge, path: str) -> None:
    vary = "Vary: Accept-Language"
    edge["app"].on(
        path,
        steps(
            reply(b"de", STALE, 'ETag: "de"', vary),
            reply(b"fr", STALE, 'ETag: "fr"', vary),
            unchanged(FRESH, 'ETag: "de"', vary),
            unchanged(STALE, 'ETag: "fr"', vary),
        ),
    )
    german, french = "Accept-Language: de", "Accept-Language: fr"
    for language in (german, french, german):
        edge.get(path, language)
    assert is_hit(edge.get(path, german))
    response = edge.get(path, french)
    assert (response.body, is_hit(response)) == (b"fr", False)


@pytest.mark.parametrize(
    ("name", "one", "other"),
    [
        ("Accept-Language", "de-DE, en;q=0.5", "DE-de,EN;Q=0.5"),
        ("Accept-Encoding", "gzip, br", "GZIP,br"),
        ("Accept-Charset", "utf-8", "UTF-8"),
    ],
)
def test_variants_are_told_apart_by_what_a_field_means_not_by_its_case(
    edge: Edge, path: str, name: str, one: str, other: str
) -> None:
    edge["app"].on(path, counting(FRESH, f"Vary: {name}"))
    assert edge.get(path, f"{name}: {one}").text == "answer 1"
    assert edge.get(path, f"{name}: {other}").text == "answer 1"


def test_case_counts_in_every_other_field(edge: Edge, path: str) -> None:
    edge["app"].on(path, counting(FRESH, "Vary: X-Who"))
    assert edge.get(path, "X-Who: me").text == "answer 1"
    assert edge.get(path, "X-Who: Me").text == "answer 2"


# --- Age and Date from outside (RFC 9111 §4.2.3, §5.1)


def test_age_grows_by_the_second_and_date_stays(edge: Edge, path: str) -> None:
    edge["app"].on(path, reply(b"x", FRESH, "Age: 10"))
    first = filled(edge, path)
    begun = time.monotonic()
    hit = until(lambda: found if int((found := edge.get(path))["age"]) >= 11 else None, "the age to grow")
    assert int(hit["age"]) <= 11 + time.monotonic() - begun
    assert hit["date"] == first["date"]
    assert ttl(hit) in {60 - int(hit["age"]), 59 - int(hit["age"])}


@pytest.mark.parametrize(
    ("fields", "age_s"),
    [
        ([-20], 20),
        ([-20, "Age: 30"], 30),
        ([-30, "Age: 20"], 30),
        ([+30], 0),
        (["Date: yesterday"], 0),
        (["Age: -5"], 0),
        (["Age: 7", "Age: 3"], 7),
    ],
    ids=["date", "age-over-date", "date-over-age", "date-ahead", "date-invalid", "age-invalid", "age-twice"],
)
def test_the_age_that_a_response_arrives_with(edge: Edge, path: str, fields: list[str | int], age_s: int) -> None:
    lines = [f"Date: {date(field)}" if isinstance(field, int) else field for field in fields]
    edge["app"].on(path, reply(b"x", "Cache-Control: max-age=3600", *lines))
    filled(edge, path)
    hit = edge.get(path)
    assert len(hit.values("age")) == 1
    assert age_s <= int(hit["age"]) < age_s + 60


def test_a_slow_origins_delay_counts_as_age(edge: Edge, path: str) -> None:
    def slowly(talk: object) -> None:
        time.sleep(1.1)
        reply(b"x", FRESH)(talk)

    edge["app"].on(path, slowly)
    filled(edge, path)
    assert 1 <= int(edge.get(path)["age"]) < 1 + SLOW_S


def test_a_response_without_date_gets_one_and_keeps_it(edge: Edge, path: str) -> None:
    edge["app"].on(path, reply(b"x", FRESH))
    first, hit = filled(edge, path), edge.get(path)
    assert first["date"] == hit["date"]


# --- targeted fields (RFC 9213)


@pytest.mark.parametrize(
    ("fields", "stored"),
    [
        (["CDN-Cache-Control: max-age=60", "Cache-Control: no-store"], True),
        (["CDN-Cache-Control: no-store", FRESH], False),
        (["Edgeproxy-Cache-Control: max-age=60", "CDN-Cache-Control: no-store"], True),
        (["Edgeproxy-Cache-Control: no-store", "CDN-Cache-Control: max-age=60", FRESH], False),
        (["CDN-Cache-Control: max-age=", FRESH], True),
        (["CDN-Cache-Control: ", FRESH], True),
        (["CDN-Cache-Control: max-age=0", f"Expires: {date(3600)}"], False),
    ],
)
def test_a_targeted_field_comes_before_cache_control(edge: Edge, path: str, fields: list[str], stored: bool) -> None:
    edge["app"].on(path, counting(*fields))
    first = edge.get(path)
    assert first["cache-status"].endswith("; stored") is stored
    assert is_hit(edge.get(path)) is stored


def test_a_targeted_field_is_sent_on_unless_it_is_the_edges_own(edge: Edge, path: str) -> None:
    fields = ["Edgeproxy-Cache-Control: max-age=60", "CDN-Cache-Control: max-age=30", "Cache-Control: max-age=1"]
    edge["app"].on(path, reply(b"hello", *fields, TAG))
    first, hit = filled(edge, path), edge.get(path)
    assert 60 - SLOW_S < ttl(hit) <= 60
    unmodified, head, part = (
        edge.get(path, 'If-None-Match: "one"'),
        edge.get(path, method="HEAD"),
        edge.get(path, "Range: bytes=0-0"),
    )
    assert (unmodified.status, part.status) == (304, 206)
    for response in (first, hit, unmodified, head, part):
        assert response.get("edgeproxy-cache-control") is None
        assert (response["cdn-cache-control"], response["cache-control"]) == ("max-age=30", "max-age=1")


@pytest.mark.parametrize("repeated", [True, False], ids=["304-has-it", "304-lacks-it"])
def test_the_edges_own_field_counts_for_what_is_validated(edge: Edge, path: str, repeated: bool) -> None:
    own = "Edgeproxy-Cache-Control: max-age=60"
    edge["app"].on(
        path, steps(reply(b"hello", own, STALE, "Age: 60", TAG), unchanged(TAG, STALE, *([own] if repeated else [])))
    )
    filled(edge, path)
    validated = edge.get(path)
    assert 60 - SLOW_S < ttl(validated) <= 60
    assert validated.get("edgeproxy-cache-control") is None
    assert is_hit(edge.get(path))


# --- what the client takes (RFC 9111 §5.2.1)


@pytest.mark.parametrize(
    ("directive", "served"),
    [
        ("max-age=40", True),
        ("max-age=20", False),
        ("min-fresh=20", True),
        ("min-fresh=40", False),
        ("max-age=40, min-fresh=20", True),
        ("max-age=40, min-fresh=40", False),
        ("max-stale=10, min-fresh=40", False),
        ("max-age=forty", False),
        ("no-transform", True),
        ("MAX-AGE=20", False),
    ],
)
def test_what_the_client_asks_of_a_fresh_response(edge: Edge, path: str, directive: str, served: bool) -> None:
    edge["app"].on(path, counting(FRESH, "Age: 30"))
    filled(edge, path)
    response = edge.get(path, f"Cache-Control: {directive}")
    assert is_hit(response) is served
    assert response.text == ("answer 1" if served else "answer 2")


@pytest.mark.parametrize(
    ("directive", "served"),
    [("max-stale=60", True), ("max-stale", True), ("max-stale=5", False), ("max-stale=60, min-fresh=1", False)],
)
def test_what_the_client_takes_of_a_stale_response(edge: Edge, path: str, directive: str, served: bool) -> None:
    edge["app"].on(path, steps(reply(b"old", FRESH, "Age: 80", TAG), reply(b"new", FRESH)))
    filled(edge, path)
    response = edge.get(path, f"Cache-Control: {directive}")
    assert response.body == (b"old" if served else b"new")
    if served:
        assert -20 - SLOW_S < ttl(response) <= -20
        assert edge.record(response)["cache"] == "STALE"


@pytest.mark.parametrize("forbids", ["must-revalidate", "proxy-revalidate", "s-maxage=60", "no-cache"])
def test_no_client_gets_stale_what_must_be_revalidated(edge: Edge, path: str, forbids: str) -> None:
    edge["app"].on(
        path, steps(reply(b"old", f"Cache-Control: max-age=60, {forbids}", "Age: 80", TAG), reply(b"new", FRESH))
    )
    filled(edge, path)
    assert edge.get(path, "Cache-Control: max-stale").body == b"new"


def test_only_if_cached_takes_no_validation_but_may_take_stale(edge: Edge, path: str) -> None:
    edge["app"].on(path, reply(b"old", FRESH, "Age: 80", TAG))
    filled(edge, path)
    refused = edge.get(path, "Cache-Control: only-if-cached")
    assert (refused.status, refused.problem["code"]) == (504, "not_cached")
    assert edge.get(path, "Cache-Control: only-if-cached, max-stale=60").body == b"old"
    assert len(edge["app"].seen(path)) == 1


def test_a_route_may_be_deaf_to_what_clients_say(edge: Edge) -> None:
    path = "/deaf/x"
    edge["deaf"].on(path, counting(FRESH))
    edge.get(path, "Cache-Control: no-store")
    for field in ("Cache-Control: no-cache", "Pragma: no-cache", "Cache-Control: max-age=0"):
        assert is_hit(edge.get(path, field))


def test_a_forced_reload_is_a_validation_where_that_will_do(edge: Edge, path: str) -> None:
    edge["app"].on(path, steps(reply(b"hello", FRESH, "Age: 1", TAG), unchanged(FRESH, TAG)))
    filled(edge, path)
    reloaded = edge.get(path, "Cache-Control: no-cache")
    assert (reloaded.status, reloaded.body) == (200, b"hello")
    assert reloaded["cache-status"].startswith("edge-1; fwd=request; fwd-status=304; ")
    assert conditions(edge["app"].seen(path)[1])[0] == '"one"'


def test_a_client_that_stays_connected_gets_all_of_it_in_turn(edge: Edge, path: str) -> None:
    edge["app"].on(path, steps(reply(b"hello", STALE, TAG), unchanged(TAG)))
    with edge.connect() as client:
        client.send(request(path) * 3 + request(path, 'If-None-Match: "one"'))
        responses = [client.response() for _ in range(4)]
    assert [(response.status, response.body) for response in responses] == [(200, b"hello")] * 3 + [(304, b"")]
