"""Bodies by scripts: held or streaming, changed or not, in every framing; and that nobody's pace fills the memory."""

import contextlib
import itertools
import threading

import pytest

from tests.scripting.builders import DOES, Site, do
from tests.support import Client, Conversation, chunked, reply, request, until, until_close
from tests.support.origin import Handler

HELD_BYTES = 1 << 20
SCRIPT = DOES
TABLES = {"addons": {"body_bytes": HELD_BYTES}, "limits": {"body_bytes": 0}}

BODY = b"0123456789" * 2000
MODES = {
    "held": "",
    "held and changed": "{0}.content = {0}.content.upper() + b'!'",
    "emptied": "{0}.content = b''",
    "taken away": "{0}.content = None",
    "streamed": "{0}.stream = True",
    "streamed and changed": "{0}.stream = lambda data: data.upper()",
    "streamed, more comes": "{0}.stream = lambda data: [data, b'-'] if data else b'!'",
    "streamed, nothing comes": "{0}.stream = lambda data: b''",
}
LETTERS = b"abcdefghij" * 2000


def made_of(body: bytes, mode: str, pieces: int = 0) -> bytes | None:
    """What a mode makes of a body; None where that depends on how it was cut."""
    match mode:
        case "held" | "streamed":
            return body
        case "held and changed":
            return body.upper() + b"!"
        case "streamed and changed":
            return body.upper()
        case "streamed, more comes":
            return None
    return b""


def is_made_of(found: bytes, body: bytes, mode: str) -> bool:
    expected = made_of(body, mode)
    if expected is not None:
        return found == expected
    return found.endswith(b"!") and found.replace(b"-", b"")[:-1] == body


def asks(kind: str, mode: str) -> list[str]:
    """Fields that have a script treat a body so; a stream is set before it, the rest once it is here."""
    first, whole = ("requestheaders", "request") if kind == "request" else ("responseheaders", "response")
    return do(**{first if ".stream" in MODES[mode] else whole: MODES[mode].format(kind)})


FRAMINGS: dict[str, Handler] = {
    "length": reply(LETTERS),
    "chunked": chunked(LETTERS[:7], LETTERS[7:9000], LETTERS[9000:]),
    "until close": until_close(LETTERS[:5000], LETTERS[5000:]),
    "cached": reply(LETTERS, "Cache-Control: max-age=60"),
}


@pytest.mark.parametrize("framing", FRAMINGS)
def test_a_response_comes_as_scripts_make_it_whatever_its_framing(site: Site, framing: str) -> None:
    site.origin.on(f"/{framing.replace(' ', '-')}", FRAMINGS[framing])
    for mode in MODES:
        with site.node.connect() as client:
            answer = site.ask(client, f"/{framing.replace(' ', '-')}", *asks("response", mode))
            assert is_made_of(answer.body, LETTERS, mode), (mode, answer.body[:50])
            has_length = "streamed" not in mode or (mode == "streamed" and framing in {"length", "cached"})
            assert (answer.get("content-length") is not None) == has_length, mode
            assert site.ask(client, "/behind").status == 200


def test_a_response_has_no_body_for_head_in_any_mode(site: Site) -> None:
    for framing, mode in itertools.product(FRAMINGS, MODES):
        path = f"/head/{framing.replace(' ', '-')}"
        site.origin.on(path, FRAMINGS[framing] if framing != "until close" else until_close())
        with site.node.connect() as client:
            assert site.ask(client, path, *asks("response", mode), method="HEAD").body == b"", mode
            assert site.ask(client, "/behind").status == 200, mode


@pytest.mark.parametrize("framing", FRAMINGS)
def test_a_response_is_framed_for_old_clients(site: Site, framing: str) -> None:
    site.origin.on(f"/{framing.replace(' ', '-')}", FRAMINGS[framing])
    for mode in MODES:
        with site.node.connect() as client:
            fields = "\r\n".join(["Connection: keep-alive", *asks("response", mode)])
            client.send(f"GET /{framing.replace(' ', '-')} HTTP/1.0\r\nHost: edge.test\r\n{fields}\r\n\r\n".encode())
            answer = site.saw(client.response())
            assert is_made_of(answer.body, LETTERS, mode), mode
            assert answer.get("transfer-encoding") is None
            is_kept = answer.get("content-length") is not None and framing in {"length", "cached"}
            assert answer["connection"] == ("keep-alive" if is_kept else "close")


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_a_response_without_a_body_stays_so(site: Site, status: str) -> None:
    site.origin.on("/none", reply(b"", status=status))
    for mode in MODES:
        with site.node.connect() as client:
            answer = site.ask(client, "/none", *asks("response", mode))
            assert (answer.status, answer.body) == (int(status[:3]), b"")
            assert site.ask(client, "/behind").status == 200


