"""What the end-to-end tests of the cache have in common: origins that answer by a script, ways to read answers."""

import re
import signal
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import count

from edgeproxy.cache.embedded import EmbeddedStore
from tests.support import Conversation, Handler, Node, Received, Response, raw, reply, until

FRESH = "Cache-Control: max-age=60"
STALE = "Cache-Control: max-age=0"
"""Stored where there is a validator, and asked about each time."""
SLOW_S = 10
"""What a busy machine may take between two requests, seconds."""
_changes = count(77)


def path_for(name: str, *, under: str = "app") -> str:
    """A path of a test's own, made of its name."""
    return f"/{under}/" + re.sub(r"[^A-Za-z0-9]+", "-", name)


def date(offset_s: float = 0) -> str:
    """An HTTP-date that many seconds from now."""
    return format_datetime(datetime.now(UTC) + timedelta(seconds=offset_s), usegmt=True)


def counting(*fields: str, status: str = "200 OK") -> Handler:
    """Answers every request for a path with another body: `answer N`."""

    def handle(talk: Conversation) -> None:
        number = len(talk.origin.seen(talk.request.target.partition("?")[0]))
        reply(f"answer {number}".encode(), *fields, status=status)(talk)

    return handle


def steps(*handlers: Handler) -> Handler:
    """Each request gets the next handler; the last one is for all that follow."""
    left = list(handlers)
    lock = threading.Lock()

    def handle(talk: Conversation) -> None:
        with lock:
            handler = left.pop(0) if len(left) > 1 else left[0]
        handler(talk)

    return handle


def unchanged(*fields: str) -> Handler:
    """304, with these fields."""
    return raw("\r\n".join(["HTTP/1.1 304 Not Modified", *fields, "", ""]).encode("latin-1"))


def answering(text: Callable[[Received], str], *fields: str, status: str = "200 OK") -> Handler:
    """Answers with something of the request."""

    def handle(talk: Conversation) -> None:
        reply(text(talk.request).encode("latin-1"), *fields, status=status)(talk)

    return handle


def conditions(received: Received) -> tuple[str | None, str | None]:
    """By what a request asks whether something has changed: If-None-Match and If-Modified-Since."""
    return received.get("if-none-match"), received.get("if-modified-since")


def is_hit(response: Response) -> bool:
    """Whether no origin was asked."""
    return response["cache-status"].startswith("edge-1; hit; ttl=")


def ttl(response: Response) -> int:
    """The seconds for which a response is fresh yet, by Cache-Status."""
    found = re.search(r"; ttl=(-?\d+)", response["cache-status"])
    assert found, response["cache-status"]
    return int(found[1])


def in_store(node: Node, path: str) -> None:
    """Wait until the embedded store has a response for a path, and with it all that the same worker wrote before."""

    def there() -> bool:
        store = EmbeddedStore.open(node.runtime_dir / "cache" / "store")
        try:
            return any(store.variants(f"http://edge.test{path}".encode()))
        finally:
            store.close()

    until(there, f"{path} to be in the store")


def other_processes(node: Node, how: str) -> None:
    """Have other processes serve: after a `restart` of the node, a `reload`, or the `kill` of its worker."""
    before = node.worker_pids
    if how == "restart":
        assert node.stop() == 0
        node.start()
    elif how == "reload":
        node.write_config(limits={"headers": next(_changes)})
        node.signal(signal.SIGHUP)
    else:
        node.kill_worker()
    until(lambda: (pids := node.worker_pids) and not set(pids) & set(before), "other workers to serve")
