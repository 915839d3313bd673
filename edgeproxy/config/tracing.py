"""The tables of tracing: [tracing] itself, and those below it that say where spans go and how.

May know: the types that keys have. Must not: connect to anything, or know what an exporter does with its settings.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from edgeproxy.config import checks
from edgeproxy.config.sampling import Sampling
from edgeproxy.config.types import (
    GIB,
    KIB,
    MIB,
    PropagatorWord,
    ReadableFile,
    SamplerWord,
    Seconds,
    SecondsFrom0,
    Trust,
    form,
    says,
    unit,
)


class Otlp(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a collector is reached by OTLP: the exporter `otlp`."""

    traces_endpoint: Annotated[
        str,
        form(checks.is_endpoint, 'an http or https url such as "http://127.0.0.1:4318/v1/traces"'),
        says('The url that spans are sent to, as it is. "" = tracing.otlp_endpoint with /v1/traces behind it.'),
    ] = ""
    protocol: Annotated[
        Literal["http/protobuf", "grpc"],
        says('How they are sent. "grpc" needs what `pip install edgeproxy[grpc]` brings.'),
    ] = "http/protobuf"
    headers: Annotated[
        dict[str, str],
        form(checks.are_headers, 'names and values of header fields, such as { "authorization" = "Bearer 1234" }'),
        says("What is sent along with every request; `edgeproxy check` hides the values."),
    ] = field(default_factory=dict)
    compression: Annotated[Literal["none", "gzip"], says("Whether requests are compressed.")] = "none"
    timeout: Annotated[
        Seconds, says("How long the collector may take to answer one request; tracing.batch.export_timeout bounds it.")
    ] = 5.0
    ca_file: Annotated[
        ReadableFile,
        says('Certificates (PEM) of which one must vouch for an https collector. "" = those that the system trusts.'),
    ] = ""
    cert_file: Annotated[ReadableFile, says('The certificate (PEM) that the collector is shown. "" = none.')] = ""
    key_file: Annotated[ReadableFile, says('Its key (PEM). "" = it is in cert_file.')] = ""


class Batch(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How spans are gathered before they are exported, for each exporter: OpenTelemetry's batch span processor."""

    queue_size: Annotated[
        int,
        Meta(ge=1, le=1_000_000),
        says("How many spans may wait for each exporter; what comes while more wait is dropped, and counted."),
    ] = 4096
    delay: Annotated[Seconds, says("How long a span waits at most until its batch is sent.")] = 1.0
    batch_size: Annotated[
        int,
        Meta(ge=1, le=100_000),
        says("How many spans are sent together at most; when that many wait they are sent at once."),
    ] = 512
    export_timeout: Annotated[
        Seconds, says("How long a batch may take, attempts after the first included; after that it has failed.")
    ] = 5.0
    flush_timeout: Annotated[SecondsFrom0, says("How long a node that stops tries to export what still waits.")] = 5.0


class TraceStore(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The exporter `embedded`: the latest traces on this host, for `edgeproxy trace show`."""

    path: Annotated[
        str,
        form(checks.is_path, "a directory"),
        says('The directory that it is in. "" = "traces" beside the embedded cache, or in the runtime directory.'),
    ] = ""
    size_bytes: Annotated[
        int,
        Meta(ge=MIB, le=64 * GIB, multiple_of=4 * KIB),
        unit("bytes"),
        says("How large it may become; the oldest traces make room."),
    ] = 64 * MIB
    requests_per_second: Annotated[
        int,
        Meta(ge=0),
        says("Of how many requests a second it takes the spans; it shows samples, the log has them all. 0 = of all."),
    ] = 1000


class Tracing(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Trace ids, which traces are sampled, and which headers go out.

    The environment and the environment file win over this table.
    """

    enabled: Annotated[
        bool, says("Whether requests are traced. `edgeproxy trace on|off` switches it while the node runs.")
    ] = True
    trust: Annotated[
        Trust,
        says(
            "Whose trace context is continued, and whose baggage is passed on. For anyone else the trace begins anew."
        ),
    ] = "all"
    propagators: Annotated[
        list[PropagatorWord],
        Meta(min_length=1),
        says(
            "In which header fields trace context comes and goes, as in OTEL_PROPAGATORS; whether baggage is looked "
            'after. "none" stands alone.'
        ),
    ] = field(default_factory=lambda: ["tracecontext", "baggage"])
    sampler: Annotated[SamplerWord, says("Which traces are sampled, by OpenTelemetry's standard samplers.")] = (
        "parentbased_traceidratio"
    )
    ratio: Annotated[float, Meta(ge=0, le=1), says("The share of traces that a ratio sampler takes.")] = 1.0
    x_trace_id: Annotated[bool, says("Whether clients are sent X-Trace-Id.")] = True
    traceresponse: Annotated[bool, says("Whether clients are sent traceresponse.")] = True
    server_timing: Annotated[
        bool, says("Whether clients are sent Server-Timing, which tells the time spent here from that at the origin.")
    ] = True
    cache_status: Annotated[bool, says("Whether clients are sent Cache-Status.")] = True
    send_x_trace_id: Annotated[bool, says("Whether origins are sent X-Trace-Id.")] = True
    send_x_request_id: Annotated[bool, says("Whether origins are sent X-Request-Id.")] = True
    service_name: Annotated[
        str, form(checks.is_readable, "a printable name"), says("The service that spans belong to.")
    ] = "edgeproxy"
    resource_attributes: Annotated[
        dict[str, str],
        form(
            checks.are_resource_attributes,
            'printable texts, such as { "deployment.environment.name" = "production" }; '
            "service.name is tracing.service_name",
        ),
        says("What else describes this node in its spans."),
    ] = field(default_factory=dict)
    otlp_endpoint: Annotated[
        str,
        form(checks.is_endpoint, 'an http or https url such as "http://127.0.0.1:4318"'),
        says('The OpenTelemetry collector that spans are sent to, without /v1/traces. "" = none.'),
    ] = ""
    exporters: Annotated[
        str,
        form(checks.are_exporters, '"otlp", "console", "embedded", several of them by comma, or "none"'),
        says(
            "Where spans go. `otlp` is a collector, `console` standard error, `embedded` a store on this host. "
            '"" = "embedded", and "otlp,embedded" with an otlp_endpoint.'
        ),
    ] = ""
    # Tables come last: in TOML, a key behind one would be the table's.
    sampling: Annotated[Sampling, says("Rules, bounds and targets on top of the sampler.")] = Sampling()
    otlp: Annotated[Otlp, says("How a collector is reached.")] = Otlp()
    batch: Annotated[Batch, says("How spans are gathered before they are exported.")] = Batch()
    store: Annotated[TraceStore, says("Where the exporter `embedded` keeps traces.")] = TraceStore()
