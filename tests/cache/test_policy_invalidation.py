"""What an unsafe request makes invalid: RFC 9111 §4.4."""

import pytest

from edgeproxy.cache import policy
from tests.cache.messages import Line, fields


def invalidated(
    *lines: Line, method: bytes = b"POST", status: int = 200, host: bytes = b"a", target: bytes = b"/x/y?z=1"
) -> list[str]:
    return [url.decode("latin-1") for url in policy.invalidated(method, status, b"http", host, target, fields(*lines))]


@pytest.mark.parametrize(
    ("method", "status", "expected"),
    [
        (b"POST", 200, True),
        (b"PUT", 204, True),
        (b"DELETE", 200, True),
        (b"PATCH", 303, True),
        pytest.param(b"FROBNICATE", 200, True, id="unknown-methods-are-unsafe"),
        pytest.param(b"get", 200, True, id="methods-are-case-sensitive"),
        (b"POST", 399, True),
        (b"POST", 400, False),
        (b"POST", 404, False),
        (b"PUT", 500, False),
        (b"POST", 101, False),
        (b"GET", 200, False),
        (b"HEAD", 200, False),
        (b"OPTIONS", 200, False),
        (b"TRACE", 200, False),
        (b"PROPFIND", 207, False),
        (b"SEARCH", 200, False),
        (b"REPORT", 200, False),
    ],
)
def test_a_successful_unsafe_request_invalidates_its_target(method: bytes, status: int, expected: bool) -> None:
    assert invalidated(method=method, status=status) == (["http://a/x/y?z=1"] if expected else [])


@pytest.mark.parametrize("name", ["Location", "Content-Location"])
@pytest.mark.parametrize(
    ("reference", "url"),
    [
        pytest.param("/b", "http://a/b", id="4.4-path"),
        pytest.param("b", "http://a/x/b", id="3986-5.2-relative-to-the-target"),
        pytest.param("../b", "http://a/b", id="3986-5.2.4-dot-segments"),
        pytest.param("../../../b", "http://a/b", id="3986-5.4.2-more-than-there-is"),
        pytest.param("./b?q=1", "http://a/x/b?q=1", id="3986-5.2-query"),
        pytest.param("?q=1", "http://a/x/y?q=1", id="3986-5.2-query-alone"),
        pytest.param("/b#part", "http://a/b", id="4.4-fragments-are-the-clients"),
        pytest.param("http://a/b", "http://a/b", id="4.4-same-origin"),
        pytest.param("HTTP://A/b", "http://a/b", id="4.3.1-scheme-and-host-in-any-case"),
        pytest.param("http://a:80/b", "http://a/b", id="4.3.1-default-port"),
        pytest.param("http://a", "http://a/", id="4.2.3-empty-path"),
        pytest.param("http://a?q", "http://a/?q", id="4.2.3-empty-path-with-query"),
        pytest.param("//a/b", "http://a/b", id="3986-4.2-without-scheme"),
        pytest.param(b"/\xe9", "http://a/\xe9", id="9110-5.5-obs-text"),
        pytest.param("http://b/b", None, id="4.4-another-host"),
        pytest.param("//b/b", None, id="4.4-another-host-without-scheme"),
        pytest.param("https://a/b", None, id="4.4-another-scheme"),
        pytest.param("http://a:81/b", None, id="4.4-another-port"),
        pytest.param("http://a.b/", None, id="4.4-a-longer-host"),
        pytest.param("http://a@b/", None, id="4.4-user-information"),
        pytest.param("http://[::1/", None, id="3986-3.2.2-not-a-uri"),
        pytest.param("http://a:x/", None, id="3986-3.2.3-not-a-port"),
        pytest.param("http://a:99999/", None, id="3986-3.2.3-no-such-port"),
        pytest.param("mailto:a@b", None, id="4.4-not-http"),
        pytest.param("javascript:alert(1)", None, id="4.4-not-even-hierarchical"),
    ],
)
def test_and_what_location_and_content_location_name_of_the_same_origin(
    name: str, reference: str | bytes, url: str | None
) -> None:
    expected = ["http://a/x/y?z=1"] if url is None else ["http://a/x/y?z=1", url]
    assert invalidated((name, reference)) == expected


def test_each_url_is_invalidated_once_the_target_first() -> None:
    lines = (("Location", "/b"), ("Content-Location", "/c"))
    assert invalidated(*lines, target=b"/t") == ["http://a/t", "http://a/b", "http://a/c"]
    assert invalidated(("Location", "/t"), ("Content-Location", "t"), target=b"/t") == ["http://a/t"]


def test_ports_and_ipv6_addresses_are_part_of_the_origin() -> None:
    assert invalidated(("Location", "http://a:8080/b"), host=b"a:8080", target=b"/") == [
        "http://a:8080/",
        "http://a:8080/b",
    ]
    assert invalidated(("Location", "http://a/b"), host=b"a:8080", target=b"/") == ["http://a:8080/"]
    assert invalidated(("Location", "http://[::1]/b"), host=b"[::1]", target=b"/") == [
        "http://[::1]/",
        "http://[::1]/b",
    ]


def test_a_target_that_is_no_path_names_nothing() -> None:
    assert invalidated(method=b"FROBNICATE", target=b"*") == []
