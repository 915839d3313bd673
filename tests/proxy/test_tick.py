"""What one connection trips over in a tick is its own affair."""

import asyncio
from typing import Any, cast

from edgeproxy.proxy.tick import Tick, Wire


class Transport:
    """A transport that keeps what is written, or can't take it."""

    def __init__(self, *, is_broken: bool = False) -> None:
        self.is_broken = is_broken
        self.is_aborted = False
        self.written = b""

    def write(self, data: bytes) -> None:
        if self.is_broken:
            raise RuntimeError("the handle is closed")
        self.written += data

    def abort(self) -> None:
        self.is_aborted = True

    def is_closing(self) -> bool:
        return self.is_aborted

    def get_write_buffer_size(self) -> int:
        return 0


async def test_a_connection_that_can_not_be_written_to_keeps_no_other_one_back() -> None:
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    tick = Tick()
    broken, sound = Transport(is_broken=True), Transport()
    wires = [Wire(tick, cast("asyncio.Transport", transport)) for transport in (broken, sound)]
    for data in (b"now", b" and later"):
        for wire in wires:
            wire.write(data)
        await asyncio.sleep(0)
    assert sound.written == b"now and later"
    assert broken.is_aborted
    assert len(reported) == 1
