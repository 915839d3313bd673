"""What mitmproxy's documentation shows of HTTP, done by scripts of our own: each is run by stock mitmdump, which proves
that it is a mitmproxy script, and by the node, unmodified.
"""

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import pytest
from mitmproxy import http, io

from tests.scripting.changing import SharedNodes
from tests.scripting.engines import ENGINES, Engine, Fast, Mitmdump, get
from tests.support import (
    Conversation,
    Origin,
    chunked,
    raw,
    reply,
    request,
    until,
)

SCRIPTS = Path(__file__).parent / "documented"
Start = Callable[..., Engine]
SETS = """
from mitmproxy import ctx
def running():
    ctx.options.update(**{})
"""


@pytest.fixture
def origin(shared_nodes: SharedNodes) -> Origin:
    return shared_nodes.origin()


@pytest.fixture(params=ENGINES)
def start(request: pytest.FixtureRequest, shared_nodes: SharedNodes, origin: Origin) -> Iterator[Start]:
    """Have either engine run one of the scripts: `start("answer", answer_text="x")`. Where it is the node, that is a
    shared one that another script tells the options, or `anew` one of the test's own that has them configured.
    """
    with ExitStack() as stack:

        def begin(script: str, *, anew: bool = False, **options: Any) -> Engine:
            path = SCRIPTS / f"{script}.py"
            if request.param == "mitmdump":
                return stack.enter_context(Mitmdump(origin.url, path, options=options))
            text = path.read_text(encoding="utf-8")
            if anew:
                return stack.enter_context(shared_nodes.fresh(text, options=options))
            return stack.enter_context(shared_nodes.running(text, SETS.format(options)))

        yield begin


@pytest.fixture
def start_fast(shared_nodes: SharedNodes, origin: Origin) -> Iterator[Start]:
    """Have the shared node run one of the scripts."""
    with ExitStack() as stack:

        def begin(script: str) -> Engine:
            text = (SCRIPTS / f"{script}.py").read_text(encoding="utf-8")
            return stack.enter_context(shared_nodes.running(text, ""))

        yield begin


def upload(proxy: Engine, target: str, *fields: str, body: bytes) -> Any:
    return get(proxy, target, *fields, method="POST", body=body)


def hears(proxy: Engine, text: str) -> str:
    """What was said, once `text` has been."""
    return until(lambda: proxy.said if text in proxy.said else "", f"the script to say {text!r}")


# --- headers, bodies, targets


def test_a_function_adds_a_header(start: Start) -> None:
    assert get(start("header_by_function"), "/")["x-greeting"] == "hello"


def test_an_object_adds_a_header_and_keeps_count(start: Start) -> None:
    proxy = start("header_by_class")
    assert [get(proxy, "/")["x-number"] for _ in range(3)] == ["1", "2", "3"]


def test_requests_are_counted_in_the_log(start: Start) -> None:
    proxy = start("counting")
    for _ in range(3):
        get(proxy, "/")
    hears(proxy, "that makes 3 flows")


def test_a_page_is_turned_round_and_its_length_is_right(start: Start, origin: Origin) -> None:
    origin.on("/page", reply(b"<head></head><p>\xc3\xa4</p>", "Content-Type: text/html; charset=utf-8"))
    origin.on("/text", reply(b"<head></head>", "Content-Type: text/plain"))
    proxy = start("mirror")
    page = get(proxy, "/page")
    assert page.text == "<head><style>html { transform: scaleX(-1) }</style></head><p>ä</p>"
    assert int(page["content-length"]) == len(page.body)
    assert get(proxy, "/text").text == "<head></head>"


def test_a_compressed_page_is_changed_decoded_and_sent_compressed(start: Start, origin: Origin) -> None:
    import gzip

    body = gzip.compress(b"<head></head>")
    origin.on("/page", reply(body, "Content-Type: text/html", "Content-Encoding: gzip"))
    page = get(start("mirror"), "/page")
    assert page["content-encoding"] == "gzip"
    assert b"scaleX" in gzip.decompress(page.body)


