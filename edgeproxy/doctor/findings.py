"""What a check comes to: a verdict, what was found, what to do; and what all of them come to together.

Values only.
"""

from collections.abc import Iterable
from enum import StrEnum
from typing import Any

import msgspec

OK, WARNING, FAILURE, UNCHECKED = range(4)
"""Exit codes, as monitoring plugins have them."""


class Verdict(StrEnum):
    """How it is."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    SKIPPED = "skipped"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What one check found."""

    check: str
    """The check's name; stable, for monitoring."""
    verdict: Verdict
    found: str
    """What is so, in a sentence with its figures."""
    advice: str = ""
    """What to do about it; for what was skipped, how it could be checked."""
    figures: dict[str, Any] = {}
    """The same as numbers and words, for monitoring."""


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The gravest of them; what was skipped is as good as none."""
    order = (Verdict.SKIPPED, Verdict.OK, Verdict.WARN, Verdict.FAIL)
    return max(verdicts, key=order.index, default=Verdict.SKIPPED)


def exit_code(findings: Iterable[Finding]) -> int:
    """0 all is well, 1 there are warnings, 2 something fails, 3 nothing could be checked."""
    codes = {Verdict.OK: OK, Verdict.WARN: WARNING, Verdict.FAIL: FAILURE, Verdict.SKIPPED: UNCHECKED}
    return codes[worst(finding.verdict for finding in findings)]
