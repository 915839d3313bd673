"""Hooks on a real node: which are called, in which order, with what, and what they may decide at once."""

import itertools
import threading

import pytest

from tests.scripting.builders import Site
from tests.support import Conversation, chunked, gated, reply, request, until

SCRIPT = '''
    import asyncio
    import logging

    from mitmproxy import ctx, http

    edge_filter = "~u /module"
    ALL = ("requestheaders", "request", "responseheaders", "response", "error")


    def note(flow, word):
        log = flow.metadata["edge"]["log"]
        log["order"] = f"{log.get('order', '')} {word}".strip()


    class Sync:
        edge_filter = "~u /order"

        def requestheaders(self, flow): note(flow, f"requestheaders:{flow.request.raw_content}:{flow.response}")
        def request(self, flow): note(flow, f"request:{len(flow.request.content)}")
        def responseheaders(self, flow): note(flow, f"responseheaders:{flow.response.raw_content}")
        def response(self, flow): note(flow, f"response:{len(flow.response.content)}")
        def error(self, flow): note(flow, "error")


    class Async:
        edge_filter = "~u /order/async"

        async def requestheaders(self, flow):
            await asyncio.sleep(0)
            note(flow, "async")

        request = responseheaders = response = requestheaders


    class Inner:
        edge_filter = "~u /nested"

        def __init__(self, word):
            self.word = word

        def request(self, flow): note(flow, self.word)


    class Outer(Inner):
        def __init__(self, word, *addons):
            super().__init__(word)
            self.addons = addons


    class Answers:
        """Sets the response in the hook that the query names."""

        edge_filter = "~u /answer"

        def answer(self, hook, flow):
            note(flow, hook)
            if flow.request.query.get("in") == hook:
                flow.response = http.Response.make(
                    int(flow.request.query.get("status", 203)), flow.request.query.get("body", "mine"), {"X-From": hook}
                )

        def requestheaders(self, flow): self.answer("requestheaders", flow)
        async def request(self, flow): self.answer("request", flow)
        def responseheaders(self, flow): self.answer("responseheaders", flow)
        async def response(self, flow): self.answer("response", flow)


    class Kills:
        """Kills the flow in the hook that the query names."""

        edge_filter = "~u /kill"

        def __getattr__(self, name):
            if name not in ALL:
                raise AttributeError(name)

            def hook(flow):
                note(flow, name)
                if flow.request.query.get("in") == name:
                    flow.kill()

            async def later(flow):
                await asyncio.sleep(0)
                hook(flow)

            return lambda flow: later(flow) if "async" in flow.request.query else hook(flow)


    class Halts:
        edge_filter = "~u /halt"

        def request(self, flow):
            from mitmproxy.exceptions import AddonHalt
            note(flow, "first")
            raise AddonHalt


    class BehindTheHalt:
        edge_filter = "~u /halt"

        def request(self, flow): note(flow, "second")


    class Stops:
        """Stops a flow, and has it go on when another request comes."""

        edge_filter = "~u /stop"
        waiting = None

        def request(self, flow):
            if flow.request.path == "/stop":
                flow.intercept()
                self.waiting = flow
            elif self.waiting is not None:
                self.waiting.resume()


    class Remembers:
        edge_filter = "~u /metadata"

        def requestheaders(self, flow): flow.metadata["mine"] = [flow.request.path]
        def response(self, flow): note(flow, f"{flow.metadata['mine']} {flow.client_conn.peername[0]}")


    addons = [
        Sync(), Async(), Outer("outer", Inner("inner"), Outer("middle", Inner("innermost"))), Answers(), Kills(),
        Halts(), BehindTheHalt(), Stops(), Remembers(),
    ]


    def request(flow):
        if flow.request.path.startswith("/module"):
            note(flow, "module")
            logging.warning("at %s", flow.request.path)
            ctx.log.info("the older way")
'''


def test_their_order_is_that_of_the_request_and_its_response(site: Site) -> None:
    site.origin.on("/order", reply(b"12345"))
    order = site.logged(site.get("/order", method="POST", body=b"abc"))["order"]
    assert order == "requestheaders:None:None request:3 responseheaders:None response:5"


def test_their_order_is_that_of_the_addons_whether_they_wait_or_not(site: Site) -> None:
    order = site.logged(site.get("/order/async"))["order"].split()
    assert [word.partition(":")[0] for word in order] == [
        *("requestheaders", "async", "request", "async", "responseheaders", "async", "response", "async")
    ]


def test_their_order_goes_from_the_outer_addon_to_those_within(site: Site) -> None:
    assert site.logged(site.get("/nested"))["order"] == "outer inner middle innermost"


