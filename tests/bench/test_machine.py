import os

import pytest

from bench import machine

STAT = """cpu  300 0 150 1000 50 10 40 5 0 0
cpu0 100 1 50 500 25 5 20 2 0 0
cpu1 200 0 100 500 25 5 20 3 0 0
intr 1 2 3
"""


def test_a_core_is_busy_with_work_and_interrupts_and_idle_while_it_waits_for_disks() -> None:
    times = machine.parse_core_times(STAT, 1)
    per_second = machine.TICKS_PER_SECOND
    assert times.work == 300 / per_second
    assert times.interrupts == 25 / per_second
    assert times.idle == 525 / per_second
    assert times.stolen == 3 / per_second


def test_an_unknown_core_is_an_error() -> None:
    with pytest.raises(ValueError, match="cpu7"):
        machine.parse_core_times(STAT, 7)


def test_shares_are_of_the_time_that_the_hypervisor_left() -> None:
    times = machine.CoreTimes(work=3, interrupts=1, idle=4, stolen=8)
    assert times.busy == 4
    assert times.share(times.busy) == 0.5
    assert times.share(times.stolen) == 1.0


def test_an_interval_without_a_tick_has_no_shares() -> None:
    assert machine.CoreTimes(0, 0, 0, 0).share(0) == 0


def test_a_process_may_have_any_name() -> None:
    fields = "S 42 43 44 0 -1 4194560 100 0 0 0 250 150 0 0 20 0 1 0 12345"
    stat = machine.parse_process_stat(f"4711 (odd) name (1)) {fields}")
    assert (stat.parent, stat.session) == (42, 44)
    assert stat.cpu_seconds == 400 / machine.TICKS_PER_SECOND


def test_this_process_is_in_its_own_family_and_has_memory() -> None:
    assert os.getpid() in machine.family(os.getpid())
    assert machine.memory_bytes(os.getpid()) > 1_000_000
    assert "python" in machine.command_line(os.getpid())


def test_a_process_that_is_gone_has_no_figures() -> None:
    assert machine.process_stat(2**22 + 1) is None
    assert machine.command_line(2**22 + 1) == ""
    assert machine.cpu_seconds({2**22 + 1}) == 0


def test_the_environment_names_processor_and_kernel() -> None:
    found = machine.environment()
    assert found["cpu"]
    assert found["kernel"] == os.uname().release
