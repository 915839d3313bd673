"""Which requests share a key, and what of a request the origin may see where they do."""

import re
from itertools import pairwise
from typing import Any
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgeproxy.cache.key import KeyRules, primary_key, variant
from edgeproxy.cache.readings import Fields, aliases, cookie_parts

HTTP = b"http"


def key(rules: KeyRules, host: bytes = b"a.test", target: bytes = b"/", **fields: bytes) -> bytes:
    names = {name.replace("_", "-").encode(): value for name, value in fields.items()}
    return rules.primary(rules.url(HTTP, host, target), names)


# --- the URL as received ---------------------------------------------------------------------------------------------


def test_without_rules_a_key_is_the_target_uri_as_received() -> None:
    rules = KeyRules()
    assert rules.plain
    assert not rules.has_request_parts
    names = {b"cookie": b"a=1", b"accept": b"x"}
    for host, target in [(b"a.test", b"/b?c"), (b"a.test:80", b"/"), (b"a.test.", b"/?"), (b"", b"*")]:
        url = rules.url(HTTP, host, target)
        assert url == rules.primary(url, names) == primary_key(HTTP, host, target) == b"http://" + host + target
        assert (rules.host(HTTP, host), rules.target(target)) == (host, target)


@pytest.mark.parametrize(
    "settings",
    [
        {"query": False},
        {"query_allow": ["a"]},
        {"query_deny": ["a"]},
        {"query_sort": True},
        {"headers": ["a"]},
        {"cookies": ["a"]},
        {"host": "normalized"},
        {"host": "www.example.com"},
    ],
    ids=str,
)
def test_with_any_rule_keys_are_no_longer_plain(settings: Any) -> None:
    rules = KeyRules(**settings)
    assert not rules.plain
    assert rules.has_request_parts is bool(settings.keys() & {"headers", "cookies"})


DIFFERENT_URLS = {
    "an encoded slash is no slash": (b"/a%2Fb", b"/a/b"),
    "the case of an encoding": (b"/a%2Fb", b"/a%2fb"),
    "an encoded letter": (b"/%61", b"/a"),
    "an encoded question mark": (b"/a%3Fb", b"/a?b"),
    "an encoded end of text": (b"/a%00.css", b"/a"),
    "encoded twice": (b"/a%252Fb", b"/a%2Fb"),
    "dots that lead upwards": (b"/a/../b", b"/b"),
    "encoded dots": (b"/a/%2E%2E/b", b"/b"),
    "two slashes": (b"//a", b"/a"),
    "a slash at the end": (b"/a/", b"/a"),
    "a path parameter": (b"/a;x.css", b"/a"),
    "a backslash": (b"/a\\b", b"/a/b"),
    "capitals": (b"/A", b"/a"),
    "a plus": (b"/?a+b", b"/?a%20b"),
    "an empty query": (b"/?", b"/"),
    "a parameter without its equals sign": (b"/?a", b"/?a="),
    "an empty parameter": (b"/?a&&b", b"/?a&b"),
    "an empty parameter at the end": (b"/?a&", b"/?a"),
    "a semicolon": (b"/?a;b", b"/?a&b"),
    "a second question mark": (b"/?a?b", b"/?a&b"),
    "the order of parameters": (b"/?a&b", b"/?b&a"),
    "the order of values": (b"/?a=1&a=2", b"/?a=2&a=1"),
    "a parameter twice": (b"/?a=1&a=1", b"/?a=1"),
}
RULES = {
    "no rules": KeyRules(),
    "a list of what is denied": KeyRules(query_deny=["utm_*", "fbclid"]),
    "sorted": KeyRules(query_sort=True),
    "host normalized": KeyRules(host="normalized"),
    "with headers and cookies": KeyRules(headers=["x"], cookies=["c"]),
}


@pytest.mark.parametrize("rules", RULES.values(), ids=RULES.keys())
@pytest.mark.parametrize(("one", "other"), DIFFERENT_URLS.values(), ids=DIFFERENT_URLS.keys())
def test_nothing_is_decoded_or_tidied(rules: KeyRules, one: bytes, other: bytes) -> None:
    if rules is RULES["sorted"] and (one, other) == DIFFERENT_URLS["the order of parameters"]:
        assert key(rules, target=one) == key(rules, target=other)
    else:
        assert key(rules, target=one) != key(rules, target=other)


