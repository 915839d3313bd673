"""What `load` accepts, and what it says of what it does not."""

import string
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeproxy.config import Config, ConfigError, Listen, Origin, Problem, Route, RouteCache, effective, load
from edgeproxy.config.model import Limits
from edgeproxy.config.schema import keys_of
from edgeproxy.config.toml import toml_key, toml_value

type Load = Callable[..., Config]
type Problems = Callable[..., list[Problem]]
ORIGIN = '[[origin]]\nname = "app"\nurls = ["http://127.0.0.1:8000"]\n'
SECOND_ORIGIN = '[[origin]]\nname = "api"\nurls = ["http://127.0.0.1:8001"]\n'


def test_without_a_file_there_are_the_defaults() -> None:
    assert load(None, {}) == Config()


def test_a_file_with_one_origin_has_the_defaults_for_the_rest(loaded: Load) -> None:
    assert loaded() == Config(origin=[Origin(name="app", urls=["http://127.0.0.1:8000"])])


def test_what_the_file_says_is_in_the_config(loaded: Load) -> None:
    config = loaded("""
        [[route]]
        match = "/api/*"
        host = "*.example.com"
        cache = { enabled = false, max_object_bytes = 1 }
        [[route]]
        match = "/*"
        [listen]
        http = "[::1]:0"
        [tracing]
        trust = ["10.0.0.0/8", "2001:db8::/32", "192.0.2.7"]
        ratio = 1
        resource_attributes = { "deployment.environment.name" = "test" }
        [admin]
        listen = ""
    """)
    first, second = config.route
    assert first == Route(match="/api/*", host="*.example.com", cache=RouteCache(enabled=False, max_object_bytes=1))
    assert second == Route(match="/*")
    assert config.listen == Listen(http="[::1]:0")
    assert config.tracing.trust == ["10.0.0.0/8", "2001:db8::/32", "192.0.2.7"]
    assert config.tracing.resource_attributes == {"deployment.environment.name": "test"}
    assert config.admin.listen == ""


def test_an_integer_serves_where_a_number_is_wanted(loaded: Load) -> None:
    timeout = loaded("[limits]\nsend_timeout = 5").limits.send_timeout
    assert (timeout, type(timeout)) == (5.0, float)


def test_a_byte_order_mark_does_no_harm(config_file: Callable[[bytes], Path]) -> None:
    assert load(config_file(b"\xef\xbb\xbf" + ORIGIN.encode()), {}).origin[0].name == "app"


@pytest.mark.parametrize("name", ["authorization", "Cookie", "PROXY-Authorization", "set-cookie", "a b", ""])
def test_a_header_that_lets_in_whoever_reads_it_is_never_logged(
    config_file: Callable[[bytes], Path], name: str
) -> None:
    path = config_file(f'[log]\nrequest_headers = ["x-tenant", "{name}"]\n{ORIGIN}'.encode())
    with pytest.raises(ConfigError) as caught:
        load(path, {})
    (problem,) = caught.value.problems
    assert problem.key == "log.request_headers[1]"
    assert problem.reason == (
        'expected the name of a request header such as "x-tenant", and never authorization, cookie, '
        "proxy-authorization or set-cookie"
    )


def test_a_propagator_that_there_is_not_is_named_with_those_that_there_are(
    config_file: Callable[[bytes], Path],
) -> None:
    path = config_file(f'[tracing]\npropagators = ["b3", "xray"]\n{ORIGIN}'.encode())
    with pytest.raises(ConfigError) as caught:
        load(path, {})
    (problem,) = caught.value.problems
    assert str(problem).endswith(
        'tracing.propagators[1] = "xray": expected "tracecontext", "baggage", "b3", "b3multi", "jaeger" or "none"'
    )


# --- one wrong value -------------------------------------------------------------------------------------------------


