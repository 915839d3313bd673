"""Requests, responses and stored responses as the tests of cache policy write them: plain values, one clock."""

from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import format_datetime

from edgeproxy.cache import policy
from edgeproxy.cache.dates import SECOND_NS
from edgeproxy.cache.rules import Rules
from edgeproxy.cache.stored import Lines, Stored

NOW_S = 1_750_000_000
NOW_NS = NOW_S * SECOND_NS
DAY_S = 86_400
SAFE = Rules()
"""What a route says that says nothing."""

Line = tuple[str, str | bytes]


def date(offset_s: float = 0) -> bytes:
    """An HTTP-date that many seconds from now."""
    return format_datetime(datetime.fromtimestamp(NOW_S + offset_s, UTC), usegmt=True).encode()


def fields(*lines: Line) -> dict[bytes, bytes]:
    """Folded fields, as the proxy hands them over."""
    folded: dict[bytes, bytes] = {}
    for name, value in lines:
        key, text = name.lower().encode(), value if isinstance(value, bytes) else value.encode()
        folded[key] = folded[key] + b", " + text if key in folded else text
    return folded


def lines_of(*lines: Line) -> Lines:
    """Field lines, as they are stored."""
    return [(name.encode(), value if isinstance(value, bytes) else value.encode()) for name, value in lines]


def storing(
    *response: Line,
    method: bytes = b"GET",
    target: bytes = b"/",
    request: Sequence[Line] = (),
    status: int = 200,
    rules: Rules = SAFE,
    took_s: float = 0,
) -> policy.Storing:
    """The decision about a response received now, to a request made `took_s` ago."""
    request_ns = NOW_NS - round(took_s * SECOND_NS)
    return policy.storing(method, target, fields(*request), status, fields(*response), rules, request_ns, NOW_NS)


def terms(*response: Line, status: int = 200, rules: Rules = SAFE, took_s: float = 0) -> policy.Terms:
    """On what terms a response is stored that is stored."""
    decision = storing(*response, status=status, rules=rules, took_s=took_s)
    assert decision.verdict is policy.Verdict.STORE
    assert decision.terms is not None
    return decision.terms


def stored(
    *lines: Line,
    status: int = 200,
    age_s: float = 10,
    fresh_s: float = 50,
    revalidate_s: float = 0,
    error_s: float = 0,
    must_revalidate: bool = False,
    etag: bytes | None = None,
    last_modified: bytes | None = None,
    uncacheable: str = "",
) -> Stored:
    """A stored response that is `age_s` old and fresh for another `fresh_s`, or stale for as long when negative."""
    return Stored(
        key=b"http://a/",
        url=b"http://a/",
        vary=(),
        variant=b"",
        status=status,
        reason=b"OK",
        lines=lines_of(*lines),
        born_ns=NOW_NS - round(age_s * SECOND_NS),
        fresh_until_ns=NOW_NS + round(fresh_s * SECOND_NS),
        stale_while_revalidate_ns=round(revalidate_s * SECOND_NS),
        stale_if_error_ns=round(error_s * SECOND_NS),
        must_revalidate=must_revalidate,
        stored_ns=NOW_NS,
        filled_by="",
        origin="origin",
        etag=etag,
        last_modified=last_modified,
        uncacheable=uncacheable,
    )
