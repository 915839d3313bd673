"""Parts for tests of ledger, access log and scribe: records, a worker process that only writes lines, a scribe
process.

`python -m tests.ledger.parts feed …` is the worker: it publishes lines as fast as it can, or holds slots open, and
says so on standard output.
"""

import argparse
import contextlib
import json
import os
import random
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from edgeproxy.ledger import FIELDS, LedgerWriter, Stage
from edgeproxy.logging import AppendSink

ROOT = Path(__file__).parents[2]
PATIENCE_S = 60.0


def wait_until(happened: Callable[[], Any], what: str, patience_s: float = PATIENCE_S) -> None:
    """Poll until something has happened."""
    deadline = time.monotonic() + patience_s
    while not happened():
        assert time.monotonic() < deadline, f"timed out waiting until {what}"
        time.sleep(0.005)


def span_id(worker: int, seq: int) -> str:
    return f"{worker:04x}{seq:012x}"


def record(seq: int, worker: int = 0, **changes: Any) -> bytes:
    """A request's line, all fields, distinct for each worker and seq."""
    values: dict[str, Any] = dict.fromkeys((field.name for field in FIELDS), None)
    values |= {
        "ts": "2026-03-04T05:06:07.089012Z",
        "head_ms": 0.0,
        "trace_id": f"{worker:04x}{seq:028x}",
        "span_id": span_id(worker, seq),
        "sampled": False,
        "request_id": f"{seq}",
        "node": "edge",
        "worker": worker,
        "seq": seq,
        "client": "192.0.2.7",
        "method": "GET",
        "scheme": "http",
        "host": "example.test",
        "path": f"/{seq}",
        "query": "",
        "protocol": "HTTP/1.1",
        "status": 200,
        "bytes_in": 0,
        "bytes_out": 785,
        "cache": "HIT",
        "cache_age": 3,
        "cache_tier": "memory",
        "attempts": [],
        "duration_ms": 1.25,
        "outcome": "ok",
        "stage": "done",
        "sampling": "ratio",
        "exported": False,
        "user_agent": "test/1",
    }
    return json.dumps(values | changes, separators=(",", ":")).encode() + b"\n"


def prefix(seq: int, worker: int = 0, **changes: Any) -> bytes:
    """What a slot holds of that request: the record up to its protocol."""
    line = record(seq, worker, **changes)
    end = b'"protocol":"HTTP/1.1",'
    return line[: line.index(end) + len(end)]


def templates(worker: int) -> tuple[bytes, bytes]:
    """`prefix` and `record` with `%(seq)d` and its like for the seq: a worker that only writes must be quick."""
    wild = {
        "trace_id": f"{worker:04x}%(seq)028x",
        "span_id": f"{worker:04x}%(seq)012x",
        "request_id": "%(seq)d",
        "path": "/%(seq)d",
    }
    line = record(0, worker, **wild).replace(b'"seq":0,', b'"seq":%(seq)d,')
    end = b'"protocol":"HTTP/1.1",'
    return line[: line.index(end) + len(end)], line


def lines_of(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True) if path.exists() else []


def span_ids(*paths: Path) -> list[str]:
    """Span ids of all lines, in order; every line must be a whole record."""
    records = [json.loads(line) for path in paths for line in lines_of(path)]
    assert all(list(one) == [field.name for field in FIELDS] for one in records)
    return [one["span_id"] for one in records]


# The worker process.


def feed(options: argparse.Namespace) -> None:
    """Publish `lines` lines in bursts, then hold `leave_open` slots open until killed, or end."""
    ledger = LedgerWriter.create(options.dir, options.worker, 1, slots=64, ring_bytes=options.ring)
    if options.log:
        ledger.overflow = AppendSink(str(options.log), options.format).append
    pace = random.Random(options.worker)
    text, line = templates(options.worker)
    seq = 0
    print("ready", flush=True)
    while seq < options.lines:
        for _ in range(min(pace.randrange(1, 400), options.lines - seq)):
            values = {b"seq": seq}
            ledger.publish(ledger.open(seq, text % values), line % values)
            seq += 1
        if options.pause_s:
            time.sleep(options.pause_s)
    stages = list(Stage)
    for _ in range(options.leave_open):
        ledger.stage(ledger.open(seq, prefix(seq, options.worker)), stages[seq % len(stages)])
        seq += 1
    print("done", flush=True)
    if options.leave_open or options.stay:
        signal.pause()
    ledger.close()


