"""One connection to a node, against a server that does what no Redis would: everyone who asks is answered once."""

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import hiredis
import pytest
import uvloop

from edgeproxy.cache.redis import link as module
from edgeproxy.cache.redis.commands import command
from edgeproxy.cache.redis.link import Link, NoAnswerError, Phase, RedisError
from tests.cache.redis.scripted import OK, Scripted, soon

TIMEOUT_S = 0.05
LONG_S = 30.0
GREETING = [command("HELLO", "3"), command("CLIENT", "TRACKING", "ON")]


class Linked:
    """A link, and all that it has said."""

    def __init__(self, server: Scripted) -> None:
        """To a server."""
        self.server = server
        self.ready = 0
        self.pushed: list[Any] = []
        self.lost: list[str] = []
        self.answers: dict[str, list[Any]] = {}
        self.timeouts = 0
        self.link: Link

    async def connect(self, timeout_s: float = TIMEOUT_S, *, is_refused: bool = False) -> "Linked":
        """Connect, and wait until it is ready or lost."""
        loop = asyncio.get_running_loop()
        made = lambda: Link(  # noqa: E731 a factory
            GREETING, timeout_s, self._ready, self.pushed.append, lambda _, error: self.lost.append(str(error))
        )
        _, self.link = await loop.create_connection(made, "127.0.0.1", self.server.port)
        self.link.timed_out = self._timed_out
        await soon(lambda: self.lost if is_refused else self.ready, "the greeting")
        return self

    def _ready(self, _: Link) -> None:
        self.ready += 1

    def _timed_out(self) -> None:
        self.timeouts += 1

    def ask(self, name: str, *, asking: bool = False, then: Callable[[Any], None] = lambda _: None) -> None:
        """Ask for something by its name, which the server may echo."""
        answers = self.answers.setdefault(name, [])

        def answered(reply: Any) -> None:
            answers.append(reply)
            then(reply)

        self.link.ask(command("ECHO", name), answered, asking=asking)

    async def all(self) -> dict[str, Any]:
        """Wait until everyone is answered, and a while for second answers; what they got."""
        await soon(lambda: all(self.answers.values()), f"answers {self.answers}")
        for _ in range(5):
            await asyncio.sleep(0)
        assert all(len(answers) == 1 for answers in self.answers.values()), self.answers
        return {
            name: type(answer) if isinstance(answer, RedisError) else answer for name, (answer,) in self.answers.items()
        }


def echo(words: list[bytes]) -> bytes | None:
    """Echo; say nothing to those who ask for nothing."""
    if words[0] != b"ECHO":
        return OK
    return None if words[1].startswith(b"nothing") else b"+%b\r\n" % words[1]


@pytest.fixture
async def server() -> AsyncIterator[Scripted]:
    async with Scripted(echo) as started:
        yield started


async def test_what_is_asked_in_one_tick_leaves_in_one_write(server: Scripted) -> None:
    linked = await Linked(server).connect(LONG_S)
    before = server.reads
    for name in "abcdef":
        linked.ask(name)
    assert await linked.all() == {name: name.encode() for name in "abcdef"}
    assert server.reads == before + 1


async def test_a_reply_that_comes_late_is_nobody_elses(server: Scripted) -> None:
    linked = await Linked(server).connect()
    linked.ask("nothing")
    started = time.monotonic()
    assert await linked.all() == {"nothing": NoAnswerError}
    assert TIMEOUT_S <= time.monotonic() - started < module.GREETING_S * 0.7, (
        "not when the greeting would have been late"
    )
    assert linked.timeouts == 1
    server.say(b"+too late\r\n")
    linked.ask("b")
    assert (await linked.all())["b"] == b"b"
    assert linked.link.phase is Phase.READY


async def test_asking_goes_before_every_part_and_its_replies_are_nobodys(server: Scripted) -> None:
    linked = await Linked(server).connect(LONG_S)
    two = (*command("ECHO", "x"), *command("ECHO", "y"))
    got: list[Any] = []
    linked.link.ask(two, got.append, asking=True)
    linked.ask("b", asking=True)
    assert (await linked.all())["b"] == b"b"
    assert got == [b"y"]
    asked = [words[-1] for words in server.commands[len(GREETING) :]]
    assert asked == [b"ASKING", b"x", b"ASKING", b"y", b"ASKING", b"b"]


async def test_the_first_error_of_several_parts_counts(server: Scripted) -> None:
    server.answer = lambda words: b"-OOM x\r\n" if words[-1] == b"x" else echo(words)
    linked = await Linked(server).connect(LONG_S)
    got: list[Any] = []
    linked.link.ask((*command("ECHO", "x"), *command("ECHO", "y")), got.append)
    linked.ask("b")
    assert (await linked.all())["b"] == b"b"
    assert [error.code for error in got] == ["OOM"]


async def test_whoever_fails_on_a_reply_harms_nobody_else(server: Scripted) -> None:
    def fail(_: object) -> None:
        raise RuntimeError("on purpose")

    def fail_as_redis(_: object) -> None:
        raise RedisError("on purpose")

    linked = await Linked(server).connect(LONG_S)
    linked.ask("a", then=fail)
    linked.ask("b", then=fail_as_redis)
    linked.ask("c")
    assert await linked.all() == {"a": b"a", "b": b"b", "c": b"c"}
    assert not linked.lost
    linked.ask("nothing", then=fail)
    linked.ask("nothing too")
    await soon(lambda: server.asked(b"ECHO") == 5, "all to be asked")
    linked.link.close()
    assert (await linked.all())["nothing too"] is NoAnswerError


