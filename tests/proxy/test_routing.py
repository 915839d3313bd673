"""Which route a request takes."""

import time
from fnmatch import fnmatchcase
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
    ],
)
def test_a_route_may_be_for_a_host_whatever_its_port(pattern: str, host: bytes, does: bool) -> None:
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


def test_no_route_is_no_target() -> None:
    assert routes(Route(match="/only", origin="first")).find(b"edge.test", b"/other") is None


def test_a_route_that_names_no_origin_leads_to_the_only_one() -> None:
    found = Routes(Config(origin=ORIGINS[:1], route=[Route(match="/*")]))
    assert taken(found, b"/") == "first"


LIMITS = {b"/plain": 99, b"/never": 99, b"/small": 10, b"/none": 0}


def test_a_route_says_how_its_responses_are_cached() -> None:
    found = routes(
        Route(match="/plain", origin="first"),
        Route(match="/never", origin="first", cache=RouteCache(enabled=False)),
        Route(match="/small", origin="first", cache=RouteCache(max_object_bytes=10)),
        Route(match="/none", origin="first", cache=RouteCache(max_object_bytes=0)),
        cache=Cache(max_object_bytes=99),
    )
    limits = {path: (found.find(b"", path), size) for path, size in LIMITS.items()}
    assert all(target is not None and target.rules.max_object_bytes == size for target, size in limits.values())
    assert {path for path, (target, _) in limits.items() if target and target.cache} == LIMITS.keys() - {b"/never"}


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
