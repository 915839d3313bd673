"""What there is to try in the demo with Redis: two nodes that share a cluster.

Text only: where things are is given, nothing is started or looked up here.
"""

from typing import NamedTuple

from edgeproxy.demo.tour import TRACE_ID, Stop

HOST = "demo.example"
"""The host under which both nodes key what they store, as clients reach them by different ports."""
STYLE = "/static/style.css"
KEY = f"edgeproxy:1:{{http://{HOST}{STYLE}}}"
"""What the style sheet is stored under in Redis."""
SPAN_ID = "b7ad6b7169203331"
_HEADERS_ONLY = "curl -sS -D - -o /dev/null"


class SharedPlaces(NamedTuple):
    """Where the parts of a running demo are."""

    a: str
    """One node's url, without a slash at its end."""
    b: str
    program: str
    """How `edgeproxy` is called here."""
    config_a: str
    config_b: str
    redis_cli: str
    """"" where there is none."""
    port: int
    """Of the server that has `KEY`."""
    pid_file: str
    """Its own."""


def shared_tour(at: SharedPlaces) -> list[Stop]:
    """List what there is to try, in an order that makes sense."""
    return [*_share(at), *_trace(at), *_purge(at), *_operate(at)]


def _share(at: SharedPlaces) -> list[Stop]:
    stops = [
        Stop("Edge A has to ask the origin for it: Cache-Status says fwd=uri-miss.", f"{_HEADERS_ONLY} {at.a}{STYLE}"),
        Stop("Edge B was never asked for it and has it: hit.", f"{_HEADERS_ONLY} {at.b}{STYLE}"),
        Stop(
            "What edge B says of it: it lies in the store, and the trace that filled it is edge A's.",
            f"{at.program} cache show {at.b}{STYLE} -c {at.config_b}",
        ),
    ]
    if at.redis_cli:
        stops.append(
            Stop(
                "What lies in Redis: the head, which begins with the trace that wrote it, and for how long (seconds).",
                f"{at.redis_cli} -p {at.port} getrange '{KEY}' 0 56; {at.redis_cli} -p {at.port} ttl '{KEY}'",
            )
        )
    return stops


def _trace(at: SharedPlaces) -> list[Stop]:
    parent = f"traceparent: 00-{TRACE_ID}-{SPAN_ID}-01"
    stops = [
        Stop("A request with a trace of your own.", f"{_HEADERS_ONLY} -H '{parent}' {at.b}{STYLE}"),
        Stop(
            "Which Redis commands that trace ran, on which node, and how long they took.",
            f"sleep 1; {at.program} keytrace --trace-id {TRACE_ID} -c {at.config_b}",
        ),
        Stop(
            "Which traces touched that URL, on any edge.",
            f"sleep 1; {at.program} keytrace --key {at.b}{STYLE} -c {at.config_b}",
        ),
    ]
    if at.redis_cli:
        stops += [
            Stop(
                "Redis itself knows the trace: SLOWLOG (here of all commands, however quick).",
                f"{at.redis_cli} -p {at.port} slowlog get 1000 | grep -a {TRACE_ID}",
            ),
            Stop("…and MONITOR, while you ask for more (Ctrl-C ends it).", f"{at.redis_cli} -p {at.port} monitor"),
        ]
    return stops


def _purge(at: SharedPlaces) -> list[Stop]:
    return [
        Stop(
            "Purged at edge A: within a second edge B has it no more.",
            f"{at.program} purge {at.a}{STYLE} -c {at.config_a}; sleep 1; {_HEADERS_ONLY} {at.b}{STYLE}",
        ),
        Stop(
            "The same by the method PURGE, of all that begins like this; nothing is deleted, a rule is added.",
            f"curl -sS -w '\\n' -X PURGE '{at.b}/static/*'",
        ),
    ]


def _operate(at: SharedPlaces) -> list[Stop]:
    return [
        Stop("How the cluster does, as edge A sees it.", f"{at.program} status -c {at.config_a}"),
        Stop("The access log of edge A as it grows (Ctrl-C ends it).", f"{at.program} tail -c {at.config_a}"),
        Stop("The same with each Redis operation (`store`), as JSON.", f"{at.program} tail --json -c {at.config_a}"),
        Stop(
            "A master of the cluster is killed: the answers go on; in some seconds its replica has taken over.",
            f"kill -9 $(cat {at.pid_file}); for i in 1 2 3 4 5 6; do {_HEADERS_ONLY} {at.a}{STYLE}; sleep 1; done",
        ),
    ]