async def test_whoever_is_told_of_a_time_out_may_ask_again(server: Scripted) -> None:
    linked = await Linked(server).connect()
    for number in range(3):
        linked.ask(f"nothing {number}", then=lambda _, number=number: linked.ask(f"again {number}"))
    await soon(lambda: "again 2" in linked.answers, "the time-outs")
    got = await linked.all()
    assert [got[f"nothing {number}"] for number in range(3)] == [NoAnswerError] * 3


async def test_whoever_is_told_of_a_time_out_may_close(server: Scripted) -> None:
    linked = await Linked(server).connect()
    for number in range(3):
        linked.ask(f"nothing {number}", then=lambda _: linked.link.close())
    assert set((await linked.all()).values()) == {NoAnswerError}
    assert len(linked.lost) == 1


async def test_a_lost_connection_answers_everyone_once(server: Scripted) -> None:
    linked = await Linked(server).connect(LONG_S)
    for number in range(5):
        linked.ask(f"nothing {number}", then=lambda _, number=number: linked.ask(f"again {number}"))
    await soon(lambda: server.asked(b"ECHO") == 5, "all to be asked")
    await server.stop()
    await soon(lambda: linked.lost, "the loss")
    assert len(await linked.all()) == 10
    assert linked.lost == ["the connection was lost"]


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_a_loop_that_stalls_is_no_time_out(run: Callable[[Any], None]) -> None:
    async def stall() -> None:
        async with Scripted(echo) as server:
            linked = await Linked(server).connect()
            linked.ask("a")
            time.sleep(4 * TIMEOUT_S)  # noqa: ASYNC251  before it is sent
            await asyncio.sleep(0)
            linked.ask("b")
            assert await linked.all() == {"a": b"a", "b": b"b"}

            assert linked.timeouts == 0

    run(stall())


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_what_came_while_the_loop_stalled_came_in_time(run: Callable[[Any], None]) -> None:
    """uvloop has timers before what has been received."""

    async def stall() -> None:
        loop = asyncio.get_running_loop()
        listener = socket.create_server(("127.0.0.1", 0))
        server = Scripted()
        server.port = listener.getsockname()[1]
        threading.Thread(target=serve, args=(listener,), daemon=True).start()
        linked = await Linked(server).connect()
        ours, theirs = socket.socketpair()
        with listener, ours, theirs:
            loop.add_reader(ours, lambda: (ours.recv(1), time.sleep(4 * TIMEOUT_S)))
            linked.ask("a")
            await asyncio.sleep(0)
            theirs.send(b"x")
            got = await linked.all()
            loop.remove_reader(ours)
            linked.link.close()
        assert got == {"a": b"a"}
        assert linked.timeouts == 0

    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        parser = hiredis.Reader()
        with connection:
            while data := connection.recv(65536):
                parser.feed(data)
                while (words := parser.gets()) is not False:
                    connection.sendall(echo(words) or b"")

    run(stall())


async def test_a_node_that_falls_silent_is_left(server: Scripted) -> None:
    linked = await Linked(server).connect()
    linked.ask("nothing")
    started = time.monotonic()
    await soon(lambda: linked.lost, "the link to give up")
    assert linked.lost == ["the node has stopped answering"]
    assert time.monotonic() - started >= module.DEAF_S
    linked.ask("b")
    assert (await linked.all())["b"] is NoAnswerError


async def test_what_redis_says_unasked_is_no_reply(server: Scripted) -> None:
    linked = await Linked(server).connect(LONG_S)
    linked.ask("nothing")
    await soon(lambda: server.asked(b"ECHO"), "it to be asked")
    server.say(b">2\r\n+invalidate\r\n*1\r\n$1\r\na\r\n+reply\r\n")
    assert await linked.all() == {"nothing": b"reply"}
    assert linked.pushed == [[b"invalidate", [b"a"]]]


@pytest.mark.parametrize(
    ("said", "why"),
    [
        pytest.param(b"HTTP/1.1 400 Bad Request\r\n\r\n", "does not speak RESP", id="another-protocol"),
        pytest.param(b"+one\r\n+two\r\n", "what nobody asked for", id="one-reply-more"),
    ],
)
async def test_a_server_that_makes_no_sense_is_left(server: Scripted, said: bytes, why: str) -> None:
    linked = await Linked(server).connect(LONG_S)
    linked.ask("nothing")
    await soon(lambda: server.asked(b"ECHO"), "it to be asked")
    server.say(said)
    await soon(lambda: linked.lost, "the link to give up")
    assert why in linked.lost[0]
    await linked.all()


async def test_a_greeting_that_is_refused_is_said(server: Scripted) -> None:
    server.answer = lambda words: b"-WRONGPASS no\r\n" if words[0] == b"HELLO" else OK
    linked = await Linked(server).connect(is_refused=True)
    assert linked.lost == ["WRONGPASS no"]
    assert linked.ready == 0


async def test_a_greeting_without_an_answer_ends(server: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GREETING_S", 0.05)
    server.answer = lambda _: None
    linked = await Linked(server).connect(is_refused=True)
    assert linked.lost == ["it does not answer its greeting"]
    assert linked.ready == 0


async def test_too_many_are_refused_and_not_queued(server: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_WAITING", 3)
    linked = await Linked(server).connect()
    for number in range(5):
        linked.ask(f"nothing {number}")
    assert linked.answers == {f"nothing {number}": [] for number in range(5)}, "nobody is answered as it asks"
    assert linked.link.waiting == 3
    got = await linked.all()
    assert set(got.values()) == {NoAnswerError}
    assert "too much waits" in str(linked.answers["nothing 4"][0])
