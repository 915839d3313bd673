"""How a node is, read from what its processes share: control page, ledgers, runtime directory.

Asks no process anything, so it works whatever is dead, slow or stuck; it only looks and changes nothing. How it is
shown is the command's and the admin API's business.
"""

import contextlib
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

import edgeproxy
from edgeproxy.config.sampling import SamplingRule
from edgeproxy.export.counts import Counts, read_counts
from edgeproxy.ledger import Counter, LedgerError, LedgerReader, OpenSlot, Totals, ledger_files
from edgeproxy.ledger.record import known_fields
from edgeproxy.node.control import Control, ControlWord, Description
from edgeproxy.node.errors import ControlPageError, NotRunningError
from edgeproxy.node.runtime import RuntimeDir
from edgeproxy.node.strategies import RemoteState, read_state
from edgeproxy.node.tracing import read_settings

OLDEST = 20
"""How many of the requests in flight are shown, oldest first."""


class RemoteStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Where sampling strategies are polled from, and what came of it."""

    url: str
    in_force: bool
    """Whether there has been a good answer, which decides until there is another one."""
    fetched: str
    """When that was confirmed last; "" if it never was."""
    error: str
    """What the last attempt came to; "" if it was good."""
    failing_since: str


class TracingStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The tracing settings that the supervisor put up; `tracing.sampling` says what they mean."""

    enabled: bool
    sampler: str
    ratio: float
    epoch: int
    exporters: tuple[str, ...] = ()
    rules: tuple[SamplingRule, ...] = ()
    max_per_second: float = 0.0
    errors: bool = False
    slow_ms: float = 0.0
    adaptive_target: float = 0.0
    adaptive_floor: float = 0.0
    remote: RemoteStatus | None = None
    """None where no strategies are polled."""


class StoreStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A store on other hosts (Redis), as a worker sees it."""

    nodes: int
    nodes_well: int
    """Those that answer."""
    usable: bool
    """Whether what is found may be used: the purge rules are known."""
    operations: int
    failures: int
    """Operations that came to nothing: no answer in time, or an error."""
    dropped: int
    """Responses that could not be stored."""
    damaged: int
    """Values found there that were not as they should be."""
    breaks: int
    """How often a node was given a rest."""


class ScriptStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What operators' scripts did and failed to do, in all workers since the node's first."""

    flows: int
    """Requests that they saw."""
    errors: int
    """Hooks that failed."""
    timeouts: int
    """Those of them that took too long."""
    blocks: int
    """Hooks that kept their worker from everything else for more than 50 ms."""
    loads: int
    load_failures: int


class WorkerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One worker process, as its ledger shows it."""

    index: int
    pid: int
    state: str
    """"serving", "draining" (takes no new connections), "orphaned" (of a supervisor before this one) or "dead" (its
    ledger is not yet finished)."""
    generation: int
    """Generation of the configuration that it runs."""
    started: str
    tracing: bool
    """Whether it traces."""
    epoch: int
    """The control page's epoch that it acts on."""
    confirmed: bool
    """Whether that is the latest."""
    purge_seq: int
    """The last purge rule that it acts on."""
    in_flight: int
    connections: int
    requests: int
    ledger_bytes: int
    """Bytes of finished records that wait for the scribe."""
    ledger_share: float
    """The same as a share of the ring, 0 to 1."""
    ring_full: int
    """Records that went past the full ring straight to the log."""
    lines_lost: int
    """Records that neither ring nor log took."""
    store: StoreStatus | None
    """None where responses are kept on this host, or no node of the store is known yet."""


class RequestStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A request in flight."""

    worker: int
    seq: int
    stage: str
    age_ms: float | None
    trace_id: str
    client: str
    method: str
    host: str
    path: str


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """A running node."""

    version: str
    """Of the program that reads, not of the one that runs."""
    node: str
    state: str
    """"starting", "running", "reloading" or "stopping"."""
    supervisor_pid: int
    scribe_pid: int
    """0 while there is none."""
    started: str
    generation: int
    listen: tuple[str, ...]
    admin: str
    """Where the admin API listens; "" when it is off or does not."""
    config: str
    env_file: str
    access_log: str
    runtime_dir: str
    tracing: TracingStatus
    workers_wanted: int
    workers: tuple[WorkerStatus, ...]
    in_flight: int
    requests: tuple[RequestStatus, ...]
    """The oldest requests in flight."""
    worker_restarts: int
    scribe_restarts: int
    refused: int
    """Reloads and changes of the environment file that were refused."""
    last_error: str
    export: tuple[Counts, ...] = ()
    """What became of the spans, by exporter."""
    spans_unseen: int = 0
    """Spans of records that workers wrote to the log themselves: nobody exports them."""
    scripts: ScriptStatus | None = None
    """None where the workers have none."""


def read_control(runtime: RuntimeDir) -> Control:
    """Open a running node's control page. Raises NotRunningError, ControlPageError or OSError."""
    if not runtime.is_held():
        raise NotRunningError(f"no node runs on {runtime.path}")
    try:
        return Control.open(runtime.control)
    except FileNotFoundError:
        raise NotRunningError(f"the node on {runtime.path} is just starting or stopping") from None


