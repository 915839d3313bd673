"""Minted ids as names that say whose they are: `<span 12.3>` is the span id of the fourth request of sequence 12.

Two engines never mint the same ids, but where one of them puts the span id of a certain request, the other has to put
that of the same request. What is not the id of any known request keeps its digits, and so is like nothing.
"""

import re
from collections.abc import Iterable

from tests.oracle.lockstep import Exchange
from tests.support import Record

_IDS = re.compile(
    r"\b(?:[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}|[0-9a-f]{32}|[0-9a-f]{16})\b"
)


class Ids:
    """The ids that one engine minted."""

    def __init__(self, exchanges: Iterable[Exchange], place: int) -> None:
        """Learn them from the records of these exchanges."""
        self._names: dict[str, str] = {}
        for exchange in exchanges:
            observed = (exchange.one, exchange.other)[place]
            whose = f"{exchange.sequence.number}.{exchange.index}"
            if observed.record is not None:
                self._learn(observed.record, whose)
            for record in observed.refreshed:
                self._learn(record, f"{whose} refreshed")

    def _learn(self, record: Record, whose: str) -> None:
        if record["parent_id"] is None:  # else the trace id is the client's
            self._names[record["trace_id"]] = f"<trace {whose}>"
        self._names[record["span_id"]] = f"<span {whose}>"
        self._names[record["request_id"]] = f"<request {whose}>"
        for number, attempt in enumerate(record["attempts"]):
            self._names[attempt["span_id"]] = f"<attempt {whose} #{number}>"

    def named(self, text: str) -> str:
        """A text with names in place of ids."""
        return _IDS.sub(lambda found: self._names.get(found[0], found[0]), text)
