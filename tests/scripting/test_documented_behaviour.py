"""What docs/addons.md says of scripts on the edge, sentence by sentence, on a node."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.cache.scripted import FRESH, counting
from tests.scripting.changing import Changing, SharedNodes
from tests.scripting.engines import get
from tests.support import Cut, Origin, chunked, gated, reply, request, until

type Start = Callable[..., Changing]
MARKS = """
def requestheaders(flow):
    flow.request.headers["X-Mark"] = "{0}"
def responseheaders(flow):
    flow.response.headers["X-Mark"] = "{0}"
"""


@pytest.fixture
def origin(shared_nodes: SharedNodes) -> Origin:
    return shared_nodes.origin()


@pytest.fixture
def start(shared_nodes: SharedNodes, origin: Origin) -> Iterator[Start]:
    """A shared node that runs scripts, each given as its text: `start("def request(flow): …")`."""
    with ExitStack() as stack:
        yield lambda *texts, **tables: stack.enter_context(shared_nodes.running(*texts, **tables))


@pytest.fixture
def start_anew(shared_nodes: SharedNodes, origin: Origin) -> Iterator[Start]:
    """The same with a node that is the test's alone, and starts with these scripts."""
    with ExitStack() as stack:
        yield lambda *texts, **tables: stack.enter_context(shared_nodes.fresh(*texts, **tables))


# --- where scripts stand


def test_what_response_hooks_add_is_not_stored(start: Start, origin: Origin) -> None:
    origin.on("/s", reply(b"body", FRESH))
    proxy = start(
        "import itertools\nnumbers = itertools.count(1)\n"
        "def response(flow):\n"
        "    number = next(numbers)\n"
        '    flow.response.headers["Set-Cookie"] = f"n={number}"\n'
        '    flow.response.content = f"for {number}".encode()\n'
    )
    answers = [get(proxy, "/s") for _ in range(3)]
    assert [one["x-cache"] for one in answers] == ["MISS", "HIT", "HIT"]
    assert [(one["set-cookie"], one.text) for one in answers] == [
        (f"n={number}", f"for {number}") for number in (1, 2, 3)
    ]
    assert [one["content-length"] for one in answers] == ["5", "5", "5"]


def test_a_fetch_of_the_edges_own_is_no_flow(start: Start, origin: Origin) -> None:
    origin.on("/b", counting("Cache-Control: max-age=0, stale-while-revalidate=60"))
    proxy = start("def requestheaders(flow):\n    flow.request.headers.add('X-Seen', 'yes')\n")
    answers = [get(proxy, "/b")["x-cache"] for _ in range(2)]
    assert answers == ["MISS", "STALE"]
    assert [seen.values("x-seen") for seen in origin.wait_for("/b", 2)] == [["yes"], ["yes"]]
    until(lambda: len(proxy.lines()) >= 3, "the fetch's own line")
    assert [(line["client"], line["script"] is None) for line in proxy.lines()].count((None, True)) == 1


def test_each_that_waits_for_one_fetch_has_its_own_hooks(start: Start, origin: Origin) -> None:
    gate = threading.Event()
    origin.on("/c", gated(gate, reply(b"body", FRESH)))
    proxy = start("def response(flow):\n    flow.response.headers['X-For'] = flow.request.headers['X-Me']\n")
    clients = [proxy.connect() for _ in range(3)]
    for number, client in enumerate(clients):
        client.send(request("/c", f"X-Me: {number}"))
    origin.wait_for("/c")
    gate.set()
    assert [client.response()["x-for"] for client in clients] == ["0", "1", "2"]
    assert len(origin.seen("/c")) == 1
    for client in clients:
        client.close()


def test_errors_of_the_edges_own_are_told_and_not_shown(start: Start) -> None:
    proxy = start(
        "def requestheaders(flow):\n    flow.request.host, flow.request.port = '127.0.0.1', 1\n"
        "def response(flow):\n    print('shown')\n"
        "def error(flow):\n    print('told', flow.error.msg)\n"
    )
    answer = get(proxy, "/")
    assert (answer.status, answer.problem["code"]) == (502, "origin_connect_error")
    until(lambda: "told 127.0.0.1:1" in proxy.said, "the hook")
    assert "shown" not in proxy.said


