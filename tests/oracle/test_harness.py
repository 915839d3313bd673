"""The oracle sees nothing where there is nothing, and everything that is planted: else its silence means nothing."""

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest

from tests.oracle.clock import Clock
from tests.oracle.differences import Difference, differences
from tests.oracle.engines import Changes, FastNode
from tests.oracle.generator import THEMES, sequence, sequences
from tests.oracle.lockstep import Exchange, Observed
from tests.oracle.page import PAGE, page
from tests.oracle.profiles import PROFILES
from tests.oracle.report import report
from tests.oracle.resources import Resource
from tests.oracle.sequences import Sequence
from tests.oracle.tolerated import TOLERATED, Tolerated, unexplained
from tests.oracle.verdict import Verdict, judge
from tests.support import Response

SEED = 20
DEFAULT = PROFILES[0]
ROUNDS = 3
SOME = [sequence(SEED, number, DEFAULT) for number in range(ROUNDS * len(THEMES))]
"""Every theme several times."""
FEW = [made for made in SOME[: len(THEMES)] if made.theme != "stale"]
"""Every theme once, but for the one that has to rest between epochs."""


@cache
def alike() -> Verdict:
    """A run of two nodes with the same configuration."""
    return judge(SOME, DEFAULT, "node", table=())


def seen(found: list[Difference]) -> set[str]:
    return {difference.where for difference in found}


# --- the requests


def test_a_seed_makes_the_same_requests_for_ever_and_another_one_others() -> None:
    assert list(sequences(1, DEFAULT, 300)) == list(sequences(1, DEFAULT, 300))
    assert [ask.wire for ask in sequence(1, 5, DEFAULT).asks] != [ask.wire for ask in sequence(2, 5, DEFAULT).asks]


def test_a_sequence_is_the_same_alone_as_among_others() -> None:
    assert list(sequences(1, DEFAULT, 300))[7] == sequence(1, 7, DEFAULT)


def test_no_two_sequences_share_a_path() -> None:
    paths = [resource.path for made in sequences(1, DEFAULT) for resource in made.resources]
    assert len(set(paths)) == len(paths)


