"""What makes spans useful once they have arrived: that they say whose they are, and that Redis shows the trace.

Pure: settings in, findings out.
"""

from collections.abc import Mapping

from edgeproxy.config import Config
from edgeproxy.doctor.findings import Finding, Verdict

_DEFAULT_NAMES = ("edgeproxy", "unknown_service")
_NEEDED = ("service.name", "service.version", "service.instance.id", "deployment.environment.name", "host.name")
_OLDER = {"deployment.environment.name": "deployment.environment"}


def check_resource(attributes: Mapping[str, object]) -> Finding:
    """Whether the resource's attributes tell this node from others."""
    figures = {name: str(value) for name, value in attributes.items()}

    def finding(verdict: Verdict, found: str, advice: str = "") -> Finding:
        return Finding(check="resource", verdict=verdict, found=found, advice=advice, figures=figures)

    missing = [name for name in _NEEDED if not attributes.get(name)]
    wrong, advice = [], []
    older = [name for name in missing if attributes.get(_OLDER.get(name, ""))]
    if missing:
        wrong.append(f"spans do not say {', '.join(missing)}")
        advice.append(
            f"{_OLDER[older[0]]} is the old name of {older[0]}"
            if older
            else f'set tracing.resource_attributes, such as {{ "{missing[0]}" = "…" }}, or OTEL_RESOURCE_ATTRIBUTES'
        )
    name = str(attributes.get("service.name", ""))
    if name.partition(":")[0] in _DEFAULT_NAMES:
        wrong.append(f"service.name is the default, {name}")
        advice.append("name it for what it serves: tracing.service_name, or OTEL_SERVICE_NAME")
    if wrong:
        return finding(Verdict.WARN, "; ".join(wrong), "; ".join(advice))
    environment = attributes["deployment.environment.name"]
    return finding(Verdict.OK, f"spans are of {name} in {environment}, node {attributes['service.instance.id']}")


def check_redis(config: Config) -> Finding:
    """Whether operations in Redis carry the trace that they belong to."""

    def finding(verdict: Verdict, found: str, advice: str = "") -> Finding:
        return Finding(check="redis_tags", verdict=verdict, found=found, advice=advice)

    if config.cache.store != "redis":
        return finding(Verdict.SKIPPED, f'no Redis: cache.store is "{config.cache.store}"')
    how = config.cache.redis.tag_operations
    if how == "off":
        return finding(
            Verdict.WARN,
            "operations in Redis do not say which trace they belong to",
            'set cache.redis.tag_operations to "plain"',
        )
    return finding(Verdict.OK, f"operations in Redis carry their trace: tag_operations {how}")
