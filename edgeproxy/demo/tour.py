"""What there is to try in the demo: command lines, each with a sentence on what it shows.

Text only: where things are is given, nothing is started or looked up here.
"""

from typing import NamedTuple

from edgeproxy.demo.origin import ASSETS

AWAY = "/away"
"""Path below which the demo's node has an origin that is not there."""
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
_PARENT = f"traceparent: 00-{TRACE_ID}-b7ad6b7169203331-01"
_HEADERS_ONLY = "curl -sS -D - -o /dev/null"


class Stop(NamedTuple):
    """One thing to try."""

    shows: str
    command: str


class Places(NamedTuple):
    """Where the parts of a running demo are."""

    url: str
    """The node's, without a slash at its end."""
    program: str
    """How `edgeproxy` is called here."""
    config: str
    access_log: str
    origin_log: str
    admin: str
    """Address of the admin API; "" when it does not listen."""


def tour(at: Places) -> list[Stop]:
    """List what there is to try, in an order that makes sense."""
    return [*_cache(at), *_trace(at), *_trouble(at), *_operate(at)]


def _cache(at: Places) -> list[Stop]:
    style = f"{at.url}/static/style.css"
    etag = ASSETS["style.css"].etag
    return [
        Stop(
            "The first time it comes from the origin; the second time the edge has it: Cache-Status says hit, and Age.",
            f"{_HEADERS_ONLY} {style} -o /dev/null {style}",
        ),
        Stop("Whoever has it already is told so: 304, no body.", f"{_HEADERS_ONLY} -H 'If-None-Match: {etag}' {style}"),
        Stop("A part of it: 206, cut from what the edge has.", f"curl -sS -i -w '\\n' -H 'Range: bytes=0-27' {style}"),
        Stop(
            "What the edge has of it: how old, how fresh, and the trace that fetched it.",
            f"{at.program} cache show {style} -c {at.config}",
        ),
        Stop(
            "Purged in every worker; the next one comes from the origin again.",
            f"{at.program} purge {style} -c {at.config}; {_HEADERS_ONLY} {style}",
        ),
        Stop("max-age=5: twice the same time, and another one five seconds later.", _twice(f"{at.url}/api/time")),
        Stop("no-store: a new time with each request.", _twice(f"{at.url}/uncacheable")),
        Stop(
            "64 MiB stream through; the worker holds none of it whole.",
            f"curl -sS -o /dev/null -w '%{{size_download}} bytes in %{{time_total}} s\\n' {at.url}/large",
        ),
        Stop("A page to look at, in a browser too.", f"curl -sS {at.url}/static/index.html"),
    ]


def _twice(url: str) -> str:
    """Both on one connection, and so to one worker: each has a memory of its own."""
    return f"curl -sS -w '\\n' {url} {url}"


def _trace(at: Places) -> list[Stop]:
    return [
        Stop(
            "A trace that began elsewhere goes on: the origin, which echoes what it got, has its id.",
            f"curl -sS -w '\\n' -H '{_PARENT}' {at.url}/echo",
        ),
        Stop(
            "The same id is in the edge's log and in the origin's.",
            f"sleep 1; grep {TRACE_ID} {at.access_log} {at.origin_log}",
        ),
        Stop(
            "A request's body reaches the origin: it counts five bytes.",
            f"curl -sS -w '\\n' --data-binary hello {at.url}/echo",
        ),
        Stop(
            "A slow answer: Server-Timing says how much of the time was the origin's.",
            f"{_HEADERS_ONLY} '{at.url}/api/slow?ms=800'",
        ),
    ]


def _trouble(at: Places) -> list[Stop]:
    return [
        Stop("The origin's own error goes through as it is: 500.", f"curl -sS -i {at.url}/error"),
        Stop(
            "No origin there: the edge answers 502, with a problem document that names the trace.",
            f"curl -sS -i -w '\\n' {at.url}{AWAY}/",
        ),
        Stop(
            "An origin that breaks off: the transfer fails, instead of looking whole (curl says so).",
            f"curl -sS -o /dev/null {at.url}/broken",
        ),
    ]


def _operate(at: Places) -> list[Stop]:
    talk = f"-c {at.config}"
    stops = [
        Stop("The node's processes, and what is in flight.", f"{at.program} status {talk}"),
        Stop(
            "A request in flight, with its stage and its trace id.",
            f"curl -sS -o /dev/null '{at.url}/api/slow?ms=5000' & sleep 1; {at.program} status {talk}; wait",
        ),
        Stop("The access log as it grows (Ctrl-C ends it).", f"{at.program} tail {talk}"),
        Stop("Only what went wrong.", f"{at.program} tail {talk} --status 5xx"),
        Stop("Tracing off, without a restart: ids are still there, sampled is not.", f"{at.program} trace off {talk}"),
        Stop("And on again.", f"{at.program} trace on {talk}"),
    ]
    if at.admin:
        stops.append(Stop("Figures for Prometheus.", f"curl -sS http://{at.admin}/metrics"))
    return stops
