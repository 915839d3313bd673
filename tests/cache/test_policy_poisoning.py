"""Known patterns of web cache poisoning and web cache deception, as far as policy can tell them."""

import pytest

from edgeproxy.cache.policy import Verdict
from edgeproxy.cache.rules import Rules
from tests.cache.messages import DAY_S, SAFE, Line, date, storing

FRESH = ("Cache-Control", "max-age=60")
GUESSED = ("Last-Modified", date(-DAY_S))
TTL = Rules(ttl_ns=10**11)


@pytest.mark.parametrize(
    "name",
    [
        *("X-Forwarded-Scheme", "X-Forwarded-Port", "X-Forwarded-Prefix", "X-Forwarded-Server", "X-Forwarded-SSL"),
        *("X-Host", "X-HTTP-Host-Override", "X-Original-Host", "X-Original-URL", "X-Rewrite-URL", "X-Original-URI"),
        *("X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override", "Front-End-Https", "X-Middleware-Prefetch"),
        *("X_Forwarded_Host", "X_Forwarded_Proto", "X-Forwarded_For", "X_Original_URL"),
    ],
)
def test_what_a_request_with_unkeyed_input_got_is_nobody_elses(name: str) -> None:
    decision = storing(FRESH, request=[("Accept", "*/*"), (name, "evil.example")])
    assert decision.verdict is Verdict.UNKEYED_INPUT
    assert decision.verdict.of_request


def test_not_even_on_a_routes_word() -> None:
    assert storing(FRESH, request=[("X-Host", "evil.example")], rules=TTL).verdict is Verdict.UNKEYED_INPUT


def test_input_that_selects_the_stored_response_is_keyed() -> None:
    request = [("X-Forwarded-Scheme", "http"), ("X-Custom", "a")]
    decision = storing(FRESH, ("Vary", "X-Forwarded-Scheme"), request=request)
    assert decision.store
    assert decision.vary == (b"x-forwarded-scheme",)


def test_input_that_the_route_keys_is_keyed() -> None:
    rules = Rules(keyed=(b"x-forwarded-port",))
    assert storing(FRESH, request=[("X-Forwarded-Port", "443")], rules=rules).store
    both = [("X-Forwarded-Port", "443"), ("X-Host", "evil.example")]
    assert storing(FRESH, request=both, rules=rules).verdict is Verdict.UNKEYED_INPUT


def test_every_such_field_has_to_be_keyed() -> None:
    request = [("X-Forwarded-Scheme", "http"), ("X-Host", "evil.example")]
    assert storing(FRESH, ("Vary", "X-Forwarded-Scheme"), request=request).verdict is Verdict.UNKEYED_INPUT


