"""Starting programs on one core, waiting until they answer, and ending them with all that they started.

Every program gets a session of its own, so that Ctrl-C reaches the benchmark alone, which then ends them in order.
"""

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from bench import machine
from bench.errors import BenchError, MissingToolError

START_SECONDS = 30.0
STOP_SECONDS = 10.0
LEFTOVER_SECONDS = 2.0  # for children that outlive their parent
POLL_SECONDS = 0.02
SBIN = "/usr/local/sbin:/usr/sbin:/sbin"  # not on every user's PATH


def find_tool(name: str, package: str) -> str:
    """A program's path: beside this Python (a virtual environment's), on PATH, or in the system's sbin folders."""
    for path in (str(Path(sys.executable).parent), None, SBIN):
        if found := shutil.which(name, path=path):
            return found
    raise MissingToolError(name, package)


def free_port() -> int:
    """A loopback port that nobody listens on, below the range from which the kernel takes ports for outgoing
    connections: thousands of those come and go here, and one of them could sit on the port before the server does."""
    first_ephemeral = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for port in random.sample(range(10_000, first_ephemeral), k=200):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise BenchError("no free port on 127.0.0.1")


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Polls until the condition holds; False if it does not within that time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


def accepts(port: int) -> bool:
    """Whether somebody takes connections on this loopback port."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Program:
    """One program on one core; what it prints goes to a file, whose end is shown if it dies."""

    def __init__(self, command: list[str], core: int, output: Path, environ: Mapping[str, str] | None = None) -> None:
        self.name = Path(command[0]).name
        self.output = output
        taskset = find_tool("taskset", "apt-get install util-linux")
        with output.open("ab") as sink:
            self._process = subprocess.Popen(
                [taskset, "--cpu-list", str(core), *command],
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                env=environ,
                start_new_session=True,
            )
        self.pid = self._process.pid  # taskset executes the program in its own place, so this is the program's pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def wait_ready(self, ready: Callable[[], bool]) -> None:
        """Returns once `ready()` holds; raises with the program's own words if it ends or takes too long."""
        wait_until(lambda: not self.alive or ready(), START_SECONDS)
        if not self.alive:
            raise BenchError(f"{self.name} ended with code {self._process.returncode}:\n{self.last_words()}")
        if not ready():
            raise BenchError(f"{self.name} was not ready within {START_SECONDS:.0f} s:\n{self.last_words()}")

    def last_words(self) -> str:
        """The end of what it printed."""
        return "\n".join(self.output.read_text(errors="replace").splitlines()[-15:])

    def stop(self) -> None:
        """Ends it politely, then by force, with every process that it started."""
        family = machine.family(self.pid)
        if self.alive:
            self._process.terminate()
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        left = family - {self.pid}
        if not wait_until(lambda: not any(machine.command_line(pid) for pid in left), LEFTOVER_SECONDS):
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