# --- the query -------------------------------------------------------------------------------------------------------


NONE = KeyRules(query=False)
ALLOW = KeyRules(query_allow=["a", "page_*"])
DENY = KeyRules(query_deny=["utm_*", "fbclid"])
SORT = KeyRules(query_sort=True)
SORTED_DENY = KeyRules(query_deny=["utm_*"], query_sort=True)
TARGETS = {  # the rules, the target received, the target keyed and sent
    "no query, none kept": (NONE, b"/p", b"/p"),
    "none kept": (NONE, b"/p?a=1&b", b"/p"),
    "none kept of an empty one": (NONE, b"/p?", b"/p"),
    "none kept after a second question mark": (NONE, b"/p?a?b", b"/p"),
    "an encoded question mark is no query": (NONE, b"/p%3Fa", b"/p%3Fa"),
    "allowed": (ALLOW, b"/p?x=1&a=2&y", b"/p?a=2"),
    "allowed by how it begins": (ALLOW, b"/p?page_1=x&page_=y&page=z", b"/p?page_1=x&page_=y"),
    "allowed without a value": (ALLOW, b"/p?a&x", b"/p?a"),
    "allowed with an empty value": (ALLOW, b"/p?a=&x", b"/p?a="),
    "allowed several times, in their order": (ALLOW, b"/p?a=2&x&a=1&a=2", b"/p?a=2&a=1&a=2"),
    "nothing allowed": (ALLOW, b"/p?x=1", b"/p"),
    "an empty query is not allowed": (ALLOW, b"/p?", b"/p"),
    "empty parameters are not allowed": (ALLOW, b"/p?&&a&&", b"/p?a"),
    "an encoded name is another name": (ALLOW, b"/p?%61=1&a=2", b"/p?a=2"),
    "capitals are another name": (ALLOW, b"/p?A=1", b"/p"),
    "a semicolon is part of a value": (ALLOW, b"/p?a=1;x=2&x=3", b"/p?a=1;x=2"),
    "a semicolon is part of a name": (ALLOW, b"/p?a;x=2", b"/p"),
    "an equals sign is part of a value": (ALLOW, b"/p?a=x=1&x=a=1", b"/p?a=x=1"),
    "denied": (DENY, b"/p?utm_source=x&a=1&fbclid=2&utm_", b"/p?a=1"),
    "denied without a value": (DENY, b"/p?fbclid&a", b"/p?a"),
    "all denied": (DENY, b"/p?utm_source=x", b"/p"),
    "nothing to deny": (DENY, b"/p?b&a=&&c;d&", b"/p?b&a=&&c;d&"),
    "an empty query stays": (DENY, b"/p?", b"/p?"),
    "no query to deny in": (DENY, b"/p", b"/p"),
    "a name that only begins with a denied one": (DENY, b"/p?fbclid2=x", b"/p?fbclid2=x"),
    "a denied name in capitals": (DENY, b"/p?UTM_x=1", b"/p?UTM_x=1"),
    "an encoded denied name": (DENY, b"/p?utm%5Fx=1", b"/p?utm%5Fx=1"),
    "what hides behind a semicolon goes with its parameter": (DENY, b"/p?utm_x=1;admin=1&a", b"/p?a"),
    "a denied name behind a semicolon": (DENY, b"/p?a=1;utm_x=2", b"/p?a=1;utm_x=2"),
    "sorted": (SORT, b"/p?c&a=1&b=2", b"/p?a=1&b=2&c"),
    "sorted, values of a name in their order": (SORT, b"/p?b=9&a=2&b=1&a=1", b"/p?a=2&a=1&b=9&b=1"),
    "sorted by name alone": (SORT, b"/p?a-=1&a=2", b"/p?a=2&a-=1"),
    "sorted with empty ones": (SORT, b"/p?b&&a&", b"/p?&&a&b"),
    "an empty query has nothing to sort": (SORT, b"/p?", b"/p?"),
    "sorted and denied": (SORTED_DENY, b"/p?c&utm_x&b=1", b"/p?b=1&c"),
    "a star alone": (KeyRules(query_deny=["*"]), b"/p?a&b=1", b"/p"),
    "the server as a whole": (NONE, b"*", b"*"),
}


