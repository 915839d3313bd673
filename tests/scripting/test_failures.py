"""Hooks that fail, in whatever way: the request goes on as if they had not been there, or is refused, as configured."""

import contextlib
import threading
from collections.abc import Iterator
from textwrap import dedent

import pytest

from tests.scripting.builders import DOES, Site, do, waits
from tests.support import Conversation, chunked, gated, reply, request, until

TIMEOUT_S = 0.3
SCRIPT = DOES
TABLES = {"addons": {"timeout": TIMEOUT_S}}

HOOKS = ("requestheaders", "request", "responseheaders", "response")
RAISES = {
    "an exception": "raise ValueError('on purpose')",
    "an exit": "sys.exit(3)",
    "an interrupt": "raise KeyboardInterrupt",
    "a generator's exit": "raise GeneratorExit",
    "a cancellation": "raise asyncio.CancelledError",
    "a stop": "raise StopIteration",
    "an endless recursion": "f = lambda: f()\nf()",
    "what can't be shown": "class Mute(Exception):\n  def __str__(self): raise ValueError\nraise Mute",
    "what is no Unicode": r"raise ValueError('\udc80')",
    "no memory": "raise MemoryError",
}
AWAITS = {
    "an exception later": "await asyncio.sleep(0)\nraise ValueError('on purpose')",
    "an exit later": "await asyncio.sleep(0)\nsys.exit(3)",
    "an interrupt later": "await asyncio.sleep(0)\nraise KeyboardInterrupt",
    "a cancellation later": "await asyncio.sleep(0)\nraise asyncio.CancelledError",
    "its own cancellation": "asyncio.current_task().cancel()\nawait asyncio.sleep(5)",
    "its own cancellation behind its last wait": "await asyncio.sleep(0)\nasyncio.current_task().cancel()",
    "its own cancellation, twice": "for _ in range(2): asyncio.current_task().cancel()\nawait asyncio.sleep(5)",
    "too long": "await asyncio.sleep(60)",
    "too long in a thread": "await asyncio.to_thread(threading.Event().wait, 1)",
    "too long, and won't be cancelled": dedent("""
        try: await asyncio.sleep(60)
        except asyncio.CancelledError: pass
        await asyncio.sleep(60)
    """),
    "too long, whatever is done": dedent("""
        while True:
            try: await asyncio.sleep(60)
            except BaseException: pass
    """),
}
HOW = {**RAISES, **AWAITS}
HALF = """
request.headers["X-Half"] = "1"
request.path = "/other"
request.stream = True
request.host = "other.test"
request.text = "other"
flow.metadata["half"] = 1
if response:
    response.status_code = 418
    response.headers["X-Half"] = "1"
    response.text = "half"
    response.stream = lambda data: b"half"
else:
    edge["bypass"] = True
    edge["tags"].append("half")
    edge["key"]["half"] = "1"
log["half"] = 1
"""
"""What a hook does before it fails."""


def path_of(how: str) -> str:
    return f"/{how.replace(' ', '-')}".replace("'", "")


@pytest.fixture(scope="module")
def shared_strict() -> Iterator[Site]:
    with Site(DOES, addons={"timeout": TIMEOUT_S, "on_error": "refuse"}) as site:
        yield site


@pytest.fixture
def strict(shared_strict: Site) -> Iterator[Site]:
    """A node that refuses what a hook has failed for."""
    with shared_strict.watched():
        yield shared_strict


@pytest.mark.parametrize("how", HOW)
def test_a_failed_hook_is_as_if_it_had_not_been_there(site: Site, how: str) -> None:
    path = path_of(how)
    site.origin.on(path, reply(b"the page", "Cache-Control: max-age=60", "X-Page: 1"))
    before = site.counters()
    with contextlib.ExitStack() as stack:
        clients = {hook: stack.enter_context(site.node.connect()) for hook in HOOKS}
        for hook, client in clients.items():
            client.send(request(path, *do(**{hook: HALF + HOW[how]})))
        answers = {hook: site.saw(client.response()) for hook, client in clients.items()}
    for hook, answer in answers.items():
        assert (answer.status, answer.body, answer["x-page"]) == (200, b"the page", "1")
        assert answer.get("x-half") is None
        record = site.record(answer)
        assert (record["outcome"], record["error"], record["script"]["log"]) == ("ok", None, {})
        assert record["cache"] in {"MISS", "HIT", "COLLAPSED"}
        failed = site.event("script_failed", trace_id=answer.trace_id)
        assert (failed["hook"], failed["script"]) == (hook, "script.py")
    (asked,) = site.origin.requests
    assert (asked.target, asked["host"], asked.get("x-half"), asked.body) == (path, "edge.test", None, b"")
    after = site.counters()
    assert after["errors"] == before["errors"] + len(HOOKS)
    assert after["timeouts"] == before["timeouts"] + len(HOOKS) * ("long" in how)


