"""conf/addons/normalise.py: what means the same shares one response, and what does not never does."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cache.scripted import FRESH
from tests.scripting.engines import Mitmdump, get
from tests.scripting.examples.scripts import Edge, edge, module, path_of
from tests.support import Conversation, Origin, reply

script = module("normalise")


def told(talk: Conversation) -> None:
    """Answers with what it was asked, by the fields that vary."""
    request = talk.request
    asked = [request.target, *(request.get(name) for name in ("accept-language", "accept-encoding", "cookie"))]
    reply(repr(asked).encode(), FRESH, "Vary: Accept-Language, Accept-Encoding, Cookie")(talk)


@pytest.fixture(scope="module")
def site() -> Iterator[Edge]:
    with edge("normalise", options={"normalise_languages": ["en", "de", "pt-BR"]}) as found:
        found.origin.default = told
        yield found


def alike(site: Edge, *requests: tuple[str, ...]) -> list[str]:
    """What the cache said to each."""
    answers = [site.get(target, *fields) for target, *fields in requests]
    assert len({one.body for one in answers if one["x-cache"] == "HIT"}) <= 1
    return [one["x-cache"] for one in answers]


def test_tracking_parameters_make_no_other_key(site: Edge) -> None:
    assert alike(
        site,
        ("/t?a=1",),
        ("/t?utm_source=x&a=1",),
        ("/t?a=1&gclid=abc&fbclid=&utm_campaign",),
        ("/t?%75tm_source=x&a=1",),
        ("/t?a=1&utm%5Fsource=x",),
    ) == ["MISS", "HIT", "HIT", "HIT", "HIT"]
    (seen,) = site.origin.seen("/t")
    assert seen.target == "/t?a=1"


def test_a_query_of_which_nothing_stays_goes_with_its_mark(site: Edge) -> None:
    assert alike(site, ("/q",), ("/q?utm_source=x",), ("/q?",), ("/q?&&",)) == ["MISS", "HIT", "HIT", "HIT"]


def test_the_order_of_parameters_makes_no_other_key_but_that_of_one_name_does(site: Edge) -> None:
    assert alike(site, ("/o?a=1&b=2",), ("/o?b=2&a=1",)) == ["MISS", "HIT"]
    assert alike(site, ("/o?c=1&c=2",), ("/o?c=2&c=1",)) == ["MISS", "MISS"]
    assert alike(site, ("/o?d=1&%64=2",), ("/o?%64=2&d=1",)) == ["MISS", "MISS"]


def test_values_are_what_they_were(site: Edge) -> None:
    assert alike(site, ("/v?a=%2F",), ("/v?a=/",), ("/v?a",), ("/v?a=",), ("/v?a=A",), ("/v?a=a",)) == ["MISS"] * 6


def test_languages_are_folded_into_those_that_there_are(site: Edge) -> None:
    german = ("/l", "Accept-Language: de-CH,de;q=0.9,en;q=0.8")
    assert alike(site, german, ("/l", "Accept-Language: DE"), ("/l", "accept-language: fr, de ;q=0.1")) == [
        *("MISS", "HIT", "HIT")
    ]
    assert [seen["accept-language"] for seen in site.origin.seen("/l")] == ["de"]


def test_encodings_are_folded_into_those_that_there_are(site: Edge) -> None:
    both = ("/e", "Accept-Encoding: gzip, deflate, br, zstd")
    assert alike(site, both, ("/e", "Accept-Encoding: BR;q=1.0, GZIP;q=0.5"), ("/e", "Accept-Encoding: *")) == [
        *("MISS", "HIT", "HIT")
    ]
    assert alike(site, ("/e", "Accept-Encoding: gzip"), ("/e", "Accept-Encoding: x-gzip, br;q=0")) == ["MISS", "HIT"]
    assert alike(site, ("/e",), ("/e", "Accept-Encoding: deflate"), ("/e", "Accept-Encoding: gzip;q=0")) == [
        *("MISS", "HIT", "HIT")
    ]
    assert [seen["accept-encoding"] for seen in site.origin.seen("/e")] == ["br, gzip", "gzip", "identity"]


def test_static_files_are_asked_for_without_cookies(site: Edge) -> None:
    assert alike(site, ("/static/x", "Cookie: session=1"), ("/static/x",), ("/static/x", "Cookie: b=2")) == [
        *("MISS", "HIT", "HIT")
    ]
    assert site.origin.seen("/static/x")[0].get("cookie") is None


@pytest.mark.parametrize("target", ["/page?x=/static/a.css", "/Static/x", "/page.css/x", "/page%2Ecss", "/account"])
def test_other_paths_keep_their_cookies(site: Edge, target: str) -> None:
    site.get(target, "Cookie: session=1")
    assert site.origin.requests[-1]["cookie"] == "session=1"


def test_nobodys_private_page_is_taken_for_a_static_file(site: Edge) -> None:
    """Asked for as `x.css`, an account's page is asked for without its cookie, and so is nobody's."""
    answer = site.get("/account/x.css", "Cookie: session=alice")
    assert "alice" not in answer.text
    assert site.get("/account/x.css").body == answer.body


def test_the_log_has_the_request_as_it_came(site: Edge) -> None:
    answer = site.get("/log?utm_source=x&b=1&a=2")
    line = site.record(answer)
    assert (line["path"], line["query"]) == ("/log", "utm_source=x&b=1&a=2")
    assert line["script"]["rewritten"] == "http://edge.test/log?a=2&b=1"


def test_a_huge_query_is_no_burden(site: Edge) -> None:
    many = "&".join(f"utm_{number}=x" for number in range(400))
    assert site.get(f"/huge?{many}&a=1").status == 200
    assert site.origin.requests[-1].target == "/huge?a=1"


def test_stock_mitmdump_runs_it(origin: Origin) -> None:
    with Mitmdump(origin.url, path_of("normalise"), options={"normalise_languages": ["en", "de"]}) as proxy:
        get(proxy, "/s.css?b&gclid=1&a", "Accept-Language: de-AT", "Cookie: x=1")
    (seen,) = origin.requests
    assert seen.target == "/s.css?a&b"
    assert (seen["accept-language"], seen["accept-encoding"], seen.get("cookie")) == ("de", "identity", None)


# --- its parts


@pytest.mark.parametrize(
    ("asked", "known", "normal"),
    [
        ("de-CH, de;q=0.9, en;q=0.8", [], "de-ch,de;q=0.9,en;q=0.8"),
        ("de-CH, de;q=0.9, en;q=0.8", ["en", "de"], "de"),
        ("en;q=0.8, de", ["en", "de"], "de"),
        ("de, en", ["en", "de"], "de"),
        ("en, de", ["en", "de"], "en"),
        ("fr", ["en", "de"], "en"),
        ("", ["en", "de"], "en"),
        ("*", ["en", "de"], "en"),
        ("en;q=0, *", ["en", "de"], "de"),
        ("de;q=0, en;q=0.1", ["de", "en"], "en"),
        ("de;q=0", ["en", "de"], "en"),
        ("de-CH;q=0", ["en", "de"], "en"),
        ("pt", ["en", "pt-BR"], "pt-BR"),
        ("PT-br", ["en", "pt-BR"], "pt-BR"),
        ("den", ["en", "de"], "en"),
        ("de;q=2", ["en", "de"], "en"),
        ("de;q=abc", ["en", "de"], "en"),
        ("de; q = 0.7 , fr", ["en", "de"], "de"),
        (";;;,,,=", ["en"], "en"),
    ],
)
def test_languages(asked: str, known: list[str], normal: str) -> None:
    assert script.normal_languages(asked, known) == normal


@pytest.mark.parametrize(
    ("asked", "normal"),
    [
        ("", "identity"),
        ("gzip", "gzip"),
        ("br", "br"),
        ("gzip, br", "br, gzip"),
        ("br;q=0, gzip", "gzip"),
        ("br;q=0.0, gzip;q=0.000", "identity"),
        ("*", "br, gzip"),
        ("*;q=0, gzip", "gzip"),
        ("gzip;q=0, *", "br"),
        ("identity", "identity"),
        ("brotli, gz", "identity"),
        ("gzip;q=1.1", "identity"),
        ("gzip;level=9", "gzip"),
        ("X-GZIP", "gzip"),
    ],
)
def test_encodings(asked: str, normal: str) -> None:
    assert script.normal_encodings(asked, ["br", "gzip"]) == normal


@given(st.text(alphabet="abdegnzip*;q=0.15, -\t", max_size=60))
def test_whatever_is_asked_for_comes_to_one_of_few(asked: str) -> None:
    assert script.normal_encodings(asked, ["br", "gzip"]) in {"br, gzip", "br", "gzip", "identity"}
    assert script.normal_languages(asked, ["en", "de"]) in {"en", "de"}


@given(st.lists(st.tuples(st.sampled_from(["a", "b", "%61", "utm_x"]), st.integers(0, 9)), max_size=8))
def test_no_parameter_that_stays_is_lost_or_moved_among_its_like(pairs: list[tuple[str, int]]) -> None:
    addon = script.Normalise()
    addon.dropped = script.any_of(["utm_*"])
    from types import SimpleNamespace

    script.ctx.options = SimpleNamespace(normalise_sort=True)
    try:
        normal = addon.normal_query("&".join(f"{name}={value}" for name, value in pairs))
    finally:
        del script.ctx.options
    kept = [tuple(part.split("=")) for part in normal.split("&") if part]
    for names in (("a", "%61"), ("b",)):
        assert [(n, v) for n, v in kept if n in names] == [(n, str(v)) for n, v in pairs if n in names]
    assert all(name != "utm_x" for name, _ in kept)
