"""`edgeproxy keytrace`: what a trace did in Redis and who touched a URL, from the log, from the trail, from both."""

import gzip
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import pytest
from click.testing import CliRunner, Result

from edgeproxy.cache.redis.layout import Names
from edgeproxy.cli.keytrace import keytrace
from tests.ledger.parts import record
from tests.support import Node, Origin, RedisServers
from tests.support.node import COMMAND
from tests.support.origin import reply
from tests.support.wait import until

READY = "redis: the purge rules are known"
CACHED = "Cache-Control: max-age=600"
NAMES = Names("keytrace")
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u202e]")
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
type Found = list[dict[str, Any]]

# --- with nodes that share a cluster


@pytest.fixture(scope="module")
def site() -> Iterator[Origin]:
    with Origin() as origin:
        yield origin


@pytest.fixture(scope="module")
def edges(site: Origin, shared_redis_cluster: RedisServers) -> Iterator[tuple[Node, Node]]:
    """Two nodes over one cluster."""

    def started(name: str, **redis: Any) -> Node:
        table = {"nodes": shared_redis_cluster.addresses, "prefix": "keytrace", **redis}
        cache = {"store": "redis", "memory_bytes": 0, "redis": table}
        route = '[[route]]\nmatch = "/*"\norigin = "app"\n[route.cache]\nquery_sort = true\n'
        return Node(site.url, node={"name": name}, cache=cache, toml=route, default_route=False)

    with started("edge-1", trail_ratio=1.0) as first, started("edge-2", trail_ratio=0.0) as second:
        for node in (first, second):
            until(lambda node=node: READY in node.stderr, "the node to use Redis")
        yield first, second


def ask(node: Node, path: str, *fields: str) -> str:
    """Ask the node, and wait for its record; the trace's id."""
    with node.connect() as client:
        trace_id = client.get(path, *fields).trace_id
    node.record(trace_id)
    return trace_id


def in_trail(cluster: RedisServers, *traces: str) -> None:
    """Wait until the trail has these traces."""
    client = cluster.cluster_client()

    def there() -> bool:
        entries = client.xrevrange(NAMES.trail, count=1000)
        return set(traces) <= {fields[b"trace_id"].decode() for _, fields in entries}

    until(there, "the trail")


def shown(node: Node, *arguments: str, exit_code: int = 0) -> tuple[Found, Found, str]:
    """The operations, what is stored, and standard error."""
    done = node.command("keytrace", "--json", *arguments, check=False)
    assert done.returncode == exit_code, done
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    kinds = {kind: [one for one in lines if one["type"] == kind] for kind in ("operation", "stored")}
    return kinds["operation"], kinds["stored"], done.stderr


def test_a_trace_shows_its_operations_once_each_though_log_and_trail_both_know_them(
    edges: tuple[Node, Node], site: Origin, shared_redis_cluster: RedisServers
) -> None:
    node, _ = edges
    site.on("/once", reply(b"page", CACHED))
    trace_id = ask(node, "/once?b=2&a=1")
    in_trail(shared_redis_cluster, trace_id)
    operations, stored, stderr = shown(node, "--trace-id", trace_id.upper())
    assert [one["span_id"] for one in operations] == [one["span_id"] for one in node.record(trace_id)["store"]]
    assert [(one["op"], one["outcome"], one["source"]) for one in operations] == [
        ("MGET", "miss", "both"),
        ("SET", "ok", "both"),
    ]
    assert operations[0]["time"] <= operations[1]["time"]
    where = shared_redis_cluster.node_of(NAMES.url(b"http://edge.test/once?a=1&b=2"))
    for one, noted in zip(operations, node.record(trace_id)["store"], strict=True):
        assert (one["edge_node"], one["url"]) == ("edge-1", "http://edge.test/once?a=1&b=2")
        assert (one["redis_node"], one["slot"], one["us"]) == (where.address, noted["slot"], noted["us"])
    assert (stored, stderr) == ([], "")


def test_any_node_shows_what_another_one_noted_in_the_trail(
    edges: tuple[Node, Node], site: Origin, shared_redis_cluster: RedisServers
) -> None:
    first, second = edges
    site.on("/other", reply(b"page", CACHED))
    trace_id = ask(first, "/other")
    in_trail(shared_redis_cluster, trace_id)
    operations, _, _ = shown(second, "--trace-id", trace_id)
    assert [(one["op"], one["edge_node"], one["source"]) for one in operations] == [
        ("MGET", "edge-1", "trail"),
        ("SET", "edge-1", "trail"),
    ]


