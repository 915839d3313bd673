"""Runs the oracle by hand: `python -m tests.oracle [--seed N] [--profile NAME] [--sequence N] [--against node]`.

With `--sequence` that sequence alone, every exchange shown: the way to look into a difference. With `--requests` so
many requests. `--docs` writes docs/oracle.md.
"""

import argparse
import sys
import time

from tests.oracle.generator import sequence, sequences
from tests.oracle.page import PAGE, page
from tests.oracle.profiles import PROFILES, profile
from tests.oracle.report import described, report
from tests.oracle.verdict import judge


def main(arguments: list[str]) -> int:
    """Exit status 1 where there is a difference that no row explains."""
    parser = argparse.ArgumentParser(prog="python -m tests.oracle", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--profile", choices=[one.name for one in PROFILES], default="default")
    parser.add_argument("--sequence", type=int, action="append")
    parser.add_argument("--requests", type=int)
    parser.add_argument("--against", choices=["mitmdump", "node"], default="mitmdump")
    parser.add_argument("--docs", action="store_true", help=f"write {PAGE.name} and do nothing else")
    asked = parser.parse_args(arguments)
    if asked.docs:
        PAGE.write_text(page(), encoding="utf-8")
        return 0
    chosen = profile(asked.profile)
    if asked.sequence:
        rows = [sequence(asked.seed, number, chosen) for number in asked.sequence]
    else:
        rows = list(sequences(asked.seed, chosen, asked.requests or 0))
    began = time.monotonic()
    verdict = judge(rows, chosen, asked.against)
    if asked.sequence:
        for exchange in verdict.exchanges:
            print(f"### sequence {exchange.sequence.number}, request {exchange.index}")
            print(described(exchange, verdict.names))
    for fault in verdict.faults:
        print("fault:", fault)
    if verdict.left:
        print(report(verdict.left, verdict.names, asked.seed, asked.profile))
    print(f"{len(verdict.exchanges)} requests in {time.monotonic() - began:.1f} s, {len(verdict.left)} unexplained")
    print("explained:", dict(verdict.used))
    return 1 if verdict.left or verdict.faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
