"""Scripts that change while the node runs: no request notices but by what the new version does."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scripting.builders import Site
from tests.support import request, until


def version(name: str, more: str = "") -> str:
    """A script that says in each response which version of it has seen the request, and which the response."""
    return f"""
import asyncio
import functools
import logging

from mitmproxy import ctx

waits = asyncio.Event()


def load(loader):
    loader.add_option("word", str, "default", "A word.")


def running():
    logging.warning("running {name}")


def done():
    logging.warning("done {name}")


async def request(flow):
    flow.metadata["seen by"] = "{name}"
    if flow.request.path == "/go":
        for event in ctx.master.waiting:
            event.set()
        ctx.master.waiting.clear()
    if flow.request.path.startswith("/wait"):
        event = asyncio.Event()
        ctx.master.waiting = [*getattr(ctx.master, "waiting", []), event]
        await event.wait()


def response(flow):
    flow.response.headers["X-Seen"] = flow.metadata["seen by"] + " {name} " + ctx.options.word

{more}
"""


SCRIPT = version("0")
TABLES = {"addons": {"options": {"word": "configured"}}, "limits": {"drain_timeout": 10}}
VERSIONS = iter(range(1, 1000))


@pytest.fixture
def fresh(site: Site) -> Site:
    """The node, its script in a version of its own: so tests don't mind each other."""
    take(site, next(VERSIONS))
    return site


def take(site: Site, number: int, more: str = "") -> str:
    """Change the script and wait until the new version runs; its name."""
    name = f"v{number}"
    site.change(version(name, more))
    site.event("script_log", message=f"running {name}")
    return name


def seen(site: Site, path: str = "/") -> str:
    return site.get(path)["x-seen"].split()[1]


def lately(site: Site) -> str:
    """The version that runs."""
    return str(site.events("script_log")[-1]["message"]).split()[1]


def test_a_change_is_taken_without_a_restart(fresh: Site) -> None:
    name = take(fresh, next(VERSIONS))
    assert seen(fresh) == name
    assert fresh.node.status().worker_restarts == 0


def test_a_change_ends_the_old_version_once(fresh: Site) -> None:
    first = take(fresh, next(VERSIONS))
    second = take(fresh, next(VERSIONS))
    fresh.event("script_log", message=f"done {first}")
    assert not fresh.events("script_log", message=f"done {second}")


def test_a_change_keeps_the_options_values(fresh: Site) -> None:
    take(fresh, next(VERSIONS))
    assert fresh.get("/")["x-seen"].split()[2] == "configured"


@pytest.mark.parametrize("how", ["in place", "by a link", "by a link's target", "removed for a while"])
def test_a_change_is_noticed_however_it_is_made(fresh: Site, tmp_path: Path, how: str) -> None:
    (path,) = fresh.scripts
    first, second = f"v{next(VERSIONS)}", f"v{next(VERSIONS)}"
    if how == "in place":
        with path.open("w") as file:
            file.write(version(first))
    else:
        file_1, file_2, link = tmp_path / "1.py", tmp_path / "2.py", path.with_suffix(".link")
        file_1.write_text(version(first))
        file_2.write_text(version(second))
        if how == "removed for a while":
            old = seen(fresh)
            path.unlink()
            fresh.event("script_missing", script=str(path))
            assert seen(fresh) == old
        link.symlink_to(file_1)
        link.replace(path)
    fresh.event("script_log", message=f"running {first}")
    assert seen(fresh) == first
    if how == "by a link":
        link.symlink_to(file_2)
        link.replace(path)
    elif how == "by a link's target":
        file_2.replace(file_1)
    else:
        return
    fresh.event("script_log", message=f"running {second}")
    assert seen(fresh) == second


