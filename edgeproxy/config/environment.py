"""What environment variables say, and how they win over the configuration's file.

May know: the variables that OpenTelemetry and the toggle name. Must not: know files or processes; whoever calls brings
the variables. OpenTelemetry's rules hold for its own (an empty one counts as unset, words in any case). Where they say
"warn and ignore", here it is an error: an operator is there to read it, and a node that runs keeps what it had.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, Self, get_args
from urllib.parse import unquote_to_bytes

import msgspec
from msgspec import Struct

from edgeproxy.config import checks
from edgeproxy.config.errors import HIDDEN, ConfigError, Problem, shown
from edgeproxy.config.from_text import NUMBER, SWITCH_WORDS, UnusableError, reader_of, switch
from edgeproxy.config.from_text import expected as expected_of
from edgeproxy.config.model import Config
from edgeproxy.config.sampling import Sampling
from edgeproxy.config.schema import keys_of
from edgeproxy.config.tracing import Tracing
from edgeproxy.config.types import PropagatorWord, SamplerWord

_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_COMMENT = re.compile(r"\s+#.*", re.DOTALL)
_SAMPLERS: tuple[SamplerWord, ...] = get_args(SamplerWord.__value__)
_PROPAGATORS: tuple[PropagatorWord, ...] = get_args(PropagatorWord.__value__)
_FULL_RATIO = 1.0
_A_DAY_S = 86400
_MOST_SPANS = 100_000


class Variable(Struct, frozen=True, kw_only=True):
    """An environment variable that the node looks at."""

    name: str
    sentence: str
    expected: str
    read: Callable[[str], Any]
    """What the text means; ValueError if nothing, which may say more about it."""
    switches: bool = False
    """Whether it takes effect while the node runs, as soon as it stands in the environment file."""
    secret: bool = False
    """Whether its value is not for every eye."""

    def shown(self, text: str) -> str:
        """The text as a message may have it."""
        return HIDDEN if self.secret else shown(text)

    def problem(self, text: str) -> str | None:
        """What is wrong with this text as its value."""
        if self.is_unset(text):
            return None
        try:
            self.read(text.strip())
        except UnusableError as error:
            return f"expected {self.expected}: {error}"
        except ValueError:
            return f"expected {self.expected}"
        return None

    def is_unset(self, text: str | None) -> bool:
        """Whether it counts as not set. OpenTelemetry's variables do when they are empty."""
        return text is None or (not text.strip() and self.name.startswith("OTEL_"))


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


def _is_true(text: str) -> bool:
    return text.lower() == "true"


def _exporters(text: str) -> tuple[str, ...]:
    """Names by comma, each once; nothing for `none`."""
    names = tuple(name.strip().lower() for name in text.split(","))
    if not checks.are_exporters(",".join(names)):
        raise ValueError(text)
    return () if names == ("none",) else names


def _sampler(text: str) -> SamplerWord:
    for word in _SAMPLERS:
        if word == text.lower():
            return word
    raise ValueError(text)


def _propagators(text: str) -> list[PropagatorWord]:
    """Words by comma, each once."""
    words = {word.strip().lower() for word in text.split(",")}
    if not words <= set(_PROPAGATORS) or ("none" in words and len(words) > 1):
        raise ValueError(text)
    return [word for word in _PROPAGATORS if word in words]


def _ratio(text: str) -> float:
    if not NUMBER.fullmatch(text) or not 0.0 <= (ratio := float(text)) <= _FULL_RATIO:
        raise ValueError(text)
    return ratio


def _name(text: str) -> str:
    if not checks.is_readable(text):
        raise ValueError(text)
    return text


def _endpoint(text: str) -> str:
    if not checks.is_endpoint(text):
        raise ValueError(text)
    return text


def _attributes(text: str) -> dict[str, str]:
    attributes = {}
    for pair in text.split(","):
        name, equals, value = pair.partition("=")
        if not equals or "=" in value:
            raise ValueError(pair)
        attributes[_name(_decoded(name))] = _name(_decoded(value))
    return attributes


