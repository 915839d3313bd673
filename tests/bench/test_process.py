import os
import sys
from pathlib import Path

import pytest

from bench import machine
from bench.errors import BenchError, MissingToolError
from bench.process import Program, accepts, find_tool, free_port, wait_until

CORE = min(os.sched_getaffinity(0))
PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
print(child.pid, flush=True)
time.sleep(600)
"""


def test_a_missing_tool_says_how_to_get_it() -> None:
    with pytest.raises(MissingToolError, match=r"no-such-tool is not installed \(try: apt-get install it\)"):
        find_tool("no-such-tool", "apt-get install it")


def test_a_free_port_is_none_that_the_kernel_gives_to_outgoing_connections() -> None:
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    port = free_port()
    assert 10_000 <= port < first
    assert not accepts(port)


def test_a_program_that_ends_at_once_is_reported_in_its_own_words(tmp_path: Path) -> None:
    program = Program([sys.executable, "-c", "raise SystemExit('bad option')"], CORE, tmp_path / "output")
    with pytest.raises(BenchError, match="bad option"):
        program.wait_ready(lambda: False)


def test_stopping_a_program_ends_what_it_started_in_other_sessions_too(tmp_path: Path) -> None:
    program = Program([sys.executable, "-c", PARENT], CORE, tmp_path / "output")
    try:
        program.wait_ready(lambda: program.last_words().isdigit())
        child = int(program.last_words())
        assert child in machine.family(program.pid)
    finally:
        program.stop()
    assert not program.alive
    assert wait_until(lambda: not machine.command_line(child), 5)