def test_a_form_gets_one_more_field(start: Start, origin: Origin) -> None:
    proxy = start("form")
    upload(proxy, "/form", "Content-Type: application/x-www-form-urlencoded", body=b"a=1&b=%20")
    upload(proxy, "/none", "Content-Type: text/plain", body=b"whatever")
    (form,), (none,) = origin.seen("/form"), origin.seen("/none")
    assert form.body == b"a=1&b=+&seen=yes+%26+no"
    assert none.body == b"made=here"
    assert none["content-type"] == "application/x-www-form-urlencoded"
    assert none["content-length"] == "9"


def test_the_query_is_changed(start: Start, origin: Origin) -> None:
    proxy = start("query")
    get(proxy, "/q?old=1&secret=2&other=%2F")
    get(proxy, "/q")
    assert [seen.target for seen in origin.seen("/q")] == ["/q?old=new&other=%2F&added=a+b", "/q?added=a+b"]


def test_cookies_are_read_and_set(start: Start, origin: Origin) -> None:
    answer = get(start("cookies"), "/c", "Cookie: session=abc; other=1")
    (seen,) = origin.seen("/c")
    assert seen["x-session"] == "abc"
    assert seen["cookie"] == "session=abc; other=1; added=here"
    assert answer["set-cookie"] == "seen=1; Path=/; HttpOnly"


def test_requests_for_one_host_go_to_another_server(start: Start, origin: Origin) -> None:
    with Origin() as other:
        proxy = start("redirect", redirect_to_port=other.port)
        get(proxy, "/moved", host="old.test")
        get(proxy, "/stays", host="new.test")
        (moved,), (stays,) = other.requests, origin.requests
    assert (moved.target, moved["host"]) == ("/moved", f"127.0.0.1:{other.port}")
    assert stays.target == "/stays"


# --- answers


def test_a_script_answers_by_itself(start: Start, origin: Origin) -> None:
    proxy = start("answer")
    answer = get(proxy, "/answered")
    assert (answer.status, answer["content-type"], answer.body) == (418, "text/tea", b"made here")
    assert get(proxy, "/asked").status == 200
    assert [seen.target for seen in origin.requests] == ["/asked"]


def test_an_answer_to_head_has_no_body(start_fast: Start) -> None:  # mitmdump sends it one
    with start_fast("answer").connect() as client:
        answer = client.get("/answered", method="HEAD")
        assert (answer.status, answer.body) == (418, b"")
        assert client.get("/answered").body == b"made here"  # the connection is in step


def test_an_answer_is_put_in_the_place_of_the_servers(start: Start, origin: Origin) -> None:
    origin.on("/told", reply(b"a secret", "X-Origin: 1"))
    answer = get(start("replaced_answer"), "/told")
    assert (answer.status, answer.text, answer["x-kept"]) == (403, "kept back", "back")
    assert answer.get("x-origin") is None


def test_requests_are_blocked_before_their_body(start: Start, origin: Origin) -> None:
    proxy = start("blocklist")
    assert upload(proxy, "/admin/x", body=b"x" * 1000).status == 404
    assert get(proxy, "/administration").status == 200
    assert [seen.target for seen in origin.requests] == ["/administration"]


@pytest.mark.parametrize("path", ["/killed", "/killed-later"])
def test_a_killed_flow_ends_without_an_answer(start: Start, path: str) -> None:
    proxy = start("kill")
    with proxy.connect() as client:
        client.send(request(path))
        assert client.rest() == b""
    hears(proxy, f"ended: {path}")
    assert get(proxy, "/other").status == 200


def test_applications_answer_at_their_hosts(start: Start, origin: Origin) -> None:
    proxy = start("apps")
    wsgi = get(proxy, "/a/b?c=d", method="POST", body=b"body", host="wsgi.test")
    assert (wsgi.status, wsgi["x-app"], wsgi.body) == (200, "wsgi", b"POST /a/b?c=d body")
    asgi = get(proxy, "/path", method="POST", body=b"body", host="asgi.test")
    assert (asgi.status, asgi["x-app"], asgi.body) == (201, "asgi", b"/path body")
    assert not origin.requests
    assert get(proxy, "/", host="other.test").status == 200


