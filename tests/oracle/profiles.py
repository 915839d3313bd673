"""The configurations under which the engines are compared: the first with everything, the others with what it leaves
out. X-Cache and traceresponse stay on in all of them, as the harness goes by them.
"""

from pathlib import Path
from typing import NamedTuple

from tests.oracle.engines import Changes


class Profile(NamedTuple):
    """A configuration, and how much is sent under it."""

    name: str
    requests: int
    changes: Changes
    without: str = ""
    """A theme that is left out: that of background fetches costs a second's rest an epoch."""
    script: Path | None = None
    """A script of operators' that both run; requests say what it is to do."""


PROFILES: tuple[Profile, ...] = (
    Profile("default", 1750, {}),
    Profile(
        "untraced",
        150,
        {"tracing": {"enabled": False, "server_timing": False}, "cache": {"send_tags": True}},
        without="stale",
    ),
    Profile(
        "others",
        150,
        {
            "tracing": {
                "propagators": ["b3", "tracecontext", "jaeger"],
                "sampler": "parentbased_always_off",
                "send_x_request_id": False,
            },
            "cache": {"status_key": True, "uncacheable_ttl": 0},
        },
        without="stale",
    ),
    Profile(
        "untrusted",
        150,
        {
            "tracing": {"trust": "none", "send_x_trace_id": False, "x_trace_id": False},
            "cache": {"uncacheable_ttl": 5, "max_object_bytes": 30_000, "purge_allow": ["127.0.0.0/8"]},
        },
        without="stale",
    ),
    Profile("scripted", 300, {}, without="stale", script=Path(__file__).with_name("deciding.py")),
)


def profile(name: str) -> Profile:
    """The profile of that name."""
    return next(one for one in PROFILES if one.name == name)
