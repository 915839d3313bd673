"""What somebody asks to have purged, as rules: URLs and prefixes in the form that the routes key them by."""

import os
import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from edgeproxy.cache.purge import Kind, Purge
from edgeproxy.cache.purge_log import PurgeLog
from edgeproxy.config import Config, RedisCache, load
from edgeproxy.config.model import Cache
from edgeproxy.ledger import LedgerWriter
from edgeproxy.node import Control, ControlWord, NotRunningError, RuntimeDir
from edgeproxy.node.purging import (
    Member,
    Outcome,
    Place,
    PurgeError,
    PurgeFailedError,
    SharedPurgeError,
    Wanted,
    keyed_prefixes,
    keyed_urls,
    note,
    purge,
    running,
    understood,
)
from edgeproxy.node.storage import storage_paths
from edgeproxy.proxy.routing import Routes

TOML = """
[cache]
store = "memory"
[[origin]]
name = "app"
urls = ["http://127.0.0.1:1"]
"""
ROUTES = """
[[route]]
host = "shop.test"
match = "/search*"
[route.cache]
query_allow = ["q", "page"]
query_sort = true
[[route]]
host = "shop.test"
match = "/*"
[route.cache]
key_host = "www.shop.test"
[[route]]
host = "*.norm.test"
match = "/*"
[route.cache]
key_host = "normalized"
query = "none"
[[route]]
host = "plain.test"
match = "/*"
"""


def config_of(tmp_path: Path, routes: str = "") -> Config:
    path = tmp_path / "edgeproxy.toml"
    path.write_text(TOML + routes)
    return load(path, {})


@pytest.mark.parametrize(
    ("text", "keyed"),
    [
        ("http://a.test/x", ["http://a.test/x"]),
        ("https://a.test/x", ["http://a.test/x"]),
        ("HTTP://A.Test/X?Y=Z", ["http://a.test/X?Y=Z"]),
        ("http://a.test", ["http://a.test/"]),
        ("http://a.test?q", ["http://a.test/?q"]),
        ("http://a.test/x#part", ["http://a.test/x"]),
        ("http://a.test/x?", ["http://a.test/x?"]),
        ("  http://a.test/x\n", ["http://a.test/x"]),
        ("http://a.test:8080/x", ["http://a.test:8080/x"]),
        ("http://a.test:80/x", ["http://a.test:80/x", "http://a.test/x"]),
        ("https://a.test:443/x", ["http://a.test:443/x", "http://a.test/x"]),
        ("http://a.test:443/x", ["http://a.test:443/x"]),
        ("http://a.test:/x", ["http://a.test:/x", "http://a.test/x"]),
        ("http://[2001:DB8::1]:81/x", ["http://[2001:db8::1]:81/x"]),
        ("http://a.test/größe?a=ü b", ["http://a.test/gr%C3%B6%C3%9Fe?a=%C3%BC%20b"]),
        ("http://a.test/%7euser/a%2Fb", ["http://a.test/%7euser/a%2Fb"]),
        ("http://bücher.test/x", ["http://xn--bcher-kva.test/x"]),
        (os.fsdecode(b"http://a.test/\xfc"), ["http://a.test/%FC"]),
    ],
)
def test_a_url_is_keyed_as_the_requests_for_it_are(tmp_path: Path, text: str, keyed: list[str]) -> None:
    assert [one.decode() for one in keyed_urls(Routes(config_of(tmp_path)), text)] == keyed


@pytest.mark.parametrize(
    ("text", "keyed"),
    [
        ("http://shop.test/search?page=2&utm=x&q=1", ["http://shop.test/search?page=2&q=1"]),
        ("http://shop.test/search?utm=x", ["http://shop.test/search"]),
        ("http://shop.test/x?b&a", ["http://www.shop.test/x?b&a"]),
        ("https://a.norm.test./x?q=1", ["http://a.norm.test/x"]),
        ("http://a.norm.test:80/x", ["http://a.norm.test/x"]),
        ("http://plain.test:80/", ["http://plain.test:80/", "http://plain.test/"]),
    ],
)
def test_a_url_is_keyed_by_the_rules_of_its_route(tmp_path: Path, text: str, keyed: list[str]) -> None:
    assert [one.decode() for one in keyed_urls(Routes(config_of(tmp_path, ROUTES)), text)] == keyed


@pytest.mark.parametrize(
    ("text", "keyed"),
    [
        ("http://shop.test/se", ["http://shop.test/se", "http://www.shop.test/se"]),
        ("https://SHOP.test", ["http://shop.test/", "http://www.shop.test/"]),
        ("http://a.norm.test:80/x", ["http://a.norm.test/x"]),
        ("http://plain.test/x?a=", ["http://plain.test/x?a="]),
    ],
)
def test_a_prefix_is_one_for_each_host_that_its_routes_make_of_it(tmp_path: Path, text: str, keyed: list[str]) -> None:
    assert [one.decode() for one in keyed_prefixes(config_of(tmp_path, ROUTES), text)] == keyed


def test_without_routes_a_prefix_is_of_the_host_as_it_is(tmp_path: Path) -> None:
    assert keyed_prefixes(config_of(tmp_path), "https://A.test/b") == [b"http://a.test/b"]


@pytest.mark.parametrize(
    "text", ["", "/x", "a.test/x", "ftp://a.test/", "http://", "http:///x", "http://me@a.test/", "http://a b/x",
             "http://a:b:c/", "http://[::1/x", "http://" + "ü" * 80 + "/"],
)  # fmt: skip
def test_what_is_no_url_is_refused_for_urls_and_prefixes(tmp_path: Path, text: str) -> None:
    for wanted in (Wanted(urls=(text,)), Wanted(prefixes=(text,))):
        with pytest.raises(PurgeError, match=re.escape(f"{text!r} is no URL")):
            understood(config_of(tmp_path), wanted)


