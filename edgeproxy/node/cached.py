"""What a node has cached: figures from the workers' ledgers, stored responses from the workers themselves.

Puts together for the command line and the admin API what `inspect` gets from each worker. The store is the same for all
of them, so the first that uses it is asked for it: a worker may have to do without.
"""

import contextlib
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from edgeproxy.cache.store import StoreStats
from edgeproxy.ledger import Counter, LedgerError, LedgerReader, ledger_files
from edgeproxy.node.inspect import Answer, Copy, Question, ask
from edgeproxy.node.purging import Place, keyed_urls, open_log
from edgeproxy.node.status import WorkerStatus, read_status
from edgeproxy.proxy.routing import Routes

_PREFIX = "CACHE_"
_GAUGES = {Counter.CACHE_BYTES, Counter.CACHE_ENTRIES, Counter.CACHE_EVICTIONS}
RESULTS = tuple(counter for counter in Counter if counter.name.startswith(_PREFIX) and counter not in _GAUGES)
"""What requests found in the cache, as counted."""


class WorkerCache(msgspec.Struct, frozen=True, kw_only=True):
    """One worker's cache."""

    worker: int
    pid: int
    memory_entries: int
    memory_bytes: int
    evictions: int
    """From its hot memory, since it started."""
    purge_seq: int
    """The last purge rule that it acts on."""
    requests: dict[str, int]
    """How many requests found what, since it started: hit, miss, …"""


class CacheStats(msgspec.Struct, frozen=True, kw_only=True):
    """A node's cache."""

    kind: str
    """Where it keeps responses: cache.store."""
    memory_capacity_bytes: int
    """Of each worker's hot memory."""
    store: StoreStats | None
    """None with none under the workers' memory, and when no worker that uses it answers."""
    purge_seq: int
    """Number of the last purge rule; 0 when nothing was ever purged."""
    workers: tuple[WorkerCache, ...]


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """A stored response, and where it is."""

    tiers: tuple[str, ...]
    """"memory of worker N", "store"."""
    copy: Copy


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """What is stored for a URL."""

    url: str
    """As asked for."""
    keyed: tuple[str, ...]
    """As stored."""
    found: tuple[Kept, ...]
    more: int
    """How many further responses there are that are not shown."""
    silent: tuple[int, ...]
    """Indices of the workers that did not answer; what they have is not here."""


def stats(place: Place) -> CacheStats:
    """Read how a running node's cache is. Raises NodeError or OSError."""
    runtime_dir = place.runtime.path
    workers = _serving(runtime_dir)
    asked = workers if place.config.cache.store != "memory" else []
    answers = (ask(runtime_dir, worker.index, Question(store=True)) for worker in asked)
    store = next((one.stats for one in answers if one is not None and one.stats is not None), None)
    cache = place.config.cache
    if cache.store == "redis":
        seq = max((worker.purge_seq for worker in workers), default=0)
    else:
        with contextlib.closing(open_log(place.log)) as log:
            seq = log.seq
    return CacheStats(
        kind=cache.store,
        memory_capacity_bytes=cache.memory_bytes,
        store=store,
        purge_seq=seq,
        workers=tuple(_worker_caches(runtime_dir, {worker.pid for worker in workers})),
    )


def show(place: Place, url: str) -> Shown:
    """Look up what a running node has stored for a URL. Raises PurgeError when it is none, NodeError or OSError."""
    keyed = [one.decode("latin-1") for one in keyed_urls(Routes(place.config), url)]
    now_ns = time.time_ns()
    found = _Found()
    silent = []
    runtime_dir = place.runtime.path
    asks_store = True
    for worker in _serving(runtime_dir):
        questions = [Question(url=one, store=asks_store, now_ns=now_ns) for one in keyed]
        answers = _answers(runtime_dir, worker.index, questions)
        if answers is None:
            silent.append(worker.index)
            continue
        for answer in answers:
            found.add(answer, worker.index)
            asks_store = asks_store and answer.stats is None
    return Shown(url=url, keyed=tuple(keyed), found=found.kept(), more=found.more, silent=tuple(silent))


def _answers(runtime_dir: Path, index: int, questions: Iterable[Question]) -> list[Answer] | None:
    """What a worker says; None when it leaves a question unanswered."""
    answers = []
    for question in questions:
        answer = ask(runtime_dir, index, question)
        if answer is None:
            return None
        answers.append(answer)
    return answers


class _Found:
    """Copies that are the same in several tiers, put together."""

    def __init__(self) -> None:
        self.more = 0
        self._tiers: dict[bytes, list[str]] = {}
        self._copies: dict[bytes, Copy] = {}

    def add(self, answer: Answer, worker: int) -> None:
        for tier, copies in ((f"memory of worker {worker}", answer.memory), ("store", answer.store)):
            for copy in copies:
                name = msgspec.json.encode(copy)
                self._tiers.setdefault(name, []).append(tier)
                self._copies[name] = copy
        self.more += answer.more

    def kept(self) -> tuple[Kept, ...]:
        return tuple(Kept(tiers=tuple(self._tiers[name]), copy=copy) for name, copy in self._copies.items())


def _serving(runtime_dir: Path) -> list[WorkerStatus]:
    """The workers that can be asked."""
    return [worker for worker in read_status(runtime_dir, oldest=0).workers if worker.state == "serving"]


def _worker_caches(runtime_dir: Path, pids: set[int]) -> Iterator[WorkerCache]:
    for path in ledger_files(runtime_dir):
        with (
            contextlib.suppress(OSError, LedgerError),
            contextlib.closing(LedgerReader.open(path, writable=False)) as ledger,
        ):
            if ledger.pid not in pids:
                continue
            counters = ledger.counters
            yield WorkerCache(
                worker=ledger.worker,
                pid=ledger.pid,
                memory_entries=counters[Counter.CACHE_ENTRIES],
                memory_bytes=counters[Counter.CACHE_BYTES],
                evictions=counters[Counter.CACHE_EVICTIONS],
                purge_seq=ledger.acknowledged_purge,
                requests={result.name.removeprefix(_PREFIX).lower(): counters[result] for result in RESULTS},
            )