def test_an_answer_of_a_scripts_own_has_the_edges_ids(start: Start) -> None:
    proxy = start(
        "from mitmproxy import http\n"
        "def requestheaders(flow):\n    flow.response = http.Response.make(200, b'mine')\n"
        "def response(flow):\n    flow.response.headers['X-Seen'] = 'yes'\n"
    )
    answer = get(proxy, "/")
    assert (answer.body, answer["x-seen"]) == (b"mine", "yes")
    line = proxy.node.record(answer.trace_id)
    assert (line["status"], line["cache"], line["origin"], line["bytes_out"]) == (200, None, None, 4)


# --- lives


def test_every_worker_loads_every_script(start_anew: Start) -> None:
    proxy = start_anew("print('loaded here')\n", workers=2)
    until(lambda: proxy.said.count("loaded here") == 2, "both workers")


def test_an_asynchronous_done_is_waited_for(start_anew: Start) -> None:
    proxy = start_anew(
        "import asyncio\nasync def done():\n    await asyncio.sleep(0.2)\n    print('done to the end')\n"
    )
    get(proxy, "/")
    proxy.stop()
    assert "done to the end" in proxy.said


def test_a_changed_script_is_used_and_its_former_self_done(start: Start) -> None:
    proxy = start(MARKS.format("one") + "def done():\n    print('one is done')\n")
    assert get(proxy, "/")["x-mark"] == "one"
    proxy.change(MARKS.format("two"))
    until(lambda: get(proxy, "/")["x-mark"] == "two", "the new version")
    until(lambda: "one is done" in proxy.said, "the old one's done")


def test_a_request_ends_with_the_version_that_it_began_with(start: Start, origin: Origin) -> None:
    gate = threading.Event()
    origin.on("/slow", gated(gate, reply()))
    proxy = start(MARKS.format("one") + "def done():\n    print('one is done')\n")
    with proxy.connect() as client:
        client.send(request("/slow"))
        origin.wait_for("/slow")
        proxy.change(MARKS.format("two"))
        until(lambda: get(proxy, "/")["x-mark"] == "two", "the new version")
        assert "one is done" not in proxy.said
        gate.set()
        assert client.response()["x-mark"] == "one"
    until(lambda: "one is done" in proxy.said, "the old one's done")


@pytest.mark.parametrize(
    "text", ["import no_such_module", "def request(:", "1/0", "def load(l):\n    raise OSError('x')"]
)
def test_a_version_that_does_not_load_leaves_the_last_good_one(start: Start, text: str) -> None:
    proxy = start(MARKS.format("good"), addons={"on_error": "refuse"})
    proxy.change(text)
    until(lambda: proxy.events("script_not_loaded"), "the failure to be said")
    assert get(proxy, "/")["x-mark"] == "good"
    proxy.scripts[0].unlink()
    until(lambda: proxy.events("script_missing"), "that to be said, too")
    assert get(proxy, "/")["x-mark"] == "good"
    proxy.change(MARKS.format("better"))
    until(lambda: get(proxy, "/")["x-mark"] == "better", "the one that loads")


def test_no_request_is_lost_over_reloads(start: Start) -> None:
    proxy = start(MARKS.format(0))
    statuses: list[int] = []
    over = threading.Event()

    def ask() -> None:
        with proxy.connect() as client:
            while not over.is_set():
                statuses.append(client.get("/").status)

    asking = [threading.Thread(target=ask) for _ in range(4)]
    for thread in asking:
        thread.start()
    for number in range(1, 6):
        proxy.change(MARKS.format(number))
        until(lambda number=number: get(proxy, "/")["x-mark"] == str(number), "the new version")
    over.set()
    for thread in asking:
        thread.join()
    assert set(statuses) == {200}
    assert len(statuses) > 50


# --- filters


def test_the_filter_of_the_configuration_wins_over_the_scripts_own(start_anew: Start) -> None:
    own = 'edge_filter = "~u /own"\n' + MARKS
    first, second, third = own.format("first"), own.format("second"), MARKS.format("third").replace("X-Mark", "X-Third")
    proxy = start_anew(first, second, third, filters={0: "~u /configured"}, addons={"filter": "~u /default"})
    marks = {
        path: (answer.get("x-mark"), answer.get("x-third"))
        for path in ("/own", "/configured", "/default", "/other")
        for answer in [get(proxy, path)]
    }
    assert marks == {
        "/own": ("second", None),
        "/configured": ("first", None),
        "/default": (None, "third"),
        "/other": (None, None),
    }
    lines = {line["path"]: line["script"] for line in proxy.log_lines(4)}
    assert lines["/other"] is None
    assert lines["/default"]["names"] == ["script_2.py"]


