"""Operators' scripts beside the addons, in stock mitmdump: the same `flow.metadata["edge"]`, the same place on the
way.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.addons.mitmdump import Mitmdump
from tests.support import Broken, Origin, reply

KEPT = reply(b"kept", "Cache-Control: max-age=60")
SCRIPT = """
import asyncio, json
from mitmproxy import http

def requestheaders(flow):
    if "x-early" in flow.request.headers:
        flow.request.headers["x-seen-by"] = flow.metadata["edge"]["trace_id"]

async def request(flow):
    edge = flow.metadata["edge"]
    await asyncio.sleep(0)
    match flow.request.path.split("?")[0].split("/")[1:]:
        case ["key", *_]:
            edge["key"] = {"class": flow.request.headers.get("x-class", "")}
        case ["ttl", *_]:
            edge["ttl"] = 100
        case ["status-ttl", *_]:
            edge["ttl"] = {404: 30}
        case ["bypass", *_]:
            edge["bypass"] = True
        case ["tags", *_]:
            edge["tags"] = ["one", "two"]
        case ["rewritten", *_]:
            flow.request.path = "/kept?rewritten"
        case ["own", *_]:
            flow.response = http.Response.make(418, b"own", {"X-Trace-Id": "mine"})
        case ["killed", *_]:
            flow.kill()
        case ["elsewhere", port]:
            flow.request.host, flow.request.port = "127.0.0.1", int(port)
        case ["unusable", *_]:
            edge["key"]["class"] = 1
        case ["body", *_]:
            flow.request.content = b"another body"
    edge["log"] = {"seen": flow.request.pretty_host}

def response(flow):
    edge = flow.metadata["edge"]
    flow.response.headers["X-Told"] = json.dumps(
        {key: edge[key] for key in ("cache", "age", "ttl_left", "origin", "trace_id", "client", "node")}
    )
    if flow.request.path == "/changed":
        flow.response.content = flow.response.content + b" and more"
    if flow.request.path == "/too-late":
        try:
            edge["ttl"] = 5
        except ValueError as error:
            flow.response.headers["X-Error"] = str(error)
    if flow.request.path == "/replaced":
        flow.response = http.Response.make(200, b"replaced")
"""


World = tuple[Origin, Mitmdump]


@pytest.fixture(scope="module", params=["before", "behind"])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A script before the package's own, or behind it: that makes no difference."""
    script = tmp_path_factory.mktemp("scripts") / "mine.py"
    script.write_text(SCRIPT)
    order: list[str | Path] = [script, "all"] if request.param == "before" else ["all", script]
    with Origin(default=KEPT) as origin, Mitmdump(origin.url, scripts=order) as mitmdump:
        yield origin, mitmdump


def test_it_finds_what_it_is_told_of_each_response(world: World) -> None:
    _, mitmdump = world
    first, second = (mitmdump.get("/told") for _ in range(2))
    told = [json.loads(one["x-told"]) for one in (first, second)]
    assert [one["cache"] for one in told] == ["MISS", "HIT"]
    assert [one["origin"] for one in told] == ["app", None]
    assert told[1]["age"] in range(2)
    assert told[1]["ttl_left"] in range(58, 61)
    assert [one["trace_id"] for one in told] == [first.trace_id, second.trace_id]
    assert {(one["client"], one["node"]) for one in told} == {("127.0.0.1", "edge-1")}


def test_it_adds_parts_to_the_key(world: World) -> None:
    _, mitmdump = world
    words = [mitmdump.get("/key", f"X-Class: {one}")["x-cache"] for one in ("a", "b", "a", "b")]
    assert words == ["MISS", "MISS", "HIT", "HIT"]


def test_it_says_how_long_a_response_is_fresh(world: World) -> None:
    origin, mitmdump = world
    origin.on("/ttl", reply(b"x", "Cache-Control: max-age=5"))
    mitmdump.get("/ttl")
    assert "; hit; ttl=" in (said := mitmdump.get("/ttl")["cache-status"])
    assert int(said.split("ttl=")[1]) > 90


def test_it_says_so_by_status(world: World) -> None:
    origin, mitmdump = world
    origin.on("/status-ttl", reply(b"x", status="404 Not Found"))
    assert [mitmdump.get("/status-ttl")["x-cache"] for _ in range(2)] == ["MISS", "HIT"]