@pytest.mark.parametrize(("rules", "received", "keyed"), TARGETS.values(), ids=TARGETS.keys())
def test_the_query_as_keyed_is_what_the_origin_is_asked_for(rules: KeyRules, received: bytes, keyed: bytes) -> None:
    assert rules.target(received) == keyed
    assert rules.url(HTTP, b"a.test", received) == b"http://a.test" + keyed


# --- the host --------------------------------------------------------------------------------------------------------


HOSTS = {
    "a name": (b"a.test", b"a.test"),
    "the default port": (b"a.test:80", b"a.test"),
    "another port": (b"a.test:8080", b"a.test:8080"),
    "the default port of another scheme": (b"a.test:443", b"a.test:443"),
    "a port that ends like it": (b"a.test:180", b"a.test:180"),
    "an empty port": (b"a.test:", b"a.test"),
    "a dot at the end": (b"a.test.", b"a.test"),
    "a dot before the default port": (b"a.test.:80", b"a.test"),
    "a dot before another port": (b"a.test.:8080", b"a.test:8080"),
    "two dots are no name": (b"a.test..", b"a.test.."),
    "a dot alone": (b".", b"."),
    "IPv6": (b"[2001:db8::80]", b"[2001:db8::80]"),
    "IPv6 with the default port": (b"[2001:db8::1]:80", b"[2001:db8::1]"),
    "IPv6 with another port": (b"[2001:db8::1]:81", b"[2001:db8::1]:81"),
    "none": (b"", b""),
}


@pytest.mark.parametrize(("received", "normalized"), HOSTS.values(), ids=HOSTS.keys())
def test_a_normalized_host_has_neither_default_port_nor_dot_at_its_end(received: bytes, normalized: bytes) -> None:
    rules = KeyRules(host="normalized")
    assert rules.host(HTTP, received) == normalized
    assert rules.url(HTTP, received, b"/x") == b"http://" + normalized + b"/x"
    assert KeyRules().host(HTTP, received) == received


def test_each_scheme_has_a_default_port_of_its_own() -> None:
    rules = KeyRules(host="normalized")
    assert rules.host(b"https", b"a.test:443") == b"a.test"
    assert rules.host(b"https", b"a.test:80") == b"a.test:80"


def test_aliases_fold_into_one_host_and_the_origin_may_be_sent_that() -> None:
    rules = KeyRules(host="www.example.com")
    for host in (b"example.com", b"example.com:8080", b"www.example.com", b"", b"evil.test"):
        assert rules.url(HTTP, host, b"/x?y") == b"http://www.example.com/x?y"
        assert rules.host(HTTP, host) == b"www.example.com"


# --- headers and cookies ---------------------------------------------------------------------------------------------


def test_a_keyed_header_that_is_absent_differs_from_an_empty_one() -> None:
    rules = KeyRules(headers=["X-A"])
    assert len({key(rules), key(rules, x_a=b""), key(rules, x_a=b"1"), key(rules, x_b=b"1")}) == 3
    assert key(rules) == key(rules, x_b=b"1")


def test_a_keyed_header_goes_by_any_case_and_the_order_of_names_does_not_count() -> None:
    assert key(KeyRules(headers=["X-A", "x-b"]), x_a=b"1") == key(KeyRules(headers=["X-B", "x-A", "X-a"]), x_a=b"1")


def test_a_value_under_another_name_is_another_key() -> None:
    assert key(KeyRules(headers=["x-a"]), x_a=b"1") != key(KeyRules(headers=["x-b"]), x_b=b"1")
    assert key(KeyRules(headers=["c"]), c=b"c=1") != key(KeyRules(cookies=["c"]), cookie=b"c=1")


@pytest.mark.parametrize("name", ["x-a-b", "x_a-b"])
def test_a_field_that_the_origin_may_take_for_a_keyed_one_counts(name: str) -> None:
    rules = KeyRules(headers=[name])
    url = rules.url(HTTP, b"a.test", b"/")
    spellings = (b"x-a-b", b"x_a_b", b"x_a-b", b"x-a_b")
    keys = {rules.primary(url, {spelling: b"evil"}) for spelling in spellings}
    assert len(keys | {rules.primary(url, {})}) == 5
    assert b"x-a-b" in rules.headers


