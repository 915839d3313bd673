import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from edgeproxy.node import StartError, process
from edgeproxy.node.process import Keeper, Program, describe_exit

PATIENCE_S = 20.0
READY = """
import argparse, os, signal, sys, time
parser = argparse.ArgumentParser()
parser.add_argument("--ready-fd", type=int)
parser.add_argument("--log")
options = parser.parse_args()
def ready():
    with open(options.log, "a") as file:
        file.write(f"{os.getpid()}\\n")
    os.write(options.ready_fd, b"1")
    os.close(options.ready_fd)
"""
SERVES = READY + "ready()\ntime.sleep(1000)\n"


class Stage:
    """A keeper with a stand-in for its program."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "started.log"
        self.deaths = 0
        self.pids: list[int] = []
        self.keepers: list[Keeper] = []

    def keeper(self, code: str) -> Keeper:
        (self.folder / "stand_in.py").write_text(code)
        made = Keeper(
            Program("stand-in", "stand_in", ("--log", str(self.log))), on_death=self._died, on_pid=self.pids.append
        )
        self.keepers.append(made)
        return made

    def _died(self, _code: int) -> None:
        self.deaths += 1

    @property
    def started(self) -> list[int]:
        return [int(line) for line in self.log.read_text().split()] if self.log.exists() else []

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():  # noqa: ASYNC110  it asks about other processes
                await asyncio.sleep(0.005)


@pytest.fixture
async def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    made = Stage(tmp_path)
    yield made
    for keeper in made.keepers:
        keeper.kill()
        await keeper.stop(0.1)


async def test_start_returns_when_the_program_does_its_work(stage: Stage) -> None:
    keeper = stage.keeper(SERVES)
    await keeper.start()
    assert stage.started == [keeper.pid] == stage.pids


async def test_a_program_that_dies_before_is_an_error(stage: Stage) -> None:
    with pytest.raises(StartError, match=r"stand-in ended before it was ready \(exit code 3\)"):
        await stage.keeper(READY + "sys.exit(3)").start()
    assert stage.pids[1:] == [0]


async def test_a_program_that_is_never_ready_is_given_up_on(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "READY_TIMEOUT_S", 0.3)
    with pytest.raises(StartError, match="killed by SIGKILL"):
        await stage.keeper(READY + "time.sleep(1000)").start()


async def test_a_dead_process_is_replaced_at_once(stage: Stage) -> None:
    keeper = stage.keeper(SERVES)
    await keeper.start()
    first = keeper.pid
    died = time.monotonic()
    os.kill(first, signal.SIGKILL)
    await stage.until(lambda: keeper.pid not in {0, first})
    assert time.monotonic() - died < process.BACK_OFF_S / 2
    await stage.until(lambda: len(stage.started) == 2)
    assert stage.deaths == 1
    assert stage.pids == [first, 0, keeper.pid]


async def test_one_that_keeps_dying_is_started_less_often(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "BACK_OFF_S", PATIENCE_S * 2)
    keeper = stage.keeper(READY + "ready()\nsys.exit(1)")
    await keeper.start()
    await stage.until(lambda: stage.deaths == process.QUICK_DEATHS and keeper.pid == 0)
    await asyncio.sleep(0.5)  # time enough for the next one, were there no pause
    assert len(stage.started) == process.QUICK_DEATHS


async def test_a_process_that_was_told_to_end_is_not_replaced(stage: Stage) -> None:
    keeper = stage.keeper(SERVES)
    await keeper.start()
    pid = keeper.pid
    await keeper.stop(PATIENCE_S)
    assert (keeper.pid, stage.deaths, stage.started) == (0, 0, [pid])
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_one_that_does_not_end_is_killed(stage: Stage) -> None:
    keeper = stage.keeper(READY + "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nready()\ntime.sleep(1000)\n")
    await keeper.start()
    pid = keeper.pid
    await keeper.stop(0.2)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_stopping_can_be_broken_off_and_taken_up_again(stage: Stage) -> None:
    keeper = stage.keeper(READY + "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nready()\ntime.sleep(1000)\n")
    await keeper.start()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await keeper.stop(PATIENCE_S)
    assert keeper.pid
    await keeper.stop(0.1)
    assert keeper.pid == 0


async def test_a_process_in_the_making_can_be_stopped(stage: Stage) -> None:
    keeper = stage.keeper(READY + "time.sleep(1000)")
    starting = asyncio.create_task(keeper.start())
    await stage.until(lambda: keeper.pid)
    starting.cancel()
    await asyncio.wait([starting])
    await keeper.stop(PATIENCE_S)
    assert keeper.pid == 0


async def test_a_launched_program_is_kept_at_whatever_happens(stage: Stage) -> None:
    keeper = stage.keeper(READY + "os.path.exists(options.log + '.go') and (ready(), time.sleep(1000))")
    keeper.launch()
    await stage.until(lambda: stage.deaths)
    stage.log.with_name(stage.log.name + ".go").touch()
    await stage.until(lambda: stage.started)


async def test_a_process_has_a_session_of_its_own(stage: Stage) -> None:
    """Ctrl-C at a terminal reaches the supervisor alone."""
    keeper = stage.keeper(SERVES)
    await keeper.start()
    assert os.getsid(keeper.pid) == keeper.pid


@pytest.mark.parametrize(
    ("code", "words"), [(0, "exit code 0"), (-9, "killed by SIGKILL"), (-250, "killed by signal 250")]
)
def test_how_a_process_ended_in_words(code: int, words: str) -> None:
    assert describe_exit(code) == words