def test_their_order_ends_where_a_hook_halts_it(site: Site) -> None:
    assert site.logged(site.get("/halt"))["order"] == "first"


def test_their_order_has_the_modules_own_hooks_before_those_of_its_addons(site: Site) -> None:
    assert site.logged(site.get("/module/order"))["order"].split(":")[0] == "requestheaders"
    assert site.logged(site.get("/module"))["order"] == "module"


def test_their_order_begins_anew_with_each_request_of_a_connection(site: Site) -> None:
    with site.node.connect() as client:
        orders = [site.logged(site.ask(client, "/nested"))["order"] for _ in range(3)]
    assert set(orders) == {"outer inner middle innermost"}


def test_their_order_is_the_same_where_requests_are_pipelined(site: Site) -> None:
    paths = ["/order", "/plain", "/order/async", "/answer?in=request", "/plain", "/nested", "/answer?in=response"]
    with site.node.connect() as client:
        client.send(b"".join(request(path) for path in paths))
        answers = [site.saw(client.response()) for _ in paths]
    assert [answer.status for answer in answers] == [200, 200, 200, 203, 200, 200, 203]
    assert site.record(answers[1])["script"] is None


@pytest.mark.parametrize("hook", ["requestheaders", "request"])
def test_an_answer_of_their_own_goes_out_without_the_origin(site: Site, hook: str) -> None:
    answer = site.get(f"/answer?in={hook}")
    assert (answer.status, answer.body, answer["x-from"]) == (203, b"mine", hook)
    assert not site.origin.requests
    record = site.record(answer)
    assert (record["cache"], record["origin"], record["outcome"], record["stage"]) == (None, None, "ok", "done")


def test_an_answer_of_their_own_is_seen_by_all_hooks_that_come(site: Site) -> None:
    order = "requestheaders request responseheaders response"
    for hook in ("requestheaders", "request"):
        assert site.logged(site.get(f"/answer?in={hook}"))["order"] == order


@pytest.mark.parametrize("hook", ["responseheaders", "response"])
def test_an_answer_of_their_own_takes_the_place_of_the_origins(site: Site, hook: str) -> None:
    site.origin.on("/answer", reply(b"the origin's", "Cache-Control: max-age=60", "X-Origin: 1"))
    answers = [site.get(f"/answer?in={hook}") for _ in range(2)]
    assert [(answer.status, answer.body, answer["x-from"]) for answer in answers] == [(203, b"mine", hook)] * 2
    assert [answer.get("x-origin") for answer in answers] == [None, None]
    assert [site.record(answer)["cache"] for answer in answers] == ["MISS", "HIT"]  # what is stored is the origin's
    assert len(site.origin.requests) == 1


@pytest.mark.parametrize("hook", ["requestheaders", "request", "responseheaders", "response"])
def test_an_answer_of_their_own_has_no_body_for_head(site: Site, hook: str) -> None:
    with site.node.connect() as client:
        answer = site.ask(client, f"/answer?in={hook}", method="HEAD")
        assert (answer.status, answer["content-length"], answer.body) == (203, "4", b"")
        assert site.ask(client, "/plain").status == 200  # and the connection is in step


@pytest.mark.parametrize("status", [204, 304])
def test_an_answer_of_their_own_has_no_body_where_its_status_has_none(site: Site, status: int) -> None:
    with site.node.connect() as client:
        answer = site.ask(client, f"/answer?in=request&status={status}")
        assert (answer.status, answer.get("content-length"), answer.get("transfer-encoding")) == (
            status,
            None,
            None,
        )
        assert site.ask(client, "/plain").status == 200


def test_an_answer_of_their_own_names_its_trace(site: Site) -> None:
    answer = site.get("/answer?in=request")
    assert answer["traceresponse"].split("-")[1] == answer.trace_id
    assert answer["date"]


def test_an_answer_of_their_own_goes_out_while_the_requests_body_is_still_on_its_way(site: Site) -> None:
    with site.node.connect() as client:
        client.send(b"POST /answer?in=requestheaders HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nhalf")
        answer = site.saw(client.response())
        assert (answer.status, answer["connection"]) == (203, "close")
        assert client.is_ended()
    assert not site.origin.requests


def test_an_answer_of_their_own_is_given_before_the_client_is_told_to_go_on(site: Site) -> None:
    with site.node.connect() as client:
        client.send(
            b"POST /answer?in=requestheaders HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n"
        )
        answer = site.saw(client.response())
    assert (answer.status, answer.interim) == (203, [])


