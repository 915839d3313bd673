"""A worker: one process, one event loop, one core of the data plane.

Puts the pipeline, its ledger and the control page together and lives by the supervisor's word: it serves the socket it
was given, drains on SIGTERM, and drains and goes when its supervisor is gone. Knows processes and signals; what happens
to a request is `proxy`'s business.
"""

import argparse
import asyncio
import gc
import os
import signal
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
import uvloop

from edgeproxy.cache import HotMemory
from edgeproxy.cache.claims import Claims
from edgeproxy.cache.embedded import EmbeddedStore, StoreError
from edgeproxy.cache.purge_log import PurgeLog
from edgeproxy.cache.store import Store
from edgeproxy.cache.tiers import Tiers
from edgeproxy.config import Config, TracingSettings
from edgeproxy.ledger import Counter, LedgerWriter
from edgeproxy.logging import AppendSink
from edgeproxy.logging.app import configure
from edgeproxy.node.control import Control, ControlWord
from edgeproxy.node.errors import ControlPageError
from edgeproxy.node.frames import in_one_piece
from edgeproxy.node.inspect import Inspector
from edgeproxy.node.runtime import RuntimeDir
from edgeproxy.node.storage import storage_paths
from edgeproxy.node.tracing import read_settings
from edgeproxy.node.workers import worker_count
from edgeproxy.proxy.http1 import factory
from edgeproxy.proxy.pipeline import Pipeline
from edgeproxy.proxy.sampling import Policies, State
from edgeproxy.tracing import IdSource
from edgeproxy.tracing.marked import exported_lines, span_count

if TYPE_CHECKING:
    from edgeproxy.scripting.host import ScriptHost

HOUSEKEEPING_S = 0.1
"""How often an idle worker looks at the control page, in seconds; a busy one does with each request."""
PIPELINED_SLOTS = 1024
"""Ledger slots beyond one a connection, for pipelined requests that wait their turn."""
GC_THRESHOLD = 50_000
"""Requests leave no cycles behind; the default threshold would have the collector look for some 100 times a second."""


class PageSettings:
    """The control page and the settings that belong to it, as the request path sees them."""

    def __init__(self, control: Control, runtime: RuntimeDir, policies: Policies) -> None:
        """Read from an open page, and the directory that it is in, for a worker's `policies`."""
        self._policies = policies
        self._control = control
        self._runtime = runtime
        self._last = TracingSettings(enabled=False, sampler="parentbased_always_off", ratio=0.0)
        self.epoch = control.words[ControlWord.EPOCH : ControlWord.EPOCH + 1]

    def read(self) -> tuple[int, State]:
        """The tracing settings and the epoch that they are of. Where they can't be read, the last ones hold."""
        try:
            epoch, self._last = read_settings(self._runtime, self._control)
        except ControlPageError as error:
            epoch = self.epoch[0]
            structlog.get_logger().error("tracing_settings_unreadable", error=str(error), epoch=epoch)
        return epoch, self._policies.of(self._last)