@pytest.mark.parametrize("how", HOW)
def test_a_failed_hook_is_the_requests_end_where_that_is_configured(strict: Site, how: str) -> None:
    path = path_of(how)
    strict.origin.on(path, reply(b"the page", "Cache-Control: max-age=60"))
    with contextlib.ExitStack() as stack:
        clients = {hook: stack.enter_context(strict.node.connect()) for hook in HOOKS}
        for hook, client in clients.items():
            client.send(request(path, *do(**{hook: HALF + HOW[how]})))
        answers = {hook: strict.saw(client.response()) for hook, client in clients.items()}
    for hook, answer in answers.items():
        assert (answer.status, answer.problem["code"]) == (500, "script_failed")
        assert answer.get("x-half") is None
        record = strict.record(answer)
        assert (record["outcome"], record["error"]["type"]) == ("refused", "script_failed")
        assert record["stage"] == "script"
        strict.event("script_failed", trace_id=answer.trace_id, hook=hook)


def test_a_failed_hook_says_what_happened_and_where(site: Site) -> None:
    answer = site.get("/where", *do(response="raise ValueError('on purpose')"))
    failed = site.event("script_failed", trace_id=answer.trace_id)
    assert failed["error"] == "ValueError: on purpose"
    assert failed["level"] == "error"
    assert "in _do" in failed["exception"]


def test_a_failed_hook_does_not_keep_those_of_others_from_being_called(site: Site) -> None:
    answer = site.get("/all", *do(requestheaders="1/0", request="log['request'] = 1", response="log['response'] = 1"))
    assert site.logged(answer) == {"request": "1", "response": "1"}


def test_a_failed_hook_leaves_an_upload_whole(site: Site) -> None:
    body = b"0123456789" * 10_000
    for hook in ("requestheaders", "request"):
        site.get("/upload", *do(**{hook: HALF + "1/0"}), method="POST", body=body)
    assert [asked.body for asked in site.origin.seen("/upload")] == [body] * 2


def test_a_failed_hook_leaves_what_came_while_it_was_at_work(site: Site) -> None:
    """The trailers are here before the hook fails that was called for the head."""
    site.origin.on("/trailers", chunked(b"body", fields=("Trailer: X-Sum",), trailers=("X-Sum: 1",)))
    answer = site.get("/trailers", "TE: trailers", *do(responseheaders="await asyncio.sleep(0.1)\n1/0"))
    assert (answer.body, answer.trailers) == (b"body", [(b"X-Sum", b"1")])


def test_a_failed_hook_that_has_stopped_the_flow_does_not_stop_it(site: Site) -> None:
    assert site.get("/stopped", *do(request="flow.intercept()\n1/0")).status == 200


def test_a_failed_hook_that_has_killed_the_flow_does_not_end_it(site: Site) -> None:
    assert site.get("/killed", *do(request="flow.kill()\n1/0")).status == 200
    assert site.get("/killed", *do(response="flow.kill()\n1/0")).status == 200


def test_a_failed_hook_of_a_failed_request_changes_nothing(site: Site) -> None:
    site.origin.on("/gone", lambda talk: talk.reset())
    for code in (
        "1/0",
        "await asyncio.sleep(0)\n1/0",
        "raise KeyboardInterrupt",
        "flow.kill()",
        "flow.response = None",
    ):
        assert site.get("/gone", *do(error=code)).status == 502


def test_a_failed_hook_does_not_end_the_worker(site: Site, strict: Site) -> None:
    for one in (site, strict):
        assert one.node.status().worker_restarts == 0


