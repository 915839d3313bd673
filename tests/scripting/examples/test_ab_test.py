"""conf/addons/ab_test.py: visitors stay in their buckets, and no bucket is served what was made for another."""

import random
import re
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from mitmproxy import exceptions, http

from tests.cache.scripted import FRESH
from tests.scripting.engines import Mitmdump, get
from tests.scripting.examples.scripts import Edge, edge, module, path_of
from tests.support import Conversation, Origin, Response, reply

script = module("ab_test")
MONTH_S = 30 * 86400


def page(talk: Conversation) -> None:
    """What an origin makes of the bucket that it is told."""
    reply(f"page {talk.request.values('x-ab-bucket')}".encode(), FRESH, 'ETag: "1"')(talk)


@pytest.fixture(scope="module")
def site() -> Iterator[Edge]:
    with edge("ab_test", options={"ab_buckets": ["a=1", "b=1", "ended=0"]}) as found:
        found.origin.default = page
        yield found


def in_bucket(site: Edge, bucket: str, target: str, *fields: str) -> Response:
    return site.get(target, f"Cookie: ab={bucket}", *fields)


def given(response: Response) -> str:
    """The bucket that a new visitor got, by the cookie."""
    found = re.fullmatch(rf"ab=(\w+); Max-Age={MONTH_S}; Path=/; SameSite=Lax", response["set-cookie"])
    assert found, response["set-cookie"]
    return found[1]


def test_a_new_visitor_gets_a_bucket_and_a_cookie(site: Edge) -> None:
    answer = site.get("/new")
    bucket = given(answer)
    assert answer.text == f"page ['{bucket}']"
    assert answer["vary"] == "Cookie"
    assert site.logged(answer) == {"ab": bucket}


def test_a_visitor_with_the_cookie_stays_and_is_sent_no_other(site: Edge) -> None:
    for bucket in ("a", "b", "a", "b"):
        answer = in_bucket(site, bucket, "/stays")
        assert answer.text == f"page ['{bucket}']"
        assert answer.get("set-cookie") is None
        assert site.logged(answer) == {"ab": bucket}


def test_hits_are_those_of_the_bucket(site: Edge) -> None:
    fills = [in_bucket(site, bucket, "/hits") for bucket in "ab"]
    hits = [in_bucket(site, bucket, "/hits") for bucket in "ab"]
    assert [one["x-cache"] for one in fills + hits] == ["MISS", "MISS", "HIT", "HIT"]
    assert [one.body for one in hits] == [b"page ['a']", b"page ['b']"]
    assert len(site.origin.seen("/hits")) == 2


def test_a_new_visitor_gets_a_hit_and_a_cookie_of_his_own(site: Edge) -> None:
    """What is stored has nobody's cookie, though the one who filled it was sent one."""
    fills = {given(answer): answer for answer in (site.get("/fresh") for _ in range(40))}
    assert set(fills) == {"a", "b"}
    again = [site.get("/fresh") for _ in range(10)]
    assert {one["x-cache"] for one in again} == {"HIT"}
    assert all(one.text == f"page ['{given(one)}']" for one in again)
    assert in_bucket(site, "a", "/fresh").get("set-cookie") is None
    assert len(site.origin.seen("/fresh")) == 2


@pytest.mark.parametrize("cookie", ["", "c", "ended", "A", "a b", '"a"', "a%00", "%61", "a,b", "x" * 4000])
def test_a_cookie_that_names_no_bucket_is_none(site: Edge, cookie: str) -> None:
    assert given(in_bucket(site, cookie, "/odd")) in {"a", "b"}


def test_of_several_cookies_the_first_that_names_a_bucket_counts_for_all(site: Edge) -> None:
    answer = site.get("/several", "Cookie: ab=nonsense; ab=b", "Cookie: ab=a")
    assert answer.text == "page ['b']"
    assert answer.get("set-cookie") is None
    (seen,) = site.origin.seen("/several")
    assert seen.get("cookie") is None


