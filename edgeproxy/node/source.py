"""Where a node's configuration comes from: the TOML file, the environment file, the process's environment.

Reads them together and says what is effective; what changes because of it is the caller's business. The environment
file wins over the environment, the environment over the TOML.
"""

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from edgeproxy.config import (
    Config,
    Tracing,
    TracingSettings,
    configured_exporters,
    effective_tracing,
    env_file_path,
    load,
    merged_environ,
    read_env_file,
)
from edgeproxy.node import watch


class Effective(msgspec.Struct, frozen=True, kw_only=True):
    """What the files and the environment come to."""

    config: Config
    tracing: TracingSettings
    """The toggles; those in `config` are the file's own."""
    seen: str
    """Which state of the environment file this is of (`watch.fingerprint`)."""

    def needs_other_processes_than(self, other: "Effective") -> bool:
        """Whether the configurations differ in more than what the control page says."""
        return _without_toggles(self.config) != _without_toggles(other.config)

    @property
    def as_run(self) -> Config:
        """The configuration with the toggles put in."""
        return msgspec.structs.replace(self.config, tracing=_with(self.config.tracing, self.tracing))


class Source:
    """A configuration file and an environment file, and the environment that the process was started with."""

    def __init__(self, config_path: Path | None, environ: Mapping[str, str] = os.environ) -> None:
        """Find the environment file, and keep what it says now: systemd may have put just that into the environment.

        Raises EnvFileError when the file is there and can't be understood.
        """
        self.config_path = config_path.absolute() if config_path else None
        self.env_file = env_file_path(config_path, environ).absolute()
        self._environ = dict(environ)
        self._at_start = read_env_file(self.env_file)

    def fingerprint(self) -> str:
        """Which state the environment file is in."""
        return watch.fingerprint(self.env_file)

    def read(self) -> Effective:
        """Read everything anew. Raises SettingsError."""
        seen = self.fingerprint()
        environ = self._merged_environ()
        config = load(self.config_path, environ)
        return Effective(config=config, tracing=effective_tracing(config, environ), seen=seen)

    def read_tracing(self, config: Config) -> TracingSettings:
        """Read the environment file alone: the toggles on top of a configuration. Raises SettingsError."""
        return effective_tracing(config, self._merged_environ())

    def _merged_environ(self) -> dict[str, str]:
        return merged_environ(self._environ, self._at_start, read_env_file(self.env_file))


def _with(tracing: Tracing, toggles: TracingSettings) -> Tracing:
    is_as_written = toggles.exporters == configured_exporters(tracing)
    return msgspec.structs.replace(
        tracing,
        enabled=toggles.enabled,
        sampler=toggles.sampler,
        ratio=toggles.ratio,
        exporters=tracing.exporters if is_as_written else ",".join(toggles.exporters) or "none",
        sampling=toggles.sampling,
    )


def _without_toggles(config: Config) -> Config:
    plain = TracingSettings(enabled=True, sampler="always_on", ratio=1.0)
    return msgspec.structs.replace(config, tracing=_with(config.tracing, plain))
