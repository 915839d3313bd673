"""Filter expressions asked of a request before there is a flow: each answer must be the one that mitmproxy's own filter
gives once there is one, whatever the response. And where they may stand, on a node.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mitmproxy import flow as flows
from mitmproxy import flowfilter, http

from edgeproxy.proxy.exchange import Exchange
from edgeproxy.proxy.fields import render
from edgeproxy.scripting.filters import Selector, hosts_of, url_of
from edgeproxy.scripting.messages import client_of, flow_of
from tests.proxy.builders import an_exchange
from tests.scripting.builders import Site
from tests.support import reply

OF_THE_REQUEST = (
    *("~all", "~http", "~tcp", "~udp", "~dns", "~websocket", "~replay", "~replayq", "~replays"),
    *("~m POST", "~m ^GET$", "~u /api", "~u ^http://edge.test/$", "~u [?&]a=1", "~u :8080/", "~u ä", "/api"),
    *("~d edge.test", "~d ^other", "~d ::1", "~d ^edge.test$"),
    *("~hq x-class", '~hq "^X-Class: gold$"', "~hq host", "~hq gold\\s+Accept", "~tq json"),
)
"""What can be told of a request alone."""
OF_A_RESPONSE = (
    *("~q", "~s", "~a", "~e", "~c 404", "~ts json", '~hs "x-class: gold"', "~bs secret"),
    *("~h x-class", '~h "^Server: app"', "~t json"),
)
"""What a response may change."""
OF_MORE = ("~b secret", "~bq secret", "~src 192.0.2.7", "~dst edge", "~marked", "~marker x", "~comment x", "~meta x")
"""What is asked of the flow: a body is not here yet, marks are set by scripts, addresses are seldom asked for."""


def flow_for(exchange: Exchange, body: bytes | None = b"") -> http.HTTPFlow:
    flow, _ = flow_of(exchange, client_of(("192.0.2.7", 4711), ("192.0.2.1", 80), 0.0))
    flow.request.data.content = body
    return flow


RESPONSES: tuple[tuple[int, bytes, dict[str, str]] | None, ...] = (
    None,
    (200, b"secret", {"Content-Type": "application/json", "Server": "app"}),
    (404, b"", {"X-Class": "gold"}),
    (304, b"", {}),
    (200, b"body{}", {"Content-Type": "text/css"}),
)


def with_responses(exchange: Exchange) -> list[http.HTTPFlow]:
    """The request's flow at its beginning, and with all that may become of it."""
    found = []
    for body, responses in ((None, RESPONSES), (b"", RESPONSES[:2]), (b"the secret", RESPONSES[:1])):
        for response in responses:
            flow = flow_for(exchange, body)
            if response is not None:
                flow.response = http.Response.make(*response)
            found.append(flow)
    failed = flow_for(exchange)
    failed.error = flows.Error("no answer")
    return [*found, failed]


HOSTS = st.sampled_from(
    [
        *(b"edge.test", b"EDGE.test", b"edge.test:80", b"edge.test:8080", b"edge.test:", b"edge.test:0"),
        *(b"edge.test:99999", b"other", b"[::1]", b"[::1]:8080", b"127.0.0.1:81", b"", b"xn--bcher-kva.test", b"a_b"),
    ]
)
TARGETS = st.one_of(
    st.sampled_from(
        [b"/", b"/api", b"/API?a=1", b"/x?b=2&a=1", b"/%2Fapi", b"/\xc3\xa4", b"/\xff", b"*", b"//api", b"/a;b"]
    ),
    st.binary(max_size=8).map(lambda rest: b"/" + bytes(byte for byte in rest if byte > 0x20 and byte not in b"#\x7f")),
)
LINES = st.lists(
    st.sampled_from(
        [
            *((b"X-Class", b"gold"), (b"x-class", b"Silver"), (b"X-Class", b""), (b"Accept", b"*/*")),
            *((b"Content-Type", b"application/json"), (b"content-type", b"text/plain"), (b"X-Bytes", b"\xe4\xff")),
            *((b"Server", b"app"), (b"Content-Length", b"5"), (b"Cookie", b"a=1; b=2")),
        ]
    ),
    max_size=4,
)


