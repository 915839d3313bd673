"""The admin API's part in the cache: purging and looking, on a real node."""

import os
import signal
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from edgeproxy.node.api import MAX_BODY_BYTES
from tests.support import Node, Origin, http_client, reply

SITE = "http://edge.test"


@pytest.fixture(scope="module")
def origin() -> Iterator[Origin]:
    with Origin() as started:
        yield started


@pytest.fixture(scope="module")
def node(origin: Origin) -> Iterator[Node]:
    with Node(origin.url, workers=2) as started:
        yield started


@pytest.fixture
def api(node: Node) -> Iterator[httpx.Client]:
    with http_client(node.admin_url) as client:
        yield client


def keep(origin: Origin, path: str, text: str, *fields: str) -> None:
    origin.on(path, reply(text.encode(), "Cache-Control: max-age=3600", *fields))


def bodies(node: Node, path: str) -> set[bytes]:
    """What clients get, from all workers in the end."""
    found = set()
    for _ in range(20):
        with node.connect() as client:
            found.add(client.get(path, "Connection: close").body)
    return found


@pytest.mark.parametrize(
    "wanted", [{"urls": [f"{SITE}/x"]}, {"prefixes": [f"{SITE}/"]}, {"tags": ["red"]}, {"all": True}]
)
def test_purges_on_every_worker(node: Node, origin: Origin, api: httpx.Client, wanted: dict[str, Any]) -> None:
    api.post("/purge", json={"all": True})
    keep(origin, "/x", "old", "Cache-Tag: red")
    assert bodies(node, "/x") == {b"old"}
    keep(origin, "/x", "new", "Cache-Tag: red")
    answer = api.post("/purge", json=wanted)
    assert answer.status_code == 200
    assert bodies(node, "/x") == {b"new"}
    done = answer.json()
    assert (done["rules"], done["late"]) == (1, [])
    assert done["confirmed"] == [{"worker": index, "pid": node.worker(index).pid} for index in (0, 1)]
    assert api.post("/purge", json=wanted).json()["seq"] == done["seq"] + 1


def test_a_soft_purge_makes_stale(node: Node, origin: Origin, api: httpx.Client) -> None:
    keep(origin, "/soft", "old")
    assert bodies(node, "/soft") == {b"old"}
    assert api.post("/purge", json={"urls": [f"{SITE}/soft"], "soft": True}).status_code == 200
    states = {one["copy"]["state"] for one in api.get("/cache/show", params={"url": f"{SITE}/soft"}).json()["found"]}
    assert states == {"stale"}


@pytest.mark.parametrize(
    ("content", "status", "message"),
    [
        (b"", 400, "Input data was truncated"),
        (b"[]", 400, "Expected `object`, got `array`"),
        (b"{}", 400, "nothing to purge"),
        (b'{"url": "x"}', 400, "unknown field `url`"),
        (b'{"urls": "x"}', 400, "Expected `array`"),
        (b'{"urls": ["x"]}', 400, "'x' is no URL"),
        (b'{"tags": ["a", ""]}', 400, "a tag to purge can't be empty"),
        (b'{"tags": ["a", "%s"]}' % (b"x" * 2000), 400, "at most 1024 bytes"),
        (b" " * (MAX_BODY_BYTES + 1), 413, "at most"),
    ],
)
def test_what_can_not_be_purged_is_said_and_nothing_is(
    api: httpx.Client, content: bytes, status: int, message: str
) -> None:
    before = api.get("/cache/stats").json()["purge_seq"]
    answer = api.post("/purge", content=content, headers={"Content-Type": "application/json; charset=utf-8"})
    assert answer.status_code == status
    assert message in answer.json()["error"]["message"]
    assert api.get("/cache/stats").json()["purge_seq"] == before


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_what_a_browser_sends_to_strangers_unasked_is_refused(api: httpx.Client, kind: str) -> None:
    answer = api.post("/purge", content=b'{"all": true}', headers={"Content-Type": kind} if kind else {})
    assert answer.status_code == 415
    assert answer.json()["error"]["type"] == "content_type"


def test_only_post_purges(api: httpx.Client) -> None:
    assert api.get("/purge").status_code == 405


def test_a_worker_that_does_not_confirm_is_named(node: Node, api: httpx.Client) -> None:
    stuck = node.worker(1)
    os.kill(stuck.pid, signal.SIGSTOP)
    try:
        answer = api.post("/purge", json={"tags": ["x"]}, timeout=30)
    finally:
        os.kill(stuck.pid, signal.SIGCONT)
    assert answer.status_code == 202
    assert answer.json()["late"] == [{"worker": 1, "pid": stuck.pid}]
    assert answer.json()["confirmed"] == [{"worker": 0, "pid": node.worker(0).pid}]


def test_stats_and_show_are_the_commands(node: Node, origin: Origin, api: httpx.Client) -> None:
    keep(origin, "/shown", "text")
    bodies(node, "/shown")
    seen = api.get("/cache/show", params={"url": f"{SITE}/shown"}).json()
    assert {one["copy"]["size_bytes"] for one in seen["found"]} == {4}
    assert {tier for one in seen["found"] for tier in one["tiers"]} >= {"memory of worker 0", "memory of worker 1"}
    stats = api.get("/cache/stats").json()
    assert stats["kind"] == "embedded"
    assert [worker["worker"] for worker in stats["workers"]] == [0, 1]


@pytest.mark.parametrize("url", ["", "/x", "nonsense"])
def test_show_of_what_is_no_url_is_a_mistake(api: httpx.Client, url: str) -> None:
    answer = api.get("/cache/show", params={"url": url})
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "purge")
