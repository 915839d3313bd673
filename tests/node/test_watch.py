import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from edgeproxy.node import watch

PROMPT_S = 1.0
"""What the toggle has to take effect in."""


@pytest.fixture(autouse=True)
def _news_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is seen is seen by the kernel's news, not by looking now and then."""
    monkeypatch.setattr(watch, "LOOK_S", 600)


class Changes:
    """What was yielded so far."""

    def __init__(self) -> None:
        self.count = 0
        self._news = asyncio.Event()

    def note(self) -> None:
        self.count += 1
        self._news.set()

    async def next(self, patience_s: float = PROMPT_S) -> None:
        self._news.clear()
        async with asyncio.timeout(patience_s):
            await self._news.wait()


@asynccontextmanager
async def watching(path: Path) -> AsyncIterator[Changes]:
    seen = Changes()

    async def follow() -> None:
        async for _ in watch.changes(path):
            seen.note()

    task = asyncio.create_task(follow())
    await asyncio.sleep(0)
    try:
        yield seen
    finally:
        task.cancel()
        await asyncio.wait([task])


def in_place(path: Path) -> None:
    path.write_text("two\n")


def replaced(path: Path) -> None:
    new = path.with_name("new")
    new.write_text("two\n")
    new.replace(path)


def removed(path: Path) -> None:
    path.unlink()


def appended(path: Path) -> None:
    with path.open("a") as file:
        file.write("two\n")


@pytest.mark.parametrize("change", [in_place, replaced, removed, appended])
async def test_a_change_is_seen_promptly(tmp_path: Path, change: Callable[[Path], None]) -> None:
    path = tmp_path / "env"
    path.write_text("one\n")
    async with watching(path) as seen:
        change(path)
        await seen.next()


async def test_each_of_several_changes_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "env"
    async with watching(path) as seen:
        for change in (in_place, replaced, removed, in_place, appended):
            change(path)
            await seen.next()


async def test_a_file_that_is_made_later_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "env"
    async with watching(path) as seen:
        path.write_text("one\n")
        await seen.next()


async def test_a_directory_that_is_made_later_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "env"
    async with watching(path) as seen:
        path.parent.mkdir(parents=True)
        path.write_text("one\n")
        await seen.next()
        in_place(path)
        await seen.next()


async def test_a_directory_that_is_made_anew_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "a" / "env"
    path.parent.mkdir()
    path.write_text("one\n")
    async with watching(path) as seen:
        path.unlink()
        path.parent.rmdir()
        await seen.next()
        path.parent.mkdir()
        path.write_text("three\n")
        await seen.next()


async def test_a_change_behind_a_link_is_seen(tmp_path: Path) -> None:
    target = tmp_path / "target" / "env"
    target.parent.mkdir()
    target.write_text("one\n")
    link = tmp_path / "conf" / "env"
    link.parent.mkdir()
    link.symlink_to("../target/env")
    async with watching(link) as seen:
        in_place(target)
        await seen.next()
        replaced(target)
        await seen.next()


async def test_a_link_that_is_turned_elsewhere_is_seen(tmp_path: Path) -> None:
    """As Kubernetes updates a mounted ConfigMap: the file is a link into ..data, and ..data a link that is replaced."""
    for version in ("v1", "v2", "v3"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "env").write_text(version)
    (tmp_path / "..data").symlink_to("v1")
    (tmp_path / "env").symlink_to("..data/env")
    async with watching(tmp_path / "env") as seen:
        for version in ("v2", "v3"):
            (tmp_path / "new").symlink_to(version)
            (tmp_path / "new").replace(tmp_path / "..data")
            await seen.next()


async def test_without_news_from_the_kernel_the_file_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_watches_left(*_paths: Path, **_options: object) -> None:
        raise OSError(28, "inotify watch limit reached")

    monkeypatch.setattr(watch, "awatch", no_watches_left)
    monkeypatch.setattr(watch, "LOOK_S", 0.1)
    path = tmp_path / "env"
    async with watching(path) as seen:
        path.write_text("one\n")
        await seen.next()
        path.write_text("three\n")
        await seen.next()


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert watch.fingerprint(tmp_path / "a") == ""
    assert watch.directories(tmp_path / "a") == {tmp_path}


def test_the_directories_of_a_link_are_those_on_its_way(tmp_path: Path) -> None:
    for name in ("conf", "data", "real"):
        (tmp_path / name).mkdir()
    (tmp_path / "data" / "now").symlink_to("../real")
    (tmp_path / "conf" / "env").symlink_to(tmp_path / "data" / "now" / "env")
    (tmp_path / "real" / "env").touch()
    found = watch.directories(tmp_path / "conf" / "env")
    assert found == {tmp_path / "conf", tmp_path / "data", tmp_path / "real"}
