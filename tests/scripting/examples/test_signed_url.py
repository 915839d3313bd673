"""conf/addons/signed_url.py: who has no good token sees nothing, whatever he tries; who has one shares the cache."""

import json
import posixpath
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mitmproxy.test.tflow import tflow

from tests.cache.scripted import FRESH
from tests.scripting.engines import Mitmdump, get
from tests.scripting.examples.scripts import Edge, edge, module, path_of
from tests.support import Origin, Response, reply, until

HOST = "edge.test"
SECRET = "0123456789abcdef-the-first"
OTHER = "0123456789abcdef-the-other"
KEYS = f"k1 {SECRET}\n# a comment\nk2 {OTHER}\n"
script = module("signed_url")


def later(seconds: float = 600) -> int:
    return int(time.time() + seconds)


def signed(target: str, *, keys: str = f"k1 {SECRET}", host: str = HOST, **options: int | str) -> str:
    """The target with a token."""
    options.setdefault("expires", later())
    url = script.signed(script.parse_keys(keys), f"http://{host}{target}", **options)
    return str(url).removeprefix(f"http://{host}")


def token_of(target: str) -> str:
    return target.partition("token=")[2]


@pytest.fixture(scope="module")
def keys_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("keys") / "keys"
    file.write_text(KEYS)
    file.chmod(0o600)
    return file


@pytest.fixture(scope="module")
def site(keys_file: Path) -> Iterator[Edge]:
    """All is protected; the origin's answers may be stored, and tell what it was asked."""
    with edge(
        "signed_url", options={"signed_url_keys_file": str(keys_file)}, addons={"on_error": "refuse"}, workers=1
    ) as found:
        found.origin.default = lambda talk: reply(f"for {talk.request.target}".encode(), FRESH)(talk)
        yield found


def reason(response: Response) -> str:
    assert response["content-type"] == "application/problem+json"
    assert response["cache-control"] == "no-store"
    problem = json.loads(response.body)
    assert problem["status"] == response.status
    return str(problem["detail"])


# --- on a node


def test_a_good_token_opens_and_the_origin_never_sees_it(site: Edge) -> None:
    answer = site.get(signed("/good/film?quality=hd"))
    assert (answer.status, answer.text) == (200, "for /good/film?quality=hd")
    (seen,) = site.origin.seen("/good/film")
    assert "token" not in seen.raw_head.decode().replace("x-", "")
    assert site.logged(answer)["token"] == "k1"


def test_without_a_token_nothing_is_told_and_nobody_is_asked(site: Edge) -> None:
    answer = site.get("/none/film")
    assert (answer.status, reason(answer)) == (403, "no token")
    assert not site.origin.seen("/none/film")
    assert site.logged(answer)["token"] == "refused: no token"


def test_all_who_may_see_it_share_what_is_stored_and_nobody_else_gets_it(site: Edge) -> None:
    first = site.get(signed("/shared/film"))
    second = site.get(signed("/shared/film", keys=f"k2 {OTHER}", expires=later(99)))
    assert (first["x-cache"], second["x-cache"]) == ("MISS", "HIT")
    assert second.body == first.body
    for target in ("/shared/film", "/shared/film?token=", signed("/shared/film", expires=later(-9))):
        assert site.get(target).status in {403, 410}
    assert len(site.origin.seen("/shared/film")) == 1


def test_a_hit_for_a_part_and_a_condition_needs_the_token_as_well(site: Edge) -> None:
    site.origin.on("/parts/film", reply(b"0123456789", FRESH, 'ETag: "1"'))
    target = signed("/parts/film")
    site.get(target)
    assert site.get(target, "Range: bytes=2-3").body == b"23"
    assert site.get(target, 'If-None-Match: "1"').status == 304
    assert site.get("/parts/film", "Range: bytes=2-3").status == 403
    assert site.get("/parts/film", 'If-None-Match: "1"').status == 403


def test_an_expired_token_is_gone_and_a_forged_one_does_not_learn_that(site: Edge) -> None:
    expired = signed("/late/film", expires=later(-1))
    answer = site.get(expired)
    assert (answer.status, reason(answer)) == (410, "expired token")
    forged = site.get(expired[:-1] + ("A" if expired[-1] != "A" else "E"))
    assert (forged.status, reason(forged)) == (403, "wrong token")


