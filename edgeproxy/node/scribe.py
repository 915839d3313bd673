"""The scribe: the process that turns the ledgers of a node into its access log, and serves the admin API.

`python -m edgeproxy.node.scribe --config FILE --runtime-dir DIR [--ready-fd N]`, started by the supervisor. Decides
when the steps of `drain` are taken, and when to go. It holds nothing that a new scribe would miss: everything is in
the ledgers.

- SIGUSR1: opens the log file anew (rotation).
- SIGTERM, SIGINT: writes what there is, then ends.
- The supervisor died: goes on until no worker lives and every ledger is drained, or until a new supervisor has taken
  over, whose scribe waits for this one's lock.
"""

import argparse
import asyncio
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import structlog

from edgeproxy.config import Config
from edgeproxy.logging.app import configure
from edgeproxy.node.admin import Admin
from edgeproxy.node.drain import RETRY_S, Drain
from edgeproxy.node.locks import take_lock
from edgeproxy.node.runtime import RuntimeDir
from edgeproxy.node.spans import SpanWriter
from edgeproxy.node.strategies import StrategyPoller

LOCK_FILE = "scribe.lock"
SCAN_S = 0.5
FAST_S, BUSY_S, IDLE_S = 0.02, 0.05, 0.1
"""Pauses between two writes: when the ledgers fill quickly, when there was something, when there was nothing for a
while. A longer pause
makes fewer, larger writes: at 50 ms a tick's fixed cost is 0.1 % of a core."""
FAST_BYTES = 1024 * 1024
FULL_SHARE = 0.5
"""A ledger that is fuller than this is written out even while spans are being flushed."""
LOCK_PATIENCE_S = 10.0
STREAM_PATIENCE_S = 5.0
"""How long a scribe that ends waits for the slow reader of a stream."""

_log = structlog.get_logger()


