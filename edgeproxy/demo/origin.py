"""The demo's origin: one small web site with a page for each thing that an edge does.

A starlette application on uvicorn, in a process of its own: it knows nothing of the edge in front of it, and the edge
must know nothing of it. Run by `edgeproxy demo` with the listening socket that it is to serve.
"""

import argparse
import asyncio
import contextlib
import hashlib
import os
import socket
import struct
import zlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LARGE_BYTES = 64 * 1024 * 1024
MAX_SLOW_MS = 60_000
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
_CHUNK = bytes(range(256)) * 256
_CHECK_PARENT_S = 1.0


class Asset(NamedTuple):
    """A static file."""

    media_type: str
    body: bytes

    @property
    def etag(self) -> str:
        """Strong validator: the body's hash."""
        return f'"{hashlib.sha256(self.body).hexdigest()[:16]}"'


def _png(size: int) -> bytes:
    """Draw a square that goes from one colour to another."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    step = 255 // (size - 1)
    rows = b"".join(b"\0" + b"".join(bytes((x * step, y * step, 160)) for x in range(size)) for y in range(size))
    header = struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>edgeproxy demo</title>
<link rel="stylesheet" href="/static/style.css">
<h1><img src="/static/logo.svg" alt="" width="48" height="48"> Hello from the origin</h1>
<p>This page, its style sheet and its pictures may be kept for a minute, so the edge answers them itself after the first time.</p>
<p><img src="/static/gradient.png" alt="a square that goes from one colour to another" width="128" height="128"></p>
</html>
"""  # noqa: E501  text of a page
_STYLE = """body { font: 16px/1.5 system-ui, sans-serif; max-width: 40rem; margin: 3rem auto; color: #1c2733; }
h1 { display: flex; align-items: center; gap: 0.75rem; }
"""
_LOGO = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 48 48">
<circle cx="24" cy="24" r="22" fill="#0b7285"/>
<path d="M14 24h20M27 16l8 8-8 8" fill="none" stroke="#fff" stroke-width="4"/>
</svg>
"""
ASSETS = {
    "index.html": Asset("text/html; charset=utf-8", _PAGE.encode()),
    "style.css": Asset("text/css; charset=utf-8", _STYLE.encode()),
    "logo.svg": Asset("image/svg+xml", _LOGO.encode()),
    "gradient.png": Asset("image/png", _png(64)),
}


async def _static(request: Request) -> Response:
    asset = ASSETS.get(request.path_params["name"])
    if asset is None:
        return PlainTextResponse("no such file\n", 404)
    headers = {"ETag": asset.etag, "Cache-Control": "public, max-age=60"}
    if asset.etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(asset.body, headers=headers, media_type=asset.media_type)


async def _index(_request: Request) -> Response:
    return Response(status_code=302, headers={"Location": "/static/index.html", "Cache-Control": "no-store"})


async def _time(_request: Request) -> Response:
    return JSONResponse({"time": datetime.now(UTC).isoformat()}, headers={"Cache-Control": "max-age=5"})


async def _slow(request: Request) -> Response:
    raw = request.query_params.get("ms", "1000")
    if not raw.isdecimal() or int(raw) > MAX_SLOW_MS:
        return PlainTextResponse(f"ms: a number from 0 to {MAX_SLOW_MS}\n", 400)
    await asyncio.sleep(int(raw) / 1000)
    return JSONResponse({"waited_ms": int(raw)}, headers={"Cache-Control": "no-store"})


async def _uncacheable(_request: Request) -> Response:
    return JSONResponse({"time": datetime.now(UTC).isoformat()}, headers={"Cache-Control": "no-store"})


async def _error(_request: Request) -> Response:
    return PlainTextResponse("the origin had an error\n", 500, headers={"Cache-Control": "no-store"})


async def _broken(_request: Request) -> Response:
    async def half() -> AsyncIterator[bytes]:
        yield b"x" * 1000
        raise ConnectionAbortedError("the demo origin breaks off here")

    return StreamingResponse(half(), headers={"Content-Length": "2000", "Cache-Control": "no-store"})


async def _large(_request: Request) -> Response:
    async def body() -> AsyncIterator[bytes]:
        for _ in range(LARGE_BYTES // len(_CHUNK)):
            yield _CHUNK

    headers = {"Content-Length": str(LARGE_BYTES), "Cache-Control": "no-store"}
    return StreamingResponse(body(), headers=headers, media_type="application/octet-stream")


async def _echo(request: Request) -> Response:
    length = 0
    async for chunk in request.stream():
        length += len(chunk)
    received = {
        "method": request.method,
        "path": request.url.path,
        "query": request.url.query,
        "headers": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in request.headers.raw],
        "body_bytes": length,
    }
    return JSONResponse(received, headers={"Cache-Control": "no-store"})


def application(log: Path | None) -> ASGIApp:
    """Make the site; `log` is a file for one JSON line a request, with the trace id that the edge sent along."""
    site = Starlette(
        routes=[
            Route("/", _index),
            Route("/static/{name}", _static),
            Route("/api/time", _time),
            Route("/api/slow", _slow),
            Route("/uncacheable", _uncacheable),
            Route("/error", _error),
            Route("/broken", _broken),
            Route("/large", _large),
            Route("/echo", _echo, methods=METHODS),
        ]
    )
    return _Logged(site, log) if log else site


class _Logged:
    """Writes a line for each request that the site answered, or failed to."""

    def __init__(self, site: ASGIApp, log: Path) -> None:
        self._site = site
        self._fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        status = 0

        async def noting(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self._site(scope, receive, noting)
        finally:
            if scope["type"] == "http":
                headers = Headers(scope=scope)
                line = {
                    "ts": datetime.now(UTC).isoformat(),
                    "trace_id": headers.get("x-trace-id"),
                    "traceparent": headers.get("traceparent"),
                    "method": scope["method"],
                    "path": scope["path"],
                    "status": status,
                }
                os.write(self._fd, msgspec.json.encode(line) + b"\n")


async def serve(listener: socket.socket, log: Path | None) -> None:
    """Serve the site on a listening socket until the process that started this one has ended, or SIGTERM."""
    # The h11 protocol: what the demo shows must not hang on the parser that the edge itself uses.
    config = uvicorn.Config(application(log), http="h11", log_level="critical", access_log=False, lifespan="off")
    server = uvicorn.Server(config)
    parent = os.getppid()

    async def follow_parent() -> None:
        while os.getppid() == parent:  # noqa: ASYNC110  the kernel has no event for a parent's end
            await asyncio.sleep(_CHECK_PARENT_S)
        server.should_exit = True

    following = asyncio.create_task(follow_parent())
    await server.serve(sockets=[listener])
    following.cancel()


def main() -> None:
    """Run the origin as a process."""
    parser = argparse.ArgumentParser(description="the demo's origin")
    parser.add_argument("--listen-fd", type=int, required=True, help="descriptor of the listening socket to serve")
    parser.add_argument("--log", type=Path, help="file for one JSON line a request")
    arguments = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt), socket.socket(fileno=arguments.listen_fd) as listener:
        asyncio.run(serve(listener, arguments.log))


if __name__ == "__main__":
    main()
