"""The Redis Cluster that tests run against does what they take for granted."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import redis
from redis import AuthenticationError, Redis, ResponseError
from redis.backoff import NoBackoff
from redis.exceptions import NoPermissionError
from redis.retry import Retry

from tests.support import RedisServer, RedisServers, slot_of, until
from tests.support import redis_cluster as module

Start = Callable[..., RedisServers]

ONCE = Retry(NoBackoff(), 0)


def answers(node: RedisServer) -> bool:
    """Whether a PING on a new connection is answered within half a second, by way of what the node announces."""
    with Redis(port=node.port, socket_timeout=0.5, retry=ONCE) as client:
        try:
            return client.execute_command("PING") is True
        except redis.TimeoutError:
            return False


# --- as it is started


def test_three_masters_with_a_replica_each_serve_all_slots(redis_cluster: RedisServers) -> None:
    masters, replicas = redis_cluster.masters(), redis_cluster.replicas()
    assert [len(masters), len(replicas)] == [3, 3]
    assert {redis_cluster.replica_of(master) for master in masters} == set(replicas)
    assert {redis_cluster.node_of_slot(slot) for slot in (0, 8000, 16383)} == set(masters)
    assert len(set(redis_cluster.addresses)) == 6
    assert all(node.takes_commands() for node in redis_cluster.nodes)


def test_keys_lie_with_their_master_and_reach_its_replica(redis_cluster: RedisServers) -> None:
    client = redis_cluster.cluster_client()
    for name in ("a", "b", "c", "{a}d"):
        client.set(name, b"value")
        master = redis_cluster.node_of(name)
        assert redis_cluster.client(master).get(name) == b"value"
        replica = redis_cluster.client(redis_cluster.replica_of(master))
        replica.execute_command("READONLY")
        until(lambda replica=replica, name=name: replica.get(name) == b"value", "replication")
    assert redis_cluster.node_of("a") is redis_cluster.node_of(b"{a}d")


def test_the_servers_keep_nothing_on_disk(redis_cluster: RedisServers) -> None:
    for node in redis_cluster.nodes:
        settings = redis_cluster.client(node).config_get("save", "appendonly", "enable-debug-command")
        assert settings == {"save": "", "appendonly": "no", "enable-debug-command": "local"}


def test_two_clusters_side_by_side_know_nothing_of_each_other(
    redis_cluster: RedisServers, start_redis_cluster: Start
) -> None:
    other = start_redis_cluster()
    redis_cluster.cluster_client().set("key", "here")
    other.cluster_client().set("key", "there")
    assert redis_cluster.client(redis_cluster.node_of("key")).get("key") == b"here"
    assert other.client(other.node_of("key")).get("key") == b"there"
    assert not set(redis_cluster.addresses) & set(other.addresses)
    assert all(len(node.sees()) == 6 for node in other.nodes)


def test_ports_that_another_program_takes_first_are_left_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken, free_ports = other.getsockname()[1], module._free_ports
        lists = iter([[taken, *free_ports(11)], [*free_ports(11), taken]])
        monkeypatch.setattr(module, "_free_ports", lambda count: next(lists, None) or free_ports(count))
        with RedisServers() as cluster:
            assert next(lists, None) is None
            assert all(node.takes_commands() for node in cluster.nodes)
            assert not any(taken in (node.port, node.bus_port) for node in cluster.nodes)


# --- shared by tests


def test_a_flush_forgets_keys_functions_slow_commands_and_moves(redis_cluster: RedisServers) -> None:
    master, other, _ = redis_cluster.masters()
    client = redis_cluster.client(master)
    slot = next(iter(master.sees()[master.id].slots[0]))
    redis_cluster.cluster_client().set("key", "value")
    client.function_load("#!lua name=mine\nredis.register_function('one', function() return 1 end)")
    client.config_set("slowlog-log-slower-than", 0)
    client.dbsize()
    client.config_set("slowlog-log-slower-than", 10000)
    redis_cluster.begin_move(slot, other)

    redis_cluster.flush()

    assert [redis_cluster.client(node).dbsize() for node in redis_cluster.nodes] == [0] * 6
    assert client.function_list() == []
    assert client.slowlog_len() == 0
    text = master.command("CLUSTER", "NODES").decode()
    assert "->-" not in text
    assert "-<-" not in text


# --- what it is asked


def test_a_monitor_shows_what_a_server_is_asked(redis_cluster: RedisServers) -> None:
    node = redis_cluster.node_of("key")
    with redis_cluster.monitor(node) as monitored:
        redis_cluster.client(node).set("key", b'a "b"\xff')
        assert monitored.until(lambda line: '"SET"' in line).endswith(r'"SET" "key" "a \"b\"\xff"')
        redis_cluster.client(node).get("key")
        assert any(line.endswith('"GET" "key"') for line in monitored.flushed())
        assert not any('"DEL"' in line for line in monitored.flushed())


# --- slots on the move


def test_a_slot_half_way_answers_with_ask_for_the_keys_that_have_moved(redis_cluster: RedisServers) -> None:
    source = redis_cluster.node_of("{key}")
    target = next(master for master in redis_cluster.masters() if master is not source)
    client, slot = redis_cluster.cluster_client(), slot_of("{key}")
    client.mset_nonatomic({"{key}moved": 1, "{key}stays": 2})

    redis_cluster.begin_move(slot, target, "{key}moved")

    direct = redis_cluster.client(source)
    assert direct.get("{key}stays") == b"2"
    with pytest.raises(ResponseError, match=f"{slot} {target.address}"):
        direct.get("{key}moved")
    assert [client.get("{key}moved"), client.get("{key}stays")] == [b"1", b"2"]
    assert redis_cluster.node_of("{key}") is source

    redis_cluster.end_move(slot)

    assert redis_cluster.node_of("{key}") is target
    with pytest.raises(ResponseError, match=f"{slot} {target.address}"):
        direct.get("{key}stays")
    assert redis_cluster.client(target).mget("{key}moved", "{key}stays") == [b"1", b"2"]


def test_a_slot_moves_with_all_its_keys_and_back(redis_cluster: RedisServers) -> None:
    source = redis_cluster.node_of("{key}")
    target = next(master for master in redis_cluster.masters() if master is not source)
    client = redis_cluster.cluster_client()
    client.mset_nonatomic({f"{{key}}{at}": at for at in range(250)})
    for end in (target, source):
        redis_cluster.move_slot(slot_of("{key}"), end)
        assert redis_cluster.node_of("{key}") is end
        assert redis_cluster.client(end).dbsize() == 250
        assert client.get("{key}249") == b"249"


# --- servers that fail


def test_a_replica_takes_over_from_a_master_that_is_killed(start_redis_cluster: Start) -> None:
    cluster = start_redis_cluster()
    client = cluster.cluster_client()
    client.set("key", "value")
    dead = cluster.node_of("key")
    replica = cluster.replica_of(dead)
    cluster.client(dead).wait(1, 5000)

    dead.kill()

    assert cluster.wait_failover(dead) is replica
    assert cluster.node_of("key") is replica
    assert dead not in cluster.masters()
    assert client.get("key") == b"value"

    dead.restart()

    assert cluster.replica_of(replica) is dead
    assert not dead.is_master
    assert cluster.client(dead).dbsize() == 1


def test_a_replica_takes_over_from_a_master_that_is_stopped(start_redis_cluster: Start) -> None:
    cluster = start_redis_cluster()
    dead = cluster.node_of("key")
    dead.stop()
    heir = cluster.wait_failover(dead)
    dead.cont()
    cluster.wait_ready()
    until(lambda: cluster.replica_of(heir) is dead, "the one that was stopped to follow")
    until(lambda: not dead.sees()[dead.id].is_master, "…and to know it")


def test_a_server_that_ends_while_it_starts_tells_why(start_redis_cluster: Start) -> None:
    with pytest.raises(AssertionError, match="no-such-directive"):
        start_redis_cluster(config={"no-such-directive": "1"})


# --- networks that fail


def test_a_server_that_is_cut_off_swallows_everything_and_stays_a_master(start_redis_cluster: Start) -> None:
    cluster = start_redis_cluster(proxied=True)
    node, other, _ = cluster.masters()
    open_before = socket.create_connection((node.host, node.port), timeout=0.3)
    open_before.sendall(b"PING\r\n")
    assert b"NOAUTH" not in open_before.recv(100)

    cluster.cut(node)

    open_before.sendall(b"PING\r\n")
    with pytest.raises(TimeoutError):
        open_before.recv(100)
    open_after = socket.create_connection((node.host, node.port), timeout=0.3)
    open_after.sendall(b"PING\r\n")
    with pytest.raises(TimeoutError):
        open_after.recv(100)
    assert not answers(node)
    assert answers(other)
    time.sleep(2)  # two node timeouts
    assert node.is_master

    cluster.mend(node)

    for cut in (open_before, open_after):
        with cut:
            cut.settimeout(5)
            with contextlib.suppress(ConnectionResetError):
                assert cut.recv(100) == b""
    assert answers(node)


def test_a_proxied_cluster_announces_its_proxies(start_redis_cluster: Start) -> None:
    cluster = start_redis_cluster(proxied=True)
    client = cluster.cluster_client()
    client.set("key", "value")
    assert {node.name for node in client.get_nodes()} == set(cluster.addresses)
    cluster.move_slot(slot_of("key"), next(node for node in cluster.masters() if node is not cluster.node_of("key")))
    assert client.get("key") == b"value"


# --- whom it lets in


@pytest.mark.parametrize("options", [{"tls": True}, {"mutual_tls": True}, {"tls": True, "proxied": True}], ids=str)
def test_a_cluster_speaks_tls_and_nothing_else(options: dict[str, bool], start_redis_cluster: Start) -> None:
    cluster = start_redis_cluster(**options)
    client = cluster.cluster_client()
    client.set("key", "value")
    assert client.get("key") == b"value"
    node = cluster.node_of("key")
    with socket.create_connection((node.host, node.port), timeout=5) as plain, contextlib.suppress(OSError):
        plain.sendall(b"PING\r\n\r\n")
        assert b"PONG" not in plain.recv(100)
    assert cluster.tls
    stranger = Redis(port=node.port, ssl=True, ssl_ca_certs=str(cluster.tls.ca_file), retry=ONCE)
    with stranger, pytest.raises(redis.ConnectionError) if cluster.tls.mutual else contextlib.nullcontext():
        stranger.ping()
    cluster.move_slot(slot_of("key"), next(master for master in cluster.masters() if master is not node))
    assert client.get("key") == b"value"


def test_users_may_do_what_their_lines_say(start_redis_cluster: Start) -> None:
    cluster = start_redis_cluster(password="open", users=["edge on >sesame ~edge:* +get +set +cluster +command"])
    (node, *_) = cluster.nodes
    with pytest.raises(AuthenticationError):
        cluster.client(node, username=None, password=None, retry=ONCE).ping()
    assert cluster.client(node, username=None, password="open").ping()
    edge = cluster.cluster_client(username="edge", password="sesame")
    edge.set("edge:key", "value")
    with pytest.raises(NoPermissionError):
        edge.get("key")


# --- nothing stays


def test_a_cluster_leaves_neither_processes_nor_files(start_redis_cluster: Start) -> None:
    with RedisServers(config={"maxmemory": "10mb"}) as cluster:
        assert cluster.client(cluster.nodes[0]).config_get("maxmemory") == {"maxmemory": "10485760"}
        cluster.nodes[0].stop()
        cluster.nodes[1].kill()
        pids = [node.pid for node in cluster.nodes if node is not cluster.nodes[1]]
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert not cluster.folder.exists()


def test_the_servers_end_with_the_process_that_started_them() -> None:
    program = (
        "from tests.support import RedisServers\n"
        "cluster = RedisServers().__enter__()\n"
        "cluster.nodes[0].stop()\n"
        "print(cluster.folder, *(node.pid for node in cluster.nodes), flush=True)\n"
        "input()\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        folder, *pids = process.stdout.readline().split()
        os.kill(process.pid, signal.SIGKILL)
    assert len(pids) == 6
    until(lambda: not any(_works_in(pid.decode(), folder.decode()) for pid in pids), "the servers to end")
    until(lambda: not Path(folder.decode()).exists(), "their folder to go")


def _works_in(pid: str, folder: str) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cwd").readlink().is_relative_to(folder)
    return False
