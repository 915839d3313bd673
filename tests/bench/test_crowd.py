import socket
import threading
import time
import zlib
from collections.abc import Iterator

import pytest

from bench.crowd import Client, Crowd, summary
from bench.servers.slow import BODY_SECONDS, HEAD_SECONDS, SlowObjects

BODY = bytes(range(256)) * 40


@pytest.fixture
def slow() -> Iterator[SlowObjects]:
    objects = SlowObjects(BODY)
    objects.start()
    yield objects
    objects.stop()


def client() -> Client:
    return Client(socket.socket())


def test_an_answer_is_whole_when_all_of_its_body_has_come_in_whatever_pieces() -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123456789"
    for size in (1, 7, len(answer)):
        one = client()
        pieces = [answer[at : at + size] for at in range(0, len(answer), size)]
        assert [one.take(piece) for piece in pieces] == [False] * (len(pieces) - 1) + [True]
        assert one.checksum == zlib.crc32(b"0123456789")


@pytest.mark.parametrize(
    "received",
    [
        pytest.param(b"", id="closed"),
        pytest.param(b"HTTP/1.1 504 Gateway Timeout\r\nContent-Length: 0\r\n\r\n", id="status"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nab", id="too-long"),
    ],
)
def test_what_is_no_good_answer_is_an_error(received: bytes) -> None:
    with pytest.raises(ValueError):
        client().take(received)


def test_all_of_a_crowd_are_answered_after_the_time_that_the_object_takes(slow: SlowObjects) -> None:
    crowd = Crowd(slow.port, 20)
    seconds = crowd.ask(b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n", zlib.crc32(BODY), 20)
    assert (len(crowd.latencies), crowd.failed, crowd.unanswered) == (20, 0, 0)
    assert HEAD_SECONDS + BODY_SECONDS <= min(crowd.latencies) <= max(crowd.latencies) <= seconds


def test_another_body_is_a_failure(slow: SlowObjects) -> None:
    crowd = Crowd(slow.port, 2)
    crowd.ask(b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n", zlib.crc32(BODY[1:]), 20)
    assert (len(crowd.latencies), crowd.failed, crowd.unanswered) == (0, 2, 0)


def test_who_waits_too_long_is_counted_and_who_is_refused_has_failed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def refuse_the_first() -> None:
            listener.accept()[0].close()

        crowd = Crowd(listener.getsockname()[1], 2)
        thread = threading.Thread(target=refuse_the_first)
        thread.start()
        began = time.perf_counter()
        crowd.ask(b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n", 0, 0.5)
        thread.join()
        assert (len(crowd.latencies), crowd.failed, crowd.unanswered) == (0, 1, 1)
        assert time.perf_counter() - began < 5


def test_percentiles_are_in_milliseconds() -> None:
    assert summary([0.003, 0.001, 0.002]) == {"p50": 2.0, "p90": 3.0, "p99": 3.0, "max": 3.0}