def test_a_change_costs_no_request_while_many_come(fresh: Site) -> None:
    stop = threading.Event()
    answers: list[list[str]] = [[] for _ in range(3)]
    failures: list[Exception] = []

    def ask(found: list[str]) -> None:
        try:
            with fresh.node.connect() as client:
                while not stop.is_set():
                    found.append(fresh.ask(client, "/")["x-seen"])
        except Exception as error:  # noqa: BLE001  told below
            failures.append(error)

    threads = [threading.Thread(target=ask, args=(found,)) for found in answers]
    for thread in threads:
        thread.start()
    names = [take(fresh, next(VERSIONS)) for _ in range(6)]
    last = [len(found) for found in answers]
    until(lambda: all(len(found) > count + 3 for found, count in zip(answers, last, strict=True)), "more answers")
    stop.set()
    for thread in threads:
        thread.join()
    assert not failures
    order = {name: number for number, name in enumerate(names)}
    for found in answers:
        versions = [order.get(words.split()[1], -1) for words in found]
        assert versions == sorted(versions)
        assert versions[-1] == len(names) - 1
        assert all(words.split()[0] == words.split()[1] for words in found)  # each request has one version


def test_a_change_leaves_requests_under_way_to_their_version(fresh: Site) -> None:
    old = lately(fresh)
    with fresh.node.connect() as client:
        client.send(request("/wait"))
        until(lambda: fresh.in_flight("/wait") == ["script"], "the hook to wait")
        new = take(fresh, next(VERSIONS))
        assert seen(fresh) == new
        assert not fresh.events("script_log", message=f"done {old}")
        assert seen(fresh, "/go") == new
        assert fresh.saw(client.response())["x-seen"].split()[:2] == [old, old]
    fresh.event("script_log", message=f"done {old}")


def test_a_change_lets_a_version_go_with_its_last_request_whichever_way_that_ends(fresh: Site) -> None:
    old = lately(fresh)
    with fresh.node.connect() as client:
        client.send(request("/wait"))
        until(lambda: fresh.in_flight("/wait") == ["script"], "the hook to wait")
        take(fresh, next(VERSIONS))
        client.reset()
    fresh.unanswered()
    fresh.event("script_log", message=f"done {old}")


