"""The run: everything started, checked, warmed up, then measured in alternating rounds, and taken down again."""

import contextlib
import functools
import http.client
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bench import checks, outage, scripts, tracing
from bench.accesslog import AccessLog
from bench.errors import BenchError, MissingToolError
from bench.measure import Round, Watch
from bench.million import Lookups
from bench.outage import Outage
from bench.process import find_tool, free_port
from bench.scenarios import Scenario
from bench.scripts import Scripted
from bench.servers import SERVERS, Origin, RedisServer, Server, Site
from bench.tracing import Tracing


@dataclass(slots=True)
class Outcome:
    """All that a run found out."""

    rounds: list[Round] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)  # server: why it was not measured
    problems: dict[str, list[str]] = field(default_factory=dict)  # server: what it does not do as the others
    lookups: list[Lookups] = field(default_factory=list)  # in edgeproxy's stores, by store and number of objects
    outages: list[Outage] = field(default_factory=list)  # what requests notice when Redis fails, by case
    tracing: Tracing | None = None  # what it costs, and whether every span arrives
    scripts: list[Scripted] = field(default_factory=list)  # what they cost, by node


def progress(text: str) -> None:
    """One line about where the run is, beside the result and not in it."""
    print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def working_folders() -> Iterator[tuple[Path, Path]]:
    """A folder on disk and one in shared memory, both gone afterwards."""
    with contextlib.ExitStack() as stack:
        found = []
        for parent in (None, "/dev/shm"):
            folder = Path(tempfile.mkdtemp(prefix="edgeproxy-bench-", dir=parent))
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            folder.chmod(0o755)
            found.append(folder)
        yield found[0], found[1]


def start(names: list[str], site: Site, stack: contextlib.ExitStack, outcome: Outcome) -> list[Server]:
    """Starts the servers named; one whose program is not installed is left out and said to be."""
    servers = []
    for name in names:
        try:
            server = stack.enter_context(SERVERS[name](site))
        except MissingToolError as missing:
            outcome.skipped[name] = str(missing)
            progress(f"{name}: left out: {missing}")
            continue
        outcome.versions[name] = server.version()
        progress(f"{name}: {outcome.versions[name]} on port {server.port}")
        servers.append(server)
    return servers


def check(servers: list[Server], origin: Origin, outcome: Outcome) -> None:
    """Notes what a server does not do as it should."""
    for server in servers:
        if found := checks.problems(server, origin):
            outcome.problems[server.name] = found
            progress("\n".join(f"{server.name}: {problem}" for problem in found))


def attempt[T](step: Callable[[], T], scenario: Scenario, watch: Watch, outcome: Outcome) -> T | None:
    """Does one step of a scenario; None, and a problem noted, if the server can't take part in it any further. Without
    the origin the run is worth nothing, and ends."""
    why = ""
    try:
        done = step()
    except (OSError, http.client.HTTPException, BenchError) as error:
        done, why = None, str(error) or repr(error)
    if ended := watch.origin.ended():
        raise BenchError(f"the origin is gone: {ended}")
    if why := watch.server.ended() or why:
        problem = f"{scenario.name}: no further rounds: {why}"
        outcome.problems.setdefault(watch.server.name, []).append(problem)
        progress(f"{watch.server.name}: {problem}")
        return None
    return done


def prepared(scenario: Scenario, watches: list[Watch], outcome: Outcome) -> list[Watch]:
    """Those of the servers that came through the warm-up, with their logs at rest."""

    def warm_up(watch: Watch) -> bool:
        scenario.warm_up(watch.server)
        return True

    found = [watch for watch in watches if attempt(functools.partial(warm_up, watch), scenario, watch, outcome)]
    for watch in found:
        watch.log.settle()
    return found


def alternate(scenario: Scenario, rounds: int, watches: list[Watch], outcome: Outcome) -> None:
    """Rounds of one scenario; each begins with another server, so that no one is always the first."""
    watches = prepared(scenario, watches, outcome)
    for number in range(rounds):
        shift = number % max(1, len(watches))
        for watch in watches[shift:] + watches[:shift]:
            found = attempt(functools.partial(scenario.round, watch), scenario, watch, outcome)
            if not found:
                watches.remove(watch)
                continue
            outcome.rounds.append(found)
            progress(
                f"{scenario.name} {number + 1}/{rounds} {watch.server.name}: {found.rate:,.0f}/s, "
                f"server core {found.server_busy:.0%} busy, load core {found.load_busy:.0%}"
                + "".join(f"; {problem}" for problem in found.problems)
            )


def run(names: list[str], chosen: list[Scenario], rounds: int, server_core: int, load_core: int) -> Outcome:
    """Measures these servers in these scenarios."""
    find_tool("wrk", "apt-get install wrk")
    outcome = Outcome()
    with working_folders() as (work, shared_memory), contextlib.ExitStack() as stack:
        origin = stack.enter_context(Origin(work, load_core))
        outcome.versions["origin"] = origin.version()
        site = Site(work, shared_memory, server_core, origin.port, free_port())
        groups = {scenario.group for scenario in chosen}
        names = [name for name in names if SERVERS[name].group in groups]
        if any(SERVERS[name].group == "redis" for name in names):
            stack.enter_context(RedisServer(site, load_core))
        servers = start(names, site, stack, outcome)
        if not servers:
            raise BenchError("none of the servers asked for is installed")
        check(servers, origin, outcome)
        for scenario in chosen:
            watches = [
                Watch(server, origin, load_core, AccessLog(server.access_log))
                for server in servers
                if server.group == scenario.group and server.name not in scenario.without and not server.ended()
            ]
            alternate(scenario, rounds, watches, outcome)
    return outcome


def traced(
    rounds: int, seconds: float, arrival_seconds: float, rate: float, connections: int, server_core: int, load_core: int
) -> Tracing:
    """Measures what tracing costs, and whether every span arrives."""
    with working_folders() as (work, shared_memory), Origin(work, load_core) as origin:
        return tracing.run(
            Site(work, shared_memory, server_core, origin.port),
            rounds=rounds,
            seconds=seconds,
            arrival_seconds=arrival_seconds,
            rate=rate,
            connections=connections,
            load_core=load_core,
        )


def scripted(
    names: list[str], rounds: int, seconds: float, connections: int, server_core: int, load_core: int
) -> list[Scripted]:
    """Measures what operators' scripts cost."""
    with working_folders() as (work, shared_memory), Origin(work, load_core) as origin:
        site = Site(work, shared_memory, server_core, origin.port)
        return scripts.run(names, site, rounds=rounds, seconds=seconds, connections=connections, load_core=load_core)


def outages(rounds: int, seconds: float, server_core: int, load_core: int) -> list[Outage]:
    """Measures what requests notice of a Redis Cluster that fails."""
    with working_folders() as (work, shared_memory), Origin(work, load_core) as origin:
        site = Site(work, shared_memory, server_core, origin.port)
        return outage.run(site, origin, rounds, seconds, load_core)
