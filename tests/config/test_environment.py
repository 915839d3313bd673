"""The variables that win over the file, and the toggle they come down to."""

from collections.abc import Callable

import msgspec
import pytest

from edgeproxy.config import (
    Batch,
    Config,
    ConfigError,
    Otlp,
    Problem,
    Tracing,
    TracingSettings,
    effective_tracing,
    load,
    merged_environ,
)
from edgeproxy.config.sampling import Sampling, SamplingRule

type Load = Callable[..., Config]
DEFAULT = TracingSettings(enabled=True, sampler="parentbased_traceidratio", ratio=1.0)
FILE = Config(tracing=Tracing(enabled=False, sampler="traceidratio", ratio=0.25))
FROM_FILE = TracingSettings(enabled=False, sampler="traceidratio", ratio=0.25)


def settings(config: Config = Config(), **environ: str) -> TracingSettings:  # noqa: B008 - it is frozen
    return effective_tracing(config, environ)


def refused(**environ: str) -> list[Problem]:
    with pytest.raises(ConfigError) as caught:
        effective_tracing(Config(), environ)
    return caught.value.problems


def test_without_variables_the_file_holds() -> None:
    assert settings() == DEFAULT
    assert settings(FILE) == FROM_FILE


@pytest.mark.parametrize("word", ["on", "ON", "true", "True", "1", " on "])
def test_words_that_switch_on(word: str) -> None:
    assert settings(FILE, EDGEPROXY_TRACING=word).enabled is True


@pytest.mark.parametrize("word", ["off", "OFF", "false", "False", "0", "off\t"])
def test_words_that_switch_off(word: str) -> None:
    assert settings(EDGEPROXY_TRACING=word).enabled is False


@pytest.mark.parametrize("word", ["", "yes", "no", "enabled", "2", "on off", "öff"])
def test_other_words_are_refused(word: str) -> None:
    (problem,) = refused(EDGEPROXY_TRACING=word)
    assert str(problem) == (f'environment: EDGEPROXY_TRACING = "{word}": expected on or off (or true, false, 1, 0)')
    assert problem.code == "environment"


SWITCHES = {
    "exporter none": ({"OTEL_TRACES_EXPORTER": "none"}, False),
    "exporter none in capitals": ({"OTEL_TRACES_EXPORTER": "None"}, False),
    "exporter otlp": ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
    "several exporters": ({"OTEL_TRACES_EXPORTER": "otlp, console"}, True),
    "exporter empty counts as unset": ({"OTEL_TRACES_EXPORTER": ""}, True),
    "SDK disabled": ({"OTEL_SDK_DISABLED": "true"}, False),
    "SDK disabled in capitals": ({"OTEL_SDK_DISABLED": "TRUE"}, False),
    "SDK not disabled": ({"OTEL_SDK_DISABLED": "false"}, True),
    "SDK disabled by a word that is not true": ({"OTEL_SDK_DISABLED": "1"}, True),
    "SDK disabled empty": ({"OTEL_SDK_DISABLED": ""}, True),
    "off by exporter wins over on": ({"EDGEPROXY_TRACING": "on", "OTEL_TRACES_EXPORTER": "none"}, False),
    "off by SDK wins over on": ({"EDGEPROXY_TRACING": "on", "OTEL_SDK_DISABLED": "true"}, False),
    "an exporter does not switch on": ({"EDGEPROXY_TRACING": "off", "OTEL_TRACES_EXPORTER": "otlp"}, False),
}


@pytest.mark.parametrize(("environ", "enabled"), SWITCHES.values(), ids=SWITCHES.keys())
def test_any_variable_that_says_off_wins(environ: dict[str, str], enabled: bool) -> None:
    assert msgspec.structs.replace(settings(**environ), exporters=("embedded",)) == msgspec.structs.replace(
        DEFAULT, enabled=enabled
    )


EXPORTERS = {
    "none named": ("", "", ("embedded",)),
    "none named, but a collector": ("", "http://otel:4318", ("otlp", "embedded")),
    "one": ("console", "http://otel:4318", ("console",)),
    "several, in any case": (" OTLP , console,Embedded", "", ("otlp", "console", "embedded")),
    "none": ("none", "http://otel:4318", ()),
}


