"""Who may talk to whom: TLS, the ACL user that docs/redis.md gives, passwords, other tenants, values of strangers."""

import os
import pickle
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme

from tests.support import Node, Origin, RedisServers, reply, until

ROOT = Path(__file__).parents[3]
DOCUMENT = (ROOT / "docs" / "redis.md").read_text(encoding="utf-8")
USER = "edgeproxy"
PASSWORD = "s3cret-that-shows-nowhere"
MODES = ["plain", "function"]
KNOWN = "redis: the purge rules are known"
DAMAGED = "a stored response is damaged, and not used"
HTTP = httpx.Client(trust_env=False, verify=False)
"""Made once, and for plain HTTP: a client that gets ready for TLS takes longer than a hundred requests."""
StartNode = Callable[..., Node]


def documented(name: str) -> str:
    """The ACL rules that the document gives, as a user of this name: with "function", the second line's as well."""
    first, second = re.findall(r"^ACL SETUSER edgeproxy (.*)$", DOCUMENT, flags=re.MULTILINE)
    return f"{name} {first.replace('PASSWORD', PASSWORD)}" + (f" {second}" if name.endswith("function") else "")


@pytest.fixture(scope="module")
def guarded() -> Iterator[RedisServers]:
    """A cluster whose default user has a password, with the documented user for each way of tagging."""
    users = [documented(f"{USER}-{mode}") for mode in MODES]
    users.append(documented(f"{USER}-open").replace(f">{PASSWORD}", "nopass"))
    with RedisServers(node_timeout_ms=5000, password=PASSWORD, users=users) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def encrypted() -> Iterator[RedisServers]:
    with RedisServers(node_timeout_ms=5000, tls=True) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def mutual() -> Iterator[RedisServers]:
    with RedisServers(node_timeout_ms=5000, mutual_tls=True) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def origin() -> Iterator[Origin]:
    answer = reply(b"from the origin", "Cache-Control: max-age=600", "Content-Type: text/plain")
    with Origin(default=answer) as started:
        yield started


@pytest.fixture(scope="class")
def emptied(shared_redis_cluster: RedisServers) -> RedisServers:
    """A cluster that was empty before a class's tests."""
    shared_redis_cluster.wait_ready()
    shared_redis_cluster.flush()
    return shared_redis_cluster


def cache_of(cluster: RedisServers, **redis: Any) -> dict[str, Any]:
    return {
        "store": "redis",
        "memory_bytes": 0,
        "purge_allow": ["127.0.0.1"],
        "redis": {"nodes": cluster.addresses, **redis},
    }


def given_up(node: Node, why: str) -> None:
    """The log says that a server is not asked, and why."""

    def said() -> bool:
        return any("redis node is given a rest" in line and why in line for line in node.stderr.splitlines())

    until(said, f"the log to say: {why}")


def uses_redis(node: Node) -> None:
    until(lambda: KNOWN in node.stderr, "the node to use Redis")


def get(node: Node, path: str) -> str:
    """What Cache-Status says, behind the node's name; the answer is a 200 with the origin's body in any case."""
    answer = HTTP.get(node.url + path, headers={"Host": "example.com"})
    assert (answer.status_code, answer.content) == (200, b"from the origin")
    return str(answer.headers["cache-status"].split("; ")[1])


def fill(node: Node, path: str) -> None:
    """Have it stored: the second request finds it, however long the first one's writing takes."""
    until(lambda: get(node, path) == "hit", "a hit")


def purge(node: Node, path: str) -> None:
    answer = HTTP.request("PURGE", node.url + path, headers={"Host": "example.com"})
    assert answer.status_code == 200, answer.text
    until(lambda: get(node, path.replace("*", "1")) != "hit", "the purge to hold")


def name_of(path: str, prefix: str = "edgeproxy") -> str:
    return f"{prefix}:1:{{http://example.com{path}}}"


def denied(cluster: RedisServers) -> list[Any]:
    """What servers have refused."""
    return [entry for server in cluster.nodes for entry in server.command("ACL", "LOG")]


def forget_denied(cluster: RedisServers) -> None:
    for server in cluster.nodes:
        server.command("ACL", "LOG", "RESET")


