"""`edgeproxy inspect`: stock mitmweb beside a running node, on its configuration, on loopback, with a token."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import httpx
import pytest

from tests.support import Client, Node, Origin, Record, reply, until

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"traceparent: 00-{TRACE_ID}-00f067aa0ba902b7-01"
KEPT = reply(b"kept", "Cache-Control: max-age=60")
START_S = 60.0
AS_AT_A_TERMINAL = ["env", "--default-signal=INT"]


class Inspect:
    """The command, running; a context manager."""

    def __init__(self, config: Path, *arguments: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="inspect-test-"))
        self._err = self.folder / "stderr"
        self._out = self.folder / "stdout"
        with self._err.open("wb") as err, self._out.open("wb") as out:
            self.process = subprocess.Popen(
                [*AS_AT_A_TERMINAL, sys.executable, "-m", "edgeproxy", "inspect", "-c", str(config), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env={**os.environ, "TMPDIR": str(self.folder)},
            )
        self.port = 0
        self.web = ""

    def __enter__(self) -> Self:
        found = until(self._up, "mitmweb to be up", timeout=START_S)
        self.port, self.web = int(found[1]), found[2]
        return self

    def _up(self) -> "re.Match[str] | None":
        assert self.process.poll() is None, self.said
        return re.search(r"look into: http://127\.0\.0\.1:(\d+)\n.*shows them: (\S+)\n", self.said)

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(START_S)
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def said(self) -> str:
        return self._err.read_text()

    @property
    def mitmweb(self) -> int:
        """Its pid: the only child."""
        (pid,) = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return int(pid)

    def lines(self, count: int) -> list[Record]:
        found = until(lambda: got if (got := self._out.read_bytes()).count(b"\n") >= count else b"", f"{count} lines")
        return [json.loads(line) for line in found.splitlines()]

    def get(self, path: str, *fields: str) -> Any:
        with Client(self.port) as client:
            return client.get(path, *fields)

    def ask(self, path: str, *, token: bool = True, method: str = "GET") -> httpx.Response:
        """Ask mitmweb's API."""
        base, _, query = self.web.partition("?")
        return httpx.request(method, f"{base}{path}{f'?{query}' if token else ''}", trust_env=False, timeout=20)

    @contextlib.contextmanager
    def page(self) -> Iterator[httpx.Client]:
        """A client that has been to the page, with the token, and may change things there."""
        base, _, query = self.web.partition("?")
        with httpx.Client(base_url=base, trust_env=False, timeout=20) as client:
            client.get(f"?{query}").raise_for_status()
            client.cookies["_mitmproxy_xsrf"] = client.headers["X-XSRFToken"] = "0" * 32
            yield client


def failed(config: Path, *arguments: str) -> tuple[int, str]:
    """Run the command where it can't come up: its exit code, and what it says."""
    done = subprocess.run(
        [sys.executable, "-m", "edgeproxy", "inspect", "-c", str(config), *arguments],
        capture_output=True,
        text=True,
        timeout=START_S,
        check=False,
    )
    return done.returncode, done.stderr


@pytest.fixture
def inspect() -> Iterator[Callable[..., Inspect]]:
    with ExitStack() as stack:

        def start(config: Path, *arguments: str) -> Inspect:
            return stack.enter_context(Inspect(config, *arguments))

        yield start


@pytest.fixture(scope="module")
def world() -> Iterator[tuple[Origin, Node, Inspect]]:
    """A node that runs, and an inspection on the same configuration."""
    with Origin(default=KEPT) as origin, Origin(default=reply(b"other")) as other:
        toml = f'[[origin]]\nname = "other"\nurls = ["{other.url}"]\n[[route]]\nmatch = "/api/*"\norigin = "other"\n'
        with Node(origin.url, toml=toml) as node, Inspect(node.config_file) as inspection:
            yield origin, node, inspection


World = tuple[Origin, Node, Inspect]