@pytest.mark.parametrize(("named", "endpoint", "exporters"), EXPORTERS.values(), ids=EXPORTERS.keys())
def test_exporters_come_from_the_environment_or_from_the_file(
    named: str, endpoint: str, exporters: tuple[str, ...]
) -> None:
    assert settings(Config(tracing=Tracing(otlp_endpoint=endpoint)), OTEL_TRACES_EXPORTER=named).exporters == exporters
    in_file = Tracing(otlp_endpoint=endpoint, exporters=named.replace(" ", "").lower())
    assert settings(Config(tracing=in_file)).exporters == exporters


@pytest.mark.parametrize("named", ["zipkin", "otlp,none", "none,none", "otlp,otlp", "otlp;console", ","])
def test_an_unknown_exporter_is_refused(named: str) -> None:
    (problem,) = refused(OTEL_TRACES_EXPORTER=named)
    assert problem.reason == "expected otlp, console, embedded, several of them by comma, or none"


RULES = '[{ path = "/api/*", method = "POST", ratio = 0.5 }, { header = "X-Debug=1", ratio = 1 }]'
SAMPLING = {
    "RULES": (
        RULES,
        [SamplingRule(path="/api/*", method="POST", ratio=0.5), SamplingRule(header="X-Debug=1", ratio=1)],
    ),
    "MAX_PER_SECOND": ("0.5", 0.5),
    "ERRORS": ("off", False),
    "SLOW_MS": ("250", 250.0),
    "ADAPTIVE_TARGET": ("1e2", 100.0),
    "ADAPTIVE_FLOOR": ("1", 1.0),
    "REMOTE_URL": ("http://jaeger:5778/sampling?service=edge", "http://jaeger:5778/sampling?service=edge"),
    "REMOTE_POLL": ("5", 5.0),
}


@pytest.mark.parametrize(("name", "value"), SAMPLING.items(), ids=SAMPLING.keys())
def test_every_key_of_sampling_has_a_variable(name: str, value: tuple[str, object]) -> None:
    assert {name.lower() for name in SAMPLING} == set(Sampling.__struct_fields__)
    text, meant = value
    assert getattr(settings(**{f"EDGEPROXY_TRACING_{name}": text}).sampling, name.lower()) == meant


def test_an_empty_url_switches_the_files_off() -> None:
    config = Config(tracing=Tracing(sampling=Sampling(remote_url="http://jaeger:5778/sampling")))
    assert settings(config, EDGEPROXY_TRACING_REMOTE_URL="").sampling.remote_url == ""


UNUSABLE = {
    "no list": ("RULES", "7", "Expected `array`"),
    "a rule without its ratio": ("RULES", '[{ path = "/x" }]', "missing required field `ratio`"),
    "an unknown condition": ("RULES", '[{ pth = "/x", ratio = 1 }]', "unknown field `pth`"),
    "a ratio beyond 1": ("RULES", '[{ path = "/x", ratio = 2 }]', "<= 1.0"),
    "a pattern that is none": ("RULES", '[{ path = "x", ratio = 1 }]', 'path in [0] is "x", expected a path such as'),
    "more than a list": ("RULES", "[]\nb = 1", "expected a list of tables such as [{ ratio = 1.0 }]"),
    "a negative cap": ("MAX_PER_SECOND", "-1", "expected a number of traces per second, 0 to 1000000"),
    "a cap of nothing": ("MAX_PER_SECOND", "", "expected a number of traces per second"),
    "no switch": ("ERRORS", "maybe", "expected on or off"),
    "another scheme": ("REMOTE_URL", "ftp://jaeger/", "expected an http or https url"),
    "never": ("REMOTE_POLL", "0", "expected a number of seconds, more than 0"),
}


@pytest.mark.parametrize(("name", "text", "reason"), UNUSABLE.values(), ids=UNUSABLE.keys())
def test_what_sampling_variables_can_not_say_is_told(name: str, text: str, reason: str) -> None:
    (problem,) = refused(**{f"EDGEPROXY_TRACING_{name}": text})
    assert problem.key == f"EDGEPROXY_TRACING_{name}"
    assert reason in problem.reason


def test_settings_are_read_back_as_they_were_written() -> None:
    written = settings(EDGEPROXY_TRACING_RULES=RULES, OTEL_TRACES_EXPORTER="otlp,console")
    assert TracingSettings.from_json(written.to_json()) == written


@pytest.mark.parametrize(
    "word",
    [
        "always_on",
        "always_off",
        "traceidratio",
        "parentbased_always_on",
        "parentbased_always_off",
        "parentbased_traceidratio",
    ],
)
def test_the_standard_samplers_in_any_case(word: str) -> None:
    assert settings(OTEL_TRACES_SAMPLER=word).sampler == word
    assert settings(OTEL_TRACES_SAMPLER=word.upper()).sampler == word


