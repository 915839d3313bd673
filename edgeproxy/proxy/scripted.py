"""The request path where operators' scripts are loaded; where none are, nothing of this is.

Scripts stand between client and cache, as Lua does in Nginx: they see a request before it is looked up, and what goes
to the client before it goes. So a scripted request is one like others, but with a stand-in for its client: what the
pipeline sends to that, the scripts see first. Its record waits until the client has what the scripts made of it.

    proceed ─► wanted? ─► request hooks ─► forward ─► the pipeline's own way ─► Intermediary ─► response hooks ─► client

What scripts are, and how they are called, is `scripting`'s business; mitmproxy is not imported here.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol
from urllib.parse import urlsplit

from edgeproxy.cache.key import extra_parts
from edgeproxy.cache.tiers import Tiers
from edgeproxy.config import Config, Origin
from edgeproxy.ledger import Counter, LedgerWriter, Stage
from edgeproxy.proxy.departures import Departures
from edgeproxy.proxy.errors import ProxyError
from edgeproxy.proxy.exchange import Exchange
from edgeproxy.proxy.http1 import ClientConnection
from edgeproxy.proxy.intermediary import Intermediary, Run, run_of
from edgeproxy.proxy.pipeline import Pipeline
from edgeproxy.proxy.plan import Plan
from edgeproxy.proxy.refusals import NO_ROUTE
from edgeproxy.proxy.routing import Target
from edgeproxy.proxy.settings import Settings
from edgeproxy.proxy.upstream.pool import OriginPool

ELSEWHERE_MAX = 256
"""Servers that are no configured origins, and that requests were sent to by scripts, whose connections are kept."""


class Scripts(Protocol):
    """All scripts that are loaded."""

    sees_hits: bool
    """Whether scripts see requests that hot memory could answer at once."""

    def wants(self, exchange: Exchange) -> bool:
        """Whether some script may want to see this request."""

    def run(self, pipeline: "ScriptedPipeline", exchange: Exchange) -> Run:
        """Begin a request's way through the scripts that want it."""

    def connected(self, client: ClientConnection) -> None:
        """A client has connected."""

    def disconnected(self, client: ClientConnection) -> None:
        """A client's connection is closed."""


class Pools(dict[str, OriginPool]):
    """Those of the configured origins, and those of other servers, which are there as soon as they are asked for: a
    request may be for one that was forgotten while it waited.
    """

    def __init__(self, configured: dict[str, OriginPool], make: Callable[[str], OriginPool]) -> None:
        """Begin with the configured ones; `make` takes a server (`scheme://host:port`)."""
        super().__init__(configured)
        self._make = make
        self._others: list[str] = []

    def __missing__(self, server: str) -> OriginPool:
        """Make one for a server; the oldest of its kind goes where there are too many."""
        if len(self._others) >= ELSEWHERE_MAX:
            self.pop(self._others.pop(0)).close()
        self._others.append(server)
        pool = self[server] = self._make(server)
        return pool