def test_a_filter_that_needs_the_response_is_asked_when_it_is_there(start: Start, origin: Origin) -> None:
    origin.on("/missing", reply(b"", status="404 Not Found"))
    proxy = start('edge_filter = "~c 404"\n' + MARKS.format("404"))
    assert get(proxy, "/missing")["x-mark"] == "404"
    assert get(proxy, "/there").get("x-mark") is None
    assert [seen.get("x-mark") for seen in origin.requests] == [None, None]


def test_a_filter_that_was_decided_stays_decided(start: Start, origin: Origin) -> None:
    proxy = start(
        'def requestheaders(flow):\n    flow.request.path = "/b"\n', 'edge_filter = "~u /a"\n' + MARKS.format("a")
    )
    assert get(proxy, "/a")["x-mark"] == "a"
    assert [seen.target for seen in origin.requests] == ["/b"]


def test_hits_of_memory_may_be_left_out(start_anew: Start, origin: Origin) -> None:
    origin.on("/h", reply(b"", FRESH))
    proxy = start_anew(MARKS.format("seen"), addons={"hits": False})
    answers = [get(proxy, "/h") for _ in range(2)]
    assert [(one["x-cache"], one.get("x-mark")) for one in answers] == [("MISS", "seen"), ("HIT", None)]


# --- bodies


def test_a_body_that_is_too_long_streams_past(start_anew: Start, origin: Origin) -> None:
    origin.on("/long", reply(b"x" * 2000))
    origin.on("/grows", chunked(b"x" * 600, b"y" * 600))
    script = (
        "def request(flow):\n    flow.metadata['up'] = flow.request.raw_content\n"
        "def response(flow):\n"
        "    log = {'up': flow.metadata['up'], 'down': flow.response.raw_content}\n"
        "    flow.metadata['edge']['log'] = log\n"
    )
    proxy = start_anew(script, addons={"body_bytes": 1000})
    for path, body, up, down in (
        ("/long", b"z" * 1000, repr(b"z" * 1000), "None"),
        ("/short", b"z" * 1001, "None", None),
        ("/grows", b"", "b''", "None"),
    ):
        answer = get(proxy, path, method="POST", body=body)
        log = proxy.node.record(answer.trace_id)["script"]["log"]
        assert log["up"] == up, path
        assert down is None or log["down"] == down, path
    assert origin.seen("/short")[0].body == b"z" * 1001


def test_a_stream_that_raises_lets_the_piece_through_or_is_cut_off(start: Start, origin: Origin) -> None:
    origin.on("/x", reply(b"body"))
    script = "def bad(data):\n    raise ValueError('bad')\ndef responseheaders(flow):\n    flow.response.stream = bad\n"
    assert get(start(script), "/x").body == b"body"


def test_a_stream_that_raises_is_cut_off_where_nothing_is_to_go_on(start: Start, origin: Origin) -> None:
    origin.on("/x", reply(b"body"))
    script = "def bad(data):\n    raise ValueError('bad')\ndef responseheaders(flow):\n    flow.response.stream = bad\n"
    with pytest.raises(Cut):
        get(start(script, addons={"on_error": "refuse"}), "/x")


# --- failures

RAISES = """
def requestheaders(flow):
    flow.request.path = "/changed"
    flow.request.headers["X-Half"] = "done"
    raise ValueError("half way")
"""


def test_what_a_failed_hook_has_changed_is_undone_and_others_are_called(start: Start, origin: Origin) -> None:
    proxy = start(RAISES, MARKS.format("other"))
    answer = get(proxy, "/as-it-came")
    (seen,) = origin.requests
    assert (seen.target, seen.get("x-half"), seen["x-mark"]) == ("/as-it-came", None, "other")
    (event,) = proxy.events("script_failed")
    assert (event["script"], event["hook"], event["trace_id"]) == ("script_0.py", "requestheaders", answer.trace_id)
    assert "half way" in event["error"]


def test_with_refuse_nothing_is_served_and_nobody_asked(start: Start, origin: Origin) -> None:
    origin.on("/cached", reply(b"", FRESH))
    proxy = start('edge_filter = "!~hq X-Skip"\n' + RAISES, addons={"on_error": "refuse"})
    assert get(proxy, "/cached", "X-Skip: 1").status == 200
    answer = get(proxy, "/cached")
    assert (answer.status, answer.problem["code"]) == (500, "script_failed")
    assert len(origin.requests) == 1