class TestTls:
    def test_a_cluster_that_speaks_only_tls_is_used(self, encrypted: RedisServers, start_node: StartNode) -> None:
        assert encrypted.tls
        redis = {"tls": True, "tls_ca_file": str(encrypted.tls.ca_file)}
        node = start_node(cache=cache_of(encrypted, **redis))
        uses_redis(node)
        fill(node, "/tls")
        purge(node, "/tls")

    def test_servers_that_want_a_certificate_are_shown_one(self, mutual: RedisServers, start_node: StartNode) -> None:
        assert mutual.tls
        redis = {
            "tls": True,
            "tls_ca_file": str(mutual.tls.ca_file),
            "tls_cert_file": str(mutual.tls.cert_file),
            "tls_key_file": str(mutual.tls.key_file),
        }
        node = start_node(cache=cache_of(mutual, **redis))
        uses_redis(node)
        fill(node, "/mutual")

    def test_servers_that_nobody_vouches_for_are_not_talked_to(
        self, encrypted: RedisServers, start_node: StartNode, tmp_path: Path
    ) -> None:
        stranger = tmp_path / "stranger.pem"
        trustme.CA().cert_pem.write_to_path(stranger)
        node = start_node(cache=cache_of(encrypted, tls=True, tls_ca_file=str(stranger)))
        given_up(node, "certificate verify failed")
        assert [get(node, "/stranger") for _ in range(3)] == ["fwd=uri-miss"] * 3
        assert KNOWN not in node.stderr
        assert not encrypted.cluster_client().exists(name_of("/stranger"))

    def test_a_client_without_a_certificate_gets_nothing_and_harms_nobody(
        self, mutual: RedisServers, start_node: StartNode
    ) -> None:
        assert mutual.tls
        node = start_node(cache=cache_of(mutual, tls=True, tls_ca_file=str(mutual.tls.ca_file)))
        given_up(node, "")
        assert [get(node, "/bare") for _ in range(3)] == ["fwd=uri-miss"] * 3

    def test_tls_towards_servers_without_it_finds_nothing_and_harms_nobody(
        self, redis_cluster: RedisServers, start_node: StartNode
    ) -> None:
        node = start_node(cache=cache_of(redis_cluster, tls=True))
        given_up(node, "can't be connected to")
        assert [get(node, "/plain") for _ in range(3)] == ["fwd=uri-miss"] * 3