SAMPLERS = (
    'expected "parentbased_traceidratio", "parentbased_always_on", "parentbased_always_off", '
    '"traceidratio", "always_on" or "always_off"'
)
ATTRIBUTES = (
    'expected printable texts, such as { "deployment.environment.name" = "production" }; '
    "service.name is tracing.service_name"
)
WRONG_VALUES = {  # the key, the value in the file, and what the error says
    "text for an integer": (
        "limits.header_bytes",
        '"x"',
        "expected an integer of bytes, 1024 or more",
    ),
    "an integer below the range": ("limits.header_bytes", "1023", "expected an integer of bytes, 1024 or more"),
    "true is no integer": ("limits.headers", "true", "expected an integer, 1 or more"),
    "true is no number": ("limits.send_timeout", "true", "expected a number of seconds, more than 0 and at most 86400"),
    "a whole float is no integer": ("limits.headers", "100.0", "expected an integer, 1 or more"),
    "1 is not true": ("tracing.enabled", "1", "expected true or false"),
    "a number in quotes": ("listen.backlog", '"4096"', "expected an integer, 1 to 65535"),
    "a date for a text": ("log.access", "2024-05-01", 'expected a path, or "-"'),
    "not a number": ("tracing.ratio", "nan", "expected a number, 0 to 1"),
    "infinity": ("limits.keepalive_timeout", "inf", "expected a number of seconds, more than 0 and at most 86400"),
    "no time at all": ("limits.header_timeout", "0", "expected a number of seconds, more than 0 and at most 86400"),
    "negative zero is no time": (
        "limits.header_timeout",
        "-0.0",
        "expected a number of seconds, more than 0 and at most 86400",
    ),
    "more than a day": ("limits.drain_timeout", "86400.5", "expected a number of seconds, 0 to 86400"),
    "a share above one": ("tracing.ratio", "1.01", "expected a number, 0 to 1"),
    "no worker": ("node.workers", "0", 'expected "auto" or an integer, 1 to 1024'),
    "a word that is no number of workers": ("node.workers", '"all"', 'expected "auto" or an integer, 1 to 1024'),
    "not a multiple": (
        "node.ledger_bytes",
        "70000",
        "expected an integer of bytes, 65536 to 1073741824, a multiple of 4096",
    ),
    "a ledger too small": (
        "node.ledger_bytes",
        "61440",
        "expected an integer of bytes, 65536 to 1073741824, a multiple of 4096",
    ),
    "a name with a space": (
        "node.name",
        '"hk 1"',
        'expected 1 to 255 letters, digits, dots, dashes and underscores; or ""',
    ),
    "a name with a line break": (
        "node.name",
        '"hk\\n"',
        'expected 1 to 255 letters, digits, dots, dashes and underscores; or ""',
    ),
    "an unknown format": ("log.format", '"csv"', 'expected "json" or "nginx"'),
    "an unknown level": ("log.level", '"INFO"', 'expected "debug", "info", "warning" or "error"'),
    "an unknown sampler": (
        "tracing.sampler",
        '"always"',
        SAMPLERS,
    ),
    "no format at all": (
        "tracing.propagators",
        "[]",
        'expected a list of at least 1, each "tracecontext", "baggage", "b3", "b3multi", "jaeger" or "none"',
    ),
    "none of the formats and one of them": (
        "tracing.propagators",
        '["none", "b3"]',
        'expected "none" alone, or other words without it',
    ),
    "an unknown store": ("cache.store", '"disk"', 'expected "embedded", "redis" or "memory"'),
    "no access log": ("log.access", '""', 'expected a path, or "-"'),
    "a path with a zero byte": ("node.runtime_dir", '"/run/\\u0000"', 'expected a directory; or ""'),
    "an unknown word of trust": (
        "tracing.trust",
        '"some"',
        'expected "all", "none" or a list, each a network such as "10.0.0.0/8", with no bits set beyond its prefix',
    ),
    "a service without a name": ("tracing.service_name", '""', "expected a printable name"),
    "an attribute that is no text": (
        "tracing.resource_attributes",
        "{ a = 1 }",
        ATTRIBUTES,
    ),
    "the service's name as an attribute": (
        "tracing.resource_attributes",
        '{ "service.name" = "x" }',
        ATTRIBUTES,
    ),
}