@pytest.mark.parametrize(
    "name",
    ["X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "Forwarded", "Via", "Cookie", "X-Custom", "x_y"],
)
def test_fields_that_the_edge_sets_itself_or_nobody_acts_on_harm_nothing(name: str) -> None:
    assert storing(FRESH, request=[(name, "evil.example")]).verdict is Verdict.STORE


# --- deception: a private page under the name of a public file

PAGE = "text/html; charset=utf-8"


@pytest.mark.parametrize(
    "target",
    [
        *(
            "/account/x.css",
            "/account/x.CSS",
            "/account/x.js?v=1",
            "/account;x.css",
            "/account%2fx.png",
            "/account%3bx.css",
        ),
        *(
            "/account%0ax.css",
            "/account%00.ico",
            "/account%3fx.svg",
            "/account%23x.woff2",
            "/account/.css",
            "/a.php/b.jpg",
        ),
        *(
            "/account/x.pdf",
            "/account/x.zip",
            "/account/x.txt",
            "/account/x.mp4",
            "/account/x.json",
            "/account/a.b.gif",
        ),
    ],
)
@pytest.mark.parametrize(
    ("lines", "rules"),
    [
        pytest.param([], TTL, id="ttl"),
        pytest.param([("Cache-Control", "max-age=0")], Rules(ttl_min_ns=10**11), id="ttl-min"),
        pytest.param([], Rules(default_ttl_ns=10**11), id="default-ttl"),
        pytest.param([], Rules(status_ttl_ns={200: 10**11}), id="status-ttl"),
        pytest.param([GUESSED], SAFE, id="heuristic"),
        pytest.param([("ETag", '"a"')], SAFE, id="no-lifetime"),
    ],
)
def test_a_page_under_a_files_name_is_not_stored_unless_the_origin_says_so(
    target: str, lines: list[Line], rules: Rules
) -> None:
    page = ("Content-Type", PAGE)
    assert storing(page, *lines, target=target.encode(), rules=rules).verdict is Verdict.DECEPTION
    assert storing(page, FRESH, target=target.encode()).verdict is Verdict.STORE


@pytest.mark.parametrize(
    ("target", "media"),
    [
        ("/x.css", "text/css"),
        ("/x.css", "Text/CSS; charset=utf-8"),
        ("/x.js", "application/javascript"),
        ("/x.js", "text/javascript"),
        ("/x.png", "image/webp"),
        ("/x.svg", "image/svg+xml"),
        ("/x.woff2", "font/woff2"),
        ("/x.woff2", "application/font-woff2"),
        ("/x.json", "application/json"),
        ("/x.pdf", "application/pdf"),
        ("/x.zip", "application/zip"),
        ("/x.zip", "application/octet-stream"),
        ("/x.png", "application/octet-stream"),
        ("/x.mp4", "video/mp4"),
        ("/x.m3u8", "application/vnd.apple.mpegurl"),
        ("/x.txt", "text/plain"),
        ("/x.html", PAGE),
        ("/x.php", PAGE),
        ("/x", PAGE),
        ("/", PAGE),
        ("/v1.2", PAGE),
        ("/example.com", PAGE),
        ("/x?file=y.css", PAGE),
        ("/a..b/x%20y.css", "text/css"),
    ],
)
def test_a_file_is_what_it_looks_like_and_a_page_too(target: str, media: str) -> None:
    assert storing(("Content-Type", media), target=target.encode(), rules=TTL).verdict is Verdict.STORE


@pytest.mark.parametrize(
    ("target", "media"),
    [
        ("/x.css", "text/html"),
        ("/x.css", "application/json"),
        ("/x.zip", "application/json"),
        ("/x.woff2", "application/problem+json"),
        ("/x.pdf", "application/xhtml+xml"),
        ("/x.json", "application/ld+json"),
        ("/x.js", "application/json"),
        ("/x.png", "text/css"),
        ("/x.css", ""),
    ],
)
def test_data_and_what_states_no_type_are_no_files_either(target: str, media: str) -> None:
    assert storing(("Content-Type", media), target=target.encode(), rules=TTL).verdict is Verdict.DECEPTION


def test_a_missing_type_is_no_file() -> None:
    assert storing(target=b"/x.css", rules=TTL).verdict is Verdict.DECEPTION


@pytest.mark.parametrize(
    "target",
    [
        *("/static/../account", "/static/..%2faccount", "/static/%2e%2e/account", "/static/%2E%2e%2faccount"),
        *("/static/..%5caccount", "/static/..\\account", "/static/..;/account", "/static/..;x=1/account", "/static/.."),
        *("/static/%252e%252e%252faccount", "/static/%2e%2e%3b/account"),
    ],
)
def test_a_path_that_climbs_out_of_its_folder_is_not_what_the_route_takes_it_for(target: str) -> None:
    page = ("Content-Type", PAGE)
    assert storing(page, target=target.encode(), rules=TTL).verdict is Verdict.DECEPTION
    assert storing(page, FRESH, target=target.encode()).verdict is Verdict.STORE


def test_errors_and_redirects_under_a_files_name_are_what_they_are() -> None:
    page = ("Content-Type", PAGE)
    assert storing(page, status=404, target=b"/x.css", rules=Rules(status_ttl_ns={404: 10**11})).store
    assert storing(page, status=301, target=b"/x.css", rules=TTL).store
