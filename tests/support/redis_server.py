"""One server of a Redis Cluster: its process, and what it knows of the others.

Which servers there are, and who is whose replica, is the cluster's business (`redis_cluster`).
"""

import os
import secrets
import shutil
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytest
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.support.blackhole import HOST, Blackhole
from tests.support.wait import until

if TYPE_CHECKING:
    from tests.support.redis_cluster import RedisServers

COMMAND_S = 5.0
"""How long one command may take."""
_LOG_TAIL_LINES = 20


def redis_program() -> str:
    """The path of redis-server; skips the test when it is not installed."""
    searched = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    found = shutil.which("redis-server", path=searched)
    if not found:
        pytest.skip("redis-server is not installed (make test installs it, or: apt-get install redis-server)")
    return found


@dataclass(frozen=True)
class Seen:
    """What a server knows of one: a line of CLUSTER NODES."""

    id: str
    flags: frozenset[str]
    master_id: str
    epoch: int
    connected: bool
    slots: tuple[range, ...]

    @classmethod
    def parse(cls, line: str) -> Self:
        """Read a line; slots that are on their way elsewhere, in brackets, still count where they were."""
        name, _address, flags, master, _ping, _pong, epoch, link, *slots = line.split()
        bounds = [slot.partition("-") for slot in slots if not slot.startswith("[")]
        ranges = tuple(range(int(first), int(last or first) + 1) for first, _, last in bounds)
        return cls(name, frozenset(flags.split(",")), master.strip("-"), int(epoch), link == "connected", ranges)

    def serves(self, slot: int) -> bool:
        """Whether a slot is its."""
        return any(slot in held for held in self.slots)

    @property
    def is_master(self) -> bool:
        """Whether it is a master: one that is down is for as long as nobody has taken its slots."""
        return "master" in self.flags and (bool(self.slots) or not self.flags & {"fail", "fail?"})

    @property
    def is_up(self) -> bool:
        """Whether it is reached, and nobody takes it for dead."""
        return self.connected and not self.flags & {"fail", "fail?", "handshake"}


View = Mapping[str, Seen]
"""The cluster as one server sees it, by id."""


class RedisServer:
    """One server of a cluster; made by it."""

    def __init__(
        self, cluster: "RedisServers", index: int, ports: tuple[int, int], blackhole: "Blackhole | None"
    ) -> None:
        self.host = HOST
        self.direct_port, self.bus_port = ports
        """Where it listens itself."""
        self.port = blackhole.port if blackhole else self.direct_port
        """Where clients find it: its own port, or that of the proxy in front of it."""
        self.address = f"{HOST}:{self.port}"
        self.id = secrets.token_hex(20)
        self.index = index
        self.folder = cluster.folder / f"server-{index}"
        self.log_file = self.folder / "redis.log"
        self.blackhole = blackhole
        self.is_stopped = False
        """Whether it was stopped and not continued."""
        self._cluster = cluster
        self._process: subprocess.Popen[bytes] | None = None
        self.control = cluster.client(self, socket_timeout=COMMAND_S, retry=Retry(NoBackoff(), 1))
        """A client of the cluster's own."""

    def __repr__(self) -> str:
        return f"<server {self.index} at {self.address}>"

    # --- its life

    def start(self) -> None:
        """Start it; it is not ready yet."""
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [redis_program(), str(self.folder / "redis.conf")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
            )
        self._cluster.leash(self._process.pid)

    def kill(self) -> None:
        """SIGKILL, and wait for its end."""
        if self._process:
            self._process.kill()
            self._process.wait()
        self._process = None
        self.is_stopped = False
        self.control.connection_pool.disconnect()

    def stop(self) -> None:
        """SIGSTOP: its sockets stay open and nothing comes out of them."""
        os.kill(self.pid, signal.SIGSTOP)
        until(lambda: self._state() == "T", f"{self} to stop")
        self.is_stopped = True

    def cont(self) -> None:
        """SIGCONT: what has come in meanwhile is answered."""
        os.kill(self.pid, signal.SIGCONT)
        self.is_stopped = False

    def restart(self) -> None:
        """Start it again where it was, killed or not, and wait until it is part of the cluster as all others see it."""
        self.kill()
        self.start()
        self._cluster.wait_ready()
        self._cluster.set_node_timeout(self)

    def is_running(self) -> bool:
        """Whether it answers, as far as signals go."""
        return self._process is not None and self._process.poll() is None and not self.is_stopped

    def ended(self) -> bool:
        """Whether it is no more, though nobody has killed it."""
        return self._process is not None and self._process.poll() is not None

    def _state(self) -> str:
        return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]

    # --- how it is

    @property
    def pid(self) -> int:
        """Its pid."""
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> str:
        """The end of its log."""
        lines = self.log_file.read_text(errors="replace").splitlines() if self.log_file.exists() else []
        return "\n".join(lines[-_LOG_TAIL_LINES:])

    @property
    def is_master(self) -> bool:
        """Whether it is a master, as the cluster sees it now."""
        return self._cluster.view()[self.id].is_master

    def command(self, *words: Any) -> Any:
        """Have it execute a command; the bare answer."""
        return self.control.execute_command(*words)

    def takes_commands(self) -> bool:
        """Whether it serves: the cluster's state is ok, as it sees it."""
        info: bytes = self.command("CLUSTER", "INFO")
        return b"cluster_state:ok" in info

    def sees(self) -> View:
        """The cluster as it sees it."""
        text: bytes = self.command("CLUSTER", "NODES")
        return {seen.id: seen for seen in map(Seen.parse, text.decode().splitlines())}
