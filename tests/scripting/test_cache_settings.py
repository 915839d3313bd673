"""`flow.metadata["edge"]` on a real node: what it tells is what the record says, and what is set has its effect."""

import threading
from collections.abc import Iterator

import pytest

from tests.scripting.builders import DOES, Site, do
from tests.support import Response, gated, reply, request, until

SCRIPT = DOES
FRESH = "Cache-Control: max-age=60"
STALE = "Cache-Control: max-age=0, stale-while-revalidate=60"
PURGED = "http://edge.test"

TELL = do(
    **dict.fromkeys(
        ("responseheaders", "response"),
        "log.update({name: edge[name] for name in ('cache', 'age', 'ttl_left', 'origin')})",
    )
)


@pytest.fixture(scope="module")
def shared_bare() -> Iterator[Site]:
    with Site(DOES, addons={"hits": False}) as site:
        yield site


@pytest.fixture
def bare(shared_bare: Site) -> Iterator[Site]:
    """A node whose scripts don't see what hot memory has."""
    with shared_bare.watched():
        yield shared_bare


def cache_of(site: Site, *answers: Response) -> list[str | None]:
    return [site.record(answer)["cache"] for answer in answers]


def check(site: Site, answer: Response, word: str | None, origin: str | None) -> None:
    """What both response hooks were told is what the record has."""
    record = site.record(answer)
    assert (record["cache"], record["script"]["log"]["cache"]) == (word, str(word))
    assert record["script"]["log"]["age"] == str(record["cache_age"])
    assert record["script"]["log"]["origin"] == str(origin)
    if word not in {"MISS", "EXPIRED"}:  # what is stored, and for how long, is known once it is
        assert record["script"]["log"]["ttl_left"] == str(record["cache_ttl"])


def test_what_is_told_of_a_miss_and_a_hit(site: Site) -> None:
    site.origin.on("/told", reply(b"x", "Cache-Control: max-age=60", "Age: 7"))
    miss, hit = (site.get("/told", *TELL) for _ in range(2))
    check(site, miss, "MISS", "app")
    check(site, hit, "HIT", None)
    assert site.logged(hit)["age"] in {"7", "8"}
    assert site.logged(hit)["ttl_left"] in {"52", "53"}


def test_what_is_told_of_a_bypass(site: Site) -> None:
    check(site, site.get("/told/post", *TELL, method="POST"), "BYPASS", "app")


def test_what_is_told_of_one_that_is_validated(site: Site) -> None:
    site.origin.on("/told/validated", reply(b"x", "Cache-Control: max-age=0", 'ETag: "1"'))
    site.get("/told/validated")
    site.origin.on("/told/validated", reply(b"", 'ETag: "1"', status="304 Not Modified"))
    check(site, site.get("/told/validated", *TELL), "REVALIDATED", "app")
    site.origin.on("/told/validated", reply(b"y", "Cache-Control: max-age=0", 'ETag: "2"'))
    check(site, site.get("/told/validated", *TELL), "EXPIRED", "app")


def test_what_is_told_of_a_stale_one(site: Site) -> None:
    site.origin.on("/told/stale", reply(b"x", STALE))
    site.get("/told/stale")
    stale = site.get("/told/stale", *TELL)
    site.unanswered()  # the background fetch has a line of its own
    check(site, stale, "STALE", None)
    assert int(site.logged(stale)["ttl_left"]) <= 0


def test_what_is_told_of_one_that_waited_for_anothers_fetch(site: Site) -> None:
    gate = threading.Event()
    site.origin.on("/told/shared", gated(gate, reply(b"x", FRESH)))
    with site.node.connect() as first, site.node.connect() as second:
        first.send(request("/told/shared", *TELL))
        site.origin.wait_for("/told/shared")
        second.send(request("/told/shared", *TELL))
        until(lambda: sorted(site.in_flight("/told/shared")) == ["collapsed", "request_sent"], "both to wait")
        gate.set()
        check(site, site.saw(first.response()), "MISS", "app")
        check(site, site.saw(second.response()), "COLLAPSED", None)


def test_what_is_told_of_a_scripts_own_response(site: Site) -> None:
    answer = site.get("/told/own", *do(request="flow.response = http.Response.make(203)"), *TELL)
    check(site, answer, None, None)