@pytest.mark.parametrize(("key", "value", "expected"), WRONG_VALUES.values(), ids=WRONG_VALUES.keys())
def test_a_wrong_value_is_named_with_what_is_allowed(
    config_file: Callable[[str], Path], key: str, value: str, expected: str
) -> None:
    table, name = key.split(".")
    path = config_file(f"{ORIGIN}[{table}]\n{name} = {value}\n")
    with pytest.raises(ConfigError) as caught:
        load(path, {})
    # A table's value would be shown as what it holds, which is on lines of its own: only its key is named.
    shown = "" if value.startswith("{") else f" = {value}"
    assert str(caught.value) == f"{path}: {key}{shown}: {expected}"
    assert caught.value.code == "config_invalid"


NUMBERS_IN_TABLES = [
    f"{name}.{key.name}"
    for name, table in keys_of(Config).items()
    if table.table is not None
    for key in keys_of(table.table).values()
    if isinstance(key.default, float)
]


@pytest.mark.parametrize("key", NUMBERS_IN_TABLES)
@pytest.mark.parametrize("number", ["nan", "-nan", "inf", "-inf"])
def test_no_number_may_be_endless_or_none_at_all(problems: Problems, key: str, number: str) -> None:
    table, name = key.split(".")
    text = f"{ORIGIN}{name} = {number}" if table == "origin" else f"{ORIGIN}[{table}]\n{name} = {number}"
    (problem,) = problems(text)
    assert problem.key == key.replace("origin.", "origin[0].")
    assert problem.reason.startswith("expected a number")


ADDRESSES = {
    "a host and a port": ("localhost:8080", True),
    "any address": ("0.0.0.0:80", True),
    "the system's choice of port": ("127.0.0.1:0", True),
    "the highest port": ("127.0.0.1:65535", True),
    "IPv6": ("[::]:8080", True),
    "an IPv4 address in IPv6": ("[::ffff:10.0.0.1]:8080", True),
    "a port too high": ("127.0.0.1:65536", False),
    "no port": ("127.0.0.1", False),
    "an empty port": ("127.0.0.1:", False),
    "no host": (":8080", False),
    "a port alone": ("8080", False),
    "a star": ("*:8080", False),
    "IPv6 without brackets": ("::1:8080", False),
    "IPv4 in brackets": ("[127.0.0.1]:8080", False),
    "an octet too high": ("127.0.0.256:80", False),
    "an octet missing": ("127.0.1:80", False),
    "a url": ("http://127.0.0.1:80", False),
    "a zone": ("[fe80::1%eth0]:80", False),
    "a label that begins with a dash": ("-a:80", False),
    "digits that are no ASCII": ("127.0.0.1:\uff18\uff10", False),
    "a space": ("127.0.0.1 :80", False),
    "a line break at the end": ("127.0.0.1:80\n", False),
}


@pytest.mark.parametrize(("address", "valid"), ADDRESSES.values(), ids=ADDRESSES.keys())
@pytest.mark.parametrize("key", ["listen.http", "admin.listen"])
def test_listen_addresses(config_file: Callable[[str], Path], key: str, address: str, valid: bool) -> None:
    table, name = key.split(".")
    path = config_file(f"{ORIGIN}[{table}]\n{name} = {toml_value(address)}\n")
    if valid:
        config = load(path, {})
        assert getattr(getattr(config, table), name) == address
    else:
        with pytest.raises(ConfigError, match=r'expected "host:port" or "\[ipv6\]:port"') as caught:
            load(path, {})
        assert [problem.key for problem in caught.value.problems] == [key]


def test_the_admin_page_can_be_off_but_clients_need_an_address(loaded: Load, problems: Problems) -> None:
    assert loaded('[admin]\nlisten = ""').admin.listen == ""
    assert [problem.key for problem in problems(f'{ORIGIN}[listen]\nhttp = ""')] == ["listen.http"]


