"""conf/addons/client_class.py: a class is served what is its own, and nobody gets into another by saying so."""

from collections.abc import Iterator
from contextlib import ExitStack
from types import SimpleNamespace

import pytest
from mitmproxy import exceptions

from tests.cache.scripted import FRESH
from tests.scripting.engines import Mitmdump, get
from tests.scripting.examples.scripts import Edge, edge, module, path_of
from tests.support import Conversation, Origin, Response, reply

script = module("client_class")
CLASSES = ["dach=DE,AT,CH", "us=US"]
HERE = ["127.0.0.0/8"]


def told(talk: Conversation) -> None:
    """Answers with the class and the path that it was asked for."""
    request = talk.request
    reply(f"{request.values('x-client-class')} {request.target} {request['host']}".encode(), FRESH)(talk)


@pytest.fixture(scope="module")
def site() -> Iterator[Edge]:
    """One origin that is told the class; the load balancer is whoever connects from 127.0.0.2."""
    options = {"client_class_classes": CLASSES, "client_class_trusted": ["127.0.0.2/32", "::1/128"]}
    with edge("client_class", options=options) as found:
        found.origin.default = told
        yield found


def asked(site: Edge, target: str, *fields: str, source: str = "127.0.0.2", method: str = "GET") -> Response:
    """As the load balancer asks, or somebody else."""
    with site.node.connect(source=source) as client:
        return client.get(target, *fields, method=method)


def test_the_header_makes_the_class(site: Edge) -> None:
    for country, name in (
        ("DE", "dach"),
        ("ch", "dach"),
        (" AT ", "dach"),
        ("US", "us"),
        ("FR", "other"),
        ("", "other"),
    ):
        answer = asked(site, f"/class/{country.strip()}", f"X-Country: {country}")
        assert answer.text.startswith(f"['{name}']"), country
        assert site.logged(answer) == {"client_class": name}
        assert answer["vary"] == "X-Country"


def test_hits_are_those_of_the_class(site: Edge) -> None:
    countries = ["DE", "AT", "US", "FR", "CH", "US", "IT"]
    answers = [asked(site, "/hits", f"X-Country: {country}") for country in countries]
    assert [one["x-cache"] for one in answers] == ["MISS", "HIT", "MISS", "MISS", "HIT", "HIT", "HIT"]
    assert [one.text[2:4] for one in answers] == ["da", "da", "us", "ot", "da", "us", "ot"]


def test_nobody_but_the_load_balancer_is_believed(site: Edge) -> None:
    asked(site, "/trust", "X-Country: US")
    answer = asked(site, "/trust", "X-Country: US", source="127.0.0.3")
    assert answer.text.startswith("['other']")
    assert site.logged(answer) == {"client_class": "other"}


@pytest.mark.parametrize(
    "value", ["DE, US", "DE US", "D", "DEU", "*", "[A-Z][A-Z]", "DE\t,", "\uff24\uff25", "DE" * 2000]
)
def test_a_value_that_is_none_is_everybody_elses(site: Edge, value: str) -> None:
    answer = asked(site, "/odd", f"X-Country: {value.encode().decode('latin-1')}")
    assert answer.text.startswith("['other']")


def test_two_headers_that_differ_are_worth_nothing(site: Edge) -> None:
    assert asked(site, "/two", "X-Country: DE", "X-Country: US").text.startswith("['other']")


@pytest.mark.parametrize("name", ["X-Client-Class", "x-client-class", "X_Client_Class", "X-Country", "X_Country"])
@pytest.mark.parametrize("source", ["127.0.0.2", "127.0.0.3"])
def test_the_origin_is_told_by_the_edge_alone(site: Edge, name: str, source: str) -> None:
    path = f"/told/{name}/{source}"
    asked(site, path, f"{name}: evil", source=source)
    (seen,) = site.origin.seen(path)
    assert b"evil" not in seen.raw_head
    assert seen["x-client-class"] == "other"


def test_no_client_takes_off_what_the_origin_is_told(site: Edge) -> None:
    asked(site, "/connection", "X-Country: US", "Connection: X-Client-Class")
    asked(site, "/connection", "X-Country: DE", "Connection: X-Country")
    assert {one["x-client-class"] for one in site.origin.seen("/connection")} <= {"us", "dach", "other"}
    assert asked(site, "/connection", "X-Country: US").text.startswith("['us']")
    assert asked(site, "/connection", "X-Country: DE").text.startswith("['dach']")


