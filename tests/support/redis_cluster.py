"""A real Redis Cluster of six servers: three masters with a replica each, on free ports, nothing kept on disk.

    with RedisServers() as cluster:
        cluster.cluster_client().set("key", "value")
        dead = cluster.node_of("key")
        dead.kill()
        cluster.wait_failover(dead)

Ready when the context is entered: all slots served, replicas in step. The servers never meet: each finds the whole
cluster in the nodes.conf that it would have written itself, so that the two seconds for which a master that has just
started refuses writes are all that a start takes. From a shell: `python -m tests.support.redis_cluster` runs one until
Ctrl-C.
"""

import contextlib
import os
import random
import secrets
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pytest
from redis import Redis, RedisError
from redis.backoff import NoBackoff
from redis.client import Monitor
from redis.cluster import ClusterNode, RedisCluster
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.retry import Retry

from tests.support.redis_tls import RedisTls
from tests.support.wait import PATIENCE_S, until

HOST = "127.0.0.1"
MASTERS = 3
SERVERS = 2 * MASTERS
_TRIES = 5
_LOG_TAIL_LINES = 20
_COMMAND_S = 5.0
_BATCH_KEYS = 100
_READ_S = 0.05
_FORMING_MS = 1000
"""The node timeout of servers that start: they hear of each other twice in that time."""
_PIECE_BYTES = 65536
_PORTS = range(12000, 32000)
"""Below those from which Linux takes the ports of outgoing connections: a server that restarts finds its own free."""

# When the test process ends, however it ends, its pipe does, and so do the servers: those of the pids on the pipe that
# work in the cluster's folder.
_LEASH = """
while read pid; do pids="$pids $pid"; done
for pid in $pids; do case "$(readlink /proc/$pid/cwd)" in "$0"/*) kill -KILL $pid;; esac; done
rm -rf "$0"
"""


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
        self.control = cluster.client(self, socket_timeout=_COMMAND_S, retry=Retry(NoBackoff(), 1))
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


