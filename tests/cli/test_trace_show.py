"""`edgeproxy trace show`: a trace's whole story, from the traces that a node keeps, or from an access log alone."""

import contextlib
import gzip
import json
import os
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from edgeproxy.cli.traceshow import show
from edgeproxy.export.traces import TraceStore
from tests.ledger.parts import record
from tests.support import Node, Origin, gated, reply, request, until

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u202e]")
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
OTHER = "0af7651916cd43dd8448eb211c80319c"
REQUEST = "0193b1c2-e5f3-7a4c-8e21-d4f06b9a7c13"
CAUSE = {"type": "ECONN", "message": "refused"}
REFUSED = {"type": "origin_unreachable", "message": "can't connect", "causes": [CAUSE]}
MGET = {"op": "MGET", "span_id": "b" * 16, "node": "10.0.1.1:6379", "slot": 7, "outcome": "miss", "error": ""}
SET = {"op": "SET", "span_id": "c" * 16, "node": "10.0.1.2:6379", "slot": 7, "outcome": "error", "error": "no answer"}


def attempt(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "address": f"10.0.0.{number}:8000", "span_id": f"a{number:015x}", "at_ms": 2.0, "ms": 40.0, "dns_ms": None,
        "connect_ms": 5.0, "tls_ms": None, "send_ms": 0.5, "first_byte_ms": 30.0, "transfer_ms": 4.5,
        "reused": False, "status": 200, "error": None, **changes,
    }  # fmt: skip


def line(seq: int, *, trace_id: str = TRACE, **changes: Any) -> bytes:
    """A record; its time and span id are distinct for each seq."""
    ts = f"2026-03-04T05:06:07.{seq * 1000:06d}Z"
    known = {"store": [], "attempts": [], "headers": {}, "exported": False, "head_ms": 0.0, **changes}
    return record(seq, ts=ts, trace_id=trace_id, duration_ms=50.0, **known)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "access.log"


def run(log: Path, *arguments: str) -> Result:
    return CliRunner(env={"COLUMNS": "140"}).invoke(show, ["--log", str(log), *arguments])


def told(log: Path, *arguments: str) -> dict[str, Any]:
    result = run(log, "--json", *arguments)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


# --- what is found, in a log alone


def test_the_whole_story_is_told_from_a_line_alone(log: Path) -> None:
    operations = [{**MGET, "at_ms": 0.5, "us": 900}, {**SET, "at_ms": 45.0, "us": 700}]
    failed = attempt(1, ms=6.0, status=None, error=REFUSED, send_ms=None, first_byte_ms=None, transfer_ms=None)
    log.write_bytes(line(1, trace_id=OTHER) + line(
        2, route="/shop/*", path="/shop/cart", cache="MISS", sampled=True, sampling="ratio", exported=True,
        lookup_ms=1.5, stored_at_ms=44.0, origin="shop", attempts=[failed, attempt(2, at_ms=8.0, ms=36.0)],
        store=operations, restarted_from=f"{OTHER}-{'d' * 16}", request_id=REQUEST,
    ))  # fmt: skip
    result = run(log, TRACE)
    assert result.exit_code == 0, result.output
    sections = re.split(r"\n\n", result.stdout)
    head, spans, redis, origin, links = sections
    assert f"trace {TRACE}  1 request, from the access log {log}" in head
    assert "sampled: yes (ratio), exported" in head
    assert "/shop/cart" in head
    names = [re.sub(r"^[│ ├└─]+", "", one) for one in spans.splitlines()]
    rows = [one for one in names if " ms " in one and "━" in one]
    assert [one.split("  ")[0].split(" ms")[0] for one in rows] == [
        "GET /shop/* /shop/cart 200 MISS", "cache lookup", "MGET 10.0.1.1 miss", "GET 10.0.0.1:8000",
        "GET 10.0.0.2:8000 200", "cache store", "SET 10.0.1.2 error",
    ] or spans  # fmt: skip
    assert "connected +5.00 ms" in spans
    assert "origin_unreachable: can't connect" in spans
    assert "because of ECONN: refused" in spans
    assert redis.splitlines()[2].split() == ["MGET", "10.0.1.1:6379", "7", "0.50", "900", "miss"]
    assert redis.splitlines()[3].split() == ["SET", "10.0.1.2:6379", "7", "45.00", "700", "error", "no", "answer"]
    assert [" ".join(one.split()) for one in origin.splitlines()[3:5]] == [
        "shop 10.0.0.2:8000 new 200 - 5.00 - 0.50 30.00 4.50 36.00",
        "in all 0.00 10.00 0.00 0.50 30.00 4.50 42.00",
    ]
    assert "/shop/cart: of 50.00 ms: origin 42.00, Redis 1.60, the edge itself 6.40" in origin
    assert f"restarted from edgeproxy trace show {OTHER}" in links


