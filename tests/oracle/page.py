"""docs/oracle.md, made of the table of tolerated differences: `python -m tests.oracle --docs`."""

from pathlib import Path
from textwrap import fill

from tests.oracle.differences import HOP, MEASURED, PLACED
from tests.oracle.profiles import PROFILES
from tests.oracle.tolerated import TOLERATED

PAGE = Path(__file__).parents[2] / "docs" / "oracle.md"
_COLUMNS = 150

_WHAT = """\
edgeproxy's policy runs on two engines: the node itself, and stock mitmproxy with the addons of `edgeproxy/addons`. A
test sends the same generated requests ({requests} of them, under {profiles} configurations) through both, each in front
of an origin of its own that follows the same script, one request after the other and by a clock that stands still
between them. Then everything is compared that is end to end: status, header fields and body of the answer, what the
cache did and why, what the origin was asked and with which trace context, and the line in the access log. Ids are
compared by whose they are: where one engine names the span of a certain request, so does the other.
"""
_HOW = """\
The table is all that may differ. The test fails where something else does, and where a row is no longer needed.
"""


def page() -> str:
    """The page's text."""
    opening = _WHAT.format(requests=f"{sum(one.requests for one in PROFILES):,}", profiles=len(PROFILES))
    closing = (
        f"Fields that end at each hop, and how a body's end is told: {_list(HOP)}.",
        f"The values of durations: `dur` in Server-Timing, in the access log {_list(MEASURED)}; that there is one is.",
        f"By which process, and over which of several connections: in the access log {_list(PLACED)}.",
    )
    lines = [
        "# Two engines, one behaviour\n",
        "<!-- Made by `python -m tests.oracle --docs` from tests/oracle/tolerated.py: change that, not this. -->\n",
        f"{fill(opening, _COLUMNS)}\n",
        f"{fill(_HOW, _COLUMNS)}\n",
        "```sh",
        "python -m pytest tests/oracle                      # the whole of it",
        "python -m tests.oracle --seed 7                    # with other requests",
        "python -m tests.oracle --seed 7 --sequence 12      # one sequence of requests, every exchange shown",
        "```\n",
        "## Tolerated differences\n",
        "| id | where | what differs | why that is right |",
        "| --- | --- | --- | --- |",
        *(f"| `{row.id}` | {_cell(row.where)} | {_cell(row.what)} | {_cell(row.reason)} |" for row in TOLERATED),
        "\n## What is not compared\n",
        *(fill(f"- {line}", _COLUMNS, subsequent_indent="  ", break_on_hyphens=False) for line in closing),
    ]
    return "\n".join([*lines, ""])


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _list(names: frozenset[str]) -> str:
    return ", ".join(f"`{name}`" for name in sorted(names))
