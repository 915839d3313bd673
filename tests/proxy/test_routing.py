"""Which route a request takes."""

import time
from fnmatch import fnmatchcase
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeproxy.cache.rules import SECOND_NS, Rules, SetCookie
from edgeproxy.config import Cache, Config, Origin, Route, RouteCache
from edgeproxy.proxy.routing import Routes, Target

ORIGINS = [Origin(name=name, urls=["http://127.0.0.1:8000"]) for name in ("first", "second", "third")]


def routes(*found: Route, cache: Cache | None = None) -> Routes:
    return Routes(Config(origin=ORIGINS, route=list(found), cache=cache or Cache()))


def target(settings: RouteCache, cache: Cache | None = None) -> Target:
    """That of a route with these cache settings."""
    found = routes(Route(match="/*", origin="first", cache=settings), cache=cache).find(b"edge.test", b"/")
    assert found is not None
    return found


def taken(found: Routes, target: bytes, host: bytes = b"edge.test") -> str | None:
    route = found.find(host, target)
    return route.origin if route else None


@pytest.mark.parametrize(
    ("match", "path", "does"),
    [
        ("/*", b"/", True),
        ("/*", b"/a/b?c", True),
        ("/a", b"/a", True),
        ("/a", b"/a/", False),
        ("/a", b"/ab", False),
        ("/a/*", b"/a/", True),
        ("/a/*", b"/a/b/c", True),
        ("/a/*", b"/a", False),
        ("/a*", b"/abc", True),
        ("*.css", b"/x/y.css", True),
        ("*.css", b"/x/y.css.map", False),
        ("/a/*/z", b"/a/b/c/z", True),
        ("/a/*/z", b"/a/z", False),
        ("/*/x/*", b"/1/x/2", True),
        ("/a.b", b"/aXb", False),
        ("/a+(b)", b"/a+(b)", True),
        ("/a[0-9]", b"/a5", False),
        ("/A", b"/a", False),
        ("/%41", b"/A", False),
    ],
)
def test_a_star_stands_for_any_run_of_characters_and_all_else_for_itself(match: str, path: bytes, does: bool) -> None:
    assert (taken(routes(Route(match=match, origin="first")), path) is not None) is does


@pytest.mark.parametrize(
    ("pattern", "host", "does"),
    [
        ("", b"anything", True),
        ("", b"", True),
        ("www.example.com", b"www.example.com", True),
        ("www.example.com", b"www.example.com:8080", True),
        ("www.example.com", b"example.com", False),
        ("www.example.com", b"www.example.com.evil.test", False),
        ("*.example.com", b"a.example.com", True),
        ("*.example.com", b"a.b.example.com:80", True),
        ("*.example.com", b"example.com", False),
        ("*.example.com", b"evilexample.com", False),
        ("[2001:db8::1]", b"[2001:db8::1]:8080", True),
        ("www.example.com", b"www.example.com.", True),
        ("www.example.com", b"www.example.com.:8080", True),
        ("www.example.com", b"www.example.com..", False),
        ("www.example.com.", b"www.example.com", True),
        ("www.example.com.", b"www.example.com.", True),
        ("*.example.com", b"a.example.com.", True),
        ("*.example.com.", b"a.example.com:80", True),
    ],
)
def test_a_route_may_be_for_a_host_whatever_its_port_and_with_a_dot_at_its_end_or_without(
    pattern: str, host: bytes, does: bool
) -> None:
    found = routes(Route(match="/*", host=pattern, origin="first"))
    assert (taken(found, b"/", host) is not None) is does


def test_the_first_route_that_matches_is_taken() -> None:
    found = routes(
        Route(match="/api/*", host="a.test", origin="first"),
        Route(match="/api/*", origin="second"),
        Route(match="/*", origin="third"),
    )
    assert taken(found, b"/api/x", b"a.test") == "first"
    assert taken(found, b"/api/x", b"b.test") == "second"
    assert taken(found, b"/x", b"a.test") == "third"


def test_a_host_is_looked_at_by_all_routes_alike() -> None:
    found = routes(
        Route(match="/a*", host="a.test", origin="first"),
        Route(match="/a*", host="*.test", origin="second"),
        Route(match="/b*", host="a.test", origin="third"),
    )
    assert taken(found, b"/a", b"a.test:80") == "first"
    assert taken(found, b"/a", b"b.test.:80") == "second"
    assert taken(found, b"/b", b"a.test.") == "third"
    assert taken(found, b"/b", b"b.test") is None


def test_no_route_is_no_target() -> None:
    assert routes(Route(match="/only", origin="first")).find(b"edge.test", b"/other") is None