URLS = {
    "http": ("http://10.0.0.1:8000", True),
    "https without a port": ("https://origin.example.com", True),
    "IPv6": ("http://[2001:db8::1]:8000", True),
    "a name with an underscore": ("http://my_service:8000", True),
    "a slash at the end": ("http://10.0.0.1:8000/", False),
    "a path": ("http://10.0.0.1:8000/app", False),
    "a query": ("http://10.0.0.1:8000?x=1", False),
    "an empty query": ("http://10.0.0.1:8000?", False),
    "a fragment": ("http://10.0.0.1:8000#x", False),
    "a user": ("http://user@10.0.0.1:8000", False),
    "a user and a password": ("http://user:secret@10.0.0.1:8000", False),
    "another scheme": ("ftp://10.0.0.1", False),
    "a scheme in capitals": ("HTTP://10.0.0.1", False),
    "no scheme": ("10.0.0.1:8000", False),
    "no scheme but slashes": ("//10.0.0.1:8000", False),
    "one slash": ("http:/10.0.0.1", False),
    "no host": ("http://:8000", False),
    "nothing": ("", False),
    "port 0": ("http://10.0.0.1:0", False),
    "a port too high": ("http://10.0.0.1:65536", False),
    "a port that is a word": ("http://10.0.0.1:web", False),
    "IPv6 that is none": ("http://[::g]:80", False),
    "a bracket left open": ("http://[::1:80", False),
    "a space": ("http://10.0.0.1 :80", False),
    "a space before": (" http://10.0.0.1", False),
    "a line break": ("http://10.0.0.1\n", False),
    "a tab that urlsplit would drop": ("http://10.0.\t0.1", False),
    "letters beyond ASCII": ("http://bücher.example", False),
    "a backslash": ("http://10.0.0.1\\x", False),
    "an octet too high": ("http://999.0.0.1", False),
}


@pytest.mark.parametrize(("url", "valid"), URLS.values(), ids=URLS.keys())
def test_origin_urls(config_file: Callable[[str], Path], url: str, valid: bool) -> None:
    path = config_file(f'[[origin]]\nname = "app"\nurls = ["http://ok", {toml_value(url)}]\n')
    if valid:
        assert load(path, {}).origin[0].urls == ["http://ok", url]
    else:
        with pytest.raises(ConfigError, match="expected http:// or https:// and a host") as caught:
            load(path, {})
        assert [problem.key for problem in caught.value.problems] == ["origin[0].urls[1]"]


def test_a_password_is_not_repeated(problems: Problems) -> None:
    (problem,) = problems('[[origin]]\nname = "a"\nurls = ["http://user:secret@h"]')
    assert problem.value == '"http://***@h"'


NETWORKS = {
    "a network": ("10.0.0.0/8", True),
    "an address": ("192.0.2.1", True),
    "IPv6": ("2001:db8::/32", True),
    "bits beyond the prefix": ("10.1.2.3/8", False),
    "a prefix too long": ("10.0.0.0/33", False),
    "a name": ("localhost", False),
    "nothing": ("", False),
}


@pytest.mark.parametrize(("network", "valid"), NETWORKS.values(), ids=NETWORKS.keys())
def test_trusted_networks(config_file: Callable[[str], Path], network: str, valid: bool) -> None:
    path = config_file(f'{ORIGIN}[tracing]\ntrust = ["192.0.2.0/24", {toml_value(network)}]\n')
    if valid:
        assert load(path, {}).tracing.trust == ["192.0.2.0/24", network]
    else:
        with pytest.raises(ConfigError, match=r"expected a network such as") as caught:
            load(path, {})
        assert [problem.key for problem in caught.value.problems] == ["tracing.trust[1]"]