def test_a_response_with_trailers_keeps_them_where_it_may(site: Site) -> None:
    site.origin.on("/trailers", chunked(b"body", fields=("Trailer: X-Sum",), trailers=("X-Sum: 1",)))
    for mode in ("held", "held and changed", "streamed", "streamed and changed"):
        answer = site.get("/trailers", "TE: trailers", *asks("response", mode))
        assert answer.trailers == [(b"X-Sum", b"1")], mode


def test_a_response_streams_piece_by_piece(site: Site) -> None:
    gate = threading.Event()

    def slow(talk: Conversation) -> None:
        talk.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
        talk.wait(gate)
        talk.send(b"3\r\ntwo\r\n0\r\n\r\n")

    site.origin.on("/slow", slow)
    for mode in ("streamed", "streamed and changed"):
        gate.clear()
        with site.node.connect() as client:
            client.send(request("/slow", *asks("response", mode)))
            head = client.head()
            assert client.stream.take(8) == b"3\r\n" + made_of(b"one", mode) + b"\r\n"  # type: ignore[operator]
            gate.set()
            assert client.stream.take_until(b"0\r\n\r\n") == b"3\r\n" + made_of(b"two", mode) + b"\r\n0\r\n\r\n"  # type: ignore[operator]
            head.body = b"onetwo"
            site.saw(head)


def test_a_response_that_is_larger_than_scripts_are_shown_goes_by(site: Site) -> None:
    large = LETTERS * 60
    for path, handler in (("/large/length", reply(large)), ("/large/chunked", chunked(large[:10], large[10:]))):
        site.origin.on(path, handler)
        answer = site.get(path, *do(response="log['content'] = response.raw_content"))
        assert answer.body == large
        assert site.logged(answer) == {"content": "None"}


@pytest.mark.parametrize("forged", ["5", "0", "999999", "-1", "x", "5, 5", ""])
def test_a_response_is_as_long_as_it_is_whatever_a_script_says(site: Site, forged: str) -> None:
    site.origin.on("/forged", reply(b"0123456789"))
    says = f"response.headers['Content-Length'] = '{forged}'"
    for code in (
        says,
        f"{says}; response.stream = True",
        f"{says}; response.headers['Transfer-Encoding'] = 'gzip'",
    ):
        for hook in ("responseheaders", "response"):
            with site.node.connect() as client:
                assert site.ask(client, "/forged", *do(**{hook: code})).body == b"0123456789"
                assert site.ask(client, "/behind").status == 200


def test_a_response_that_streams_is_what_its_head_has_said(site: Site) -> None:
    """What is changed behind the head comes too late to change the framing, and changes nothing."""
    site.origin.on("/late", chunked(b"one", b"two"))
    site.origin.on("/late/length", reply(b"onetwo"))
    for path in ("/late", "/late/length"):
        for code in (
            "flow.response = None",
            "flow.response.stream = False",
            "flow.response = http.Response.make(404)",
        ):
            later = f"lambda: exec({code!r}, {{'flow': flow, 'http': http}})"
            changes = f"response.stream = True\nasyncio.get_running_loop().call_soon({later})"
            with site.node.connect() as client:
                answer = site.ask(client, path, *do(responseheaders=changes))
                assert (answer.status, answer.body) == (200, b"onetwo"), code
                assert site.ask(client, "/behind").status == 200


def test_a_method_that_is_changed_from_get_to_head_gives_an_empty_body(site: Site) -> None:
    for mode, path in itertools.product(("held", "streamed"), ("/m/length", "/m/cached")):
        site.origin.on(path, reply(b"body", *(["Cache-Control: max-age=60"] * path.endswith("cached"))))
        with site.node.connect() as client:
            code = do(requestheaders="request.method = 'HEAD'") + asks("response", mode)
            answer = site.ask(client, path, *code)
            assert (answer.status, answer.body) == (200, b"")
            assert site.ask(client, "/behind").status == 200


