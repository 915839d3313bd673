"""An HTTP/3 client by aioquic: `get(port, path, …)` sends one request after the other on one connection."""

import asyncio
import ssl
from collections.abc import Sequence
from typing import NamedTuple, cast

from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived, H3Event, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import QuicEvent

TIMEOUT_S = 20.0
Lines = list[tuple[bytes, bytes]]


class Got(NamedTuple):
    """A response."""

    status: int
    lines: Lines
    body: bytes

    def __getitem__(self, name: str) -> str:  # type: ignore[override]
        return next(value.decode("latin-1") for key, value in self.lines if key == name.encode())


class _Protocol(QuicConnectionProtocol):
    """One connection."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self._http = H3Connection(self._quic)
        self._waiting: dict[int, tuple[asyncio.Future[Got], Lines, list[bytes]]] = {}

    async def ask(self, lines: Lines, body: bytes) -> Got:
        stream = self._quic.get_next_available_stream_id()
        self._http.send_headers(stream, lines, end_stream=not body)
        if body:
            self._http.send_data(stream, body, end_stream=True)
        future = asyncio.get_running_loop().create_future()
        self._waiting[stream] = (future, [], [])
        self.transmit()
        return await asyncio.wait_for(future, TIMEOUT_S)

    def quic_event_received(self, event: QuicEvent) -> None:
        for found in self._http.handle_event(event):
            self._received(found)

    def _received(self, event: H3Event) -> None:
        if not isinstance(event, HeadersReceived | DataReceived):
            return
        future, lines, pieces = self._waiting[event.stream_id]
        if isinstance(event, HeadersReceived):
            lines += event.headers
        else:
            pieces.append(event.data)
        if event.stream_ended and not future.done():
            status = int(dict(lines)[b":status"])
            future.set_result(Got(status, [line for line in lines if not line[0].startswith(b":")], b"".join(pieces)))


def requests(port: int, *asked: tuple[str, str, Sequence[tuple[str, str]], bytes], authority: str) -> list[Got]:
    """The responses to requests, one after the other: method, path, fields, body."""

    async def run() -> list[Got]:
        configuration = QuicConfiguration(
            is_client=True, alpn_protocols=H3_ALPN, verify_mode=ssl.CERT_NONE, server_name=authority
        )
        async with connect("127.0.0.1", port, configuration=configuration, create_protocol=_Protocol) as client:
            protocol = cast("_Protocol", client)
            got = []
            for method, path, fields, body in asked:
                pseudo = {":method": method, ":scheme": "https", ":authority": authority, ":path": path}
                lines = [(name.encode(), value.encode()) for name, value in (*pseudo.items(), *fields)]
                got.append(await protocol.ask(lines, body))
            return got

    return asyncio.run(run())
