"""A tick of the loop in three bursts: read what has come, do what it asks for, write what came of it.

The loop alone would alternate: read one connection, run Python for it, write to it, read the next. Each system call
leaves the processor's caches and branch predictors to the kernel, and an interpreter pays for that more than anything
else does: 55 µs of CPU a hit done alternately, 35 µs in bursts (32 connections, one core). So a connection's data waits
until all that are readable have been read, and what is written goes out when all of it is there; pieces for one
connection go out in one call.

Knows transports and when they are called; nothing of what is read or written.
"""

import asyncio
from collections.abc import Sequence
from typing import Protocol

JOINED_BYTES = 64 * 1024
"""Pieces up to this size in all are joined into one; copying less than that is cheaper than a longer system call."""

BULK_BYTES = 16 * 1024
"""After a read of this size a connection is not read again before that has been processed."""


class Reader(Protocol):
    """A connection, as far as the tick knows it."""

    transport: "Wire"

    def received(self, data: bytes) -> None:
        """Do what the data asks for."""


class Tick:
    """What waits for the present tick's second and third burst."""

    def __init__(self) -> None:
        """Wait for nothing yet."""
        self._answers: list[tuple[Reader, bytes]] = []
        self._requests: list[tuple[Reader, bytes]] = []
        self._unsent: list[Wire] = []
        self._scheduled = False

    def answered(self, reader: Reader, data: bytes) -> None:
        """Have an origin's data processed once everything readable is read.

        Before what clients sent: an origin that answers early closes its end, and more of the request's body, written
        to it first, would cost its answer.
        """
        self._answers.append((reader, data))
        self._wait(reader, data)

    def requested(self, reader: Reader, data: bytes) -> None:
        """Have a client's data processed once everything readable is read, and after what origins sent."""
        self._requests.append((reader, data))
        self._wait(reader, data)

    def settle(self, reader: Reader) -> None:
        """Process at once what a connection still has waiting: its end has come, and must not overtake its data."""
        if self._answers or self._requests:
            for waiting in (self._answers, self._requests):
                mine = [data for other, data in waiting if other is reader]
                waiting[:] = [item for item in waiting if item[0] is not reader]
                for data in mine:
                    _process(reader, data)

    def unsent(self, wire: "Wire") -> None:
        """Have a connection's pieces written at the end of this tick."""
        self._unsent.append(wire)
        if not self._scheduled:
            self._schedule()

    def _wait(self, reader: Reader, data: bytes) -> None:
        if len(data) >= BULK_BYTES:
            # The loop reads a fast sender's connection many times in a row, and what waits here can't be refused.
            reader.transport.hold()
        if not self._scheduled:
            self._schedule()

    def _schedule(self) -> None:
        self._scheduled = True
        asyncio.get_running_loop().call_soon(self._run)

    def _run(self) -> None:
        answers, self._answers = self._answers, []
        requests, self._requests = self._requests, []
        for reader, data in answers:
            _process(reader, data)
        for reader, data in requests:
            _process(reader, data)
        while self._unsent:
            unsent, self._unsent = self._unsent, []
            for wire in unsent:
                try:
                    wire.flush()
                except Exception as error:  # noqa: BLE001 nor may it keep the others' answers back
                    _report("what was written to a connection could not be sent", error)
                    wire.abort()
        self._scheduled = False
        if self._answers or self._requests:
            self._schedule()


def _process(reader: Reader, data: bytes) -> None:
    wire = reader.transport
    if wire.given_up:
        return
    try:
        reader.received(data)
    except Exception as error:  # noqa: BLE001 what one connection trips over must not take the others of its tick along
        _report("a connection's data could not be processed", error)
        wire.abort()
    if wire.held:
        wire.release()


def _report(message: str, error: Exception) -> None:
    asyncio.get_running_loop().call_exception_handler({"message": message, "exception": error})


class Wire:
    """A transport whose writes wait for the end of the tick; the rest goes straight through."""

    __slots__ = ("_eof", "_out", "_out_bytes", "_paused", "_tick", "_transport", "given_up", "held", "unsent_bytes")

    def __init__(self, tick: Tick, transport: asyncio.Transport) -> None:
        """Write to a transport that has just been made."""
        self._tick = tick
        self._transport = transport
        self._out: list[bytes | memoryview] = []
        self._out_bytes = 0
        self._eof = False
        self.given_up = False
        """Whether this side has closed the connection, or will when everything is sent: nothing more is read from
        it."""
        self._paused = False
        self.held = False
        """Whether the tick keeps the connection from being read, whatever its owner wants."""
        self.unsent_bytes = transport.get_write_buffer_size

    def pause_reading(self) -> None:
        """Read no more for now."""
        self._paused = True
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Read again."""
        self._paused = False
        if not self.held:
            self._transport.resume_reading()

    def hold(self) -> None:
        """Read no more until what was read is processed; the tick's call."""
        self.held = True
        self._transport.pause_reading()

    def release(self) -> None:
        """Read again, unless the owner has paused; the tick's call."""
        self.held = False
        if not self._paused and not self.given_up and not self._transport.is_closing():
            self._transport.resume_reading()

    def write(self, data: bytes) -> None:
        """Send a piece at the end of this tick."""
        out = self._out
        if not out and not self.given_up:
            self._tick.unsent(self)
        out.append(data)
        self._out_bytes += len(data)
        if self._out_bytes > JOINED_BYTES:
            self.flush()  # a client that pipelines must not have all its answers wait in memory

    def writelines(self, pieces: Sequence[bytes | memoryview]) -> None:
        """Send pieces at the end of this tick."""
        if not self._out and not self.given_up:
            self._tick.unsent(self)
        self._out.extend(pieces)
        self._out_bytes += sum(map(len, pieces))
        if self._out_bytes > JOINED_BYTES:
            self.flush()

    def write_eof(self) -> None:
        """Close the sending side once everything is sent."""
        self._eof = True
        if not self._out:
            self.flush()

    def close(self) -> None:
        """Close once everything is sent."""
        self.given_up = True
        if not self._out:
            self._transport.close()

    def abort(self) -> None:
        """Close at once; what was not sent is dropped."""
        self.given_up = True
        self._out.clear()
        self._transport.abort()

    def is_closing(self) -> bool:
        """Whether the connection is closed, or will be when everything is sent."""
        return self.given_up or self._transport.is_closing()

    def get_extra_info(self, name: str) -> object:
        """What the transport knows of itself."""
        return self._transport.get_extra_info(name)

    def flush(self) -> None:
        """Send what has been written; the tick's call."""
        out = self._out
        transport = self._transport
        if out:
            size = self._out_bytes
            self._out = []
            self._out_bytes = 0
            if transport.is_closing():
                return
            if len(out) == 1:
                transport.write(out[0])
            elif size <= JOINED_BYTES:
                transport.write(b"".join(out))
            else:
                transport.writelines(out)
        if self._eof:
            self._eof = False
            transport.write_eof()
        if self.given_up:
            transport.close()