class RedisServers:
    """Six servers that are a cluster; a context manager."""

    def __init__(
        self,
        *,
        node_timeout_ms: int = 1000,
        tls: bool = False,
        mutual_tls: bool = False,
        password: str = "",
        users: Sequence[str] = (),
        config: Mapping[str, object] | None = None,
        proxied: bool = False,
    ) -> None:
        """Prepare them.

        A failover takes two or three times `node_timeout_ms`; that much silence from a busy machine is one, too.
        `password` is the default user's, `users` are ACL lines ("edge on >secret ~edge:* +@all"), `config` further
        directives for redis.conf. `mutual_tls` is TLS where clients show a certificate. `proxied` announces
        a `Blackhole` in front of each server, for `cut` and `mend`.
        """
        redis_program()
        self.folder = Path(tempfile.mkdtemp(prefix="edgeproxy-redis-", dir=_memory_folder()))
        self.nodes: list[RedisServer] = []
        """The servers: first those that start as masters, then their replicas in the same order."""
        self.tls = RedisTls(self.folder, mutual_tls) if tls or mutual_tls else None
        self._timeout_ms = node_timeout_ms
        self._password = password
        self._users = users
        self._config = config or {}
        self._proxied = proxied
        self._clients = ExitStack()
        self._moving: dict[int, tuple[RedisServer, RedisServer]] = {}
        self._leash: subprocess.Popen[bytes] | None = None
        # Commands of the cluster's own, and replication: whatever the default user and others may do.
        self._control = ("support", secrets.token_hex(16))

    # --- its life

    def __enter__(self) -> Self:
        try:
            self._leash = subprocess.Popen(
                ["/bin/sh", "-c", _LEASH, str(self.folder)], stdin=subprocess.PIPE, bufsize=0, start_new_session=True
            )
            if self.tls:
                self.tls.issue()
            for _ in range(_TRIES):
                if self._start():
                    return self
        except BaseException:
            self.__exit__()
            raise
        self.__exit__()
        raise AssertionError(f"no free ports in {_TRIES} tries")

    def __exit__(self, *_: object) -> None:
        try:
            self._kill_all()
        finally:
            if self._leash and self._leash.stdin:
                self._leash.stdin.close()
                self._leash.wait()
            shutil.rmtree(self.folder, ignore_errors=True)

    def leash(self, pid: int) -> None:
        """Have a server end with this process."""
        assert self._leash
        assert self._leash.stdin
        self._leash.stdin.write(b"%d\n" % pid)

    def set_node_timeout(self, node: RedisServer) -> None:
        """Have a server that has started be as patient as was asked for."""
        node.control.config_set("cluster-node-timeout", self._timeout_ms)

    def _start(self) -> bool:
        """Start on free ports; False when another program has taken one of them meanwhile."""
        ports = iter(_free_ports(2 * SERVERS))
        for index in range(SERVERS):
            pair = (next(ports), next(ports))
            self.nodes.append(RedisServer(self, index, pair, Blackhole(pair[0]) if self._proxied else None))
        for node in self.nodes:
            shutil.rmtree(node.folder, ignore_errors=True)
            node.folder.mkdir()
            (node.folder / "redis.conf").write_text(self._redis_conf(node), encoding="utf-8")
            (node.folder / "nodes.conf").write_text(self._nodes_conf(node), encoding="utf-8")
            node.start()
        try:
            self.wait_ready()
        except AssertionError:
            if any("Failed listening" in node.log for node in self.nodes):
                self._kill_all()
                return False
            raise
        for node in self.nodes:
            self.set_node_timeout(node)
        return True

    def _kill_all(self) -> None:
        """Leave nothing behind, whatever went wrong; a stopped process takes SIGKILL, too."""
        for node in self.nodes:
            node.kill()
            if node.blackhole:
                node.blackhole.close()
        self.close_clients()
        self.nodes.clear()
        self._moving.clear()

    def _redis_conf(self, node: RedisServer) -> str:
        user, password = self._control
        directives = {
            "bind": HOST,
            "port": node.direct_port,
            "cluster-enabled": "yes",
            "cluster-config-file": "nodes.conf",
            "cluster-port": node.bus_port,
            "cluster-announce-tls-port" if self.tls else "cluster-announce-port": node.port,
            "cluster-node-timeout": min(self._timeout_ms, _FORMING_MS),
            "cluster-require-full-coverage": "no",
            "cluster-allow-replica-migration": "no",
            "cluster-replica-validity-factor": 0,
            "dir": node.folder,
            "save": '""',
            "appendonly": "no",
            "daemonize": "no",
            "enable-debug-command": "local",
            "repl-diskless-sync": "yes",
            "repl-diskless-sync-delay": 0,
            "repl-ping-replica-period": 1,  # a replica that has received nothing yet is shown to no client
            "masteruser": user,
            "masterauth": password,
            **(self.tls.directives(node.direct_port) if self.tls else {}),
            **({"requirepass": self._password} if self._password else {}),
            **self._config,
        }
        users = [f"user {user} on >{password} ~* &* +@all", *(f"user {line}" for line in self._users)]
        return "\n".join([*(f"{name} {value}" for name, value in directives.items()), *users, ""])

    def _nodes_conf(self, myself: RedisServer) -> str:
        lines = [f"vars currentEpoch {MASTERS} lastVoteEpoch 0"]
        for node in self.nodes:
            shard = node.index % MASTERS
            master = self.nodes[shard]
            role, above, slots = ("master", "-", _share(shard)) if node is master else ("slave", master.id, "")
            flags = f"myself,{role}" if node is myself else role
            lines.append(f"{node.id} {node.address}@{node.bus_port} {flags} {above} 0 0 {shard + 1} connected {slots}")
        return "\n".join([*lines, ""])

    # --- how it is

    @property
    def addresses(self) -> list[str]:
        """Where clients find the servers."""
        return [node.address for node in self.nodes]

    def running(self) -> list[RedisServer]:
        """The servers that are neither killed nor stopped."""
        return [node for node in self.nodes if node.is_running()]

    def view(self) -> View:
        """The cluster as the server sees it that has heard of the latest change."""
        views = [node.sees() for node in self.running()]
        return max(views, key=lambda view: max(seen.epoch for seen in view.values() if seen.is_master))

    def masters(self) -> list[RedisServer]:
        """The masters, among them one that is down and not replaced yet."""
        view = self.view()
        return [node for node in self.nodes if view[node.id].is_master]

    def replicas(self) -> list[RedisServer]:
        """The replicas."""
        view = self.view()
        return [node for node in self.nodes if "slave" in view[node.id].flags]

    def replica_of(self, master: RedisServer) -> RedisServer:
        """The replica of a master."""
        view = self.view()
        return next(node for node in self.nodes if view[node.id].master_id == master.id)

    def node_of(self, key: bytes | str) -> RedisServer:
        """The master of a key."""
        return self.node_of_slot(slot_of(key))

    def node_of_slot(self, slot: int) -> RedisServer:
        """The master of a slot."""
        view = self.view()
        return next(node for node in self.nodes if view[node.id].serves(slot))

    # --- its clients

    def client(self, node: RedisServer, **options: Any) -> Redis:
        """A client of one server, past any proxy, who may do everything; `options` are redis-py's."""
        client = Redis(host=HOST, port=node.direct_port, **{**self._client_options(), **options})
        self._clients.callback(client.close)
        return client

    def cluster_client(self, **options: Any) -> RedisCluster:
        """A client of the cluster, where it says that it is; `options` are redis-py's."""
        nodes = [ClusterNode(HOST, node.port) for node in self.running()]
        client = RedisCluster(startup_nodes=nodes, **{**self._client_options(), **options})
        self._clients.callback(client.close)
        return client

    def close_clients(self) -> None:
        """Close the connections of all clients so far; one that is used again opens new ones."""
        self._clients.close()

    def _client_options(self) -> dict[str, Any]:
        user, password = self._control
        tls = self.tls.client_options() if self.tls else {}
        return {"username": user, "password": password, "protocol": 2, **tls}

    @contextlib.contextmanager
    def monitor(self, node: RedisServer) -> Iterator["Monitored"]:
        """What a server is asked from here on."""
        monitored = Monitored(self.client(node), node.control)
        try:
            yield monitored
        finally:
            monitored.close()

    # --- what is done to it

    def flush(self) -> None:
        """Forget all keys, functions and slow commands, and moves that were not ended. Users and CONFIG stay."""
        masters = self.masters()
        for slot, ends in self._moving.items():
            for node in ends:
                if node in masters:
                    node.command("CLUSTER", "SETSLOT", slot, "STABLE")
        self._moving.clear()
        for master in masters:
            master.command("FLUSHALL", "SYNC")
            master.command("FUNCTION", "FLUSH", "SYNC")
            master.control.wait(1, round(_COMMAND_S * 1000) // 2)
        for node in self.running():
            node.control.slowlog_reset()

    def move_slot(self, slot: int, to: RedisServer) -> None:
        """Move a slot and its keys to another master; all servers know when this returns."""
        self.begin_move(slot, to)
        self.end_move(slot)

    def begin_move(self, slot: int, to: RedisServer, *keys: bytes | str) -> None:
        """Leave a slot half-way: these keys have moved, the slot's others have not.

        Its master answers for the keys that it still has, and with ASK for all others.
        """
        source = self.node_of_slot(slot)
        to.command("CLUSTER", "SETSLOT", slot, "IMPORTING", source.id)
        source.command("CLUSTER", "SETSLOT", slot, "MIGRATING", to.id)
        self._moving[slot] = (source, to)
        self._migrate(source, to, keys)

    def end_move(self, slot: int) -> None:
        """Bring what `begin_move` began to its end: the slot's other keys move, and all servers know."""
        source, to = self._moving.pop(slot)
        while keys := source.command("CLUSTER", "GETKEYSINSLOT", slot, _BATCH_KEYS):
            self._migrate(source, to, keys)
        others = [node for node in self.masters() if node not in (source, to)]
        for node in (to, source, *others):
            node.command("CLUSTER", "SETSLOT", slot, "NODE", to.id)
        until(lambda: all(node.sees()[to.id].serves(slot) for node in self.running()), f"slot {slot} to be with {to}")

    def _migrate(self, source: RedisServer, to: RedisServer, keys: Sequence[bytes | str]) -> None:
        if keys:
            place = (HOST, to.direct_port, "", 0, round(_COMMAND_S * 1000))
            source.command("MIGRATE", *place, "AUTH2", *self._control, "KEYS", *keys)

    def cut(self, node: RedisServer) -> None:
        """Have the proxy in front of a server swallow everything; other servers still hear it on the cluster's bus."""
        assert node.blackhole, "the cluster is not proxied"
        node.blackhole.cut()

    def mend(self, node: RedisServer) -> None:
        """Have the proxy forward again; connections on which something may be lost are closed."""
        assert node.blackhole, "the cluster is not proxied"
        node.blackhole.mend()

    # --- waiting

    def wait_ready(self) -> None:
        """Wait until all servers that are not killed or stopped serve, know of each other and are in step."""
        until(lambda: all(self._is_ready(node) for node in self.running()), "Redis Cluster to be ready")

    def wait_failover(self, dead: RedisServer) -> RedisServer:
        """Wait until another master serves the slots of one that was killed or stopped, as all see it; that master."""
        heir = self.nodes[(dead.index + MASTERS) % SERVERS]

        def taken_over() -> bool:
            views = [node.sees() for node in self.running()]
            return all(view[heir.id].slots and not view[dead.id].slots for view in views) and heir.takes_commands()

        until(taken_over, f"a failover of {dead}")
        return heir

    def _is_ready(self, node: RedisServer) -> bool:
        for server in self.nodes:
            if server.ended():
                raise AssertionError(f"{server} ended:\n{server.log}")
        try:
            view = node.sees()
            knows_all = all(view[other.id].is_up for other in self.running())
            return knows_all and node.takes_commands() and self._is_in_step(node, view) and self._shows_all(node)
        except RedisError:
            return False  # it is still starting

    def _is_in_step(self, node: RedisServer, view: View) -> bool:
        info: dict[str, Any] = node.control.info("replication")
        running = {server.id for server in self.running()}
        if info["role"] == "slave":
            return info["master_link_status"] == "up" or view[node.id].master_id not in running
        replicas = [seen for seen in view.values() if seen.master_id == node.id and seen.id in running]
        online = [at for at in range(info["connected_slaves"]) if info[f"slave{at}"]["state"] == "online"]
        return len(online) >= len(replicas)

    def _shows_all(self, node: RedisServer) -> bool:
        shown = {server[2].decode() for slots in node.command("CLUSTER", "SLOTS") for server in slots[2:]}
        return shown >= {server.id for server in self.running()}


class Monitored:
    """What a server is asked: MONITOR's lines, read by a thread."""

    def __init__(self, client: Redis, control: Redis) -> None:
        """Monitor with one client; the other one is for marks."""
        self.lines: list[str] = []
        """The lines so far: `1700000000.000001 [0 127.0.0.1:4242] "GET" "key"`."""
        self._control = control
        self._monitor: Monitor = client.monitor()
        self._closing = False
        self._monitor.__enter__()
        self._thread = threading.Thread(target=self._read, name="MONITOR", daemon=True)
        self._thread.start()

    def until(self, predicate: Callable[[str], bool], *, timeout: float = PATIENCE_S) -> str:
        """Wait for the first line of which this holds."""
        return until(lambda: next(filter(predicate, list(self.lines)), None), "a line of MONITOR", timeout=timeout)

    def flushed(self) -> list[str]:
        """The lines of all commands that were executed by now."""
        mark = secrets.token_hex(8)
        self._control.echo(mark)
        end = self.lines.index(self.until(lambda line: mark in line))
        return [line for line in self.lines[:end] if not line.endswith('"ECHO"')]

    def close(self) -> None:
        """Stop reading."""
        self._closing = True
        self._thread.join()
        self._monitor.__exit__()

    def _read(self) -> None:
        connection = self._monitor.connection
        with contextlib.suppress(RedisError, OSError):  # the server was killed
            while not self._closing:
                if connection.can_read(timeout=_READ_S):
                    self.lines.append(connection.read_response().decode())


class Blackhole:
    """A TCP proxy that can silently stop forwarding: connections stay open, or open, and nothing comes of them."""

    def __init__(self, upstream_port: int) -> None:
        """Listen on a free port."""
        self._upstream_port = upstream_port
        self._is_cut = False
        self._open: set[_Passage] = set()
        self._lock = threading.Lock()
        self._listener = socket.create_server((HOST, 0), backlog=1024)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, name=f"blackhole {self.port}", daemon=True).start()

    def cut(self) -> None:
        """Swallow what comes from now on, in both directions."""
        with self._lock:
            self._is_cut = True
            for passage in self._open:
                passage.lost = True

    def mend(self) -> None:
        """Forward again, on new connections; those that were cut are closed."""
        with self._lock:
            self._is_cut = False
            lost = [passage for passage in self._open if passage.lost]
        for passage in lost:
            passage.end()

    def close(self) -> None:
        """Stop listening and close everything."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            left = list(self._open)
        for passage in left:
            passage.end()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with self._lock:
            passage = _Passage(client, self._is_cut)
            self._open.add(passage)
        try:
            passage.forward(self._upstream_port)
        finally:
            with self._lock:
                self._open.discard(passage)


class _Passage:
    """A client's connection and the one that it leads to; one that was ever cut is lost."""

    def __init__(self, client: socket.socket, lost: bool) -> None:
        self.lost = lost
        self._ended = threading.Event()
        self._sockets = [client]

    def forward(self, port: int) -> None:
        """Forward until both sides have closed; a lost one stays until it is ended."""
        (client,) = self._sockets
        try:
            if self.lost:
                self._swallow(client)
                return
            server = socket.create_connection((HOST, port), timeout=_COMMAND_S)
            server.settimeout(None)
            self._sockets.append(server)
            for sock in self._sockets:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            back = threading.Thread(target=self._pump, args=(server, client), daemon=True)
            back.start()
            self._pump(client, server)
            back.join()
        except OSError:  # nobody listens there
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        finally:
            for sock in self._sockets:
                sock.close()

    def end(self) -> None:
        """Close both connections."""
        self._ended.set()
        for sock in list(self._sockets):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(_PIECE_BYTES):
                if not self.lost:
                    sink.sendall(data)
        if self.lost:
            self._ended.wait()
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def _swallow(self, source: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while source.recv(_PIECE_BYTES):
                pass
        self._ended.wait()


def slot_of(key: bytes | str) -> int:
    """The slot of a key."""
    return int(key_slot(key.encode() if isinstance(key, str) else key))


def _share(shard: int) -> str:
    """The slots with which a master starts, as nodes.conf has them."""
    bounds = [REDIS_CLUSTER_HASH_SLOTS * at // MASTERS for at in (shard, shard + 1)]
    return f"{bounds[0]}-{bounds[1] - 1}"


def _free_ports(count: int) -> list[int]:
    """Different ports that nothing listens on; another program may still take one first."""
    dice = random.SystemRandom()  # hypothesis seeds the common one
    with ExitStack() as probes:
        found: list[int] = []
        while len(found) < count:
            port = dice.choice(_PORTS)
            with contextlib.suppress(OSError):
                probes.enter_context(socket.create_server((HOST, port)))
                found.append(port)
    return found


def _memory_folder() -> str | None:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def main() -> None:
    """Run a cluster until Ctrl-C."""
    started = time.monotonic()
    with RedisServers() as cluster:
        print(f"{time.monotonic() - started:.1f} s:", *cluster.addresses, flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()


if __name__ == "__main__":
    main()
