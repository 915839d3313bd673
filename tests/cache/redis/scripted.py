"""A server that answers as it is told, in the test's own loop: for what no Redis does when one needs it."""

import asyncio
from collections.abc import Callable
from typing import Self

import hiredis

OK = b"+OK\r\n"
type Answer = Callable[[list[bytes]], bytes | None]


async def soon(condition: Callable[[], object], what: str, timeout_s: float = 20.0) -> None:
    """Let the loop run until a condition holds."""
    deadline = asyncio.get_running_loop().time() + timeout_s
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, f"waited in vain for {what}"
        await asyncio.sleep(0.002)


class Scripted:
    """Answers each command with what `answer` gives for it: bytes as they go out, or None for nothing."""

    def __init__(self, answer: Answer = lambda _: OK) -> None:
        """Prepare; the context listens."""
        self.answer = answer
        self.commands: list[list[bytes]] = []
        self.reads = 0
        """How many pieces came."""
        self.accepted = 0
        self.writers: list[asyncio.StreamWriter] = []
        self.port = 0
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        await self.listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def listen(self) -> None:
        """Begin, on the same port as before."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Close everything."""
        assert self._server
        self._server.close()
        for writer in self.writers:
            writer.transport.abort()
        self.writers.clear()
        await asyncio.sleep(0)

    def say(self, data: bytes) -> None:
        """Say something on the last connection."""
        self.writers[-1].write(data)

    def asked(self, name: bytes) -> int:
        """How often a command came."""
        return sum(command[0] == name for command in self.commands)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self.writers.append(writer)
        parser = hiredis.Reader()
        try:
            while data := await reader.read(65536):
                self.reads += 1
                parser.feed(data)
                while (command := parser.gets()) is not False:
                    self.commands.append(command)
                    said = self.answer(command)
                    if said is not None:
                        writer.write(said)
        except OSError:
            pass
        finally:
            writer.close()