def read_status(runtime_dir: Path, *, oldest: int = OLDEST) -> Status:
    """Read how the node on `runtime_dir` is, with up to `oldest` of its requests in flight.

    Raises NotRunningError when there is none, another NodeError or OSError when it can't be read.
    """
    runtime = RuntimeDir(runtime_dir)
    with contextlib.closing(read_control(runtime)) as control:
        workers: list[WorkerStatus] = []
        slots: list[tuple[int, OpenSlot]] = []
        for path in ledger_files(runtime_dir):
            with contextlib.suppress(OSError, LedgerError), contextlib.closing(_open(path)) as ledger:
                workers.append(_worker(ledger, control))
                slots += [(ledger.worker, slot) for slot in ledger.open_slots()]
        now = datetime.now(UTC)
        requests = sorted((_request(worker, slot, now) for worker, slot in slots), key=lambda one: -(one.age_ms or 0))
        workers.sort(key=lambda worker: (worker.index, worker.started))
        return _status(runtime, control, control.describe(), tuple(workers), len(slots), tuple(requests[:oldest]))


def _counted(runtime_dir: Path) -> tuple[list[int], bool]:
    """What all workers counted, those included whose ledgers are gone; whether those that are there have scripts."""
    totals = Totals.load(runtime_dir)
    counted = [totals.of(worker) for worker in totals.workers]
    have_scripts = False
    for path in ledger_files(runtime_dir):
        with contextlib.suppress(OSError, LedgerError), contextlib.closing(_open(path)) as ledger:
            counters = list(ledger.counters)
            counted.append(counters)
            have_scripts |= bool(counters[Counter.SCRIPT_LOADS] or counters[Counter.SCRIPT_LOAD_FAILURES])
    return [sum(column) for column in zip([0] * len(Counter), *counted, strict=False)], have_scripts


def _open(path: Path) -> LedgerReader:
    return LedgerReader.open(path, writable=False)


def _status(
    runtime: RuntimeDir,
    control: Control,
    described: Description,
    workers: tuple[WorkerStatus, ...],
    in_flight: int,
    requests: tuple[RequestStatus, ...],
) -> Status:
    words = control.words
    counted, have_scripts = _counted(runtime.path)
    return Status(
        version=edgeproxy.__version__,
        node=described.node,
        state=control.state.name.lower(),
        supervisor_pid=words[ControlWord.SUPERVISOR_PID],
        scribe_pid=words[ControlWord.SCRIBE_PID],
        started=_time(words[ControlWord.STARTED]),
        generation=control.generation,
        listen=described.listen,
        admin=_admin(runtime) if described.admin else "",
        config=described.config,
        env_file=described.env_file,
        access_log=described.access_log,
        runtime_dir=str(runtime.path),
        tracing=_tracing(runtime, control),
        workers_wanted=words[ControlWord.WORKERS],
        workers=workers,
        in_flight=in_flight,
        requests=requests,
        worker_restarts=words[ControlWord.WORKER_RESTARTS],
        scribe_restarts=words[ControlWord.SCRIBE_RESTARTS],
        refused=words[ControlWord.RELOAD_ERRORS],
        last_error=described.last_error,
        export=read_counts(runtime.path),
        spans_unseen=counted[Counter.SPANS_UNSEEN],
        scripts=_scripts(counted) if have_scripts else None,
    )


