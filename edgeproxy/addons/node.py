"""A node inside mitmproxy: what one configuration comes to, and what all its requests share. Knows no flow."""

import asyncio
import os
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Self

import msgspec

from edgeproxy.addons.accounts import Accounts
from edgeproxy.addons.flights import Flights
from edgeproxy.addons.intake import Intake
from edgeproxy.addons.origins import MODES_OWN, Origins, Place
from edgeproxy.addons.rules import LocalRules
from edgeproxy.cache import HotMemory
from edgeproxy.cache.key import extra_parts
from edgeproxy.cache.tiers import Tiers
from edgeproxy.config import Config, Origin, TracingSettings
from edgeproxy.node.source import Source
from edgeproxy.proxy.exchange import Exchange
from edgeproxy.proxy.plan import Plan, Plans
from edgeproxy.proxy.record import Recorder
from edgeproxy.proxy.response import Decorator
from edgeproxy.proxy.routing import Routes, Target
from edgeproxy.proxy.sampling import Policies
from edgeproxy.proxy.upstream.attempt import Attempt
from edgeproxy.tracing import IdSource, Propagation, Tracer, TrustPolicy


class Node:
    """One configuration's."""

    def __init__(self, config: Config, tracing: TracingSettings) -> None:
        """Put together what a worker has, as far as it is free of sockets and of other processes."""
        if not config.origin:  # then mitmproxy's mode says where requests go
            config = msgspec.structs.replace(config, origin=[Origin(name=MODES_OWN, urls=[])])
        self.config = config
        self.name = config.node.name or os.uname().nodename
        self.ids = IdSource()
        self.may_purge = TrustPolicy(config.cache.purge_allow)
        self.trust = TrustPolicy(config.tracing.trust)
        self.plans = Plans(Routes(config))
        self.cache = Tiers(HotMemory(config.cache.memory_bytes), None, LocalRules(), None)
        self.flights = Flights(self.cache.memory)
        self.origins = Origins(config, self.ids)
        self.intake = Intake(
            self.cache, self.plans, int(config.cache.uncacheable_ttl * 1e9), sends_tags=config.cache.send_tags
        )
        self.collapse_timeout_s = config.cache.collapse_timeout
        state = Policies(0, 1).of(tracing)
        self.accounts = Accounts(Recorder(self.name, 0, config.log.request_headers), state.tail)
        self._head = state.head
        self._tracer = Tracer(self.ids)
        self._tracer.configure(state.enabled, state.sampler, state.ratio)
        self._spoken = Propagation(config.tracing.propagators, self._tracer)
        self._tasks: set[asyncio.Task[None]] = set()
        self.show(traces=True, caches=True)

    @classmethod
    def read(cls, path: Path | None) -> Self:
        """That of a configuration file, with environment and environment file over it; without one, that of the
        defaults. Raises SettingsError, or OSError.
        """
        effective = Source(path).read()
        return cls(effective.config, effective.tracing)

    def show(self, *, traces: bool, caches: bool) -> None:
        """Say on the way, in heads to origin and client, what is done: tracing, caching, both."""
        tracing, cache = self.config.tracing, self.config.cache
        self.traces = traces
        self.propagation = self._spoken
        if not traces:
            self.propagation = Propagation((), self._tracer)
            tracing = msgspec.structs.replace(
                tracing,
                x_trace_id=False,
                traceresponse=False,
                server_timing=False,
                send_x_trace_id=False,
                send_x_request_id=False,
            )
        if not caches:
            tracing = msgspec.structs.replace(tracing, cache_status=False)
            cache = msgspec.structs.replace(cache, short_status="")
        self.sent = tracing
        """What goes into heads."""
        self.decorator = Decorator(self.name, tracing, cache)

    # --- requests

    def begin(self, exchange: Exchange, lines: Sequence[tuple[bytes, bytes]]) -> None:
        """Give a request its ids and its number; `lines` are the fields that bring it a trace."""
        exchange.trace = trace = self._spoken.begin(exchange.now_ns, lines, exchange.client.trusted)
        if not self.traces:
            trace.tracestate = trace.carried = None  # it goes on as any other field does
        if self._head is not None and trace.recording:
            plan = self.plans.find(exchange)
            route = b"" if plan is None else plan.route.match
            self._head.decide(trace, route, exchange.target, exchange.method, exchange.names, time.monotonic())
        self.accounts.open(exchange)

    def plan_of(
        self, exchange: Exchange, came_as: bytes, modes: Place, place: Place | None, decide: Callable[[Target], Target]
    ) -> Plan | None:
        """What to do with a request; None where no route is for it.

        `came_as` is the target URI that the client asked for; `modes` is where mitmproxy's mode leads; `place` where a
        script sends it, None where routes decide; `decide` says what else is not as the route has it.
        """
        found = self.plans.find(exchange)
        if found is None and place is not None:
            found = self.plans.of_url(came_as)
        if found is None:
            return None
        route = decide(found.route)
        if place is not None:
            name = self.origins.at(place)
            if name != route.origin:  # what another server answers is another response
                route = _elsewhere(route, name, extra_parts([(b"", name.encode())]))
        elif route.origin == MODES_OWN:
            route = _elsewhere(route, self.origins.at(modes), b"")
        plan = Plan(route, exchange.host, exchange.target)
        plan.url = exchange.key.partition(b":")[0] + plan.url[plan.url.index(b":") :]
        plan.is_simple = False
        return plan

    def head(self, exchange: Exchange, parts: tuple[bytes, bytes], attempt: Attempt) -> bytes:
        """A request's head for one attempt, out of the parts of `forwarding.request_head`."""
        first, rest = parts
        own = self.propagation.attempt_fields(exchange.trace, attempt.span_id) if self.traces else b""
        return first + own + rest

    def background(self, work: Coroutine[object, object, None]) -> None:
        """Do something that no client waits for."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _elsewhere(route: Target, origin: str, key_parts: bytes) -> Target:
    return replace(route, origin=origin, key_parts=route.key_parts + key_parts)