class ScriptedPipeline(Pipeline):
    """One worker's request path, with scripts on it."""

    def __init__(
        self, config: Config, worker: int, ledger: LedgerWriter, settings: Settings, cache: Tiers, scripts: Scripts
    ) -> None:
        """As without, and with these scripts. Raises OSError when an origin's CA file can't be read."""
        super().__init__(config, worker, ledger, settings, cache)
        self._scripts = scripts
        self._sees_hits = scripts.sees_hits
        self._origins = {server_of(url): origin.name for origin in reversed(config.origin) for url in origin.urls}
        self._pools = Pools(self._pools, self._made)
        self.departures = Departures(self, cache, self._pools, config.cache.collapse_timeout)

    def _made(self, server: str) -> OriginPool:
        origin = Origin(name=server, urls=[server])
        return OriginPool(origin, self.limits, self.tick, self.deadlines, self.counters)

    # --- a request arrives

    def proceed(self, exchange: Exchange) -> None:
        """It is this request's turn: show it to the scripts that want it."""
        if self._sees_hits and self._scripts.wants(exchange):
            self._begin(exchange)
        else:
            super().proceed(exchange)

    def ask(self, exchange: Exchange) -> None:
        """Hot memory can't answer it: show it to the scripts that want only such."""
        if not self._sees_hits and not isinstance(exchange.client, Intermediary) and self._scripts.wants(exchange):
            self._begin(exchange)
        else:
            super().ask(exchange)

    def _begin(self, exchange: Exchange) -> None:
        self.counters[Counter.SCRIPT_FLOWS] += 1
        self.stage(exchange, Stage.SCRIPT)
        run = self._scripts.run(self, exchange)
        exchange.client = Intermediary(self, exchange.client, run)
        run.begin()

    # --- the scripts' calls

    def plan_of(
        self, exchange: Exchange, came_as: bytes, server: str, decide: Callable[[Target], Target]
    ) -> Plan | None:
        """What to do with a request that scripts have seen; None where no route is for it.

        `came_as` is the target URI that the client asked for; `server` is where a script sends it
        (`scheme://host:port`), empty where routes decide; `decide` says what else is not as the route has it.
        """
        found = self.plans.find(exchange)
        if found is None and server:
            found = self.plans.of_url(came_as)  # it goes elsewhere by the rules of the route that it came for
        if found is None:
            return None
        route = decide(found.route)
        if server:
            name = self._origins.get(server) or server
            if name != route.origin:
                # What another server answers is another response.
                parts = route.key_parts + extra_parts([(b"", name.encode())])
                route = replace(route, origin=name, key_parts=parts)
        plan = Plan(route, exchange.host, exchange.target)
        plan.is_simple = False
        return plan

    def forward(self, exchange: Exchange, plan: Plan | None) -> None:
        """The scripts are done with a request: it goes its way."""
        if self._purge_word[0] != self._purges.seq:
            self.take_purges()
        exchange.now_ns = time.time_ns()
        if plan is None:
            self.refuse(exchange, NO_ROUTE)
            return
        exchange.plan = plan
        super().ask(exchange)

    def delivered(self, exchange: Exchange) -> None:
        """The client has all that the scripts let it have."""
        client = exchange.client
        if not isinstance(client, Intermediary) or client.run is None:
            return
        if client.is_over or client.run.is_own:
            self.done(exchange)
        elif not client.run.is_early:
            return  # the pipeline is about to say that it is done
        elif exchange.flight is not None and exchange.flight.filling is not None:
            self.departures.background.add(exchange)  # what still comes is for the cache alone
        elif not _is_filling(exchange):  # else it is a 304, and `done` comes at once
            self._settle(exchange)

    # --- the client's calls

    def request_body(self, exchange: Exchange, data: bytes) -> None:
        """A piece of a request's body came."""
        run = run_of(exchange)
        if run is not None:
            run.request_body(data)
        else:
            super().request_body(exchange, data)

    def request_complete(self, exchange: Exchange) -> None:
        """A request's body is whole."""
        run = run_of(exchange)
        if run is not None:
            run.request_complete()
        else:
            super().request_complete(exchange)

    def pass_body(self, exchange: Exchange, data: bytes) -> None:
        """What scripts let through of a request's body."""
        super().request_body(exchange, data)

    def pass_complete(self, exchange: Exchange) -> None:
        """All that scripts let through of a request's body is there."""
        super().request_complete(exchange)

    def connected(self, client: ClientConnection, address: str) -> bool:
        """A client has connected; False turns it away, there being too many."""
        if not super().connected(client, address):
            return False
        self._scripts.connected(client)
        return True

    def disconnected(self, client: ClientConnection) -> None:
        """A client's connection is closed."""
        super().disconnected(client)
        self._scripts.disconnected(client)

    # --- the ends

    def stage(self, exchange: Exchange, stage: Stage) -> None:
        """Say how far a request has come: as far as the hook that it waits for, where it waits for one."""
        run = run_of(exchange)
        super().stage(exchange, Stage.SCRIPT if run is not None and run.is_waiting else stage)

    def done(self, exchange: Exchange) -> None:
        """The pipeline has done its part; the record waits for the scripts' part."""
        if exchange.is_over:
            return  # a hook has ended it while it was being sent
        client = exchange.client
        if isinstance(client, Intermediary):
            client.is_over = True
            self.departures.background.discard(exchange)
            if client.run is not None and not client.run.is_delivered:
                return
            self._close(exchange, client)
        super().done(exchange)

    def refuse(self, exchange: Exchange, error: ProxyError) -> None:
        """Answer with a problem, which is not the scripts' business but for their `error` hook."""
        if self._is_delivered(exchange):
            self._settle(exchange)
            return
        self._fail(exchange, error)
        super().refuse(exchange, error)

    def broken(self, exchange: Exchange, error: ProxyError) -> None:
        """Cut off a response that has begun and can't be ended as it should."""
        if self._is_delivered(exchange):
            self._settle(exchange)
            return
        self._fail(exchange, error)
        super().broken(exchange, error)

    def client_gone(self, exchange: Exchange, error: ProxyError) -> None:
        """Nobody waits for this response any more."""
        if self._is_delivered(exchange):
            self._settle(exchange)
            return
        self._fail(exchange, error)
        super().client_gone(exchange, error)

    @staticmethod
    def _is_delivered(exchange: Exchange) -> bool:
        """Whether the client has had its response, scripts having put their own in the place of one that still comes:
        whatever happens to that is nothing that the client could be told.
        """
        run = run_of(exchange)
        return run is not None and run.is_delivered

    def _settle(self, exchange: Exchange) -> None:
        """Close what is delivered, though the pipeline has not done its part."""
        self._let_go(exchange, None)
        self.done(exchange)

    def _fail(self, exchange: Exchange, error: ProxyError) -> None:
        client = exchange.client
        if isinstance(client, Intermediary) and client.run is not None:
            client.run.fail(error)
            self._close(exchange, client)

    @staticmethod
    def _close(exchange: Exchange, client: Intermediary) -> None:
        """Put into the record what the client was sent, and not what it would have been; and what scripts say."""
        run = client.run
        if run is None:
            return
        exchange.status = run.status
        exchange.bytes_out = run.bytes_out
        client.script = run.close()
        client.run = None  # run, exchange and intermediary would know each other for ever


def server_of(url: str) -> str:
    """The server that a URL leads to, with its port: `scheme://host:port`, lower case."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return f"{parts.scheme}://[{host}]:{port}" if ":" in host else f"{parts.scheme}://{host}:{port}"


def _is_filling(exchange: Exchange) -> bool:
    """Whether what is fetched for a request is being stored, though not for its client (`departures.unchanged`)."""
    flight = None if exchange.fetch is None else exchange.fetch.flight
    return flight is not None and flight.filling is not None