# --- streams


def test_bodies_stream_past_both_ways(start: Start, origin: Origin) -> None:
    """What goes in comes out while more is still to come: nothing is gathered first."""
    more = threading.Event()

    def slowly(talk: Conversation) -> None:
        talk.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n")
        talk.send(talk.receive(5))
        talk.wait(more)
        talk.send(talk.receive(5))

    origin.on("/slow", slowly)
    proxy = start("stream")
    with proxy.connect() as client:
        client.send(b"POST /slow HTTP/1.1\r\nHost: edge.test\r\nContent-Length: 10\r\n\r\nfirst")
        assert client.head()["x-body"] == "None"
        assert client.stream.take(5) == b"first"
        client.send(b"other")
        more.set()
        assert client.stream.take(5) == b"other"
    (seen,) = origin.seen("/slow")
    assert seen.get("x-too-late") is None
    hears(proxy, "body: None")


def test_a_streamed_body_is_changed_piece_by_piece(start: Start, origin: Origin) -> None:
    origin.on("/said", chunked(b"one, ", b"two"))
    origin.on("/sized", reply(b"three"))
    proxy = start("stream_changed")
    said = get(proxy, "/said")
    assert said.body == b"[ONE, TWO]"
    assert get(proxy, "/sized").body == b"[THREE]"
    upload(proxy, "/sent", body=b"sent along")
    (seen,) = origin.seen("/sent")
    assert seen.body == b"SENT ALONG"


def test_a_streamed_body_is_saved(start: Start, origin: Origin, tmp_path: Path) -> None:
    body = bytes(range(256)) * 4096
    origin.on("/files/big", reply(body))
    proxy = start("stream_saved", save_to=str(tmp_path))
    assert get(proxy, "/files/big").body == body
    until(lambda: (tmp_path / "big").stat().st_size == len(body), "the file to be whole")
    assert (tmp_path / "big").read_bytes() == body


def test_trailers_are_read_and_sent(start_fast: Start, origin: Origin) -> None:
    """On the node alone: mitmdump has them with HTTP/2 only, and breaks HTTP/1 connections that bring some."""
    origin.on("/has", chunked(b"body", fields=("Trailer: X-Sum",), trailers=("X-Sum: 1",)))
    origin.on("/injected", chunked(b"body"))
    proxy = start_fast("trailers")
    with proxy.connect() as client:
        client.send(
            b"POST /has HTTP/1.1\r\nHost: edge.test\r\nTE: trailers\r\nTrailer: X-Up\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-Up: 7\r\n\r\n"
        )
        answer = client.response()
        assert answer.trailers == [(b"X-Sum", b"1")]
    hears(proxy, "request has {'X-Up': '7'}")
    hears(proxy, "response has {'X-Sum': '1'}")
    answer = get(proxy, "/injected", "TE: trailers")
    assert (answer.body, answer.trailers) == (b"body", [(b"x-sum", b"42")])


# --- options, filters, commands


def test_options_have_types_and_defaults(start: Start, origin: Origin) -> None:
    assert get(start("options"), "/")["x-stamp"] == "none"


def test_options_are_set_by_the_configuration(start: Start, origin: Origin) -> None:
    proxy = start(
        "options",
        anew=True,
        stamp_text="ok",
        stamp_times=2,
        stamp_loudly=True,
        stamp_also=["and", "more"],
        stamp_ink="red",
        stamp_where="request",
    )
    assert get(proxy, "/o").get("x-stamp") is None
    (seen,) = origin.seen("/o")
    assert (seen["x-stamp"], seen["x-ink"]) == ("OK OK AND MORE", "'red'")


def test_an_option_that_is_not_allowed_is_named(origin: Origin) -> None:
    with Fast(origin.url, SCRIPTS / "options.py", options={"stamp_times": 6}) as proxy:
        assert get(proxy, "/").get("x-stamp") is None
        assert "stamp_times: 5 at most" in hears(proxy, "5 at most")


