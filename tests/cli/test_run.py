"""The command itself: what it imports, how it ends, what it says."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgeproxy import __version__
from edgeproxy.cli import COMMANDS
from tests.support import Node, Origin, until

EDGEPROXY = [sys.executable, "-m", "edgeproxy"]
AS_AT_A_TERMINAL = ["env", "--default-signal=INT"]
DATA_PLANE = {"edgeproxy.proxy", "edgeproxy.cache", "edgeproxy.node.worker", "uvloop", "httptools", "mitmproxy"}
HEAVY = DATA_PLANE | {"starlette", "uvicorn", "watchfiles", "rich", "msgspec", "structlog", "asyncio"}


def edgeproxy(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*EDGEPROXY, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environ},
        timeout=60,
        check=False,
    )


def imported_by(statement: str) -> set[str]:
    code = f"import sys\n{statement}\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    return set(done.stdout.split())


class TestTheCommand:
    def test_help_names_every_command(self) -> None:
        done = edgeproxy("--help")
        assert done.returncode == 0
        for name, summary in COMMANDS.items():
            assert f"  {name} " in done.stdout
            assert summary[:40] in done.stdout

    @pytest.mark.parametrize("name", COMMANDS)
    def test_every_command_has_its_own(self, name: str) -> None:
        done = edgeproxy(name, "--help")
        assert done.returncode == 0
        assert f"{name} [OPTIONS]" in done.stdout

    def test_version(self) -> None:
        assert edgeproxy("--version").stdout == f"edgeproxy, version {__version__}\n"

    def test_an_unknown_command_is_named(self) -> None:
        done = edgeproxy("rnu")
        assert done.returncode == 2
        assert "rnu" in done.stderr

    def test_help_imports_next_to_nothing(self) -> None:
        assert not imported_by("import edgeproxy.cli") & HEAVY

    @pytest.mark.parametrize("name", ["tail", "trace", "status"])
    def test_a_command_that_looks_has_nothing_of_the_data_plane(self, name: str) -> None:
        assert not imported_by(f"import edgeproxy.cli.{name}") & DATA_PLANE

    def test_a_reader_that_has_had_enough_is_no_error(self, tmp_path: Path) -> None:
        config = tmp_path / "edgeproxy.toml"
        config.write_text('[[origin]]\nname = "a"\nurls = ["http://127.0.0.1:9"]\n')
        with subprocess.Popen([*EDGEPROXY, "check", "-c", str(config)], **_pipes()) as process:
            assert process.stdout
            assert process.stderr
            process.stdout.close()
            assert process.stderr.read() == b""
            assert process.wait(30) == 141

    def test_ctrl_c_is_no_error(self, tmp_path: Path) -> None:
        with Origin() as origin, Node(origin.url) as node:
            os.kill(node.supervisor_pid, signal.SIGSTOP)
            # As at a terminal: what is started in the background of a script ignores SIGINT.
            command = [*AS_AT_A_TERMINAL, *EDGEPROXY, "trace", "off", "--timeout", "60", "-c", str(node.config_file)]
            with subprocess.Popen(command, **_pipes()) as process:
                assert process.stderr
                until(node.env_file.exists, "the command to wait for the node")
                process.send_signal(signal.SIGINT)
                assert process.stderr.read() == b""
                assert process.wait(30) == 130
            node.signal(signal.SIGCONT)


class TestRun:
    def test_says_in_json_what_it_listens_on(self) -> None:
        with Origin() as origin, Node(origin.url) as node:
            first = [json.loads(line) for line in node.stderr.splitlines()]
        (ready,) = [event for event in first if event["event"] == "node_ready"]
        assert ready["listen"] == [f"127.0.0.1:{node.port}"]
        assert ready["level"] == "info"
        assert {"ts", "workers", "scribe", "config", "env_file", "runtime_dir", "tracing"} <= ready.keys()

    def test_writes_the_access_log_to_standard_output_if_told_to(self, tmp_path: Path) -> None:
        with Origin() as origin:
            config = tmp_path / "edgeproxy.toml"
            config.write_text(
                f'[node]\nruntime_dir = "{tmp_path}/run"\nworkers = 1\n[listen]\nhttp = "127.0.0.1:0"\n'
                f'[[origin]]\nname = "o"\nurls = ["{origin.url}"]\n[admin]\nlisten = ""\n[log]\naccess = "-"\n'
            )
            with subprocess.Popen([*EDGEPROXY, "run", "-c", str(config)], **_pipes()) as process:
                assert process.stdout
                assert process.stderr
                port = _port(process.stderr)
                done = subprocess.run(["curl", "-sS", f"http://127.0.0.1:{port}/hello"], timeout=30, check=True)
                assert json.loads(process.stdout.readline())["path"] == "/hello"
                process.terminate()
                assert process.stdout.read() == b""
                assert process.wait(30) == 0
                assert done.returncode == 0

    def test_says_nothing_below_the_level(self, tmp_path: Path) -> None:
        with Origin() as origin, Node(origin.url, log={"level": "warning"}) as node:
            node.kill_worker()
            levels = {json.loads(line)["level"] for line in node.stderr.splitlines()}
        assert levels == {"error"}

    def test_takes_nothing_from_the_directory_it_is_started_in(self, tmp_path: Path) -> None:
        """A file called like a module of the standard library, say."""
        (tmp_path / "queue.py").write_text("raise SystemExit('the wrong one')")
        code = "from edgeproxy.node.process import python_command; print(*python_command('m')[1:])"
        done = subprocess.run(
            [sys.executable, "-P", "-c", code],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
        assert done.stdout == "-P -m m\n"


def test_the_nodes_own_events_survive_a_closed_standard_error() -> None:
    code = (
        "import os, structlog\n"
        "from edgeproxy.logging.app import configure\n"
        "configure('info', process='test')\n"
        "os.close(2)\n"
        "structlog.get_logger().info('something', path='/x')\n"
        "print('alive')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == "alive\n"


def test_an_event_is_one_line_of_json_whatever_is_in_it() -> None:
    code = (
        "import pathlib, structlog\n"
        "from edgeproxy.logging.app import configure\n"
        "configure('info', process='test')\n"
        "log = structlog.get_logger()\n"
        "log.debug('hidden')\n"
        "try:\n"
        "    raise ValueError('a\\nb')\n"
        "except ValueError:\n"
        "    log.exception('failed', path=pathlib.Path('/x'), text='a\\nb')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    (line,) = done.stderr.splitlines()
    event = json.loads(line)
    assert list(event)[:3] == ["ts", "level", "event"]
    assert (event["level"], event["process"], event["path"], event["text"]) == ("error", "test", "/x", "a\nb")
    assert "ValueError" in event["exception"]


def _pipes() -> dict[str, int]:
    return {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}


def _port(stderr: object) -> int:
    deadline = time.monotonic() + 60
    for line in stderr:  # type: ignore[attr-defined]
        event = json.loads(line)
        if event["event"] == "node_ready":
            return int(event["listen"][0].rpartition(":")[2])
        assert time.monotonic() < deadline
    raise AssertionError("the node ended")