class TestBesideANode:
    def test_flows_of_the_test_port_can_be_looked_into_with_the_token(self, world: World) -> None:
        _, _, inspection = world
        got = inspection.get("/looked-into", PARENT)
        assert got.body == b"kept"
        flows = inspection.ask("flows").json()
        (flow,) = [one for one in flows if one["request"]["path"] == "/looked-into"]
        assert flow["response"]["status_code"] == 200
        assert ["X-Trace-Id", TRACE_ID] in flow["response"]["headers"]
        body = inspection.ask(f"flows/{flow['id']}/response/content.data")
        assert body.content == b"kept"

    @pytest.mark.parametrize("path", ["flows", "", "options", "events"])
    def test_nobody_gets_anything_without_it(self, world: World, path: str) -> None:
        _, _, inspection = world
        assert inspection.ask(path, token=False).status_code == 403
        assert inspection.ask(path).status_code == 200

    def test_a_wrong_one_is_none(self, world: World) -> None:
        _, _, inspection = world
        url = re.sub("token=.*", f"token={'0' * 32}", inspection.web)
        assert httpx.get(url, trust_env=False).status_code == 403

    def test_a_request_can_be_held_and_changed_before_the_edge_acts_on_it(self, world: World) -> None:
        origin, _, inspection = world
        with inspection.page() as page, ThreadPoolExecutor(1) as pool:
            page.put("options", json={"intercept": "~u /held"})
            waiting = pool.submit(inspection.get, "/held")
            (flow,) = until(lambda: [one for one in page.get("flows").json() if one["intercepted"]], "the flow")
            assert not origin.seen("/held")
            page.put("options", json={"intercept": None})
            page.put(f"flows/{flow['id']}", json={"request": {"path": "/changed"}}).raise_for_status()
            page.post(f"flows/{flow['id']}/resume").raise_for_status()
            assert waiting.result().body == b"kept"
        assert not origin.seen("/held")
        assert len(origin.seen("/changed")) == 1

    def test_a_flow_that_is_replayed_is_a_request_of_its_own(self, world: World) -> None:
        origin, _, inspection = world
        first = inspection.get("/replayed")
        with inspection.page() as page:
            (flow,) = [one for one in page.get("flows").json() if one["request"]["path"] == "/replayed"]
            page.post(f"flows/{flow['id']}/replay").raise_for_status()

            def again() -> list[Any]:
                found = page.get("flows").json()
                return [one for one in found if one["id"] == flow["id"] and one.get("response") and one["is_replay"]]

            (replayed,) = until(again, "the replayed flow's response")
        assert len(origin.seen("/replayed")) == 1, "the edge had it in its cache"
        fields = dict(replayed["response"]["headers"])
        assert fields["X-Cache"] == "HIT"
        assert fields["X-Trace-Id"] != first.trace_id

    def test_both_ports_are_on_loopback_only(self, world: World) -> None:
        _, _, inspection = world
        ports = {inspection.port, int(inspection.web.split(":")[2].split("/")[0])}
        assert {(address, port) for address, port in listened_on() if port in ports} == {
            ("0100007F", port) for port in ports
        }

    def test_it_decides_as_the_node_does_and_knows_nothing_of_what_that_has(self, world: World) -> None:
        origin, node, inspection = world
        with node.connect() as client:
            client.get("/cached")
            assert client.get("/cached")["x-cache"] == "HIT"
        got = [inspection.get("/cached", PARENT) for _ in range(2)]
        assert [one["x-cache"] for one in got] == ["MISS", "HIT"]
        assert "edge-1; hit" in got[1]["cache-status"]
        assert len(origin.seen("/cached")) == 2

    def test_routes_lead_where_they_lead_the_node(self, world: World) -> None:
        _, _, inspection = world
        assert inspection.get("/api/x").body == b"other"

    def test_its_access_log_goes_to_standard_output_and_the_node_goes_on_unharmed(self, world: World) -> None:
        _, node, inspection = world
        before = len(inspection.lines(1))
        with node.recording() as recording:
            trace_id = inspection.get("/logged").trace_id
            with node.connect() as client:
                client.get("/the-nodes-own")
            assert [line["path"] for line in recording.lines(1)] == ["/the-nodes-own"]
        assert trace_id in [line["trace_id"] for line in inspection.lines(before + 1)]
        assert all(worker.state == "serving" for worker in node.status().workers)

    def test_nothing_of_the_nodes_own_is_open_in_it(self, world: World) -> None:
        _, node, inspection = world
        process = Path(f"/proc/{inspection.mitmweb}")
        opened = {str(link.readlink()) for link in (process / "fd").iterdir()}
        opened |= set((process / "maps").read_text().split())
        assert not [path for path in opened if path.startswith(str(node.folder))]

    def test_ctrl_c_ends_it_and_leaves_nothing_behind(self, world: World, inspect: Callable[..., Inspect]) -> None:
        _, node, _ = world
        inspection = inspect(node.config_file)
        pid = inspection.mitmweb
        inspection.process.send_signal(signal.SIGINT)
        assert inspection.process.wait(START_S) == 0
        assert not Path(f"/proc/{pid}").exists()
        assert "Traceback" not in inspection.said
        assert {one.name for one in inspection.folder.iterdir()} == {"stdout", "stderr"}
        assert node.is_running()


