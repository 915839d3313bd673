"""What may stand in [cache] and in a route's cache, and what contradicts itself."""

import os
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.config import Cache, Config, ConfigError, Problem, RouteCache, effective, load, toml_value
from edgeproxy.config.relations import _overlap

type Load = Callable[..., Config]
type Problems = Callable[..., list[Problem]]
ORIGIN = '[[origin]]\nname = "app"\nurls = ["http://127.0.0.1:8000"]\n'
LIFETIME = "expected a number of seconds, 0 to 315360000"


def route(**cache: str) -> str:
    """A file with one route whose cache has these keys, each with its value as it is written."""
    keys = "".join(f"{name} = {value}\n" for name, value in cache.items())
    return f'{ORIGIN}[[route]]\nmatch = "/*"\n[route.cache]\n{keys}'


def test_the_defaults_are_the_safe_ones(loaded: Load) -> None:
    cache = loaded("[[route]]\nmatch = '/*'").route[0].cache
    assert cache == RouteCache()
    assert (cache.set_cookie, cache.authorized, cache.query, cache.key_host) == ("never", False, "all", "host")
    assert (cache.ttl, cache.default_ttl, cache.status_ttl, cache.bypass) == (None, None, {}, [])
    assert (cache.methods, cache.stale_if_error, cache.ttl_min, cache.ttl_max) == (["GET", "HEAD"], 0.0, 0.0, None)
    assert (Cache().store, Cache().purge_allow, Cache().send_tags, Cache().status_key) == ("embedded", [], False, False)


def test_all_that_can_be_said_of_a_cache_is_in_the_config_and_said_again(loaded: Load, tmp_path: Path) -> None:
    config = loaded(f"""
        [[route]]
        match = "/*"
        [route.cache]
        methods = ["GET"]
        ttl = 1
        ttl_min = 0.5
        ttl_max = 31536000
        default_ttl = 0
        heuristic = false
        status_ttl = {{ 404 = 10, "5xx" = 0.5, 200 = 0 }}
        stale_while_revalidate = 60
        stale_if_error = 86400
        set_cookie = "strip"
        authorized = true
        client_no_cache = false
        query_deny = ["utm_*", "fbclid", "a[]", "%5B", "*"]
        query_sort = true
        key_headers = ["Accept-Language", "x_y"]
        key_cookies = ["__Host-lang", "theme"]
        key_host = "www.example.com:8080"
        bypass = ["header:X-Preview", "cookie:wp_*=1", "query:a=b=c", "header:Accept=text/html, */*"]
        [cache]
        store = "memory"
        path = "{tmp_path}/not/yet"
        size_bytes = 1048576
        memory_bytes = 0
        collapse_timeout = 0.5
        uncacheable_ttl = 0
        short_status = ""
        status_key = true
        purge_allow = ["127.0.0.1", "10.0.0.0/8"]
        send_tags = true
    """)
    cache = config.route[0].cache
    assert cache.status_ttl == {"404": 10.0, "5xx": 0.5, "200": 0.0}
    assert (cache.key_host, cache.query_sort, cache.methods) == ("www.example.com:8080", True, ["GET"])
    assert (config.cache.short_status, config.cache.purge_allow) == ("", ["127.0.0.1", "10.0.0.0/8"])
    path = tmp_path / "again.toml"
    path.write_text(effective(config), encoding="utf-8")
    assert load(path, {}) == config
    assert Config.from_json(config.to_json()) == config