def test_what_is_told_of_the_trace(site: Site) -> None:
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    code = "log.update({name: edge[name] for name in edge if name not in ('log', 'key', 'tags')})"
    answer = site.get("/trace", f"traceparent: {parent}", "tracestate: a=b", *do(requestheaders=code))
    told, record = site.logged(answer), site.record(answer)
    assert told["trace_id"] == record["trace_id"] == "0af7651916cd43dd8448eb211c80319c"
    assert told["span_id"] == record["span_id"]
    assert told["parent_id"] == record["parent_id"] == "b7ad6b7169203331"
    assert told["traceparent"] == f"00-{record['trace_id']}-{record['span_id']}-01"
    assert (told["tracestate"], told["sampled"], told["client"], told["node"]) == (
        "a=b",
        "True",
        "127.0.0.1",
        "edge-1",
    )
    assert told["request_id"] == record["request_id"]
    assert [told[name] for name in ("cache", "age", "ttl_left", "origin")] == ["None"] * 4


def test_what_is_told_of_a_trace_that_is_not_sampled(site: Site) -> None:
    parent = "00-0af7651916cd43dd8448eb211c80319d-b7ad6b7169203331-00"
    answer = site.get("/trace", f"traceparent: {parent}", *do(request="log['sampled'] = edge['sampled']"))
    assert site.logged(answer) == {"sampled": "False"}


@pytest.mark.parametrize("hook", ["requestheaders", "request"])
def test_the_key_keeps_responses_apart(site: Site, hook: str) -> None:
    path = f"/key/{hook}"
    answers = []
    for variant in ("a", "b", "a", "b"):
        site.origin.on(path, reply(variant.encode(), FRESH))
        answers.append(site.get(path, *do(**{hook: f"edge['key'] = {{'variant': '{variant}'}}"})))
    assert [answer.body for answer in answers] == [b"a", b"b", b"a", b"b"]
    assert cache_of(site, *answers) == ["MISS", "MISS", "HIT", "HIT"]
    plain = site.get(path)
    assert cache_of(site, plain) == ["MISS"]
    assert "variant" in site.record(answers[0])["cache_key"]


def test_the_key_counts_for_head_too(site: Site) -> None:
    site.origin.on("/key/head", reply(b"body", FRESH))
    key = do(request="edge['key'] = {'a': '1'}")
    assert cache_of(site, site.get("/key/head", *key), site.get("/key/head", *key, method="HEAD")) == [
        "MISS",
        "HIT",
    ]


def test_the_key_keeps_requests_apart_that_come_at_once(site: Site) -> None:
    gate = threading.Event()
    site.origin.on("/key/once", gated(gate, reply(b"x", FRESH)))
    with site.node.connect() as first, site.node.connect() as second:
        for client, value in ((first, "1"), (second, "2")):
            client.send(request("/key/once", *do(request=f"edge['key']['a'] = '{value}'")))
        site.origin.wait_for("/key/once", 2)
        gate.set()
        assert cache_of(site, *(site.saw(client.response()) for client in (first, second))) == ["MISS", "MISS"]


def test_the_key_is_purged_with_its_url(site: Site) -> None:
    site.origin.on("/key/purged", reply(b"x", FRESH))
    keys = [do(request=f"edge['key'] = {{'a': '{n}'}}") for n in range(2)]
    for key in keys:
        site.get("/key/purged", *key)
    site.node.command("purge", f"{PURGED}/key/purged")
    assert cache_of(site, *(site.get("/key/purged", *key) for key in keys)) == ["MISS"] * 2


def test_the_key_takes_what_is_no_unicode(site: Site) -> None:
    site.origin.on("/key/bytes", reply(b"x", FRESH))
    code = do(request="edge['key'] = {'odd': request.headers['x-odd']}")
    answers = [site.get("/key/bytes", f"X-Odd: {odd}", *code) for odd in ("\xff", "\xfe", "\xff")]
    assert cache_of(site, *answers) == ["MISS", "MISS", "HIT"]


def test_the_ttl_is_how_long_a_response_is_fresh(site: Site) -> None:
    site.origin.on("/ttl", reply(b"x", "Cache-Control: max-age=0"))
    ttl = do(request="edge['ttl'] = 100", response="log['left'] = edge['ttl_left']")
    answers = [site.get("/ttl", *ttl), site.get("/ttl", *ttl), site.get("/ttl")]
    assert cache_of(site, *answers) == ["MISS", "HIT", "HIT"]
    assert site.logged(answers[1])["left"] in {"99", "98"}


def test_the_ttl_may_be_nothing(site: Site) -> None:
    site.origin.on("/ttl/0", reply(b"x", FRESH))
    answers = [site.get("/ttl/0", *do(request="edge['ttl'] = 0")) for _ in range(2)]
    assert cache_of(site, *answers)[1] != "HIT"


