"""The one table of what may differ between the engines, each row with its reason; docs/oracle.md is made of it.

A row explains a difference if its predicate says so; what no row explains fails the test, and so does a row that
explains nothing in a whole run. Rows are as narrow as they can be told.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import NamedTuple

from tests.oracle.differences import Difference


class Tolerated(NamedTuple):
    """A difference that is no fault."""

    id: str
    where: str
    """In which part of the answers, for readers."""
    what: str
    """What the node does, and what mitmproxy does."""
    reason: str
    """Why that is as it should be."""
    explains: Callable[[Difference], bool]


TOLERATED: tuple[Tolerated, ...] = ()


def unexplained(
    differences: Iterable[Difference], table: tuple[Tolerated, ...] = TOLERATED
) -> tuple[list[Difference], Counter[str]]:
    """The differences that no row explains, and how many each row does, by its id."""
    left: list[Difference] = []
    used: Counter[str] = Counter({row.id: 0 for row in table})
    for difference in differences:
        row = next((row for row in table if row.explains(difference)), None)
        if row is None:
            left.append(difference)
        else:
            used[row.id] += 1
    return left, used
