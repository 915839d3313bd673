"""What is cached, seen from outside: a worker answers questions about its hot memory and the store under it.

Each worker listens on a unix socket in the runtime directory, one question and one answer a connection, both JSON. Only
what no shared memory shows is asked for this way; counters are read from the ledgers. Nothing here changes what is
cached: looking at an entry does not count as using it.
"""

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import msgspec
import structlog

from edgeproxy.cache.entry import Entry
from edgeproxy.cache.purge import Purges
from edgeproxy.cache.store import Store, StoreStats
from edgeproxy.cache.stored import Stored

TIMEOUT_S = 2.0
"""How long a worker may take to answer."""
MAX_COPIES = 1000
"""How many responses of a tier one answer has."""
_LINE_BYTES = 256 * 1024
"""The longest question: a URL, as JSON."""
_SECOND_NS = 1_000_000_000

_log = structlog.get_logger()


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker is asked."""

    url: str = ""
    """The URL, as keyed, whose responses are asked for (Latin-1); "" for none."""
    store: bool = False
    """Whether the store is asked as well, which is the same for all workers."""
    now_ns: int = 0
    """The moment that ages count from: one for all who are asked, so that like answers are alike."""


class Copy(msgspec.Struct, frozen=True, kw_only=True):
    """A stored response as one tier has it; times in seconds."""

    url: str
    """As keyed."""
    key: str
    """What the primary key has beside the URL; "" when it is the URL alone."""
    vary: dict[str, str | None]
    """The request fields that select it, and their values there; None where the request had none."""
    status: int
    size_bytes: int
    """Of the body."""
    state: str
    """"fresh", "stale", "purged" (on its way out) or "not stored" (what is remembered is that responses are not)."""
    age_s: float
    fresh_s: float
    """For how long it will be fresh; negative since it has been stale."""
    stale_while_revalidate_s: float
    stale_if_error_s: float
    must_revalidate: bool
    etag: str | None
    last_modified: str | None
    tags: tuple[str, ...]
    filled_by: str
    """The traceparent of the attempt that fetched it."""
    origin: str
    stored: str
    """When it was stored or last freshened."""
    why: str
    """Why responses are not stored; "" where one is."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker says."""

    pid: int
    memory: tuple[Copy, ...] = ()
    store: tuple[Copy, ...] = ()
    more: int = 0
    """How many further responses there are, beyond `MAX_COPIES` of a tier."""
    stats: StoreStats | None = None
    """The store's; None when there is none, or it was not asked for."""


class Memory(Protocol):
    """Hot memory, as far as it is looked at."""

    def entries_of(self, url: bytes) -> list[Entry]:
        """What is stored for a URL as keyed."""


class Cache(Protocol):
    """A worker's cache, as far as it is looked at (`cache.tiers.Tiers`)."""

    @property
    def memory(self) -> Memory:
        """Its hot memory."""

    @property
    def store(self) -> Store | None:
        """What lies under it."""

    @property
    def purges(self) -> Purges:
        """The rules that hold for both."""


async def answer(question: Question, cache: Cache) -> Answer:
    """Look it up."""
    now_ns = question.now_ns
    store = cache.store if question.store else None
    url = question.url.encode("latin-1", "replace")
    in_memory = (
        [(entry.stored, len(entry.body), entry.purge_seq) for entry in cache.memory.entries_of(url)] if url else []
    )
    in_store = [(stored, size, stored.purge_seq) for stored, size in await store.show(url)] if url and store else []
    return Answer(
        pid=os.getpid(),
        memory=_copies(in_memory, cache.purges, now_ns),
        store=_copies(in_store, cache.purges, now_ns),
        more=max(0, len(in_memory) - MAX_COPIES) + max(0, len(in_store) - MAX_COPIES),
        stats=await store.status() if store else None,
    )


def _copies(found: Iterable[tuple[Stored, int, int]], purges: Purges, now_ns: int) -> tuple[Copy, ...]:
    newest = sorted(found, key=lambda one: -one[0].stored_ns)[:MAX_COPIES]
    return tuple(copy_of(stored, size, seq, purges, now_ns) for stored, size, seq in newest)


