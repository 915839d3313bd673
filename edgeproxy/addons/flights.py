"""One fetch for all who want the same: who waits for it, and what they are told when it has landed.

mitmproxy has whole messages, so nobody is fed while it comes: they wait, and then each looks for itself whether the
response is for it. What they make of what they are told is `cases`' business.
"""

import asyncio
import time
from enum import Enum
from typing import NamedTuple

from edgeproxy.cache import Entry, variant
from edgeproxy.cache.memory import HotMemory
from edgeproxy.proxy.departures import REFRESH_REST_S, RESTING_MAX
from edgeproxy.proxy.errors import ProxyError
from edgeproxy.proxy.exchange import Exchange


class Outcome(Enum):
    """What came of a fetch."""

    STORED = "stored"
    """A response that is stored."""
    VALID = "valid"
    """What is stored still holds."""
    STALE = "stale"
    """None that is better than what is stored."""
    OTHER = "other"
    """A response for the one who asked."""
    FAILED = "failed"
    """No response."""


class Landing(NamedTuple):
    """What those who wait are told."""

    outcome: Outcome
    entry: Entry | None = None
    """What is stored."""
    is_shared: bool = False
    """Whether others may have it (`flight.is_shareable`)."""
    is_stored: bool = False
    """Whether what was found to hold has taken the place of the old; or, of what came: whether a purge came first."""
    why: str = ""
    """For Cache-Status: why it is a stale one."""
    error: ProxyError | None = None
    forgets: bool = False
    """Whether what was stored for them is gone."""


class Flight:
    """A fetch that may be for more than one."""

    def __init__(self, keys: list[bytes], stale: Entry | None) -> None:
        """Known under these keys; `stale` is the stored response that is being validated, if there is one."""
        self.keys = keys
        self.stale = stale
        self.landed: asyncio.Future[Landing] = asyncio.get_running_loop().create_future()


class Flights:
    """Those that can be joined."""

    def __init__(self, memory: HotMemory) -> None:
        """Find them by what is known of Vary in `memory`."""
        self._memory = memory
        self._by_key: dict[bytes, Flight] = {}
        self._resting: dict[bytes, float] = {}

    def key(self, exchange: Exchange) -> bytes:
        """Under which key a flight for the same response is known: its variant's, as far as Vary is known."""
        key = exchange.cache_key
        vary = self._memory.vary_of(key)
        return key + b"\x00" + variant(vary, exchange.names) if vary else key

    def find(self, exchange: Exchange) -> Flight | None:
        """The one that a request may wait for."""
        return self._by_key.get(self.key(exchange))

    def begin(self, exchange: Exchange, stale: Entry | None) -> Flight:
        """One that others may join."""
        flight = Flight([self.key(exchange)], stale)
        self._by_key[flight.keys[0]] = flight
        return flight

    def may_refresh(self, exchange: Exchange) -> bool:
        """Whether it is time to ask for this in the background; then it is not for a while, as it is being done."""
        now = time.monotonic()
        key = self.key(exchange)
        if now < self._resting.get(key, 0.0):
            return False
        if len(self._resting) >= RESTING_MAX:
            self._resting.clear()
        self._resting[key] = now + REFRESH_REST_S
        return True

    def land(self, flight: Flight | None, landing: Landing) -> None:
        """Nobody can join it any more; those who wait are told."""
        if flight is None or flight.landed.done():
            return
        for key in flight.keys:
            if self._by_key.get(key) is flight:
                del self._by_key[key]
        flight.landed.set_result(landing)