def test_a_token_is_for_one_host(site: Edge) -> None:
    target = signed("/host/film")
    assert site.get(target, host="other.test").status == 403
    for host in ("EDGE.test", "edge.test:80", "edge.test:8080", "edge.test."):
        assert site.get(target, host=host).status == 200, host


@pytest.mark.parametrize(
    "target",
    [
        pytest.param("/exact/film2", id="another path"),
        pytest.param("/exact/film/", id="a slash more"),
        pytest.param("/exact/%66ilm", id="the path escaped"),
        pytest.param("//exact/film", id="a slash more in front"),
        pytest.param("/exact/x/../film", id="a way round"),
        pytest.param("/exact/film?a=1", id="a parameter"),
        pytest.param("/exact/film?", id="an empty query"),
    ],
)
def test_a_token_for_one_url_is_for_that_alone(site: Edge, target: str) -> None:
    token = token_of(signed("/exact/film"))
    answer = site.get(f"{target}{'&' if '?' in target else '?'}token={token}")
    # An empty query goes with the token: that is the very URL that was signed.
    assert answer.status == (200 if target == "/exact/film?" else 403)


@pytest.mark.parametrize("target", ["/show/1/a.ts", "/show/1/b/c.ts?x=1", "/show/1/", "/show/1/a%20b.ts", "/show/1//a"])
def test_a_token_for_folders_is_for_all_in_them(site: Edge, target: str) -> None:
    token = token_of(signed("/show/1/index.m3u8", folders=2))
    answer = site.get(f"{target}{'&' if '?' in target else '?'}token={token}")
    assert (answer.status, answer.text) == (200, f"for {target}")


@pytest.mark.parametrize(
    "path",
    [
        *("/show/1", "/show/2/a", "/show/12/a", "/show/", "/show", "/Show/1/a", "/show/%31/a", "/sho%77/1/a"),
        *("/show/1/../2/a", "/show/1/%2e%2e/2/a", "/show/1/.%2e/2/a", "/show/1/%252e%252e/2/a", "/show/1/..%2f2/a"),
        *("/show/1/..%252f2/a", "/show/1/..%5c2/a", "/show/1/..\\2\\a", "/show/1/..;/2/a", "/show/1/..;x=1/2/a"),
        *("/show/1/%2e%2e%3b/2/a", "/show/1/.%09./2/a", "/show/1/.%0a./2/a", "/show/1/..%00/2/a", "/show/1/..%20/2/a"),
        *("/show/1/%3f/%2e%2e/%2e%2e/%2e%2e/2/a", "/show/1/%23/../../2", "/show/1/..;/../../show/1/a", "/show/1/..."),
        *("/show/1/%25252e%25252e/2/a", "/show/1/%2525252e%2525252e/2/a", "/show/1/a/./b", "/show/1/.", "/show/1/.."),
    ],
)
def test_a_token_for_folders_does_not_lead_out_of_them(site: Edge, path: str) -> None:
    before = len(site.origin.requests)
    token = token_of(signed("/show/1/index.m3u8", folders=2))
    assert site.get(f"{path}?token={token}").status == 403
    assert len(site.origin.requests) == before


def test_a_token_for_a_folders_page_is_none_for_what_is_in_it(site: Edge) -> None:
    """What is signed is the same text, but for the scope."""
    key, expires, _, signature = token_of(signed("/index/1/")).split(".")
    for path in ("/index/1/", "/index/1/a"):
        assert site.get(f"{path}?token={key}.{expires}.2.{signature}").status == 403
    key, expires, _, signature = token_of(signed("/index/1/", folders=2)).split(".")
    assert site.get(f"/index/1/?token={key}.{expires}.url.{signature}").status == 403