def test_an_option_that_changes_is_told_to_configure(start: Start) -> None:
    proxy = start("option_changed")
    assert get(proxy, "/")["x-level"] == "0 ['water_colour', 'water_level']"
    assert get(proxy, "/?level=7")["x-level"] == "7 ['water_level']"


@pytest.mark.parametrize(
    ("expression", "marked"),
    [
        ("~u /api & ~m POST", ["POST /api"]),
        ("~c 404", ["GET /none"]),
        ("~hs x-answer:.yes", ["GET /api"]),
        ("!~u /api", ["GET /none"]),
        ("~b body", ["POST /api"]),
    ],
)
def test_flows_are_matched_by_filter_expressions(
    start: Start, origin: Origin, expression: str, marked: list[str]
) -> None:
    origin.on("/none", reply(b"", status="404 Not Found"))

    def api(talk: Conversation) -> None:
        reply(b"ok", *(["X-Answer: yes"] if talk.request.method == "GET" else []))(talk)

    origin.on("/api", api)
    proxy = start("filtered", marked=expression)
    answers = {
        "GET /none": get(proxy, "/none"),
        "GET /api": get(proxy, "/api"),
        "POST /api": upload(proxy, "/api", body=b"a body"),
    }
    assert [name for name, answer in answers.items() if answer.get("x-marked")] == marked


def test_commands_are_called(start: Start, origin: Origin) -> None:
    get(start("commands"), "/c")
    (seen,) = origin.seen("/c")
    assert (seen["x-mark"], seen["x-sum"]) == ("by command", "6")


# --- waiting


def test_a_hook_in_a_thread_holds_nobody_up(start: Start, origin: Origin) -> None:
    proxy = start("in_thread")
    with proxy.connect() as slow:
        slow.send(request("/slow"))
        before = time.monotonic()
        get(proxy, "/quick")
        assert time.monotonic() - before < 0.9
        assert slow.response().status == 200
    assert [seen["x-thread"] for seen in origin.requests] == ["yes", "yes"]
    assert [seen.target for seen in origin.requests] == ["/quick", "/slow"]


def test_an_asynchronous_hook_holds_nobody_up(start: Start, origin: Origin) -> None:
    proxy = start("in_loop")
    with proxy.connect() as slow:
        slow.send(request("/slow"))
        before = time.monotonic()
        assert get(proxy, "/quick")["x-waited"] == "yes"
        assert time.monotonic() - before < 0.9
        assert slow.response()["x-waited"] == "yes"
    assert [seen.target for seen in origin.requests] == ["/quick", "/slow"]
    hears(proxy, "runs, asynchronously")


def test_an_asynchronous_hook_runs_a_program(start: Start, origin: Origin) -> None:
    get(start("in_loop"), "/program")
    (seen,) = origin.seen("/program")
    assert seen["x-program"] == "from outside"


def test_an_asynchronous_hook_asks_another_server(start: Start, origin: Origin) -> None:
    with Origin(default=reply(b"hi")) as other:
        get(start("in_loop"), "/server", f"X-Port: {other.port}")
        assert other.requests[0].target == "/from-script"
    (seen,) = origin.seen("/server")
    assert seen["x-server"].endswith("200 OK")


# --- what scripts hear and say


def test_hooks_come_in_their_order(start: Start, origin: Origin) -> None:
    origin.on("/life", reply(b"down"))
    proxy = start("life", anew=True)
    upload(proxy, "/life", body=b"up")
    hears(proxy, "hook response ")
    proxy.stop()
    said = re.findall(r"hook (\w+)(?: (.*?))?[\"\\\n]", hears(proxy, "hook done") + "\n")
    names = [name for name, _ in said]
    assert names[:3] in (["load", "configure", "running"], ["load", "running", "configure"])
    assert said[3:] == [
        ("requestheaders", "None"),
        ("request", "b'up'"),
        ("responseheaders", "200 None"),
        ("response", "b'down'"),
        ("done", ""),
    ]