def _tracing(runtime: RuntimeDir, control: Control) -> TracingStatus:
    try:
        epoch, settings = read_settings(runtime, control)
    except ControlPageError:  # it is just ending: what the page itself says is all there is
        page = control.tracing()
        return TracingStatus(enabled=page.enabled, sampler=page.sampler.word, ratio=page.ratio, epoch=control.epoch)
    sampling = settings.sampling
    return TracingStatus(
        enabled=settings.enabled,
        sampler=settings.sampler,
        ratio=settings.ratio,
        epoch=epoch,
        exporters=settings.exporters,
        rules=tuple(sampling.rules),
        max_per_second=sampling.max_per_second,
        errors=sampling.errors,
        slow_ms=sampling.slow_ms,
        adaptive_target=sampling.adaptive_target,
        adaptive_floor=sampling.adaptive_floor,
        remote=_remote(runtime, sampling.remote_url, in_force=bool(settings.strategies)),
    )


def _remote(runtime: RuntimeDir, url: str, *, in_force: bool) -> RemoteStatus | None:
    if not url:
        return None
    state = read_state(runtime.strategies)
    known = state if state.url == url else RemoteState()
    return RemoteStatus(
        url=url, in_force=in_force, fetched=known.fetched, error=known.error, failing_since=known.failing_since
    )


def _state(ledger: LedgerReader, control: Control) -> str:
    # The scribe takes a dead worker's lock over: that its process is gone tells the same.
    if ledger.owner_is_dead() or not _is_alive(ledger.pid):
        return "dead"
    if ledger.started_ns < control.words[ControlWord.STARTED]:
        return "orphaned"
    return "draining" if ledger.is_draining else "serving"


def _worker(ledger: LedgerReader, control: Control) -> WorkerStatus:
    counters = ledger.counters
    return WorkerStatus(
        index=ledger.worker,
        pid=ledger.pid,
        state=_state(ledger, control),
        generation=ledger.generation,
        started=_time(ledger.started_ns),
        tracing=ledger.acknowledged_tracing,
        epoch=ledger.acknowledged_epoch,
        confirmed=ledger.acknowledged_epoch == control.epoch,
        purge_seq=ledger.acknowledged_purge,
        in_flight=ledger.in_flight,
        connections=counters[Counter.CONNECTIONS_OPEN],
        requests=counters[Counter.REQUESTS],
        ledger_bytes=ledger.fill,
        ledger_share=round(ledger.fill_share, 6),
        ring_full=counters[Counter.RING_FULL],
        lines_lost=counters[Counter.LINES_LOST],
        store=_store(counters),
    )


def _store(counters: Sequence[int]) -> StoreStatus | None:
    if not counters[Counter.STORE_NODES]:
        return None
    return StoreStatus(
        nodes=counters[Counter.STORE_NODES],
        nodes_well=counters[Counter.STORE_NODES_WELL],
        usable=bool(counters[Counter.STORE_USABLE]),
        operations=counters[Counter.STORE_OPERATIONS],
        failures=counters[Counter.STORE_FAILURES],
        dropped=counters[Counter.STORE_DROPPED],
        damaged=counters[Counter.STORE_DAMAGED],
        breaks=counters[Counter.STORE_BREAKS],
    )


def _scripts(counters: Sequence[int]) -> ScriptStatus:
    return ScriptStatus(
        flows=counters[Counter.SCRIPT_FLOWS],
        errors=counters[Counter.SCRIPT_ERRORS],
        timeouts=counters[Counter.SCRIPT_TIMEOUTS],
        blocks=counters[Counter.SCRIPT_BLOCKS],
        loads=counters[Counter.SCRIPT_LOADS],
        load_failures=counters[Counter.SCRIPT_LOAD_FAILURES],
    )


def _request(worker: int, slot: OpenSlot, now: datetime) -> RequestStatus:
    known = known_fields(slot.text)

    def text(name: str) -> str:
        return str(known.get(name) or "")

    return RequestStatus(
        worker=worker,
        seq=slot.seq,
        stage=slot.stage.word,
        age_ms=_age_ms(text("ts"), now),
        trace_id=text("trace_id"),
        client=text("client"),
        method=text("method"),
        host=text("host"),
        path=text("path"),
    )


def _age_ms(since: str, now: datetime) -> float | None:
    try:
        return max(0.0, round((now - datetime.fromisoformat(since)).total_seconds() * 1000, 1))
    except (TypeError, ValueError):
        return None


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _admin(runtime: RuntimeDir) -> str:
    try:
        return runtime.admin_address.read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _time(nanoseconds: int) -> str:
    return datetime.fromtimestamp(nanoseconds / 1e9, UTC).isoformat(timespec="milliseconds")
