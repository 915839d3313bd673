"""Every script in the documentation runs: taken out of the pages as it stands there, on a node."""

import json
import os
import re
import shutil
import socket
import subprocess
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import redis

from edgeproxy.config import load
from tests.cache.scripted import FRESH
from tests.scripting.changing import Changing, SharedNodes
from tests.scripting.engines import get
from tests.scripting.examples.scripts import FOLDER, module
from tests.support import Origin, Response, chunked, reply, until
from tests.support.nginx import nginx_program
from tests.support.redis_server import redis_program

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "docs" / "addons.md", *sorted((ROOT / "docs" / "addons").glob("*.md")), ROOT / "docs/from-nginx-lua.md"]
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
OPTIONS = {name for file in FOLDER.glob("*.py") for name in re.findall(r'add(?:_option)?\("(\w+)"', file.read_text())}
LUA = Path("/usr/lib/nginx/modules/ngx_http_lua_module.so")
NDK = LUA.with_name("ndk_http_module.so")


def blocks(*languages: str) -> list[str]:
    """All code of some languages in the pages."""
    return [code for page in PAGES for word, code in _BLOCK.findall(page.read_text("utf-8")) if word in languages]


def named(*languages: str) -> dict[str, str]:
    """By the name in its first line."""
    found: dict[str, str] = {}
    for code in blocks(*languages):
        match = re.match(r"# (\S+)\n", code)
        if match:
            assert match[1] not in found, match[1]
            found[match[1]] = code
    return found


SCRIPTS = named("python")


@pytest.fixture(scope="module")
def redis_port() -> Iterator[int]:
    """Where the Redis is that the scripts are told of, as soon as a test starts it; until then nobody else gets it."""
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


