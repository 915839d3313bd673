"""What operators' scripts cost the requests that they do not see, and those that they do: `--scenario scripts`.

Cache hits of 785 bytes, of which one in a hundred goes to a path of its own, at four nodes: without scripts; with one
whose filter matches nothing; with one whose filter matches that path; with one that sees every request. The script is
conf/script.py, a mitmproxy addon with a hook each way. Compared is the worker's CPU time for each request (`capacity`);
that the script saw what it should is read from the node's own counters. The same once more compiled, if it is.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from bench.capacity import Cost, compare, spread
from bench.errors import BenchError, MissingToolError
from bench.load import Load, Other, run_wrk
from bench.servers import Compiled, Edgeproxy, Server, Site
from bench.servers.base import CONF
from bench.summary import Target, Verdict
from bench.transfer import get
from edgeproxy.config import toml_value
from edgeproxy.node.status import read_status

PATH = "/hit/785"
OTHER = Other("/hit/scripted/785", every=100)
SHARE = 1 / OTHER.every
TARGET = 0.9
WARM_UP_SECONDS = 1.0
ADDONS = """
[addons]
scripts = [@SCRIPT@]
filter = @FILTER@
"""


class _Node(Edgeproxy):
    """edgeproxy with a script, or none."""

    base: ClassVar[str]
    """The node without scripts that it is compared with."""
    share: ClassVar[float]
    """The share of requests that the script is to see."""
    filter: ClassVar[str | None]
    """None where there is no script."""

    def configure(self, template: str, **values: object) -> Path:
        written = super().configure(template, **values)
        if self.filter is not None:
            addons = ADDONS.replace("@SCRIPT@", toml_value(str(CONF / "script.py")))
            with written.open("a") as config:
                config.write(addons.replace("@FILTER@", toml_value(self.filter)))
        return written

    def seen(self) -> int:
        """How many requests its script has seen."""
        scripts = read_status(self.site.shared_memory / self.name).scripts
        return scripts.flows if scripts else 0


_KINDS = (
    ("none", "", None, 0.0),
    ("idle", ", a script that sees none", "~u /nothing", 0.0),
    ("some", ", a script that sees 1 %", "~u /scripted", SHARE),
    ("all", ", a script that sees all", "", 1.0),
)


def _nodes(names: Sequence[str]) -> list[type[_Node]]:
    """Each kind of node, as it is and compiled, as far as that is asked for."""
    return [
        type(
            f"_{base.__name__}{kind.title()}",
            (_Node, base),
            {
                "name": f"{base.name}-scripts-{kind}",
                "title": f"{base.title}{title}",
                "base": f"{base.name}-scripts-none",
                "filter": expression,
                "share": share,
            },
        )
        for base in (Edgeproxy, Compiled)
        if base.name in names
        for kind, title, expression, share in _KINDS
    ]


@dataclass(frozen=True, slots=True)
class Scripted:
    """One node over all rounds."""

    cost: Cost
    base: str  # the node without scripts that it is compared with
    share: float  # of the requests, which its script is to see
    seen: float  # of the requests, which it saw


def _is_scripted(node: _Node, path: str) -> bool:
    return "X-Scripted" in get(node.port, path).headers


def _check(node: _Node) -> None:
    """Raises BenchError unless the script sees what it should. The responses are stored by that, too."""
    expected = {PATH: node.share == 1, OTHER.path: node.share > 0}
    for path, is_seen in expected.items():
        for answer in ("miss", "hit"):
            if _is_scripted(node, path) != is_seen:
                raise BenchError(
                    f"{node.name}: the script {'does not see' if is_seen else 'sees'} a {answer} of {path}"
                )


def run(
    names: Sequence[str], site: Site, *, rounds: int, seconds: float, connections: int, load_core: int
) -> list[Scripted]:
    """Measure it all, with the servers named."""
    requests: dict[str, int] = {}

    def load(server: Server, seconds: float = seconds) -> Load:
        got = run_wrk(server.url(PATH), seconds, connections, load_core, other=OTHER)
        requests[server.name] = requests.get(server.name, 0) + got.requests
        return got

    with contextlib.ExitStack() as stack:
        nodes: list[_Node] = []
        for kind in _nodes(names):
            with contextlib.suppress(MissingToolError):
                nodes.append(stack.enter_context(kind(site)))
        for node in nodes:
            _check(node)
            spread(node, load_core)
            load(node, WARM_UP_SECONDS)
        before = {node.name: node.seen() for node in nodes}
        requests.clear()
        costs = compare(nodes, rounds, load, "scripts")
        return [
            Scripted(cost, node.base, node.share, (node.seen() - before[node.name]) / requests[node.name])
            for node, cost in zip(nodes, costs, strict=True)
        ]


HEADER = ("", "answered/s", "worker's CPU, us a request", "of that without scripts", "seen by the script", "us a flow")


def _compared(found: Sequence[Scripted]) -> Iterator[tuple[Scripted, Scripted]]:
    """Each with the one that has no script."""
    bases = {one.cost.server: one for one in found}
    return ((one, bases[one.base]) for one in found if one.base in bases)


def rows(found: Sequence[Scripted]) -> list[list[str]]:
    """What scripts cost, as the report shows it; a flow is a request that a script sees."""
    return [
        [
            one.cost.title,
            f"{one.cost.rate:,.0f}",
            f"{one.cost.worker_us:.2f}",
            f"{one.cost.capacity / base.cost.capacity:.2f}",
            f"{one.seen:.2%}" if one is not base else "",
            f"{(one.cost.worker_us - base.cost.worker_us) / one.seen:.0f}" if one.seen else "",
        ]
        for one, base in _compared(found)
    ]


def targets(found: Sequence[Scripted]) -> Iterator[Target]:
    """What is promised of scripts."""
    measured = {one.cost.server: (one, base) for one, base in _compared(found)}
    for kind in (Edgeproxy, Compiled):
        compiled = "compiled: " if kind is Compiled else ""
        promise = (
            f"{compiled}hits of which a script sees 1 %: at least {TARGET} x those without one, by the worker's core"
        )
        if (pair := measured.get(f"{kind.name}-scripts-some")) is None:
            yield Target(promise, "", Verdict.NOT_MEASURED)
            continue
        one, base = pair
        ratio = one.cost.capacity / base.cost.capacity
        is_right = abs(one.seen - one.share) < one.share / 10
        unsound = "" if is_right else f"; the script saw {one.seen:.2%}"
        yield Target(promise, f"{ratio:.2f} x{unsound}", Verdict.PASS if ratio >= TARGET and is_right else Verdict.FAIL)
