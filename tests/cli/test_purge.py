"""`edgeproxy purge` against a real node: what it purges, softly and hard, and when it returns."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgeproxy.node.purging import Wanted, purge, running
from tests.support import Node, Origin, gated, reply, until

StartNode = Callable[..., Node]
SITE = "http://edge.test"
"""What the tests' clients ask for."""
ROUTE = '[[route]]\nmatch = "/shop/*"\n[route.cache]\nquery_deny = ["utm_*"]\nkey_host = "www.shop.test"\n'


@pytest.fixture(scope="module")
def origin() -> Iterator[Origin]:
    with Origin() as started:
        yield started


@pytest.fixture(scope="module")
def shared(origin: Origin) -> Iterator[Node]:
    with Node(origin.url, workers=2, toml=ROUTE) as node:
        yield node


@pytest.fixture
def node(shared: Node) -> Node:
    assert not purge(running(shared.runtime_dir), Wanted(prefixes=(f"{SITE}/",))).late
    return shared


def body(node: Node, path: str, *fields: str) -> str:
    """What a client gets, from whichever worker."""
    with node.connect() as client:
        answer = client.get(path, "Connection: close", *fields)
    assert answer.status == 200, answer
    return answer.body.decode()


def bodies(node: Node, path: str, *fields: str) -> set[str]:
    """What clients get, from all workers in the end."""
    return {body(node, path, *fields) for _ in range(20)}


def keep(origin: Origin, path: str, text: str, *fields: str) -> None:
    """Have the origin say this from now on, to be cached for an hour."""
    origin.on(
        path.partition("?")[0], reply(text.encode(), "Cache-Control: max-age=3600, stale-while-revalidate=60", *fields)
    )


def filled(node: Node, origin: Origin, path: str, *fields: str) -> str:
    """Have `old` in every worker's cache, then `new` at the origin; the path."""
    keep(origin, path, "old", *fields)
    assert bodies(node, path) == {"old"}
    keep(origin, path, "new", *fields)
    assert bodies(node, path) == {"old"}
    return path


def test_a_purged_url_is_fetched_anew_by_every_worker(node: Node, origin: Origin) -> None:
    path, other = filled(node, origin, "/a"), filled(node, origin, "/a/b")
    done = node.command("purge", f"{SITE}{path}")
    assert done.stdout == "1 URL purged: confirmed by 2 workers\n"
    assert bodies(node, path) == {"new"}
    assert bodies(node, other) == {"old"}


def test_it_takes_effect_within_a_second(node: Node, origin: Origin) -> None:
    path = filled(node, origin, "/quick")
    place = running(node.runtime_dir)
    called = time.monotonic()
    assert not purge(place, Wanted(all=True)).late
    elapsed_s = time.monotonic() - called
    assert bodies(node, path) == {"new"}
    assert elapsed_s < 1 or os.getloadavg()[0] > len(os.sched_getaffinity(0))


def test_a_prefix_is_all_below_it(node: Node, origin: Origin) -> None:
    inside, query, outside = (filled(node, origin, path) for path in ("/p/1", "/p/2?q=1", "/q/1"))
    assert node.command("purge", "--prefix", f"{SITE}/p/").stdout.startswith("1 prefix purged: confirmed by 2")
    assert bodies(node, inside) == bodies(node, query) == {"new"}
    assert bodies(node, outside) == {"old"}


def test_a_tag_is_all_responses_that_carry_it(node: Node, origin: Origin) -> None:
    first = filled(node, origin, "/t/1", "Surrogate-Key: red blue")
    second = filled(node, origin, "/t/2", "Cache-Tag: green, red")
    third = filled(node, origin, "/t/3", "Cache-Tag: reddish")
    assert node.command("purge", "--tag", "red", "--tag", "none").stdout.startswith("2 tags purged")
    assert bodies(node, first) == bodies(node, second) == {"new"}
    assert bodies(node, third) == {"old"}


def test_all_is_all(node: Node, origin: Origin) -> None:
    paths = [filled(node, origin, f"/all/{number}") for number in range(3)]
    assert node.command("purge", "--all").stdout.startswith("everything purged")
    assert [bodies(node, path) for path in paths] == [{"new"}] * 3


def test_a_url_is_purged_by_the_rules_of_its_route(node: Node, origin: Origin) -> None:
    path = filled(node, origin, "/shop/x?q=1")
    node.command("purge", f"https://any.test{path}&utm_source=mail")
    assert bodies(node, path) == {"new"}


def test_all_variants_of_a_url_go(node: Node, origin: Origin) -> None:
    path = filled(node, origin, "/v", "Vary: Accept-Language")
    keep(origin, path, "old", "Vary: Accept-Language")
    assert bodies(node, path, "Accept-Language: de") == {"old"}
    keep(origin, path, "new", "Vary: Accept-Language")
    node.command("purge", f"{SITE}{path}")
    assert bodies(node, path) == bodies(node, path, "Accept-Language: de") == {"new"}


def test_softly_purged_is_served_stale_while_it_is_fetched_anew(node: Node, origin: Origin) -> None:
    path = filled(node, origin, "/soft")
    done = node.command("purge", "--soft", f"{SITE}{path}")
    assert done.stdout == "1 URL made stale: confirmed by 2 workers\n"
    assert body(node, path) == "old"
    until(lambda: body(node, path) == "new", "the response to be fetched anew")