@pytest.fixture
def redis_server(redis_port: int) -> Iterator[redis.Redis]:
    """An empty Redis, and a client of it."""
    command = [redis_program(), "--port", str(redis_port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    with subprocess.Popen([*command, "--daemonize", "no"], stdout=subprocess.DEVNULL) as server:
        try:
            with redis.Redis(port=redis_port) as client:

                def answers() -> bool:
                    try:
                        return bool(client.ping())
                    except redis.ConnectionError:
                        return False

                until(answers, "Redis")
                yield client
        finally:
            server.kill()


@pytest.fixture(scope="module")
def other_server() -> Iterator[Origin]:
    with Origin() as other:
        yield other


@pytest.fixture
def elsewhere(other_server: Origin) -> Origin:
    """The server that some scripts ask, beside the configured one."""
    other_server.requests.clear()
    return other_server


@pytest.fixture(scope="module")
def blocked_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("blocked") / "blocked"


@pytest.fixture(scope="module")
def configured(redis_port: int, other_server: Origin, blocked_file: Path) -> dict[str, Any]:
    """All options that any test wants; each is some one script's."""
    redis_url = f"redis://127.0.0.1:{redis_port}/0"
    return {
        "limited_bytes": 10,
        "price_port": other_server.port,
        "session_redis": redis_url,
        "rate_per_second": 0.5,
        "rate_burst": 3.0,
        "limit_redis": redis_url,
        "limit_per_second": 2,
        "blocked_file": str(blocked_file),
        "blocked_every": 0.05,
        "elsewhere_port": other_server.port,
    }


type Start = Callable[..., Changing]


@pytest.fixture
def origin(shared_nodes: SharedNodes) -> Origin:
    return shared_nodes.origin()


@pytest.fixture
def start(shared_nodes: SharedNodes, origin: Origin, configured: dict[str, Any]) -> Iterator[Start]:
    """Have the shared node run a script of the pages: `start("greeting.py")`."""
    with ExitStack() as stack:
        yield lambda name: stack.enter_context(shared_nodes.running(SCRIPTS[name], options=configured))


@pytest.fixture
def start_anew(shared_nodes: SharedNodes, origin: Origin) -> Iterator[Start]:
    """A node of the test's own that runs one: `start_anew("bearer.py", environ={…})`."""
    with ExitStack() as stack:
        yield lambda name, **configuration: stack.enter_context(shared_nodes.fresh(SCRIPTS[name], **configuration))


def test_every_script_in_the_pages_has_a_name_and_a_test() -> None:
    assert len(blocks("python")) == len(SCRIPTS)
    tests = Path(__file__).read_text(encoding="utf-8")
    assert [name for name in SCRIPTS if f'"{name}"' not in tests] == []


# --- addons.md


def test_greeting(start: Start, origin: Origin) -> None:
    proxy = start("greeting.py")
    assert get(proxy, "/?name=you%20there")["x-greeting"] == "hello you there"
    assert get(proxy, "/r", "User-Agent: ROBOT").status == 403
    assert not origin.seen("/r")


def test_key_and_log(start: Start, origin: Origin) -> None:
    origin.default = lambda talk: reply(talk.request["x-currency"].encode(), "Cache-Control: max-age=1")(talk)
    proxy = start("key_and_log.py")
    cookies = ["currency=USD", "currency=USD", "currency=evil", "x=1"]
    answers = [get(proxy, "/p", f"Cookie: {cookie}") for cookie in cookies]
    assert [(one.text, one["x-cache"]) for one in answers] == [
        *(("USD", "MISS"), ("USD", "HIT"), ("EUR", "MISS"), ("EUR", "HIT"))
    ]
    line = proxy.node.record(answers[1].trace_id)
    assert line["script"]["log"]["currency"] == "USD"
    assert re.fullmatch(r"HIT, age [0-9.]+", line["script"]["log"]["served"])
    assert 50 < line["cache_ttl"] <= 60
    proxy.node.command("purge", "--tag", "prices-USD")
    assert [get(proxy, "/p", f"Cookie: {cookie}")["x-cache"] for cookie in cookies[1:3]] == ["MISS", "HIT"]


def test_redact(start: Start, origin: Origin) -> None:
    card = b"1234567890123456"
    origin.on("/cut", chunked(b"a " + card[:7], card[7:] + b" b 12", b"34", fields=("Content-Type: text/plain",)))
    origin.on("/binary", chunked(card, fields=("Content-Type: image/png",)))
    proxy = start("redact.py")
    assert get(proxy, "/cut").text == f"a {'*' * 16} b 1234"
    assert get(proxy, "/binary").body == card


def test_limited(start: Start, origin: Origin) -> None:
    proxy = start("limited.py")
    assert get(proxy, "/", method="POST", body=b"x" * 10).status == 200
    assert get(proxy, "/", method="POST", body=b"x" * 11).status == 413
    assert len(origin.requests) == 1


def test_priced(start: Start, origin: Origin, elsewhere: Origin) -> None:
    elsewhere.default = reply(b"42")
    proxy = start("priced.py")
    answer = get(proxy, "/item")
    assert origin.seen("/item")[0]["x-price"] == "42"
    line = proxy.node.record(answer.trace_id)
    (span,) = line["script"]["spans"]
    assert (span["name"], span["parent_id"], span["attributes"]) == (
        *("price", line["span_id"], {"shop.item": "/item"}),
    )
    assert elsewhere.requests[0]["traceparent"] == f"00-{line['trace_id']}-{span['span_id']}-{'01'}"
    shown = proxy.node.command("trace", "show", line["trace_id"]).stdout
    assert "price" in shown


# --- from-nginx-lua.md


def test_error_page(start: Start, origin: Origin) -> None:
    origin.on("/broken", reply(b"", status="500 Internal Server Error"))
    proxy = start("error_page.py")
    answer = get(proxy, "/broken")
    assert answer["x-support-code"] == answer.trace_id[:8]
    assert get(proxy, "/fine").get("x-support-code") is None


def test_tenant_log(start: Start) -> None:
    proxy = start("tenant_log.py")
    answer = get(proxy, "/", host="acme.example.com")
    assert proxy.node.record(answer.trace_id)["script"]["log"] == {"tenant": "acme"}


def test_redis_session(start: Start, origin: Origin, redis_server: redis.Redis) -> None:
    origin.default = lambda talk: reply(talk.request["x-user"].encode(), FRESH)(talk)
    redis_server.mset({"session:1": "alice", "session:2": "bob"})
    proxy = start("redis_session.py")

    def ask(*fields: str) -> Response:
        """Again where Redis took longer than the script's 50 ms, as it may beside other work."""
        return next(one for one in (get(proxy, "/u", *fields) for _ in range(20)) if one.status != 503)

    assert [ask(*cookie).status for cookie in ((), ("Cookie: session=3",), ("Cookie: session=",))] == [401, 401, 401]
    answers = [ask(f"Cookie: session={number}", "X-User: root") for number in (1, 2, 1, 2)]
    assert [(one.text, one["x-cache"]) for one in answers] == [
        *(("alice", "MISS"), ("bob", "MISS"), ("alice", "HIT"), ("bob", "HIT"))
    ]
    line = proxy.node.record(answers[0].trace_id)
    (span,) = line["script"]["spans"]
    assert (span["name"], span["kind"], span["parent_id"]) == ("session", "client", line["span_id"])


def test_redis_session_without_redis(start: Start) -> None:
    proxy = start("redis_session.py")
    assert get(proxy, "/u", "Cookie: session=1").status == 503


def test_rate_limit(start: Start) -> None:
    proxy = start("rate_limit.py")
    answers = [get(proxy, "/") for _ in range(5)]
    assert [one.status for one in answers] == [200, 200, 200, 429, 429]
    assert int(answers[-1]["retry-after"]) >= 1
    with proxy.node.connect(source="127.0.0.2") as other:
        assert other.get("/").status == 200
    assert proxy.node.record(answers[-1].trace_id)["script"]["log"] == {"limited": "127.0.0.1"}


def test_rate_limit_redis(start: Start, redis_server: redis.Redis) -> None:
    proxy = start("rate_limit_redis.py")

    def a_second() -> list[int]:
        return [get(proxy, "/").status for _ in range(6)]

    # Where they fall into two seconds there are more of the one; never more than twice as many.
    statuses = a_second()
    assert 2 <= statuses.count(200) <= 4
    assert statuses.count(429) == 6 - statuses.count(200)


def test_headers(start: Start, origin: Origin) -> None:
    origin.on("/h", reply(b"", "Server: secret/1.0"))
    answer = get(start("headers.py"), "/h", "X-Debug: 1")
    (seen,) = origin.seen("/h")
    assert (seen.get("x-debug"), seen["x-edge"]) == (None, "edge-1")
    assert (answer.get("server"), answer["strict-transport-security"]) == (None, "max-age=31536000")


def test_bearer(start_anew: Start, origin: Origin) -> None:
    origin.default = reply(b"ok", FRESH)
    proxy = start_anew("bearer.py", environ={"API_TOKEN": "let-me-in"})
    given = ["", "Bearer", "Bearer let-me-in ", "bearer let-me-in", "Bearer let-me-in", "Bearer let-me-in", "Bearer ü"]
    answers = [get(proxy, "/b", f"Authorization: {value}") for value in given]
    assert [one.status for one in answers] == [401, 401, 200, 401, 200, 200, 401]  # white space ends no value
    assert answers[5]["x-cache"] == "HIT"
    assert origin.requests[0].get("authorization") is None


def test_bearer_without_a_token_lets_nobody_in(start_anew: Start, origin: Origin) -> None:
    proxy = start_anew("bearer.py", addons={"on_error": "refuse"})
    assert get(proxy, "/", "Authorization: Bearer ").status == 500
    assert not origin.requests


def test_took(start: Start) -> None:
    assert float(get(start("took.py"), "/")["x-took"]) < 20


def test_counts(start: Start) -> None:
    proxy = start("counts.py")
    for host in ("a.test", "a.test", "b.test"):
        get(proxy, "/", host=host)
    assert json.loads(get(proxy, "/counts").body) == {"a.test": 2, "b.test": 1}


def test_links(start: Start, origin: Origin) -> None:
    body = b"<a href='http://old.example.com/x'>"
    origin.on("/page", reply(body, "Content-Type: text/html"))
    origin.on("/text", reply(body, "Content-Type: text/plain"))
    proxy = start("links.py")
    assert get(proxy, "/page").text == "<a href='https://www.example.com/x'>"
    assert get(proxy, "/text").body == body


def test_health(start: Start, origin: Origin) -> None:
    proxy = start("health.py")
    assert get(proxy, "/health").body == b"ok\n"
    line = proxy.node.record(get(proxy, "/health/x").trace_id)
    assert line["script"] is None
    assert [seen.target for seen in origin.requests] == ["/health/x"]


def test_blocked(start: Start, blocked_file: Path) -> None:
    proxy = start("blocked.py")
    assert get(proxy, "/").status == 200
    blocked_file.write_text("192.0.2.1\n127.0.0.1\n")
    until(lambda: get(proxy, "/").status == 403, "the list to be read")
    blocked_file.write_text("")
    until(lambda: get(proxy, "/").status == 200, "the list to be read again")


def test_elsewhere(start: Start, origin: Origin, elsewhere: Origin) -> None:
    elsewhere.default = reply(b"", FRESH)
    proxy = start("elsewhere.py")
    get(proxy, "/", host="big.example.com")
    get(proxy, "/", host="www.example.com")
    assert [seen["host"] for seen in elsewhere.requests] == ["big.example.com"]
    assert [seen["host"] for seen in origin.requests] == ["www.example.com"]


# --- what is no Python


def test_a_url_that_openssl_signed_is_good() -> None:
    signed_url = module("signed_url")
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    secret = "0123456789abcdef"
    environ = {**os.environ, "SECRET": secret}
    output = subprocess.run(
        ["sh", "-c", named("sh")["sign.sh"]], capture_output=True, text=True, env=environ, check=True
    ).stdout.strip()
    expires = int(output.split(".")[-3])
    assert 3590 <= expires - time.time() <= 3600
    keys = {"k2026": secret.encode()}
    assert output == signed_url.signed(keys, "http://www.example.com/films/7/a.mp4?q=hd", expires=expires)


@pytest.mark.parametrize("name", named("nginx"))
def test_nginx_takes_what_is_said_to_be_its(name: str, tmp_path: Path) -> None:
    if not LUA.exists() or not NDK.exists():
        pytest.skip("nginx's Lua module is not installed (make test installs it)")
    code = named("nginx")[name]
    is_http = name in {"balancer.conf", "log_format.conf", "timer.conf"}
    http, server = (code, "") if is_http else ("", code)
    config = f"""
        load_module {NDK}; load_module {LUA}; pid {tmp_path}/pid; error_log stderr;
        events {{ }}
        http {{
            lua_shared_dict hits 1m; lua_shared_dict counts 1m; lua_shared_dict config 1m;
            client_body_temp_path {tmp_path}/1; proxy_temp_path {tmp_path}/2; fastcgi_temp_path {tmp_path}/3;
            uwsgi_temp_path {tmp_path}/4; scgi_temp_path {tmp_path}/5; access_log off;
            {http}
            server {{ listen 127.0.0.1:1; set $bucket ""; {server} }}
        }}"""
    file = tmp_path / "nginx.conf"
    (tmp_path / "logs").mkdir()
    file.write_text(config)
    command = [nginx_program(), "-t", "-p", str(tmp_path), "-c", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_configurations_in_the_pages_are_taken(tmp_path: Path) -> None:
    """With files of ours in the place of those in /etc."""
    here = str(tmp_path)
    for number, text in enumerate(blocks("toml")):
        used = text.replace("/etc/edgeproxy/addons", here).replace("/etc/edgeproxy", here)
        for script in tomllib.loads(used).get("addons", {}).get("scripts", []):
            source = FOLDER / Path(script).name
            Path(script).write_bytes(source.read_bytes() if source.exists() else b"")
        file = tmp_path / f"{number}.toml"
        file.write_text(f'{used}\n[[origin]]\nname = "app"\nurls = ["http://127.0.0.1:8000"]\n')
        config = load(file, {})
        assert config.addons.options.keys() <= OPTIONS | {"limited_bytes"}