class Feeder:
    """The worker process, as a test sees it."""

    def __init__(self, directory: Path, *, worker: int = 0, lines: int = 0, **options: Any) -> None:
        arguments = [sys.executable, "-m", "tests.ledger.parts", "feed", f"--dir={directory}", f"--worker={worker}"]
        arguments.append(f"--lines={lines}")
        for name, value in options.items():
            flag = f"--{name.replace('_', '-')}"
            arguments.append(flag if value is True else f"{flag}={value}")
        self.popen = subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert self._says() == "ready\n"

    def _says(self) -> str:
        assert self.popen.stdout is not None
        return self.popen.stdout.readline()

    def wait_done(self) -> None:
        assert self._says() == "done\n"

    def wait(self) -> None:
        """Wait until it has ended by itself."""
        assert self.popen.wait(PATIENCE_S) == 0

    def kill(self) -> None:
        self.popen.kill()
        self.popen.wait()

    def close(self) -> None:
        self.kill()
        assert self.popen.stdout is not None
        self.popen.stdout.close()


@contextlib.contextmanager
def feeder(directory: Path, **options: Any) -> Iterator[Feeder]:
    one = Feeder(directory, **options)
    try:
        yield one
    finally:
        one.close()


def feed_all(directory: Path, lines: int, **options: Any) -> None:
    """Run a worker that publishes so many lines and ends."""
    with feeder(directory, lines=lines, **options) as one:
        one.wait()


# The scribe process.


class Scribe:
    """A scribe process on a runtime directory; `start` again after `kill`."""

    def __init__(
        self, runtime_dir: Path, access: Path | str, log_format: str = "json", admin: str = "", stdout: Any = None
    ) -> None:
        from edgeproxy.config import Admin, Config, Log

        self._runtime_dir = runtime_dir
        self._config = runtime_dir / "config-1.json"
        config = Config(log=Log(access=str(access), format=log_format), admin=Admin(listen=admin))  # type: ignore[arg-type]
        self._config.write_bytes(config.to_json())
        self._stdout = stdout
        self.stderr = runtime_dir / "scribe.stderr"
        self.popen: subprocess.Popen[bytes] | None = None

    def spawn(self) -> int:
        """Start it and return the descriptor that it writes to when it works."""
        theirs, ours = os.pipe()[::-1]
        arguments = [f"--config={self._config}", f"--runtime-dir={self._runtime_dir}", f"--ready-fd={theirs}"]
        with self.stderr.open("ab") as stderr:
            self.popen = subprocess.Popen(
                [sys.executable, "-m", "edgeproxy.node.scribe", *arguments],
                cwd=ROOT,
                pass_fds=[theirs],
                stdin=subprocess.DEVNULL,
                stdout=self._stdout,
                stderr=stderr,
            )
        os.close(theirs)
        return ours

    def start(self) -> "Scribe":
        ready = self.spawn()
        try:
            assert select.select([ready], [], [], PATIENCE_S)[0], "the scribe did not come up in time"
            assert os.read(ready, 1) == b"1", self.stderr.read_text()
        finally:
            os.close(ready)
        return self

    @property
    def pid(self) -> int:
        assert self.popen is not None
        return self.popen.pid

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        if self.popen is not None:
            self.popen.kill()
            self.popen.wait()
            self.popen = None

    def stop(self) -> int:
        """SIGTERM, and wait; its exit code."""
        assert self.popen is not None
        self.popen.terminate()
        code = self.popen.wait(PATIENCE_S)
        self.popen = None
        return code

    def events(self) -> list[dict[str, Any]]:
        """What it said on standard error, over all its lives."""
        return [json.loads(line) for line in self.stderr.read_text().splitlines()]

    def said(self, words: str) -> list[dict[str, Any]]:
        return [event for event in self.events() if words in event["event"]]


@contextlib.contextmanager
def scribe(runtime_dir: Path, access: Path | str, **options: Any) -> Iterator[Scribe]:
    one = Scribe(runtime_dir, access, **options)
    try:
        yield one.start()
    finally:
        one.kill()


def _main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=["feed"])
    parser.add_argument("--dir", type=Path, required=True)
    parser.add_argument("--worker", type=int, default=0)
    parser.add_argument("--lines", type=int, default=0)
    parser.add_argument("--ring", type=int, default=16 * 1024 * 1024)
    parser.add_argument("--log", type=Path)
    parser.add_argument("--format", default="json")
    parser.add_argument("--leave-open", type=int, default=0)
    parser.add_argument("--stay", action="store_true")
    parser.add_argument("--pause-s", type=float, default=0.0)
    feed(parser.parse_args())


if __name__ == "__main__":
    _main()
