"""Spans that scripts open with OpenTelemetry: at a real collector, under the request's, whatever becomes of a trace."""

from collections.abc import Iterator
from textwrap import dedent

import pytest

from tests.scripting.builders import DOES, Site, do
from tests.support import Client, OtlpReceiver, ReceivedSpan, Response, reply, request, until

SCRIPT = DOES
SAMPLED = "00-0af7651916cd43dd8448eb211c8031{:02x}-b7ad6b7169203331-01"
UNSAMPLED = "00-0af7651916cd43dd8448eb211c8031{:02x}-b7ad6b7169203331-00"
OPENS = 'with trace.get_tracer("mine").start_as_current_span("{}") as span: span.set_attribute("n", 1)'
NUMBERS = iter(range(256))


class Watched:
    """A node and the collector that it exports to."""

    def __init__(self, site: Site, receiver: OtlpReceiver) -> None:
        self.site = site
        self.receiver = receiver

    def get(self, path: str, *fields: str) -> Response:
        return self.site.get(path, *fields)

    def spans(self, answer: Response, mine: int = 1, *, edges: int = 3) -> dict[str, ReceivedSpan]:
        """A trace's spans by name: the script's, and the edge's own; the request's is "server"."""
        count = mine + edges
        found = self.receiver.until_trace(answer.trace_id, count)
        assert len(found) == count, [span.name for span in found]
        return {"server" if span.kind == 2 else span.name: span for span in found}


@pytest.fixture(scope="module")
def shared_watched() -> Iterator[Watched]:
    with OtlpReceiver() as receiver:
        tracing = {"exporters": "otlp", "otlp_endpoint": receiver.url, "batch": {"delay": 0.05}}
        with Site(DOES, tracing=tracing) as site:
            yield Watched(site, receiver)


@pytest.fixture
def watched(shared_watched: Watched) -> Iterator[Watched]:
    with shared_watched.site.watched():
        yield shared_watched


@pytest.mark.parametrize("hook", ["requestheaders", "request", "responseheaders", "response"])
@pytest.mark.parametrize("how", ["", "await asyncio.sleep(0)\n"], ids=["sync", "async"])
def test_a_child_is_under_the_requests_span(watched: Watched, hook: str, how: str) -> None:
    answer = watched.get("/child", *do(**{hook: how + OPENS.format("work")}))
    spans = watched.spans(answer)
    server, work = spans["server"], spans["work"]
    assert (work.parent_id, work.trace_id) == (server.span_id, answer.trace_id)
    assert (work.kind, work.attributes["n"]) == (1, 1)
    assert server.start_ns <= work.start_ns <= work.end_ns <= server.end_ns
    assert work.resource == server.resource


def test_a_child_has_children_of_its_own(watched: Watched) -> None:
    code = """
        tracer = trace.get_tracer("mine")
        with tracer.start_as_current_span("outer"):
            await asyncio.sleep(0)
            with tracer.start_as_current_span("inner") as inner:
                inner.add_event("happened", {"what": "it"})
                inner.record_exception(ValueError("on purpose"))
                inner.set_status(trace.StatusCode.ERROR, "wrong")
    """
    spans = watched.spans(watched.get("/nested", *do(request=code)), 2)
    assert spans["outer"].parent_id == spans["server"].span_id
    assert spans["inner"].parent_id == spans["outer"].span_id
    assert [name for name, _, _ in spans["inner"].events] == ["happened", "exception"]
    assert (spans["inner"].status, spans["inner"].proto.status.message) == (2, "wrong")


def test_a_child_of_a_task_that_a_hook_begins_is_under_it_too(watched: Watched) -> None:
    code = f"""
        async def later():
            {OPENS.format("later")}
        def in_thread():
            {OPENS.format("thread")}
        await asyncio.gather(later(), asyncio.to_thread(in_thread))
    """
    spans = watched.spans(watched.get("/tasks", *do(request=code)), 2)
    assert spans["later"].parent_id == spans["thread"].parent_id == spans["server"].span_id