PATTERNS = {
    "everything": ("match", "/*", True),
    "a prefix": ("match", "/api/*", True),
    "a suffix": ("match", "*.jpg", True),
    "one path": ("match", "/robots.txt", True),
    "a percent-encoded path": ("match", "/b%C3%BCcher/*", True),
    "a path without its slash": ("match", "api/*", False),
    "no path": ("match", "", False),
    "a path with a query": ("match", "/api?x=*", False),
    "a path with a fragment": ("match", "/api#x", False),
    "a path with a space": ("match", "/a b", False),
    "a path beyond ASCII": ("match", "/bücher", False),
    "any host": ("host", "", True),
    "a host": ("host", "www.example.com", True),
    "hosts below a name": ("host", "*.example.com", True),
    "an address as a host": ("host", "[2001:db8::1]", True),
    "a host in capitals": ("host", "WWW.example.com", False),
    "a host with a port": ("host", "www.example.com:8080", False),
    "a star elsewhere": ("host", "www.*.com", False),
    "a star alone": ("host", "*", False),
    "a star and a dot": ("host", "*.", False),
}


@pytest.mark.parametrize(("key", "value", "valid"), PATTERNS.values(), ids=PATTERNS.keys())
def test_what_a_route_matches(config_file: Callable[[str], Path], key: str, value: str, valid: bool) -> None:
    route = {"match": "/*"} | {key: value}
    path = config_file(
        ORIGIN + "[[route]]\n" + "".join(f"{name} = {toml_value(text)}\n" for name, text in route.items())
    )
    if valid:
        assert getattr(load(path, {}).route[0], key) == value
    else:
        with pytest.raises(ConfigError) as caught:
            load(path, {})
        assert [problem.key for problem in caught.value.problems] == [f"route[0].{key}"]


@pytest.mark.parametrize(
    ("host", "valid"),
    [
        ("", True),
        ("www.example.com", True),
        ("www.example.com:8080", True),
        ("[::1]:80", True),
        ("a b", False),
        ("a:", False),
        ("a:0", False),
        ("a:b", False),
        ("a/b", False),
        ("a\r\nX: y", False),
    ],
)
def test_the_host_that_an_origin_is_sent(config_file: Callable[[str], Path], host: str, valid: bool) -> None:
    path = config_file(f"{ORIGIN}host = {toml_value(host)}\n")
    if valid:
        assert load(path, {}).origin[0].host == host
    else:
        with pytest.raises(ConfigError, match=r"origin\[0\]\.host"):
            load(path, {})


def test_a_certificate_file_must_be_there(config_file: Callable[[str], Path], tmp_path: Path) -> None:
    certificates = tmp_path / "ca.pem"
    path = config_file(f"{ORIGIN}tls_ca_file = {toml_value(str(certificates))}\n")
    with pytest.raises(ConfigError, match=r"origin\[0\].tls_ca_file = .*expected a file that is there"):
        load(path, {})
    certificates.mkdir()
    with pytest.raises(ConfigError, match=r"tls_ca_file"):
        load(path, {})
    certificates.rmdir()
    certificates.touch()
    assert load(path, {}).origin[0].tls_ca_file == str(certificates)


# --- keys and tables that are not there, or should not be ------------------------------------------------------------


UNKNOWN_KEYS = {
    "a key": (
        "[limits]\nheader_byte = 1",
        "limits.header_byte",
        "unknown key in [limits]; did you mean header_bytes? ",
    ),
    "capitals": ("[limits]\nHEADERS = 1", "limits.HEADERS", "unknown key in [limits]; did you mean headers? "),
    "nothing like it": ("[limits]\nzzz = 1", "limits.zzz", "unknown key in [limits]; "),
    "a table": ("[limit]\nheaders = 1", "limit", "unknown key in the file; did you mean limits? "),
    "a key of an origin": (
        "[[origin]]\nname='b'\nurls=['http://b']\nurl='x'",
        "origin[1].url",
        "unknown key in origin[1]; did you mean urls? ",
    ),
    "a key of a route's cache": (
        "[[route]]\nmatch='/*'\norigin='app'\ncache={enable=true}",
        "route[0].cache.enable",
        "unknown key in route[0].cache; did you mean enabled? ",
    ),
    "a table in a table": (
        "[limits.headers_]\na = 1",
        "limits.headers_",
        "unknown key in [limits]; did you mean headers? ",
    ),
    "a key that needs quotes": ('[limits]\n"a b" = 1', 'limits."a b"', "unknown key in [limits]; "),
}


