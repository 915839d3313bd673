"""The configuration in force, as text that says it again."""

import tomllib
from pathlib import Path

import msgspec
import pytest

from edgeproxy.config import (
    Cache,
    Config,
    Limits,
    Log,
    Node,
    Origin,
    Route,
    RouteCache,
    Tracing,
    effective,
    load,
    split_address,
    toml_value,
)
from edgeproxy.config.schema import keys_of

ORIGIN = Origin(name="app", urls=["http://127.0.0.1:8000"])
CONFIGS = {
    "defaults with an origin": Config(origin=[ORIGIN]),
    "several of each": Config(
        origin=[ORIGIN, Origin(name="api", urls=["http://a", "https://b:1"], connect_timeout=0.25, retries=0)],
        route=[
            Route(match="/api/*", host="*.example.com", origin="api", cache=RouteCache(enabled=False)),
            Route(match="/*", origin="app", cache=RouteCache(max_object_bytes=0)),
        ],
    ),
    "numbers far out": Config(
        origin=[ORIGIN],
        cache=Cache(memory_bytes=1 << 62),
        limits=Limits(send_timeout=1e-7, drain_timeout=0.0),
        tracing=Tracing(ratio=5e-324),
    ),
    "texts that need escapes": Config(
        origin=[ORIGIN],
        node=Node(workers=3, runtime_dir='/run/"x"\\y'),
        log=Log(access="/var/log/a\tb\x7f香.log"),
    ),
    "attributes and networks": Config(
        origin=[ORIGIN],
        tracing=Tracing(trust=["10.0.0.0/8", "::1"], resource_attributes={"a.b": 'x = "y"', "c": "d", "香": "港"}),
    ),
    "nobody trusted": Config(origin=[ORIGIN], tracing=Tracing(trust="none")),
    "an empty list of networks": Config(origin=[ORIGIN], tracing=Tracing(trust=[])),
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_its_text_loads_as_the_same(tmp_path: Path, config: Config) -> None:
    path = tmp_path / "edgeproxy.toml"
    path.write_text(effective(config), encoding="utf-8")
    assert load(path, {}) == config


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_a_worker_reads_what_the_supervisor_wrote(config: Config) -> None:
    assert Config.from_json(config.to_json()) == config


def test_a_worker_refuses_what_is_no_configuration() -> None:
    with pytest.raises(msgspec.ValidationError):
        Config.from_json(b'{"limits": {"headers": 0}}')
    with pytest.raises(msgspec.ValidationError):
        Config.from_json(b'{"unknown": {}}')


def test_it_shows_defaults_too() -> None:
    tables = tomllib.loads(effective(Config(origin=[ORIGIN])))
    for name, key in keys_of(Config).items():
        if key.table is not None and key.item is None:
            assert list(tables[name]) == list(keys_of(key.table))


def test_what_the_environment_said_is_in_force(tmp_path: Path) -> None:
    path = tmp_path / "edgeproxy.toml"
    path.write_text('[[origin]]\nname = "a"\nurls = ["http://a"]\n', encoding="utf-8")
    config = load(path, {"OTEL_SERVICE_NAME": "edge-hk", "OTEL_RESOURCE_ATTRIBUTES": "a=b"})
    path.write_text(effective(config), encoding="utf-8")
    assert load(path, {}).tracing.service_name == "edge-hk"
    assert load(path, {}) == config


@pytest.mark.parametrize(
    ("address", "parts"),
    [("127.0.0.1:0", ("127.0.0.1", 0)), ("[::1]:8080", ("::1", 8080)), ("localhost:65535", ("localhost", 65535))],
)
def test_an_address_comes_apart(address: str, parts: tuple[str, int]) -> None:
    assert split_address(address) == parts


@pytest.mark.parametrize("address", ["127.0.0.1", "[::1]", ":80", "a:65536"])
def test_what_is_no_address_does_not(address: str) -> None:
    with pytest.raises(ValueError, match=r"no port|no host"):
        split_address(address)


def test_values_as_toml_writes_them() -> None:
    value = {"a": [1, 2.5, True], "b c": 'x"\n', "d": {}, "e": []}
    assert toml_value(value) == r'{ a = [1, 2.5, true], "b c" = "x\"\n", d = {}, e = [] }'
    assert tomllib.loads(f"x = {toml_value(value)}")["x"] == value