def test_other_cookies_go_to_the_origin_as_they_are(site: Edge) -> None:
    site.get("/others", 'Cookie: x="1 2"; ab=a; aba=3;y=; bab=%20')
    site.get("/alone", "Cookie: x=1;y=2")
    (with_ours,), (without,) = site.origin.seen("/others"), site.origin.seen("/alone")
    assert with_ours["cookie"] == 'x="1 2"; aba=3; y=; bab=%20'
    assert without["cookie"] == "x=1;y=2"


@pytest.mark.parametrize("name", ["X-Ab-Bucket", "x-ab-bucket", "X_Ab_Bucket", "x-AB_bucket"])
def test_the_origin_believes_no_clients_header(site: Edge, name: str) -> None:
    answer = in_bucket(site, "a", f"/header/{name}", f"{name}: evil")
    assert answer.text == "page ['a']"
    (seen,) = site.origin.seen(f"/header/{name}")
    assert b"evil" not in seen.raw_head


@pytest.mark.parametrize("value", ["X-Ab-Bucket", "close, x-ab-bucket", "keep-alive, Cookie, X-AB-BUCKET"])
def test_no_client_takes_off_what_the_origin_is_told(site: Edge, value: str) -> None:
    """What `Connection` names ends at the edge (RFC 9110 7.6.1): not what a script has set since."""
    path = f"/connection/{len(value)}"
    poisoned = in_bucket(site, "a", path, f"Connection: {value}")
    assert re.fullmatch(r"page \['[ab]'\]", poisoned.text)
    assert in_bucket(site, "a", path).text == "page ['a']"
    assert in_bucket(site, "b", path).text == "page ['b']"


def test_variants_by_cookie_are_not_multiplied(site: Edge) -> None:
    """`Vary: Cookie` would keep a copy for each visitor, if the origin saw the visitor's cookie."""
    site.origin.on("/vary", reply(b"x", FRESH, "Vary: Cookie"))
    answers = [in_bucket(site, "a", "/vary") for _ in range(2)]
    assert [one["x-cache"] for one in answers] == ["MISS", "HIT"]
    assert [one["vary"] for one in answers] == ["Cookie", "Cookie"]


def test_vary_is_added_to_what_the_origin_says(site: Edge) -> None:
    site.origin.on("/vary-more", reply(b"x", FRESH, "Vary: Accept-Encoding"))
    site.origin.on("/vary-any", reply(b"x", "Vary: *"))
    assert in_bucket(site, "a", "/vary-more")["vary"] == "Accept-Encoding, Cookie"
    assert in_bucket(site, "a", "/vary-any")["vary"] == "*"


def test_conditions_and_ranges_are_met_within_the_bucket(site: Edge) -> None:
    in_bucket(site, "a", "/parts")
    in_bucket(site, "b", "/parts")
    assert in_bucket(site, "a", "/parts", 'If-None-Match: "1"').status == 304
    assert in_bucket(site, "b", "/parts", "Range: bytes=5-9").body == b"['b']"


def test_those_who_wait_for_one_fetch_are_of_one_bucket(site: Edge) -> None:
    gate = threading.Event()

    def slow(talk: Conversation) -> None:
        talk.wait(gate)
        page(talk)

    site.origin.on("/crowd", slow)
    clients = [site.node.connect() for _ in range(8)]
    for number, client in enumerate(clients):
        client.send(b"GET /crowd HTTP/1.1\r\nHost: edge.test\r\nCookie: ab=%b\r\n\r\n" % b"ab"[number % 2 :][:1])
    site.origin.wait_for("/crowd", 2)
    gate.set()
    answers = [client.response() for client in clients]
    assert [one.text for one in answers] == ["page ['a']", "page ['b']"] * 4
    assert len(site.origin.seen("/crowd")) == 2
    for client in clients:
        client.close()


def test_a_body_is_not_waited_for(site: Edge) -> None:
    with site.node.connect() as client:
        client.send(b"POST /sent HTTP/1.1\r\nHost: edge.test\r\nContent-Length: 10\r\n\r\nfirst")
        site.origin.wait_for("/sent")  # its head is there before its body is
        client.send(b"other")
        assert client.response().status == 200


