"""One run from beginning to end: engines up, sequences through, differences out."""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

from tests.oracle.clock import Clock
from tests.oracle.differences import Difference, differences
from tests.oracle.engines import Engine, FastNode, Mitmdump
from tests.oracle.lockstep import Exchange, run
from tests.oracle.profiles import Profile
from tests.oracle.resources import Resource
from tests.oracle.sequences import Sequence
from tests.oracle.tolerated import TOLERATED, Tolerated, unexplained

Against = Literal["mitmdump", "node"]


@dataclass
class Verdict:
    """What came of a run."""

    exchanges: list[Exchange]
    names: tuple[str, str]
    left: list[Difference]
    """What no row explains."""
    used: Counter[str]
    """How many differences each row of the table explains."""
    faults: list[object]
    """What is wrong with the harness itself: its origins' script, or requests that are nobody's."""


def judge(
    sequences: Iterable[Sequence],
    profile: Profile,
    against: Against | Callable[[Clock, list[Resource]], Engine] = "mitmdump",
    table: tuple[Tolerated, ...] = TOLERATED,
) -> Verdict:
    """Run sequences through the node and another engine: mitmdump, a second node, or what is made here."""
    rows = list(sequences)
    resources = [resource for sequence in rows for resource in sequence.resources]
    with contextlib.ExitStack() as stack:
        clock = stack.enter_context(Clock())
        node: Engine = FastNode(clock, resources, profile.changes, profile.script)
        if callable(against):
            other = against(clock, resources)
        elif against == "node":
            other = FastNode(clock, resources, profile.changes, profile.script, "second")
        else:
            other = Mitmdump(clock, resources, profile.changes, profile.script)
        with ThreadPoolExecutor() as starting:  # most of a start is waiting
            for started in [starting.submit(stack.enter_context, engine) for engine in (node, other)]:
                started.result()
        exchanges = run((node, other), clock, rows)
        origins = (node.origin, other.origin)
        faults = [fault for origin in origins for fault in (*origin.errors, *origin.broken, *origin.strays)]
    left, used = unexplained(differences(exchanges), table)
    return Verdict(exchanges, (node.name, other.name), left, used, faults)