PARAMETER = 'expected the name of a query parameter as it is in a request, or the beginning of some: "utm_*"'
CONDITION = 'expected "header:NAME", "cookie:NAME" or "query:NAME", each perhaps with "=VALUE"'
KEY_HOST = 'expected "host", "normalized" or a host such as "www.example.com", lower case'
TABLE = f'expected a table, its keys "200" to "599" or "2xx" to "5xx", each with {LIFETIME.removeprefix("expected ")}'
STATUS = 'unknown key; expected "200" to "599" or "2xx" to "5xx"'
WRONG_VALUES = {  # key of a route's cache, value, what it says of it
    "a lifetime below 0": ("ttl", "-1", LIFETIME),
    "a lifetime in words": ("ttl", '"1h"', LIFETIME),
    "an endless lifetime": ("ttl_max", "inf", LIFETIME),
    "a lifetime that is no number": ("stale_if_error", "nan", LIFETIME),
    "more than ten years": ("default_ttl", "315360001", LIFETIME),
    "HEAD, which nothing is stored for": ("methods", '["HEAD"]', 'expected ["GET", "HEAD"] or ["GET"]'),
    "no method": ("methods", "[]", 'expected ["GET", "HEAD"] or ["GET"]'),
    "statuses in a list": ("status_ttl", "[404]", TABLE),
    "an unknown word for cookies": ("set_cookie", '"ignore"', 'expected "never", "strip" or "keep"'),
    "an unknown word for the query": ("query", '"some"', 'expected "all" or "none"'),
    "a text for a list": ("query_allow", '"a"', f"expected a list, each {PARAMETER.removeprefix('expected ')}"),
    "a host in capitals": ("key_host", '"WWW.example.com"', KEY_HOST),
    "a host with a star": ("key_host", '"*.example.com"', KEY_HOST),
    "a host with a path": ("key_host", '"a/b"', KEY_HOST),
    "a host with port 0": ("key_host", '"a:0"', KEY_HOST),
    "no host": ("key_host", '""', KEY_HOST),
}
WRONG_ITEMS = {  # key of a route's cache, the only item of its list, what it says of that
    "a method in small letters": ("methods", '"get"', 'expected "GET" or "HEAD"'),
    "a name with an ampersand": ("query_allow", '"a&b"', PARAMETER),
    "a parameter with its value": ("query_deny", '"a=1"', PARAMETER),
    "two stars": ("query_deny", '"**"', PARAMETER),
    "a parameter without a name": ("query_allow", '""', PARAMETER),
    "a parameter beyond ASCII": ("query_allow", '"é"', PARAMETER),
    "a parameter with a blank": ("query_allow", '"a b"', PARAMETER),
    "a header with a colon": ("key_headers", '"a:"', 'expected the name of a header field, such as "Accept-Language"'),
    "a cookie with its value": ("key_cookies", '"a=1"', "expected the name of a cookie"),
    "a condition on something else": ("bypass", '"path:/x"', CONDITION),
    "a condition on the method": ("bypass", '"method"', CONDITION),
    "a condition in capitals": ("bypass", '"Header:x"', CONDITION),
    "a condition without a name": ("bypass", '"query:=1"', CONDITION),
    "a condition with a blank": ("bypass", '"header: x"', CONDITION),
    "a star in a header's name": ("bypass", '"header:x-*"', CONDITION),
    "a star within a cookie's name": ("bypass", '"cookie:a*b"', CONDITION),
    "a value with a line break": ("bypass", '"header:x=a\\nb"', CONDITION),
    "a value with a blank at the end": ("bypass", '"header:x=a "', CONDITION),
    "a cookie's value with a semicolon": ("bypass", '"cookie:x=a;b"', CONDITION),
    "a parameter's value with an ampersand": ("bypass", '"query:x=a&b"', CONDITION),
}
WRONG = {  # key of a route's cache, value, where the error is, what it says
    **{name: (key, value, "", f" = {value}: {says}") for name, (key, value, says) in WRONG_VALUES.items()},
    **{name: (key, f"[{item}]", "[0]", f" = {item}: {says}") for name, (key, item, says) in WRONG_ITEMS.items()},
    "a method with a body": ("methods", '["GET", "POST"]', "[1]", ' = "POST": expected "GET" or "HEAD"'),
    "a status of four digits": ("status_ttl", "{ 4040 = 1 }", ".4040", f" = 1: {STATUS}"),
    "no status": ("status_ttl", "{ 40x = 1 }", ".40x", f" = 1: {STATUS}"),
    "a status in capitals": ("status_ttl", "{ 4XX = 1 }", ".4XX", f" = 1: {STATUS}"),
    "an interim status": ("status_ttl", "{ 100 = 1 }", ".100", f" = 1: {STATUS}"),
    "interim statuses": ("status_ttl", '{ "1xx" = 1 }', ".1xx", f" = 1: {STATUS}"),
    "a status beyond": ("status_ttl", "{ 600 = 1 }", ".600", f" = 1: {STATUS}"),
    "a key that needs quotes": ("status_ttl", '{ "4 4" = 1 }', '."4 4"', f" = 1: {STATUS}"),
    "no key": ("status_ttl", '{ "" = 1 }', '.""', f" = 1: {STATUS}"),
    "a status for a text": ("status_ttl", '{ 404 = "1" }', ".404", f' = "1": {LIFETIME}'),
    "a status below 0": ("status_ttl", "{ 404 = -1 }", ".404", f" = -1: {LIFETIME}"),
    "a star in between": ("query_deny", '["ok", "a*b"]', "[1]", f' = "a*b": {PARAMETER}'),
}