def test_for_programs_it_is_one_object_with_all_of_it(log: Path) -> None:
    log.write_bytes(line(1, origin="app", attempts=[attempt(1)], filled_by=f"00-{OTHER}-{'d' * 16}-01", cache="HIT"))
    story = told(log, TRACE)
    assert (story["trace_id"], story["source"], story["where"]) == (TRACE, "log", str(log))
    assert [one["path"] for one in story["requests"]] == ["/1"]
    root, fetch = story["spans"]
    assert (root["kind"], fetch["kind"], fetch["parent_id"]) == ("SERVER", "CLIENT", root["span_id"])
    assert [event["name"] for event in fetch["events"]] == ["connected", "request sent", "first byte"]
    assert story["origin"]["totals_ms"] == {
        "dns": 0, "connect": 5.0, "tls": 0, "send": 0.5, "first byte": 30.0, "transfer": 4.5, "total": 40.0,
    }  # fmt: skip
    assert story["shares"] == [{"request": root["span_id"], "origin_ms": 40.0, "redis_ms": 0.0, "own_ms": 10.0}]
    assert story["links"] == [
        {"why": "filled_by", "trace_id": OTHER, "span_id": "d" * 16, "request": root["span_id"]}
    ]  # fmt: skip


def test_requests_of_one_trace_stand_in_one_tree(log: Path) -> None:
    outer = line(1, origin="next edge", attempts=[attempt(1)])
    inner = line(3, parent_id=f"a{1:015x}", worker=1)
    log.write_bytes(inner + outer)
    spans = run(log, TRACE).stdout.split("\n\n")[1].splitlines()
    assert [one[:6] for one in spans[1:]] == ["GET /1", "└─ GET", "   │  ", "   └─ "]
    assert [one["path"] for one in told(log, TRACE)["requests"]] == ["/1", "/3"]


@pytest.mark.parametrize(
    "wanted", [pytest.param(TRACE[:8], id="8 digits"), pytest.param(TRACE.upper(), id="capitals"), REQUEST]
)
def test_a_beginning_or_the_request_id_is_enough(log: Path, wanted: str) -> None:
    log.write_bytes(line(1, trace_id=OTHER) + line(2, request_id=REQUEST) + line(3))
    story = told(log, wanted)
    assert (story["trace_id"], len(story["requests"])) == (TRACE, 2)


def test_a_beginning_that_fits_several_traces_names_them(log: Path) -> None:
    twin = TRACE[:20] + "0" * 12
    log.write_bytes(line(1) + line(2, trace_id=twin))
    result = run(log, TRACE[:8])
    assert result.exit_code == 2
    assert f"edgeproxy: {TRACE}\n" in result.stderr
    assert f"edgeproxy: {twin}\n" in result.stderr


@pytest.mark.parametrize("wanted", ["", "4bf92f3", "4bf92f3g", TRACE + "0", "-", "0193b1c2-e5f3"])
def test_what_is_no_id_exits_with_2(log: Path, wanted: str) -> None:
    log.write_bytes(line(1))
    assert run(log, "--", wanted).exit_code == 2