@pytest.mark.parametrize("connection", [b"x-a", b"close, X-A", b"cookie\t,x-A ,"])
def test_a_field_that_connection_names_is_not_there_rfc9110_7_6_1(connection: bytes) -> None:
    rules = KeyRules(headers=["x-a", "x-b"], cookies=["c"])
    url = rules.url(HTTP, b"a.test", b"/")
    ended = rules.primary(url, {b"x-a": b"1", b"x-b": b"2", b"connection": connection})
    assert ended == rules.primary(url, {b"x-b": b"2"})
    cookie = {b"x-b": b"2", b"cookie": b"c=1"}
    assert (rules.primary(url, {**cookie, b"connection": connection}) == ended) is (b"cookie" in connection)


@pytest.mark.parametrize(
    ("name", "one", "other", "same"),
    [
        (b"accept-language", b"de-DE, en;q=0.5", b"DE-de,EN;Q=0.5", True),
        (b"accept-encoding", b"gzip", b"GZIP", True),
        (b"accept-charset", b"utf-8", b"UTF-8", True),
        (b"accept-language", b"de, en", b"en, de", False),
        (b"accept", b'text/html;a="x"', b'text/html;a="X"', False),
        (b"cookie", b"a=b", b"A=b", False),
    ],
)
def test_case_does_not_tell_variants_apart_where_it_means_nothing_rfc9111_4_1(
    name: bytes, one: bytes, other: bytes, same: bool
) -> None:
    assert (variant([name], {name: one}) == variant([name], {name: other})) is same


def test_no_value_of_a_field_that_vary_names_makes_a_key_with_request_parts() -> None:
    with_parts = key(KeyRules(headers=["x"]), x=b"1")
    varied = key(KeyRules()) + b"\x00" + variant([b"accept"], {b"accept": with_parts.partition(b"\x00")[2]})
    assert with_parts.startswith(key(KeyRules()) + b"\x00\x03")
    assert varied == with_parts  # but for the control byte, which no field value can hold
    assert all(not variant([b"accept"], {b"accept": value}).startswith(b"\x03") for value in (b"", b"h:x=1:1;"))


COOKIES = {  # the Cookie field, and what of it counts as `c`
    "none": (b"", None),
    "alone": (b"c=1", b"c=1"),
    "among others": (b"a=0; c=1; b=2", b"c=1"),
    "without the blank": (b"a=0;c=1;b=2", b"c=1"),
    "with more white space": (b"a=0 ;\tc = 1 ;b=2", b"c = 1 "),
    "absent": (b"a=0; cc=1; c2=1; d=c", None),
    "empty": (b"c=", b"c="),
    "without an equals sign": (b"c", b"c"),
    "with several": (b"c=1=2", b"c=1=2"),
    "twice, in their order": (b"c=2; a=0; c=1", b"c=2; c=1"),
    "capitals are another name": (b"C=1", None),
    "on a line of its own": (b"a=0, c=1", b"a=0, c=1"),
    "on a line before another": (b"c=1, a=0; b=2", b"c=1, a=0"),
    "with a comma in its value": (b"c=1,2; a=0,0", b"c=1,2"),
    "quoted": (b'a="0"; c="1"', b'c="1"'),
    "a quote that holds a semicolon": (b'c="1; d=2"', b'c="1; d=2"'),
    "in a quote of another": (b'a="0; c=1"; c=2', b'a="0; c=1"; c=2'),
    "a quote left open": (b'a="0; c=1', b'a="0; c=1'),
    "a quote left open after it": (b'c=1; a="0; c=2', b'c=1; a="0; c=2'),
    "a quote that is escaped": (b'a="\\""; c=1', b'a="\\""; c=1'),
    "quotes that hold nothing of it": (b'a="x"; b={"y":1}', None),
    "an encoded name": (b"%63=1", b"%63=1"),
    "white space that is not ASCII": (b"\xa0c=1", b"\xa0c=1"),
    "as an array": (b"c[]=1", b"c[]=1"),
    "nothing but separators": (b"; ;,;", None),
}


@pytest.mark.parametrize(("cookie", "counts"), COOKIES.values(), ids=COOKIES.keys())
def test_a_cookie_is_found_by_name_wherever_an_origin_may_find_it(cookie: bytes, counts: bytes | None) -> None:
    assert cookie_parts(cookie, aliases(b"c")) == counts


@pytest.mark.parametrize(("name", "other"), [(b"a_c", b"a.c"), (b"a_c", b"a c"), (b"a_c", b"a[c"), (b"a.c", b"a_c")])
def test_names_that_php_takes_for_one_count_as_one(name: bytes, other: bytes) -> None:
    assert cookie_parts(other + b"=1", aliases(name)) == other + b"=1"


