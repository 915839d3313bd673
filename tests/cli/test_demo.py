"""`edgeproxy demo`, and every command line that it prints: each does what its sentence says."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from edgeproxy.demo.origin import ASSETS, LARGE_BYTES
from edgeproxy.demo.tour import TRACE_ID
from tests.support import until

EDGEPROXY = [sys.executable, "-m", "edgeproxy"]


class Demo:
    """A running demo."""

    def __init__(self, folder: Path, *arguments: str, environ: dict[str, str] | None = None) -> None:
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        self.ready_file = folder / "ready.json"
        self.output_file = folder / "output"
        with self.output_file.open("wb") as output:
            self.process = subprocess.Popen(
                [*EDGEPROXY, "demo", "--ready-file", str(self.ready_file), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, "TMPDIR": str(self.temporary), **(environ or {})},
            )
        self.said: dict[str, Any] = {}

    def wait(self) -> None:
        def ready() -> bool:
            assert self.process.poll() is None, self.output
            return self.ready_file.exists() and self.ready_file.read_bytes().endswith(b"}")

        until(ready, "the demo to be ready", timeout=60)
        self.said = json.loads(self.ready_file.read_bytes())

    @property
    def output(self) -> str:
        return self.output_file.read_text()

    @property
    def url(self) -> str:
        return str(self.said["places"]["url"])

    def command(self, shows: str) -> str:
        """The command line whose sentence has these words."""
        (found,) = [command for sentence, command in self.said["stops"] if shows in sentence]
        return str(found)

    def run(self, shows: str, *, code: int = 0) -> str:
        done = subprocess.run(
            ["bash", "-c", self.command(shows)], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
        return done.stdout + done.stderr


@contextmanager
def demo_in(folder: Path, *arguments: str, **options: Any) -> Iterator[Demo]:
    demo = Demo(folder, *arguments, **options)
    try:
        demo.wait()
        yield demo
    finally:
        demo.process.terminate()
        demo.process.wait(60)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    with demo_in(tmp_path_factory.mktemp("demo"), "--port", "0") as demo:
        yield demo


class TestEveryLineDoesWhatItSays:
    def test_first_from_the_origin_then_from_the_edge(self, demo: Demo) -> None:
        first, second = demo.run("The first time it comes from the origin").split("HTTP/1.1 200 OK")[1:]
        assert "fwd=uri-miss" in first
        assert re.search(r"(?mi)^cache-status: .*; hit", second)
        assert re.search(r"(?mi)^age: \d", second)

    def test_whoever_has_it_is_told_so(self, demo: Demo) -> None:
        assert "HTTP/1.1 304" in demo.run("304, no body")

    def test_a_part_is_cut_from_what_the_edge_has(self, demo: Demo) -> None:
        head, _, body = demo.run("A part of it").replace("\r\n", "\n").partition("\n\n")
        assert "HTTP/1.1 206" in head
        assert body.rstrip("\n").encode() == ASSETS["style.css"].body[:28]

    def test_what_the_edge_has_is_shown(self, demo: Demo) -> None:
        demo.run("The first time it comes from the origin")
        assert "style.css" in demo.run("What the edge has of it")

    def test_what_is_purged_comes_from_the_origin_again(self, demo: Demo) -> None:
        demo.run("The first time it comes from the origin")
        answer = demo.run("Purged in every worker")
        assert "1 URL purged: confirmed by" in answer
        assert "fwd=uri-miss" in answer

    def test_max_age_twice_the_same(self, demo: Demo) -> None:
        first, second = demo.run("twice the same time").splitlines()
        assert first == second
        assert "time" in json.loads(first)

    def test_no_store_twice_different(self, demo: Demo) -> None:
        first, second = demo.run("no-store").splitlines()
        assert first != second

    def test_a_large_file_streams_through(self, demo: Demo) -> None:
        assert f"{LARGE_BYTES} bytes in" in demo.run("64 MiB")

    def test_a_page_comes_whole(self, demo: Demo) -> None:
        assert demo.run("A page to look at").encode() == ASSETS["index.html"].body

    def test_a_trace_goes_on_and_is_in_both_logs(self, demo: Demo) -> None:
        echoed = json.loads(demo.run("A trace that began elsewhere goes on"))
        (parent,) = [value for name, value in echoed["headers"] if name.lower() == "traceparent"]
        assert parent.startswith(f"00-{TRACE_ID}-")
        assert "b7ad6b7169203331" not in parent
        until(lambda: TRACE_ID in Path(demo.said["places"]["access_log"]).read_text(), "the log's line")
        found = demo.run("in the edge's log and in the origin's")
        assert "access.log:" in found
        assert "origin.log:" in found

    def test_a_body_reaches_the_origin(self, demo: Demo) -> None:
        echoed = json.loads(demo.run("it counts five bytes"))
        assert (echoed["method"], echoed["body_bytes"]) == ("POST", 5)

    def test_a_slow_answer_is_split_between_edge_and_origin(self, demo: Demo) -> None:
        timing = re.search(r"(?mi)^server-timing: edge;dur=([\d.]+), origin;dur=([\d.]+)", demo.run("A slow answer"))
        assert timing
        assert float(timing[1]) < 400
        assert float(timing[2]) >= 790

    def test_the_origins_error_goes_through(self, demo: Demo) -> None:
        answer = demo.run("The origin's own error")
        assert "HTTP/1.1 500" in answer
        assert "the origin had an error" in answer

    def test_no_origin_there_is_a_problem_document(self, demo: Demo) -> None:
        head, _, body = demo.run("No origin there").replace("\r\n", "\n").partition("\n\n")
        problem = json.loads(body)
        assert "HTTP/1.1 502" in head
        assert problem["status"] == 502
        assert f"x-trace-id: {problem['trace_id']}" in head.lower()

    def test_an_origin_that_breaks_off_is_a_failed_transfer(self, demo: Demo) -> None:
        assert "curl: (18)" in demo.run("An origin that breaks off", code=18)

    def test_the_nodes_processes_are_shown(self, demo: Demo) -> None:
        assert demo.run("The node's processes").count("serving") == 2

    def test_a_request_in_flight_is_shown(self, demo: Demo) -> None:
        shown = demo.run("A request in flight")
        assert "/api/slow" in shown
        assert "request_sent" in shown

    def test_tracing_goes_off_and_on(self, demo: Demo) -> None:
        assert "tracing is off: confirmed by 2 workers" in demo.run("Tracing off")
        assert "tracing is on: confirmed by 2 workers" in demo.run("And on again")

    def test_figures_for_prometheus(self, demo: Demo) -> None:
        assert "edgeproxy_" in demo.run("Figures for Prometheus")

    @pytest.mark.parametrize("shows", ["The access log as it grows", "Only what went wrong"])
    def test_the_log_can_be_followed(self, demo: Demo, shows: str, tmp_path: Path) -> None:
        output = tmp_path / "output"
        with output.open("wb") as file:
            command = ["env", "--default-signal=INT", "bash", "-c", f"exec {demo.command(shows)}"]
            tail = subprocess.Popen(command, stdout=file, stderr=file)
        try:

            def followed() -> bool:
                assert tail.poll() is None, output.read_text()
                demo.run("No origin there")
                return "/away/" in output.read_text()

            until(followed, "the line to be followed")
        finally:
            tail.send_signal(signal.SIGINT)
            tail.wait(30)

    def test_no_line_is_left_out_here(self, demo: Demo) -> None:
        assert len(demo.said["stops"]) == 23
        for sentence, command in demo.said["stops"]:
            assert f"# {sentence}\n{command}\n" in demo.output


class TestItsLife:
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
    def test_it_ends_and_leaves_nothing_behind(self, tmp_path: Path, number: signal.Signals) -> None:
        with demo_in(tmp_path, "--port", "0", "--workers", "1") as demo:
            assert list(demo.temporary.iterdir())
            demo.process.send_signal(number)
            assert demo.process.wait(60) == 0
            assert list(demo.temporary.iterdir()) == []
            host, port = demo.url.removeprefix("http://").split(":")
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection((host, int(port)))
            assert "Traceback" not in demo.output
            assert demo.output.endswith("The demo has ended.\n")

    def test_it_takes_nothing_from_the_environment(self, tmp_path: Path) -> None:
        environ = {
            "EDGEPROXY_TRACING": "perhaps",
            "EDGEPROXY_ENV_FILE": "/nowhere/env",
            "OTEL_TRACES_EXPORTER": "none",
            "http_proxy": "",
        }
        with demo_in(tmp_path, "--port", "0", environ=environ) as demo:
            assert "tracing        on," in demo.run("The node's processes")

    def test_a_port_that_is_asked_for_and_taken_is_named(self, tmp_path: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            done = subprocess.run(
                [*EDGEPROXY, "demo", "--port", str(port)],
                capture_output=True,
                text=True,
                env={**os.environ, "TMPDIR": str(tmp_path)},
                timeout=60,
                check=False,
            )
        assert done.returncode == 1
        assert f"127.0.0.1:{port}': Address already in use" in done.stderr
        assert list(tmp_path.iterdir()) == []

    def test_the_usual_port_is_given_way_when_taken(self, tmp_path: Path) -> None:
        with socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                other.bind(("127.0.0.1", 8080))
                other.listen()
            except OSError:
                pass  # somebody else has it: just as good
            with demo_in(tmp_path, "--workers", "1") as demo:
                assert not demo.url.endswith(":8080")
                subprocess.run(["curl", "-fsS", f"{demo.url}/api/time"], check=True, timeout=30, capture_output=True)
