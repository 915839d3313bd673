"""Where edgeproxy's worker spends its time under load, by py-spy, and how the node's processes share the CPU time.

py-spy is no dependency of the project: `.venv/bin/pip install py-spy`. It runs on the load's core and stops the worker
for each sample: briefly for Python frames alone, for a millisecond or so with native ones, so it then takes fewer.
"""

import contextlib
import re
import subprocess
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from bench import machine
from bench.errors import BenchError
from bench.load import parse_wrk, wrk_command
from bench.process import find_tool
from bench.report import table
from bench.runner import working_folders
from bench.scenarios import Scenario, Throughput
from bench.servers import Origin, Server, Site
from bench.servers.edgeproxy import Edgeproxy

SAMPLES_PER_SECOND, SAMPLES_PER_SECOND_NATIVE = 400, 100
FRAME = re.compile(r"^(?P<function>.*?) \((?P<file>[^)]*)\)$")
ADDRESS = re.compile(r"^0x[0-9a-f]+ ")  # a library without symbols: one line for it, not one for each address
SHOWN = 30
PLUMBING = 0.99  # frames that are in all samples say nothing


def parse_samples(raw: str) -> tuple[Counter[str], Counter[str], int]:
    """Reads py-spy's raw format, `frame;frame;frame count` a line, outermost first. Returns how many samples ended in
    each frame, how many had it anywhere, and how many there were."""
    own: Counter[str] = Counter()
    anywhere: Counter[str] = Counter()
    for line in raw.splitlines():
        stack, _, count = line.rpartition(" ")
        if not stack or not count.isdigit():
            continue
        frames = [ADDRESS.sub("", frame) for frame in stack.split(";")]
        own[frames[-1]] += int(count)
        for frame in set(frames):
            anywhere[frame] += int(count)
    return own, anywhere, own.total()


def _short(frame: str) -> str:
    found = FRAME.match(frame)
    if not found:
        return frame
    return f"{found['function']} ({Path(found['file']).name})" if "/" in found["file"] else frame


def render_samples(raw: str) -> str:
    """The frames with most samples, as a table: own time first, then with all that they called."""
    own, anywhere, total = parse_samples(raw)
    if not total:
        return "no samples"
    parts = []
    for title, counts, most in (("own time", own, 1.0), ("with all that it called", anywhere, PLUMBING)):
        rows = [[_short(frame), f"{n / total:.1%}"] for frame, n in counts.most_common() if n / total <= most]
        parts.append(table([title, "share"], rows[:SHOWN]))
    return "\n\n".join(parts)


def _role(pid: int) -> str:
    command = machine.command_line(pid)
    return next((role for role in ("worker", "scribe") if f"edgeproxy.node.{role}" in command), "supervisor")


def _times(server: Server) -> dict[str, machine.ProcessStat]:
    return {_role(pid): stat for pid in server.pids() if (stat := machine.process_stat(pid))}


def _sample(scenario: Scenario, server: Server, folder: Path, tool: str, *, native: bool) -> str:
    """Profiles the worker under one load; returns the report."""
    settings, raw = scenario.settings, folder / f"profile-{scenario.name}.raw"
    scenario.warm_up(server)
    before = _times(server)
    rate, native_frames = (SAMPLES_PER_SECOND_NATIVE, ["--native"]) if native else (SAMPLES_PER_SECOND, [])
    command = wrk_command(server.url(scenario.path), settings.seconds, settings.connections, settings.load_core)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as load:
        spy = subprocess.run(
            [
                *(
                    tool,
                    "record",
                    "--pid",
                    str(server.worker_pid()),
                    "--duration",
                    str(max(1, round(settings.seconds))),
                ),
                *("--rate", str(rate), "--format", "raw", "--function", "--output", str(raw), *native_frames),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        got = parse_wrk(load.communicate()[0])
    after = _times(server)
    if spy.returncode:
        raise BenchError(f"py-spy failed:\n{spy.stderr.strip()}")
    if not got.requests:
        raise BenchError(f"no request was answered; {server.ended() or 'the server runs'}")
    shares = [
        [
            role,
            f"{(after[role].user_seconds - stat.user_seconds) / got.requests * 1e6:.2f}",
            f"{(after[role].kernel_seconds - stat.kernel_seconds) / got.requests * 1e6:.2f}",
        ]
        for role, stat in sorted(before.items())
        if role in after
    ]
    return "\n\n".join(
        [
            f"### {scenario.title}: {got.rate:,.0f} requests/s while being sampled",
            table(["process", "user us/request", "kernel us/request"], shares),
            render_samples(raw.read_text()),
            f"All stacks: {raw} (for flame graphs)",
        ]
    )


def run(chosen: Sequence[Scenario], server_core: int, load_core: int, folder: Path, *, native: bool) -> None:
    """Prints and writes a profile for each of the scenarios that is a plain load; hits and misses by default."""
    tool = find_tool("py-spy", ".venv/bin/pip install py-spy")
    folder.mkdir(parents=True, exist_ok=True)
    with working_folders() as (work, shared_memory), contextlib.ExitStack() as stack:
        origin = stack.enter_context(Origin(work, load_core))
        server = stack.enter_context(Edgeproxy(Site(work, shared_memory, server_core, origin.port)))
        for scenario in chosen:
            if isinstance(scenario, Throughput):
                report = _sample(scenario, server, folder, tool, native=native)
                (folder / f"profile-{scenario.name}.md").write_text(report + "\n")
                print(report + "\n")