@st.composite
def exchanges(draw: st.DrawFn) -> Exchange:
    host = draw(HOSTS)
    minor = draw(st.sampled_from([0, 1]))
    lines = [] if minor == 0 and not host else [(b"Host", host)]
    made = an_exchange(
        *lines,
        *draw(LINES),
        method=draw(st.sampled_from([b"GET", b"POST", b"HEAD", b"OPTIONS", b"PURGE"])),
        target=draw(TARGETS),
        minor=minor,
        host=host.lower(),
    )
    if not lines:
        made.lines = [line for line in made.lines if line[0] != b"Host"]
        made.names = {name: value for name, value in made.names.items() if name != b"host"}
    return made


SINGLE = st.one_of(st.sampled_from(OF_THE_REQUEST), st.sampled_from(OF_THE_REQUEST + OF_A_RESPONSE + OF_MORE))
COMPOUNDS = ("{} & !{}", "( {} | {} ) & ( {} | !{} )", "!( {} & {} & {} )", "{} | ( {} & {} )", "!!{}", "!( {} | !{} )")
selector_of = lru_cache(Selector)


def test_every_operator_of_mitmproxys_is_here() -> None:
    known = {kind.code for kind in (*flowfilter.filter_unary, *flowfilter.filter_rex, *flowfilter.filter_int)}
    here = {text.split()[0][1:] for text in OF_THE_REQUEST + OF_A_RESPONSE + OF_MORE if text.startswith("~")}
    assert here == known


@given(exchange=exchanges())
@settings(max_examples=150, deadline=None)
def test_what_is_of_the_request_alone_is_told_at_once(exchange: Exchange) -> None:
    flows = with_responses(exchange)
    for selector in map(selector_of, OF_THE_REQUEST):
        decided = selector.decide(exchange)
        assert decided is selector.decide(exchange)  # from memory
        assert {selector.matches(flow) for flow in flows} == {decided}, selector.expression


@given(exchange=exchanges())
@settings(max_examples=100, deadline=None)
def test_what_a_response_may_change_is_left_open_but_where_the_request_settles_it(exchange: Exchange) -> None:
    flows = with_responses(exchange)
    for selector in map(selector_of, OF_A_RESPONSE):
        decided = selector.decide(exchange)
        found = {selector.matches(flow) for flow in flows}
        assert found == ({True, False} if decided is None else {decided}), selector.expression


@given(exchange=exchanges())
@settings(max_examples=300, deadline=None)
def test_what_expressions_are_asked_of_is_what_mitmproxy_asks(exchange: Exchange) -> None:
    """Whatever expression there may be: it is searched in the same text. Case does not count in hosts."""
    flow = flow_for(exchange)
    assert url_of(exchange) == flow.request.pretty_url.replace("EDGE.test", "edge.test")
    assert hosts_of(exchange) == (flow.request.host, flow.request.pretty_host.lower())
    assert render(exchange.lines) == bytes(flow.request.headers)


@given(exchange=exchanges(), kinds=st.sampled_from(COMPOUNDS), parts=st.lists(SINGLE, min_size=4, max_size=4))
@settings(max_examples=150, deadline=None)
def test_whatever_is_put_together_is_told_as_mitmproxy_has_it(exchange: Exchange, kinds: str, parts: list[str]) -> None:
    selector = Selector(kinds.format(*parts))
    decided = selector.decide(exchange)
    found = {selector.matches(flow) for flow in with_responses(exchange)}
    assert decided is None or found == {decided}
    if set(parts) <= set(OF_THE_REQUEST):
        assert decided is not None


