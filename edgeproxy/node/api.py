"""The admin API's routes: how the node is, as JSON, its metrics for Prometheus, and purging.

- GET /status: `edgeproxy status --json`
- GET /healthz: 200 while a worker lives, 503 when none does
- GET /metrics: see docs/metrics.md
- GET /cache/stats, GET /cache/show?url=URL: `edgeproxy cache stats|show --json`
- POST /purge: `edgeproxy purge`, see docs/purge.md

Slow to import: a fifth of what all processes of a node need to start.
"""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from edgeproxy.node import cached
from edgeproxy.node.drain import Drain
from edgeproxy.node.errors import NodeError
from edgeproxy.node.metrics import Metrics
from edgeproxy.node.purging import PurgeError, Wanted, purge, running
from edgeproxy.node.status import read_status

MAX_BODY_BYTES = 1024 * 1024
"""The longest list of what to purge, as JSON."""
_JSON = "application/json"


def server(runtime_dir: Path, drain: Drain) -> uvicorn.Server:
    """A server of the API of the node whose ledgers `drain` has open."""
    return _Server(
        uvicorn.Config(
            build_app(runtime_dir, drain),
            lifespan="off",
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=1,
        )
    )


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
