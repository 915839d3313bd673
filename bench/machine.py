"""What the kernel says about cores and processes: /proc and nothing else.

All times are seconds of CPU. A core's time comes from /proc/stat (sampled by the kernel at each tick unless it was
built for precise accounting), a process's from /proc/PID/stat (exact, softirq work that it did in its own context
included).
"""

import os
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class CoreTimes:
    """One core since boot, by what it did."""

    work: float  # user, nice, system
    interrupts: float  # irq, softirq
    idle: float
    stolen: float  # wanted to run; the hypervisor gave the time to somebody else

    def __sub__(self, earlier: "CoreTimes") -> "CoreTimes":
        return CoreTimes(
            self.work - earlier.work,
            self.interrupts - earlier.interrupts,
            self.idle - earlier.idle,
            self.stolen - earlier.stolen,
        )

    @property
    def busy(self) -> float:
        return self.work + self.interrupts

    def share(self, seconds: float) -> float:
        """What part of the time that the core had for us `seconds` is; 0 for an interval too short to have a tick."""
        return seconds / (self.busy + self.idle) if self.busy + self.idle > 0 else 0.0


def parse_core_times(stat: str, core: int) -> CoreTimes:
    """One core's line of /proc/stat."""
    for line in stat.splitlines():
        name, *fields = line.split()
        if name == f"cpu{core}":
            user, nice, system, idle, iowait, irq, softirq, steal = (int(f) / TICKS_PER_SECOND for f in fields[:8])
            return CoreTimes(user + nice + system, irq + softirq, idle + iowait, steal)
    raise ValueError(f"/proc/stat has no cpu{core}")


def core_times(core: int) -> CoreTimes:
    """A core's times now."""
    return parse_core_times(Path("/proc/stat").read_text(), core)


@dataclass(frozen=True, slots=True)
class ProcessStat:
    """What is needed of /proc/PID/stat."""

    parent: int
    session: int
    user_seconds: float  # its ended threads included, as in the next
    kernel_seconds: float

    @property
    def cpu_seconds(self) -> float:
        return self.user_seconds + self.kernel_seconds


def parse_process_stat(stat: str) -> ProcessStat:
    """Reads /proc/PID/stat; the program's name in it may hold spaces and parentheses."""
    fields = stat[stat.rindex(")") + 2 :].split()
    return ProcessStat(
        parent=int(fields[1]),
        session=int(fields[3]),
        user_seconds=int(fields[11]) / TICKS_PER_SECOND,
        kernel_seconds=int(fields[12]) / TICKS_PER_SECOND,
    )


def process_stat(pid: int) -> ProcessStat | None:
    """A process's figures, or None if there is no such process any more."""
    try:
        return parse_process_stat(Path(f"/proc/{pid}/stat").read_text())
    except (FileNotFoundError, ProcessLookupError):
        return None


def family(*roots: int) -> set[int]:
    """These processes with all their descendants and all others of the sessions that they lead: a child whose parent
    died belongs to the server still."""
    everybody = {
        int(entry.name): stat
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and (stat := process_stat(int(entry.name)))
    }
    found: set[int] = set()
    fresh = {pid for pid, stat in everybody.items() if pid in roots or stat.session in roots}
    while fresh:
        found |= fresh
        fresh = {pid for pid, stat in everybody.items() if stat.parent in fresh and pid not in found}
    return found


def cpu_seconds(pids: set[int]) -> float:
    """The CPU time that these processes have used so far, together."""
    return sum(stat.cpu_seconds for pid in pids if (stat := process_stat(pid)))


def command_line(pid: int) -> str:
    """A process's arguments joined by spaces; empty for one that is gone or a zombie."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def memory_bytes(pid: int, field: str = "VmRSS", file: str = "status") -> int:
    """One figure of /proc/PID/status (VmRSS, VmHWM, RssAnon) or, with file="smaps_rollup", of that (Pss)."""
    for line in Path(f"/proc/{pid}/{file}").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name == field:
            return int(rest.split()[0]) * 1024
    return 0


def reset_peak_memory(pid: int) -> bool:
    """Makes VmHWM start again from the present size: the peak of an interval is then exact, not sampled."""
    try:
        Path(f"/proc/{pid}/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def cpu_model() -> str:
    """What /proc/cpuinfo calls the processor."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.processor() or platform.machine()


def first_output_line(*command: str) -> str:
    """The first line that a program prints (nginx and others print their version to stderr); empty if it can't run."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    except OSError:
        return ""
    return ((done.stdout or done.stderr).strip().splitlines() or [""])[0]


def environment() -> dict[str, str]:
    """What a reader needs in order to judge the figures: processor, kernel, memory, Python."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "cpu": cpu_model(),
        "cores": str(os.cpu_count()),
        "memory": f"{total / 2**30:.0f} GiB",
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load average before": " ".join(f"{load:.2f}" for load in os.getloadavg()),
    }
