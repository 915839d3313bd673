"""Trace context: ids, parsing, sampling, trust. Pure: no I/O, no clock of its own."""

from edgeproxy.tracing.context import (
    RANDOM,
    SAMPLED,
    RemoteParent,
    RequestTrace,
    Tracer,
    format_traceparent,
    parse_traceparent,
    parse_tracestate,
)
from edgeproxy.tracing.ids import IdSource
from edgeproxy.tracing.propagation import Propagation
from edgeproxy.tracing.sampler import Sampler, SamplerKind
from edgeproxy.tracing.trust import TrustPolicy

__all__ = [
    "RANDOM",
    "SAMPLED",
    "IdSource",
    "Propagation",
    "RemoteParent",
    "RequestTrace",
    "Sampler",
    "SamplerKind",
    "Tracer",
    "TrustPolicy",
    "format_traceparent",
    "parse_traceparent",
    "parse_tracestate",
]