@pytest.mark.parametrize(("on_error", "status"), [("continue", 200), ("refuse", 500)])
def test_a_script_that_never_loaded(start_anew: Start, on_error: str, status: int) -> None:
    proxy = start_anew("import no_such_module\n", addons={"on_error": on_error})
    assert get(proxy, "/").status == status
    assert proxy.events("script_not_loaded")


def test_a_script_that_never_loaded_refuses_only_what_it_would_have_seen(start_anew: Start) -> None:
    proxy = start_anew("import no_such_module\n", filters={0: "~u /mine"}, addons={"on_error": "refuse"})
    assert [get(proxy, path).status for path in ("/mine", "/other")] == [500, 200]


@pytest.mark.parametrize(("on_error", "status"), [("continue", 200), ("refuse", 500)])
def test_an_asynchronous_hook_has_a_time_limit(start_anew: Start, on_error: str, status: int) -> None:
    script = "import asyncio\nasync def request(flow):\n    flow.request.path = '/x'\n    await asyncio.sleep(60)\n"
    proxy = start_anew(script, addons={"on_error": on_error, "timeout": 0.2})
    assert get(proxy, "/").status == status
    (event,) = proxy.events("script_failed")
    assert "longer than 0.2 s" in event["error"]


@pytest.mark.parametrize(
    "change",
    [
        "flow.request.path = 'no-slash'",
        "flow.request.path = '/a b'",
        "flow.request.method = 'A B'",
        "flow.request.headers['X-A'] = 'a\\r\\nX-B: b'",
        "flow.request.headers.fields = ((b'X A', b'1'),)",
        "flow.request.port = 70000",
        "flow.request.scheme = 'ftp'",
        "flow.metadata['edge']['key'] = {'a': 1}",
        "flow.metadata['edge']['key']['a'] = 1",
        "flow.metadata['edge']['nonsense'] = 1",
    ],
)
def test_what_can_not_be_sent_is_not_sent(start: Start, origin: Origin, change: str) -> None:
    proxy = start(f"def request(flow):\n    {change}\n")
    assert get(proxy, "/as-it-came").status == 200
    (seen,) = origin.requests
    assert (seen.start, seen.get("x-a"), seen.get("x-b")) == (b"GET /as-it-came HTTP/1.1", None, None)
    assert len(proxy.events("script_failed")) == 1


@pytest.mark.parametrize(
    "change",
    [
        "flow.response.status_code = 42",
        "flow.response.reason = 'a\\r\\nX-B: b'",
        "flow.response.headers['A'] = 'a\\nb'",
    ],
)
def test_what_can_not_be_sent_to_a_client_is_not_sent(start: Start, origin: Origin, change: str) -> None:
    origin.on("/r", reply(b"body", "X-Origin: 1"))
    proxy = start(f"def response(flow):\n    {change}\n")
    answer = get(proxy, "/r")
    assert (answer.status, answer.body, answer["x-origin"], answer.get("x-b")) == (200, b"body", "1", None)
    assert len(proxy.events("script_failed")) == 1


def test_it_is_too_late_for_the_key_in_a_response_hook(start: Start) -> None:
    proxy = start("def response(flow):\n    flow.metadata['edge']['bypass'] = True\n")
    assert get(proxy, "/").status == 200
    (event,) = proxy.events("script_failed")
    assert "too late" in event["error"]


def test_a_hook_that_holds_the_loop_is_named(start: Start) -> None:
    proxy = start("import time\ndef request(flow):\n    time.sleep(0.1)\n")
    answer = get(proxy, "/")
    (event,) = proxy.events("script_blocked")
    assert (event["script"], event["hook"], event["trace_id"]) == ("script_0.py", "request", answer.trace_id)
    assert event["ms"] >= 100


def test_a_client_that_leaves_ends_the_hook(start_anew: Start) -> None:
    proxy = start_anew(
        "import asyncio\n"
        "async def request(flow):\n"
        "    print('waits')\n"
        "    try:\n        await asyncio.sleep(60)\n"
        "    except asyncio.CancelledError:\n        print('was ended')\n        raise\n"
        "def error(flow):\n    print('was told')\n",
        addons={"timeout": 60.0},
    )
    client = proxy.connect()
    client.send(request("/"))
    until(lambda: "waits" in proxy.said, "the hook to wait")
    client.reset()
    until(lambda: "was ended" in proxy.said and "was told" in proxy.said, "the hook to end")
    (line,) = proxy.log_lines(1)
    assert (line["outcome"], line["stage"]) == ("client_abort", "script")


# --- options