@pytest.mark.parametrize(
    ("query", "why"),
    [
        pytest.param("token={0}&token={0}", "several tokens", id="twice the same"),
        pytest.param("token={0}&token=x", "several tokens", id="a good and a bad one"),
        pytest.param("token=&token={0}", "several tokens", id="an empty one and a good one"),
        pytest.param("token={0}&%74oken=x", "several tokens", id="one with its name escaped"),
        pytest.param("token=", "no token", id="an empty one"),
        pytest.param("token", "no token", id="no value"),
        pytest.param("TOKEN={0}", "no token", id="other case"),
        pytest.param("a=1;token={0}", "no token", id="behind a semicolon"),
        pytest.param("token={0}.x", "malformed token", id="one part more"),
        pytest.param("token=%20{0}", "malformed token", id="a space in front"),
        pytest.param("token={0}%00", "malformed token", id="a null behind"),
        pytest.param("token={0}\u0665", "malformed token", id="a digit of another script"),
        pytest.param("token=k1.1.url.x", "malformed token", id="a short signature"),
        pytest.param("token=k1.-1.url.{1}", "malformed token", id="before the beginning of time"),
        pytest.param("token=k1.9999999999999.url.{1}", "malformed token", id="too late"),
        pytest.param("token=k1.99999999999.0.{1}", "malformed token", id="no folders"),
        pytest.param("token=k1.99999999999.url.{1}", "wrong token", id="another expiry"),
        pytest.param("token=k2.{2}.url.{1}", "wrong token", id="another key's name"),
        pytest.param("token=k9.{2}.url.{1}", "wrong token", id="a key that there is not"),
        pytest.param("token=k1.{2}.1.{1}", "wrong token", id="another scope"),
        pytest.param("token=k1.{2}.99.{1}", "wrong token", id="more folders than there are"),
        pytest.param("token=" + "A" * 7000, "malformed token", id="a huge one"),
    ],
)
def test_a_token_that_is_not_one_is_refused(site: Edge, query: str, why: str) -> None:
    good = token_of(signed("/bad/film"))
    _, expires, _, signature = good.split(".")
    target = f"/bad/film?{query.format(good, signature, expires)}"
    with site.node.connect() as client:
        client.send(f"GET {target} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        answer = client.response()
    if answer.status == 400:  # the edge itself takes no such target
        return
    assert (answer.status, reason(answer)) == (403, why)
    assert not site.origin.seen("/bad/film")


def test_a_parameter_with_an_escaped_name_is_a_token_all_the_same(site: Edge) -> None:
    target = signed("/escaped/film?a=1").replace("token=", "%74%6Fken=")
    assert site.get(target).text == "for /escaped/film?a=1"


def test_only_some_methods_are_allowed(site: Edge) -> None:
    target = signed("/method/film")
    assert site.get(target, method="HEAD").status == 200
    answer = site.get(target, method="DELETE")
    assert (answer.status, reason(answer)) == (403, "method")
    assert [seen.method for seen in site.origin.seen("/method/film")] == ["HEAD"]


def test_a_refusal_to_head_keeps_the_connection_in_step(site: Edge) -> None:
    with site.node.connect() as client:
        assert client.get("/head/film", method="HEAD").status == 403
        assert client.get(signed("/head/film")).status == 200


def test_a_refused_body_goes_nowhere(site: Edge) -> None:
    with site.node.connect() as client:
        assert client.get("/post/film", method="POST", body=b"x" * 100_000).status == 403
    assert site.get(signed("/post/film")).status == 200
    assert [seen.method for seen in site.origin.seen("/post/film")] == ["GET"]


@pytest.mark.parametrize("name", ["X-Original-URL", "x-rewrite-url", "X_Original_URL", "X-HTTP-Method-Override"])
def test_no_header_leads_the_origin_elsewhere(site: Edge, name: str) -> None:
    path = f"/steer/{name}"
    assert site.get(signed(path), f"{name}: /secret").status == 200
    (seen,) = site.origin.seen(path)
    assert b"/secret" not in seen.raw_head


def test_the_host_that_counts_is_the_one_that_the_origin_is_told(site: Edge) -> None:
    target = signed("/absolute/film")
    with site.node.connect() as client:
        client.send(f"GET http://other.test{target} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        assert client.response().status in {400, 403}
    assert not site.origin.seen("/absolute/film")


def test_secrets_are_in_no_log(site: Edge) -> None:
    site.get(signed("/log/film"))
    site.get("/log/film?token=x")
    said = site.node.stderr + site.node.access_log.read_text() + site.node.command("check").stdout
    assert SECRET not in said
    assert OTHER not in said


def test_part_of_a_site_can_be_protected_and_no_spelling_goes_round_it(keys_file: Path) -> None:
    options = {"signed_url_keys_file": str(keys_file), "signed_url_protect": ["/private/", "/a b"]}
    with edge("signed_url", options=options, addons={"on_error": "refuse"}) as site:
        for target in ("/", "/public", "/privateer", "/public?token=theirs", "/public/private"):
            assert site.get(target).status == 200, target
        assert site.origin.seen("/public")[-1].target == "/public?token=theirs"  # not ours to take
        for target in (
            *("/private", "/private/x", "/PRIVATE/x", "/%70rivate/x", "/%2570rivate/x", "//private/x", "/./private/x"),
            *("/public/../private/x", "/public/%2e%2e/private/x", "/public/..%2fprivate/x", "/public/..;/private/x"),
            *("/private;a=b/x", "/;a/private/x", "/private%00", "/private%3fx", "/public\\..\\private", "/a%20b/c"),
        ):
            assert site.get(target).status == 403, target
        assert site.get("/public", "X-Original-URL: /private/x").status == 200
        assert b"private" not in site.origin.requests[-1].raw_head


def test_keys_are_rotated_while_the_node_runs(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"old {SECRET}\n")
    old, new = signed("/r", keys=f"old {SECRET}"), signed("/r", keys=f"new {OTHER}")
    with edge("signed_url", options={"signed_url_keys_file": str(file)}) as site:
        assert (site.get(old).status, site.get(new).status) == (200, 403)
        file.write_text(f"new {OTHER}\nold {SECRET}\n")
        until(lambda: site.get(new).status == 200, "the new key")
        assert site.get(old).status == 200
        file.write_text("not a key")  # a slip changes nothing
        until(lambda: site.get(old).status == 200 and "stay as they are" in site.node.stderr, "the slip to be told")
        assert (site.get(old).status, site.get(new).status) == (200, 200)
        file.write_text(f"new {OTHER}\n")
        until(lambda: site.get(old).status == 403, "the old key to go")
        assert site.get(new).status == 200
        assert "not a key" not in site.node.stderr


def test_keys_may_come_from_the_environment() -> None:
    with edge("signed_url", environ={"SIGNED_URL_KEYS": f"k1 {SECRET}; k2 {OTHER}"}) as site:
        assert site.get(signed("/e")).status == 200
        assert site.get(signed("/e", keys=f"k2 {OTHER}")).status == 200
        assert site.get("/e").status == 403


def test_without_keys_nothing_is_served() -> None:
    with edge("signed_url", addons={"on_error": "refuse"}) as site:
        assert site.get("/x").status >= 500
        assert not site.origin.requests
        assert "there are none" in site.node.stderr


def test_what_can_not_be_checked_is_refused_whatever_on_error_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "is_protected", lambda *_: 1 / 0)
    monkeypatch.setattr(script.ctx, "options", SimpleNamespace(signed_url_protect=["/"]), raising=False)
    flow = tflow()
    script.SignedUrl().requestheaders(flow)
    assert flow.response is not None
    assert (flow.response.status_code, json.loads(flow.response.content)["detail"]) == (500, "error")


@settings(max_examples=1000, deadline=None)
@given(st.binary(max_size=60), st.binary(max_size=20))
def test_no_target_and_no_host_makes_it_fail(rest: bytes, host: bytes) -> None:
    options = {"protect": ["/"], "parameter": "token", "keys_file": "", "methods": ["GET"]}
    script.ctx.options = SimpleNamespace(**{f"signed_url_{name}": value for name, value in options.items()})
    try:
        flow = tflow()
        flow.request.data.path = b"/" + rest + b"?token=k1.99999999999.url." + b"A" * 43
        flow.request.data.headers["Host"] = host
        with pytest.raises(script.Refused):
            script.SignedUrl().admit(flow)
    finally:
        del script.ctx.options


def test_stock_mitmdump_runs_it(keys_file: Path, origin: Origin) -> None:
    options = {"signed_url_keys_file": str(keys_file)}
    with Mitmdump(origin.url, path_of("signed_url"), options=options) as proxy:
        assert get(proxy, signed("/m?a=1")).status == 200
        assert get(proxy, "/m").status == 403
    assert [seen.target for seen in origin.requests] == ["/m?a=1"]


# --- its parts


def test_a_url_is_signed_on_the_command_line(keys_file: Path) -> None:
    def run(*arguments: str) -> str:
        command = [sys.executable, str(path_of("signed_url")), str(keys_file), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    url = urlsplit(run("http://edge.test/film?a=1", "--lifetime", "60"))
    query, _, token = url.query.rpartition("&token=")
    key, expires, scope, signature = token.split(".")
    assert (query, key, scope) == ("a=1", "k1", "url")
    assert 50 < int(expires) - time.time() <= 60
    assert signature == script.sign(SECRET.encode(), "k1", expires, "url", "edge.test", "/film?a=1")
    assert ".2." in run("http://edge.test/show/1/x", "--folders", "2")


@pytest.mark.parametrize(
    ("target", "values", "rest"),
    [
        ("/a", [], "/a"),
        ("/a?", [], "/a?"),
        ("/a?b=1&&c", [], "/a?b=1&&c"),
        ("/a?token=x", ["x"], "/a"),
        ("/a?b=1&token=x&c=2", ["x"], "/a?b=1&c=2"),
        ("/a?%74oken=x", ["x"], "/a"),
        ("/a?token=x=y", ["x=y"], "/a"),
        ("/a?token=x?y", ["x?y"], "/a"),
        ("/a?token", [""], "/a"),
        ("/a?tokens=x", [], "/a?tokens=x"),
    ],
)
def test_a_parameter_is_taken_and_the_rest_stays_as_it_is(target: str, values: list[str], rest: str) -> None:
    assert script.take_parameter(target, "token") == (values, rest)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "there are none"),
        ("# only a comment", "there are none"),
        ("k1", "key 1: expected a name"),
        (f"k1 {SECRET} more", "key 1: expected a name"),
        (f"k.1 {SECRET}", "key 1: expected a name"),
        (f"k1 {SECRET}\nk1 {SECRET}", "key 2: expected a name that no other has"),
        ("k1 tooshort", "key 1: the secret is shorter than 16"),
    ],
)
def test_what_is_wrong_with_keys_is_said_without_them(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=re.escape(why)) as error:
        script.parse_keys(text)
    assert "tooshort" not in str(error.value)
    assert SECRET not in str(error.value)