def test_a_fetch_under_way_does_not_bring_back_what_was_purged(node: Node, origin: Origin) -> None:
    gate = threading.Event()
    origin.on("/slow", gated(gate, reply(b"old", "Cache-Control: max-age=3600")))
    got: list[str] = []
    client = threading.Thread(target=lambda: got.append(body(node, "/slow")))
    client.start()
    origin.wait_for("/slow")
    node.command("purge", f"{SITE}/slow")
    keep(origin, "/slow", "new")
    gate.set()
    client.join()
    assert got == ["old"]
    assert bodies(node, "/slow") == {"new"}


def test_who_comes_after_the_purge_does_not_get_what_was_asked_for_before(node: Node, origin: Origin) -> None:
    gate = threading.Event()
    origin.on("/joined", gated(gate, reply(b"old", "Cache-Control: max-age=3600")))
    before = threading.Thread(target=lambda: body(node, "/joined"))
    before.start()
    origin.wait_for("/joined")
    node.command("purge", f"{SITE}/joined")
    keep(origin, "/joined", "new")
    got: list[str] = []
    after = threading.Thread(target=lambda: got.extend(body(node, "/joined") for _ in range(3)))
    after.start()
    after.join(1)
    gate.set()
    after.join()
    before.join()
    assert got == ["new"] * 3


def test_what_was_purged_stays_purged_when_a_worker_or_the_node_is_replaced(
    start_node: StartNode, origin: Origin
) -> None:
    node = start_node(origin.url, workers=1)
    path, kept = filled(node, origin, "/r/1"), filled(node, origin, "/r/2")
    until(lambda: '"entries":2' in node.command("cache", "stats", "--json").stdout.replace(" ", ""), "both are stored")
    node.command("purge", f"{SITE}{path}")
    node.kill_worker()
    assert (body(node, kept), body(node, path)) == ("old", "new")


class TestWaiting:
    def test_a_worker_that_does_not_confirm_is_named_and_serves_nothing_of_it_later(
        self, start_node: StartNode, origin: Origin
    ) -> None:
        node = start_node(origin.url, workers=1)
        path = filled(node, origin, "/stuck")
        stuck = node.worker().pid
        os.kill(stuck, signal.SIGSTOP)
        try:
            done = node.command("purge", "--all", "--timeout", "0.3", check=False)
        finally:
            os.kill(stuck, signal.SIGCONT)
        assert done.returncode == 1
        assert f"not confirmed in 0.3 s by worker 0 (pid {stuck})" in done.stderr
        assert body(node, path) == "new"

    def test_a_worker_that_drains_confirms_too(self, start_node: StartNode, origin: Origin) -> None:
        node = start_node(origin.url, workers=1, limits={"drain_timeout": 60})
        gate = threading.Event()
        origin.on("/long", gated(gate, reply(b"x")))
        client = threading.Thread(target=lambda: body(node, "/long"))
        client.start()
        origin.wait_for("/long")
        node.write_config(limits={"headers": 99, "drain_timeout": 60})
        node.signal(signal.SIGHUP)
        try:
            until(lambda: {w.state for w in node.status().workers} == {"serving", "draining"}, "the old one to drain")
            assert "confirmed by 2 workers" in node.command("purge", "--all").stdout
        finally:
            gate.set()
            client.join()

    def test_supervisor_and_scribe_need_not_live(self, start_node: StartNode) -> None:
        node = start_node()
        for pid in (node.supervisor_pid, node.scribe_pid):
            os.kill(pid, signal.SIGSTOP)
        try:
            assert "confirmed by 1 worker\n" in node.command("purge", "--all").stdout
        finally:
            for pid in (node.supervisor_pid, node.scribe_pid):
                os.kill(pid, signal.SIGCONT)


class TestWhatCanNotBe:
    @pytest.mark.parametrize(
        ("arguments", "why"),
        [
            ((), "nothing to purge"),
            (("/x",), "'/x' is no URL"),
            (("--prefix", ""), "'' is no URL"),
            (("--tag", " "), "a tag to purge can't be empty"),
            (("--tag", "x" * 2000), "a tag to purge has at most 1024 bytes"),
        ],
    )
    def test_is_said(self, node: Node, arguments: tuple[str, ...], why: str) -> None:
        done = node.command("purge", *arguments, check=False)
        assert (done.returncode, done.stdout) == (2, "")
        assert why in done.stderr

    def test_without_a_node_that_ever_ran(self, tmp_path: Path) -> None:
        command = [sys.executable, "-m", "edgeproxy", "purge", "--all", "--runtime-dir", str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        expected = (1, f"edgeproxy: no node runs on {tmp_path}, and nothing is stored\n")
        assert (done.returncode, done.stderr) == expected


def test_what_a_stopped_node_has_stored_is_purged_for_its_next_start(start_node: StartNode, origin: Origin) -> None:
    node = start_node(origin.url, workers=1)
    path, kept = filled(node, origin, "/s/1"), filled(node, origin, "/s/2")
    node.stop()
    done = node.command("purge", f"{SITE}{path}")
    assert f"no node runs on {node.runtime_dir}; 1 URL purged in {node.runtime_dir}/cache" in done.stderr
    node.start()
    assert (body(node, kept), body(node, path)) == ("old", "new")
