"""`edgeproxy demo --redis`, and the command lines that it prints: each does what its sentence says."""

import contextlib
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgeproxy.cli import main
from edgeproxy.demo.shared import HOST
from edgeproxy.demo.tour import TRACE_ID
from tests.cli.test_demo import Demo, demo_in
from tests.support import until
from tests.support.redis_server import redis_program

ARGUMENTS = ("--redis", "--port", "0", "--workers", "1")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    redis_program()
    with demo_in(tmp_path_factory.mktemp("demo"), *ARGUMENTS) as demo:
        yield demo


def processes_in(folder: Path) -> list[str]:
    """Command lines of processes that work in a folder, or have it among their arguments."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            line = (process / "cmdline").read_text()
            if str(folder) in line or str((process / "cwd").readlink()).startswith(str(folder)):
                found.append(line)
    return found


class TestEveryLineDoesWhatItSays:
    def test_what_one_edge_has_fetched_the_other_has(self, demo: Demo) -> None:
        demo.run("Purged at edge A")
        demo.run("The same by the method PURGE")
        until(lambda: "fwd=uri-miss" in demo.run("Edge A has to ask the origin"), "a miss at A")
        until(lambda: "demo-b; hit" in demo.run("Edge B was never asked"), "a hit at B")
        shown = demo.run("What edge B says of it")
        assert re.search(r"filled by +trace [0-9a-f]{32}, from demo", shown)
        assert re.search(r"lies in +store", shown)

    def test_the_trace_is_in_redis_in_the_log_and_with_the_key(self, demo: Demo) -> None:
        demo.run("Edge A has to ask the origin")
        assert f"X-Trace-Id: {TRACE_ID}" in demo.run("A request with a trace of your own")
        assert "MGET" in demo.run("Which Redis commands that trace ran")
        assert TRACE_ID in demo.run("Which traces touched that URL")

    def test_redis_shows_the_trace(self, demo: Demo) -> None:
        if not demo.said["places"]["redis_cli"]:
            pytest.skip("redis-cli is not installed")
        demo.run("Edge A has to ask the origin")
        demo.run("A request with a trace of your own")
        assert f"00-{TRACE_ID}-" in demo.run("Redis itself knows the trace")
        head, ttl = demo.run("What lies in Redis").split()
        assert re.fullmatch(r"1e00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}", head)
        assert 0 < int(ttl) <= 120

    def test_monitor_shows_what_is_asked(self, demo: Demo, tmp_path: Path) -> None:
        if not demo.said["places"]["redis_cli"]:
            pytest.skip("redis-cli is not installed")
        output = tmp_path / "output"
        with output.open("wb") as file:
            monitor = subprocess.Popen(["bash", "-c", f"exec {demo.command('…and MONITOR')}"], stdout=file, stderr=file)

        def shown() -> bool:
            demo.run("A request with a trace of your own")
            return TRACE_ID.encode() in output.read_bytes()

        try:
            until(shown, "the trace to show")
        finally:
            monitor.terminate()
            monitor.wait(30)

    def test_a_purge_at_one_edge_holds_at_the_other(self, demo: Demo) -> None:
        demo.run("Edge A has to ask the origin")
        until(lambda: "demo-b; hit" in demo.run("Edge B was never asked"), "a hit at B")
        answer = demo.run("Purged at edge A")
        assert "1 URL purged" in answer
        assert "demo-b; fwd=uri-miss" in answer
        assert f"http://{HOST}/static/" in demo.run("The same by the method PURGE")

    def test_how_the_cluster_does_is_shown(self, demo: Demo) -> None:
        assert "3 of 3 answer" in demo.run("How the cluster does")

    @pytest.mark.parametrize("shows", ["The access log of edge A", "The same with each Redis operation"])
    def test_the_log_can_be_followed(self, demo: Demo, shows: str, tmp_path: Path) -> None:
        output = tmp_path / "output"
        with output.open("wb") as file:
            command = ["env", "--default-signal=INT", "bash", "-c", f"exec {demo.command(shows)}"]
            tail = subprocess.Popen(command, stdout=file, stderr=file)

        def followed() -> bool:
            demo.run("Edge A has to ask the origin")
            return "/static/style.css" in output.read_text()

        try:
            until(followed, "the line to be followed")
        finally:
            tail.send_signal(signal.SIGINT)
            tail.wait(30)

    def test_all_lines_are_printed(self, demo: Demo) -> None:
        for sentence, command in demo.said["stops"]:
            assert f"# {sentence}\n{command}\n" in demo.output

    def test_a_master_that_is_killed_harms_nobody(self, demo: Demo) -> None:
        answers = re.findall(r"HTTP/1.1 (\d+)", demo.run("A master of the cluster is killed"))
        assert answers == ["200"] * 6


class TestItsLife:
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_it_ends_and_leaves_nothing_behind(self, tmp_path: Path, number: signal.Signals) -> None:
        redis_program()
        with demo_in(tmp_path, *ARGUMENTS) as demo:
            assert processes_in(demo.temporary)
            demo.process.send_signal(number)
            assert demo.process.wait(60) == 0
            assert list(demo.temporary.iterdir()) == []
            assert processes_in(demo.temporary) == []
            for url in (demo.said["places"]["a"], demo.said["places"]["b"]):
                host, port = url.removeprefix("http://").split(":")
                with pytest.raises(ConnectionRefusedError):
                    socket.create_connection((host, int(port)))
            assert "Traceback" not in demo.output
            assert demo.output.endswith("The demo has ended.\n")

    def test_when_it_is_killed_its_servers_end_too(self, tmp_path: Path) -> None:
        redis_program()
        with demo_in(tmp_path, *ARGUMENTS) as demo:
            demo.process.kill()
            demo.process.wait(60)
            until(lambda: processes_in(demo.temporary) == [], "all processes to end")

    def test_it_can_be_ended_while_it_starts(self, tmp_path: Path) -> None:
        redis_program()
        demo = Demo(tmp_path, *ARGUMENTS)
        until(lambda: "Starting the demo" in demo.output, "the demo to start")
        until(lambda: processes_in(demo.temporary), "its first process")
        demo.process.send_signal(signal.SIGINT)
        assert demo.process.wait(60) == 0
        assert list(demo.temporary.iterdir()) == []
        assert processes_in(demo.temporary) == []
        assert demo.output.endswith("The demo has ended.\n")

    def test_without_redis_server_it_says_what_to_install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("edgeproxy.demo.cluster.USUAL_PLACES", ())
        monkeypatch.setenv("PATH", "/nowhere")
        done = CliRunner().invoke(main, ["demo", "--redis"])
        assert done.exit_code == 1
        assert "redis-server is not installed" in done.stderr
        assert "apt-get install redis-server" in done.stderr
