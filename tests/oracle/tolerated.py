"""The one table of what may differ between the engines, each row with its reason; docs/oracle.md is made of it.

A row explains a difference if its predicate says so; what no row explains fails the test, and so does a row that
explains nothing in a whole run. Rows are as narrow as they can be told.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import NamedTuple

from tests.oracle.deciding import SCRIPT
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
    return difference.exchange.sequence.theme == "trailers"


def _is_cut(difference: Difference) -> bool:
    exchange = difference.exchange
    is_streamed = exchange.one.failure.startswith("Cut") or difference.where == "record stage"
    return exchange.sequence.theme == "cut" and is_streamed and not difference.where.endswith(" error")


def _is_refused_by_mitmproxy(difference: Difference) -> bool:
    one, other = difference.exchange.one.response, difference.exchange.other.response
    return (
        one is not None
        and other is not None
        and one.status == other.status == 400
        and other.values("server")[:1] != []
        and other["server"].startswith("mitmproxy")
    )


def _is_shown_to_scripts(difference: Difference) -> bool:
    """Whether a script was asked for something, or says that it was, and the request was refused by the node itself."""
    record = difference.exchange.one.record
    is_shown = bool(_asked_of_scripts(difference)) or difference.where == "record script"
    return is_shown and record is not None and record["error"] is not None


def _is_answered_before_the_body(difference: Difference) -> bool:
    return bool(difference.exchange.ask.body) and "refuse" in _asked_of_scripts(difference)


def _is_framed_otherwise(difference: Difference) -> bool:
    exchange = difference.exchange
    record = exchange.one.record
    if difference.where != "response header content-length" or record is None or record["script"] is None:
        return False
    return (
        difference.one is None
        or difference.other is None
        or str(difference.one).lower() == str(difference.other).lower()
    )


def _asked_of_scripts(difference: Difference) -> list[str]:
    return [word for name, value in difference.exchange.ask.fields if name == SCRIPT for word in value.split()]


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
    Tolerated(
        "cut",
        "everything of a response that the origin breaks off in the middle",
        "The node has begun to send it, and cuts its client off, too; under mitmproxy it is a 502.",
        "The node streams; the addons answer with whole responses or none. The error in the access log is the same.",
        _is_cut,
    ),
    Tolerated(
        "refused-by-mitmproxy",
        "everything of the answer to a target in absolute form that is no URI",
        "The node refuses it with a 400 that has its trace id, and a record; mitmproxy with one of its own.",
        "mitmproxy's parser is first: of what it refuses no addon hears. The status is the same.",
        _is_refused_by_mitmproxy,
    ),
    Tolerated(
        "shown-to-scripts",
        "scripts' part in what the edge answers with an error of its own",
        "The node shows scripts no request that it refuses for how it is made, and response hooks none of its own "
        "errors; mitmproxy shows them both.",
        "It is mitmproxy that calls operators' scripts there; the addons can't hide from them what it shows.",
        _is_shown_to_scripts,
    ),
    Tolerated(
        "answered-before-the-body",
        "what a script answers in `requestheaders` to a request with a body",
        "The node answers at once, and there is no `request` hook; mitmproxy reads the body and calls it.",
        "A client that is refused should not have to send its upload first, and the edge does not have to read it.",
        _is_answered_before_the_body,
    ),
    Tolerated(
        "framed-by-scripts",
        "`Content-Length` of a response that scripts had the body of",
        "The node says the length; under mitmproxy what came in chunks goes on in chunks, and what a script makes has "
        "the name in lower case.",
        "How a body's end is told is each engine's affair; where both say a length it is the same.",
        _is_framed_otherwise,
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