def test_vary_is_added_to_what_the_origin_says(site: Edge) -> None:
    site.origin.on("/vary-more", reply(b"", "Vary: Accept-Encoding"))
    site.origin.on("/vary-any", reply(b"", "Vary: *"))
    site.origin.on("/vary-same", reply(b"", "Vary: x-country"))
    found = [asked(site, path)["vary"] for path in ("/vary-more", "/vary-any", "/vary-same")]
    assert found == ["Accept-Encoding, X-Country", "*", "x-country"]


def test_the_origin_may_be_told_the_header_too() -> None:
    options = {"client_class_classes": CLASSES, "client_class_trusted": ["127.0.0.2/32"], "client_class_keep": True}
    with edge("client_class", options=options) as site:
        asked(site, "/kept", "X-Country: AT", "X_Country: evil")
        asked(site, "/not-kept", "X-Country: AT", source="127.0.0.3")
        (kept,), (dropped,) = site.origin.seen("/kept"), site.origin.seen("/not-kept")
        assert (kept["x-country"], kept["x-client-class"]) == ("AT", "dach")
        assert b"evil" not in kept.raw_head
        assert (dropped.get("x-country"), dropped["x-client-class"]) == (None, "other")


def test_classes_have_origins_of_their_own() -> None:
    with ExitStack() as stack:
        us = stack.enter_context(Origin())
        options = {
            "client_class_classes": CLASSES,
            "client_class_trusted": HERE,
            "client_class_places": [f"us={us.url}"],
        }
        site = stack.enter_context(edge("client_class", options=options))
        us.default = site.origin.default = told
        first = [site.get("/o", f"X-Country: {country}") for country in ("US", "DE", "FR")]
        again = [site.get("/o", f"X-Country: {country}") for country in ("US", "DE", "FR")]
        assert [one["x-cache"] for one in first + again] == ["MISS"] * 3 + ["HIT"] * 3
        assert [one.body for one in first] == [one.body for one in again]
        assert (len(us.requests), len(site.origin.requests)) == (1, 2)
        assert us.requests[0]["host"] == "edge.test"  # the client's, not the server's
        assert first[0].text == "['us'] /o edge.test"


def test_classes_have_paths_of_their_own_and_nobody_names_anothers() -> None:
    options = {
        "client_class_classes": CLASSES,
        "client_class_trusted": HERE,
        "client_class_places": ["us=/us", "dach=/dach", "other=/world"],
    }
    with edge("client_class", options=options) as site:
        site.origin.default = told
        assert site.get("/p?q", "X-Country: US").text == "['us'] /us/p?q edge.test"
        assert site.get("/p?q").text == "['other'] /world/p?q edge.test"
        assert site.get("/us/p").text == "['other'] /world/us/p edge.test"
        before = len(site.origin.requests)
        for target in (
            *("/../us/p", "/%2e%2e/us/p", "/.%2E/us/p", "/%252e%252e/us/p", "/..%2fus/p", "/..\\us\\p", "/..;/us/p"),
            *("/x/../../us/p", "/..%00/us/p", "/..%20/us", "/..", "/%2e%2e%5cus/p"),
        ):
            assert site.get(target, "X-Country: DE").status == 400, target
        assert len(site.origin.requests) == before
        assert site.get("/a..b/.well-known/...x").status == 200


def test_devices_are_classes_as_well() -> None:
    options = {
        "client_class_header": "User-Agent",
        "client_class_classes": ["bot=*bot*,*crawler*", "mobile=*Mobile*,*Android*"],
        "client_class_trusted": ["0.0.0.0/0", "::/0"],
        "client_class_default": "desktop",
        "client_class_keep": True,
    }
    with edge("client_class", options=options) as site:
        site.origin.default = told
        agents = ["Mozilla/5.0 (iPhone) Mobile/15E", "Googlebot/2.1", "Mozilla/5.0 (X11; Linux)", "SomeBot Mobile"]
        answers = [site.get("/ua", f"User-Agent: {agent}") for agent in agents]
        assert [one.text.split("'")[1] for one in answers] == ["mobile", "bot", "desktop", "bot"]
        assert [one["x-cache"] for one in answers] == ["MISS", "MISS", "MISS", "HIT"]
        assert site.origin.requests[0]["user-agent"] == agents[0]