@pytest.mark.parametrize(
    ("expression", "target", "decided"),
    [
        ("", b"/", True),
        ("~u /api & ~c 404", b"/", False),
        ("~u /api & ~c 404", b"/api", None),
        ("~u /api | ~c 404", b"/api", True),
        ("~u /api | ~c 404", b"/", None),
        ("!(~u /api & ~c 404)", b"/", True),
        ("!~u /api", b"/api", False),
        ("~u /api & ~m POST", b"/api", False),
        ("~u \\.css$", b"/a.css", True),
        ("~u \\.css$", b"/a.css?v=1", False),
    ],
)
def test_parts_that_settle_it_do_so(expression: str, target: bytes, decided: Any) -> None:
    assert Selector(expression).decide(an_exchange(target=target)) is decided


def test_targets_that_are_remembered_do_not_pass_for_others() -> None:
    selector = Selector("~d edge.test & ~u /a")
    asked = [(host, target) for host in (b"edge.test", b"b.test") for target in (b"/a", b"/b")]
    for _ in range(2):
        found = [selector.decide(an_exchange(host=host, target=target)) for host, target in asked]
        assert found == [True, False, False, False]


def test_memory_of_targets_has_a_bound() -> None:
    selector = Selector("~u /7$")
    found = [bool(selector.decide(an_exchange_like(b"/%d" % n))) for n in range(20_000)]
    assert [n for n, one in enumerate(found) if one] == [7]


def an_exchange_like(target: bytes) -> Exchange:
    _SHARED.target = target
    _SHARED.key = b"http://edge.test" + target
    return _SHARED


_SHARED = an_exchange()


@pytest.mark.parametrize("expression", ["~", "~u", "~nothing", "(~u a", "~u [", "~c many"])
def test_what_mitmproxy_can_not_parse_is_an_error(expression: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Selector(expression)


# --- on a node: where expressions may stand, and which of them counts

PLAIN = """
def request(flow): flow.metadata["edge"]["log"]["plain"] = "request"
def response(flow): flow.metadata["edge"]["log"]["plain"] = "response"
"""
OWN = """
edge_filter = "~u /own"

class Other:
    edge_filter = "~u /other"
    def request(self, flow): flow.metadata["edge"]["log"]["other"] = "request"

class Without:
    def request(self, flow): flow.metadata["edge"]["log"]["without"] = "request"

addons = [Other(), Without()]

def request(flow): flow.metadata["edge"]["log"]["module"] = "request"
"""
CONFIGURED = """
edge_filter = "~u /never"

class Late:
    edge_filter = "~u /never"
    def request(self, flow): flow.metadata["edge"]["log"]["late"] = "request"
    def response(self, flow): flow.metadata["edge"]["log"]["late"] = "response"

addons = [Late()]
"""


@pytest.fixture(scope="module")
def filtered() -> Iterator[Site]:
    with Site(PLAIN, OWN, CONFIGURED, addons={"filter": "~u /default"}, filters={2: "~c 404"}) as site:
        site.origin.default = reply(b"no", status="404 Not Found")
        site.origin.on("/found", reply())
        yield site


@pytest.mark.parametrize(
    ("path", "names", "logged"),
    [
        ("/found", [], {}),
        ("/missing", ["script2.py"], {"late": "response"}),
        ("/default", ["script.py", "script2.py"], {"plain": "response", "late": "response"}),
        ("/own", ["script1.py", "script2.py"], {"module": "request", "without": "request", "late": "response"}),
        ("/other", ["script1.py", "script2.py"], {"other": "request", "late": "response"}),
        ("/never", ["script2.py"], {"late": "response"}),
    ],
)
def test_the_configuration_wins_over_a_script_and_that_over_the_default(
    filtered: Site, path: str, names: list[str], logged: dict[str, str]
) -> None:
    with filtered.watched():
        script = filtered.script(filtered.get(path))
    assert (script["names"], script["log"]) == (names, logged)
