"""Following a log: its last lines, then each new one once, whatever is done to the file."""

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeproxy.logging import follow
from edgeproxy.logging.follow import Follower


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "access.log"


@pytest.fixture
def follower(log: Path) -> Iterator[Follower]:
    one = Follower(log)
    yield one
    one.close()


def append(path: Path, *lines: str) -> None:
    with path.open("a") as file:
        file.write("".join(f"{line}\n" for line in lines))


def new(follower: Follower) -> list[str]:
    return [line.decode().rstrip("\n") for line in follower.new()]


def test_old_lines_come_last_one_first_and_new_ones_after_them(log: Path, follower: Follower) -> None:
    append(log, *map(str, range(100)))
    assert list(islice(follower.last(), 3)) == [b"99\n", b"98\n", b"97\n"]
    assert new(follower) == []
    append(log, "100", "101")
    assert new(follower) == ["100", "101"]
    assert new(follower) == []


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=st.lists(st.integers(0, 40)), begun=st.integers(0, 60), block=st.integers(1, 30))
def test_whatever_the_blocks_each_line_comes_once(
    log: Path, monkeypatch: pytest.MonkeyPatch, lines: list[int], begun: int, block: int
) -> None:
    monkeypatch.setattr(follow, "_BLOCK", block)
    whole = [b"x" * length + b"\n" for length in lines]
    log.write_bytes(b"".join(whole) + b"y" * begun)
    follower = Follower(log)
    old = list(follower.last())
    assert old[::-1] == whole
    with log.open("ab") as file:
        file.write(b"z\n")
    assert follower.new() == [b"y" * begun + b"z\n"]
    follower.close()


def test_a_line_is_given_once_it_is_whole(log: Path, follower: Follower) -> None:
    log.write_text("old\nbeg")
    assert list(follower.last()) == [b"old\n"]
    assert new(follower) == []
    with log.open("a") as file:
        file.write("un\nnext")
    assert new(follower) == ["begun"]
    assert follower.rest() == [b"next\n"]
    assert follower.rest() == []


def test_a_rename_and_a_new_file_lose_nothing(log: Path, follower: Follower) -> None:
    append(log, "1")
    list(follower.last())
    append(log, "2")
    old = log.rename(log.with_name("access.log.1"))
    append(old, "3")
    assert new(follower) == ["2", "3"]
    append(log, "5")
    append(old, "4")
    assert new(follower) == ["4", "5"]
    # Its writer has not let go of the old file yet.
    append(old, "6")
    append(log, "7")
    assert new(follower) == ["6", "7"]


def test_a_file_that_was_rotated_away_is_let_go_after_a_while(
    log: Path, follower: Follower, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(log, "1")
    list(follower.last())
    with log.open("a") as file:
        file.write("torn")
    log.rename(log.with_name("access.log.1"))
    append(log, "2")
    assert new(follower) == ["2"]
    monkeypatch.setattr(follow, "LINGER_S", -1.0)
    assert new(follower) == ["torn"]
    assert not follower._leaving


def test_a_file_cut_to_nothing_is_read_from_its_start(log: Path, follower: Follower) -> None:
    append(log, "1", "2", "3")
    list(follower.last())
    os.truncate(log, 0)
    append(log, "4")
    assert new(follower) == ["4"]


def test_a_file_that_is_deleted_and_made_again_goes_on(log: Path, follower: Follower) -> None:
    append(log, "1")
    list(follower.last())
    log.unlink()
    assert new(follower) == []
    append(log, "2")
    assert new(follower) == ["2"]


def test_a_file_that_is_not_there_yet_is_waited_for(log: Path, follower: Follower) -> None:
    with pytest.raises(FileNotFoundError):
        follower.last()
    assert new(follower) == []
    append(log, "1")
    assert new(follower) == ["1"]


def test_an_empty_file_has_no_lines(log: Path, follower: Follower) -> None:
    log.touch()
    assert list(follower.last()) == []
    assert follower.rest() == []