def test_a_url_that_no_route_takes_is_refused(tmp_path: Path) -> None:
    for wanted in (Wanted(urls=("http://other.test/x",)), Wanted(prefixes=("http://other.test/x",))):
        with pytest.raises(PurgeError, match=r"no route leads to http://other\.test/x"):
            understood(config_of(tmp_path, ROUTES), wanted)


def test_all_that_is_asked_for_is_one_list_of_rules(tmp_path: Path) -> None:
    wanted = Wanted(
        urls=("http://a.test/1", "https://a.test/1"), prefixes=("http://a.test/2",), tags=("x", " y ", "x"), soft=True
    )
    assert understood(config_of(tmp_path), wanted) == [
        Purge(Kind.URL, b"http://a.test/1", soft=True),
        Purge(Kind.PREFIX, b"http://a.test/2", soft=True),
        Purge(Kind.TAG, b"x", soft=True),
        Purge(Kind.TAG, b"y", soft=True),
    ]
    assert understood(config_of(tmp_path), Wanted(all=True)) == [Purge(Kind.ALL, b"")]


@pytest.mark.parametrize(("wanted", "why"), [(Wanted(), "nothing to purge"), (Wanted(tags=(" ",)), "can't be empty")])
def test_nothing_can_not_be_purged(tmp_path: Path, wanted: Wanted, why: str) -> None:
    with pytest.raises(PurgeError, match=why):
        understood(config_of(tmp_path), wanted)


# --- a runtime directory with a node's files, whose workers are this test


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    config = config_of(tmp_path)
    runtime = RuntimeDir(tmp_path)
    lock = runtime.lock()
    with closing(Control.create(runtime.control)) as control, closing(PurgeLog.create(tmp_path / "purge.log")):
        control.set(ControlWord.GENERATION, 3)
        runtime.config(3).write_bytes(config.to_json())
        yield running(tmp_path)
    os.close(lock)


@pytest.fixture
def workers(place: Place) -> Iterator[list[LedgerWriter]]:
    made = [LedgerWriter.create(place.runtime.path, index, 3, slots=4, ring_bytes=65536) for index in (0, 1)]
    yield made
    for ledger in made:
        ledger.close()


def test_the_running_node_is_found_by_what_it_runs_with(place: Place, tmp_path: Path) -> None:
    assert place.config == config_of(tmp_path)
    assert place.log == storage_paths(place.config, tmp_path).purge_log == tmp_path / "purge.log"


def test_no_node_is_said(tmp_path: Path) -> None:
    with pytest.raises(NotRunningError, match=f"no node runs on {tmp_path}"):
        running(tmp_path)


def test_a_purge_is_done_once_all_living_workers_have_confirmed(place: Place, workers: list[LedgerWriter]) -> None:
    pid = os.getpid()
    workers[0].acknowledge_purge(2)
    wanted = Wanted(urls=("http://a.test/",), tags=("x",))
    late = purge(place, wanted, timeout_s=0.1)
    assert late == Outcome(seq=2, rules=2, confirmed=(Member(0, pid),), late=(Member(1, pid),))
    workers[0].acknowledge_purge(4)
    workers[1].draining()
    workers[1].acknowledge_purge(5)
    done = purge(place, wanted, timeout_s=0.1)
    assert (done.seq, done.confirmed, done.late) == (4, (Member(0, pid), Member(1, pid)), ())


def test_a_dead_worker_is_not_waited_for(place: Place, workers: list[LedgerWriter]) -> None:
    workers[0].acknowledge_purge(1)
    workers.pop().close()
    assert purge(place, Wanted(all=True), timeout_s=5).late == ()


def test_a_log_that_is_not_there_or_is_none_is_said(place: Place) -> None:
    place.log.unlink()
    with pytest.raises(PurgeFailedError, match=f"there is no purge log {place.log}"):
        purge(place, Wanted(all=True))
    place.log.write_bytes(b"x" * 5000)
    with pytest.raises(PurgeFailedError, match="is not a purge log"):
        purge(place, Wanted(all=True))


def test_with_redis_a_purge_that_it_does_not_get_is_none(place: Place) -> None:
    cache = Cache(store="redis", redis=RedisCache(nodes=["127.0.0.1:1"]))
    config = msgspec.structs.replace(place.config, cache=cache)
    with pytest.raises(SharedPurgeError, match="can't be given to Redis; nothing counts as purged"):
        purge(place._replace(config=config), Wanted(all=True))
    with pytest.raises(PurgeError, match="a tag to purge can't be empty"):
        note(config, place.log, [Purge(Kind.TAG, b"")])
    with closing(PurgeLog.open(place.log)) as log:
        assert log.seq == 0


def test_with_redis_a_password_that_can_not_be_read_is_said(place: Place, tmp_path: Path) -> None:
    redis = RedisCache(nodes=["127.0.0.1:1"], password_file=str(tmp_path / "none"))
    config = msgspec.structs.replace(place.config, cache=Cache(store="redis", redis=redis))
    with pytest.raises(SharedPurgeError, match=r"nothing is purged: Redis can't be asked: .*none"):
        note(config, place.log, [Purge(Kind.ALL, b"")])


def test_nothing_is_purged_where_one_thing_can_not_be(place: Place) -> None:
    with pytest.raises(PurgeError, match="a tag to purge has at most"):
        purge(place, Wanted(tags=("good", "x" * 2000)))
    with closing(PurgeLog.open(place.log)) as log:
        assert log.seq == 0