def test_addons_are_called_in_their_order(start: Start, origin: Origin) -> None:
    get(start("several"), "/s")
    (seen,) = origin.seen("/s")
    assert seen.values("x-order") == ["first", "nested", "last"]


def test_a_flow_carries_values_from_hook_to_hook(start: Start) -> None:
    known = get(start("state"), "/")["x-known"]
    assert known.replace("', 36]", "']") == (
        "['http', True, True, False, None, 'a comment', ':grapes:', '127.0.0.1', True, 'http', True, 36]"
    )


def test_a_copy_stays_as_it_was(start: Start, origin: Origin) -> None:
    answer = get(start("copies"), "/as-it-came")
    assert (answer["x-before"], answer["x-after"]) == ("/as-it-came", "/changed")
    assert [seen.target for seen in origin.requests] == ["/changed"]


def test_errors_are_heard_of(start: Start, origin: Origin) -> None:
    origin.on("/cut", raw(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", then="close"))
    origin.on("/garbage", raw(b"garbage\r\n\r\n", then="close"))
    proxy = start("errors")
    assert get(proxy, "/cut").status == 502  # the script wanted it whole, so nothing was sent yet
    assert get(proxy, "/garbage").status == 502
    get(proxy, "/fine")
    said = hears(proxy, "answered: /fine 200")
    assert "failed: /cut Error msg" in said
    assert "failed: /garbage Error msg None" in said
    assert "answered: /cut" not in said


def test_clients_are_heard_of_as_they_come_and_go(start: Start, origin: Origin) -> None:
    proxy = start("connections")
    with proxy.connect() as client:
        client.get("/1")
        client.get("/2")
    hears(proxy, "came: 127.0.0.1")
    hears(proxy, "went after 2")
    assert [seen["x-nth"] for seen in origin.requests] == ["1", "2"]


@pytest.mark.parametrize(
    "text",
    [
        *("said as the script is read", "said in load", "said in passing: /l", "said as a warning"),
        *("said as an error", "said as an alert", "said by name", "said the old way", "printed"),
    ],
)
def test_what_scripts_say_is_heard(said: str, text: str) -> None:
    assert text in said


@pytest.fixture(scope="module", params=ENGINES)
def said(request: pytest.FixtureRequest, shared_nodes: SharedNodes) -> str:
    """What an engine's log has after one request."""
    script = SCRIPTS / "logging_levels.py"
    running: AbstractContextManager[Engine] = (
        shared_nodes.running(script.read_text(encoding="utf-8"), "")
        if request.param == "fast"
        else Mitmdump(shared_nodes.origin().url, script)
    )
    with running as proxy:
        get(proxy, "/l")
        hears(proxy, "printed")
        return hears(proxy, "said the old way")


def test_flows_are_written_to_a_file_that_mitmproxy_reads(start: Start, origin: Origin, tmp_path: Path) -> None:
    origin.on("/w", reply(b"body", "X-A: 1"))
    file = tmp_path / "flows"
    proxy = start("write_flows", anew=True, flows_file=str(file))
    get(proxy, "/w?x", "X-B: 2")
    proxy.stop()
    with file.open("rb") as written:
        (flow,) = io.FlowReader(written).stream()
    assert isinstance(flow, http.HTTPFlow)
    assert (flow.request.path, flow.request.headers["x-b"]) == ("/w?x", "2")
    assert flow.response is not None
    assert (flow.response.content, flow.response.headers["x-a"]) == (b"body", "1")
    assert flow.client_conn.peername is not None
    assert flow.client_conn.peername[0] == "127.0.0.1"
    assert json.dumps(flow.get_state()["metadata"])  # plain values only


def test_every_script_here_has_its_test() -> None:
    tests = Path(__file__).read_text(encoding="utf-8")
    assert [path.stem for path in SCRIPTS.glob("*.py") if f'"{path.stem}' not in tests] == []
