"""Errors that are the same for every request that meets them: made once, never raised."""

from http import HTTPStatus

from edgeproxy.proxy.errors import ClientGone, Refusal

NO_ROUTE = Refusal("no_route", HTTPStatus.NOT_FOUND, "no route of this node matches the request's host and path")
NOT_CACHED = Refusal(
    "not_cached",
    HTTPStatus.GATEWAY_TIMEOUT,
    "the request asks for a stored response only (only-if-cached), and none is fresh",
)
NOT_CACHED_HERE = Refusal(
    "not_cached_here", HTTPStatus.NOT_FOUND, "nothing is cached of the route that this URL takes (route.cache.enabled)"
)
PURGE_REFUSED = Refusal(
    "purge_refused", HTTPStatus.FORBIDDEN, "PURGE is not for clients of this address (cache.purge_allow)"
)
TOO_BUSY = Refusal(
    "too_busy", HTTPStatus.SERVICE_UNAVAILABLE, "this worker has as many requests in flight as its ledger holds"
)
TRACE_REFUSED = Refusal(
    "trace_refused", HTTPStatus.METHOD_NOT_ALLOWED, "TRACE is not served: it would show what the edge adds"
)
DRAIN_TIMEOUT = ClientGone(
    "drain_timeout", "the worker stopped before this request was done (limits.drain_timeout)", outcome="timeout"
)


def purge_failed(cause: Exception) -> Refusal:
    """The refusal of a purge that could not be noted: nothing of it may be taken to hold."""
    message = f"the purge could not be noted, so it does not hold: {cause}"
    return Refusal("purge_failed", HTTPStatus.INTERNAL_SERVER_ERROR, message)