def test_a_route_that_names_no_origin_leads_to_the_only_one() -> None:
    found = Routes(Config(origin=ORIGINS[:1], route=[Route(match="/*")]))
    assert taken(found, b"/") == "first"


def test_without_settings_a_route_has_the_safe_rules_and_plain_keys() -> None:
    plain = target(RouteCache())
    assert plain.cache
    assert plain.rules == Rules()
    assert plain.key.plain
    assert plain.bypass == ()
    assert Routes(Config(origin=ORIGINS[:1])).find(b"any.test", b"/any") is not None


def test_a_route_says_how_its_responses_are_cached() -> None:
    found = target(
        RouteCache(
            methods=["GET"],
            ttl=1,
            ttl_min=0.5,
            ttl_max=31536000,
            default_ttl=0,
            heuristic=False,
            stale_while_revalidate=60,
            stale_if_error=1e-9,
            set_cookie="strip",
            authorized=True,
            client_no_cache=False,
            max_object_bytes=10,
        )
    )
    assert found.rules == Rules(
        methods=frozenset({b"GET"}),
        ttl_ns=SECOND_NS,
        ttl_min_ns=SECOND_NS // 2,
        ttl_max_ns=31536000 * SECOND_NS,
        default_ttl_ns=0,
        heuristic=False,
        stale_while_revalidate_ns=60 * SECOND_NS,
        stale_if_error_ns=1,
        set_cookie=SetCookie.STRIP,
        authorized=True,
        client_no_cache=False,
        max_object_bytes=10,
    )


def test_a_status_of_its_own_wins_over_its_hundred() -> None:
    ttls = target(RouteCache(status_ttl={"404": 10, "4xx": 1, "200": 0})).rules.status_ttl_ns
    assert len(ttls) == 101
    assert (ttls[400], ttls[404], ttls[499], ttls[200]) == (SECOND_NS, 10 * SECOND_NS, SECOND_NS, 0)
    assert not ttls.keys() & {399, 500, 201}


def test_a_route_says_what_its_keys_are_made_of() -> None:
    settings = [
        RouteCache(query="none"),
        RouteCache(query_allow=["a"]),
        RouteCache(query_deny=["b"], query_sort=True, key_host="normalized"),
        RouteCache(key_headers=["X-A"], key_cookies=["c"], key_host="www.example.com"),
    ]
    names = {b"x-a": b"1", b"cookie": b"c=2"}
    keys = [target(cache).key for cache in settings]
    found = [key.primary(key.url(b"http", b"a.test:80", b"/p?c&b&a"), names) for key in keys]
    assert found == [
        b"http://a.test:80/p",
        b"http://a.test:80/p?a",
        b"http://a.test/p?a&c",
        b"http://www.example.com/p?c&b&a\x00\x03h:x-a=1:1;c:c=3:c=2;",
    ]


def test_a_route_says_what_goes_past_the_cache() -> None:
    bypass = target(RouteCache(bypass=["header:x-preview", "cookie:s=1"])).bypass
    assert [condition.text for condition in bypass] == ["header:x-preview", "cookie:s=1"]
    assert [condition.met({b"cookie": b"s=1"}, b"/") for condition in bypass] == [False, True]


def test_the_largest_body_is_the_routes_or_else_the_nodes() -> None:
    sizes = {None: 99, 10: 10, 0: 0, 100: 100}
    cache = Cache(max_object_bytes=99)
    assert {size: target(RouteCache(max_object_bytes=size), cache).rules.max_object_bytes for size in sizes} == sizes


def test_a_route_whose_responses_are_not_cached_says_so() -> None:
    assert not target(RouteCache(enabled=False)).cache


@pytest.mark.parametrize(
    ("store", "memory_bytes", "cached"), [("memory", 0, False), ("memory", 1, True), ("embedded", 0, True)]
)
def test_with_no_place_for_it_nothing_is_cached(store: Any, memory_bytes: int, cached: bool) -> None:
    assert target(RouteCache(), cache=Cache(store=store, memory_bytes=memory_bytes)).cache is cached


@settings(deadline=None)
@given(st.text("ab*", max_size=8), st.text("ab", max_size=10))
def test_many_stars_match_as_the_shell_has_them(pattern: str, path: str) -> None:
    found = routes(Route(match=f"/{pattern}", origin="first"))
    assert (taken(found, f"/{path}".encode()) is not None) is fnmatchcase(f"/{path}", f"/{pattern}")


def test_no_path_makes_a_pattern_slow() -> None:
    found = routes(Route(match="/*/img/*/img/*/img/*.jpg", origin="first"))
    began = time.perf_counter()
    for _ in range(10):
        assert taken(found, b"/img" * 2000) is None
    assert time.perf_counter() - began < 1