@pytest.mark.parametrize(("text", "key", "reason"), UNKNOWN_KEYS.values(), ids=UNKNOWN_KEYS.keys())
def test_an_unknown_key_is_named_with_its_table_and_the_nearest(
    problems: Problems, text: str, key: str, reason: str
) -> None:
    found = [problem for problem in problems(f"{ORIGIN}{text}") if problem.code == "unknown_key"]
    assert [problem.key for problem in found] == [key]
    assert found[0].reason.startswith(reason + "allowed are ")


def test_an_unknown_key_comes_with_all_that_are_allowed(problems: Problems) -> None:
    (problem,) = problems(f"{ORIGIN}[limits]\nzzz = 1")
    assert problem.reason.endswith(f"allowed are {', '.join(keys_of(Limits))}")
    assert problem.value == "1"


SHAPES = {
    "a value where a table is": ("limits = 3", "", "limits = 3: expected a table, [limits]"),
    "a list where a table is": ("[[limits]]", "", "limits: expected a table, [limits]"),
    "a table where a list is": (
        "",
        "[origin]\nname='a'\nurls=['http://a']",
        "origin: expected a list of tables, [[origin]]",
    ),
    "a number in a list of tables": ("route = [3]", "", "route[0] = 3: expected a table, route[0]"),
    "a value where a route's cache is": (
        "",
        "[[route]]\nmatch='/*'\ncache=true",
        "route[0].cache = true: expected a table, route[0].cache",
    ),
    "a text where a list is": (
        "",
        "[[origin]]\nname='b'\nurls='http://b'\n",
        'origin[1].urls = "http://b": expected a list of at least 1, each http',
    ),
    "an empty list": (
        "",
        "[[origin]]\nname='b'\nurls=[]\n",
        "origin[1].urls = []: expected a list of at least 1, each http",
    ),
}


@pytest.mark.parametrize(("before", "after", "text"), SHAPES.values(), ids=SHAPES.keys())
def test_a_value_of_the_wrong_shape(problems: Problems, before: str, after: str, text: str) -> None:
    origin = "" if after.startswith("[origin]") else ORIGIN
    assert any(str(problem).split(": ", 1)[1].startswith(text) for problem in problems(f"{before}\n{origin}{after}"))


@pytest.mark.parametrize("text", ["", "[limits]\nheaders = 5", "origin = []"])
def test_there_must_be_an_origin(problems: Problems, text: str) -> None:
    (problem,) = problems(text)
    assert (problem.code, problem.key) == ("missing", "origin")
    assert "at least one [[origin]] with its name and urls" in problem.reason


def test_what_must_be_given_is_named(problems: Problems) -> None:
    found = problems("[[origin]]\nkeepalive = 5\n[[route]]\nhost = 'a.example'")
    assert [(problem.code, problem.key) for problem in found] == [
        ("missing", "origin[0].name"),
        ("missing", "origin[0].urls"),
        ("missing", "route[0].match"),
    ]
    assert found[0].reason == "missing: expected 1 to 255 letters, digits, dots, dashes and underscores"


# --- keys that speak of one another ----------------------------------------------------------------------------------


def test_two_origins_of_one_name(problems: Problems) -> None:
    (problem,) = problems(ORIGIN + SECOND_ORIGIN + ORIGIN + "[[route]]\nmatch='/*'\norigin='api'")
    assert str(problem).endswith('origin[2].name = "app": expected a name of its own: origin[0] has this one')


def test_two_origins_of_one_name_are_told_by_where_they_stand(problems: Problems) -> None:
    app = '{ name = "app", urls = ["http://a"] }'
    found = problems(f"route = [{{ match = '/*', origin = 'app' }}]\norigin = [3, {{ name = 4 }}, {app}, {app}]")
    assert str(found[-1]).endswith('origin[3].name = "app": expected a name of its own: origin[2] has this one')