def test_there_are_thousands_of_requests_with_every_method_and_theme() -> None:
    assert sum(len(made.asks) for profile in PROFILES for made in sequences(1, profile)) >= 2500
    asks = [(made.theme, ask) for made in sequences(1, DEFAULT) for ask in made.asks]
    assert {ask.method for _, ask in asks} >= {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"}
    assert {theme for theme, _ in asks} >= {theme.__name__.strip("_") for theme, _ in THEMES}


def test_the_cache_does_all_that_it_can_do() -> None:
    records = [exchange.one.record for exchange in alike().exchanges]
    assert {record["cache"] for record in records if record} >= {
        *("HIT", "MISS", "STALE", "REVALIDATED", "EXPIRED", "BYPASS")
    }
    assert any(exchange.one.refreshed for exchange in alike().exchanges)
    assert {exchange.one.response.status for exchange in alike().exchanges if exchange.one.response} >= {
        *(200, 204, 206, 301, 304, 404, 412, 500, 502)
    }


# --- nothing where there is nothing


def test_two_nodes_differ_in_nothing() -> None:
    verdict = alike()
    assert not verdict.left, report(verdict.left, verdict.names, SEED, DEFAULT.name)
    assert not verdict.faults


# --- all that is planted


SETTINGS: Changes = {
    "tracing": {
        "trust": "none",
        "propagators": ["tracecontext"],
        "sampler": "parentbased_always_off",
        "send_x_request_id": False,
        "server_timing": False,
    },
    "cache": {"uncacheable_ttl": 0, "max_object_bytes": 30_000, "send_tags": True},
    "log": {"request_headers": []},
}
NO_CACHE: Changes = {"cache": {"memory_bytes": 0}}
CONFIGURED: list[tuple[Changes, set[str]]] = [
    (
        SETTINGS,
        {
            *("origin #0 header traceparent", "origin #0 header baggage", "origin #0 header x-trace-id"),
            *("origin #0 header x-request-id", "response header server-timing", "response header traceresponse"),
            *("response header cache-status", "response header cache-tag"),
            *("record sampled", "record restarted_from", "record headers", "record stored_at_ms"),
        },
    ),
    (NO_CACHE, {"response header x-cache", "response header age", "origin requests", "record cache_tier"}),
]


@pytest.mark.parametrize(("changes", "wanted"), CONFIGURED, ids=["settings", "no cache"])
def test_another_configuration_is_seen(changes: Changes, wanted: set[str]) -> None:
    def planted(clock: Clock, resources: list[Resource]) -> FastNode:
        return FastNode(clock, resources, changes, name="planted")

    assert seen(judge(FEW, DEFAULT, planted, table=()).left) >= wanted


def test_another_origin_is_seen() -> None:
    def planted(clock: Clock, resources: list[Resource]) -> FastNode:
        deaf = [
            replace(one, acts=tuple(replace(act, heeds_conditions=False, body_bytes=77) for act in one.acts))
            for one in resources
        ]
        return FastNode(clock, deaf, name="planted")

    found = seen(judge(FEW, DEFAULT, planted, table=()).left)
    assert found >= {"response status", "response body", "record cache", "record origin_status", "record bytes_out"}


def answered(part: Observed) -> Response:
    assert part.response is not None
    return part.response


def without(name: bytes) -> Callable[[Observed], None]:
    """What takes a field out of an answer."""

    def change(part: Observed) -> None:
        response = answered(part)
        response.fields = [line for line in response.fields if line[0].lower() != name]

    return change


def twice(part: Observed) -> None:
    part.asked[0].fields.append((b"traceparent", b"00-" + b"ab" * 16 + b"-" + b"cd" * 8 + b"-01"))


def in_capitals(part: Observed) -> None:
    part.asked[0].fields = [(name.upper(), value) for name, value in part.asked[0].fields]


def reordered(part: Observed) -> None:
    answered(part).fields.reverse()


def of_another_request(part: Observed) -> None:
    """The trace continued by another span's id than that of the attempt."""
    assert part.record is not None
    attempt = part.record["attempts"][0]["span_id"].encode()
    server = part.record["span_id"].encode()
    part.asked[0].fields = [(name, value.replace(attempt, server)) for name, value in part.asked[0].fields]


def cut(part: Observed) -> None:
    answered(part).body = answered(part).body[:-1]


def other_status(part: Observed) -> None:
    answered(part).status += 1


def not_asked(part: Observed) -> None:
    part.asked.clear()


def unlogged(part: Observed) -> None:
    part.record = None


def logged_otherwise(part: Observed) -> None:
    assert part.record is not None
    part.record["cache_ttl"] = 77


def repeats(exchange: Exchange) -> bool:
    response = exchange.other.response
    return response is not None and len(response.values("x-repeat")) > 1


def fetched(exchange: Exchange) -> bool:
    """Whether it went to the origin, with something to see on every side."""
    other = exchange.other
    return bool(other.asked) and other.response is not None and bool(other.response.body) and other.record is not None


DOCTORED: list[tuple[Callable[[Observed], None], Callable[[Exchange], bool], str]] = [
    (without(b"x-trace-id"), fetched, "response header x-trace-id"),
    (without(b"date"), fetched, "response header date"),
    (twice, fetched, "origin #0 header traceparent"),
    (in_capitals, fetched, "origin #0 header via"),
    (reordered, repeats, "response header x-repeat"),
    (of_another_request, fetched, "origin #0 header traceparent"),
    (cut, fetched, "response body"),
    (other_status, fetched, "response status"),
    (not_asked, fetched, "origin requests"),
    (unlogged, fetched, "record"),
    (logged_otherwise, fetched, "record cache_ttl"),
]


@pytest.mark.parametrize(
    ("change", "suits", "where"), DOCTORED, ids=[f"{change.__qualname__}-{where}" for change, _, where in DOCTORED]
)
def test_one_answer_that_is_doctored_is_seen(
    change: Callable[[Observed], None], suits: Callable[[Exchange], bool], where: str
) -> None:
    exchanges = list(alike().exchanges)
    place = next(place for place, exchange in enumerate(exchanges) if suits(exchange))
    exchanges[place] = doctored = copy.deepcopy(exchanges[place])
    change(doctored.other)
    found = [difference for difference in differences(exchanges) if difference.exchange is doctored]
    assert where in seen(found)


# --- the table, the report, the page


def a_difference(where: str) -> Difference:
    return replace(Difference(alike().exchanges[0], where, 1, 2))


def test_a_row_explains_what_it_is_for_and_nothing_else() -> None:
    row = Tolerated("age", "response", "", "", lambda difference: difference.where == "response header age")
    idle = Tolerated("idle", "response", "", "", lambda difference: False)
    left, used = unexplained([a_difference("response header age"), a_difference("response body")], (row, idle))
    assert seen(left) == {"response body"}
    assert used == {"age": 1, "idle": 0}


def test_a_report_has_the_request_both_answers_and_the_way_to_replay_it() -> None:
    text = report([a_difference("response header age")], ("node", "mitmdump"), SEED, "default")
    ask = SOME[0].asks[0]
    assert f"{ask.method} {ask.target} HTTP/1.1" in text
    assert text.count("HTTP/1.1 ") >= 2
    assert f"python -m tests.oracle --seed {SEED} --profile default --sequence 0" in text
    assert "response header age" in text


def test_one_sequence_replays_as_it_was_among_others() -> None:
    number = next(made.number for made in SOME if made.theme == "validation")
    alone: list[Sequence] = [SOME[number]]
    replayed = judge(alone, DEFAULT, "node", table=()).exchanges
    before = [exchange for exchange in alike().exchanges if exchange.sequence.number == number]
    assert [what_came(exchange) for exchange in replayed] == [what_came(exchange) for exchange in before]


def what_came(exchange: Exchange) -> tuple[object, ...]:
    response, record = answered(exchange.one), exchange.one.record
    assert record is not None
    return (
        response.status,
        response.body,
        response.values("age"),
        response.values("date"),
        record["cache"],
        record["ts"],
    )


def test_the_ids_of_the_table_are_distinct_and_every_cell_says_something() -> None:
    assert len({row.id for row in TOLERATED}) == len(TOLERATED)
    assert all(row.id and row.where and row.what and row.reason for row in TOLERATED)


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python -m tests.oracle --docs"