class TestTheDocumentedUser:
    @pytest.mark.parametrize("mode", MODES)
    def test_it_may_do_all_that_a_node_does(self, guarded: RedisServers, start_node: StartNode, mode: str) -> None:
        forget_denied(guarded)
        redis = {"username": f"{USER}-{mode}", "password": PASSWORD, "tag_operations": mode}
        node = start_node(cache=cache_of(guarded, **redis))
        uses_redis(node)
        fill(node, f"/{mode}/1")
        shown = node.command("cache", "show", f"http://example.com/{mode}/1").stdout
        assert "lies in     store" in shown
        stats = node.command("cache", "stats").stdout
        assert "kept in     redis" in stats
        assert re.search(r"stored +[1-9]", stats), stats
        purge(node, f"/{mode}/*")
        fill(node, f"/{mode}/1")
        node.command("purge", "--prefix", f"http://example.com/{mode}/")
        assert get(node, f"/{mode}/1") != "hit"
        said = node.command("keytrace", "--key", f"http://example.com/{mode}/1").stdout
        assert "MGET" in said
        assert {one["outcome"] for line in node.flushed() for one in line["store"]} <= {"hit", "miss", "ok"}
        assert "redis node does not take" not in node.stderr
        assert denied(guarded) == []

    def test_it_may_need_no_password(self, guarded: RedisServers, start_node: StartNode) -> None:
        node = start_node(cache=cache_of(guarded, username=f"{USER}-open"))
        uses_redis(node)
        fill(node, "/open")
        node.command("purge", "--prefix", "http://example.com/open")
        assert get(node, "/open") != "hit"

    def test_it_may_read_replicas(self, guarded: RedisServers, start_node: StartNode) -> None:
        forget_denied(guarded)
        redis = {"username": f"{USER}-plain", "password": PASSWORD, "read_from_replicas": True}
        node = start_node(cache=cache_of(guarded, **redis))
        uses_redis(node)
        replicas = {server.address for server in guarded.replicas()}

        def asked_all() -> bool:
            get(node, "/replicas")
            return replicas & {one["node"] for line in node.lines() for one in line["store"]} != set()

        until(asked_all, "a replica to be read")
        assert denied(guarded) == []

    def test_it_can_do_nothing_with_other_keys_and_nothing_else_with_its_own(self, guarded: RedisServers) -> None:
        admin = guarded.nodes[0].control
        assert admin.acl_dryrun(f"{USER}-plain", "MGET", name_of("/")) == b"OK"
        for words in (
            ("MGET", "edgeproxy:2:{x}"),
            ("SET", name_of("/", "other"), "value"),
            ("FLUSHALL",),
            ("KEYS", "*"),
            ("CONFIG", "GET", "*"),
            ("EVAL", "return 1", "0"),
            ("FUNCTION", "LOAD", "x"),
            ("ACL", "LIST"),
            ("MONITOR",),
            ("SUBSCRIBE", "x"),
        ):
            assert admin.acl_dryrun(f"{USER}-plain", *words) != b"OK", words

    def test_nothing_is_granted_that_the_code_does_not_use(self) -> None:
        granted = re.findall(r"\+([\w|]+)", documented("x-function"))
        code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "edgeproxy").rglob("*.py"))
        words = {one: '", "'.join(one.split("|")) for one in granted if one != "command"}  # that is redis-py's
        assert [one for one, said in words.items() if f'"{said}"' not in code.lower()] == []

    def test_without_its_rights_nothing_is_found_and_nobody_is_harmed(
        self, guarded: RedisServers, start_node: StartNode
    ) -> None:
        redis = {"username": f"{USER}-plain", "password": PASSWORD, "prefix": "other"}
        node = start_node(cache=cache_of(guarded, **redis))
        until(lambda: denied(guarded), "Redis to refuse something")
        assert [get(node, "/refused") for _ in range(3)] == ["fwd=uri-miss"] * 3
        forget_denied(guarded)


class TestThePassword:
    def test_it_can_be_in_a_file(self, guarded: RedisServers, start_node: StartNode, tmp_path: Path) -> None:
        file = tmp_path / "password"
        file.write_text(f"{PASSWORD}\n")
        node = start_node(cache=cache_of(guarded, password_file=str(file)))
        uses_redis(node)
        fill(node, "/by-file")

    def test_it_can_be_in_the_environment(self, guarded: RedisServers, start_node: StartNode) -> None:
        node = start_node(cache=cache_of(guarded), environ={"EDGEPROXY_REDIS_PASSWORD": PASSWORD})
        uses_redis(node)
        fill(node, "/by-environment")

    def test_a_wrong_one_harms_nobody_and_the_log_says_so(self, guarded: RedisServers, start_node: StartNode) -> None:
        node = start_node(cache=cache_of(guarded, password="wrong-but-secret"))
        given_up(node, "invalid username-password pair")
        assert [get(node, "/wrong") for _ in range(3)] == ["fwd=uri-miss"] * 3
        assert "wrong-but-secret" not in node.stderr

    @pytest.fixture(scope="class")
    @classmethod
    def node(cls, guarded: RedisServers, origin: Origin) -> Iterator[Node]:
        """One that keeps nothing of its files to itself but what it means to, and says all that it can."""
        with ExitStack() as stack:
            before = os.umask(0)
            try:
                node = Node(origin.url, cache=cache_of(guarded, password=PASSWORD), log={"level": "debug"})
                stack.enter_context(node)
            finally:
                os.umask(before)
            yield node

    def test_it_shows_nowhere(self, node: Node) -> None:
        uses_redis(node)
        fill(node, "/shows-nowhere")
        checked = node.command("check").stdout
        assert 'password = "(hidden)"' in checked
        said = [checked, node.command("status").stdout, node.command("cache", "stats").stdout, node.stderr]
        said.append(HTTP.get(f"{node.admin_url}/status").text)
        said += [Path(f"/proc/{pid}/cmdline").read_text() for pid in self._pids(node)]
        assert [text for text in said if PASSWORD in text] == []
        assert PASSWORD not in node.access_log.read_text()

    def test_only_its_owner_can_read_the_configuration_in_force(self, node: Node) -> None:
        (file,) = node.runtime_dir.glob("config-*.json")
        assert PASSWORD in file.read_text()
        assert stat.S_IMODE(file.stat().st_mode) == 0o600

    @staticmethod
    def _pids(node: Node) -> list[int]:
        return [node.supervisor_pid, node.scribe_pid, *node.worker_pids]


