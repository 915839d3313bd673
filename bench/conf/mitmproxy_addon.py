"""Stock mitmproxy doing the edge's work: an addon that mints or continues the trace, answers from a dict, writes a
JSON line.

Loaded by mitmdump with `-s`; runs in its process, so it may use nothing of the benchmark.
"""

import asyncio
import os
import random
import re
import time
from typing import TextIO

import msgspec
from mitmproxy import http

TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
MAX_AGE = re.compile(r"max-age=(\d+)")
LARGEST_KEPT_BYTES = 8 * 1024 * 1024


class Edge:
    """Trace context, cache and access log, as the other servers do them."""

    def __init__(self) -> None:
        self.cache: dict[str, tuple[float, http.Response]] = {}
        self.log: TextIO = open(os.environ["BENCH_ACCESS_LOG"], "a", buffering=64 * 1024)  # noqa: SIM115, PTH123
        self.encode = msgspec.json.Encoder().encode

    def running(self) -> None:
        self.flusher = asyncio.create_task(self.flush_each_second())

    async def flush_each_second(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            self.log.flush()

    def request(self, flow: http.HTTPFlow) -> None:
        parent = TRACEPARENT.fullmatch(flow.request.headers.get("traceparent", ""))
        trace_id = parent[1] if parent else f"{random.getrandbits(128):032x}"
        flags = parent[3] if parent else ("01" if random.random() < 0.01 else "00")
        span_id = f"{random.getrandbits(64):016x}"
        flow.metadata.update(trace_id=trace_id, span_id=span_id, parent_id=parent[2] if parent else None, cache="MISS")
        kept = self.cache.get(flow.request.path)
        if kept and kept[0] > time.time():
            flow.metadata["cache"] = "HIT"
            flow.response = kept[1].copy()
            return
        flow.request.headers["traceparent"] = f"00-{trace_id}-{span_id}-{flags}"
        flow.request.headers["X-Trace-Id"] = trace_id

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        assert flow.response
        headers = flow.response.headers
        headers["X-Trace-Id"] = flow.metadata["trace_id"]
        headers["X-Cache"] = flow.metadata["cache"]
        if int(headers.get("content-length", "0")) > LARGEST_KEPT_BYTES:
            flow.response.stream = True

    def response(self, flow: http.HTTPFlow) -> None:
        assert flow.response
        request, response, told = flow.request, flow.response, flow.metadata
        if told["cache"] == "MISS" and not response.stream:
            lifetime = MAX_AGE.search(response.headers.get("cache-control", ""))
            if lifetime:
                self.cache[request.path] = (time.time() + int(lifetime[1]), response.copy())
        now = time.time()
        record = {
            "ts": now,
            "trace_id": told["trace_id"],
            "span_id": told["span_id"],
            "parent_id": told["parent_id"],
            "client": flow.client_conn.peername[0],
            "method": request.method,
            "scheme": request.scheme,
            "host": request.pretty_host,
            "uri": request.path,
            "protocol": request.http_version,
            "status": response.status_code,
            "bytes_out": len(response.raw_content or b""),
            "cache": told["cache"],
            "origin": flow.server_conn.peername,
            "duration_s": now - request.timestamp_start,
            "user_agent": request.headers.get("user-agent"),
            "referer": request.headers.get("referer"),
        }
        self.log.write(self.encode(record).decode() + "\n")

    def done(self) -> None:
        self.log.flush()


addons = [Edge()]
