"""The closed-loop load: wrk with keep-alive connections, each sending its next request when the answer is there.

wrk prints figures rounded and with changing units; conf/report.lua makes it print one line of JSON beside them, which
is what is read here. Its Lua has no hook for a request or a response, so wrk runs at the speed it has without a
script. Where there are two URLs, conf/mixed.lua has a hook for the request: wrk is a little slower then.
"""

import json
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.errors import BenchError
from bench.process import find_tool

CONF = Path(__file__).resolve().parent / "conf"
SCRIPT, MIXED = CONF / "report.lua", CONF / "mixed.lua"
NO_HEADERS: Mapping[str, str] = {}
MARK = re.compile(r"^WRK (\{.*\})$", re.MULTILINE)
GRACE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Load:
    """What one run of a load generator brought."""

    requests: int  # answered in full
    seconds: float
    bytes: int
    failed: int  # answers that were not 2xx or 3xx, and connections that broke
    timed_out: int
    latency_ms: dict[str, float]
    asked_rate: float = 0.0  # requests a second that were due; 0 for a load that sends as fast as it gets answers

    @property
    def rate(self) -> float:
        return self.requests / self.seconds


@dataclass(frozen=True, slots=True)
class Other:
    """Another path that requests go to now and then."""

    path: str
    every: int  # it is the path of one request in so many


def parse_wrk(output: str) -> Load:
    """Reads the line that conf/report.lua added to wrk's output."""
    found = MARK.search(output)
    if not found:
        raise BenchError(f"wrk did not report:\n{output.strip()}")
    told = json.loads(found[1])
    return Load(
        requests=told["requests"],
        seconds=told["duration_us"] / 1e6,
        bytes=told["bytes"],
        failed=told["status"] + told["connect"] + told["read"] + told["write"],
        timed_out=told["timeout"],
        latency_ms={name: us / 1000 for name, us in told["latency_us"].items()},
    )


def wrk_command(
    url: str,
    seconds: float,
    connections: int,
    core: int,
    headers: Mapping[str, str] = NO_HEADERS,
    other: Other | None = None,
) -> Sequence[str]:
    """One thread: it has one core. wrk takes whole seconds only."""
    wrk, taskset = find_tool("wrk", "apt-get install wrk"), find_tool("taskset", "apt-get install util-linux")
    duration = f"{max(1, round(seconds))}s"
    fields = [word for name, value in headers.items() for word in ("-H", f"{name}: {value}")]
    pinned = (taskset, "--cpu-list", str(core), wrk, "-t1", f"-c{connections}", f"-d{duration}")
    if other is None:
        return (*pinned, "-s", str(SCRIPT), *fields, url)
    return (*pinned, "-s", str(MIXED), *fields, url, "--", other.path, str(other.every))


def run_wrk(
    url: str,
    seconds: float,
    connections: int,
    core: int,
    headers: Mapping[str, str] = NO_HEADERS,
    other: Other | None = None,
) -> Load:
    """Runs wrk to its end; every request has these header fields, and some go to another path."""
    command = wrk_command(url, seconds, connections, core, headers, other)
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds + GRACE_SECONDS)
    return parse_wrk(done.stdout + done.stderr)