def test_a_child_of_a_hit_is_there_too(watched: Watched) -> None:
    watched.site.origin.on("/hit", reply(b"x", "Cache-Control: max-age=60"))
    watched.get("/hit")
    spans = watched.spans(watched.get("/hit", *do(response=OPENS.format("work"))), edges=2)
    assert spans["work"].parent_id == spans["server"].span_id


def test_a_child_of_a_request_that_fails_is_there_too(watched: Watched) -> None:
    watched.site.origin.on("/fails", lambda talk: talk.reset())
    answer = watched.get("/fails", *do(request=OPENS.format("work"), error=OPENS.format("error")))
    names = {span.name for span in watched.receiver.until_trace(answer.trace_id, 4)}
    assert {"work", "error"} <= names


def test_a_child_is_in_the_record(watched: Watched) -> None:
    answer = watched.get("/record", *do(request=OPENS.format("work")))
    (span,) = watched.site.script(answer)["spans"]
    record = watched.site.record(answer)
    assert (span["name"], span["parent_id"]) == ("work", record["span_id"])


IDS = """
c = trace.get_current_span().get_span_context()
log['ids'] = f'{c.trace_id:032x}-{c.span_id:016x}-{c.trace_flags:02x}'
"""


@pytest.mark.parametrize("hook", ["requestheaders", "request", "responseheaders", "response"])
def test_the_current_span_is_the_requests_own(watched: Watched, hook: str) -> None:
    answer = watched.get("/current", *do(**{hook: IDS}))
    record = watched.site.record(answer)
    assert watched.site.logged(answer)["ids"] == f"{record['trace_id']}-{record['span_id']}-01"


def test_the_current_span_says_so_where_it_is_not_sampled(watched: Watched) -> None:
    answer = watched.get("/current", f"traceparent: {UNSAMPLED.format(next(NUMBERS))}", *do(request=IDS))
    assert watched.site.logged(answer)["ids"].endswith("-00")


def test_the_current_span_is_each_requests_own_while_they_wait(watched: Watched) -> None:
    site = watched.site
    code = "await event(request.path).wait()\n" + IDS
    with site.node.connect() as one, site.node.connect() as other:
        for client, path in ((one, "/one"), (other, "/other")):
            client.send(request(path, *do(request=code)))
        until(lambda: site.in_flight("/one") == site.in_flight("/other") == ["script"], "both to wait")
        site.get("/go", *do(request="event('/one').set(); event('/other').set()"))
        answers = [site.saw(client.response()) for client in (one, other)]
    for answer in answers:
        assert site.logged(answer)["ids"].startswith(answer.trace_id)


def test_the_current_span_is_not_there_for_the_next_request(watched: Watched) -> None:
    leaves = "from opentelemetry import context\ncontext.attach(trace.set_span_in_context(trace.INVALID_SPAN))"
    with watched.site.node.connect() as client:
        watched.site.ask(client, "/leaves", *do(request=leaves))
        answer = watched.site.ask(client, "/current", *do(request=IDS))
    assert watched.site.logged(answer)["ids"].startswith(answer.trace_id)


def test_a_trace_that_is_not_sampled_is_not_exported(watched: Watched) -> None:
    parent = UNSAMPLED.format(next(NUMBERS))
    unsampled = watched.get("/unsampled", f"traceparent: {parent}", *do(request=OPENS.format("work")))
    sampled = watched.get("/sampled", *do(request=OPENS.format("work")))
    watched.spans(sampled)
    assert not [span for span in watched.receiver.spans if span.trace_id == unsampled.trace_id]


def test_a_trace_that_is_exported_for_what_became_of_it_has_its_spans(watched: Watched) -> None:
    watched.site.origin.on("/error", reply(status="500 Oh"))
    parent = UNSAMPLED.format(next(NUMBERS))
    answer = watched.get("/error", f"traceparent: {parent}", *do(request=OPENS.format("work")))
    spans = watched.spans(answer)
    assert spans["work"].parent_id == spans["server"].span_id


