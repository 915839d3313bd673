"""The admin API, served by the scribe: how the node is, as JSON, and its metrics for Prometheus.

Read-only, for operators and monitoring, on an address of its own that clients should not reach. An address that can't
be bound is reported and tried again; the access log does not wait for it.

- GET /status: `edgeproxy status --json`
- GET /healthz: 200 while a worker lives, 503 when none does
- GET /metrics: see docs/metrics.md
"""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec
import structlog
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from edgeproxy.config import split_address
from edgeproxy.node.drain import Drain
from edgeproxy.node.errors import NodeError
from edgeproxy.node.metrics import Metrics
from edgeproxy.node.runtime import RuntimeDir
from edgeproxy.node.status import read_status

RETRY_S = 2.0
_JSON = "application/json"

_log = structlog.get_logger()


def build_app(runtime_dir: Path, drain: Drain) -> Starlette:
    """Build the API of the node whose ledgers `drain` has open."""
    metrics = Metrics(drain)

    async def status(_request: Request) -> Response:
        try:
            return Response(msgspec.json.encode(read_status(runtime_dir)), media_type=_JSON)
        except (NodeError, OSError) as error:
            code = error.code if isinstance(error, NodeError) else "os"
            return _json(503, {"error": {"type": code, "message": str(error)}})

    async def healthz(_request: Request) -> Response:
        alive = drain.has_living()
        log = "ok" if drain.health.is_well else "failing"
        return _json(200 if alive else 503, {"status": "ok" if alive else "no worker", "access_log": log})

    async def prometheus(request: Request) -> Response:
        body, content_type = metrics.render(request.headers.get("accept", ""))
        return Response(body, headers={"content-type": content_type})

    return Starlette(
        routes=[Route("/status", status), Route("/healthz", healthz), Route("/metrics", prometheus)],
    )


def _json(status: int, content: object) -> Response:
    return Response(msgspec.json.encode(content), status_code=status, media_type=_JSON)


class _Server(uvicorn.Server):
    """Uvicorn in a loop that is not its own: the process's signals are the scribe's."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Admin:
    """The API's life within the scribe's loop: `async with`."""

    def __init__(self, listen: str, runtime_dir: Path, drain: Drain) -> None:
        """Prepare to listen on `listen` ("host:port"); nothing is bound yet."""
        self._listen = listen
        self._address_file = RuntimeDir(runtime_dir).admin_address
        self._app = build_app(runtime_dir, drain)
        self._server: _Server | None = None
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        bound = self._bind()
        self._task = asyncio.create_task(self._serve(bound), name="admin")
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self._task is None:
            return
        if self._server is None:
            self._task.cancel()
        else:
            self._server.should_exit = True
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        self._address_file.unlink(missing_ok=True)

    def _bind(self, *, again: bool = False) -> socket.socket | None:
        try:
            bound = _listening(self._listen)
            _note(self._address_file, bound)
        except OSError as error:
            if not again:
                _log.error("admin API can't listen", listen=self._listen, error=error.strerror, retry_s=RETRY_S)
            self._address_file.unlink(missing_ok=True)
            return None
        return bound

    async def _serve(self, bound: socket.socket | None) -> None:
        while bound is None:
            await asyncio.sleep(RETRY_S)
            bound = self._bind(again=True)
        self._server = _Server(
            uvicorn.Config(
                self._app,
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=1,
            )
        )
        _log.info("admin API listens", address=_text(bound))
        await self._server.serve(sockets=[bound])


def _listening(listen: str) -> socket.socket:
    host, port = split_address(listen)
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, address = found[0]
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen()
    except OSError:
        bound.close()
        raise
    return bound


def _text(bound: socket.socket) -> str:
    host, port = bound.getsockname()[:2]
    return f"[{host}]:{port}" if bound.family == socket.AF_INET6 else f"{host}:{port}"


def _note(path: Path, bound: socket.socket) -> None:
    temporary = path.with_name(f".{path.name}")
    temporary.write_text(_text(bound) + "\n", encoding="ascii")
    temporary.replace(path)
