"""The demo's Redis Cluster: three masters with a replica each, on free ports, nothing kept on disk.

The servers never meet: each finds the whole cluster in the nodes.conf that it would have written itself, so a start
takes no longer than the two seconds for which a new master refuses writes.
"""

import contextlib
import os
import secrets
import shlex
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from redis import Redis, RedisError
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from edgeproxy.demo.leash import leashed
from edgeproxy.node.errors import NodeError

HOST = "127.0.0.1"
MASTERS = 3
SERVERS = 2 * MASTERS
USUAL_PLACES = ("/usr/bin", "/usr/sbin", "/usr/local/bin")
"""Where redis-server is, should the PATH not have it."""
_TRIES = 5
_READY_S = 30.0
_POLL_S = 0.05
_PORTS = range(12000, 32000)
"""Below those from which Linux takes the ports of outgoing connections."""

_CONFIG = """\
bind {host}
port {port}
cluster-enabled yes
cluster-config-file nodes.conf
cluster-port {bus_port}
cluster-node-timeout 2000
cluster-require-full-coverage no
dir {folder}
pidfile {folder}/pid
save ""
appendonly no
repl-diskless-sync-delay 0
slowlog-log-slower-than 0
slowlog-max-len 1000
"""


class RedisMissingError(NodeError):
    """There is no redis-server, or it does not do what is wanted of it."""

    code = "redis_missing"


class Server(NamedTuple):
    """One server of the cluster."""

    port: int
    bus_port: int
    id: str
    folder: Path

    @property
    def address(self) -> str:
        """Where clients find it."""
        return f"{HOST}:{self.port}"


class Cluster(NamedTuple):
    """A running cluster: first the masters, then their replicas in the same order."""

    servers: list[Server]

    @property
    def addresses(self) -> list[str]:
        """Where clients find it."""
        return [server.address for server in self.servers]

    def master_of(self, key: str) -> Server:
        """The server that starts with a key's slot."""
        return self.servers[key_slot(key.encode()) * MASTERS // REDIS_CLUSTER_HASH_SLOTS]


def redis_program() -> str:
    """The path of redis-server. Raises RedisMissingError."""
    found = shutil.which("redis-server", path=os.pathsep.join([os.environ.get("PATH", ""), *USUAL_PLACES]))
    if found is None:
        raise RedisMissingError(
            "redis-server is not installed, and the demo's cluster is made of it: apt-get install redis-server"
        )
    return found


@contextmanager
def running_cluster(folder: Path, is_ended: Callable[[], bool]) -> Iterator[Cluster]:
    """Run a cluster, its files in a folder; it serves when the context is entered, unless `is_ended` by then. Raises
    RedisMissingError.
    """
    program = redis_program()
    log = folder / "redis.log"
    for _ in range(_TRIES):
        servers = _servers(folder)
        lines = [shlex.join([program, str(server.folder / "redis.conf")]) for server in servers]
        with leashed(*lines, log=log, end="KILL"):
            if _is_ready(servers, log, is_ended):
                yield Cluster(servers)
                return
    raise RedisMissingError(f"no free ports in {_TRIES} tries")


def _servers(folder: Path) -> list[Server]:
    """Make what the servers find when they start."""
    ports = iter(_free_ports(2 * SERVERS))
    servers = [
        Server(next(ports), next(ports), secrets.token_hex(20), folder / f"redis-{index}") for index in range(SERVERS)
    ]
    for server in servers:
        shutil.rmtree(server.folder, ignore_errors=True)
        server.folder.mkdir()
        text = _CONFIG.format(host=HOST, port=server.port, bus_port=server.bus_port, folder=server.folder)
        (server.folder / "redis.conf").write_text(text, encoding="utf-8")
        (server.folder / "nodes.conf").write_text(_nodes(servers, server), encoding="utf-8")
    return servers


def _nodes(servers: list[Server], myself: Server) -> str:
    lines = [f"vars currentEpoch {MASTERS} lastVoteEpoch 0"]
    for index, server in enumerate(servers):
        shard = index % MASTERS
        first, last = (REDIS_CLUSTER_HASH_SLOTS * at // MASTERS for at in (shard, shard + 1))
        is_master = index < MASTERS
        role, above, slots = ("master", "-", f"{first}-{last - 1}") if is_master else ("slave", servers[shard].id, "")
        flags = f"myself,{role}" if server is myself else role
        where = f"{server.address}@{server.bus_port}"
        lines.append(f"{server.id} {where} {flags} {above} 0 0 {shard + 1} connected {slots}".rstrip())
    return "\n".join([*lines, ""])


def _is_ready(servers: list[Server], log: Path, is_ended: Callable[[], bool]) -> bool:
    """Wait until all servers serve; False when another program has taken one of their ports meanwhile."""
    deadline = time.monotonic() + _READY_S
    with ExitStack() as stack:
        clients = [stack.enter_context(contextlib.closing(Redis(HOST, server.port))) for server in servers]
        while not all(map(_serves, clients)):
            if is_ended():
                return True
            said = log.read_text(errors="replace")
            if "Failed listening" in said:
                log.unlink()
                return False
            if time.monotonic() > deadline:
                raise RedisMissingError(f"the Redis Cluster was not ready in {_READY_S:g} s: {said[-500:]}")
            time.sleep(_POLL_S)
    return True


def _serves(client: Redis) -> bool:
    try:
        state: bytes = client.execute_command("CLUSTER", "INFO")  # type: ignore[no-untyped-call]
        if b"cluster_state:ok" not in state:
            return False
        info = client.info("replication")
    except RedisError:
        return False  # it is still starting
    return bool(info["connected_slaves"] if info["role"] == "master" else info["master_link_status"] == "up")


def _free_ports(count: int) -> list[int]:
    """Different ports that nothing listens on; another program may still take one first."""
    with ExitStack() as probes:
        found: list[int] = []
        while len(found) < count:
            port = secrets.choice(_PORTS)
            with contextlib.suppress(OSError):
                probes.enter_context(socket.create_server((HOST, port)))
                found.append(port)
    return found
