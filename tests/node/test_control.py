import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.config import SamplerWord, TracingSettings
from edgeproxy.node import Control, ControlPageError, ControlWord, Description, NodeState
from edgeproxy.node.control import ERROR_BYTES
from edgeproxy.tracing import SamplerKind

SAMPLERS: tuple[SamplerWord, ...] = (
    "always_on",
    "always_off",
    "traceidratio",
    "parentbased_always_on",
    "parentbased_always_off",
    "parentbased_traceidratio",
)
READS = 20_000


@pytest.fixture
def page(tmp_path: Path) -> Path:
    return tmp_path / "control"


def test_what_the_supervisor_writes_is_there_for_others_at_once(page: Path) -> None:
    ours = Control.create(page)
    theirs = Control.open(page)
    ours.set(ControlWord.GENERATION, 7)
    ours.set(ControlWord.STATE, NodeState.RELOADING)
    ours.add(ControlWord.WORKER_RESTARTS)
    ours.add(ControlWord.WORKER_RESTARTS)
    assert theirs.generation == 7
    assert theirs.state is NodeState.RELOADING
    assert theirs.words[ControlWord.WORKER_RESTARTS] == 2
    assert theirs.words[ControlWord.SUPERVISOR_PID] == os.getpid()


@given(enabled=st.booleans(), sampler=st.sampled_from(SAMPLERS), ratio=st.floats(0, 1))
def test_tracing_settings_arrive_exactly(
    tmp_path_factory: pytest.TempPathFactory, enabled: bool, sampler: SamplerWord, ratio: float
) -> None:
    path = tmp_path_factory.mktemp("page") / "control"
    epoch = Control.create(path).set_tracing(TracingSettings(enabled=enabled, sampler=sampler, ratio=ratio))
    read = Control.open(path)
    assert (read.epoch, read.tracing()) == (epoch, (enabled, SamplerKind.from_word(sampler), ratio))


def test_each_change_of_tracing_is_a_new_epoch(page: Path) -> None:
    control = Control.create(page)
    settings = TracingSettings(enabled=True, sampler="always_on", ratio=1.0)
    assert [control.set_tracing(settings) for _ in range(3)] == [1, 2, 3]
    assert control.epoch == 3


def test_no_reader_gets_old_settings_for_a_new_epoch(page: Path) -> None:
    control = Control.create(page)
    control.set_tracing(TracingSettings(enabled=True, sampler="always_on", ratio=0.5))
    with _writer(
        page,
        """
        epoch = control.epoch + 1
        control.set_tracing(TracingSettings(enabled=True, sampler="always_on", ratio=epoch / 2**40))
        """,
    ):
        reader = Control.open(page)
        while reader.epoch < 2:
            pass
        for _ in range(READS):
            epoch = reader.epoch
            assert reader.tracing().ratio * 2**40 >= epoch


def test_no_reader_gets_half_a_description(page: Path) -> None:
    Control.create(page)
    with _writer(
        page,
        """
        turn += 1
        control.set_description(Description(node=str(turn), last_error=("x" if turn % 2 else "yz") * (turn % 900)))
        """,
    ):
        reader = Control.open(page)
        while not reader.describe().node:
            pass
        for _ in range(READS // 10):
            described = reader.describe()
            turn = int(described.node)
            assert described.last_error == ("x" if turn % 2 else "yz") * (turn % 900)


def test_a_description_is_read_as_it_was_written(page: Path) -> None:
    control = Control.create(page)
    description = Description(
        node="edge-1",
        listen=("0.0.0.0:80", "[::]:80"),
        admin="127.0.0.1:9180",
        config="/etc/edgeproxy/edgeproxy.toml",
        env_file="/etc/edgeproxy/edgeproxy.env",
        env_seen="1:2:3",
        access_log="-",
        last_error="línea",
    )
    control.set_description(description)
    assert Control.open(page).describe() == description


def test_the_longest_paths_and_a_long_error_fit(page: Path) -> None:
    control = Control.create(page)
    longest = "/" + "d" * 4094
    control.set_description(Description(config=longest, env_file=longest, last_error="€" * 10_000))
    described = Control.open(page).describe()
    assert described.config == described.env_file == longest
    assert described.last_error == "€" * (ERROR_BYTES // 3)


def test_a_description_that_stays_half_written_is_an_error(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeproxy.node.control._READ_PATIENCE_S", 0.05)
    control = Control.create(page)
    control.add(ControlWord.DESCRIPTION_SEQ)
    with pytest.raises(ControlPageError, match="half written"):
        Control.open(page).describe()


def test_a_new_page_takes_the_old_ones_place_and_its_readers_keep_the_old_one(page: Path) -> None:
    Control.create(page).set(ControlWord.GENERATION, 5)
    reader = Control.open(page)
    Control.create(page)
    assert reader.generation == 5
    assert Control.open(page).generation == 0
    assert [entry.name for entry in page.parent.iterdir()] == ["control"]


@pytest.mark.parametrize("content", [b"", b"x" * 100, b"\0" * 16384], ids=["empty", "short", "zeros"])
def test_what_is_no_control_page_is_refused(page: Path, content: bytes) -> None:
    page.write_bytes(content)
    with pytest.raises(ControlPageError):
        Control.open(page)


def test_a_missing_page_is_said_to_be_missing(page: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Control.open(page)


def test_readers_cannot_write(page: Path) -> None:
    Control.create(page)
    with pytest.raises(TypeError, match="read-only"):
        Control.open(page).set(ControlWord.GENERATION, 1)


@contextmanager
def _writer(page: Path, step: str) -> Iterator[None]:
    """A process that opens the page for writing, as its supervisor has it, and takes a step for ever."""
    body = "\n".join(f"    {line.strip()}" for line in step.strip().splitlines())
    code = f"""
import mmap, sys
from edgeproxy.config import TracingSettings
from edgeproxy.node.control import PAGE_BYTES, Control, Description
with open(sys.argv[1], "r+b") as file:
    control = Control(mmap.mmap(file.fileno(), PAGE_BYTES))
turn = 0
while True:
{body}
"""
    process = subprocess.Popen([sys.executable, "-c", code, str(page)])
    try:
        yield
        assert process.poll() is None, "the writer died"
    finally:
        process.kill()
        process.wait()
