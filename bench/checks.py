"""Is every server doing the same work? Looked at before anything is measured, with the same eyes for all.

What differs is a problem that the report shows beside the figures, not an exception: a peer's lack is worth knowing
too.
"""

import http.client
import json
import re
from collections.abc import Iterator

from bench.accesslog import AccessLog
from bench.servers import Origin, Server
from bench.transfer import get

TRACE_ID = re.compile(r"[0-9a-f]{32}")
TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")
CONTINUED_TRACE, CONTINUED_SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TIMES = 5


def problems(server: Server, origin: Origin) -> list[str]:
    """Everything that this server, freshly started, does not do as it should, in words."""
    log = AccessLog(server.access_log)
    log.reached(1)  # its start was seen by a request
    log.settle()
    log.empty()
    ids: list[str] = []
    found: list[str] = []
    for look in (_bodies, _caching, _context):
        try:
            found += look(server, origin, ids)
        except (OSError, http.client.HTTPException) as error:
            found.append(f"no answer: {error!r}")
    found += _log(server, log, ids)
    log.empty()
    return found


def _bodies(server: Server, origin: Origin, ids: list[str]) -> Iterator[str]:
    for path in ("/hit/785", "/hit/100k", "/hit/1m", "/miss/785"):
        for _ in range(2):
            answer = get(server.port, path)
            ids.append(answer.headers.get("X-Trace-Id", ""))
            if answer.status != 200:
                yield f"{path}: status {answer.status}"
            elif answer.body != origin.body(path.rpartition("/")[2]):
                yield f"{path}: not the origin's body"


def _caching(server: Server, origin: Origin, ids: list[str]) -> Iterator[str]:
    for path, expected, wanted in (("/hit/785", 0, "a cached answer"), ("/miss/785", TIMES, "an uncacheable one")):
        before = origin.requests()
        for _ in range(TIMES):
            answer = get(server.port, path)
            ids.append(answer.headers.get("X-Trace-Id", ""))
            if server.cache_header not in answer.headers:
                yield f"{path}: no {server.cache_header} in the answer"
        if (reached := origin.requests() - before) != expected:
            yield f"{path}: {reached} of {TIMES} requests for {wanted} reached the origin, not {expected}"


def _context(server: Server, _: Origin, ids: list[str]) -> Iterator[str]:
    minted = get(server.port, "/echo")
    theirs = get(server.port, "/echo", {"traceparent": f"00-{CONTINUED_TRACE}-{CONTINUED_SPAN}-01"})
    for answer, trace_id in ((minted, minted.headers.get("X-Trace-Id", "")), (theirs, CONTINUED_TRACE)):
        ids.append(answer.headers.get("X-Trace-Id", ""))
        if answer.status != 200:
            yield f"/echo: status {answer.status}"
            continue
        told = json.loads(answer.body)
        parent = TRACEPARENT.fullmatch(told["traceparent"])
        if not parent or parent[1] != trace_id or parent[2] == CONTINUED_SPAN:
            yield f"the origin got traceparent {told['traceparent']!r}, not one of trace {trace_id}"
        if told["x_trace_id"] != trace_id:
            yield f"the origin got X-Trace-Id {told['x_trace_id']!r}, not {trace_id}"
    if bad := [trace_id for trace_id in ids if not TRACE_ID.fullmatch(trace_id)]:
        yield f"X-Trace-Id of {len(bad)} answers is not a trace id: {bad[0]!r}"
    if len(set(ids)) != len(ids):
        yield "two requests got the same trace id"


def _log(server: Server, log: AccessLog, ids: list[str]) -> Iterator[str]:
    log.reached(len(ids))
    if (count := log.settle()) != len(ids):
        yield f"its log has {count} lines for {len(ids)} requests"
    if not server.access_log.exists():
        return
    logged: list[str] = []
    for line in server.access_log.read_text().splitlines():
        try:
            logged.append(json.loads(line)["trace_id"])
        except (ValueError, LookupError, TypeError):
            yield f"its log has a line that is no JSON with a trace_id: {line[:120]}"
            break
    if missing := set(ids) - set(logged):
        yield f"its log lacks {len(missing)} of {len(ids)} trace ids"
