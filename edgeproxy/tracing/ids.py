"""Trace, span and request ids: random, sortable by time, cheap to make.

Knows: the id formats of W3C Trace Context and RFC 9562 (UUIDv7). Must not: read a clock (the caller passes `now_ns`), do I/O
beyond asking its entropy source for bytes, or know what the ids are used for.
"""

import os
from collections.abc import Callable

_BLOCK_BYTES = 8192
_MINT_DIGITS = 54  # 3 + 16 trace id, 16 span id, 3 + 1 + 3 + 12 request id
_ZERO = "0" * 16
_VARIANT = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}


class IdSource:
    """Mints ids from blocks of entropy; not safe for several threads, one a worker."""

    __slots__ = ("_entropy", "_from_ns", "_ms", "_position", "_text", "_until_ns")

    def __init__(self, entropy: Callable[[int], bytes] = os.urandom) -> None:
        self._entropy = entropy
        self._text = ""
        self._position = 0
        self._ms = ""
        self._from_ns = self._until_ns = 0

    def _take(self, digits: int) -> str:
        if self._position + digits > len(self._text):
            self._text = self._entropy(_BLOCK_BYTES).hex()
            self._position = 0
        start = self._position
        self._position = start + digits
        return self._text[start : start + digits]

    def mint(self, now_ns: int) -> tuple[str, str, str]:
        """A new trace id, a span id for its root, and a request id."""
        if not self._from_ns <= now_ns < self._until_ns:
            ms = now_ns // 1_000_000
            self._from_ns, self._until_ns = ms * 1_000_000, (ms + 1) * 1_000_000
            self._ms = f"{ms & 0xFFFFFFFFFFFF:012x}"
        ms_text = self._ms
        r = self._take(_MINT_DIGITS)
        low, span = r[3:19], r[19:35]
        while low == _ZERO or span == _ZERO:
            low, span = self._take(16), self._take(16)
        request = f"{ms_text[:8]}-{ms_text[8:]}-7{r[35:38]}-{_VARIANT[r[38]]}{r[39:42]}-{r[42:]}"
        return f"{ms_text}7{r[:3]}{low}", span, request

    def span_id(self) -> str:
        """A new span id."""
        while (span := self._take(16)) == _ZERO:
            pass
        return span