def test_it_has_requests_pass_the_cache_by(world: World) -> None:
    _, mitmdump = world
    assert {mitmdump.get("/bypass")["x-cache"] for _ in range(2)} == {"BYPASS"}


def test_what_it_rewrites_is_another_resource(world: World) -> None:
    origin, mitmdump = world
    mitmdump.get("/rewritten/a")
    assert mitmdump.get("/rewritten/b")["x-cache"] == "HIT"
    assert [one.target for one in origin.seen("/kept")] == ["/kept?rewritten"]
    (line,) = mitmdump.lines_of("/rewritten/a")
    assert line["script"]["rewritten"] == "http://edge.test/kept?rewritten"


def test_it_answers_itself_and_the_client_can_still_name_the_trace(world: World) -> None:
    origin, mitmdump = world
    got = mitmdump.get("/own")
    assert (got.status, got.body) == (418, b"own")
    assert got.values("x-trace-id") == ["mine"], "what it says itself stays"
    assert "cache-status" not in {name.lower() for name, _ in got.fields}
    (line,) = mitmdump.lines_of("/own")
    assert got["traceresponse"].split("-")[1] == line["trace_id"]
    assert (line["status"], line["cache"], line["outcome"]) == (418, None, "ok")
    assert not origin.seen("/own")


def test_a_request_that_it_kills_gets_no_answer_and_a_line(world: World) -> None:
    _, mitmdump = world
    with pytest.raises(Broken):
        mitmdump.get("/killed")
    (line,) = mitmdump.lines_of("/killed")
    assert (line["status"], line["outcome"], line["error"]["type"]) == (None, "refused", "script_killed")


def test_it_sends_requests_to_another_server_whose_answer_is_another_one(world: World) -> None:
    _, mitmdump = world
    with Origin(default=reply(b"elsewhere", "Cache-Control: max-age=60")) as other:
        path = f"/elsewhere/{other.port}"
        got = [mitmdump.get(path) for _ in range(2)]
        assert [(one.body, one["x-cache"]) for one in got] == [(b"elsewhere", "MISS"), (b"elsewhere", "HIT")]
        assert mitmdump.lines_of(path, 2)[0]["origin"] == other.url


def test_what_it_does_to_a_response_is_not_stored(world: World) -> None:
    _, mitmdump = world
    got = [mitmdump.get("/changed") for _ in range(2)]
    assert [one.body for one in got] == [b"kept and more"] * 2
    assert got[1]["x-cache"] == "HIT"


def test_it_puts_a_response_in_the_place_of_another(world: World) -> None:
    _, mitmdump = world
    got = mitmdump.get("/replaced")
    assert got.body == b"replaced"
    (line,) = mitmdump.lines_of("/replaced")
    assert (got.trace_id, line["bytes_out"]) == (line["trace_id"], len(b"replaced"))


def test_it_changes_a_body_on_its_way_to_the_origin(world: World) -> None:
    origin, mitmdump = world
    mitmdump.get("/body", method="POST", body=b"a body")
    (seen,) = origin.seen("/body")
    assert (seen.body, seen["content-length"]) == (b"another body", "12")


def test_after_the_look_up_nothing_can_be_decided(world: World) -> None:
    _, mitmdump = world
    assert "too late" in mitmdump.get("/too-late")["x-error"]


def test_what_it_logs_is_in_the_line(world: World) -> None:
    _, mitmdump = world
    mitmdump.get("/logged")
    (line,) = mitmdump.lines_of("/logged")
    assert line["script"] == {"names": ["mine.py"], "rewritten": None, "log": {"seen": "edge.test"}, "spans": []}


def test_what_it_decides_wrongly_does_not_count_and_is_said(world: World) -> None:
    _, mitmdump = world
    assert mitmdump.get("/unusable").status == 200
    assert "what scripts decided does not count" in mitmdump.output


def test_it_finds_the_trace_at_once_where_the_addons_stand_before_it(tmp_path: Path) -> None:
    script = tmp_path / "mine.py"
    script.write_text(SCRIPT)
    with Origin() as origin, Mitmdump(origin.url, scripts=["trace_inject", script, "edge_cache"]) as mitmdump:
        got = mitmdump.get("/early", "X-Early: 1")
        assert origin.seen("/early")[0]["x-seen-by"] == got.trace_id