class Worker:
    """The process's parts, from socket to ledger."""

    def __init__(self, index: int, generation: int, config: Config, runtime_dir: Path, listener: socket.socket) -> None:
        """Take what the supervisor hands over. Raises OSError when the ledger can't be made or a file can't be read."""
        self._config = config
        self._listener = listener
        self._supervisor = os.getppid()
        control = Control.open(runtime_dir / "control")
        limits = config.limits
        self._ledger = LedgerWriter.create(
            runtime_dir,
            index,
            generation,
            slots=limits.connections + PIPELINED_SLOTS,
            ring_bytes=config.node.ledger_bytes,
        )
        self._append = AppendSink(config.log.access, config.log.format).append
        self._ledger.overflow = self._past_the_ring
        self._cache = open_cache(config, runtime_dir)
        settings = PageSettings(control, RuntimeDir(runtime_dir), Policies(index, worker_count(config)))
        self._scripts: ScriptHost | None = None
        self._pipeline = self._make_pipeline(config, index, settings)
        self._inspector = Inspector(runtime_dir, index, self._cache)
        self._stopping = asyncio.Event()

    def _make_pipeline(self, config: Config, index: int, settings: PageSettings) -> Pipeline:
        """The request path; with scripts on it where there are any, which no other worker is to pay for."""
        if not config.addons.scripts:
            return Pipeline(config, index, self._ledger, settings, self._cache)
        from edgeproxy.proxy.scripted import ScriptedPipeline  # noqa: PLC0415
        from edgeproxy.scripting.host import ScriptHost  # noqa: PLC0415  mitmproxy takes its time and memory

        name = config.node.name or os.uname().nodename
        self._scripts = ScriptHost(config.addons, self._ledger.counters, name, config.log.level)
        return ScriptedPipeline(config, index, self._ledger, settings, self._cache, self._scripts)

    def _past_the_ring(self, line: bytes) -> bool:
        """Write a line to the log itself: nobody will export its spans."""
        if exported_lines(line):
            self._ledger.counters[Counter.SPANS_UNSEEN] += span_count(line)
        return self._append(line)

    async def serve(self, ready_fd: int | None) -> None:
        """Serve until told to stop, then drain."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        self._pipeline.take_settings()
        self._pipeline.deadlines.start(loop)
        if self._scripts is not None:
            self._scripts.start()
        server = await loop.create_server(
            factory(self._pipeline), sock=self._listener, backlog=self._config.listen.backlog
        )
        self._cache.start()
        await self._inspector.start()
        gc.collect()
        gc.freeze()
        gc.set_threshold(GC_THRESHOLD)
        if ready_fd is not None:
            os.write(ready_fd, b"1")
            os.close(ready_fd)
        while not self._stopping.is_set():
            self._housekeep()
            try:
                await asyncio.wait_for(self._stopping.wait(), HOUSEKEEPING_S)
            except TimeoutError:
                continue
        server.close()
        self._inspector.close()
        await asyncio.sleep(0)  # a connection that was accepted in this round is made known in the next
        await self._drain()

    def _housekeep(self) -> None:
        self._pipeline.take_settings()
        self._pipeline.take_purges()
        self._pipeline.gauge()
        if self._scripts is not None:
            self._scripts.look()
        if os.getppid() != self._supervisor:
            structlog.get_logger().warning("supervisor_gone", action="draining")
            self._stopping.set()

    async def _drain(self) -> None:
        """Let what is under way end, but not for longer than `limits.drain_timeout`."""
        self._ledger.draining()
        self._pipeline.drain()
        deadline = time.monotonic() + self._config.limits.drain_timeout
        while self._pipeline.clients and time.monotonic() < deadline:
            self._pipeline.take_settings()
            self._pipeline.take_purges()
            await asyncio.sleep(HOUSEKEEPING_S / 10)
        if self._pipeline.clients:
            structlog.get_logger().warning("drain_timeout", connections=len(self._pipeline.clients))
        self._pipeline.abort()
        await asyncio.sleep(0)  # scripts are told of their ends before that of the worker
        if self._scripts is not None:
            await self._scripts.finish()
        await self._cache.finish()
        self._pipeline.gauge()
        self._cache.close()


def open_cache(config: Config, runtime_dir: Path) -> Tiers:
    """The worker's hot memory over what the node keeps. A store that can't be opened is done without, and said; where
    it has the rules that other nodes purge by, so is the memory.

    Raises PurgeLogError when there is no purge log to go by: nothing may be cached that can't be purged.
    """
    memory = HotMemory(config.cache.memory_bytes)
    paths = storage_paths(config, runtime_dir)
    store: Store | None = None
    if config.cache.store == "embedded":
        try:
            store = EmbeddedStore.open(paths.folder, paths.purge_log)
        except StoreError as error:
            structlog.get_logger().error("store_failed", path=str(paths.folder), error=str(error), action="memory only")
    claims = Claims(paths.claims) if config.node.workers != 1 else None
    if config.cache.store == "redis":
        from edgeproxy.cache.redis import open_store  # noqa: PLC0415  no other node is to pay for redis-py

        try:
            name = config.node.name or os.uname().nodename
            shared = open_store(config.cache.redis, memory, IdSource().span_id, os.environ, name)
        except (OSError, ValueError) as error:
            # Purges would not be heard of: nothing is cached.
            structlog.get_logger().error("store_failed", store="redis", error=str(error), action="no cache")
            memory = HotMemory(0)
        else:
            return Tiers(memory, shared, shared.rules, claims)
    return Tiers(memory, store, PurgeLog.open(paths.purge_log), claims)


def main() -> None:
    """Run a worker as the supervisor's child."""
    parser = argparse.ArgumentParser(prog="edgeproxy.node.worker", description=__doc__)
    parser.add_argument("--index", type=int, required=True)
    parser.add_argument("--generation", type=int, required=True)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--runtime-dir", type=Path, required=True)
    parser.add_argument("--listen-fd", type=int, required=True)
    parser.add_argument("--ready-fd", type=int)
    options = parser.parse_args()
    config = Config.from_json(options.config.read_bytes())
    configure(config.log.level, process="worker", worker=options.index)
    listener = socket.socket(fileno=options.listen_fd)
    worker = Worker(options.index, options.generation, config, options.runtime_dir, listener)
    in_one_piece(lambda: uvloop.run(worker.serve(options.ready_fd)))


if __name__ == "__main__":
    main()