def test_files_that_were_rotated_away_are_searched_too(log: Path) -> None:
    log.write_bytes(line(9, trace_id=OTHER))
    for age, (name, opened, lines) in enumerate(
        [(".1", open, line(2)), (".2.gz", gzip.open, line(1)), (".3", open, line(8, trace_id=OTHER))], start=1
    ):
        path = log.with_name(f"{log.name}{name}")
        with opened(path, "wb") as file:
            file.write(lines)
        os.utime(path, (1e9 - age, 1e9 - age))
    story = told(log, TRACE)
    assert [one["path"] for one in story["requests"]] == ["/1", "/2"]
    assert story["where"] == f"{log}.1, {log}.2.gz"


def test_lines_that_are_no_records_do_no_harm(log: Path) -> None:
    needle = TRACE.encode()
    log.write_bytes(
        b"".join([b"\xff" + needle + b"\n", b"{" + needle + b"\n", b'{"path":"' + needle + b'"}\n', line(1)])
    )
    assert len(told(log, TRACE)["requests"]) == 1


def test_nothing_of_a_strangers_text_acts_on_the_terminal(log: Path) -> None:
    evil = "\x1b[31m\u202e\r\x07\x7f[red]"
    error = {"type": evil, "message": evil, "causes": [{"type": evil, "message": evil}]}
    operation = {"op": evil, "span_id": "b" * 16, "node": evil, "slot": 1, "us": 1, "outcome": evil, "error": evil}
    log.write_bytes(line(
        1, path=f"/{evil}", route=evil, method="GET", host=evil, node=evil, origin=evil, error=error, outcome="timeout",
        attempts=[attempt(1, address=evil, error=error)], store=[operation], request_id=evil, sampling=evil,
        restarted_from=f"{evil}-{'d' * 16}",
    ))  # fmt: skip
    for arguments in ((TRACE,), (TRACE, "--json")):
        result = run(log, *arguments)
        assert result.exit_code == 0, result.output
        assert not CONTROL.search(result.output)
    assert json.loads(result.stdout)["requests"][0]["node"] == evil
    assert "[red]" in run(log, TRACE).stdout


# --- the traces that are kept


@pytest.fixture
def kept(tmp_path: Path, log: Path) -> Path:
    """Where a node that does not run just now, and that logs to `log`, keeps its traces."""
    (tmp_path / "edgeproxy.toml").write_text(
        f'[node]\nruntime_dir = "{tmp_path}/run"\n[log]\naccess = "{log}"\n[tracing.store]\npath = "{tmp_path}/kept"\n'
        '[[origin]]\nname = "app"\nurls = ["http://127.0.0.1:1"]\n'
    )
    return tmp_path / "kept"


def keep(folder: Path, *lines: bytes) -> None:
    # One process opens a store once.
    with contextlib.closing(TraceStore.open(folder, readonly=False, size_bytes=2**20)) as store:
        store.add([bytes.fromhex(json.loads(one)["trace_id"]) + one for one in lines])


def from_kept(log: Path, *arguments: str) -> Result:
    return CliRunner().invoke(show, ["-c", str(log.parent / "edgeproxy.toml"), *arguments])


@pytest.mark.parametrize("wanted", [TRACE, TRACE[:8], TRACE[:9].upper(), REQUEST])
def test_what_is_kept_goes_before_the_log(kept: Path, log: Path, wanted: str) -> None:
    keep(kept, line(1, trace_id=OTHER), line(3, request_id=REQUEST), line(2), line(4, trace_id="5" * 32))
    log.write_bytes(line(2))
    story = json.loads(from_kept(log, "--json", wanted).stdout)
    assert (story["source"], story["where"]) == ("store", f"{log.parent}/kept")
    assert [one["path"] for one in story["requests"]] == ["/2", "/3"]


def test_what_is_not_kept_yet_is_added_from_the_end_of_the_log(kept: Path, log: Path) -> None:
    keep(kept, line(1))
    log.write_bytes(line(1) + line(2, trace_id=OTHER) + line(3))
    story = json.loads(from_kept(log, "--json", TRACE).stdout)
    assert [one["path"] for one in story["requests"]] == ["/1", "/3"]
    assert (story["source"], story["where"]) == ("store", f"{kept}, the latest from {log}")


