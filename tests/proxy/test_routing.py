"""Which route a request takes."""

import time
from fnmatch import fnmatchcase

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeproxy.config import Cache, Origin, Route, RouteCache
from edgeproxy.proxy.routing import Routes, Target
from tests.proxy.builders import a_config

ORIGINS = [Origin(name=name, urls=["http://127.0.0.1:8000"]) for name in ("first", "second", "third")]


def routes(*found: Route, **tables: object) -> Routes:
    return Routes(a_config(origin=ORIGINS, route=list(found), **tables))


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
    found = Routes(a_config(origin=ORIGINS[:1], route=[Route(match="/*")]))
    assert taken(found, b"/") == "first"


def test_a_route_says_how_its_responses_are_cached() -> None:
    found = routes(
        Route(match="/plain", origin="first"),
        Route(match="/never", origin="first", cache=RouteCache(enabled=False)),
        Route(match="/small", origin="first", cache=RouteCache(max_object_bytes=10)),
        Route(match="/none", origin="first", cache=RouteCache(max_object_bytes=0)),
        cache=Cache(max_object_bytes=99),
    )
    assert found.find(b"", b"/plain") == Target("first", cache=True, max_object_bytes=99)
    assert found.find(b"", b"/never") == Target("first", cache=False, max_object_bytes=99)
    assert found.find(b"", b"/small") == Target("first", cache=True, max_object_bytes=10)
    assert found.find(b"", b"/none") == Target("first", cache=True, max_object_bytes=0)


def test_with_no_memory_nothing_is_cached() -> None:
    found = routes(Route(match="/*", origin="first"), cache=Cache(memory_bytes=0))
    target = found.find(b"", b"/")
    assert target is not None
    assert not target.cache


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