def _decoded(text: str) -> str:
    if _PERCENT.search(text):
        raise ValueError(text)
    return unquote_to_bytes(text.strip()).decode()


def _headers(text: str) -> dict[str, str]:
    headers = {}
    for pair in text.split(","):
        name, equals, value = pair.partition("=")
        if not equals:
            raise ValueError(pair)
        headers[_decoded(name)] = _decoded(value)
    if not checks.are_headers(headers):
        raise ValueError(text)
    return headers


def _one_of(*words: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text.lower() not in words:
            raise ValueError(text)
        return text.lower()

    return read


def _milliseconds(text: str) -> float:
    """Milliseconds, as OpenTelemetry has them, in seconds."""
    if not NUMBER.fullmatch(text) or not 0.0 < (seconds := float(text) / 1000) <= _A_DAY_S:
        raise ValueError(text)
    return seconds


def _count(text: str) -> int:
    if not text.isdecimal() or not 0 < (count := int(text)) <= _MOST_SPANS:
        raise ValueError(text)
    return count


def _file(text: str) -> str:
    if not checks.is_readable_file(text):
        raise ValueError(text)
    return text


_MILLISECONDS = "a number of milliseconds, more than 0"
_SPANS = "a number of spans, 1 or more"
_FILE = "a file that is there and can be read"
_OTLP: tuple[tuple[str, str, str, Callable[[str], Any]], ...] = (
    ("PROTOCOL", "protocol", "http/protobuf or grpc", _one_of("http/protobuf", "grpc")),
    ("HEADERS", "headers", '"name=value,name=value", with "%" and "," percent-encoded', _headers),
    ("COMPRESSION", "compression", "none or gzip", _one_of("none", "gzip")),
    ("TIMEOUT", "timeout", _MILLISECONDS, _milliseconds),
    ("CERTIFICATE", "ca_file", _FILE, _file),
    ("CLIENT_CERTIFICATE", "cert_file", _FILE, _file),
    ("CLIENT_KEY", "key_file", _FILE, _file),
)
"""OTEL_EXPORTER_OTLP_<first>, and OTEL_EXPORTER_OTLP_TRACES_<first> before it, over `tracing.otlp.<second>`."""
_BATCH: tuple[tuple[str, str, str, Callable[[str], Any]], ...] = (
    ("MAX_QUEUE_SIZE", "queue_size", _SPANS, _count),
    ("SCHEDULE_DELAY", "delay", _MILLISECONDS, _milliseconds),
    ("MAX_EXPORT_BATCH_SIZE", "batch_size", _SPANS, _count),
    ("EXPORT_TIMEOUT", "export_timeout", _MILLISECONDS, _milliseconds),
)
"""OTEL_BSP_<first>, over `tracing.batch.<second>`."""


VARIABLES = {
    variable.name: variable
    for variable in (
        Variable(
            name="EDGEPROXY_TRACING",
            sentence="Switches tracing on or off; wins over `tracing.enabled`.",
            expected=SWITCH_WORDS,
            read=switch,
            switches=True,
        ),
        Variable(
            name="OTEL_SDK_DISABLED",
            sentence="`true` switches tracing off, whatever else says on.",
            expected="true or false",
            read=_is_true,
            switches=True,
        ),
        Variable(
            name="OTEL_TRACES_EXPORTER",
            sentence="Wins over `tracing.exporters`; `none` switches tracing off, whatever else says on.",
            expected=f"{', '.join(checks.EXPORTERS)}, several of them by comma, or none",
            read=_exporters,
            switches=True,
        ),
        Variable(
            name="OTEL_TRACES_SAMPLER",
            sentence="Wins over `tracing.sampler`, and over `tracing.ratio` too: without an argument the ratio is 1.",
            expected=f"{', '.join(_SAMPLERS[:-1])} or {_SAMPLERS[-1]}",
            read=_sampler,
            switches=True,
        ),
        Variable(
            name="OTEL_TRACES_SAMPLER_ARG",
            sentence="Wins over `tracing.ratio`.",
            expected="a number, 0 to 1",
            read=_ratio,
            switches=True,
        ),
        *(
            Variable(
                name=f"EDGEPROXY_TRACING_{key.name.upper()}",
                sentence=f"Wins over `tracing.sampling.{key.name}`.",
                expected=expected_of(key),
                read=reader_of(key),
                switches=True,
            )
            for key in keys_of(Sampling).values()
        ),
        Variable(
            name="OTEL_PROPAGATORS",
            sentence="Wins over `tracing.propagators`.",
            expected=f"{', '.join(_PROPAGATORS[:-1])}, several of them by comma, or {_PROPAGATORS[-1]}",
            read=_propagators,
        ),
        Variable(
            name="OTEL_SERVICE_NAME",
            sentence="Wins over `tracing.service_name`.",
            expected="a printable name",
            read=_name,
        ),
        Variable(
            name="OTEL_RESOURCE_ATTRIBUTES",
            sentence="Added to `tracing.resource_attributes`, winning where both name one. `service.name` in it wins "
            "over `tracing.service_name`, but not over OTEL_SERVICE_NAME.",
            expected='"name=value,name=value", with "%", "," and "=" percent-encoded',
            read=_attributes,
        ),
        Variable(
            name="OTEL_EXPORTER_OTLP_ENDPOINT",
            sentence="Wins over `tracing.otlp_endpoint` and `tracing.otlp.traces_endpoint`.",
            expected='an http or https url such as "http://127.0.0.1:4318"',
            read=_endpoint,
        ),
        Variable(
            name="OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
            sentence="Wins over `tracing.otlp.traces_endpoint` and over OTEL_EXPORTER_OTLP_ENDPOINT.",
            expected='an http or https url such as "http://127.0.0.1:4318/v1/traces"',
            read=_endpoint,
        ),
        *(
            Variable(
                name=f"OTEL_EXPORTER_OTLP_{signal}{name}",
                sentence=f"Wins over {f'OTEL_EXPORTER_OTLP_{name}' if signal else f'`tracing.otlp.{key}`'}.",
                expected=expected,
                read=read,
                secret=key == "headers",
            )
            for name, key, expected, read in _OTLP
            for signal in ("", "TRACES_")
        ),
        *(
            Variable(
                name=f"OTEL_BSP_{name}", sentence=f"Wins over `tracing.batch.{key}`.", expected=expected, read=read
            )
            for name, key, expected, read in _BATCH
        ),
    )
}


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
        return _exporters(tracing.exporters)
    return ("otlp", "embedded") if tracing.otlp_endpoint or tracing.otlp.traces_endpoint else ("embedded",)


def described_by(tracing: Tracing, environ: Mapping[str, str]) -> tuple[Tracing, list[Problem]]:
    """The table with what the environment says of service, resource and collector over it; and what is wrong there."""
    values, problems = _values(environ, switches=False)
    attributes = dict(values.get("OTEL_RESOURCE_ATTRIBUTES", {}))
    service_name = attributes.pop("service.name", tracing.service_name)
    otlp = {
        key: values[name]
        for part, key, _, _ in _OTLP
        for name in (f"OTEL_EXPORTER_OTLP_{part}", f"OTEL_EXPORTER_OTLP_TRACES_{part}")
        if name in values
    }
    if "OTEL_EXPORTER_OTLP_ENDPOINT" in values:
        otlp["traces_endpoint"] = ""
    if "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT" in values:
        otlp["traces_endpoint"] = values["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"]
    batch = {key: values[name] for part, key, _, _ in _BATCH if (name := f"OTEL_BSP_{part}") in values}
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