def test_what_is_not_kept_is_looked_for_in_the_log(kept: Path, log: Path) -> None:
    keep(kept, line(1, trace_id=OTHER), line(2, trace_id=TRACE[:8] + "0" * 24))
    log.write_bytes(line(9))
    assert json.loads(from_kept(log, "--json", TRACE).stdout)["source"] == "log"
    said = nothing(from_kept(log, "6" * 32))
    assert said[:2] == [f"{log.parent}/kept has no trace of it", f"{log} has no line of it"]


def test_a_beginning_that_fits_several_kept_traces_names_them(kept: Path, log: Path) -> None:
    twin = TRACE[:9] + "0" * 23
    keep(kept, line(1), line(2, trace_id=twin))
    assert f"edgeproxy: {twin}\nedgeproxy: {TRACE}\n" in from_kept(log, TRACE[:9]).stderr
    assert from_kept(log, TRACE[:10]).exit_code == 0


def test_a_beginning_that_fits_others_that_are_not_kept_names_them_too(kept: Path, log: Path) -> None:
    twin = TRACE[:9] + "0" * 23
    keep(kept, line(1))
    log.write_bytes(line(1) + line(2, trace_id=twin))
    assert f"edgeproxy: {twin}\nedgeproxy: {TRACE}\n" in from_kept(log, TRACE[:9]).stderr
    assert from_kept(log, TRACE[:10]).exit_code == 0


def test_traces_that_cant_be_read_are_said_and_the_log_is_used(kept: Path, log: Path) -> None:
    keep(kept, line(1))
    (kept / "data.mdb").write_bytes(b"nonsense" * 1000)
    log.write_bytes(line(9))
    assert json.loads(from_kept(log, "--json", TRACE).stdout)["source"] == "log"
    assert any("can't be opened" in one for one in nothing(from_kept(log, OTHER)))


# --- with a node


@pytest.fixture(scope="module")
def site() -> Iterator[Origin]:
    with Origin() as origin:
        yield origin


@pytest.fixture(scope="module")
def edge(site: Origin) -> Iterator[Node]:
    with Node(site.url, tracing={"batch": {"delay": 0.05}}) as node:
        yield node


def asked(node: Node, path: str, *fields: str) -> str:
    """Ask the node, and wait for its record; the trace's id."""
    with node.connect() as client:
        trace_id = client.get(path, *fields).trace_id
    node.record(trace_id)
    return trace_id


def shown(node: Node, *arguments: str) -> Result:
    return CliRunner(env={"COLUMNS": "140"}).invoke(show, ["-c", str(node.config_file), *arguments])


def test_a_hit_leads_to_the_trace_that_filled_the_cache(edge: Node, site: Origin) -> None:
    site.on("/page", reply(b"page", "Cache-Control: max-age=600"))
    miss, hit = asked(edge, "/page"), asked(edge, "/page")
    told = shown(edge, hit).stdout
    assert f"filled by      edgeproxy trace show {miss}" in told
    assert "the origin was not asked" in told
    (attempt_line,) = [one for one in shown(edge, miss).stdout.splitlines() if one.startswith("app ")]
    assert f"127.0.0.1:{site.port}" in attempt_line


def test_a_trace_that_the_node_keeps_is_told_without_its_log(edge: Node) -> None:
    trace_id = asked(edge, "/kept")

    def told() -> dict[str, Any] | None:
        result = shown(edge, "--json", trace_id)
        story = json.loads(result.stdout) if result.exit_code == 0 else {}
        return story if story.get("source") == "store" else None

    story = until(told, "the trace to be kept")
    assert story["requests"] == [edge.record(trace_id)]
    assert story["where"].endswith("/traces")


