"""Purging a running node: from what somebody asks for to the word of every worker that it is done.

The command line and the admin API come here. URLs are brought into the form that the routes key them by; the rules go
into the purge log, which every worker compares with each request, or to the Redis Cluster that holds what the node has
stored, from where the workers of all nodes get them; that a worker acts on them shows in its ledger.
"""

import contextlib
import re
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import msgspec

from edgeproxy.cache.purge import Kind, Purge
from edgeproxy.cache.purge_log import PurgeLog, PurgeLogError
from edgeproxy.config import Config, Route
from edgeproxy.node.errors import NodeError, NotRunningError
from edgeproxy.node.runtime import RuntimeDir
from edgeproxy.node.status import Status, WorkerStatus, read_control, read_status
from edgeproxy.node.storage import storage_paths
from edgeproxy.proxy.routing import Routes

TIMEOUT_S = 5.0
POLL_S = 0.01
SCHEME = b"http"
"""The scheme that responses are keyed by: the one in which requests arrive. To a purge, https is the same."""
_URL = re.compile(
    r"(?P<scheme>https?)://(?P<authority>[^/?#@\s]+)(?P<target>(?:[/?][^#]*)?)(?:#.*)?", re.IGNORECASE | re.DOTALL
)
_AUTHORITY = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[^:\[\]]+)(?P<port>:[0-9]*)?", re.IGNORECASE)
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}
_ASCII = "".join(map(chr, range(0x21, 0x7F)))
_CONFIG_TRIES = 5


class PurgeError(NodeError):
    """What is to be purged can't be understood."""

    code = "purge"


class PurgeFailedError(NodeError):
    """The node's purge log can't be used."""

    code = "purge_log"


class SharedPurgeError(NodeError):
    """The Redis Cluster that the node's store is in has not taken all that was to be purged."""

    code = "redis"