def test_a_trace_of_the_clients_is_continued(watched: Watched) -> None:
    parent = SAMPLED.format(next(NUMBERS))
    answer = watched.get("/continued", f"traceparent: {parent}", *do(request=OPENS.format("work")))
    spans = watched.spans(answer)
    assert spans["server"].parent_id == "b7ad6b7169203331"
    assert spans["work"].parent_id == spans["server"].span_id


def test_a_trace_that_is_off_has_none_and_comes_back(watched: Watched) -> None:
    node = watched.site.node
    node.command("trace", "off")
    until(lambda: not node.status().workers[0].tracing, "tracing to be off")
    off = watched.get("/off", *do(request=OPENS.format("work") + "\nlog['behind'] = 1"))
    assert watched.site.logged(off) == {"behind": "1"}
    node.command("trace", "on")
    until(lambda: node.status().workers[0].tracing, "tracing to be on")
    watched.spans(watched.get("/on", *do(request=OPENS.format("work"))))
    assert not [span for span in watched.receiver.spans if span.trace_id == off.trace_id]


def test_many_are_bounded(watched: Watched) -> None:
    code = f"for n in range(100):\n  {OPENS.format('many')}"
    answer = watched.get("/many", *do(request=code))
    assert len(watched.site.script(answer)["spans"]) == 32
    names = [span.name for span in watched.receiver.until_trace(answer.trace_id, 34)]
    assert names.count("many") == 32


@pytest.mark.parametrize(
    "attribute",
    [
        r"'\udc80'",
        "2**70",
        "float('nan')",
        "float('inf')",
        "'x' * 10000",
        "['a', 'b']",
        "[1, 2]",
        "b'bytes'",
        "True",
    ],
)
def test_attributes_are_exported(watched: Watched, attribute: str) -> None:
    code = f"with trace.get_tracer('mine').start_as_current_span('odd') as s: s.set_attribute('odd', {attribute})"
    spans = watched.spans(watched.get("/odd", *do(request=code)))
    assert spans["odd"].parent_id == spans["server"].span_id


def test_names_are_exported(watched: Watched) -> None:
    code = r"trace.get_tracer('mine').start_span('\udc80' + 'x' * 1000).end()"
    answer = watched.get("/odd-name", *do(request=code))
    assert watched.spans(answer)


def test_one_that_ends_too_late_is_counted(watched: Watched) -> None:
    before = unseen(watched)
    code = """
        span = trace.get_tracer("mine").start_span("late")
        async def later():
            await event("late").wait()
            span.end()
        event("tasks").task = asyncio.create_task(later())
    """
    answer = watched.get("/late", *do(response="await asyncio.sleep(0)\n" + dedent(code)))
    watched.get("/go", *do(request="event('late').set()"))
    until(lambda: unseen(watched) == before + 1, "it to be counted")
    assert {span.name for span in watched.receiver.until_trace(answer.trace_id, 2)} & {"late"} == set()


def test_ones_that_never_end_are_forgotten(watched: Watched) -> None:
    code = "trace.get_tracer('mine').start_span('never')"
    counts = (
        "import gc\ngc.collect()\nfrom edgeproxy.scripting import spans\n"
        "log['left'] = sum(isinstance(one, spans.Opened) for one in gc.get_objects())"
    )
    for _ in range(50):
        watched.get("/never", *do(request=code))
    assert int(watched.site.logged(watched.get("/count", *do(request=counts)))["left"]) < 10


def unseen(watched: Watched) -> float:
    with Client(int(watched.site.node.admin_url.rpartition(":")[2])) as client:
        lines = client.get("/metrics").text.splitlines()
    return sum(
        float(line.rpartition(" ")[2]) for line in lines if line.startswith("edgeproxy_spans") and "unseen" in line
    )
