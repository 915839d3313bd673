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
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from redis import Redis, RedisError
from redis.cluster import ClusterNode, RedisCluster
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from tests.support.blackhole import HOST, Blackhole
from tests.support.redis_monitor import Monitored
from tests.support.redis_server import COMMAND_S, RedisServer, View, redis_program
from tests.support.redis_tls import RedisTls
from tests.support.wait import until

MASTERS = 3
SERVERS = 2 * MASTERS
_TRIES = 5
_BATCH_KEYS = 100
_FORMING_MS = 1000
"""The node timeout of servers that start: they hear of each other twice in that time."""
_PORTS = range(12000, 32000)
"""Below those from which Linux takes the ports of outgoing connections: a server that restarts finds its own free."""

# When the test process ends, however it ends, its pipe does, and so do the servers: those of the pids on the pipe that
# work in the cluster's folder.
_LEASH = """
while read pid; do pids="$pids $pid"; done
for pid in $pids; do case "$(readlink /proc/$pid/cwd)" in "$0"/*) kill -KILL $pid;; esac; done
rm -rf "$0"
"""


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
            master.control.wait(1, round(COMMAND_S * 1000) // 2)
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
            place = (HOST, to.direct_port, "", 0, round(COMMAND_S * 1000))
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