def test_stock_mitmdump_runs_it(origin: Origin) -> None:
    with Origin() as us:
        options = {
            "client_class_classes": CLASSES,
            "client_class_trusted": HERE,
            "client_class_places": [f"us={us.url}"],
        }
        with Mitmdump(origin.url, path_of("client_class"), options=options) as proxy:
            get(proxy, "/m", "X-Country: US")
            get(proxy, "/m", "X-Country: DE")
        assert [(seen["host"], seen["x-client-class"]) for seen in us.requests] == [("edge.test", "us")]
        assert [(seen["host"], seen["x-client-class"]) for seen in origin.requests] == [("edge.test", "dach")]


# --- its parts


@pytest.mark.parametrize("text", ["", "dach", "dach=", "=DE", "d ach=DE", "dach=,", "a\nb=DE"])
def test_a_class_that_is_none_is_named(text: str) -> None:
    with pytest.raises(exceptions.OptionsError, match="client_class_classes has"):
        script.parse_class(text)


def test_classes_of_which_nobody_is_believed_are_a_mistake() -> None:
    values = {"trusted": [], "classes": CLASSES, "places": [], "default": "other"}
    script.ctx.options = SimpleNamespace(**{f"client_class_{name}": value for name, value in values.items()})
    try:
        with pytest.raises(exceptions.OptionsError, match="nobody's header would be believed"):
            script.ClientClass().configure({"client_class_classes"})
        script.ctx.options.client_class_trusted = ["10.0.0.1/8"]
        with pytest.raises(exceptions.OptionsError, match=r"client_class_trusted: .* has host bits set"):
            script.ClientClass().configure({"client_class_trusted"})
        script.ctx.options.client_class_trusted = ["10.0.0.0/8"]
        script.ClientClass().configure({"client_class_trusted"})
    finally:
        del script.ctx.options


@pytest.mark.parametrize(
    "places",
    [
        {"fr": "http://10.0.0.5"},
        {"us": "ftp://10.0.0.5"},
        {"us": "http://10.0.0.5/path"},
        {"us": "http://"},
        {"us": "us"},
        {"us": ""},
        {"us": "/us"},
        {"us": "/us", "dach": "/dach"},
        {"us": "/us", "dach": "/dach", "other": "http://10.0.0.5"},
        {"us": "/us/", "dach": "/dach", "other": "/world"},
        {"us": "/..", "dach": "/dach", "other": "/world"},
        {"us": "/u?s", "dach": "/dach", "other": "/world"},
    ],
)
def test_places_that_can_not_be_meant_are_named(places: dict[str, str]) -> None:
    with pytest.raises(exceptions.OptionsError, match="client_class_places"):
        script.check_places(places, {"us", "dach", "other"})


def test_places_that_can_be_meant() -> None:
    script.check_places({}, {"us", "other"})
    script.check_places({"us": "http://10.0.0.5:8000", "other": "https://[2001:db8::1]"}, {"us", "other"})
    script.check_places({"us": "/us", "other": "/world/v2"}, {"us", "other"})


@pytest.mark.parametrize(
    ("peer", "is_trusted"),
    [
        (("10.1.2.3", 1), True),
        (("11.1.2.3", 1), False),
        (("::ffff:10.1.2.3", 1, 0, 0), True),
        (("2001:db8::1", 1, 0, 0), True),
        (("2001:db9::1", 1, 0, 0), False),
        (("fe80::1%eth0", 1, 0, 0), False),
        (None, False),
    ],
)
def test_a_peer_is_trusted_by_its_address(peer: tuple[object, ...] | None, is_trusted: bool) -> None:
    addon = script.ClientClass()
    addon.trusted = [script.ip_network("10.0.0.0/8"), script.ip_network("2001:db8::/32")]
    assert addon.is_trusted(SimpleNamespace(client_conn=SimpleNamespace(peername=peer))) is is_trusted
