"""PURGE, as Varnish's and Nginx's users know it: what is stored for the request's URL goes."""

from http import HTTPStatus
from typing import TYPE_CHECKING

from edgeproxy.cache import purge_request
from edgeproxy.config import Config
from edgeproxy.proxy import problem
from edgeproxy.proxy.exchange import Exchange
from edgeproxy.proxy.refusals import NOT_CACHED_HERE, PURGE_REFUSED, purge_failed
from edgeproxy.tracing import TrustPolicy

if TYPE_CHECKING:
    from edgeproxy.proxy.pipeline import Pipeline


class PurgeRequests:
    """Those that one worker gets."""

    def __init__(self, pipeline: "Pipeline", config: Config) -> None:
        """Serve a pipeline; who may purge is configuration (`cache.purge_allow`)."""
        self._pipeline = pipeline
        self._allowed = TrustPolicy(config.cache.purge_allow)

    def serve(self, exchange: Exchange) -> None:
        """Note what is to go, and answer once it is noted where all processes see it."""
        pipeline = self._pipeline
        if not self._allowed.trusts(exchange.client.address):
            pipeline.refuse(exchange, PURGE_REFUSED)
            return
        if not exchange.plan.route.cache:
            pipeline.refuse(exchange, NOT_CACHED_HERE)
            return
        wanted = purge_request(exchange.names, exchange.plan.url)
        left = len(wanted)

        def given(_seq: int, error: Exception | None) -> None:
            nonlocal left
            left -= 1
            if exchange.is_over:
                return
            if error is not None:
                pipeline.refuse(exchange, purge_failed(error))
            elif not left:
                pipeline.ledger.acknowledge_purge(pipeline.purge_seq)
                pipeline.answer_itself(exchange, HTTPStatus.OK, problem.purged(wanted))
                pipeline.done(exchange)

        for purge in wanted:
            pipeline.cache.purge(purge, exchange.now_ns, given)
