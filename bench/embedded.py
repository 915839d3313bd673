"""What the embedded store's writing thread costs, and for how long it keeps its process's loop waiting:
`python -m bench.embedded`.

For some loads: CPU time of the thread for each response put, and how long turns of an otherwise idle loop take. Time
for which the kernel ran other processes is left out, as far as it says so.
"""

import asyncio
import os
import tempfile
import time
from pathlib import Path

import uvloop

from edgeproxy.cache.embedded import EmbeddedStore, prepare
from edgeproxy.cache.entry import Entry, Stored
from edgeproxy.cache.purge_log import PurgeLog

SIZE_BYTES = 1024**3
LOADS = ((500, 0), (500, 1000), (500, 5000), (30_000, 1000), (1_000_000, 50))
"""Body bytes and puts a second, for the loop's latency; with none it shows the machine's own unrest."""
LOAD_S = 3.0


def url(index: int) -> bytes:
    return b"http://example.com/objects/%d.html" % index


def entry(index: int, body: bytes) -> Entry:
    now = time.time_ns()
    return Entry(
        Stored(
            key=url(index),
            url=url(index),
            vary=(),
            variant=b"",
            status=200,
            reason=b"OK",
            lines=[(b"Content-Type", b"text/html"), (b"ETag", b'"1"'), (b"Cache-Control", b"max-age=600")],
            born_ns=now,
            fresh_until_ns=now + 600 * 10**9,
            stale_while_revalidate_ns=0,
            stale_if_error_ns=0,
            must_revalidate=False,
            stored_ns=now,
            filled_by="00-" + "a" * 32 + "-" + "b" * 16 + "-01",
            origin="default",
            etag=b'"1"',
        ),
        body,
    )


def opened(folder: Path) -> EmbeddedStore:
    log = PurgeLog.ensure(folder / "purge.log")
    prepare(folder / "store", SIZE_BYTES, log.instance)
    log.close()
    return EmbeddedStore.open(folder / "store", folder / "purge.log")


def schedules() -> list[int]:
    """What the kernel says of this process's threads, opened."""
    return [os.open(path / "schedstat", os.O_RDONLY) for path in Path("/proc/self/task").iterdir()]


def waited_s(threads: list[int]) -> float:
    """For how long the kernel has run something else while these threads of ours wanted to run."""
    return sum(int(os.pread(thread, 100, 0).split()[1]) for thread in threads) / 1e9


async def measure(size: int, rate: int) -> None:
    """Turns of an idle loop beside the writing thread."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        store = opened(Path(folder))
        body = os.urandom(size)
        stored = asyncio.get_running_loop().create_future()
        store.put(entry(0, body), lambda: stored.set_result(None))
        await stored
        threads = schedules()
        gaps: list[float] = []
        count = 0
        start = last = time.perf_counter()
        queued = waited_s(threads)
        spent, own = time.process_time(), time.thread_time()
        while last - start < LOAD_S:
            await asyncio.sleep(0)
            now, now_queued = time.perf_counter(), waited_s(threads)
            gaps.append(now - last - (now_queued - queued))
            while count < (now - start) * rate:
                store.put(entry(count, body))
                count += 1
            last, queued = time.perf_counter(), waited_s(threads)
        put = (time.process_time() - spent - (time.thread_time() - own)) / max(count, 1) * 1e6
        gaps.sort()
        p999, largest = gaps[-len(gaps) // 1000] * 1e3, gaps[-1] * 1e3
        print(f"{size:>10} {rate:>8} {put if count else 0:>8.0f} {p999:>10.2f} {largest:>8.2f}", flush=True)
        for thread in threads:
            os.close(thread)
        store.close()


async def main() -> None:
    print(f"{'body bytes':>10} {'puts/s':>8} {'put µs':>8} {'p99.9 ms':>10} {'max ms':>8}")
    for size, rate in LOADS:
        await measure(size, rate)


if __name__ == "__main__":
    uvloop.run(main())