NONSENSE = {
    "flow.response = None": ("responseheaders", "response"),
    "flow.response = 'text'": HOOKS,
    "flow.response = 404": HOOKS,
    "flow.response = http.Request.make('GET', 'http://a/')": HOOKS,
    "flow.request = None": HOOKS,
    "flow.request = 'text'": HOOKS,
    "flow.request = http.Response.make()": HOOKS,
    "flow.request.data = None": HOOKS,
    "flow.metadata = None": HOOKS,
    "flow.metadata = {}": HOOKS,
    "del flow.metadata['edge']": HOOKS,
    "flow.metadata['edge'] = {'ttl': 5}": HOOKS,
    "del flow.request": HOOKS,
    "del flow.client_conn": (),
    "request.headers = None": HOOKS,
    "request.headers = {'Host': 'a'}": HOOKS,
    "request.headers.fields = (('Host', 'a'),)": ("requestheaders", "request"),
    "request.headers.fields = None": ("requestheaders", "request"),
    "request.headers['X'] = 5": HOOKS,
    "request.headers['X'] = None": ("requestheaders", "request"),
    "request.headers['a b'] = '1'": ("requestheaders", "request"),
    "request.headers.clear()": ("requestheaders", "request"),
    "request.method = None": ("requestheaders", "request"),
    "request.method = 'GET /'": ("requestheaders", "request"),
    "request.method = 'CONNECT'": ("requestheaders", "request"),
    "request.path = 5": HOOKS,
    "request.path = 'relative'": ("requestheaders", "request"),
    "request.data.path = '/text'": ("requestheaders", "request"),
    "request.text = 5": HOOKS,
    "request.content = 'text'": HOOKS,
    "request.data.content = 'text'": ("request",),
    "request.port = 'http'": HOOKS,
    "request.port = 0": ("requestheaders", "request"),
    "request.host = ''": ("requestheaders", "request"),
    "request.scheme = 'gopher'": ("requestheaders", "request"),
    "request.trailers = 'text'": HOOKS,
    "request.stream = 'text'": (),
    "response.status_code = -1": ("responseheaders", "response"),
    "response.status_code = '200'": ("responseheaders", "response"),
    "response.status_code = 100": ("responseheaders", "response"),
    "response.status_code = 200.0": ("responseheaders", "response"),
    "response.reason = 'OK\\r\\nX-Half: 1'": ("responseheaders", "response"),
    "response.data.reason = None": ("responseheaders", "response"),
    "response.headers['X-Half'] = 'a\\r\\nX-Other: 1'": ("responseheaders", "response"),
    "response.headers['X-Half'] = '\\n\\nHTTP/1.1 200 OK'": ("responseheaders", "response"),
    "response.headers = []": ("responseheaders", "response"),
    "response.headers.fields = (('a', 'b'),)": ("responseheaders", "response"),
    "response.content = 'text'": ("responseheaders", "response"),
    "response.data.content = 'text'": ("response",),
    "response.data.content = 5": ("response",),
    "response.trailers = {'a': 'b'}": ("responseheaders", "response"),
    "response.trailers = http.Headers([(b'a', b'b\\r\\nX: y')])": ("responseheaders", "response"),
    "response.trailers = http.Headers([(b'content-length', b'5')])": ("responseheaders", "response"),
    "edge['ttl'] = 'long'": HOOKS,
    "edge['tll'] = 5": HOOKS,
    "edge['cache'] = 'HIT'": HOOKS,
    "edge['key']['a'] = 5": ("requestheaders", "request"),
    "edge['tags'].append('a b')": ("requestheaders", "request"),
    "edge.clear()": HOOKS,
    "edge['ttl'] = 5": ("responseheaders", "response"),
    "edge['bypass'] = True": ("responseheaders", "response"),
    "edge['key'] = {}": ("responseheaders", "response"),
    "edge['tags'] = ['late']": ("responseheaders", "response"),
}
"""What hooks may make of a flow that can't be used, and in which hooks that is an error."""


@pytest.mark.parametrize("hook", HOOKS)
def test_nonsense_is_undone(site: Site, hook: str) -> None:
    site.origin.on("/page", reply(b"the page", "X-Page: 1"))
    behind = do(response="log['behind'] = 1") if hook != "response" else []
    answers = {}
    for code in (code for code, hooks in NONSENSE.items() if hook in (hooks or HOOKS)):
        with site.node.connect() as client:
            answers[code] = site.ask(client, "/page", *do(**{hook: code}), *behind)
            assert site.ask(client, "/page").body == b"the page", code  # and the connection is in step
    for code, answer in answers.items():
        assert (answer.status, answer.body, answer.get("x-page")) == (200, b"the page", "1"), code
        assert [answer.get(name) for name in ("x-half", "x-other", "x", "a")] == [None] * 4, code
        assert len(site.events("script_failed", trace_id=answer.trace_id)) == bool(NONSENSE[code]), code
        assert site.logged(answer) == ({"behind": "1"} if behind else {}), code
    assert {asked.target for asked in site.origin.requests} == {"/page"}


