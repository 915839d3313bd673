"""The node's configuration: a TOML file, the environment and the environment file, checked and typed."""

from edgeproxy.config.addons import Addons
from edgeproxy.config.caching import Cache, RouteCache
from edgeproxy.config.checks import split_address
from edgeproxy.config.effective import effective
from edgeproxy.config.env_file import env_file_path, read_env_file, set_env_value
from edgeproxy.config.environment import TracingSettings, configured_exporters, effective_tracing, merged_environ
from edgeproxy.config.errors import ConfigError, EnvFileError, Problem, SettingsError
from edgeproxy.config.load import load
from edgeproxy.config.model import (
    Admin,
    Config,
    Limits,
    Listen,
    Log,
    Node,
    Origin,
    Route,
)
from edgeproxy.config.redis import RedisCache
from edgeproxy.config.toml import toml_value
from edgeproxy.config.tracing import Batch, Otlp, TraceStore, Tracing
from edgeproxy.config.types import SamplerWord

__all__ = [
    "Addons",
    "Admin",
    "Batch",
    "Cache",
    "Config",
    "ConfigError",
    "EnvFileError",
    "Limits",
    "Listen",
    "Log",
    "Node",
    "Origin",
    "Otlp",
    "Problem",
    "RedisCache",
    "Route",
    "RouteCache",
    "SamplerWord",
    "SettingsError",
    "TraceStore",
    "Tracing",
    "TracingSettings",
    "configured_exporters",
    "effective",
    "effective_tracing",
    "env_file_path",
    "load",
    "merged_environ",
    "read_env_file",
    "set_env_value",
    "split_address",
    "toml_value",
]
