"""How environment variables win over the configuration's file.

May know: which variable stands for which key. Must not: know files or processes; whoever calls brings the variables.
Where OpenTelemetry says "warn and ignore", here it is an error: an operator is there to read it, and a node that runs
keeps what it had.
"""

import re
from collections.abc import Mapping
from typing import Any, Self

import msgspec
from msgspec import Struct

from edgeproxy.config.errors import ConfigError, Problem
from edgeproxy.config.model import Config
from edgeproxy.config.sampling import Sampling
from edgeproxy.config.schema import keys_of
from edgeproxy.config.tracing import Tracing
from edgeproxy.config.types import SamplerWord
from edgeproxy.config.variables import BATCH, OTLP, VARIABLES, exporters_in

_COMMENT = re.compile(r"\s+#.*", re.DOTALL)
_FULL_RATIO = 1.0


class TracingSettings(Struct, frozen=True):
    """What the toggle comes down to; the part of the settings that changes while the node runs."""

    enabled: bool
    sampler: SamplerWord
    ratio: float
    exporters: tuple[str, ...] = ("embedded",)
    """Where spans go: names out of `checks.EXPORTERS`; none where tracing is off because of it."""
    sampling: Sampling = Sampling()
    strategies: str = ""
    """What the last good answer of `sampling.remote_url` said, JSON; empty if there is none."""

    def to_json(self) -> bytes:
        """As it is handed to workers and scribe."""
        return msgspec.json.encode(self)

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """What `to_json` wrote; msgspec.ValidationError or DecodeError if it is anything else."""
        return msgspec.json.decode(data, type=cls)


def effective_tracing(config: Config, environ: Mapping[str, str]) -> TracingSettings:
    """Whether and how requests are traced; ConfigError names each variable that says nothing usable.

    Any variable that says off wins over one that says on. A sampler named by the environment comes with the argument
    that the environment gives, or 1 as OpenTelemetry has it: the file's ratio belongs to the file's sampler.
    """
    values, problems = _values(environ, switches=True)
    if problems:
        raise ConfigError(problems)
    tracing = config.tracing
    exporters = values.get("OTEL_TRACES_EXPORTER", configured_exporters(tracing))
    off = values.get("OTEL_SDK_DISABLED", False) or not exporters
    sampling = {
        key: values[variable] for key in keys_of(Sampling) if (variable := f"EDGEPROXY_TRACING_{key.upper()}") in values
    }
    default_ratio = _FULL_RATIO if "OTEL_TRACES_SAMPLER" in values else tracing.ratio
    return TracingSettings(
        enabled=not off and values.get("EDGEPROXY_TRACING", tracing.enabled),
        sampler=values.get("OTEL_TRACES_SAMPLER", tracing.sampler),
        ratio=values.get("OTEL_TRACES_SAMPLER_ARG", default_ratio),
        exporters=exporters,
        sampling=msgspec.structs.replace(tracing.sampling, **sampling),
    )


def configured_exporters(tracing: Tracing) -> tuple[str, ...]:
    """Those of the file: where it names none, the store on this host, and the collector where there is one."""
    if tracing.exporters:
        return exporters_in(tracing.exporters)
    return ("otlp", "embedded") if tracing.otlp_endpoint or tracing.otlp.traces_endpoint else ("embedded",)


def described_by(tracing: Tracing, environ: Mapping[str, str]) -> tuple[Tracing, list[Problem]]:
    """The table with what the environment says of service, resource and collector over it; and what is wrong there."""
    values, problems = _values(environ, switches=False)
    attributes = dict(values.get("OTEL_RESOURCE_ATTRIBUTES", {}))
    service_name = attributes.pop("service.name", tracing.service_name)
    otlp = {
        key: values[name]
        for part, key, _, _ in OTLP
        for name in (f"OTEL_EXPORTER_OTLP_{part}", f"OTEL_EXPORTER_OTLP_TRACES_{part}")
        if name in values
    }
    if "OTEL_EXPORTER_OTLP_ENDPOINT" in values:
        otlp["traces_endpoint"] = ""
    if "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT" in values:
        otlp["traces_endpoint"] = values["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"]
    batch = {key: values[name] for part, key, _, _ in BATCH if (name := f"OTEL_BSP_{part}") in values}
    described = msgspec.structs.replace(
        tracing,
        propagators=values.get("OTEL_PROPAGATORS", tracing.propagators),
        service_name=values.get("OTEL_SERVICE_NAME", service_name),
        resource_attributes=tracing.resource_attributes | attributes,
        otlp_endpoint=values.get("OTEL_EXPORTER_OTLP_ENDPOINT", tracing.otlp_endpoint),
        otlp=msgspec.structs.replace(tracing.otlp, **otlp),
        batch=msgspec.structs.replace(tracing.batch, **batch),
    )
    return described, problems


def merged_environ(
    process_env: Mapping[str, str], file_values_at_start: Mapping[str, str], file_values_now: Mapping[str, str]
) -> dict[str, str]:
    """The process's environment with the environment file's values over it.

    systemd has put the file into the process's environment at the start (EnvironmentFile). A value that is still what
    the file said then is therefore the file's, and goes when its line goes.
    """
    own = {
        name: value
        for name, value in process_env.items()
        # To systemd a comment behind a value is part of it; the file's reader has left it out.
        if file_values_at_start.get(name) not in {value, _COMMENT.sub("", value)}
    }
    return own | dict(file_values_now)


def _values(environ: Mapping[str, str], *, switches: bool) -> tuple[dict[str, Any], list[Problem]]:
    """What the variables that are set mean, and what is wrong with the others."""
    values: dict[str, Any] = {}
    problems = []
    for name, variable in VARIABLES.items():
        text = environ.get(name)
        if variable.switches is not switches or text is None or variable.is_unset(text):
            continue
        reason = variable.problem(text)
        if reason is None:
            values[name] = variable.read(text.strip())
        else:
            problems.append(Problem("environment", "environment", name, variable.shown(text), reason))
    return values, problems