@pytest.mark.parametrize("hook", HOOKS)
def test_nonsense_is_the_requests_end_where_that_is_configured(strict: Site, hook: str) -> None:
    for code in (code for code, hooks in NONSENSE.items() if hook in hooks):
        with strict.node.connect() as client:
            answer = strict.ask(client, "/page", *do(**{hook: code}))
            assert (answer.status, answer.problem["code"]) == (500, "script_failed"), code
            assert strict.ask(client, "/page").status == 200, code


@pytest.mark.parametrize(
    "code", ["time.sleep(0.06)", "await asyncio.sleep(0)\ntime.sleep(0.06)"], ids=["sync", "async"]
)
def test_a_hook_that_holds_the_loop_is_named(site: Site, code: str) -> None:
    before = site.counters()["blocks"]
    answer = site.get("/blocks", *do(request=code))
    assert answer.status == 200
    blocked = site.event("script_blocked", trace_id=answer.trace_id)
    assert (blocked["hook"], blocked["script"]) == ("request", "script.py")
    assert blocked["ms"] > 50
    assert site.counters()["blocks"] == before + 1


def test_a_hook_that_holds_the_loop_is_not_one_that_waits(site: Site) -> None:
    answer = site.get("/waits", *do(request="await asyncio.sleep(0.1)"))
    assert not site.events("script_blocked", trace_id=answer.trace_id)


