"""Both engines give the same answers: the node, and stock mitmdump with the addons, to some thousands of generated
requests. What may differ stands in `tolerated`, and nothing stands there that is not needed.
"""

import os
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache

import pytest

from tests.oracle.generator import sequences
from tests.oracle.profiles import PROFILES, profile
from tests.oracle.report import report
from tests.oracle.tolerated import TOLERATED
from tests.oracle.verdict import Verdict, judge

SEED = int(os.environ.get("ORACLE_SEED", "1"))

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@cache
def verdicts() -> Mapping[str, Future[Verdict]]:
    """What comes of each profile. All run at once, as each waits most of its time for one of its processes."""
    with ThreadPoolExecutor(len(PROFILES)) as pool:
        return {one.name: pool.submit(judge, sequences(SEED, one), one) for one in PROFILES}


@pytest.mark.parametrize("name", [one.name for one in PROFILES])
def test_both_engines_give_the_same_answers(name: str) -> None:
    found = verdicts()[name].result()
    assert not found.left, report(found.left, found.names, SEED, name)
    assert not found.faults
    assert len(found.exchanges) >= profile(name).requests


def test_every_row_of_the_table_is_needed() -> None:
    used: Counter[str] = sum((found.result().used for found in verdicts().values()), start=Counter())
    assert [row.id for row in TOLERATED if not used[row.id]] == []