def test_a_node_shows_from_its_log_what_the_trail_has_not(edges: tuple[Node, Node], site: Origin) -> None:
    _, second = edges
    site.on("/unnoted", reply(b"page", CACHED))
    trace_id = ask(second, "/unnoted")
    operations, _, _ = shown(second, "--trace-id", trace_id)
    assert [(one["op"], one["edge_node"], one["source"]) for one in operations] == [
        ("MGET", "edge-2", "log"),
        ("SET", "edge-2", "log"),
    ]


def test_a_url_shows_the_traces_that_touched_it_and_who_filled_what_is_stored(
    edges: tuple[Node, Node], site: Origin, shared_redis_cluster: RedisServers
) -> None:
    first, second = edges
    site.on("/key", reply(b"page", CACHED, "Vary: Accept-Language"))
    german = ask(first, "/key?b=2&a=1", "Accept-Language: de")
    french = ask(second, "/key?a=1&b=2", "Accept-Language: fr")
    again = ask(second, "/key?b=2&a=1", "Accept-Language: de")
    ask(first, "/key?b=3")
    in_trail(shared_redis_cluster, german)
    operations, stored, _ = shown(second, "--key", "https://EDGE.test/key?b=2&a=1#part")
    assert {one["trace_id"] for one in operations} == {german, french, again}
    assert {one["url"] for one in operations} == {"http://edge.test/key?a=1&b=2"}
    assert {one["trace_id"]: one["edge_node"] for one in operations} == {
        german: "edge-1", french: "edge-2", again: "edge-2",
    }  # fmt: skip
    assert [one["time"] for one in operations] == sorted(one["time"] for one in operations)
    filled = {one["vary"]["accept-language"]: one["trace_id"] for one in stored}
    assert filled == {"de": german, "fr": french}
    writes = {one["trace_id"]: one["span_id"] for one in operations if one["op"] == "SET"}
    assert {one["traceparent"][3:52] for one in stored} == {f"{trace}-{span}" for trace, span in writes.items()}


def test_what_was_replaced_is_no_longer_said_to_be_stored(edges: tuple[Node, Node], site: Origin) -> None:
    _, second = edges
    site.on("/replaced", reply(b"page", CACHED))
    ask(second, "/replaced")
    newer = ask(second, "/replaced", "Cache-Control: no-cache")
    _, stored, _ = shown(second, "--key", f"{second.url.replace('127.0.0.1', 'edge.test')}/replaced", exit_code=1)
    assert stored == []  # another port is another URL
    _, (one,), _ = shown(second, "--key", "http://edge.test/replaced")
    assert (one["trace_id"], one["status"], one["size_bytes"]) == (newer, 200, 4)


def test_for_people_it_is_one_aligned_line_each_under_a_heading(edges: tuple[Node, Node], site: Origin) -> None:
    _, second = edges
    site.on("/people", reply(b"page", CACHED))
    trace_id = ask(second, "/people")
    heading, read, written = second.command("keytrace", "--trace-id", trace_id).stdout.splitlines()
    assert heading.split() == ["time", "op", "redis", "node", "slot", "took", "outcome", "edge", "node", "url"]
    for line, op, outcome in ((read, "MGET", "miss"), (written, "SET", "ok")):
        assert line.index(op) == heading.index("op")
        assert line.index(outcome) == heading.index("outcome")
        assert line.endswith(" edge-2        http://edge.test/people")
    *lines, stored = second.command("keytrace", "--key", "http://edge.test/people").stdout.splitlines()
    assert [line.split()[1:3] for line in lines[1:]] == [[trace_id, "MGET"], [trace_id, "SET"]]
    assert stored.startswith(f"stored now: http://edge.test/people: 200, 4 bytes, filled by trace {trace_id} at 20")


