"""The scripts that are loaded at one time, as requests meet them: which hooks there are, in their order, and for whom.

A request keeps the chain that it began with: a script that is loaded anew takes the requests that come then, and the
old one is done once the last of its requests is.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from edgeproxy.proxy.exchange import Exchange
from edgeproxy.scripting.filters import Decision, Selector

REQUEST_HOOKS = ("requestheaders", "request", "responseheaders", "response", "error")
CLIENT_HOOKS = ("client_connected", "client_disconnected")
LIFE_HOOKS = ("load", "configure", "running", "done")


class Hook(NamedTuple):
    """One function of a script."""

    script: str
    """The script's name."""
    name: str
    function: Callable[..., Any]
    selector: int
    """Index of its addon's filter among the chain's."""


class Chain:
    """A generation of scripts."""

    def __init__(self, hooks: dict[str, list[Hook]], selectors: list[Selector], missing: list[Selector]) -> None:
        """`hooks` by name; `selectors` are the filters that they point to, `missing` those of scripts that could not be
        loaded.
        """
        self.hooks = hooks
        self.selectors = selectors
        self.missing = missing
        self.runs = 0
        """How many requests are under way in it."""
        self.retire: Callable[[], object] | None = None
        """What to do once there are none; None while it is in use."""
        self._decides = [selector.decide for selector in [*selectors, *missing]]
        self._only = self._decides[0] if len(self._decides) == 1 else None

    def wants(self, exchange: Exchange) -> bool:
        """Whether some script may want to see this request."""
        if self._only is not None:
            return self._only(exchange) is not False
        return any(decide(exchange) is not False for decide in self._decides)

    def decisions(self, exchange: Exchange) -> list[Decision]:
        """What each filter says of a request."""
        return [selector.decide(exchange) for selector in self.selectors]

    def lacks_one_for(self, exchange: Exchange) -> bool:
        """Whether a script that could not be loaded would have wanted to see this request."""
        return any(selector.decide(exchange) is not False for selector in self.missing)

    def begin(self) -> None:
        """One more request is under way in it."""
        self.runs += 1

    def end(self) -> None:
        """One request less."""
        self.runs -= 1
        self.end_if_idle()

    def end_if_idle(self) -> None:
        """Let it go where it is no longer in use."""
        if self.retire is not None and not self.runs:
            retire, self.retire = self.retire, None
            retire()