def test_the_ttl_may_be_a_fraction(site: Site) -> None:
    site.origin.on("/ttl/half", reply(b"x"))
    ttl = do(request="edge['ttl'] = 0.2")
    assert cache_of(site, site.get("/ttl/half", *ttl)) == ["MISS"]
    until(lambda: site.record(site.get("/ttl/half", *ttl))["cache"] != "HIT", "it to be stale")


def test_the_ttl_may_depend_on_the_status(site: Site) -> None:
    site.origin.on("/ttl/404", reply(b"no", status="404 Not Found"))
    site.origin.on("/ttl/200", reply(b"yes"))
    ttl = do(request="edge['ttl'] = {404: 60}")
    assert cache_of(site, *(site.get("/ttl/404", *ttl) for _ in range(2))) == ["MISS", "HIT"]
    assert cache_of(site, *(site.get("/ttl/200", *ttl) for _ in range(2))) == ["MISS", "MISS"]


def test_the_bypass_neither_takes_from_the_cache_nor_stores(site: Site) -> None:
    site.origin.on("/bypass", reply(b"old", FRESH))
    site.get("/bypass")
    site.origin.on("/bypass", reply(b"new", FRESH))
    answers = [site.get("/bypass", *do(request="edge['bypass'] = True")), site.get("/bypass")]
    assert [answer.body for answer in answers] == [b"new", b"old"]
    assert cache_of(site, *answers) == ["BYPASS", "HIT"]


def test_tags_are_what_purges_know(site: Site) -> None:
    site.origin.on("/tags/1", reply(b"x", FRESH, "Surrogate-Key: own"))
    site.origin.on("/tags/2", reply(b"x", FRESH))
    tags = do(request="edge['tags'] = ['script-a', 'script-b']")
    for path in ("/tags/1", "/tags/2"):
        site.get(path, *tags)
    for tag in ("script-a", "own"):
        site.node.command("purge", "--tag", tag)
        found = cache_of(site, *(site.get(path, *tags) for path in ("/tags/1", "/tags/2")))
        assert found == (["MISS", "MISS"] if tag == "script-a" else ["MISS", "HIT"])


def test_tags_stay_with_what_is_validated(site: Site) -> None:
    site.origin.on("/tags/304", reply(b"x", "Cache-Control: max-age=0", 'ETag: "1"'))
    site.get("/tags/304", *do(request="edge['tags'] = ['validated']"))
    site.origin.on("/tags/304", reply(b"", FRESH, 'ETag: "1"', status="304 Not Modified"))
    site.get("/tags/304")
    assert cache_of(site, site.get("/tags/304")) == ["HIT"]
    site.node.command("purge", "--tag", "validated")
    assert cache_of(site, site.get("/tags/304"))[0] != "HIT"


def test_hits_of_hot_memory_are_answered_without_scripts_where_that_is_configured(bare: Site) -> None:
    bare.origin.on("/hot", reply(b"x", FRESH))
    asks = do(request="log['asked'] = 1", response="response.headers['X-Seen'] = '1'")
    miss, hit = (bare.get("/hot", *asks) for _ in range(2))
    assert (miss["x-seen"], hit.get("x-seen")) == ("1", None)
    assert cache_of(bare, miss, hit) == ["MISS", "HIT"]
    assert (bare.logged(miss), bare.record(hit)["script"]) == ({"asked": "1"}, None)


def test_hits_that_need_a_look_at_the_request_are_seen_all_the_same(bare: Site) -> None:
    bare.origin.on("/cold", reply(b"0123456789", FRESH))
    asks = do(request="log['asked'] = 1")
    bare.get("/cold", *asks)
    part = bare.get("/cold", "Range: bytes=1-2", *asks)
    assert (part.status, part.body) == (206, b"12")
    assert cache_of(bare, part) == ["HIT"]
    assert bare.logged(part) == {"asked": "1"}


def test_hits_are_seen_by_their_hooks_else(site: Site) -> None:
    site.origin.on("/seen", reply(b"x", FRESH))
    asks = do(request="log['asked'] = 1", response="response.text = 'changed'")
    answers = [site.get("/seen", *asks) for _ in range(2)]
    assert [answer.body for answer in answers] == [b"changed"] * 2
    assert cache_of(site, *answers) == ["MISS", "HIT"]
    assert site.get("/seen").body == b"x"  # what is stored is the origin's