def test_an_unknown_key_takes_as_long_as_a_known_one(monkeypatch: pytest.MonkeyPatch) -> None:
    signatures = []
    sign = script.sign

    def counted(*args: object) -> str:
        signatures.append(args)
        return str(sign(*args))

    monkeypatch.setattr(script, "sign", counted)
    monkeypatch.setattr(script.SignedUrl, "refresh_keys", lambda self: None)
    checker = script.SignedUrl()
    checker.keys = {"k1": SECRET.encode()}
    good = token_of(signed("/t"))
    signatures.clear()
    for token in (good[:-1] + "-", "k9" + good[2:], "k1.1.9." + good.split(".")[3]):
        with pytest.raises(script.Refused, match="wrong token"):
            checker.check([token], "GET", HOST, "/t")
    assert len(signatures) == 3


def test_what_unknown_keys_are_checked_by_signs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script.SignedUrl, "refresh_keys", lambda self: None)
    checker = script.SignedUrl()
    checker.keys = {"k1": SECRET.encode()}
    expires = str(later())
    signature = script.sign(script._NOBODYS, "k9", expires, "url", HOST, "/t")
    with pytest.raises(script.Refused, match="wrong token"):
        checker.check([f"k9.{expires}.url.{signature}"], "GET", HOST, "/t")