BROKEN = {
    "no Python": "def request(flow:\n",
    "no text": "\x00\xff",
    "an error": "1 / 0",
    "an exit": "import sys\nsys.exit(1)",
    "an interrupt": "raise KeyboardInterrupt",
    "a generator's exit": "raise GeneratorExit",
    "an endless recursion": "def f(): f()\nf()",
    "an import of itself": "from script import nothing",
    "an import in a circle": "import other_script",
    "an import that is not there": "import nothing_of_that_name",
    "a loop that runs already": "import asyncio\nasyncio.run(asyncio.sleep(0))",
    "a hook that is none": "request = 5",
    "a filter that is none": "edge_filter = '~u ['\ndef request(flow): pass",
    "a filter that is no text": "edge_filter = 5\ndef request(flow): pass",
    "addons in a circle": "addons = []\nclass A:\n    addons = addons\naddons.append(A())",
    "addons that are none": "addons = 5",
    "a hook that can't be had": "class A:\n    @property\n    def request(self): raise KeyError\naddons = [A()]",
    "an addon whose names all raise": "class A:\n    def __getattr__(self, name): raise SystemExit\naddons = [A()]",
    "a load that fails": "def load(loader): 1 / 0",
    "a load that exits": "def load(loader): raise SystemExit",
    "a load that is interrupted": "def load(loader): raise KeyboardInterrupt",
    "a load without a name": "import functools\nload = functools.partial(lambda loader: 1 / 0)",
    "a load that waits": "async def load(loader): pass",
    "a configure that fails": "def configure(updated): 1 / 0",
    "an option that is wrong": "from mitmproxy import exceptions\n"
    "def configure(updated): raise exceptions.OptionsError('no such word')",
    "an error that can't be shown": "class E(Exception):\n    def __str__(self): raise ValueError\nraise E",
    "an error that is no Unicode": "raise ValueError('\\udc80')",
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_version_leaves_the_last_good_one(site: Site, how: str) -> None:
    (path,) = site.scripts
    (path.parent / "other_script.py").write_text("import other_script_2\n")
    (path.parent / "other_script_2.py").write_text("from other_script import nothing\n")
    old, before = seen(site), len(site.events("script_not_loaded"))
    site.change(BROKEN[how])
    told = until(lambda: site.events("script_not_loaded")[before:], "it to be told")
    assert len(told) == 1
    assert (told[0]["script"], told[0]["action"]) == (str(path), "the last good one stays")
    assert told[0]["error"].startswith(f"{path}: ")
    assert seen(site) == old
    assert site.node.status().worker_restarts == 0


def test_a_broken_version_is_counted(site: Site) -> None:
    before = site.counters()
    told = len(site.events("script_not_loaded"))
    site.change("1 / 0")
    until(lambda: site.events("script_not_loaded")[told:], "it to be told")
    take(site, next(VERSIONS))
    after = site.counters()
    assert after["load_failures"] == before["load_failures"] + 1
    assert after["loads"] == before["loads"] + 1


def test_a_broken_version_is_followed_by_a_good_one(site: Site) -> None:
    name = take(site, next(VERSIONS))
    assert seen(site) == name


def test_hooks_that_the_edge_does_not_call_are_named(site: Site) -> None:
    take(site, next(VERSIONS), "def websocket_message(flow): pass\ndef tls_clienthello(data): pass")
    assert site.events("script_hooks_not_called")[-1]["hooks"] == ["tls_clienthello", "websocket_message"]


# --- several scripts, and one that never was any good

A = """
import asyncio, logging
def done(): logging.warning("done {0}")
async def request(flow):
    if flow.request.path == "/wait": await asyncio.Event().wait()
"""
B = """
import logging
def done(): logging.warning("done {0}")
def error(flow): logging.warning("error {0}")
"""


@pytest.fixture
def two() -> Iterator[Site]:
    with Site(A.format("a0"), B.format("b0")) as site:
        yield site


def test_a_script_is_done_behind_its_last_request_though_others_change_too(two: Site) -> None:
    with two.node.connect() as client:
        client.send(request("/wait"))
        until(lambda: two.in_flight("/wait") == ["script"], "the hook to wait")
        for number, source, name in ((0, A, "a1"), (1, B, "b1"), (0, A, "a2")):
            before = len(two.events("script_loaded"))
            two.change(source.format(name), number)
            until(lambda count=before: len(two.events("script_loaded")) > count, f"{name} to be loaded")
        two.event("script_log", message="done a1")
        assert not two.events("script_log", message="done a0")
        assert not two.events("script_log", message="done b0")
        client.reset()
    for message in ("done a0", "done b0", "error b0"):
        two.event("script_log", message=message)
    words = [event["message"] for event in two.events("script_log")]
    assert words.index("error b0") < words.index("done b0")
    two.node.stop()
    assert sorted(event["message"] for event in two.events("script_log"))[:4] == [
        "done a0",
        "done a1",
        "done a2",
        "done b0",
    ]
    two.event("script_log", message="done b1")
    assert len(two.node.lines()) == 1


@pytest.mark.parametrize("on_error", ["continue", "refuse"])
def test_a_script_that_never_was_loaded_is_as_if_not_there_or_refuses_what_it_would_see(on_error: str) -> None:
    addons = {"on_error": on_error, "filter": "~u /guarded"}
    with Site("import asyncio\nasyncio.no_such_thing", addons=addons, may_fail=True) as site, site.watched():
        assert site.event("script_not_loaded")["action"] == f"on_error = {on_error}"
        assert site.get("/free").status == 200
        guarded = site.get("/guarded")
        if on_error == "refuse":
            assert (guarded.status, guarded.problem["code"]) == (500, "script_failed")
            assert not site.origin.seen("/guarded")
        else:
            assert (guarded.status, site.record(guarded)["script"]) == (200, None)
        site.change("def response(flow): flow.response.headers['X-Seen'] = 'yes'")
        site.event("script_loaded")
        assert site.get("/guarded")["x-seen"] == "yes"