class Wanted(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What somebody asks for, in their words; the admin API's JSON."""

    urls: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    all: bool = False
    soft: bool = False


class Member(msgspec.Struct, frozen=True):
    """A worker of a node."""

    worker: int
    """Its index."""
    pid: int


class Noted(NamedTuple):
    """Rules that hold from now on."""

    seq: int
    """The last one's number."""
    warning: str = ""
    """What could still undo it."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What came of it."""

    seq: int
    """Number of the last rule."""
    rules: int
    """How many rules it took."""
    confirmed: tuple[Member, ...]
    """The workers that act on it."""
    late: tuple[Member, ...]
    """Those that had not said so in time; they act on it before they serve anything. With a store in Redis, they act on
    it as soon as they reach Redis, and trust nothing that is stored until then.
    """
    warning: str = ""
    """What could still undo it."""


class Place(NamedTuple):
    """The node that is to be purged."""

    runtime: RuntimeDir
    config: Config
    log: Path
    """Its purge log; not used with a store in Redis."""


def running(runtime_dir: Path) -> Place:
    """Find the node that runs on a runtime directory, by the configuration that it has now.

    Raises NotRunningError when there is none, another NodeError or OSError when it can't be read.
    """
    runtime = RuntimeDir(runtime_dir)
    for _ in range(_CONFIG_TRIES):
        with contextlib.closing(read_control(runtime)) as control:
            generation = control.generation
        try:
            config = Config.from_json(runtime.config(generation).read_bytes())
        except FileNotFoundError:
            time.sleep(POLL_S)  # another generation has just taken over
            continue
        return Place(runtime, config, storage_paths(config, runtime_dir).purge_log)
    raise NotRunningError(f"the node on {runtime.path} is just starting or stopping")


def purge(place: Place, wanted: Wanted, *, timeout_s: float = TIMEOUT_S) -> Outcome:
    """Purge, and wait until every living worker acts on it, or until it has taken too long.

    Raises PurgeError, another NodeError or OSError; only when nothing was purged.
    """
    purges = understood(place.config, wanted)
    seq, warning = note(place.config, place.log, purges)
    confirmed, late = confirmations(place.runtime.path, seq, timeout_s)
    return Outcome(seq=seq, rules=len(purges), confirmed=confirmed, late=late, warning=warning)


def note(config: Config, log: Path, purges: Sequence[Purge]) -> Noted:
    """Have rules hold, wherever the rules for the node's store are kept. Raises as `append` and `share` do."""
    return share(config, purges) if config.cache.store == "redis" else Noted(append(log, purges))


def share(config: Config, purges: Sequence[Purge]) -> Noted:
    """Give rules to the Redis Cluster, for all nodes that share it.

    Raises PurgeError for what can be no rule, SharedPurgeError when Redis has not taken all of them.
    """
    # No other node is to pay for redis-py.
    from edgeproxy.cache.redis.access import Access  # noqa: PLC0415
    from edgeproxy.cache.redis.giver import NotGivenError, give  # noqa: PLC0415
    from edgeproxy.cache.redis.layout import Names  # noqa: PLC0415

    try:
        access = Access(config.cache.redis)
    except (OSError, ValueError) as error:
        raise SharedPurgeError(f"nothing is purged: Redis can't be asked: {error}") from error
    try:
        given = give(access, Names(config.cache.redis.prefix), purges)
    except ValueError as error:
        raise PurgeError(str(error)) from error
    except NotGivenError as error:
        raise SharedPurgeError(str(error)) from error
    return Noted(given.seq, given.doubt and f"a failover in Redis could undo the purge: {given.doubt}")


def append(path: Path, purges: Sequence[Purge]) -> int:
    """Put rules into a purge log, on disk; the last one's number.

    Raises PurgeError for what can be no rule, PurgeFailedError when the log can't be used, OSError when the disk fails.
    """
    with contextlib.closing(open_log(path)) as log:
        try:
            return log.append_all(purges, time.time_ns())
        except ValueError as error:
            raise PurgeError(str(error)) from error
        except PurgeLogError as error:
            raise PurgeFailedError(str(error)) from error


def open_log(path: Path) -> PurgeLog:
    """Open a node's purge log. Raises PurgeFailedError or OSError."""
    try:
        return PurgeLog.open(path)
    except FileNotFoundError:
        raise PurgeFailedError(f"there is no purge log {path}") from None
    except PurgeLogError as error:
        raise PurgeFailedError(str(error)) from error


def confirmations(runtime_dir: Path, seq: int, timeout_s: float) -> tuple[tuple[Member, ...], tuple[Member, ...]]:
    """Wait until the living workers act on rule `seq`; those that do, and those that do not in time. None of either
    when the node ends meanwhile.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            workers = living(read_status(runtime_dir, oldest=0))
        except NotRunningError:
            return (), ()
        late = [worker for worker in workers if worker.purge_seq < seq]
        if not late or time.monotonic() > deadline:
            return _members(worker for worker in workers if worker.purge_seq >= seq), _members(late)
        time.sleep(POLL_S)


def _members(workers: Iterable[WorkerStatus]) -> tuple[Member, ...]:
    return tuple(Member(worker.index, worker.pid) for worker in workers)


def living(status: Status) -> list[WorkerStatus]:
    """The workers that answer requests of this node."""
    return [worker for worker in status.workers if worker.state in {"serving", "draining"}]


def understood(config: Config, wanted: Wanted) -> list[Purge]:
    """The rules that are asked for. Raises PurgeError when something can't be understood, or nothing is asked for."""
    purges: dict[Purge, None] = {}

    def add(kind: Kind, values: Iterable[bytes]) -> None:
        purges.update(dict.fromkeys(Purge(kind, value, wanted.soft) for value in values))

    routes = Routes(config)
    for text in wanted.urls:
        add(Kind.URL, keyed_urls(routes, text))
    for text in wanted.prefixes:
        add(Kind.PREFIX, keyed_prefixes(config, text))
    add(Kind.TAG, (_tag(text) for text in wanted.tags))
    if wanted.all:
        add(Kind.ALL, [b""])
    if not purges:
        raise PurgeError("nothing to purge: name URLs, prefixes or tags, or all")
    return list(purges)


def keyed_urls(routes: Routes, text: str) -> list[bytes]:
    """The forms in which responses to a URL are stored; usually one. Raises PurgeError when it is no URL."""
    hosts, target = _split(text)
    path = target.partition(b"?")[0]
    found = [(route, host) for host in hosts if (route := routes.find(host, path)) is not None]
    if not found:
        raise PurgeError(f"no route leads to {text}")
    return _unique(route.key.url(SCHEME, host, target) for route, host in found)


def keyed_prefixes(config: Config, text: str) -> list[bytes]:
    """The forms in which URLs that begin like this are stored: one for each host that the routes make of its host.

    A prefix names a whole host, and its query, if it has one, is compared as keyed. Raises PurgeError.
    """
    hosts, target = _split(text)
    found = []
    for route in config.route or [Route(match="/*")]:
        alone = Routes(msgspec.structs.replace(config, route=[msgspec.structs.replace(route, match="/*")]))
        found += [
            SCHEME + b"://" + leads.key.host(SCHEME, host) + target
            for host in hosts
            if (leads := alone.find(host, b"/")) is not None
        ]
    if not found:
        raise PurgeError(f"no route leads to {text}")
    return _unique(found)


def _split(text: str) -> tuple[list[bytes], bytes]:
    """The hosts that clients may name for a URL, and path and query as they would send them."""
    match = _URL.fullmatch(text.strip())
    authority = match and _AUTHORITY.fullmatch(match["authority"])
    if not match or not authority:
        raise PurgeError(f"{text!r} is no URL: it begins with http:// or https:// and a host")
    try:
        name = authority["name"].lower().encode("idna" if not authority["name"].isascii() else "ascii")
    except UnicodeError:
        raise PurgeError(f"{text!r} is no URL: its host can't be a name") from None
    port = (authority["port"] or "").encode()
    hosts = [name + port]
    if port in {b":", _DEFAULT_PORTS[match["scheme"].lower()].encode()}:
        hosts.append(name)  # which is what clients make of it
    target = quote(match["target"].encode("utf-8", "surrogateescape"), safe=_ASCII).encode()
    return hosts, target if target.startswith(b"/") else b"/" + target


def _tag(text: str) -> bytes:
    tag = text.strip().encode("utf-8", "surrogateescape")
    if not tag:
        raise PurgeError("a tag to purge can't be empty")
    return tag


def _unique(values: Iterable[bytes]) -> list[bytes]:
    return list(dict.fromkeys(values))