def test_of_too_many_cookies_all_count() -> None:
    many = b"; ".join(b"%%7%d=1" % n for n in range(251))
    assert cookie_parts(many, aliases(b"c")) == many
    assert cookie_parts(many.partition(b"; ")[2], aliases(b"c")) is None
    assert cookie_parts(b"a=1; " * 1000 + b"c=1", aliases(b"c")) == b"c=1"


def test_only_the_cookies_that_are_named_make_a_key() -> None:
    rules = KeyRules(cookies=["lang"])
    assert key(rules, cookie=b"session=1; lang=de") == key(rules, cookie=b"lang=de; session=2")
    assert key(rules, cookie=b"lang=de") != key(rules, cookie=b"lang=en")
    assert key(rules) == key(rules, cookie=b"session=1") != key(rules, cookie=b"lang=")


# --- what holds for all ----------------------------------------------------------------------------------------------


PARAMETER = st.text("ab=;%_*", max_size=4) | st.sampled_from(["a=1", "a=2", "b", "utm_a=1", "", "a%3D1"])
QUERIES = st.none() | st.lists(PARAMETER, max_size=5).map("&".join)
PATHS = st.text("/a%2?", max_size=5).map(lambda text: "/" + text)
TARGET = st.tuples(PATHS, QUERIES).map(
    lambda parts: (parts[0] if parts[1] is None else "?".join(map(str, parts))).encode()
)
HOST = st.from_regex(r"\A(\[::1\]|[ab]{1,2}(\.[ab]){0,2}\.{0,2}|\.)(:(80|8|443|080)?)?\Z").map(str.encode) | st.just(
    b""
)
TEXT = st.text("a1:;=,-hcx\x00\x01\x02\x03", max_size=6).map(lambda text: text.encode("latin-1"))
FIELDS = st.dictionaries(st.sampled_from([b"x", b"y-z", b"y_z", b"cookie", b"other"]), TEXT, max_size=4)
NAMES = st.lists(st.sampled_from(["a", "b", "utm_*", "*", "%61"]), max_size=2)
SOME_RULES = st.builds(
    KeyRules,
    query=st.booleans(),
    query_allow=NAMES,
    query_deny=NAMES,
    query_sort=st.booleans(),
    headers=st.lists(st.sampled_from(["x", "Y-Z"]), max_size=2),
    cookies=st.lists(st.sampled_from(["a", "c"]), max_size=2),
    host=st.sampled_from(["host", "normalized", "www.example.com"]),
)


@given(rules=SOME_RULES, host=HOST, target=TARGET, names=FIELDS)
def test_what_the_key_leaves_out_is_not_sent(rules: KeyRules, host: bytes, target: bytes, names: Fields) -> None:
    sent_host, sent = rules.host(HTTP, host), rules.target(target)
    url = rules.url(HTTP, host, target)
    assert url == primary_key(HTTP, sent_host, sent)
    assert rules.primary(url, names).startswith(url)
    # asked for as it was sent, it has the same key: what is sent has nothing that the key has not
    assert (rules.host(HTTP, sent_host), rules.target(sent)) == (sent_host, sent)
    assert rules.url(HTTP, sent_host, sent) == url
    if rules.plain:
        assert (url, rules.primary(url, names)) == (primary_key(HTTP, host, target),) * 2


@given(rules=SOME_RULES, target=TARGET)
def test_no_parameter_is_changed_or_made_up(rules: KeyRules, target: bytes) -> None:
    path, _, query = target.partition(b"?")
    kept_path, mark, kept = rules.target(target).partition(b"?")
    assert kept_path == path
    rest = query.split(b"&")
    for parameter in kept.split(b"&") if mark else []:
        rest.remove(parameter)
    for name in {text.partition(b"=")[0] for text in kept.split(b"&")}:
        values = [text for text in kept.split(b"&") if text.partition(b"=")[0] == name]
        assert values == [text for text in query.split(b"&") if text.partition(b"=")[0] == name] or not mark