def test_a_method_that_is_changed_from_head_to_get_gives_no_body(site: Site) -> None:
    for mode, path in itertools.product(("held", "streamed"), ("/g/length", "/g/cached")):
        site.origin.on(path, reply(b"body", *(["Cache-Control: max-age=60"] * path.endswith("cached"))))
        with site.node.connect() as client:
            code = do(requestheaders="request.method = 'GET'") + asks("response", mode)
            answer = site.ask(client, path, *code, method="HEAD")
            assert (answer.status, answer["content-length"]) == (200, "4")
            assert site.ask(client, "/behind").status == 200


@pytest.mark.parametrize(("asked", "changed"), [("GET", "HEAD"), ("HEAD", "GET"), ("HEAD", "TRACE"), ("HEAD", "PURGE")])
def test_a_method_that_is_changed_is_as_it_was_for_what_the_edge_answers_itself(
    site: Site, asked: str, changed: str
) -> None:
    site.origin.on("/gone", lambda talk: talk.reset())
    with site.node.connect() as client:
        answer = site.ask(client, "/gone", *do(request=f"request.method = '{changed}'"), method=asked)
        assert answer.status in {200, 403, 405, 502}
        assert bool(answer.body) == (asked == "GET")
        assert site.ask(client, "/behind").status == 200


def sends(client: Client, path: str, framing: str, body: bytes, *fields: str) -> None:
    """Send an upload."""
    head = [f"POST {path} HTTP/1.1", "Host: edge.test", *fields]
    if framing == "length":
        client.send("\r\n".join([*head, f"Content-Length: {len(body)}", "", ""]).encode() + body)
        return
    client.send("\r\n".join([*head, "Transfer-Encoding: chunked", "", ""]).encode())
    for piece in filter(None, (body[:7], body[7:9000], body[9000:])):
        client.send(b"%x\r\n%b\r\n" % (len(piece), piece))
    client.send(b"0\r\nX-Up: 7\r\n\r\n" if framing == "trailers" else b"0\r\n\r\n")


@pytest.mark.parametrize("framing", ["length", "chunked", "trailers"])
def test_a_request_goes_as_scripts_make_it_whatever_its_framing(site: Site, framing: str) -> None:
    for mode in MODES:
        site.forget()
        with site.node.connect() as client:
            sends(client, "/up", framing, LETTERS, *asks("request", mode))
            assert site.saw(client.response()).status == 200
            assert site.ask(client, "/behind").status == 200
        (up,) = site.origin.seen("/up")
        assert is_made_of(up.body, LETTERS, mode), (mode, up.body[:50])
        by_length = framing == "length" and mode in {
            "held",
            "held and changed",
            "emptied",
            "taken away",
            "streamed",
        }
        assert (up.get("content-length") is not None) == by_length, mode
        assert up.trailers == ([(b"X-Up", b"7")] if framing == "trailers" else []), mode
    assert not site.origin.broken


def test_a_request_gets_a_body_where_it_had_none(site: Site) -> None:
    site.get("/up", *do(request="request.method = 'PUT'; request.text = 'new'"))
    (up,) = site.origin.requests
    assert (up.method, up.body, up["content-length"]) == ("PUT", b"new", "3")


def test_a_request_is_told_to_go_on_by_the_edge_where_it_is_held(site: Site) -> None:
    with site.node.connect() as client:
        fields = ("Expect: 100-continue", "Content-Length: 4", *do(request="request.text += '!'"))
        client.send(request("/up", *fields, method="POST"))
        assert client.head().status == 100
        assert not site.origin.requests
        client.send(b"body")
        assert site.saw(client.response()).status == 200
    (up,) = site.origin.requests
    assert (up.body, up.get("expect")) == (b"body!", None)


def test_a_request_is_told_to_go_on_by_the_origin_where_it_streams(site: Site) -> None:
    def agrees(talk: Conversation) -> None:
        talk.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        reply()(talk)

    site.origin.on("/expects", agrees)
    with site.node.connect() as client:
        fields = ("Expect: 100-continue", "Content-Length: 4", *asks("request", "streamed"))
        client.send(request("/expects", *fields, method="POST"))
        assert client.head().status == 100
        client.send(b"body")
        assert site.saw(client.response()).status == 200
    assert site.origin.requests[0].body == b"body"


