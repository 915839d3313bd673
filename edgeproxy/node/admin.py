"""Where the admin API listens, within the scribe: an address of its own that clients should not reach.

An address that can't be bound is reported and tried again; the access log does not wait for it. What the API is made of
(`node.api`) is loaded when somebody first asks: a node's start, and the restart of a dead scribe, don't wait for that.
"""

import asyncio
import contextlib
import socket
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import structlog

from edgeproxy.config import split_address
from edgeproxy.node.drain import Drain
from edgeproxy.node.runtime import RuntimeDir

if TYPE_CHECKING:
    from types import ModuleType

    import uvicorn

RETRY_S = 2.0

_log = structlog.get_logger()


class Admin:
    """The API's life within the scribe's loop: `async with`."""

    def __init__(self, listen: str, runtime_dir: Path, drain: Drain) -> None:
        """Prepare to listen on `listen` ("host:port"); nothing is bound yet."""
        self._listen = listen
        self._address_file = RuntimeDir(runtime_dir).admin_address
        self._runtime_dir = runtime_dir
        self._drain = drain
        self._server: uvicorn.Server | None = None
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
        _log.info("admin API listens", address=_text(bound))
        with contextlib.closing(bound):
            await _somebody(bound)
            api = await asyncio.to_thread(_api)
            self._server = api.server(self._runtime_dir, self._drain)
            await self._server.serve(sockets=[bound])


async def _somebody(bound: socket.socket) -> None:
    """Wait until somebody connects."""
    loop = asyncio.get_running_loop()
    connects: asyncio.Future[None] = loop.create_future()

    def connected() -> None:
        if not connects.done():
            connects.set_result(None)

    loop.add_reader(bound, connected)
    try:
        await connects
    finally:
        loop.remove_reader(bound)


def _api() -> "ModuleType":
    from edgeproxy.node import api  # noqa: PLC0415

    return api


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