@pytest.mark.parametrize("word", ["jaeger_remote", "xray", "ratio", "on"])
def test_another_sampler_is_refused_with_those_there_are(word: str) -> None:
    (problem,) = refused(OTEL_TRACES_SAMPLER=word)
    assert problem.key == "OTEL_TRACES_SAMPLER"
    assert problem.reason == (
        "expected parentbased_traceidratio, parentbased_always_on, parentbased_always_off, "
        "traceidratio, always_on or always_off"
    )


RATIOS = {
    "argument of the environment's sampler": (
        {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.1"},
        ("parentbased_traceidratio", 0.1),
    ),
    "without an argument it is 1": ({"OTEL_TRACES_SAMPLER": "traceidratio"}, ("traceidratio", 1.0)),
    "an empty argument is none": (
        {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": ""},
        ("traceidratio", 1.0),
    ),
    "argument of the file's sampler": ({"OTEL_TRACES_SAMPLER_ARG": "0.5"}, ("traceidratio", 0.5)),
    "an empty sampler is none": ({"OTEL_TRACES_SAMPLER": " "}, ("traceidratio", 0.25)),
    "none at all": ({"OTEL_TRACES_SAMPLER_ARG": "0"}, ("traceidratio", 0.0)),
    "all": ({"OTEL_TRACES_SAMPLER_ARG": "1"}, ("traceidratio", 1.0)),
    "written short": ({"OTEL_TRACES_SAMPLER_ARG": ".5"}, ("traceidratio", 0.5)),
    "written with an exponent": ({"OTEL_TRACES_SAMPLER_ARG": "1e-3"}, ("traceidratio", 0.001)),
}


@pytest.mark.parametrize(("environ", "expected"), RATIOS.values(), ids=RATIOS.keys())
def test_sampler_and_argument_win_over_the_file(environ: dict[str, str], expected: tuple[str, float]) -> None:
    found = settings(FILE, **environ)
    assert (found.sampler, found.ratio) == expected


@pytest.mark.parametrize(
    "text", ["1.1", "-0.1", "-0", "nan", "inf", "1_0", "0.0_1", "0,5", "half", "10%", "0x1", "1e999", "\u0660"]
)
def test_an_argument_that_is_no_share_is_refused(text: str) -> None:
    (problem,) = refused(OTEL_TRACES_SAMPLER_ARG=text)
    assert str(problem) == f'environment: OTEL_TRACES_SAMPLER_ARG = "{text}": expected a number, 0 to 1'


def test_all_wrong_variables_are_told_at_once() -> None:
    found = refused(EDGEPROXY_TRACING="maybe", OTEL_TRACES_SAMPLER="x", OTEL_TRACES_SAMPLER_ARG="y")
    assert [problem.key for problem in found] == ["EDGEPROXY_TRACING", "OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG"]


def test_the_toggle_is_not_put_into_the_config(loaded: Load) -> None:
    """A worker that starts with it must follow the toggle when it is taken back."""
    toggles = {"EDGEPROXY_TRACING": "off", "OTEL_TRACES_SAMPLER": "always_off", "OTEL_TRACES_SAMPLER_ARG": "0"}
    assert loaded(**toggles) == loaded()


# --- what describes the node -----------------------------------------------------------------------------------------

DESCRIBED = {
    "service name": ({"OTEL_SERVICE_NAME": "edge-hk"}, {"service_name": "edge-hk"}),
    "propagators, once each, in any case": (
        {"OTEL_PROPAGATORS": "B3, tracecontext,b3"},
        {"propagators": ["tracecontext", "b3"]},
    ),
    "no propagators": ({"OTEL_PROPAGATORS": "none"}, {"propagators": ["none"]}),
    "empty propagators are not set": ({"OTEL_PROPAGATORS": ""}, {}),
    "an empty service name is none": ({"OTEL_SERVICE_NAME": ""}, {}),
    "service name out of the attributes": (
        {"OTEL_RESOURCE_ATTRIBUTES": "service.name=edge-hk,a=b"},
        {"service_name": "edge-hk", "resource_attributes": {"kept": "1", "a": "b"}},
    ),
    "service name wins over the attributes": (
        {"OTEL_RESOURCE_ATTRIBUTES": "service.name=other", "OTEL_SERVICE_NAME": "edge-hk"},
        {"service_name": "edge-hk"},
    ),
    "attributes are added, and win": (
        {"OTEL_RESOURCE_ATTRIBUTES": "kept=2,a=b"},
        {"resource_attributes": {"kept": "2", "a": "b"}},
    ),
    "attributes are percent-decoded": (
        {"OTEL_RESOURCE_ATTRIBUTES": "a%2Cb=c%3Dd%25,city=%E9%A6%99%E6%B8%AF"},
        {"resource_attributes": {"kept": "1", "a,b": "c=d%", "city": "香港"}},
    ),
    "a plus is a plus": ({"OTEL_RESOURCE_ATTRIBUTES": "a=1+1"}, {"resource_attributes": {"kept": "1", "a": "1+1"}}),
    "spaces around are dropped": (
        {"OTEL_RESOURCE_ATTRIBUTES": " a = b , c = d e "},
        {"resource_attributes": {"kept": "1", "a": "b", "c": "d e"}},
    ),
    "empty attributes are none": ({"OTEL_RESOURCE_ATTRIBUTES": " "}, {}),
    "endpoint": ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, {"otlp_endpoint": "http://c:4318"}),
    "endpoint for traces wins": (
        {
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318",
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://t:4318/v1/traces",
        },
        {"otlp_endpoint": "http://c:4318", "otlp": Otlp(traces_endpoint="https://t:4318/v1/traces")},
    ),
    "headers, compression and timeout in milliseconds": (
        {
            "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Basic%20YQ==, x-tenant = a%2Cb",
            "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
            "OTEL_EXPORTER_OTLP_TIMEOUT": "2500",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
        },
        {
            "otlp": Otlp(
                headers={"authorization": "Basic YQ==", "x-tenant": "a,b"},
                compression="gzip",
                timeout=2.5,
                protocol="grpc",
            )
        },
    ),
    "those for traces win": (
        {"OTEL_EXPORTER_OTLP_TRACES_TIMEOUT": "1000", "OTEL_EXPORTER_OTLP_TIMEOUT": "2000"},
        {"otlp": Otlp(timeout=1.0)},
    ),
    "the collector's files": (
        {"OTEL_EXPORTER_OTLP_CERTIFICATE": __file__, "OTEL_EXPORTER_OTLP_CLIENT_KEY": __file__},
        {"otlp": Otlp(ca_file=__file__, key_file=__file__)},
    ),
    "batches": (
        {
            "OTEL_BSP_MAX_QUEUE_SIZE": "10",
            "OTEL_BSP_SCHEDULE_DELAY": "200",
            "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "5",
            "OTEL_BSP_EXPORT_TIMEOUT": "30000",
        },
        {"batch": Batch(queue_size=10, delay=0.2, batch_size=5, export_timeout=30.0)},
    ),
    "an empty endpoint is none": ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, {}),
}
TABLE = """
[tracing]
service_name = "from the file"
resource_attributes = { kept = "1" }
otlp_endpoint = "http://file:4318"
"""


