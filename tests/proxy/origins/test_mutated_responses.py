"""Good responses with a byte too many, too few or another one: the client gets what a strict reader makes of them, or
sees that it did not get it.
"""

import random
import re
import socket
from collections.abc import Iterator

import pytest

from tests.proxy.edges import Edge
from tests.support import Broken, Message, Response, raw, request
from tests.support.messages import Stream

GOOD = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\nX-A: b\r\n\r\nhello world",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nb;x=y\r\nhello world\r\n0\r\nX-T: 1\r\n\r\n",
    b"HTTP/1.0 200 OK\r\nX-A: b\r\n\r\nhello world",
    b"HTTP/1.1 103 Hints\r\nLink: x\r\n\r\nHTTP/1.1 404 No\r\nContent-Length: 2\r\n\r\nno",
]
BYTES = b"\x00\t\n\r :;,-+0159aAfFxz\x7f\xff"
ROUNDS = 150


@pytest.fixture(scope="module")
def edge() -> Iterator[Edge]:
    with Edge(app={}) as started:
        yield started


def mutated(dice: random.Random) -> bytes:
    """A good response with a few bytes inserted, taken out, replaced, doubled or cut off."""
    data = bytearray(dice.choice(GOOD))
    for _ in range(dice.choice([1, 1, 1, 2, 3])):
        at = dice.randrange(len(data))
        match dice.randrange(6):
            case 0:
                data.insert(at, dice.choice(BYTES))
            case 1:
                del data[at]
            case 2:
                data[at] = dice.choice(BYTES)
            case 3:
                data[at:at] = data[at : at + dice.randrange(1, 12)]
            case 4:
                del data[at : at + dice.randrange(1, 6)]
            case _:
                data[at:at] = dice.choice(
                    [b"\r\n", b"\r\n ", b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n"]
                )
        if not data:
            return b"x"
    return bytes(data)


def strictly(data: bytes) -> Message | None:
    """The final response that these bytes and a closed connection are; None when they are none.

    Two liberties change nothing about what a response says and are granted: empty lines before it, and no space behind
    its status where the reason is left out.
    """
    here, there = socket.socketpair()
    with here, there:
        there.sendall(data)
        there.shutdown(socket.SHUT_WR)
        stream = Stream(here)
        try:
            while True:
                while stream.more():
                    pass
                stream.buffer = stream.buffer.lstrip(b"\r\n")
                message = stream.message()
                status = _STATUS_LINE.fullmatch(message.start) if message else None
                if message is None or status is None or status[1] == b"101":
                    return None
                if int(status[1]) >= 200:
                    stream.response_body(message, int(status[1]), "GET")
                    return message
        except (Broken, ValueError):
            return None


_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-5][0-9][0-9])(?: [^\x00-\x08\x0a-\x1f\x7f]*)?")


@pytest.mark.parametrize("seed", range(3))
def test_a_client_gets_a_whole_good_response_or_none(edge: Edge, seed: int) -> None:
    dice = random.Random(seed)
    good = 0
    for _ in range(ROUNDS):
        data = mutated(dice)
        edge["app"].on("/app/x", raw(data, then="close"))
        expected = strictly(data)
        got: Response | None
        with edge.connect() as client:
            client.send(request("/app/x", method="POST"))
            try:
                got = client.response()
            except Broken:
                got = None
        if got is None or got.status == 502:
            continue
        assert expected is not None, data
        good += 1
        assert (got.status, got.body) == (int(expected.start[9:12]), expected.body), data
    assert good > ROUNDS / 10
