"""What environment variables say, and how they win over the configuration's file.

May know: the variables that OpenTelemetry and the toggle name. Must not: know files or processes; whoever calls brings
the variables. OpenTelemetry's rules hold for its own (an empty one counts as unset, words in any case). Where they say
"warn and ignore", here it is an error: an operator is there to read it, and a node that runs keeps what it had.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, get_args
from urllib.parse import unquote_to_bytes

import msgspec
from msgspec import Struct

from edgeproxy.config import checks
from edgeproxy.config.errors import ConfigError, Problem, shown
from edgeproxy.config.model import Config, Tracing
from edgeproxy.config.types import SamplerWord

_NUMBER = re.compile(r"(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_COMMENT = re.compile(r"\s+#.*", re.DOTALL)
_SAMPLERS: tuple[SamplerWord, ...] = get_args(SamplerWord.__value__)
_SWITCH = {"on": True, "true": True, "1": True, "off": False, "false": False, "0": False}
_FULL_RATIO = 1.0


class Variable(Struct, frozen=True, kw_only=True):
    """An environment variable that the node looks at."""

    name: str
    sentence: str
    expected: str
    read: Callable[[str], Any]
    """What the text means; ValueError if nothing."""
    switches: bool = False
    """Whether it takes effect while the node runs, as soon as it stands in the environment file."""

    def problem(self, text: str) -> str | None:
        """What is wrong with this text as its value."""
        if self.is_unset(text):
            return None
        try:
            self.read(text.strip())
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


def _switch(text: str) -> bool:
    try:
        return _SWITCH[text.lower()]
    except KeyError:
        raise ValueError(text) from None


def _is_true(text: str) -> bool:
    return text.lower() == "true"


def _is_none(text: str) -> bool:
    return text.lower() == "none"


def _sampler(text: str) -> SamplerWord:
    for word in _SAMPLERS:
        if word == text.lower():
            return word
    raise ValueError(text)


def _ratio(text: str) -> float:
    if not _NUMBER.fullmatch(text) or not 0.0 <= (ratio := float(text)) <= _FULL_RATIO:
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


VARIABLES = {
    variable.name: variable
    for variable in (
        Variable(
            name="EDGEPROXY_TRACING",
            sentence="Switches tracing on or off; wins over `tracing.enabled`.",
            expected="on or off (or true, false, 1, 0)",
            read=_switch,
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
            sentence="`none` switches tracing off, whatever else says on.",
            expected="none, or an exporter's name",
            read=_is_none,
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
            sentence="Wins over `tracing.otlp_endpoint`.",
            expected='an http or https url such as "http://127.0.0.1:4318"',
            read=_endpoint,
        ),
        Variable(
            name="OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
            sentence="Wins over OTEL_EXPORTER_OTLP_ENDPOINT.",
            expected='an http or https url such as "http://127.0.0.1:4318/v1/traces"',
            read=_endpoint,
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
    off = values.get("OTEL_SDK_DISABLED", False) or values.get("OTEL_TRACES_EXPORTER", False)
    default_ratio = _FULL_RATIO if "OTEL_TRACES_SAMPLER" in values else config.tracing.ratio
    return TracingSettings(
        enabled=not off and values.get("EDGEPROXY_TRACING", config.tracing.enabled),
        sampler=values.get("OTEL_TRACES_SAMPLER", config.tracing.sampler),
        ratio=values.get("OTEL_TRACES_SAMPLER_ARG", default_ratio),
    )


def described_by(tracing: Tracing, environ: Mapping[str, str]) -> tuple[Tracing, list[Problem]]:
    """The table with what the environment says of service, resource and collector over it; and what is wrong there."""
    values, problems = _values(environ, switches=False)
    attributes = dict(values.get("OTEL_RESOURCE_ATTRIBUTES", {}))
    service_name = attributes.pop("service.name", tracing.service_name)
    endpoint = values.get("OTEL_EXPORTER_OTLP_ENDPOINT", tracing.otlp_endpoint)
    described = msgspec.structs.replace(
        tracing,
        service_name=values.get("OTEL_SERVICE_NAME", service_name),
        resource_attributes=tracing.resource_attributes | attributes,
        otlp_endpoint=values.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", endpoint),
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
            problems.append(Problem("environment", "environment", name, shown(text), reason))
    return values, problems