def test_a_response_is_sent_on_as_it_comes(site: Edge) -> None:
    more = threading.Event()

    def slowly(talk: Conversation) -> None:
        talk.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst")
        talk.wait(more)
        talk.send(b"other")

    site.origin.on("/slow", slowly)
    with site.node.connect() as client:
        client.send(b"GET /slow HTTP/1.1\r\nHost: edge.test\r\nCookie: ab=a\r\n\r\n")
        assert client.head()["vary"] == "Cookie"
        assert client.stream.take(5) == b"first"
        more.set()
        assert client.stream.take(5) == b"other"


def test_weights_decide_how_many_go_where() -> None:
    with edge("ab_test", options={"ab_buckets": ["a=90", "b=10"]}) as site:
        with site.node.connect() as client:
            count = Counter(client.get("/w")["set-cookie"][:4] for _ in range(200))
        assert count["ab=a"] > 3 * count["ab=b"]


def test_stock_mitmdump_runs_it(origin: Origin) -> None:
    origin.default = page
    with Mitmdump(origin.url, path_of("ab_test")) as proxy:
        answer = get(proxy, "/m")
        assert answer.text == f"page ['{given(answer)}']"
        assert get(proxy, "/m", "Cookie: ab=b").text == "page ['b']"


def test_with_the_edges_own_addons_mitmdump_keeps_a_copy_for_each_bucket(origin: Origin) -> None:
    origin.default = page
    command = [sys.executable, "-m", "edgeproxy.addons"]
    addons = Path(subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip())
    with Mitmdump(origin.url, addons, path_of("ab_test")) as proxy:
        answers = [get(proxy, "/m", f"Cookie: ab={bucket}") for bucket in "abab"]
    assert [(one["x-cache"], one.text) for one in answers] == [
        *(("MISS", "page ['a']"), ("MISS", "page ['b']"), ("HIT", "page ['a']"), ("HIT", "page ['b']"))
    ]


# --- its parts


@pytest.mark.parametrize("text", ["", "=1", "a=-1", "a=x", "a=nan", "a=inf", "a b=1", "a;b=1", "ä=1"])
def test_a_bucket_that_is_none_is_named(text: str) -> None:
    with pytest.raises(exceptions.OptionsError, match="ab_buckets has"):
        script.parse_bucket(text)


def test_buckets_have_weights() -> None:
    assert script.parse_bucket("a=2.5") == ("a", 2.5)
    assert script.parse_bucket("new-design") == ("new-design", 1.0)
    assert script.parse_bucket("over=0") == ("over", 0.0)


def test_new_visitors_are_spread_by_weight() -> None:
    addon = script.AbTest()
    addon.weights = dict(map(script.parse_bucket, ["a=90", "b=10", "c=0"]))
    random.seed(1)
    drawn = Counter(random.choices(list(addon.weights), list(addon.weights.values()))[0] for _ in range(10_000))
    assert 8_800 < drawn["a"] < 9_200
    assert drawn["c"] == 0


@pytest.mark.parametrize(
    ("came", "values", "left"),
    [
        ([], [], []),
        (["ab=1"], ["1"], []),
        (["x=1; ab=1"], ["1"], ["x=1"]),
        (["x=1;ab = 1 ; y"], ["1"], ["x=1; y"]),
        (["ab=1", "ab=2; z=3"], ["1", "2"], ["z=3"]),
        (["x=ab=1"], [], ["x=ab=1"]),
        (["AB=1"], [], ["AB=1"]),
        (["ab"], [""], []),
        (["ab=1=2"], ["1=2"], []),
        ([";;ab=1;;"], ["1"], []),
    ],
)
def test_a_cookie_is_taken_out(came: list[str], values: list[str], left: list[str]) -> None:
    request = http.Request.make("GET", "http://edge.test/")
    request.headers.set_all("Cookie", came)
    assert script.take_cookie(request, "ab") == values
    assert request.headers.get_all("Cookie") == left
