"""The table [tracing.sampling]: which traces are sampled beyond what `tracing.sampler` says.

May know: the types that keys have. Must not: know how a decision is made, or what the environment says. Each key has a
variable of its own name, EDGEPROXY_TRACING_ before it: see `environment`.
"""

from typing import Annotated

from msgspec import Meta, Struct, field

from edgeproxy.config import checks
from edgeproxy.config.types import Seconds, form, says, unit


class SamplingRule(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The requests that meet all of its conditions, and the share of their traces that is sampled."""

    route: Annotated[
        str,
        form(checks.is_path_pattern, 'the match of a route, such as "/api/*"'),
        says('The route they take, by its match. "" = any.'),
    ] = ""
    path: Annotated[
        str,
        form(checks.is_path_pattern, 'a path such as "/api/*", percent-encoded as it is in a request'),
        says('Their path; "*" stands for any run of characters. "" = any.'),
    ] = ""
    method: Annotated[
        str, form(checks.is_token, 'a method such as "POST", in capitals as it is sent'), says('"" = any.')
    ] = ""
    header: Annotated[
        str,
        form(checks.is_header_condition, '"NAME" or "NAME=VALUE"'),
        says('A header field that they have, perhaps with this very value. "" = any.'),
    ] = ""
    ratio: Annotated[float, Meta(ge=0, le=1), says("The share of their traces that is sampled.", example=1.0)]


class Sampling(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Rules, bounds and targets on top of the sampler."""

    rules: Annotated[
        list[SamplingRule],
        says(
            "Which share of which requests' traces is sampled: the first rule that fits a request decides, instead of "
            "the sampler; a trusted parent's decision goes before it where the sampler is parent-based."
        ),
    ] = field(default_factory=list)
    max_per_second: Annotated[
        float,
        Meta(ge=0, le=1_000_000),
        unit("traces per second"),
        says(
            "How many traces the node samples at most, whoever decided: trusted parents' as well. Each worker has its "
            "share. 0 = no limit."
        ),
    ] = 0.0
    errors: Annotated[
        bool,
        says("Whether requests that failed are exported though they were not sampled: their own spans, that is."),
    ] = True
    slow_ms: Annotated[
        float,
        Meta(ge=0, le=86_400_000),
        unit("milliseconds"),
        says("From which duration on requests are exported though they were not sampled. 0 = never."),
    ] = 0.0
    adaptive_target: Annotated[
        float,
        Meta(ge=0, le=1_000_000),
        unit("traces per second"),
        says(
            "How many traces to sample: the ratio follows the traffic so that it comes to that, instead of "
            "tracing.ratio. 0 = the ratio stays as it is."
        ),
    ] = 0.0
    adaptive_floor: Annotated[
        float,
        Meta(ge=0, le=1_000_000),
        unit("traces per second"),
        says("How many each route gets at least, if it has as many, where there is an adaptive_target."),
    ] = 0.0
    remote_url: Annotated[
        str,
        form(checks.is_url, 'an http or https url such as "http://127.0.0.1:5778/sampling?service=edgeproxy"'),
        says('Where sampling strategies are polled from, in Jaeger\'s JSON; they win over the ratio. "" = nowhere.'),
    ] = ""
    remote_poll: Annotated[Seconds, says("How often they are.")] = 60.0
