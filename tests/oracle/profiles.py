"""The configurations under which the engines are compared: the first with everything, the others with what it leaves
out. X-Cache and traceresponse stay on in all of them, as the harness goes by them.
"""

from typing import NamedTuple

from tests.oracle.engines import Changes


class Profile(NamedTuple):
    """A configuration, and how much is sent under it."""

    name: str
    requests: int
    changes: Changes


PROFILES: tuple[Profile, ...] = (
    Profile("default", 3000, {}),
    Profile("untraced", 300, {"tracing": {"enabled": False, "server_timing": False}, "cache": {"send_tags": True}}),
    Profile(
        "others",
        300,
        {
            "tracing": {
                "propagators": ["b3", "tracecontext", "jaeger"],
                "sampler": "parentbased_always_off",
                "send_x_request_id": False,
            },
            "cache": {"status_key": True, "uncacheable_ttl": 0},
        },
    ),
    Profile(
        "untrusted",
        300,
        {
            "tracing": {"trust": "none", "send_x_trace_id": False, "x_trace_id": False},
            "cache": {"uncacheable_ttl": 5, "max_object_bytes": 30_000},
        },
    ),
)


def profile(name: str) -> Profile:
    """The profile of that name."""
    return next(one for one in PROFILES if one.name == name)
