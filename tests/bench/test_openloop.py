import asyncio
import threading
from collections.abc import Iterator

import pytest

from bench.openloop import Generator, answer_size, percentile, varied

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
STALL_SECONDS = 0.3


class StallingServer:
    """Answers at once, but for one request after which it stalls: every later one waits."""

    def __init__(self, stall_at: int) -> None:
        self.requests = 0
        self.stall_at = stall_at
        self.ready = threading.Event()
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.serve)
        self.port = 0

    def serve(self) -> None:
        async def main() -> None:
            server = await asyncio.start_server(self.answer, "127.0.0.1", 0)
            self.port = server.sockets[0].getsockname()[1]
            self.ready.set()
            self.stopped = asyncio.Event()
            await self.stopped.wait()
            server.close()
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()

        self.loop.run_until_complete(main())
        self.loop.run_until_complete(asyncio.sleep(0))
        self.loop.close()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                self.requests += 1
                if self.requests == self.stall_at:
                    threading.Event().wait(STALL_SECONDS)  # the whole loop, not this connection alone
                writer.write(ANSWER)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            writer.close()


@pytest.fixture
def stalling() -> Iterator[StallingServer]:
    server = StallingServer(stall_at=50)
    server.thread.start()
    assert server.ready.wait(10)
    yield server
    server.loop.call_soon_threadsafe(server.stopped.set)
    server.thread.join(10)


@pytest.mark.parametrize(
    ("share", "value"), [(0.5, 50.0), (0.99, 99.0), (0.999, 100.0), (1.0, 100.0), (0.0, 1.0)], ids=str
)
def test_percentiles_are_values_that_were_seen(share: float, value: float) -> None:
    assert percentile([float(n) for n in range(1, 101)], share) == value
    assert percentile([], share) == 0.0


@pytest.mark.parametrize(
    ("received", "size"),
    [
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Le", None, id="head-incomplete"),
        pytest.param(ANSWER, len(ANSWER), id="whole"),
        pytest.param(ANSWER[:-1], len(ANSWER), id="body-incomplete"),
        pytest.param(b"HTTP/1.1 200 OK\r\ncontent-length:7\r\nx: y\r\n\r\n", 50, id="any-case"),
    ],
)
def test_the_size_of_an_answer_is_known_with_its_head(received: bytes, size: int | None) -> None:
    assert answer_size(received) == size


def test_an_answer_of_unknown_length_is_refused() -> None:
    with pytest.raises(ValueError, match="Content-Length"):
        answer_size(b"HTTP/1.1 200 OK\r\n\r\n")


def test_a_stall_is_counted_for_every_request_that_was_due_during_it(stalling: StallingServer) -> None:
    generator = Generator(stalling.port, "/", rate=200, connections=2)
    tally = generator.run(1.0)
    assert tally.failed == 0
    assert len(tally.latencies) == 200
    # A closed loop on two connections would show two slow requests; 60 were due in those 0.3 s, half in the first half.
    assert sum(latency > STALL_SECONDS / 2 for latency in tally.latencies) >= 25


def test_urls_that_vary_differ_in_their_query() -> None:
    assert varied("/hit", 0) == ["/hit"]
    assert varied("/hit", 2) == ["/hit?0", "/hit?1"]


def test_a_summary_counts_in_milliseconds(stalling: StallingServer) -> None:
    generator = Generator(stalling.port, "/", rate=100, connections=2)
    told = generator.run(0.2).summary(100)
    assert told["requests"] == 20
    assert told["asked_rate"] == 100
    assert 0 < told["p50"] <= told["p99"] <= told["max"] < 10_000
