"""Whatever could be read in two ways is refused, never guessed, and nothing behind it is looked at."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.proxy.clients.ambiguous import CASES, Case
from tests.support import Client, Node, Origin, Record, Response, request


@dataclass
class Verdict:
    """What became of a case."""

    path: str
    response: Response | None = None
    left: bytes = b""
    """What came behind the response."""
    failure: Exception | None = None
    lines: list[Record] = field(default_factory=list)


def attempt(node: Node, case: Case, path: str, *, in_pieces: bool) -> Verdict:
    data = case.at(path) + request(path + "-smuggled")
    verdict = Verdict(path)
    with Client(node.port, timeout=5) as client:
        try:
            client.send_in_pieces(data[at : at + 1] for at in range(len(data))) if in_pieces else client.send(data)
            verdict.response = client.response()
            verdict.left = client.rest()
        except (OSError, AssertionError) as error:
            verdict.failure = error  # that case's test is to fail, not all
    return verdict


@pytest.fixture(scope="module", params=["whole", "byte-by-byte"])
def verdicts(request: pytest.FixtureRequest, node: Node) -> dict[str, Verdict]:
    """All cases, each on a connection of its own: first sent, then looked up in the log."""
    in_pieces = request.param == "byte-by-byte"
    start = len(node.flushed())
    found = {case.name: attempt(node, case, f"/{request.param}/{case.name}/", in_pieces=in_pieces) for case in CASES}
    by_trace = {one.response.trace_id: one for one in found.values() if one.response}
    for line in node.flushed()[start:]:
        verdict = by_trace.get(line["trace_id"])
        assert verdict, f"a line that nobody asked for: {line}"
        verdict.lines.append(line)
    return found


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_it_is_refused(case: Case, verdicts: dict[str, Verdict], origin: Origin) -> None:
    verdict = verdicts[case.name]
    response = verdict.response
    assert verdict.failure is None
    assert response
    assert response.status == case.status
    assert response["connection"] == "close"
    assert verdict.left == b""
    problem: dict[str, Any] = response.problem
    assert (problem["status"], problem["trace_id"]) == (case.status, response.trace_id)
    assert problem["code"]
    assert problem["detail"]
    (line,) = verdict.lines
    assert (line["outcome"], line["status"], line["error"]["type"]) == ("refused", case.status, problem["code"])
    assert line["request_id"] == problem["request_id"]
    reached = [seen for seen in list(origin.requests) if verdict.path in seen.target]
    assert not [seen for seen in reached if seen.complete or not case.begun or "smuggled" in seen.target]


def test_names_of_cases_are_unique() -> None:
    assert len({case.name for case in CASES}) == len(CASES) > 150