def copy_of(stored: Stored, size_bytes: int, purge_seq: int, purges: Purges, now_ns: int) -> Copy:
    """A stored response as it is shown, with what the purge rules after `purge_seq` say of it."""
    verdict = purges.check(stored.url, stored.tags, purge_seq)
    fresh_until_ns = stored.fresh_until_ns
    if verdict.stale_at_ns is not None:
        fresh_until_ns = min(fresh_until_ns, verdict.stale_at_ns)
    if verdict.purged:
        state = "purged"
    elif stored.uncacheable:
        state = "not stored"
    else:
        state = "fresh" if now_ns < fresh_until_ns else "stale"
    values = stored.variant.split(b"\x01") if stored.vary else []
    return Copy(
        url=_text(stored.url),
        key=_text(stored.key[len(stored.url) :].strip(b"\x00\x03")),
        vary={_text(name): _value(value) for name, value in zip(stored.vary, values, strict=False)},
        status=stored.status,
        size_bytes=size_bytes,
        state=state,
        age_s=_seconds(now_ns - stored.born_ns),
        fresh_s=_seconds(fresh_until_ns - now_ns),
        stale_while_revalidate_s=_seconds(stored.stale_while_revalidate_ns),
        stale_if_error_s=_seconds(stored.stale_if_error_ns),
        must_revalidate=stored.must_revalidate,
        etag=None if stored.etag is None else _text(stored.etag),
        last_modified=None if stored.last_modified is None else _text(stored.last_modified),
        tags=tuple(map(_text, stored.tags)),
        filled_by=stored.filled_by,
        origin=stored.origin,
        stored=datetime.fromtimestamp(stored.stored_ns / _SECOND_NS, UTC).isoformat(timespec="milliseconds"),
        why=stored.uncacheable,
    )


def _value(value: bytes) -> str | None:
    return None if value == b"\x02" else _text(value)


def _text(value: bytes) -> str:
    return value.decode("latin-1")


def _seconds(nanoseconds: int) -> float:
    return round(nanoseconds / _SECOND_NS, 3)


# The worker's side.


class Inspector:
    """A worker's socket, served by the worker's loop."""

    def __init__(self, runtime_dir: Path, index: int, cache: Cache) -> None:
        """Say where to listen and what to look at; nothing is opened yet."""
        self._runtime_dir = runtime_dir
        self._name = socket_name(index)
        self._cache = cache
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen, in place of a worker of this index before this one. A worker that can't still serves, and says so."""
        try:
            self._server = await asyncio.start_unix_server(self._serve, sock=self._bound(), limit=_LINE_BYTES)
        except OSError as error:
            _log.error("worker can't be asked what it has cached", socket=self._name, error=error.strerror)

    def close(self) -> None:
        """Answer no more. The socket's name may be another worker's by now, so it stays."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def _bound(self) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX)
        temporary = f".{self._name}-{os.getpid()}"
        try:
            with _folder(self._runtime_dir) as folder:
                listener.bind(f"{folder}/{temporary}")
                listener.listen()
            (self._runtime_dir / temporary).rename(self._runtime_dir / self._name)
        except OSError:
            listener.close()
            raise
        return listener

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                question = msgspec.json.decode(await reader.readline(), type=Question)
                writer.write(msgspec.json.encode(await answer(question, self._cache)) + b"\n")
                await writer.drain()
        except (OSError, ValueError, TimeoutError):  # whoever asked has gone, or asks what can't be understood
            pass
        finally:
            writer.close()


# The asking side.


def ask(runtime_dir: Path, index: int, question: Question, *, timeout_s: float = TIMEOUT_S) -> Answer | None:
    """Ask the worker of an index; None when it does not answer in time."""
    deadline = time.monotonic() + timeout_s
    received = bytearray()
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(timeout_s)
            with _folder(runtime_dir) as folder:
                client.connect(f"{folder}/{socket_name(index)}")
            client.sendall(msgspec.json.encode(question) + b"\n")
            while data := client.recv(1 << 16):
                received += data
                client.settimeout(max(0.001, deadline - time.monotonic()))
        return msgspec.json.decode(received, type=Answer)
    except (OSError, msgspec.DecodeError):
        return None


def socket_name(index: int) -> str:
    """The socket of the worker of an index, in the runtime directory."""
    return f"worker-{index}.sock"


@contextlib.contextmanager
def _folder(path: Path) -> Iterator[str]:
    """A short name for a directory: a unix socket's path has room for 107 bytes."""
    fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)
