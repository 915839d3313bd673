"""`edgeproxy cache stats|show` against a real node."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeproxy.node import cached
from edgeproxy.node.purging import running
from tests.support import Node, Origin, reply, until

StartNode = Callable[..., Node]
SITE = "http://edge.test"
FIELDS = (
    "Cache-Control: max-age=3600, stale-while-revalidate=30, stale-if-error=60",
    "Vary: Accept-Language",
    'ETag: "v1"',
    "Last-Modified: Wed, 21 Oct 2015 07:28:00 GMT",
    "Surrogate-Key: red blue",
)


@pytest.fixture(scope="module")
def origin() -> Iterator[Origin]:
    with Origin(default=reply(b"hello", *FIELDS)) as started:
        started.on("/private", reply(b"hello", "Cache-Control: private"))
        yield started


@pytest.fixture(scope="module")
def node(origin: Origin) -> Iterator[Node]:
    """For all tests, each with a path of its own."""
    with Node(origin.url, workers=2) as started:
        yield started


def ask(node: Node, path: str, *fields: str) -> str:
    """Send a request; its trace id."""
    with node.connect() as client:
        answer = client.get(path, "Connection: close", *fields)
    assert answer.status == 200
    return answer.trace_id


def shown(node: Node, url: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(node.command("cache", "show", url, "--json").stdout)
    return found


def in_store(node: Node, url: str, count: int = 1) -> None:
    """Wait until the store has so many responses for a URL."""
    place = running(node.runtime_dir)
    until(
        lambda: sum("store" in one.tiers for one in cached.show(place, url).found) >= count,
        "the response to be in the store",
    )


def copies(node: Node, url: str) -> list[dict[str, Any]]:
    """What is shown once the store has it, too."""
    in_store(node, url)
    found: list[dict[str, Any]] = shown(node, url)["found"]
    return found


def test_show_says_what_is_stored_where_and_who_filled_it(node: Node) -> None:
    trace_id = ask(node, "/x", "Accept-Language: de")
    (kept,) = copies(node, f"{SITE}/x")
    assert sorted(kept["tiers"]) in (["memory of worker 0", "store"], ["memory of worker 1", "store"])
    copy = kept["copy"]
    assert copy["vary"] == {"accept-language": "de"}
    assert (copy["status"], copy["size_bytes"], copy["state"]) == (200, 5, "fresh")
    assert 0 <= copy["age_s"] < 60
    assert 3500 < copy["fresh_s"] <= 3600
    assert (copy["stale_while_revalidate_s"], copy["stale_if_error_s"]) == (30, 60)
    assert (copy["etag"], copy["last_modified"]) == ('"v1"', "Wed, 21 Oct 2015 07:28:00 GMT")
    assert sorted(copy["tags"]) == ["blue", "red"]
    assert copy["filled_by"].split("-")[1] == trace_id == node.record(trace_id)["trace_id"]
    assert copy["origin"] == "app"


def test_show_for_people_says_the_same(node: Node) -> None:
    trace_id = ask(node, "/people", "Accept-Language: de")
    in_store(node, f"{SITE}/people")
    first, blank, head, *rows = node.command("cache", "show", f"{SITE}/people").stdout.splitlines()
    assert (first, blank) == (f"{SITE}/people", "")
    assert head.startswith("fresh status 200, 5 bytes, age ")
    text = "\n".join(rows)
    assert "variant     accept-language: de" in text
    assert "while revalidated 30 s more, on errors 60 s more" in text
    assert 'ETag "v1", Last-Modified Wed, 21 Oct 2015 07:28:00 GMT' in text
    assert f"trace {trace_id}, from app" in text
    assert "store" in text


def test_each_variant_is_shown(node: Node) -> None:
    ask(node, "/variants", "Accept-Language: de")
    ask(node, "/variants", "Accept-Language: fr")
    ask(node, "/variants")
    in_store(node, f"{SITE}/variants", 3)
    kept = shown(node, f"{SITE}/variants")["found"]
    stored = [one["copy"]["vary"]["accept-language"] for one in kept if "store" in one["tiers"]]
    assert set(stored) == {"de", "fr", None}


def test_a_url_is_looked_up_as_it_is_keyed(node: Node) -> None:
    ask(node, "/keyed")
    assert copies(node, "https://EDGE.test/keyed#part")
    assert shown(node, f"{SITE}/keyed?other")["found"] == []
    assert node.command("cache", "show", f"{SITE}/keyed?other").stdout == f"{SITE}/keyed?other\nnothing is stored\n"


def test_what_was_purged_is_gone_or_on_its_way(node: Node) -> None:
    ask(node, "/gone")
    in_store(node, f"{SITE}/gone")
    node.command("purge", "--soft", f"{SITE}/gone")
    assert {one["copy"]["state"] for one in shown(node, f"{SITE}/gone")["found"]} == {"stale"}
    node.command("purge", f"{SITE}/gone")
    assert {one["copy"]["state"] for one in shown(node, f"{SITE}/gone")["found"]} <= {"purged"}


def test_it_says_why_responses_are_not_stored(node: Node) -> None:
    ask(node, "/private")
    assert {one["copy"]["state"] for one in shown(node, f"{SITE}/private")["found"]} == {"not stored"}
    assert "not stored because of private, remembered for 1" in node.command("cache", "show", f"{SITE}/private").stdout


def test_a_worker_that_does_not_answer_is_named(node: Node) -> None:
    stuck = node.worker(1).pid
    os.kill(stuck, signal.SIGSTOP)
    try:
        seen = shown(node, f"{SITE}/x")
        said = node.command("cache", "show", f"{SITE}/x").stdout
    finally:
        os.kill(stuck, signal.SIGCONT)
    assert seen["silent"] == [1]
    assert "no answer from worker 1" in said


def test_a_worker_that_took_anothers_place_answers(start_node: StartNode, origin: Origin) -> None:
    node = start_node(origin.url)
    ask(node, "/x")
    in_store(node, f"{SITE}/x")
    node.kill_worker()
    ask(node, "/x")
    (kept,) = shown(node, f"{SITE}/x")["found"]
    assert sorted(kept["tiers"]) == ["memory of worker 0", "store"]
    node.write_config(limits={"headers": 77})
    node.signal(signal.SIGHUP)
    until(lambda: {one.generation for one in node.status().workers} == {2}, "the next generation")
    seen = shown(node, f"{SITE}/x")
    assert (seen["silent"], [one["tiers"] for one in seen["found"]]) == ([], [["store"]])


def test_the_store_is_shown_though_a_worker_does_without_it(start_node: StartNode, origin: Origin) -> None:
    node = start_node(origin.url, workers=2)
    ask(node, "/x")
    in_store(node, f"{SITE}/x")
    (node.runtime_dir / "cache" / "store" / "damaged").write_text("for who comes next")
    node.kill_worker(0)
    assert any("store" in one["tiers"] for one in shown(node, f"{SITE}/x")["found"])
    stats = json.loads(node.command("cache", "stats", "--json").stdout)
    assert stats["store"]["entries"] == 1


def test_stats_count_what_is_there_and_what_requests_found(start_node: StartNode, origin: Origin) -> None:
    node = start_node(origin.url)
    for _ in range(3):
        ask(node, "/x")

    def counted() -> bool:
        seen = cached.stats(running(node.runtime_dir))
        (worker,) = seen.workers
        return bool(seen.store and seen.store.entries and worker.memory_entries)

    until(counted, "the response to be counted")
    seen = json.loads(node.command("cache", "stats", "--json").stdout)
    (worker,) = seen["workers"]
    assert (worker["memory_entries"], worker["evictions"]) == (1, 0)
    assert worker["memory_bytes"] > 5
    assert (worker["requests"]["miss"], worker["requests"]["hit"]) == (1, 2)
    assert (seen["kind"], seen["purge_seq"]) == ("embedded", 0)
    assert (seen["store"]["entries"], seen["store"]["path"]) == (1, f"{node.runtime_dir}/cache/store")
    text = node.command("cache", "stats").stdout
    assert "kept in     embedded" in text
    assert "purges      none yet" in text
    assert "2 hit, 1 miss" in text
    node.command("purge", "--tag", "x")
    assert "purges      up to rule 1" in node.command("cache", "stats").stdout


def test_with_the_store_in_memory_the_workers_are_all_there_is(start_node: StartNode, origin: Origin) -> None:
    node = start_node(origin.url, cache={"store": "memory"})
    ask(node, "/x")
    (kept,) = shown(node, f"{SITE}/x")["found"]
    assert kept["tiers"] == ["memory of worker 0"]
    assert json.loads(node.command("cache", "stats", "--json").stdout)["store"] is None
    fetched = len(origin.seen("/x"))
    ask(node, "/x")
    assert len(origin.seen("/x")) == fetched
    node.command("purge", f"{SITE}/x")
    ask(node, "/x")
    assert len(origin.seen("/x")) == fetched + 1


@pytest.mark.parametrize("arguments", [("stats",), ("show", f"{SITE}/x")])
def test_without_a_node_that_is_said(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    command = [sys.executable, "-m", "edgeproxy", "cache", *arguments, "--runtime-dir", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (1, f"edgeproxy: no node runs on {tmp_path}\n")


def test_what_is_no_url_is_said(node: Node) -> None:
    done = node.command("cache", "show", "/x", check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "'/x' is no URL" in done.stderr