@pytest.mark.parametrize(("key", "value", "at", "says"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_value_of_a_route_is_named_with_what_is_allowed(
    config_file: Callable[[str], Path], key: str, value: str, at: str, says: str
) -> None:
    path = config_file(route(**{key: value}))
    with pytest.raises(ConfigError) as caught:
        load(path, {})
    assert str(caught.value) == f"{path}: route[0].cache.{key}{at}{says}"


NODE = {  # key of [cache], value, whether it is allowed
    "a store too small": ("size_bytes", "1048575", False),
    "no waiting for others": ("collapse_timeout", "0", False),
    "to remember for more than a day": ("uncacheable_ttl", "86401", False),
    "another field": ("short_status", '"X-Edge-Cache"', True),
    "a field that is none": ("short_status", '"X Cache"', False),
    "a field that frames the message": ("short_status", '"Content-Length"', False),
    "a field of the connection": ("short_status", '"connection"', False),
    "the long field": ("short_status", '"Cache-Status"', False),
    "a field with a line break": ("short_status", '"X-A\\r\\nX"', False),
    "a network with bits beyond": ("purge_allow", '["10.1.2.3/8"]', False),
    "everybody in a word": ("purge_allow", '"all"', False),
    "everybody": ("purge_allow", '["0.0.0.0/0", "::/0"]', True),
    "a path with a zero byte": ("path", '"/x\\u0000"', False),
}


@pytest.mark.parametrize(("key", "value", "allowed"), NODE.values(), ids=NODE.keys())
def test_what_the_nodes_cache_may_be(config_file: Callable[[str], Path], key: str, value: str, allowed: bool) -> None:
    path = config_file(f"{ORIGIN}[cache]\n{key} = {value}\n")
    if allowed:
        assert toml_value(getattr(load(path, {}).cache, key)) == value
    else:
        with pytest.raises(ConfigError, match="expected ") as caught:
            load(path, {})
        assert [problem.key.partition("[")[0] for problem in caught.value.problems] == [f"cache.{key}"]


def test_the_store_lies_in_a_directory_or_where_one_can_be_made(
    config_file: Callable[[str], Path], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "dir").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "dir")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    allowed = {
        path: allows(config_file, str(tmp_path / path))
        for path in (
            "dir",
            "dir/",
            "link",
            "link/x",
            "new",
            "new/er",
            "file",
            "file/x",
            "file/x/y",
            "dangling",
            "dangling/x",
        )
    }
    assert [path for path, fine in allowed.items() if not fine] == [
        "file",
        "file/x",
        "file/x/y",
        "dangling",
        "dangling/x",
    ]
    assert allows(config_file, os.path.relpath(tmp_path / "new"))
    assert allows(config_file, "")
    with pytest.raises(
        ConfigError, match=r'cache\.path = "/dev/null": expected a directory, which need not be there yet'
    ):
        load(config_file(f"{ORIGIN}[cache]\npath = '/dev/null'\n"), {})


def allows(config_file: Callable[[str], Path], path: str) -> bool:
    file = config_file(f"{ORIGIN}[cache]\nstore = 'embedded'\npath = {toml_value(path)}\n")
    try:
        return load(file, {}).cache.path == path
    except ConfigError as error:
        return "cache.path = " not in str(error)


# --- contradictions --------------------------------------------------------------------------------------------------


CONTRADICTIONS = {  # the keys, and all that is said
    "allowed and denied": (
        {"query_allow": '["a"]', "query_deny": '["b"]'},
        [
            'query_deny = ["b"]: expected query_allow or query_deny, not both: what is not allowed is denied already',
        ],
    ),
    "allowed and an empty list": ({"query_allow": '["a"]', "query_deny": "[]"}, []),
    "no query and everything about it": (
        {"query": '"none"', "query_allow": '["a"]', "query_deny": '["b"]', "query_sort": "true"},
        [
            f'{key}: expected {key.split()[0]} only where query is "all": without a query there is nothing for it to do'
            for key in ('query_allow = ["a"]', 'query_deny = ["b"]', "query_sort = true")
        ],
    ),
    "no query and nothing about it": ({"query": '"none"', "query_allow": "[]", "query_sort": "false"}, []),
    "bounds the wrong way round": (
        {"ttl_min": "20", "ttl_max": "10.5"},
        ["ttl_min = 20: expected at most ttl_max, which is 10.5"],
    ),
    "bounds that meet": ({"ttl_min": "10", "ttl_max": "10.0"}, []),
    "bounds of which one is wrong by itself": ({"ttl_min": '"x"', "ttl_max": "1"}, [f'ttl_min = "x": {LIFETIME}']),
    "bounds of which one is no number": ({"ttl_min": "true", "ttl_max": "0.5"}, [f"ttl_min = true: {LIFETIME}"]),
    "allowed and denied, one wrong by itself": (
        {"query_allow": '["a"]', "query_deny": "3"},
        [f"query_deny = 3: expected a list, each {PARAMETER.removeprefix('expected ')}"],
    ),
}


@pytest.mark.parametrize(("keys", "said"), CONTRADICTIONS.values(), ids=CONTRADICTIONS.keys())
def test_settings_that_contradict_each_other(
    config_file: Callable[[str], Path], keys: dict[str, str], said: list[str]
) -> None:
    path = config_file(route(**keys))
    if not said:
        load(path, {})
        return
    with pytest.raises(ConfigError) as caught:
        load(path, {})
    assert str(caught.value).splitlines() == [f"{path}: route[0].cache.{text}" for text in said]


def test_all_that_is_wrong_with_all_routes_is_told_at_once(problems: Problems) -> None:
    found = problems(f"""{ORIGIN}
        [[route]]
        match = "/a"
        cache = {{ ttl = -1, query_allow = ["a"], query_deny = ["&"], status_ttl = {{ 4 = 1, 404 = "x" }}, bypas = [] }}
        [[route]]
        match = "/b"
        cache = {{ ttl_min = 2, ttl_max = 1, bypass = ["header:x", "x"], query = "none", query_sort = true }}
        [cache]
        path = "/dev/null"
        store = "tape"
        size_bytes = 0
    """)
    assert [(problem.code, problem.key) for problem in found] == [
        ("value", "route[0].cache.ttl"),
        ("value", "route[0].cache.query_deny[0]"),
        ("value", "route[0].cache.status_ttl.4"),
        ("value", "route[0].cache.status_ttl.404"),
        ("unknown_key", "route[0].cache.bypas"),
        ("value", "route[1].cache.bypass[1]"),
        ("value", "cache.path"),
        ("value", "cache.store"),
        ("value", "cache.size_bytes"),
        ("value", "route[0].cache.query_deny"),
        ("value", "route[1].cache.query_sort"),
        ("value", "route[1].cache.ttl_min"),
    ]


# --- one key for two origins -----------------------------------------------------------------------------------------

WWW = "www.test"
SHARED = {  # routes as (path, host, origin, key_host), and the one that is at fault
    "another origin has that host": ([("/*", "a.test", "app", WWW), ("/*", WWW, "api", "host")], 0),
    "another origin had that host before": ([("/*", WWW, "api", "host"), ("/*", "a.test", "app", WWW)], 1),
    "another origin has all other hosts": ([("/*", "a.test", "app", WWW), ("/*", "", "api", "host")], 0),
    "another origin has hosts of that name": ([("/*", "*.test", "api", "host"), ("/*", "", "app", WWW)], 1),
    "another origin has some paths of that host": ([("/api/*", WWW, "api", "host"), ("/*", "", "app", WWW)], 1),
    "another origin puts that host in, too": ([("/*", "a.test", "app", WWW), ("/*", "b.test", "api", WWW)], 0),
    "with a dot at its end": ([("/*", "www.test.", "api", "host"), ("/*", "", "app", WWW)], 1),
    "with a port": ([("/*", WWW, "api", "host"), ("/*", "", "app", f"{WWW}:81")], 1),
    "a normalized host": ([("/*", WWW, "api", "normalized"), ("/*", "", "app", WWW)], 1),
    "the same origin": ([("/*", "a.test", "app", WWW), ("/*", WWW, "app", "host")], None),
    "other paths": ([("/a/*", "a.test", "app", WWW), ("/b/*", WWW, "api", "host")], None),
    "paths that went elsewhere before, whatever the host": (
        [("/a/*", "", "api", "host"), ("/*", "", "app", WWW)],
        None,
    ),
    "nothing left for the later": ([("/*", "", "app", WWW), ("/*", WWW, "api", "host")], None),
    "nothing left for the later with the same host": ([("/*", WWW, "app", WWW), ("/*", WWW, "api", WWW)], None),
    "a host of its own": ([("/*", WWW, "app", WWW), ("/*", "", "api", "host")], None),
    "a host that the earlier is not for": ([("/*", "b.test", "api", "host"), ("/*", "", "app", WWW)], None),
    "another host": ([("/*", "a.test", "app", WWW), ("/*", "b.test", "api", "host")], None),
    "two hosts put in": ([("/*", "a.test", "app", WWW), ("/*", "b.test", "api", "b.test")], None),
    "nobody puts one in": ([("/*", "a.test", "app", "host"), ("/*", "", "api", "normalized")], None),
}


@pytest.mark.parametrize(("routes", "at_fault"), SHARED.values(), ids=SHARED.keys())
def test_no_two_origins_store_under_one_key(
    config_file: Callable[[str], Path], routes: list[tuple[str, str, str, str]], at_fault: int | None
) -> None:
    text = f"{ORIGIN}[[origin]]\nname = 'api'\nurls = ['http://b']\n" + "".join(
        f"[[route]]\nmatch = '{path}'\nhost = '{host}'\norigin = '{origin}'\ncache.key_host = '{key_host}'\n"
        for path, host, origin, key_host in routes
    )
    path = config_file(text)
    if at_fault is None:
        load(path, {})
        return
    with pytest.raises(ConfigError) as caught:
        load(path, {})
    other = 1 - at_fault
    assert str(caught.value) == (
        f"{path}: route[{at_fault}].cache.key_host = {toml_value(routes[at_fault][3])}: expected a host that leads to "
        f"the same origin: route[{other}] stores under it as well, from {toml_value(routes[other][2])}"
    )
    load(config_file(text.replace("cache.key_host", "cache.enabled = false\ncache.key_host", 1)), {})


def test_the_only_origin_goes_by_its_name_or_by_none(loaded: Load) -> None:
    put_in = f"cache.key_host = '{WWW}'\n"
    config = loaded(f"[[route]]\nmatch='/*'\nhost='a.test'\n{put_in}[[route]]\nmatch='/*'\norigin='app'\n{put_in}")
    assert [route.cache.key_host for route in config.route] == [WWW, WWW]


@given(st.text("ab*", max_size=6), st.text("ab*", max_size=6), st.text("ab", max_size=6))
def test_patterns_overlap_when_a_path_matches_both(one: str, other: str, path: str) -> None:
    if fnmatchcase(path, one) and fnmatchcase(path, other):
        assert _overlap(one, other)
    assert _overlap(one, path) is fnmatchcase(path, one)
    assert _overlap(one, other) is _overlap(other, one)


def test_long_patterns_are_compared_at_once() -> None:
    assert not _overlap("/" + "*a" * 200, "/" + "a*" * 200 + "b")


SOMETHING: st.SearchStrategy[Any] = st.sampled_from([None, "", "x", 3, 1.5, True, [], ["a"], [3], {}, {"a": 1}])


@given(st.lists(st.dictionaries(st.sampled_from(["match", "host", "origin", "cache"]), SOMETHING), max_size=3))
def test_relations_pass_over_what_has_the_wrong_type(routes: list[Any]) -> None:
    from edgeproxy.config.relations import contradictions

    keys = ["query", "query_allow", "query_deny", "query_sort", "ttl_min", "ttl_max", "key_host", "enabled"]
    origins = [{"name": "a"}, {"name": 3}]
    for value in (None, "none", 3, ["a"], {}, True):
        found = [*routes, {"match": "/*", "origin": "a", "cache": dict.fromkeys(keys, value)}, 3]
        list(contradictions({"origin": origins, "route": found}))
