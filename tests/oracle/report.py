"""Differences in words: for whoever has to find out which engine is wrong."""

from collections.abc import Sequence as Many

from tests.oracle.differences import Difference, shown
from tests.oracle.lockstep import Exchange, Observed

_EXCHANGES_MAX = 6
_VALUE_MAX = 700
_BODY_MAX = 200


def report(found: Many[Difference], names: tuple[str, str], seed: int, profile: str) -> str:
    """What differs, exchange by exchange: the request, both answers, and how to run that sequence alone.

    Of each sequence the first exchange is shown, as what comes behind it may only follow from it.
    """
    by_sequence: dict[int, dict[int, list[Difference]]] = {}
    for difference in found:
        exchange = difference.exchange
        by_sequence.setdefault(exchange.sequence.number, {}).setdefault(exchange.index, []).append(difference)
    parts = [
        f"{len(found)} differences in {len(by_sequence)} sequences that no row of tests/oracle/tolerated.py explains:"
    ]
    for number, by_index in list(by_sequence.items())[:_EXCHANGES_MAX]:
        index = min(by_index)
        exchange = by_index[index][0].exchange
        parts.append(
            f"=== sequence {number} ({exchange.sequence.theme}), request {index}; "
            f"{sum(map(len, by_index.values()))} differences in {len(by_index)} of its requests\n"
            f"=== to replay it: python -m tests.oracle --seed {seed} --profile {profile} --sequence {number}"
        )
        parts.append(described(exchange, names))
        parts += [
            f"--- {difference.where}\n"
            f"  {names[0]:>9}: {shown(difference.one)[:_VALUE_MAX]}\n"
            f"  {names[1]:>9}: {shown(difference.other)[:_VALUE_MAX]}"
            for difference in by_index[index]
        ]
    if len(by_sequence) > _EXCHANGES_MAX:
        parts.append(
            f"… and {len(by_sequence) - _EXCHANGES_MAX} sequences more: {sorted(by_sequence)[_EXCHANGES_MAX:]}"
        )
    return "\n".join(parts)


def described(exchange: Exchange, names: tuple[str, str]) -> str:
    """One request, what came back and what the origins got, from both engines."""
    parts = [f"epoch {exchange.ask.epoch}", _text(exchange.ask.wire)]
    for name, seen in zip(names, (exchange.one, exchange.other), strict=True):
        parts.append(f"<-- {name}: {_answer(seen)}")
        parts += [f"--> its origin:\n{_text(request.raw_head)}" for request in seen.asked]
    return "\n".join(parts)


def _answer(seen: Observed) -> str:
    if seen.response is None:
        return seen.failure
    body = seen.response.body
    return f"{_text(seen.response.raw_head)}    {len(body)} bytes: {body[:_BODY_MAX]!r}"


def _text(wire: bytes) -> str:
    head, _, body = wire.partition(b"\r\n\r\n")
    lines = [f"    {line}" for line in head.decode("latin-1").split("\r\n")]
    return "\n".join([*lines, f"    ({len(body)} bytes of body)" if body else "", ""])