def test_a_client_that_goes_on_with_its_trace_has_all_requests_in_one_story(edge: Node) -> None:
    trace_id = "e" * 31 + "1"
    for number in (1, 2):
        asked(edge, f"/step/{number}", f"traceparent: 00-{trace_id}-{'f' * 16}-01")
    until(lambda: len([one for one in edge.lines() if one["trace_id"] == trace_id]) == 2, "both lines")
    story = json.loads(shown(edge, "--json", trace_id).stdout)
    assert [one["path"] for one in story["requests"]] == ["/step/1", "/step/2"]
    assert [span["parent_id"] for span in story["spans"] if span["kind"] == "SERVER"] == ["f" * 16] * 2


def test_a_request_under_way_is_said_to_be(edge: Node, site: Origin) -> None:
    gate = threading.Event()
    site.on("/slow", gated(gate, reply()))
    trace_id = "e" * 31 + "2"
    with edge.connect() as client:
        client.send(request("/slow", f"traceparent: 00-{trace_id}-{'f' * 16}-01"))
        site.wait_for("/slow")
        result = shown(edge, trace_id)
        gate.set()
        client.response()
    assert result.exit_code == 1
    assert re.search(r"GET edge.test/slow is under way in worker 0: request_sent, since \d", result.stderr)
    edge.record(trace_id)
    assert shown(edge, trace_id).exit_code == 0


def test_a_trace_that_the_node_does_not_know_says_what_it_samples(edge: Node) -> None:
    said = nothing(shown(edge, OTHER))
    assert f"{edge.access_log} has no line of it" in said
    assert any("(parentbased_traceidratio, ratio 1)" in one for one in said)


# --- what is not


def nothing(result: Result) -> list[str]:
    assert result.exit_code == 1
    assert result.stdout == ""
    first, *rest = (one.removeprefix("edgeproxy: ") for one in result.stderr.splitlines())
    assert first.startswith("nothing is known of ")
    return rest


def test_what_is_in_no_file_says_where_it_was_looked_for_and_how_far_back(log: Path) -> None:
    log.write_bytes(line(1, trace_id=OTHER))
    log.with_name("access.log.1").write_bytes(line(2, trace_id=OTHER))
    said = nothing(run(log, TRACE))
    assert {f"{log} has no line of it", f"{log}.1 has no line of it"} <= set(said)
    assert "the log goes back to 2026-03-04T05:06:07Z" in said


def test_an_id_that_tells_its_time_is_compared_with_the_log(log: Path) -> None:
    log.write_bytes(line(1, trace_id=OTHER))
    old = f"{1_700_000_000_000:012x}7{'1' * 19}"
    said = nothing(run(log, old))
    assert "if edgeproxy minted this id, that was at 2023-11-14T22:13:20Z" in said
    assert "the log goes back to 2026-03-04T05:06:07Z only: name an older file with --log" in said
    young = f"{int(time.time() * 1000):012x}7{'1' * 19}"
    assert "the log goes back to 2026-03-04T05:06:07Z" in nothing(run(log, young))


def test_a_log_that_cant_be_read_is_named(log: Path) -> None:
    assert f"{log} can't be read: No such file or directory" in nothing(run(log, TRACE))
    log.write_bytes(b"")
    log.with_name("access.log.1.gz").write_bytes(gzip.compress(line(1))[:30])
    assert any("access.log.1.gz can't be read: " in one for one in nothing(run(log, TRACE)))


@pytest.mark.parametrize(
    ("table", "words"),
    [('access = "-"', "standard output"), ('access = "access.log"\nformat = "nginx"', "Nginx's format")],
)
def test_a_log_that_tells_nothing_is_said(tmp_path: Path, table: str, words: str) -> None:
    file = tmp_path / "edgeproxy.toml"
    file.write_text(
        f'[node]\nruntime_dir = "{tmp_path}/run"\n[log]\n{table}\n'
        '[[origin]]\nname = "app"\nurls = ["http://127.0.0.1:1"]\n'
    )  # fmt: skip
    result = CliRunner().invoke(show, ["-c", str(file), TRACE])
    assert any(words in one for one in nothing(result))
