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
from edgeproxy.proxy.errors import ProxyError
from edgeproxy.proxy.exchange import Exchange
from edgeproxy.proxy.fields import FieldLines
from edgeproxy.proxy.framing import Framing
from edgeproxy.proxy.http1 import ClientConnection
from edgeproxy.proxy.pipeline import Pipeline
from edgeproxy.proxy.plan import Plan
from edgeproxy.proxy.record import ScriptPart
from edgeproxy.proxy.refusals import NO_ROUTE
from edgeproxy.proxy.routing import Target
from edgeproxy.proxy.settings import Settings
from edgeproxy.proxy.upstream.pool import OriginPool

ELSEWHERE_MAX = 256
"""Servers that are no configured origins, and that requests were sent to by scripts, whose connections are kept."""


class Run(Protocol):
    """One request's way through the scripts."""

    status: int
    """That was sent to the client, 0: none."""
    bytes_out: int
    """Of the body that was sent to the client."""
    is_own: bool
    """Whether a script made the response, and the pipeline has no part in it."""

    @property
    def is_early(self) -> bool:
        """Whether the client had its response before what came from the pipeline was whole."""

    @property
    def is_taking(self) -> bool:
        """Whether it takes more of the response."""

    @property
    def is_waiting(self) -> bool:
        """Whether a hook is at work."""

    @property
    def is_delivered(self) -> bool:
        """Whether the client has all that it gets."""

    def begin(self) -> None:
        """The request's head is there."""

    def request_body(self, data: bytes) -> None:
        """A piece of the request's body came."""

    def request_complete(self) -> None:
        """The request is whole."""

    def answered(self, head: str, body: bytes | memoryview) -> None:
        """A whole response is there; `head` lacks its blank line."""

    def started(self, head: str) -> None:
        """A response has begun; `head` lacks its blank line."""

    def piece(self, data: bytes) -> None:
        """A piece of the response's body is there."""

    def ended(self, trailers: FieldLines | None) -> None:
        """The response is whole."""

    def fail(self, error: ProxyError) -> None:
        """Nothing more comes of it: what is still sent, the edge sends itself."""

    def close(self) -> ScriptPart:
        """It is over: let go of everything, and say what the record is to have."""


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


class Intermediary(ClientConnection):
    """Stands where the client's connection does, for a request that scripts want to see."""

    def __init__(self, pipeline: "ScriptedPipeline", client: ClientConnection, run: Run) -> None:
        """Stand for this client; `run` sees what it is to be sent."""
        # No more than what the pipeline asks of a client: a parser would know its connection, and only the cycle
        # collector could free the two.
        self.pipeline = pipeline
        self.client = client
        self.script = None
        self.run: Run | None = run
        """None once the record is made: what the pipeline still sends is the edge's own, and no script's business."""
        self.is_over = False
        """Whether the pipeline has done its part."""
        self.address = client.address
        self.address_json = client.address_json
        self.trusted = client.trusted

    @property
    def is_congested(self) -> bool:
        """Whether more is sent than scripts and client take. Once the client has all that it gets, nobody is kept
        waiting: it may be taking the response to its next request.
        """
        run = self.run
        if run is not None and run.is_delivered:
            return False
        return (run is not None and not run.is_taking) or self.client.is_congested

    def answer(self, exchange: Exchange, head: str, body: bytes | memoryview) -> None:
        """Have the scripts see a whole response."""
        if self.run is None:
            self.client.answer(exchange, head, body)
        else:
            self.run.answered(head, body)

    def start(self, exchange: Exchange, head: bytes, framing: Framing) -> None:
        """Have the scripts see a response's head. It is framed anew where it goes out."""
        del exchange, framing
        if self.run is not None:
            self.run.started(head.decode("latin-1").removesuffix("\r\n"))

    def send(self, data: bytes) -> None:
        """Have the scripts see a piece of the body."""
        if self.run is not None:
            self.run.piece(data)

    def end(self, exchange: Exchange, trailers: FieldLines | None) -> None:
        """Have the scripts see the body's end."""
        del exchange
        if self.run is not None:
            self.run.ended(trailers)

    def persistence(self, exchange: Exchange) -> str:
        """Nothing: what the connection needs is said where the response goes out."""
        del exchange
        return ""

    def interim(self, head: bytes) -> None:
        """Pass on a 1xx response."""
        self.client.interim(head)

    def cut(self, exchange: Exchange) -> None:
        """Break off."""
        self.client.cut(exchange)

    def pause_body(self) -> None:
        """The origin takes the request's body more slowly than it comes."""
        self.client.pause_body()

    def resume_body(self) -> None:
        """The origin has caught up."""
        self.client.resume_body()


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
        self._elsewhere: list[str] = []

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
            name = self._origins.get(server) or self._pool_elsewhere(server)
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

    def _pool_elsewhere(self, server: str) -> str:
        if server not in self._pools:
            if len(self._elsewhere) >= ELSEWHERE_MAX:
                self._pools.pop(self._elsewhere.pop(0)).close()
            origin = Origin(name=server, urls=[server])
            self._pools[server] = OriginPool(origin, self.limits, self.tick, self.deadlines, self.counters)
            self._elsewhere.append(server)
        return server

    # --- the client's calls

    def request_body(self, exchange: Exchange, data: bytes) -> None:
        """A piece of a request's body came."""
        run = _run_of(exchange)
        if run is not None:
            run.request_body(data)
        else:
            super().request_body(exchange, data)

    def request_complete(self, exchange: Exchange) -> None:
        """A request's body is whole."""
        run = _run_of(exchange)
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
        run = _run_of(exchange)
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
        run = _run_of(exchange)
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


def _run_of(exchange: Exchange) -> Run | None:
    client = exchange.client
    return client.run if isinstance(client, Intermediary) else None