def listened_on() -> set[tuple[str, int]]:
    """Address and port of each socket that listens, as the kernel writes them."""
    rows = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    pairs = (row[1].split(":") for row in rows if row[3] == "0A")
    return {(address, int(port, 16)) for address, port in pairs}


class TestItsEnd:
    def test_mitmweb_ends_with_it_even_where_it_is_killed(self, paper: Node, inspect: Callable[..., Inspect]) -> None:
        inspection = inspect(paper.config_file)
        pid = inspection.mitmweb
        inspection.process.kill()
        until(lambda: not Path(f"/proc/{pid}").exists(), "mitmweb to end", timeout=START_S)

    def test_mitmweb_that_ends_by_itself_is_an_error(self, paper: Node, inspect: Callable[..., Inspect]) -> None:
        inspection = inspect(paper.config_file)
        os.kill(inspection.mitmweb, signal.SIGKILL)
        assert inspection.process.wait(START_S) == 1
        assert "mitmweb has ended by itself" in inspection.said


@pytest.fixture
def paper(origin: Origin) -> Iterator[Node]:
    """A node that is not started: its configuration is what is needed of it."""
    node = Node(origin.url)
    yield node
    node.__exit__()


class TestWhatIsWrong:
    @pytest.mark.parametrize("option", ["--port", "--web-port"])
    def test_a_port_that_is_taken_is_named(self, paper: Node, option: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            code, said = failed(paper.config_file, option, str(port))
        assert code == 1
        assert said.strip() == f"edgeproxy: 127.0.0.1:{port} can't be listened on: Address already in use ({option})"

    def test_a_broken_configuration_is_explained(self, paper: Node) -> None:
        paper.write_config(cache={"memory_bytes": "much"})
        code, said = failed(paper.config_file)
        assert code == 2
        assert "cache.memory_bytes" in said

    def test_one_without_an_origin_leads_nowhere(self, tmp_path: Path) -> None:
        config = tmp_path / "edgeproxy.toml"
        config.write_text('[node]\nname = "edge-1"\n')
        code, said = failed(config)
        assert code == 2
        assert "no origin" in said or "origin" in said

    def test_the_nodes_own_log_is_not_for_it(self, paper: Node) -> None:
        code, said = failed(paper.config_file, "--access-log", str(paper.access_log))
        assert code == 2
        assert "the node's own access log" in said
        assert not paper.access_log.exists()

    @pytest.mark.parametrize(
        ("script", "code", "expected"),
        [
            ("def request(flow:", 2, "'(' was never closed"),
            ("raise RuntimeError('not today')", 1, "RuntimeError: not today"),
            ("edge_filter = '~nonsense'", 1, "~nonsense"),
            ("def load(loader):\n    loader.nonsense()", 1, "nonsense"),
        ],
        ids=["no Python", "an exception", "no filter", "an exception in a hook"],
    )
    def test_a_script_that_cannot_be_loaded_is_named_with_the_reason(
        self, paper: Node, script: str, code: int, expected: str
    ) -> None:
        path = paper.folder / "mine.py"
        path.write_text(script)
        paper.write_config(addons={"scripts": [str(path)]})
        found, said = failed(paper.config_file)
        assert found == code
        assert str(path) in said
        assert expected in said


SCRIPT = """
from mitmproxy import ctx

edge_filter = "~u /mine"

def load(loader):
    loader.add_option("mine_word", str, "unset", "A word.")

def request(flow):
    flow.metadata["edge"]["log"] = {"word": ctx.options.mine_word}
    flow.request.headers["x-mine"] = ctx.options.mine_word

def response(flow):
    flow.response.headers["x-version"] = "1"
"""


Site = tuple[Origin, Inspect, Path]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """An inspection with scripts, and the folder where they and the access log are."""
    folder = tmp_path_factory.mktemp("scripts")
    scripts = {name: folder / f"{name}.py" for name in ("mine", "theirs", "changing")}
    for name, path in scripts.items():
        path.write_text(SCRIPT.replace("mine", name))
    addons = {
        "scripts": [str(path) for path in scripts.values()],
        "filters": {str(scripts["theirs"]): "~u /configured"},
        "options": {"mine_word": "hello"},
    }
    with Origin() as origin:
        paper = Node(origin.url, addons=addons)  # not started: its configuration is what is needed of it
        try:
            with Inspect(paper.config_file, "--access-log", str(folder / "looked-into.log")) as inspection:
                yield origin, inspection, folder
        finally:
            paper.__exit__()


class TestTheOperatorsScripts:
    def test_they_see_what_their_filters_select_and_have_their_options(self, site: Site) -> None:
        origin, inspection, folder = site
        assert inspection.get("/mine/x")["x-version"] == "1"
        assert origin.seen("/mine/x")[0]["x-mine"] == "hello"
        other = inspection.get("/other")
        assert other.values("x-version") == []
        assert origin.seen("/other")[0].values("x-mine") == []
        found = until(lambda: got if len(got := logged_in(folder)) >= 2 else [], "two lines")
        lines = {line["path"]: line for line in found}
        log = {"word": "hello"}
        assert lines["/mine/x"]["script"] == {"names": ["mine.py"], "rewritten": None, "log": log, "spans": []}
        assert lines["/other"]["script"] is None

    def test_the_configurations_filter_wins(self, site: Site) -> None:
        _, inspection, _ = site
        assert inspection.get("/theirs").values("x-version") == []
        assert inspection.get("/configured")["x-version"] == "1"

    def test_they_are_loaded_anew_and_a_broken_one_leaves_the_last_good_one(self, site: Site) -> None:
        _, inspection, folder = site
        path = folder / "changing.py"
        script = path.read_text()
        assert inspection.get("/changing")["x-version"] == "1"
        path.write_text(script.replace('"1"', '"2"'))
        until(lambda: inspection.get("/changing")["x-version"] == "2", "the new script")
        path.write_text("def request(flow:")
        until(lambda: "SyntaxError" in inspection.said, "the error")
        assert inspection.get("/changing")["x-version"] == "2"

    def test_its_access_log_can_go_to_a_file(self, site: Site) -> None:
        _, inspection, folder = site
        before = len(logged_in(folder))
        trace_id = inspection.get("/x").trace_id
        (line,) = until(lambda: logged_in(folder)[before:], "its line")
        assert line["trace_id"] == trace_id


def logged_in(folder: Path) -> list[Record]:
    """The lines of the access log in a folder."""
    return [json.loads(line) for line in (folder / "looked-into.log").read_text().splitlines()]
