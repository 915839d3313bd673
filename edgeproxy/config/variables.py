"""The environment variables that the node looks at: what each is for, what it may say, and what that means.

May know: the notations of OpenTelemetry's variables and of the toggle's. Must not: know what a variable wins over, or
files and processes. OpenTelemetry's rules hold for its own (an empty one counts as unset, words in any case).
"""

import re
from collections.abc import Callable
from typing import Any, get_args
from urllib.parse import unquote_to_bytes

from msgspec import Struct

from edgeproxy.config import checks
from edgeproxy.config.errors import HIDDEN, shown
from edgeproxy.config.from_text import NUMBER, SWITCH_WORDS, UnusableError, reader_of, switch
from edgeproxy.config.from_text import expected as expected_of
from edgeproxy.config.sampling import Sampling
from edgeproxy.config.schema import keys_of
from edgeproxy.config.types import PropagatorWord, SamplerWord

_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
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


def _is_true(text: str) -> bool:
    return text.lower() == "true"


def exporters_in(text: str) -> tuple[str, ...]:
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
OTLP: tuple[tuple[str, str, str, Callable[[str], Any]], ...] = (
    ("PROTOCOL", "protocol", "http/protobuf or grpc", _one_of("http/protobuf", "grpc")),
    ("HEADERS", "headers", '"name=value,name=value", with "%" and "," percent-encoded', _headers),
    ("COMPRESSION", "compression", "none or gzip", _one_of("none", "gzip")),
    ("TIMEOUT", "timeout", _MILLISECONDS, _milliseconds),
    ("CERTIFICATE", "ca_file", _FILE, _file),
    ("CLIENT_CERTIFICATE", "cert_file", _FILE, _file),
    ("CLIENT_KEY", "key_file", _FILE, _file),
)
"""OTEL_EXPORTER_OTLP_<first>, and OTEL_EXPORTER_OTLP_TRACES_<first> before it, over `tracing.otlp.<second>`."""
BATCH: tuple[tuple[str, str, str, Callable[[str], Any]], ...] = (
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
            read=exporters_in,
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
            for name, key, expected, read in OTLP
            for signal in ("", "TRACES_")
        ),
        *(
            Variable(
                name=f"OTEL_BSP_{name}", sentence=f"Wins over `tracing.batch.{key}`.", expected=expected, read=read
            )
            for name, key, expected, read in BATCH
        ),
    )
}