class Attack:
    """What a program that unpickles strangers' data would run."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.file),)


class TestValuesOfStrangers:
    @pytest.fixture(scope="class")
    @classmethod
    def node(cls, emptied: RedisServers, origin: Origin) -> Iterator[Node]:
        with Node(origin.url, cache=cache_of(emptied)) as started:
            uses_redis(started)
            yield started

    def test_a_pickle_is_data(self, node: Node, emptied: RedisServers, tmp_path: Path) -> None:
        harm = tmp_path / "harm"
        payload = pickle.dumps(Attack(harm))
        head = emptied.cluster_client()
        reported = node.stderr.count(DAMAGED)
        for name, value in (("/1", payload), ("/2", b"1e" + b"0" * 55 + b"\0" * 13 + payload)):
            head.set(name_of(name), value)
            assert get(node, name) == "fwd=uri-miss"
        assert node.stderr.count(DAMAGED) == reported + 2
        fill(node, "/1")
        fill(node, "/2")
        assert not harm.exists()

    def test_garbage_is_a_miss(self, node: Node, emptied: RedisServers) -> None:
        garbage = {
            "empty": b"",
            "version": b"1",
            "entry": b"1e",
            "mark": b"1v",
            "version-9": b"9e" + b"x" * 100,
            "garbled-entry": b"1e" + b"\xff" * 300,
            "garbled-mark": b"1v" + b"\xff" * 300,
            "zeros": b"\0" * 4096,
        }
        client = emptied.cluster_client()
        for name, value in garbage.items():
            client.set(name_of(f"/{name}"), value)
            assert get(node, f"/{name}") == "fwd=uri-miss", name
            fill(node, f"/{name}")

    def test_another_type_than_a_string_is_a_miss(self, node: Node, emptied: RedisServers) -> None:
        emptied.cluster_client().lpush(name_of("/list"), "value")
        assert get(node, "/list") == "fwd=uri-miss"
        fill(node, "/list")

    def test_a_response_to_another_url_is_not_served(self, node: Node, emptied: RedisServers) -> None:
        fill(node, "/private")
        client = emptied.cluster_client()
        for end in ("", ".b"):
            client.set(name_of("/public") + end, client.get(name_of("/private") + end))
        assert get(node, "/public") == "fwd=uri-miss"


class TestOtherTenants:
    @pytest.fixture(scope="class")
    @classmethod
    def tenants(cls, emptied: RedisServers, origin: Origin) -> Iterator[tuple[Node, Node]]:
        """Nodes of two tenants; one's prefix begins like the other's."""
        with (
            Node(origin.url, cache=cache_of(emptied, prefix="shop")) as short,
            Node(origin.url, cache=cache_of(emptied, prefix="shop2")) as long,
        ):
            for node in (short, long):
                uses_redis(node)
            yield short, long

    def test_purging_everything_is_about_one_prefix(self, emptied: RedisServers, tenants: tuple[Node, Node]) -> None:
        mine, theirs = tenants
        client = emptied.cluster_client()
        client.set("their:own", "value")
        for node in tenants:
            fill(node, "/tenant/1")
        kept = client.get(name_of("/tenant/1", "shop2"))
        assert kept
        rules = client.xrange("shop2:1:{purges}")
        mine.command("purge", "--all")
        until(lambda: get(mine, "/tenant/1") != "hit", "the purge to hold")
        assert get(theirs, "/tenant/1") == "hit"
        assert client.get(name_of("/tenant/1", "shop2")) == kept
        assert client.get("their:own") == b"value"
        assert client.xrange("shop2:1:{purges}") == rules

    def test_a_prefix_that_begins_like_another_is_another(self, tenants: tuple[Node, Node]) -> None:
        short, long = tenants
        for node in tenants:
            fill(node, "/1")
        purge(short, "/*")
        assert get(long, "/1") == "hit"