def test_what_names_an_origin_is_told_once(problems: Problems) -> None:
    (problem,) = problems(f"{ORIGIN}[[route]]\nmatch = '/*'\norigin = 'a b'")
    assert str(problem).endswith('route[0].origin = "a b": there is no such origin; expected "app"')
    (problem,) = problems("[[origin]]\nname = 3\nurls = ['http://a']\n[[route]]\nmatch = '/*'\norigin = 'app'")
    assert problem.key == "origin[0].name"


def test_a_route_to_an_unknown_origin_names_those_there_are(problems: Problems) -> None:
    (problem,) = problems(ORIGIN + SECOND_ORIGIN + "[[route]]\nmatch='/*'\norigin='apo'")
    assert str(problem).endswith('route[0].origin = "apo": there is no such origin; expected "app" or "api"')


def test_a_sampling_rule_for_a_route_that_there_is_not(loaded: Load, problems: Problems) -> None:
    rule = '[tracing.sampling]\nrules = [{ route = "/ap/*", ratio = 1 }]\n'
    (problem,) = problems(f'{ORIGIN}{rule}[[route]]\nmatch = "/api/*"\n[[route]]\nmatch = "/*"\n')
    assert problem.key == "tracing.sampling.rules[0].route"
    assert problem.reason == 'there is no route with this match; expected "/api/*" or "/*"'
    assert loaded(f'{rule.replace("/ap/", "/api/")}[[route]]\nmatch = "/api/*"\n').tracing.sampling.rules


def test_a_sampling_rule_says_what_is_wrong_with_it(problems: Problems) -> None:
    rules = '{ path = "api", ratio = 1 }, { header = "a b", ratio = 2 }, { methd = "GET" }'
    found = problems(f"{ORIGIN}[tracing.sampling]\nrules = [{rules}]\n")
    assert [problem.key.removeprefix("tracing.sampling.rules") for problem in found] == [
        *("[0].path", "[1].header", "[1].ratio", "[2].methd", "[2].ratio")
    ]


def test_a_route_may_leave_its_origin_out_only_if_there_is_one(loaded: Load, problems: Problems) -> None:
    assert loaded("[[route]]\nmatch = '/*'").route[0].origin == ""
    (problem,) = problems(ORIGIN + SECOND_ORIGIN + "[[route]]\nmatch = '/*'")
    assert (problem.code, problem.key) == ("missing", "route[0].origin")
    assert problem.reason == 'missing: with several origins, expected "app" or "api"'


def test_several_origins_need_a_route(problems: Problems) -> None:
    (problem,) = problems(ORIGIN + SECOND_ORIGIN)
    assert (problem.code, problem.key) == ("missing", "route")


def test_no_route_for_everything_is_fine(loaded: Load) -> None:
    assert [route.match for route in loaded("[[route]]\nmatch = '/api/*'").route] == ["/api/*"]


# --- everything at once ----------------------------------------------------------------------------------------------


def test_all_problems_are_told_at_once(config_file: Callable[[str], Path]) -> None:
    path = config_file("""
        [node]
        workers = -1
        nmae = "x"
        [[origin]]
        name = "a"
        urls = ["ftp://a", "http://a", 3]
        [[origin]]
        name = "a"
        [limits]
        headers = 0
        send_timeout = nan
    """)
    with pytest.raises(ConfigError) as caught:
        load(path, {"OTEL_SERVICE_NAME": "\x1b[31m"})
    assert {problem.key for problem in caught.value.problems} == {
        "node.workers",
        "node.nmae",
        "origin[0].urls[0]",
        "origin[0].urls[2]",
        "origin[1].urls",
        "origin[1].name",
        "route",
        "limits.headers",
        "limits.send_timeout",
        "OTEL_SERVICE_NAME",
    }
    assert str(caught.value).splitlines() == [str(problem) for problem in caught.value.problems]
    assert {problem.source for problem in caught.value.problems} == {str(path), "environment"}


# --- files that can't be read or understood --------------------------------------------------------------------------