@pytest.mark.parametrize(("environ", "changes"), DESCRIBED.values(), ids=DESCRIBED.keys())
def test_service_resource_and_collector_win_over_the_file(
    loaded: Load, environ: dict[str, str], changes: dict[str, object]
) -> None:
    assert loaded(TABLE, **environ).tracing == msgspec.structs.replace(loaded(TABLE).tracing, **changes)


@pytest.mark.parametrize(
    ("environ", "traces_endpoint"),
    [
        ({}, "http://file:4318/traces"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, ""),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://t/x"}, "http://t/x"),
    ],
    ids=["the file's", "the environment's endpoint wins over the file's for traces", "the environment's for traces"],
)
def test_endpoints_of_the_environment_win_over_both_of_the_file(
    loaded: Load, environ: dict[str, str], traces_endpoint: str
) -> None:
    table = (
        '[tracing]\notlp_endpoint = "http://file:4318"\n[tracing.otlp]\ntraces_endpoint = "http://file:4318/traces"\n'
    )
    assert loaded(table, **environ).tracing.otlp.traces_endpoint == traces_endpoint


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "content-length=3"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a=b%0Ac"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "0"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nowhere"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
        ("OTEL_BSP_SCHEDULE_DELAY", "1s"),
    ],
)
def test_what_an_exporter_can_not_be_told_is_an_error(loaded: Load, name: str, text: str) -> None:
    with pytest.raises(ConfigError, match=name):
        loaded(TABLE, **{name: text})


def test_exporters_that_there_are_not_are_an_error(loaded: Load) -> None:
    with pytest.raises(ConfigError, match=r"expected .otlp., .console."):
        loaded('[tracing]\nexporters = "otlp,zipkin"\n')


