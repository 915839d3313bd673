"""The admin API, served by the scribe: how the node is, as JSON, its metrics for Prometheus, and purging.

For operators and monitoring, on an address of its own that clients should not reach. An address that can't be bound is
reported and tried again; the access log does not wait for it.

- GET /status: `edgeproxy status --json`
- GET /healthz: 200 while a worker lives, 503 when none does
- GET /metrics: see docs/metrics.md
- GET /cache/stats, GET /cache/show?url=URL: `edgeproxy cache stats|show --json`
- POST /purge: `edgeproxy purge`, see docs/purge.md
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec
import structlog
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from edgeproxy.config import split_address
from edgeproxy.node import cached
from edgeproxy.node.drain import Drain
from edgeproxy.node.errors import NodeError
from edgeproxy.node.metrics import Metrics
from edgeproxy.node.purging import PurgeError, Wanted, purge, running
from edgeproxy.node.runtime import RuntimeDir
from edgeproxy.node.status import read_status

RETRY_S = 2.0
MAX_BODY_BYTES = 1024 * 1024
"""The longest list of what to purge, as JSON."""
_JSON = "application/json"

_log = structlog.get_logger()


def build_app(runtime_dir: Path, drain: Drain) -> Starlette:
    """Build the API of the node whose ledgers `drain` has open."""
    metrics = Metrics(drain)

    async def status(_request: Request) -> Response:
        return _answer(lambda: read_status(runtime_dir))

    async def healthz(_request: Request) -> Response:
        alive = drain.has_living()
        log = "ok" if drain.health.is_well else "failing"
        return _json(200 if alive else 503, {"status": "ok" if alive else "no worker", "access_log": log})

    async def prometheus(request: Request) -> Response:
        body, content_type = metrics.render(request.headers.get("accept", ""))
        return Response(body, headers={"content-type": content_type})

    async def cache_stats(_request: Request) -> Response:
        return await run_in_threadpool(_answer, lambda: cached.stats(running(runtime_dir)))

    async def cache_show(request: Request) -> Response:
        url = request.query_params.get("url", "")
        return await run_in_threadpool(_answer, lambda: cached.show(running(runtime_dir), url))

    async def post_purge(request: Request) -> Response:
        # Of a type that no page in a browser can have sent here without being asked for first.
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _JSON:
            return _error(415, "content_type", f"what to purge is {_JSON}")
        try:
            wanted = msgspec.json.decode(await _body(request), type=Wanted)
        except ClientDisconnect:
            return Response(status_code=400)
        except OverflowError:
            return _error(413, "too_large", f"at most {MAX_BODY_BYTES} bytes at once")
        except msgspec.DecodeError as error:
            return _error(400, PurgeError.code, str(error))
        return await run_in_threadpool(_purge, runtime_dir, wanted)

    return Starlette(
        routes=[
            Route("/status", status),
            Route("/healthz", healthz),
            Route("/metrics", prometheus),
            Route("/cache/stats", cache_stats),
            Route("/cache/show", cache_show),
            Route("/purge", post_purge, methods=["POST"]),
        ],
    )


def _purge(runtime_dir: Path, wanted: Wanted) -> Response:
    """200 once every worker has confirmed, 202 when one has not by then."""
    try:
        outcome = purge(running(runtime_dir), wanted)
    except (NodeError, OSError) as error:
        return _failure(error)
    return _json(202 if outcome.late else 200, outcome)


def _answer(question: Callable[[], object]) -> Response:
    try:
        return _json(200, question())
    except (NodeError, OSError) as error:
        return _failure(error)


def _failure(error: NodeError | OSError) -> Response:
    if isinstance(error, PurgeError):
        return _error(400, error.code, str(error))
    return _error(503, error.code if isinstance(error, NodeError) else "os", str(error))


async def _body(request: Request) -> bytes:
    """The request's body. Raises OverflowError when it is too large."""
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_BODY_BYTES:
            raise OverflowError
    return bytes(body)


def _error(status: int, kind: str, message: str) -> Response:
    return _json(status, {"error": {"type": kind, "message": message}})


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