BROKEN_FILES = {
    "no value": (b"[limits]\nheaders =\n", "line 2, column 10", "invalid value"),
    "no equals sign": (b"\n\n[limits]\n  headers 5\n", "line 4, column 11", "expected '=' after a key"),
    "a table left open": (b"[limits", "line 1, column 8", "expected ']'"),
    "a text left open at the end": (b'a = 1\nb = """x\n\ny', "line 4, column 2", "unterminated string"),
    "a key twice": (b"[limits]\nheaders = 1\nheaders = 2\n", "line 3, column 12", "cannot overwrite a value"),
    "no UTF-8": (b'a = "x"\nb = "\xff"\n', "line 2, column 6", "expected text in UTF-8"),
    "a number of thousands of digits": (b"a = 1" + b"0" * 5000, "", "Exceeds the limit"),
    "nested without end": (b"a = " + b"[" * 100_000, "", ""),
}


@pytest.mark.parametrize(("content", "where", "reason"), BROKEN_FILES.values(), ids=BROKEN_FILES.keys())
def test_a_broken_file_is_named_with_line_and_column(
    config_file: Callable[[bytes], Path], content: bytes, where: str, reason: str
) -> None:
    path = config_file(content)
    with pytest.raises(ConfigError) as caught:
        load(path, {})
    (problem,) = caught.value.problems
    assert caught.value.code == "config_syntax"
    assert (problem.source, problem.code) == (str(path), "syntax")
    if where:
        assert problem.key == where
        assert str(caught.value).startswith(f"{path}: {where}: ")
    assert reason in problem.reason


def test_a_missing_file(tmp_path: Path) -> None:
    path = tmp_path / "none.toml"
    with pytest.raises(ConfigError) as caught:
        load(path, {})
    assert (caught.value.code, str(caught.value)) == ("config_unreadable", f"{path}: there is no such file")


def test_a_file_that_is_a_directory(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, {})
    assert (caught.value.code, str(caught.value)) == ("config_unreadable", f"{tmp_path}: can't be read: Is a directory")


# --- whatever stands there -------------------------------------------------------------------------------------------


def some_table(keys: list[str]) -> st.SearchStrategy[dict[str, object]]:
    return st.dictionaries(
        st.sampled_from(keys) | st.text(string.ascii_lowercase, min_size=1, max_size=5), VALUES, max_size=3
    )


TEXTS = st.sampled_from(["", "auto", "all", "app", "/*", "http://a", "1.2.3.4:5", "json"]) | st.text(max_size=8)
NUMBERS = st.integers(-2, 1 << 70) | st.floats() | st.sampled_from([0, 1, 4096, 65536])
VALUES = st.recursive(
    TEXTS | NUMBERS | st.booleans(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)
TABLES = {name: some_table(list(keys_of(key.table))) for name, key in keys_of(Config).items() if key.table}


@st.composite
def some_file(draw: st.DrawFn) -> str:
    origin = {"name": "app", "urls": ["http://a"]} | draw(st.just({}) | TABLES["origin"])
    values = {"origin": [origin]}
    for name in draw(st.lists(st.sampled_from(list(TABLES)), unique=True, max_size=3)):
        values[name] = draw(TABLES[name] | st.lists(TABLES[name], max_size=2) | VALUES)
    return "".join(f"{toml_key(name)} = {toml_value(value)}\n" for name, value in values.items())


@given(text=some_file())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_stands_there_is_a_config_or_a_list_of_problems(tmp_path: Path, text: str) -> None:
    path = tmp_path / "edgeproxy.toml"
    path.write_text(text, encoding="utf-8")
    try:
        config = load(path, {})
    except ConfigError as error:
        wrong = error
    else:
        assert Config.from_json(config.to_json()) == config
        path.write_text(effective(config), encoding="utf-8")
        assert load(path, {}) == config
        return
    assert wrong.code == "config_invalid"
    assert all(problem.key and problem.reason for problem in wrong.problems)
    assert "\n" not in "".join(map(str, wrong.problems))
    str(wrong).encode()


@given(content=st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_the_bytes_only_a_config_error_comes_out(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "edgeproxy.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError):
        load(path, {})