MALFORMED = {
    "no value": ("OTEL_RESOURCE_ATTRIBUTES", "a"),
    "an empty name": ("OTEL_RESOURCE_ATTRIBUTES", "=b"),
    "an empty value": ("OTEL_RESOURCE_ATTRIBUTES", "a="),
    "an empty member": ("OTEL_RESOURCE_ATTRIBUTES", "a=b,,c=d"),
    "a comma at the end": ("OTEL_RESOURCE_ATTRIBUTES", "a=b,"),
    "an equals sign in a value": ("OTEL_RESOURCE_ATTRIBUTES", "a=b=c"),
    "half a percent code": ("OTEL_RESOURCE_ATTRIBUTES", "a=%4"),
    "a percent sign alone": ("OTEL_RESOURCE_ATTRIBUTES", "a=100%"),
    "percent codes that are no UTF-8": ("OTEL_RESOURCE_ATTRIBUTES", "a=%FF"),
    "a percent-coded line break": ("OTEL_RESOURCE_ATTRIBUTES", "a=x%0Ay"),
    "a service name with a control character": ("OTEL_SERVICE_NAME", "a\x1b[31m"),
    "a service name that is no UTF-8": ("OTEL_SERVICE_NAME", "a\udcff"),
    "propagators that there are not": ("OTEL_PROPAGATORS", "tracecontext,xray"),
    "no propagator and one": ("OTEL_PROPAGATORS", "none,b3"),
    "an empty propagator": ("OTEL_PROPAGATORS", "b3,,jaeger"),
    "an endpoint without a scheme": ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317"),
    "an endpoint without a host": ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://"),
    "an endpoint for traces with another scheme": ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "grpc://c:4317"),
    "an endpoint in capitals": ("OTEL_EXPORTER_OTLP_ENDPOINT", "HTTP://c:4318"),
    "an endpoint with a space": ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318/a b"),
    "an endpoint with a line break": ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318/a\nb"),
    "an endpoint beyond ASCII": ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318/\u00fc"),
    "an endpoint with a password": ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://u:secret@c:4318"),
    "an endpoint with a password that has an @": ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://u:top@secret@c:4318"),
    "headers with a line end": ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=secret%0D%0A"),
    "headers of the traces' own with half a percent code": ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "a=secret%4"),
}


@pytest.mark.parametrize(("name", "value"), MALFORMED.values(), ids=MALFORMED.keys())
def test_what_is_malformed_is_an_error_that_names_the_variable(loaded: Load, name: str, value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(**{name: value})
    (problem,) = caught.value.problems
    assert (problem.source, problem.key, problem.code) == ("environment", name, "environment")
    assert problem.reason.startswith("expected ")
    assert "secret" not in str(problem)
    assert str(problem).isprintable()


def test_the_environment_counts_without_a_file_too() -> None:
    assert load(None, {"OTEL_SERVICE_NAME": "edge-hk"}).tracing.service_name == "edge-hk"


# --- the environment file over the process's environment -------------------------------------------------------------

MERGED = {
    # the process's environment, the file at the start, the file now: what holds
    "the file wins": ({"T": "off"}, {}, {"T": "on"}, {"T": "on"}),
    "without a file the process's holds": ({"T": "off"}, {}, {}, {"T": "off"}),
    "systemd's copy goes with its line": ({"T": "off"}, {"T": "off"}, {}, {}),
    "systemd's copy gives way to a change": ({"T": "off"}, {"T": "off"}, {"T": "on"}, {"T": "on"}),
    "systemd's copy has the comment behind the value in it": ({"T": "off # for now"}, {"T": "off"}, {}, {}),
    "what the process had otherwise stays": ({"T": "on"}, {"T": "off"}, {}, {"T": "on"}),
    "what the file never named stays": ({"P": "x", "T": "off"}, {"T": "off"}, {"T": "on"}, {"P": "x", "T": "on"}),
    "a line that came later": ({}, {}, {"T": "on"}, {"T": "on"}),
}


@pytest.mark.parametrize(("process", "at_start", "now", "expected"), MERGED.values(), ids=MERGED.keys())
def test_the_file_is_laid_over_the_process_environment(
    process: dict[str, str], at_start: dict[str, str], now: dict[str, str], expected: dict[str, str]
) -> None:
    given = [dict(process), dict(at_start), dict(now)]
    assert merged_environ(process, at_start, now) == expected
    assert [process, at_start, now] == given