FUNCTIONS = {
    "raises": "lambda data: 1 / 0",
    "exits": "lambda data: sys.exit()",
    "is cancelled": "lambda data: (_ for _ in ()).throw(asyncio.CancelledError)",
    "returns text": "lambda data: 'text'",
    "returns nothing": "lambda data: None",
    "returns a list of something else": "lambda data: [b'a', 5]",
    "raises in its generator": "lambda data: (1 / 0 for _ in range(1))",
    "takes nothing": "lambda: b''",
    "is a coroutine": "asyncio.sleep",
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_streams_function_that_fails_lets_the_piece_by(site: Site, name: str) -> None:
    site.origin.on("/stream", chunked(b"one", b"two"))
    function = FUNCTIONS[name]
    answer = site.get("/stream", *do(responseheaders=f"response.stream = {function}"))
    assert (answer.status, answer.body) == (200, b"onetwo")
    site.get("/up", *do(requestheaders=f"request.stream = {function}"), method="POST", body=b"onetwo")
    (up,) = site.origin.seen("/up")
    assert up.body == b"onetwo"
    assert site.events("script_failed", trace_id=answer.trace_id, hook="stream")


@pytest.mark.parametrize("cacheable", [True, False])
@pytest.mark.parametrize("at", ["begin", "end"])
def test_a_streams_function_that_fails_cuts_the_response_off_where_that_is_configured(
    strict: Site, at: str, *, cacheable: bool
) -> None:
    path = f"/cut/{at}/{cacheable}"
    strict.origin.on(path, reply(b"body", f"Cache-Control: {'max-age=60' if cacheable else 'no-store'}"))
    code = f"response.stream = lambda data: 1 / 0 if bool(data) == {at == 'begin'} else data"
    with strict.node.connect() as client:
        client.send(request(path, *do(responseheaders=code)))
        assert client.head().status == 200
        assert not client.rest().endswith(b"0\r\n\r\n")
    strict.unanswered()
    line = until(lambda: [line for line in strict.node.lines() if line["path"] == path])[0]
    assert (line["status"], line["error"]["type"], line["stage"]) == (200, "script_failed", "script")
    assert strict.get(path).body == b"body"


def test_a_streams_function_that_fails_refuses_the_request_where_that_is_configured(strict: Site) -> None:
    answer = strict.get("/up", *do(requestheaders="request.stream = lambda data: 1 / 0"), method="POST", body=b"up")
    assert answer.problem["code"] == "script_failed"


@pytest.mark.parametrize("hook", HOOKS)
def test_what_happens_meanwhile_a_client_that_leaves_ends_the_hook(site: Site, hook: str) -> None:
    path = f"/left/{hook}"
    code = waits(path, "try: await asyncio.Event().wait()\nfinally: logging.warning('the hook has ended')")
    with site.node.connect() as client:
        client.send(request(path, *do(**{hook: code, "error": "log['error'] = flow.error.msg"})))
        site.wait_for_hook(path)
        client.reset()
    site.unanswered()
    line = until(lambda: [line for line in site.node.lines() if line["path"] == path])[0]
    assert (line["outcome"], line["stage"], line["status"]) == ("client_abort", "script", None)
    assert "closed the connection" in line["script"]["log"]["error"]
    site.event("script_log", message="the hook has ended", trace_id=line["trace_id"])
    assert not site.events("script_failed", trace_id=line["trace_id"])


@pytest.mark.parametrize("stale", [False, True], ids=["nothing stored", "a stale response"])
@pytest.mark.parametrize("hook", ["responseheaders", "response"])
def test_what_happens_meanwhile_an_origin_that_dies_is_told_to_nobody_who_has_his_answer(
    site: Site, hook: str, *, stale: bool
) -> None:
    gate = threading.Event()
    path = f"/dies/{hook}/{stale}"

    def dies(talk: Conversation) -> None:
        talk.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\nCache-Control: no-store\r\n\r\nhalf")
        talk.wait(gate)
        talk.reset()

    if stale:
        site.origin.on(path, reply(b"stale", "Cache-Control: max-age=0, stale-if-error=60", 'ETag: "1"'))
        site.get(path)
    site.origin.on(path, dies)
    # With a response of whose end the hook is told it would be at work for long; the stale one is whole.
    code = f"""
        logging.warning('at work for {path}')
        if response.headers.get('content-length') == '10': await asyncio.sleep(60)
        log['ended'] = log.get('ended', 0) + 1
    """
    with site.node.connect() as client:
        client.send(request(path, *do(**{hook: code})))
        site.origin.wait_for(path, 1 + stale)
        if hook == "responseheaders":
            site.event("script_log", message=f"at work for {path}")
        gate.set()
        answer = site.saw(client.response())
        assert (answer.status, answer.body if stale else b"") == ((200, b"stale") if stale else (502, b""))
        assert site.ask(client, "/behind").status == 200
    assert site.logged(answer) == ({"ended": "1"} if stale else {})


def test_what_happens_meanwhile_requests_behind_a_hook_that_waits_wait_their_turn(site: Site) -> None:
    with site.node.connect() as client:
        client.send(
            request("/first", *do(request="await asyncio.sleep(0.05)"))
            + request("/second")
            + request("/third", *do(response="await asyncio.sleep(0.05)"))
            + request("/fourth")
        )
        answers = [site.saw(client.response()) for _ in range(4)]
    assert [answer.body.split()[1].decode() for answer in answers] == ["/first", "/second", "/third", "/fourth"]


def test_what_happens_meanwhile_collapsed_requests_have_their_own_hooks(site: Site) -> None:
    gate = threading.Event()
    site.origin.on("/shared", gated(gate, reply(b"shared", "Cache-Control: max-age=60")))
    codes = [
        {"response": "response.text = 'first'"},
        {"response": "await asyncio.sleep(0)\nresponse.text = 'second'"},
        {"response": "1/0"},
        {"responseheaders": "flow.response = http.Response.make(203, 'fourth')"},
        {},
    ]
    clients = [site.node.connect() for _ in codes]
    for client, code in zip(clients, codes, strict=True):
        client.send(request("/shared", *do(**code)))
    until(lambda: len(site.in_flight("/shared")) == len(codes), "all to wait")
    gate.set()
    answers = [site.saw(client.response()) for client in clients]
    assert sorted(answer.body for answer in answers) == [b"first", b"fourth", b"second", b"shared", b"shared"]
    assert len(site.origin.requests) == 1
    assert sorted(site.record(answer)["cache"] for answer in answers) == ["COLLAPSED"] * 4 + ["MISS"]
    for client in clients:
        client.close()


@pytest.mark.parametrize(
    "code",
    [
        "logging.warning('%d', 'text')",
        r"logging.warning('\udc80')",
        "logging.warning(request.headers['x-odd'])",
        "logging.warning('x', exc_info=True)",
        "ctx.log.warn(request.headers['x-odd'])",
    ],
)
def test_what_can_not_be_logged_as_it_is_harms_nobody(site: Site, code: str) -> None:
    answer = site.get("/logs", "X-Odd: \xff", *do(request=f"{code}\nlog['behind'] = 1"))
    assert site.logged(answer) == {"behind": "1"}
    assert site.event("script_log", trace_id=answer.trace_id)
