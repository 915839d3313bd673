"""One round: what happened on both cores, in the server's processes, at the origin and in the log while a load ran.

This knows how to look, not what to run: scenarios.py gives the load.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from bench import machine
from bench.accesslog import AccessLog
from bench.load import Load
from bench.servers import Origin, Server


@dataclass(frozen=True, slots=True)
class Round:
    """The figures of one round. Shares are of 1; sizes are bytes; times are what their names say."""

    scenario: str
    server: str
    requests: int
    seconds: float
    rate: float  # answered requests per second
    asked_rate: float  # requests per second that were due; 0 if there was no schedule
    bytes_per_s: float
    failed: int
    timed_out: int
    latency_ms: dict[str, float]
    server_busy: float  # of the server's core
    load_busy: float  # of the load's core: generator and origin
    foreign: float  # of the server's core, by processes that are not the server's
    stolen: float  # of the server's core, by the hypervisor
    core_us: float  # busy time of the server's core for each request, the log's catching up included
    process_us: float  # CPU time of the server's processes for each request, the log's catching up included
    origin_share: float  # requests that reached the origin for each request answered
    log_difference: int  # lines in the log more than requests answered
    log_lag_s: float
    origin_requests: int = 0
    problems: list[str] = field(default_factory=list)
    memory: dict[str, int] = field(default_factory=dict)  # of the worker, if the scenario looks at it: see memory.py


@dataclass(frozen=True, slots=True)
class Watch:
    """Looks at one server while loads run."""

    server: Server
    origin: Origin
    load_core: int
    log: AccessLog

    def round(self, scenario: str, load: Callable[[], Load], in_flight: int) -> Round:
        """Runs the load and looks; at its end at most `in_flight` requests may have been logged that the load did not
        count. The log is quiet when it begins and when it ends."""
        self.log.empty()
        asked = self.origin.requests()
        pids = self.server.pids()
        cpu = [machine.cpu_seconds(pids)]
        server, other = machine.core_times(self.server.site.core), machine.core_times(self.load_core)
        got = load()
        server = machine.core_times(self.server.site.core) - server
        other = machine.core_times(self.load_core) - other
        cpu.append(machine.cpu_seconds(pids))
        lag_s = self.log.reached(got.requests)
        cpu.append(machine.cpu_seconds(pids))
        catching_up = cpu[2] - cpu[1]
        problems = [] if self.server.pids() == pids else ["its processes were replaced during the round"]
        requests, reached = max(1, got.requests), self.origin.requests() - asked
        difference = self.log.settle() - got.requests
        if not 0 <= difference <= in_flight:
            problems.append(f"its log has {difference:+,} lines for {got.requests:,} requests")
        return Round(
            scenario=scenario,
            server=self.server.name,
            requests=got.requests,
            seconds=got.seconds,
            rate=got.rate,
            asked_rate=got.asked_rate,
            bytes_per_s=got.bytes / got.seconds,
            failed=got.failed,
            timed_out=got.timed_out,
            latency_ms=got.latency_ms,
            server_busy=server.share(server.busy),
            load_busy=other.share(other.busy),
            foreign=max(0.0, server.share(server.busy - (cpu[1] - cpu[0]))),
            stolen=server.share(server.stolen),
            core_us=(server.busy + catching_up) / requests * 1e6,
            process_us=(cpu[2] - cpu[0]) / requests * 1e6,
            origin_share=reached / requests,
            origin_requests=reached,
            log_difference=difference,
            log_lag_s=lag_s,
            problems=problems,
        )