def test_a_token_for_more_folders_than_there_are_is_none_however_signed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script.SignedUrl, "refresh_keys", lambda self: None)
    checker = script.SignedUrl()
    checker.keys = {"k1": SECRET.encode()}
    expires = str(later())
    signature = script.sign(SECRET.encode(), "k1", expires, "9", HOST, "/t")
    with pytest.raises(script.Refused, match="wrong token"):
        checker.check([f"k1.{expires}.9.{signature}"], "GET", HOST, "/t")


@pytest.mark.parametrize("escapes", [1, 2, 3])
def test_what_is_escaped_as_often_as_people_do_is_clear(escapes: int) -> None:
    assert not script.is_ambiguous("/%" + "25" * (escapes - 1) + "61")


def test_a_parameter_with_an_escaped_slash_is_not_clear() -> None:
    assert script.is_protected("/%2f;%2f%/a/b", ["/a"])
    assert not script.is_protected("/x;y/%61b", ["/a"])


def test_what_is_escaped_more_often_than_anybody_does_is_not() -> None:
    assert script.is_ambiguous("/%" + "25" * 8 + "61")
    assert script.is_protected("/%" + "25" * 8 + "61", ["/private"])


def _resolving(path: str) -> str:
    return posixpath.normpath("/" + path.lstrip("/")) + ("/" if path.endswith("/") else "")