class Scribe:
    """One scribe's life."""

    def __init__(self, config: Config, runtime_dir: Path) -> None:
        """Prepare; nothing is opened yet."""
        self._config = config
        self._runtime_dir = RuntimeDir(runtime_dir)
        self._spans = SpanWriter(config, runtime_dir)
        self._drain = Drain(runtime_dir, config.log.access, config.log.format, self._spans.take)
        self._wake = asyncio.Event()
        self._stopping = False
        self._reopen = False
        self._parent = os.getppid()

    async def run(self, ready_fd: int | None = None) -> None:
        """Work until told to end."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        loop.add_signal_handler(signal.SIGUSR1, self._rotated)
        self._drain.scan()
        self._drain.write()
        async with contextlib.AsyncExitStack() as stack:
            stack.enter_context(StrategyPoller(self._runtime_dir))
            if self._config.cache.store == "embedded":
                self._sweep(stack)
            if self._config.admin.listen:
                await stack.enter_async_context(Admin(self._config.admin.listen, self._runtime_dir.path, self._drain))
                if self._config.cache.store == "redis":
                    threading.Thread(target=_prepare, daemon=True).start()
            if ready_fd is not None:
                os.write(ready_fd, b"1")
                os.close(ready_fd)
            await self._loop()
            await self._finish()
            await self._flush()
        self._spans.close()
        self._drain.close()

    def _sweep(self, stack: contextlib.AsyncExitStack) -> None:
        """Have the store swept of what is purged; without it, what was purged is still there, and is not used."""
        # Imported after the first write, as the admin API is.
        from edgeproxy.cache.embedded import StoreError, Sweeper  # noqa: PLC0415
        from edgeproxy.node.storage import storage_paths  # noqa: PLC0415

        paths = storage_paths(self._config, self._runtime_dir.path)
        try:
            stack.callback(Sweeper.open(paths.folder, paths.purge_log).close)
        except StoreError as error:
            _log.error("cache store is not swept", error=str(error))

    async def _loop(self) -> None:
        next_scan = 0.0
        pause = IDLE_S
        while not self._stopping:
            now = time.monotonic()
            if now >= next_scan:
                next_scan = now + SCAN_S
                self._drain.scan()
                self._spans.follow()
                if self._is_orphan_at_its_end():
                    return
            if self._reopen:
                self._reopen = False
                self._drain.log.reopen()
            pause = _pause(self._drain.write(), self._drain.backlog, pause)
            await self._sleep(pause if self._drain.health.is_well else RETRY_S)

    async def _finish(self) -> None:
        deadline = time.monotonic() + STREAM_PATIENCE_S
        while not self._drain.write_all():
            if self._drain.log.blocked_on is None or time.monotonic() > deadline:
                _log.error("access log can't be written; lines stay in the ledgers", bytes=self._drain.backlog)
                break
            await self._sleep(FAST_S)

    async def _flush(self) -> None:
        """Export what waits, within a bound; lines go on into the log meanwhile, should the ledgers fill."""
        timeout_s = self._config.tracing.batch.flush_timeout
        flushed = asyncio.create_task(asyncio.to_thread(self._spans.flush, timeout_s))
        while not flushed.done():
            await asyncio.wait((flushed,), timeout=FAST_S)
            if any(ledger.fill_share > FULL_SHARE for ledger in self._drain.ledgers.values()):
                self._drain.write()
        if not flushed.result():
            _log.warning("spans were left when the time to export them was over", timeout_s=timeout_s)

    async def _sleep(self, pause: float) -> None:
        """Wait for a while, for a signal, or for the reader of a stream to catch up."""
        self._wake.clear()
        loop = asyncio.get_running_loop()
        timer = loop.call_later(pause, self._wake.set)
        with self._writable(loop):
            await self._wake.wait()
        timer.cancel()

    @contextlib.contextmanager
    def _writable(self, loop: asyncio.AbstractEventLoop) -> Iterator[None]:
        fd = self._drain.log.blocked_on
        if fd is None:
            yield
            return
        loop.add_writer(fd, self._wake.set)
        try:
            yield
        finally:
            loop.remove_writer(fd)

    def _stop(self) -> None:
        self._stopping = True
        self._wake.set()

    def _rotated(self) -> None:
        self._reopen = True
        self._wake.set()

    def _is_orphan_at_its_end(self) -> bool:
        if os.getppid() == self._parent:
            return False
        if self._runtime_dir.is_held():
            _log.warning("a new supervisor has taken over; leaving the ledgers to its scribe")
            return True
        return not self._drain.has_living() and not self._drain.backlog


def _prepare() -> None:
    """Load what a purge in a Redis Cluster needs, which takes half a second: the first is to be as prompt as others."""
    import edgeproxy.cache.redis.giver  # noqa: F401, PLC0415


def _pause(written: int, backlog: int, last: float) -> float:
    if written:
        return 0.0 if backlog > FAST_BYTES else FAST_S if written > FAST_BYTES else BUSY_S
    return min(last * 1.5 or FAST_S, IDLE_S)


def main(arguments: list[str] | None = None) -> int:
    """Run the scribe; the exit code."""
    parser = argparse.ArgumentParser(prog="edgeproxy.node.scribe", description="writes a node's access log")
    parser.add_argument("--config", type=Path, required=True, help="effective configuration, JSON")
    parser.add_argument("--runtime-dir", type=Path, required=True)
    parser.add_argument("--ready-fd", type=int, help="descriptor that gets a byte once the scribe works")
    options = parser.parse_args(arguments)
    # A rotation while this process is still starting is no news: it has opened nothing yet.
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    config = Config.from_json(options.config.read_bytes())
    configure(config.log.level, process="scribe", pid=os.getpid())
    # One scribe at a time; the lock ends with the process.
    if take_lock(options.runtime_dir / LOCK_FILE, LOCK_PATIENCE_S) is None:
        _log.error("another scribe is at work here", runtime_dir=str(options.runtime_dir))
        return 1
    asyncio.run(Scribe(config, options.runtime_dir).run(options.ready_fd))
    return 0


if __name__ == "__main__":
    sys.exit(main())
