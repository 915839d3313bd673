"""What describes this node in its spans: OpenTelemetry's resource attributes.

May know: the configuration, in which the environment's variables are already, and the host. Must not: know spans.
"""

import os
from pathlib import Path

import edgeproxy
from edgeproxy.config import Config
from edgeproxy.tracing.spans import Value

_MACHINE_ID = Path("/etc/machine-id")
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm32", "i686": "x86"}
"""The words of the semantic conventions for those of uname."""


def resource_attributes(config: Config) -> dict[str, Value]:
    """All resource attributes; those of the configuration win over what is found out here."""
    system = os.uname()
    found: dict[str, Value] = {
        "service.version": edgeproxy.__version__,
        "service.instance.id": config.node.name or system.nodename,
        "host.name": system.nodename,
        "host.arch": _ARCHITECTURES.get(system.machine, system.machine),
        "os.type": system.sysname.lower(),
        "telemetry.sdk.name": "edgeproxy",
        "telemetry.sdk.language": "python",
        "telemetry.sdk.version": edgeproxy.__version__,
    }
    if machine := _machine_id():
        found["host.id"] = machine
    return {"service.name": config.tracing.service_name} | found | config.tracing.resource_attributes


def _machine_id() -> str:
    try:
        return _MACHINE_ID.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""
