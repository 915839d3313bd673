"""The bundled scripts in one node, as a site would have them: what one decides holds for the others and the cache."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cache.scripted import counting
from tests.scripting.examples.scripts import Edge, edge, module
from tests.support import Conversation, reply, until

SECRET = "0123456789abcdef-the-secret"
signed_url = module("signed_url")


def signed(target: str) -> str:
    url = signed_url.signed({"k": SECRET.encode()}, f"http://edge.test{target}", expires=int(time.time()) + 600)
    return str(url).removeprefix("http://edge.test")


def told(talk: Conversation) -> None:
    request = talk.request
    asked = [request.target, request.values("x-ab-bucket"), request.values("x-client-class"), request.get("cookie")]
    reply(repr(asked).encode(), "Cache-Control: max-age=60", "Vary: Accept-Encoding")(talk)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    keys: Path = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text(f"k {SECRET}\n")
    keys.chmod(0o600)
    options = {
        "signed_url_keys_file": str(keys),
        "signed_url_protect": ["/film"],
        "client_class_classes": ["dach=DE,AT,CH"],
        "client_class_trusted": ["127.0.0.0/8"],
    }
    scripts = ("signed_url", "normalise", "client_class", "ab_test")
    with edge(*scripts, options=options, addons={"on_error": "refuse"}) as found:
        found.origin.default = told
        yield found


def test_all_of_them_have_their_say(site: Edge) -> None:
    fields = ("Cookie: ab=b; x=1", "X-Country: AT")
    first = site.get(signed("/film/1?b=1&a=2"), *fields)
    again = site.get(signed("/film/1?b=1&a=2"), *fields, "Accept-Encoding: deflate")
    assert first.text == "['/film/1?a=2&b=1', ['b'], ['dach'], 'x=1']"
    assert (again["x-cache"], again.body) == ("HIT", first.body)
    assert first["vary"] == "Accept-Encoding, X-Country, Cookie"
    line = site.record(again)
    assert line["script"]["names"] == ["signed_url.py", "normalise.py", "client_class.py", "ab_test.py"]
    assert line["script"]["log"] == {"token": "k", "client_class": "dach", "ab": "b"}
    assert line["script"]["rewritten"] == "http://edge.test/film/1?a=2&b=1"
    assert "token" not in line["cache_key"]


def test_each_pair_of_bucket_and_class_has_a_copy_of_its_own(site: Edge) -> None:
    pairs = [(bucket, country) for bucket in "ab" for country in ("DE", "FR")]
    for expected in ("MISS", "HIT"):
        for bucket, country in pairs:
            answer = site.get("/pairs", f"Cookie: ab={bucket}", f"X-Country: {country}")
            name = "dach" if country == "DE" else "other"
            assert (answer.text, answer["x-cache"]) == (f"['/pairs', ['{bucket}'], ['{name}'], None]", expected)


def test_who_is_refused_is_put_into_no_bucket(site: Edge) -> None:
    answer = site.get("/film/2")
    assert (answer.status, answer.get("set-cookie"), answer.get("vary")) == (403, None, None)
    assert site.logged(answer) == {"token": "refused: no token"}


def test_no_script_makes_a_way_round_the_token(site: Edge) -> None:
    """What another script takes off a request must not make of it one that needed a token."""
    for target in ("/film/3?utm_source=x&token=", "/fil%6D/3", "/film/3?toke%6E=x&gclid=1", "/static/../film/3"):
        assert site.get(target, "X-Country: DE").status == 403, target
    assert not site.origin.seen("/film/3")


def test_a_purge_by_url_takes_all_of_its_copies(site: Edge) -> None:
    copies = [("Cookie: ab=a", "X-Country: DE"), ("Cookie: ab=b", "X-Country: FR")]
    for fields in copies:
        site.get("/purged", *fields)
    assert [site.get("/purged", *fields)["x-cache"] for fields in copies] == ["HIT", "HIT"]
    site.node.command("purge", "http://edge.test/purged")
    assert [site.get("/purged", *fields)["x-cache"] for fields in copies] == ["MISS", "MISS"]


def test_what_is_validated_in_the_background_is_what_the_bucket_was_served(site: Edge) -> None:
    counted = counting("Cache-Control: max-age=0, stale-while-revalidate=60")
    site.origin.on("/stale", counted)
    for bucket in "ab":
        site.get("/stale", f"Cookie: ab={bucket}", "X-Country: DE")
    assert site.get("/stale", "Cookie: ab=a", "X-Country: DE")["x-cache"] == "STALE"
    seen = site.origin.wait_for("/stale", 3)
    assert [one["x-ab-bucket"] for one in seen] == ["a", "b", "a"]
    assert {one["x-client-class"] for one in seen} == {"dach"}
    old = "answer 1"
    until(lambda: site.get("/stale", "Cookie: ab=a", "X-Country: DE").text != old, "the new one to be bucket a's")
    assert site.get("/stale", "Cookie: ab=b", "X-Country: DE").text == "answer 2"


def test_head_and_ranges_are_answered_from_the_same_copy(site: Edge) -> None:
    fields = ("Cookie: ab=a", "X-Country: DE")
    whole = site.get("/parts", *fields)
    head = site.get("/parts", *fields, method="HEAD")
    part = site.get("/parts", *fields, "Range: bytes=2-7")
    assert (head["x-cache"], head["content-length"]) == ("HIT", str(len(whole.body)))
    assert (part.status, part.body, part["x-cache"]) == (206, whole.body[2:8], "HIT")