def _decoding(times: int) -> Callable[[str], str]:
    def read(path: str) -> str:
        for _ in range(times):
            path = unquote(path, encoding="latin-1")
        return path

    return read


def _without_parameters(path: str) -> str:
    return "/".join(name.partition(";")[0] for name in path.split("/"))


def _as_urls_are_parsed(path: str) -> str:
    return re.sub(r"[\t\r\n]", "", path).replace("\\", "/")


ORIGINS: dict[str, Callable[[str], str]] = {
    "takes it as it is": _resolving,
    "decodes": lambda path: _resolving(_decoding(1)(path)),
    "decodes twice": lambda path: _resolving(_decoding(2)(path)),
    "decodes thrice": lambda path: _resolving(_decoding(3)(path)),
    "resolves, decodes, resolves": lambda path: _resolving(_decoding(1)(_resolving(path))),
    "drops parameters, decodes": lambda path: _resolving(_decoding(1)(_without_parameters(path))),
    "decodes, drops parameters": lambda path: _resolving(_without_parameters(_decoding(1)(path))),
    "drops parameters late": lambda path: _without_parameters(_resolving(_decoding(1)(path))),
    "parses it as a browser": lambda path: _resolving(_as_urls_are_parsed(_decoding(1)(path))),
    "ends at a null": lambda path: _resolving(_decoding(1)(path).partition("\0")[0]),
    "decodes the question mark": lambda path: _resolving(_decoding(1)(path).partition("?")[0]),
    "is windows": lambda path: _resolving(
        "/".join(name.rstrip(" .") if name.strip(". ") else name.strip() for name in _decoding(1)(path).split("/"))
    ),
}
PIECES = st.sampled_from(
    [
        *("/", "/", "/", "a", "b", ".", "..", "%2e", "%2E", "%252e", "%25252e", "%2f", "%2F", "%252f", "%5c", "\\"),
        *(";", ";x", "%3b", "%00", "%09", "%0a", "%20", "%3f", "%23", "%", "%2", "%zz", "%61", "a/b/", "/a/b", "/.."),
    ]
)


@settings(max_examples=1500, deadline=None)
@given(st.lists(PIECES, max_size=9).map("".join))
def test_what_is_below_signed_folders_is_below_them_for_every_origin(rest: str) -> None:
    path = "/a/b/" + rest
    if script.covered_by("2", path) is None:
        return
    for name, origin in ORIGINS.items():
        assert (origin(path) + "/").startswith("/a/b/"), (name, path, origin(path))


@settings(max_examples=1500, deadline=None)
@given(st.lists(PIECES, max_size=9).map("".join))
def test_what_needs_no_token_is_protected_for_no_origin(rest: str) -> None:
    path = "/" + rest
    if script.is_protected(path, ["/a"]):
        return
    for name, origin in ORIGINS.items():
        assert not (origin(path) + "/").startswith("/a/"), (name, path, origin(path))
