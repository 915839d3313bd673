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


def _is_unexported(difference: Difference) -> bool:
    return difference.where in {"record exported", "refresh record exported"} and difference.other is False


def _has_trailers(difference: Difference) -> bool:
    response = difference.exchange.one.response
    return response is not None and bool(response.trailers)


TOLERATED: tuple[Tolerated, ...] = (
    Tolerated(
        "no-export",
        "access log: `exported`",
        "The node exports spans; under mitmproxy `exported` is always false.",
        "Spans are exported by the node's scribe, and mitmproxy has none. What is sampled, and why, is the same.",
        _is_unexported,
    ),
    Tolerated(
        "trailers",
        "everything of a response with a trailer section",
        "The node passes trailer fields on; under mitmproxy such a response is a 502 (`origin_malformed`).",
        "mitmproxy can't read trailer sections of HTTP/1; it is said so plainly, and nothing is stored.",
        _has_trailers,
    ),
)


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
