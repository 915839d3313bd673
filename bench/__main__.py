"""The command line: `python -m bench` measures, `python -m bench profile` shows where a worker's time goes."""

import argparse
import os
import signal
import sys
from pathlib import Path

from bench import machine, million, profile, report, runner
from bench.errors import BenchError
from bench.scenarios import Scenario, Settings, scenarios
from bench.servers import SERVERS
from bench.summary import Verdict

DEFAULT_JSON = Path(__file__).resolve().parent / "results" / "latest.json"
QUICK_SECONDS, QUICK_ROUNDS = 1.0, 2
MILLION = "million"
"""The one scenario that is about edgeproxy's stores alone, without a server."""
TRACING = "tracing"
"""The one that is about what tracing costs, and whether every span arrives."""
SCRIPTS = "scripts"
"""The one that is about what operators' scripts cost."""
OUTAGE = "outage"
"""The one that is about edgeproxy and a Redis Cluster that fails, without peers."""


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="edgeproxy beside its peers; see docs/performance.md"
    )
    cores = sorted(os.sched_getaffinity(0))
    parser.add_argument("command", nargs="?", choices=["compare", "profile"], default="compare")
    parser.add_argument("--only", type=_names, default=list(SERVERS), metavar="NAME,…", help=", ".join(SERVERS))
    parser.add_argument("--scenario", type=_names, default=[], metavar="NAME,…", help="hit, miss, …; all by default")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each server in each scenario (default 5)")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of a round (default 5)")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_ROUNDS} rounds of {QUICK_SECONDS:.0f} s")
    parser.add_argument("--connections", type=int, default=32, help="keep-alive connections (default 32)")
    parser.add_argument("--clients", type=int, default=1000, help="clients of collapse (default 1000)")
    parser.add_argument("--hit-rate", type=float, default=10_000, help="requests/s of latency-hit (default 10000)")
    parser.add_argument("--miss-rate", type=float, default=5_000, help="requests/s of latency-miss (default 5000)")
    parser.add_argument("--tracing-seconds", type=float, default=10.0, help="of tracing at --hit-rate (default 10)")
    parser.add_argument("--server-core", type=int, default=cores[-1], help="the last one by default")
    parser.add_argument("--load-core", type=int, default=cores[0], help="the first one by default")
    parser.add_argument("--json", type=Path, default=DEFAULT_JSON, metavar="FILE")
    parser.add_argument("--strict", action="store_true", help="exit code 1 unless every target is met")
    parser.add_argument("--native", action="store_true", help="profile: C frames too (slows the worker down)")
    return parser


def _chosen(options: argparse.Namespace) -> list[Scenario]:
    settings = Settings(
        seconds=options.seconds,
        connections=options.connections,
        load_core=options.load_core,
        hit_rate=options.hit_rate,
        miss_rate=options.miss_rate,
        clients=options.clients,
    )
    known = scenarios(settings)
    if options.server_core == options.load_core:
        raise BenchError("the server and the load need a core each: give two with --server-core and --load-core")
    every = (*known, MILLION, OUTAGE, TRACING, SCRIPTS)
    if unknown := [name for name in options.scenario if name not in every]:
        raise BenchError(f"no such scenario: {', '.join(unknown)}; there are {', '.join(every)}")
    if unknown := [name for name in options.only if name not in SERVERS]:
        raise BenchError(f"no such server: {', '.join(unknown)}; there are {', '.join(SERVERS)}")
    return [scenario for name, scenario in known.items() if not options.scenario or name in options.scenario]


def _compare(options: argparse.Namespace) -> int:
    chosen = _chosen(options)
    environment = machine.environment()
    outcome = runner.Outcome()
    if chosen:
        outcome = runner.run(options.only, chosen, options.rounds, options.server_core, options.load_core)
    if MILLION in options.scenario or not options.scenario:
        sizes = million.QUICK_SIZES if options.quick else million.SIZES
        outcome.lookups = million.run(options.server_core, options.rounds, sizes)
    if OUTAGE in options.scenario or not options.scenario:
        outcome.outages = runner.outages(options.rounds, options.seconds, options.server_core, options.load_core)
    if TRACING in options.scenario or not options.scenario:
        outcome.tracing = runner.traced(
            *(options.rounds, options.seconds, options.tracing_seconds, options.hit_rate, options.connections),
            *(options.server_core, options.load_core),
        )
    if SCRIPTS in options.scenario or not options.scenario:
        cores = options.server_core, options.load_core
        outcome.scripts = runner.scripted(options.only, options.rounds, options.seconds, options.connections, *cores)
    text = report.render(outcome, chosen, environment)
    print(text)
    settings = {name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items()}
    report.write_json(options.json, outcome, environment, settings)
    options.json.with_suffix(".md").write_text(text)
    print(f"written to {options.json} and {options.json.with_suffix('.md').name}")
    met = all(target.verdict is Verdict.PASS for target in report.promised(outcome))
    return 0 if met or not options.strict else 1


def _profile(options: argparse.Namespace) -> int:
    options.scenario = options.scenario or ["hit", "miss"]
    profile.run(_chosen(options), options.server_core, options.load_core, options.json.parent, native=options.native)
    return 0


def main() -> int:
    """Runs one command; what can't be measured is said in one line and gives exit code 2."""
    options = _parser().parse_args()
    if options.quick:
        options.seconds, options.rounds = QUICK_SECONDS, QUICK_ROUNDS
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that whatever was started is taken down
    try:
        os.sched_setaffinity(0, {options.load_core})
        return _profile(options) if options.command == "profile" else _compare(options)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