@given(query=st.lists(PARAMETER, max_size=6), order=st.randoms())
def test_sorted_parameters_have_one_key_as_long_as_values_of_a_name_keep_their_order(
    query: list[str], order: Any
) -> None:
    by_name: dict[str, list[str]] = {}
    for text in query:
        by_name.setdefault(text.partition("=")[0], []).append(text)
    shuffled = [text.partition("=")[0] for text in query]
    order.shuffle(shuffled)
    other = [by_name[name].pop(0) for name in shuffled]
    one, same = (SORT.target(b"/p?" + "&".join(texts).encode()) for texts in (query, other))
    assert one == same
    names = [text.partition(b"=")[0] for text in one.partition(b"?")[2].split(b"&")]
    assert all(first <= second for first, second in pairwise(names))


TWO_HEADERS = KeyRules(headers=["x", "y-z"])


@given(rules=SOME_RULES, one=st.tuples(HOST, TARGET, FIELDS), other=st.tuples(HOST, TARGET, FIELDS))
@example(
    TWO_HEADERS, (b"a", b"/", {b"x": b"1;h:y-z=2", b"y-z": b"3"}), (b"a", b"/", {b"x": b"1", b"y-z": b"2;h:y-z=3"})
)
@example(TWO_HEADERS, (b"a", b"/", {b"x": b"1;h:y-z=1:2"}), (b"a", b"/", {b"x": b"1", b"y-z": b"2"}))
def test_two_requests_have_one_key_only_if_all_that_is_keyed_is_the_same(
    rules: KeyRules, one: tuple[bytes, bytes, Fields], other: tuple[bytes, bytes, Fields]
) -> None:
    def keyed(host: bytes, target: bytes, names: Fields) -> tuple[object, ...]:
        headers = tuple(names.get(name) for name in (b"x", b"y-z", b"y_z") if name in headers_of(rules))
        cookies = tuple(cookie_parts(names.get(b"cookie", b""), wanted) for _, wanted in rules._cookies)
        return (rules.host(HTTP, host), rules.target(target), headers, cookies)

    same = keyed(*one) == keyed(*other)
    keys = {rules.primary(rules.url(HTTP, host, target), names) for host, target, names in (one, other)}
    assert (len(keys) == 1) is same


def headers_of(rules: KeyRules) -> set[bytes]:
    return {*rules.headers, *(name.replace(b"-", b"_") for name in rules.headers)}


COOKIE = st.lists(
    st.sampled_from(["c=1", "c", "a=0", "a.c=1", '"', "\\", ";", "; ", ",", ", ", "=", "%63", "c", "1", " "]),
    max_size=8,
).map(lambda parts: "".join(parts).encode())
CLEAN = st.sampled_from([b"", b"c=1", b"c=", b"c", b"a=0; c=1", b"c=1; c=1"])


@settings(max_examples=500)
@given(one=COOKIE, other=CLEAN | COOKIE)
@example(b'a="0; c=1', b"c=1")
@example(b'a="\\"; c=1', b"c=1")
@example(b"c=1, c=2", b"c=1")
@example(b"a=1, c=2", b"a=1")
@example(b";c=1 ", b"c=1")
def test_cookies_that_any_origin_reads_differently_have_different_keys(one: bytes, other: bytes) -> None:
    if cookie_parts(one, aliases(b"c")) == cookie_parts(other, aliases(b"c")):
        for read in (as_rfc6265, as_several_lines, as_quoted, as_decoded):
            assert read(one) == read(other)


def as_rfc6265(cookie: bytes, separators: bytes = b";") -> list[bytes]:
    """The values of `c`, as browsers and most servers have it."""
    pairs = [pair.partition(b"=") for pair in re.split(b"[" + separators + b"]", cookie)]
    return [value.strip(b" ") for name, _, value in pairs if name.strip(b" ") == b"c"]


def as_several_lines(cookie: bytes) -> list[bytes]:
    return as_rfc6265(cookie, b";,")


def as_decoded(cookie: bytes) -> list[bytes]:
    pairs = [pair.partition(b"=") for pair in cookie.split(b";")]
    return [value.strip(b" ") for name, _, value in pairs if unquote_to_bytes(name).strip(b" ") == b"c"]


def as_quoted(cookie: bytes) -> list[bytes]:
    """As RFC 2109 has it: what is in quotes may be anything, a quote with a backslash too."""
    pair = re.compile(rb'[ ;,]*([^=;,]*?) *(?:= *("(?:[^"\\]|\\.)*"?|[^;,]*)[^;,]*)?(?:[;,]|\Z)')
    return [found[2] or b"" for found in pair.finditer(cookie) if found[1] == b"c"]
