"""Each addon alone, however it is loaded, and what goes wrong with that."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.addons.mitmdump import Mitmdump, own_script
from tests.support import Origin, reply, until

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN_ID = "00f067aa0ba902b7"
PARENT = f"00-{TRACE_ID}-{SPAN_ID}-01"
KEPT = reply(b"kept", "Cache-Control: max-age=60", "traceresponse: 00-of-the-origin", "X-Own: 1")


@pytest.fixture(scope="module")
def world() -> Iterator[tuple[Origin, Mitmdump]]:
    with Origin(default=KEPT) as origin, Mitmdump(origin.url, scripts=["trace_inject"]) as mitmdump:
        yield origin, mitmdump


class TestTraceInject:
    def test_a_trace_goes_on_to_the_origin_and_back_to_the_client(self, world: tuple[Origin, Mitmdump]) -> None:
        origin, mitmdump = world
        got = mitmdump.get("/continued", f"traceparent: {PARENT}", "tracestate: a=b", "X-Trace-Id: forged")
        (seen,) = origin.seen("/continued")
        assert seen.values("traceparent") == [seen["traceparent"]]
        _, trace_id, parent_id, flags = seen["traceparent"].split("-")
        assert (trace_id, flags) == (TRACE_ID, "01")
        assert parent_id not in (SPAN_ID, got["traceresponse"].split("-")[2])
        assert (seen["tracestate"], seen["x-trace-id"]) == ("a=b", TRACE_ID)
        assert (seen["via"], seen["x-forwarded-for"], seen["host"]) == ("1.1 edgeproxy", "127.0.0.1", "edge.test")
        assert (got.trace_id, got["via"], got["x-own"]) == (TRACE_ID, "1.1 edgeproxy", "1")
        assert got.values("traceresponse") == [got["traceresponse"]]
        assert got["server-timing"].startswith("edge;dur=")

    def test_one_is_begun_where_there_is_none(self, world: tuple[Origin, Mitmdump]) -> None:
        origin, mitmdump = world
        got = mitmdump.get("/begun", "traceparent: 00-broken")
        assert origin.seen("/begun")[0]["traceparent"].split("-")[1] == got.trace_id

    def test_nothing_is_cached_and_nothing_said_of_it(self, world: tuple[Origin, Mitmdump]) -> None:
        origin, mitmdump = world
        got = [mitmdump.get("/twice") for _ in range(2)]
        assert len(origin.seen("/twice")) == 2
        assert [got[1].values(name) for name in ("cache-status", "x-cache", "age")] == [[], [], []]

    def test_a_body_reaches_the_origin(self, world: tuple[Origin, Mitmdump]) -> None:
        origin, mitmdump = world
        mitmdump.get("/upload", method="PUT", body=b"a body")
        assert origin.seen("/upload")[0].body == b"a body"

    def test_what_a_node_refuses_is_refused(self, world: tuple[Origin, Mitmdump]) -> None:
        origin, mitmdump = world
        assert mitmdump.get("/expects", "Expect: a miracle").problem["code"] == "unknown_expectation"
        assert not origin.seen("/expects")


def test_edge_cache_alone_leaves_traces_alone() -> None:
    with Origin(default=KEPT) as origin, Mitmdump(origin.url, scripts=["edge_cache"]) as mitmdump:
        got = [mitmdump.get("/kept", f"traceparent: {PARENT}", "tracestate: a=b") for _ in range(2)]
        (seen,) = origin.seen("/kept")
        assert [one["x-cache"] for one in got] == ["MISS", "HIT"]
        assert seen.values("traceparent") == [PARENT]
        assert seen.values("tracestate") == ["a=b"]
        assert seen.values("x-trace-id") == []
        assert [one.values("x-trace-id") + one.values("server-timing") for one in got] == [[], []]
        assert not mitmdump.lines()


class TestAccessLog:
    def test_alone_it_says_what_mitmproxy_did_and_changes_nothing(self) -> None:
        with Origin(default=KEPT) as origin, Mitmdump(origin.url, scripts=["access_log"]) as mitmdump:
            got = mitmdump.get("/kept?a=b", f"traceparent: {PARENT}", "User-Agent: test")
            (seen,) = origin.seen("/kept")
            assert seen.values("traceparent") == [PARENT]
            assert seen.values("via") == []
            assert got.values("x-trace-id") == []
            (line,) = mitmdump.log_lines(1)
        assert (line["trace_id"], line["parent_id"], line["node"]) == (TRACE_ID, SPAN_ID, "edge-1")
        assert (line["method"], line["path"], line["query"], line["status"]) == ("GET", "/kept", "a=b", 200)
        assert (line["bytes_out"], line["user_agent"], line["cache"]) == (4, "test", None)

    def test_it_goes_to_standard_output_by_default_and_never_to_the_nodes_own(self, origin: Origin) -> None:
        with Mitmdump(origin.url, options={"edge_access_log": ""}) as mitmdump:
            got = mitmdump.get("/kept")
            until(lambda: f'"trace_id":"{got.trace_id}"' in mitmdump.output, "the line on standard output")
            assert not (mitmdump.folder / "access.log").exists()

    def test_it_has_nginxs_format_where_the_configuration_says_so(self, origin: Origin) -> None:
        with Mitmdump(origin.url, log={"format": "nginx"}) as mitmdump:
            got = mitmdump.get("/kept")
            text = mitmdump.access_log.read_text()
        assert f" - {got.trace_id} [" in text
        assert '"GET /kept HTTP/1.1" 200 ' in text

    def test_it_follows_a_log_that_is_rotated(self, origin: Origin) -> None:
        with Mitmdump(origin.url) as mitmdump:
            mitmdump.get("/one")
            mitmdump.access_log.rename(old := mitmdump.access_log.with_suffix(".1"))
            mitmdump.access_log.touch()
            mitmdump.get("/two")
            assert old.read_text().count("\n") == 1
            assert [line["path"] for line in mitmdump.log_lines(1)] == ["/two"]


class TestWhatGoesWrong:
    def test_a_broken_configuration_is_named_and_mitmdump_ends(self, origin: Origin) -> None:
        code, said = Mitmdump(origin.url, cache={"memory_bytes": "much"}).fails()
        assert code == 1
        assert "cache.memory_bytes" in said

    def test_a_missing_one_too(self, origin: Origin, tmp_path: Path) -> None:
        code, said = Mitmdump(origin.url, options={"edge_config": str(tmp_path / "none.toml")}).fails()
        assert code == 1
        assert "there is no such file" in said

    def test_so_is_a_log_that_cannot_be_written(self, origin: Origin, tmp_path: Path) -> None:
        code, said = Mitmdump(origin.url, options={"edge_access_log": str(tmp_path / "no" / "log")}).fails()
        assert code == 1
        assert "can't be written" in said

    def test_all_and_one_of_them_are_one_too_many(self, origin: Origin) -> None:
        code, said = Mitmdump(origin.url, scripts=["all", "edge_cache"]).fails()
        assert code == 1
        assert "already exists" in said


class TestTheScriptsPaths:
    def test_by_default_that_of_the_one_that_holds_all(self) -> None:
        done = said_of_paths()
        assert done.stdout == f"{own_script('all')}\n"
        assert Path(done.stdout.strip()).is_file()

    def test_each_by_its_name(self) -> None:
        names = ["trace_inject", "edge_cache", "access_log"]
        paths = [Path(line) for line in said_of_paths(*names).stdout.splitlines()]
        assert [path.name for path in paths] == [f"{name}.py" for name in names]
        assert [str(path) for path in paths] == [own_script(name) for name in names]

    def test_another_name_is_an_error_that_names_all(self) -> None:
        done = said_of_paths("mine")
        assert done.returncode == 1
        assert "trace_inject" in done.stderr


def said_of_paths(*names: str) -> "subprocess.CompletedProcess[str]":
    """What the command says of where the scripts are."""
    command = [sys.executable, "-m", "edgeproxy.addons", *names]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