def test_an_answer_of_their_own_keeps_the_connection_where_the_body_was_here_already(site: Site) -> None:
    with site.node.connect() as client:
        first = site.ask(client, "/answer?in=request", method="POST", body=b"whole")
        assert first.get("connection") is None
        assert site.ask(client, "/plain").status == 200


def test_an_answer_of_their_own_is_framed_for_old_clients(site: Site) -> None:
    with site.node.connect() as client:
        client.send(b"GET /answer?in=request HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        answer = site.saw(client.response())
        assert (answer["content-length"], answer["connection"]) == ("4", "keep-alive")
        client.send(b"GET /answer?in=request HTTP/1.0\r\n\r\n")
        assert site.saw(client.response())["connection"] == "close"
        assert client.is_ended()


def test_an_answer_of_their_own_in_place_of_one_whose_end_has_not_come_is_the_only_one(site: Site) -> None:
    """The origin breaks off behind the head that a hook has replaced: nothing more is sent for this request."""
    gate = threading.Event()

    def breaks_off(talk: Conversation) -> None:
        talk.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        talk.wait(gate)
        talk.reset()

    site.origin.on("/answer/broken", breaks_off)
    site.origin.on("/slow", gated(gate, reply(b"slow")))
    with site.node.connect() as client:
        assert site.ask(client, "/answer/broken?in=responseheaders").body == b"mine"
        client.send(request("/slow"))
        site.origin.wait_for("/slow")
        gate.set()
        assert site.saw(client.response()).body == b"slow"
        assert site.ask(client, "/plain").status == 200


@pytest.mark.parametrize("hook", ["requestheaders", "request", "responseheaders", "response"])
def test_a_killed_flow_gets_no_answer_and_one_line(site: Site, hook: str) -> None:
    for kind, how in itertools.product(("miss", "hit", "chunked", "upload"), ("", "&async=1")):
        path = f"/kill/{hook}/{kind}{how[1:2]}"
        site.origin.on(path, chunked(b"no", b"thing", fields=["Cache-Control: max-age=60"]))
        if kind == "hit":
            site.get(path)
        with site.node.connect() as client:
            upload = {"method": "POST", "body": b"x"} if kind == "upload" else {}
            client.send(request(f"{path}?in={hook}{how}", **upload))
            assert client.rest() == b"", (kind, how)
        site.unanswered()
        found = until(lambda path=path: [line for line in site.node.lines() if line["path"] == path and line["query"]])
        said = [(line["status"], line["bytes_out"], line["outcome"], line["stage"]) for line in found]
        assert said == [(None, 0, "refused", "script")], (kind, how)
        assert found[0]["error"]["type"] == "script_killed"
        if not how:
            assert found[0]["script"]["log"]["order"].split()[-2:] == [hook, "error"]


def test_a_killed_flow_takes_those_along_that_wait_behind_it(site: Site) -> None:
    with site.node.connect() as client:
        client.send(request("/kill?in=request&async=1") + request("/plain") + request("/nested"))
        assert client.rest() == b""
    site.unanswered(3)


def test_a_stopped_flow_goes_on_when_it_is_told_to(site: Site) -> None:
    with site.node.connect() as client:
        client.send(request("/stop"))
        until(lambda: site.in_flight("/stop") == ["script"], "it to stop")
        assert not site.origin.requests
        site.get("/stop/go")
        assert site.saw(client.response()).status == 200


def test_a_stopped_flow_ends_when_its_client_leaves(site: Site) -> None:
    with site.node.connect() as client:
        client.send(request("/stop"))
        until(lambda: site.in_flight("/stop") == ["script"], "it to stop")
        client.reset()
    site.unanswered()
    until(lambda: not site.in_flight("/stop"), "it to end")
    assert not site.origin.requests


def test_a_flow_carries_what_scripts_note_on_it(site: Site) -> None:
    assert site.logged(site.get("/metadata"))["order"] == "['/metadata'] 127.0.0.1"


def test_what_scripts_log_has_the_trace_id(site: Site) -> None:
    answer = site.get("/module/logs")
    found = site.event("script_log", message="at /module/logs")
    assert (found["trace_id"], found["level"]) == (answer.trace_id, "warning")
    assert site.events("script_log", message="the older way", trace_id=answer.trace_id)


def test_a_request_that_no_script_wants_is_no_flow(site: Site) -> None:
    before = site.counters()["flows"]
    answers = [site.get("/plain") for _ in range(3)]
    assert [site.record(answer)["script"] for answer in answers] == [None] * 3
    assert site.counters()["flows"] == before