def test_an_option_that_nobody_declared_is_said(start_anew: Start) -> None:
    proxy = start_anew(MARKS.format("x"), options={"nobodys": 1})
    assert get(proxy, "/")["x-mark"] == "x"
    (event,) = proxy.events("script_option_unknown")
    assert event["option"] == "nobodys"


def test_an_option_of_another_type_keeps_the_script_from_being_loaded(start_anew: Start) -> None:
    script = "def load(loader):\n    loader.add_option('much', int, 0, '')\n" + MARKS.format("x")
    proxy = start_anew(script, options={"much": "many"})
    assert get(proxy, "/").get("x-mark") is None
    assert "much" in proxy.events("script_not_loaded")[0]["error"]


# --- what differs from stock mitmproxy


def test_a_killed_request_is_in_the_log(start: Start) -> None:
    proxy = start("def requestheaders(flow):\n    flow.kill()\n")
    with pytest.raises(Cut):
        get(proxy, "/")
    (line,) = proxy.log_lines(1)
    assert (line["outcome"], line["status"], line["error"]["type"]) == ("refused", None, "script_killed")


def test_an_intercepted_flow_waits_until_a_script_lets_it_go(start: Start) -> None:
    proxy = start(
        "import asyncio\nkept = set()\n"
        "def request(flow):\n"
        "    flow.intercept()\n"
        "    kept.add(asyncio.get_running_loop().call_later(0.2, flow.resume))\n"
    )
    began = time.monotonic()
    assert get(proxy, "/").status == 200
    assert time.monotonic() - began > 0.19


def test_no_script_ends_the_node(start: Start) -> None:
    proxy = start("from mitmproxy import ctx\ndef request(flow):\n    ctx.master.shutdown()\n")
    assert [get(proxy, "/").status for _ in range(2)] == [200, 200]
    assert proxy.events("script_shutdown_ignored")


def test_hooks_that_are_not_called_are_named(start: Start) -> None:
    proxy = start("def websocket_message(flow):\n    pass\ndef tls_clienthello(data):\n    pass\n")
    (event,) = until(lambda: proxy.events("script_hooks_not_called"), "the hooks to be named")
    assert event["hooks"] == ["tls_clienthello", "websocket_message"]


def test_a_script_turns_a_client_away(start: Start) -> None:
    proxy = start(
        "def client_connected(client):\n    if client.peername[0] == '127.0.0.9':\n        client.error = 'no'\n"
    )
    assert get(proxy, "/").status == 200
    with proxy.node.connect(source="127.0.0.9") as client, pytest.raises((Cut, OSError)):
        client.get("/")


def test_what_a_script_logs_has_the_trace_id(start: Start) -> None:
    proxy = start("import logging\ndef request(flow):\n    logging.warning('said here')\n")
    answer = get(proxy, "/")
    (event,) = [one for one in proxy.events("script_log") if one["message"] == "said here"]
    assert (event["trace_id"], event["level"]) == (answer.trace_id, "warning")


def test_another_servers_response_has_a_key_of_its_own(start: Start, origin: Origin) -> None:
    origin.default = reply(b"configured", FRESH)
    with Origin(default=reply(b"elsewhere", FRESH)) as other:
        proxy = start(
            "def requestheaders(flow):\n"
            "    if 'X-Other' in flow.request.headers:\n"
            "        host = flow.request.host_header\n"
            f"        flow.request.host, flow.request.port = '127.0.0.1', {other.port}\n"
            "        flow.request.host_header = host\n"
        )
        answers = [get(proxy, "/k", *fields) for fields in ((), ("X-Other: 1",), (), ("X-Other: 1",))]
    assert [(one["x-cache"], one.text) for one in answers] == [
        *(("MISS", "configured"), ("MISS", "elsewhere"), ("HIT", "configured"), ("HIT", "elsewhere"))
    ]


def test_what_the_edge_adds_to_requests_comes_after_scripts(start: Start, origin: Origin) -> None:
    proxy = start(
        "def requestheaders(flow):\n"
        "    assert 'traceparent' not in flow.request.headers\n"
        "    flow.request.headers['Via'] = 'none'\n    flow.request.headers['X-Trace-Id'] = 'mine'\n"
    )
    answer = get(proxy, "/")
    (seen,) = origin.requests
    assert seen["x-trace-id"] == answer.trace_id
    assert seen["traceparent"].split("-")[1] == answer.trace_id
    assert "1.1 edgeproxy" in seen["via"]
    assert not proxy.events("script_failed")