class Following:
    """`edgeproxy keytrace --follow` in a process of its own."""

    def __init__(self, node: Node, *arguments: str) -> None:
        self.lines: Found = []
        self._process = subprocess.Popen(
            [*COMMAND, "keytrace", "--follow", "--json", *arguments, "-c", str(node.config_file)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        self._thread = threading.Thread(target=self._read, daemon=True)

    def _read(self) -> None:
        assert self._process.stdout
        self.lines.extend(json.loads(line) for line in self._process.stdout)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def until_shown(self, happen: Callable[[], str]) -> str:
        """Have traces happen until one is shown: then it follows."""
        traces: set[str] = set()

        def follows() -> str | None:
            traces.add(happen())
            return next((one["trace_id"] for one in list(self.lines) if one.get("trace_id") in traces), None)

        return until(follows, "the command to follow")

    def of(self, trace_id: str) -> Found:
        return [one for one in list(self.lines) if one["trace_id"] == trace_id]

    def interrupted(self) -> int:
        self._process.send_signal(signal.SIGINT)
        return self._process.wait(20)

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._thread.join()
        for pipe in (self._process.stdout, self._process.stderr):
            assert pipe
            pipe.close()


def test_following_shows_what_comes_from_both_sources_once_each_until_it_is_interrupted(
    edges: tuple[Node, Node], site: Origin, shared_redis_cluster: RedisServers
) -> None:
    first, second = edges
    site.on("/follow", reply(b"page", CACHED))
    old = ask(first, "/follow")
    with Following(second) as following:
        following.until_shown(lambda: ask(first, "/follow"))  # the trail
        following.until_shown(lambda: ask(second, "/follow"))  # the log
        mine, others = ask(second, "/follow"), ask(first, "/follow")
        until(lambda: following.of(mine) and following.of(others), "both")
        last = ask(first, "/follow")
        until(lambda: following.of(last), "the last one")
        assert [one["source"] for one in following.of(mine) + following.of(others)] == ["log", "trail"]
        assert not following.of(old)
        spans = [one["span_id"] for one in following.lines]
        assert len(spans) == len(set(spans))
        assert following.interrupted() == 130


def test_following_a_url_begins_with_the_past_and_shows_nothing_else(
    edges: tuple[Node, Node], site: Origin, shared_redis_cluster: RedisServers
) -> None:
    first, _ = edges
    for path in ("/one", "/two"):
        site.on(path, reply(b"page", CACHED))
    old = ask(first, "/one")
    in_trail(shared_redis_cluster, old)
    with Following(first, "--key", "http://edge.test/one") as following:
        until(lambda: [one for one in following.of(old) if one["type"] == "stored"], "the past")
        other, new = ask(first, "/two"), ask(first, "/one")
        until(lambda: following.of(new), "the new one")
        in_trail(shared_redis_cluster, other, new)
        last = ask(first, "/one")
        until(lambda: following.of(last), "the last one")
        assert not following.of(other)
        operations = [one["span_id"] for one in following.lines if one["type"] == "operation"]
        assert len(operations) == len(set(operations)) == 4


# --- with files alone


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "access.log"


def config(log: Path | str, folder: Path, **cache: Any) -> Path:
    """The configuration of a node that does not run; nobody listens where it looks for Redis."""
    text = ["[node]", f'runtime_dir = "{folder}/run"', "[log]", f'access = "{log}"', "[cache]"]
    text += [f"{name} = {json.dumps(value)}" for name, value in {"store": "redis", **cache}.items()]
    text += ["[cache.redis]", 'nodes = ["127.0.0.1:1"]', '[[origin]]\nname = "app"\nurls = ["http://127.0.0.1:2"]']
    file = folder / "edgeproxy.toml"
    file.write_text("\n".join([*text, ""]))
    return file


def line(seq: int, *, trace_id: str = TRACE, **changes: Any) -> bytes:
    """A record with one operation; its time and span id are distinct for each seq."""
    operation = {"op": "MGET", "span_id": f"{seq:016x}", "node": "10.0.0.1:6379", "slot": 7, "us": 1500}
    operation |= {"outcome": "hit", "error": "", **changes.pop("operation", {})}
    ts = f"2026-03-04T05:06:07.{seq:06d}Z"
    return record(seq, ts=ts, trace_id=trace_id, store=[operation], **changes)


def run(file: Path, *arguments: str) -> Result:
    return CliRunner().invoke(keytrace, ["--json", "-c", str(file), *arguments])


def spans(result: Result) -> list[int]:
    return [int(json.loads(one)["span_id"], 16) for one in result.stdout.splitlines()]


def test_logs_that_were_rotated_away_are_read_too_compressed_or_not(tmp_path: Path, log: Path) -> None:
    for age, (name, opened) in enumerate([("", open), (".1", open), (".2.gz", gzip.open), ("-20260301.gz", gzip.open)]):
        path = log.with_name(f"{log.name}{name}")
        with opened(path, "wb") as file:
            file.write(line(100 - 10 * age) + line(7, trace_id="0" * 31 + "7") + line(101 - 10 * age))
        os.utime(path, (1e9 - age, 1e9 - age))
    log.with_name("other.log").write_bytes(line(5))
    file = config(log, tmp_path)
    assert spans(run(file, "--trace-id", TRACE)) == [70, 71, 80, 81, 90, 91, 100, 101]
    assert spans(run(file, "--trace-id", TRACE, "-n", "5")) == [81, 90, 91, 100, 101]


def test_a_rotated_log_that_is_damaged_is_named_and_the_others_are_read(tmp_path: Path, log: Path) -> None:
    log.write_bytes(line(1))
    whole = gzip.compress(line(2))
    log.with_name("access.log.1.gz").write_bytes(whole[: len(whole) // 2])
    log.with_name("access.log.2").write_bytes(b"no record\n{}\n\xff\n" + line(3)[:-20] + b"\n" + line(4))
    result = run(config(log, tmp_path, store="memory"), "--trace-id", TRACE)
    assert result.exit_code == 0
    assert spans(result) == [1, 4]
    assert [part for part in result.stderr.splitlines() if "access.log.1.gz" in part]


def test_redis_that_does_not_answer_is_said_in_one_line_and_the_log_is_used(tmp_path: Path, log: Path) -> None:
    log.write_bytes(line(1))
    for arguments in (("--trace-id", TRACE), ("--key", "http://example.test/1")):
        result = run(config(log, tmp_path), *arguments)
        assert result.exit_code == 0, result.stderr
        assert spans(result) == [1]
        assert re.fullmatch(r"edgeproxy: Redis: .*127\.0\.0\.1:1.*\n|edgeproxy: Redis: .+\n", result.stderr)


@pytest.mark.parametrize("store", ["memory", "embedded"])
def test_another_store_has_no_trail_but_the_log_may_still_know(tmp_path: Path, log: Path, store: str) -> None:
    log.write_bytes(line(1))
    result = run(config(log, tmp_path, store=store), "--trace-id", TRACE)
    assert (result.exit_code, spans(result)) == (0, [1])
    assert result.stderr == f'edgeproxy: there is no trail: cache.store is "{store}", not "redis"\n'


def test_a_log_that_cant_be_read_back_is_said_in_one_line(tmp_path: Path) -> None:
    fifo = tmp_path / "pipe"
    os.mkfifo(fifo)
    for place, words in (("-", "standard output"), (tmp_path / "absent", "No such file"), (fifo, "is no file")):
        result = run(config(str(place), tmp_path, store="memory"), "--trace-id", TRACE)
        assert result.exit_code == 1
        first, _no_trail, last = sorted(
            result.stderr.splitlines(), key=lambda text: (words not in text, "nothing" in text)
        )
        assert words in first
        assert last == f"edgeproxy: nothing is known of {TRACE}"


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["--trace-id", TRACE[:-1]], id="31 digits"),
        pytest.param(["--trace-id", TRACE[:-1] + "g"], id="no hex digit"),
        pytest.param(["--trace-id", ""], id="an empty id"),
        pytest.param(["--key", "/path"], id="no URL"),
        pytest.param(["--key", ""], id="an empty URL"),
        pytest.param(["--trace-id", TRACE, "--key", "http://example.test/"], id="both"),
        pytest.param([], id="nothing"),
    ],
)
def test_what_cant_be_understood_exits_with_2(tmp_path: Path, log: Path, arguments: list[str]) -> None:
    log.write_bytes(line(1))
    result = run(config(log, tmp_path), *arguments)
    assert (result.exit_code, result.stdout) == (2, "")


def test_nothing_of_a_clients_or_a_servers_text_acts_on_the_terminal(tmp_path: Path, log: Path) -> None:
    evil = "\x1b[31m\u202e\r\x07\x7f"
    log.write_bytes(line(1, path=f"/{evil}", node=evil, operation={"error": evil, "op": evil, "node": evil}))
    file = config(log, tmp_path, store="memory")
    result = CliRunner().invoke(keytrace, ["-c", str(file), "--trace-id", TRACE])
    assert result.exit_code == 0
    assert "\\x1b[31m" in result.stdout
    assert not CONTROL.search(result.output)
    as_json = run(file, "--trace-id", TRACE).stdout
    assert not CONTROL.search(as_json)
    assert json.loads(as_json)["edge_node"] == evil


def test_a_log_of_any_size_is_read_without_being_kept(tmp_path: Path, log: Path) -> None:
    other = b"".join(line(seq, trace_id="0" * 31 + "7") for seq in range(1000))
    with log.open("wb") as file, gzip.open(log.with_name("access.log.1.gz"), "wb", compresslevel=1) as rotated:
        file.write(line(1))
        rotated.write(line(2))
        for _ in range(150):
            file.write(other)
            rotated.write(other)
    assert log.stat().st_size > 100_000_000
    command = [*COMMAND, "keytrace", "--json", "--trace-id", TRACE, "-c", str(config(log, tmp_path, store="memory"))]
    program = (
        "import resource, subprocess, sys\n"
        f"subprocess.run({command!r}, check=True)\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert [json.loads(one)["span_id"][-1] for one in done.stdout.splitlines()] == ["1", "2"]
    assert int(done.stderr.split()[-1]) < 100_000  # kB
