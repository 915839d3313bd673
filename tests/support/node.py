"""The real node, started as a user starts it: `edgeproxy run -c FILE`, all that it writes in a folder of its own.

    with Node(origin.url) as node:
        httpx.get(node.url)
        (line,) = node.log_lines(1)

Ready when the context is entered: every worker serves. Configuration tables go in as keywords (`limits={"headers":
10}`), or as TOML text. From a shell: `python -m tests.support.node http://127.0.0.1:8000` runs one until Ctrl-C.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from edgeproxy.config.toml import toml_key, toml_value
from edgeproxy.node.errors import NodeError
from edgeproxy.node.status import Status, WorkerStatus, read_status
from tests.support.client import Client, http_client
from tests.support.wait import PATIENCE_S, until

Record = dict[str, Any]
"""An access-log line."""
Tables = Mapping[str, Mapping[str, object]]

COMMAND = [sys.executable, "-m", "edgeproxy"]
START_S = 60.0
_FROM_OUTSIDE = ("EDGEPROXY_", "OTEL_")


class Node:
    """A node, its files and its processes; a context manager."""

    def __init__(
        self,
        *origins: str,
        workers: int = 1,
        toml: str = "",
        environ: Mapping[str, str] | None = None,
        origin: Mapping[str, object] | None = None,
        default_route: bool = True,
        **tables: Mapping[str, object],
    ) -> None:
        """Prepare a node in front of one origin with these urls.

        `origin` adds keys to that origin, `tables` are the other tables by name (node, listen, cache, tracing, log,
        admin, limits), `toml` is appended: further origins, routes. Where that has any, `default_route` ends
        the routes with one that leads everything else to the first origin. `environ` adds to the environment.
        """
        self.folder = Path(tempfile.mkdtemp(prefix="edgeproxy-test-", dir=_memory_folder()))
        self.config_file = self.folder / "edgeproxy.toml"
        self.env_file = self.folder / "edgeproxy.env"
        self.access_log = self.folder / "access.log"
        self.stderr_file = self.folder / "stderr.log"
        self.runtime_dir = self.folder / "run"
        self.port = 0
        self.url = ""
        self._workers = workers
        self._environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith(_FROM_OUTSIDE)},
            "EDGEPROXY_ENV_FILE": str(self.env_file),
            **(environ or {}),
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._tables: dict[str, dict[str, object]] = {
            "node": {"name": "edge-1", "workers": workers, "runtime_dir": str(self.runtime_dir)},
            "listen": {"http": "127.0.0.1:0"},
            "log": {"access": str(self.access_log)},
            "admin": {"listen": "127.0.0.1:0"},
            "limits": {"drain_timeout": 5},
        }
        for name, table in tables.items():
            self._tables.setdefault(name, {}).update(table)
        self._origin = {"name": "app", "urls": list(origins), **(origin or {})} if origins else None
        self._toml = toml
        self._default_route = default_route and bool(origins) and "[[" in toml
        self.write_config()

    # --- its life

    def start(self) -> Self:
        """Start it and wait until every worker serves."""
        with self.stderr_file.open("ab") as stderr:
            self._process = subprocess.Popen(
                [*COMMAND, "run", "-c", str(self.config_file)],
                stdin=subprocess.DEVNULL,
                stdout=stderr,
                stderr=stderr,
                env=self._environ,
                start_new_session=True,
            )
        status = until(self._running, "the node to be ready", timeout=START_S)
        self.port = int(status.listen[0].rpartition(":")[2])
        self.url = f"http://127.0.0.1:{self.port}"
        return self

    def _running(self) -> Status | None:
        if not self.is_running():
            raise AssertionError(f"the node ended:\n{self.stderr}")
        with contextlib.suppress(NodeError, OSError):
            status = read_status(self.runtime_dir)
            if status.state == "running":
                return status
        return None

    def stop(self, *, timeout: float = START_S) -> int:
        """SIGTERM, and wait for its end; the exit code. A node that does not end is killed and fails the test."""
        if self._process is None:
            return 0
        if self.is_running():
            self.signal(signal.SIGTERM)
        return self.wait(timeout)

    def wait(self, timeout: float = START_S) -> int:
        """Wait until it has ended; the exit code."""
        assert self._process is not None
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the node did not end within {timeout} s:\n{self.stderr}") from None
        finally:
            self._kill_all()

    def signal(self, number: signal.Signals) -> None:
        """Send the supervisor a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def kill_worker(self, index: int = 0) -> int:
        """SIGKILL a worker and wait until another one serves in its place; the dead one's pid."""
        before = self.worker(index)
        os.kill(before.pid, signal.SIGKILL)

        def replaced() -> bool:
            return any(w.index == index and w.pid != before.pid and w.state == "serving" for w in self.status().workers)

        until(replaced, f"worker {index} to be replaced")
        return before.pid

    def is_running(self) -> bool:
        """Whether the supervisor lives."""
        return self._process is not None and self._process.poll() is None

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self._kill_all()
            raise

    def __exit__(self, *_: object) -> None:
        try:
            self.stop()
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _kill_all(self) -> None:
        """Leave nothing behind, whatever went wrong: the supervisor, and whoever works in its runtime directory."""
        if self._process is None:
            return
        if self.is_running():
            self._process.kill()
            self._process.wait()
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if str(self.runtime_dir).encode() in (folder / "cmdline").read_bytes().split(b"\0"):
                    os.kill(int(folder.name), signal.SIGKILL)

    # --- what it is told

    def write_config(self, **tables: Mapping[str, object]) -> None:
        """Write the configuration file, with these tables changed."""
        for name, table in tables.items():
            self._tables.setdefault(name, {}).update(table)
        parts = [f"[{name}]\n{_toml(table)}" for name, table in self._tables.items()]
        if self._origin:
            parts.append(f"[[origin]]\n{_toml(self._origin)}")
        parts.append(self._toml)
        if self._default_route:
            parts.append('[[route]]\nmatch = "/*"\norigin = "app"')
        self.config_file.write_text("\n".join([*parts, ""]), encoding="utf-8")

    def command(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run an `edgeproxy` command for this node: `node.command("trace", "off")`."""
        done = subprocess.run(
            [*COMMAND, *arguments, "-c", str(self.config_file)],
            capture_output=True,
            text=True,
            env=self._environ,
            timeout=START_S,
            check=False,
        )
        assert not check or done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
        return done

    # --- how it is

    def status(self) -> Status:
        """What `edgeproxy status` shows."""
        return read_status(self.runtime_dir)

    def worker(self, index: int = 0) -> WorkerStatus:
        """The worker that serves at an index."""

        def serving() -> WorkerStatus | None:
            return next((w for w in self.status().workers if w.index == index and w.state == "serving"), None)

        return until(serving, f"worker {index} to serve")

    @property
    def supervisor_pid(self) -> int:
        """The supervisor's pid."""
        assert self._process is not None
        return self._process.pid

    @property
    def worker_pids(self) -> list[int]:
        """The pids of the workers that serve, by index."""
        return [worker.pid for worker in self.status().workers if worker.state == "serving"]

    @property
    def scribe_pid(self) -> int:
        """The scribe's pid."""
        return self.status().scribe_pid

    @property
    def stderr(self) -> str:
        """All that its processes wrote to standard error and output."""
        return self.stderr_file.read_text(errors="replace") if self.stderr_file.exists() else ""

    @property
    def admin_url(self) -> str:
        """Where the admin API listens."""
        return f"http://{until(lambda: self.status().admin, 'the admin API to listen')}"

    def memory_bytes(self, index: int = 0) -> int:
        """What a worker has in memory that is its own (anonymous pages, not its mapped ledger)."""
        for line in Path(f"/proc/{self.worker(index).pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("no RssAnon")

    # --- what it wrote

    def lines(self) -> list[Record]:
        """The access log's lines so far, parsed; one that is still being written is left out."""
        return [json.loads(line) for line in self._raw_lines()]

    def _raw_lines(self) -> list[bytes]:
        return self.access_log.read_bytes().split(b"\n")[:-1] if self.access_log.exists() else []

    def _lines_of(self, trace_id: str) -> list[Record]:
        """The lines of a trace so far; a long log's other lines are not parsed, which takes most of the time."""
        found = [json.loads(line) for line in self._raw_lines() if trace_id.encode() in line]
        return [line for line in found if line["trace_id"] == trace_id]

    def log_lines(self, count: int, *, timeout: float = PATIENCE_S) -> list[Record]:
        """Wait until there are `count` lines; more than that is a failure."""
        found = until(lambda: got if len(got := self.lines()) >= count else [], f"{count} log lines", timeout=timeout)
        assert len(found) == count, [(line["method"], line["path"], line["outcome"]) for line in found]
        return found

    def record(self, trace_id: str) -> Record:
        """Wait for the one line of a trace."""
        (found,) = until(lambda: self._lines_of(trace_id), f"the line of {trace_id}")
        return found

    @contextlib.contextmanager
    def recording(self) -> Iterator["Recording"]:
        """What is logged from here on: for tests that share a node with one worker."""
        yield Recording(self, len(self.flushed()))

    def flushed(self) -> list[Record]:
        """All lines of requests that have ended by now.

        A worker's lines come in order: that of one more request, which is left out here, comes after all of them.
        """
        assert self._workers == 1, "only one worker's lines are in order"
        with self.connect() as client:
            trace_id = client.get(
                "/flushed", "Connection: close", method="TRACE"
            ).trace_id  # refused: no origin sees it

        until(lambda: self._lines_of(trace_id), "the line that flushes the log")
        return [line for line in self.lines() if line["path"] != "/flushed"]

    # --- its clients

    def connect(self, *, timeout: float = PATIENCE_S, receive_buffer: int = 0, source: str = "") -> Client:
        """A raw client's connection."""
        return Client(self.port, timeout=timeout, receive_buffer=receive_buffer, source=source)

    def http(self, **options: Any) -> Any:
        """An httpx client for this node."""
        return http_client(self.url, **options)


class Recording:
    """The log from a moment on."""

    def __init__(self, node: Node, start: int) -> None:
        """Begin behind `start` lines."""
        self._node = node
        self._start = start

    def lines(self, count: int) -> list[Record]:
        """Wait for `count` lines; when one more request's line has come and there are more, that is a failure."""
        node = self._node
        until(
            lambda: len([x for x in node.lines() if x["path"] != "/flushed"]) >= self._start + count, f"{count} lines"
        )
        # In the order in which they came in: one that ends lets the next one on its connection be recorded before it.
        found = sorted(node.flushed()[self._start :], key=lambda line: (line["worker"], line["seq"]))
        assert len(found) == count, [(line["method"], line["path"], line["outcome"], line["error"]) for line in found]
        return found


def _memory_folder() -> str | None:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def _toml(table: Mapping[str, object]) -> str:
    return "".join(f"{toml_key(key)} = {toml_value(value)}\n" for key, value in table.items())


def main(origins: Sequence[str]) -> None:
    """Run a node until Ctrl-C."""
    with Node(*origins) as node:
        print(node.url, node.folder, flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()


if __name__ == "__main__":
    main(sys.argv[1:])