def test_a_request_that_is_larger_than_scripts_are_shown_goes_by(site: Site) -> None:
    large = LETTERS * 60
    for framing in ("length", "chunked"):
        with site.node.connect() as client:
            sends(client, "/large", framing, large, *do(request="log['content'] = request.raw_content"))
            answer = site.saw(client.response())
        assert site.logged(answer) == {"content": "None"}
    assert [up.body for up in site.origin.seen("/large")] == [large] * 2


def test_a_request_does_not_smuggle(site: Site) -> None:
    """Whatever framing a script writes into the head, the origin reads one request."""
    forged = (
        "request.headers['Content-Length'] = '0'",
        "request.headers['Transfer-Encoding'] = 'chunked'",
        "request.headers.fields += ((b'Content-Length', b'3'), (b'Transfer-Encoding', b'x, chunked'))",
        "request.headers.fields += ((b'transfer-encoding', b'identity'),)",
        "request.headers['Connection'] = 'Content-Length, Transfer-Encoding'",
        "request.headers['Upgrade'] = 'h2c'; request.headers['Connection'] = 'upgrade'",
    )
    inner = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
    for code, framing, streams in itertools.product(forged, ("length", "chunked"), ("", "; request.stream = True")):
        with site.node.connect() as client:
            sends(client, "/up", framing, inner, *do(requestheaders=code + streams))
            assert site.saw(client.response()).status == 200
            assert site.ask(client, "/behind").status == 200
    assert not site.origin.seen("/smuggled")
    assert {up.body for up in site.origin.seen("/up")} == {inner}
    assert not site.origin.broken


LARGE_BYTES = 96 << 20
BOUND_BYTES = 24 << 20
"""How much more memory a worker may have while a body of `LARGE_BYTES` is held up."""


@pytest.mark.parametrize("mode", ["held", "streamed", "streamed and changed", "late"])
def test_a_slow_reader_of_a_response_holds_the_origin_up(site: Site, mode: str) -> None:
    sent = 0
    stopped = threading.Event()

    def large(talk: Conversation) -> None:
        nonlocal sent
        talk.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nCache-Control: no-store\r\n\r\n" % LARGE_BYTES)
        piece = b"x" * (1 << 18)
        with contextlib.suppress(OSError):
            while sent < LARGE_BYTES and not stopped.is_set():
                talk.send(piece)
                sent += len(piece)
        talk.reset()

    site.origin.on("/large", large)
    late = "await event('go on').wait()\nresponse.stream = True"
    code = do(responseheaders=late, response="pass") if mode == "late" else asks("response", mode)
    with site.node.connect(receive_buffer=1 << 14) as client:
        before = site.node.memory_bytes()
        client.send(request("/large", *code))
        until(lambda: sent > (1 << 19), "the origin to send")
        stands_still(lambda: sent)
        if mode == "late":
            site.get("/go", *do(request="event('go on').set()"))
            stands_still(lambda: sent)
        assert sent < BOUND_BYTES
        assert site.node.memory_bytes() < before + BOUND_BYTES
        stopped.set()
        client.reset()
    site.unanswered()


@pytest.mark.parametrize("mode", ["held", "streamed", "streamed and changed", "late"])
def test_a_slow_reader_of_a_request_holds_the_client_up(site: Site, mode: str) -> None:
    gate = threading.Event()

    def reads_nothing(talk: Conversation) -> None:
        talk.wait(gate)
        talk.reset()

    site.origin.on("/upload", reads_nothing)
    late = "await event('never').wait()"
    code = do(requestheaders=late) if mode == "late" else asks("request", mode)
    with site.node.connect() as client:
        before = site.node.memory_bytes()
        client.send(request("/upload", *code, f"Content-Length: {LARGE_BYTES}", method="POST"))
        sent = 0
        client.sock.settimeout(0.3)
        with contextlib.suppress(OSError):
            while sent < LARGE_BYTES:
                sent += client.sock.send(b"x" * (1 << 18))
        assert sent < BOUND_BYTES
        assert site.node.memory_bytes() < before + BOUND_BYTES
        client.reset()
    site.unanswered()
    gate.set()


def stands_still(count: "object") -> None:
    """Wait until a count has not changed for a while."""
    assert callable(count)
    quiet = threading.Event()
    last, same = count(), 0
    while same < 4:
        quiet.wait(0.1)
        now = count()
        last, same = now, same + 1 if now == last else 0
