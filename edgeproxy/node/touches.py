"""Which operations of the shared store belong to a trace or to a URL: from the access log, and from the trail in Redis.

For `edgeproxy keytrace`. The log has all operations of one node, the trail a share of those of all nodes; what both
know of is one (`merged`). A source that can't be read raises SourceError: the other one may still do.
"""

import stat
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.crc import key_slot
from redis.exceptions import RedisClusterException, RedisError
from redis.retry import Retry

from edgeproxy.cache.operation import Operation
from edgeproxy.cache.redis import layout
from edgeproxy.cache.redis.access import Access
from edgeproxy.cache.redis.layout import DamagedError, Head, Names, VaryMark
from edgeproxy.cache.redis.trail import Step, cut, step_of
from edgeproxy.config import RedisCache
from edgeproxy.logging.follow import Follower
from edgeproxy.logging.past import log_files, newest
from edgeproxy.node.errors import NodeError
from edgeproxy.proxy.plan import Plans

_PAGE = 1000
_HAS_OPERATIONS = b'"store":[{'
_NEWEST = "+"
_SLOT_KEYS = 1_000_000
_CANT_READ = (RedisError, RedisClusterException, OSError, ValueError)


class SourceError(NodeError):
    """A log or a trail that can't be read; the message says why."""

    code = "source"


class Touch(msgspec.Struct, frozen=True, kw_only=True):
    """One operation."""

    time: str
    """When it began, as the trail has it; when its request did, where only the log tells. UTC."""
    trace_id: str
    span_id: str
    op: str
    redis_node: str
    slot: int
    us: int
    """How long it took, microseconds."""
    outcome: str
    error: str
    url: str
    """As keyed."""
    edge_node: str
    """Name of the node that asked."""
    source: Literal["log", "trail", "both"]


class Fill(msgspec.Struct, frozen=True, kw_only=True):
    """What is stored for a URL now, and which operation wrote it."""

    stored: str
    """When, UTC."""
    url: str
    status: int
    size_bytes: int
    why: str
    """When not empty this is no response: it remembers why there is none to be stored."""
    vary: dict[str, str | None]
    """The request fields that select it, and their values; null: absent."""
    traceparent: str
    trace_id: str


class Wanted(msgspec.Struct, frozen=True):
    """What is asked for; nothing means everything."""

    trace_id: str = ""
    urls: tuple[bytes, ...] = ()
    """As keyed."""

    def has(self, trace_id: str, url: bytes, *, is_cut: bool = False) -> bool:
        """Whether an operation is asked for."""
        if self.trace_id:
            return trace_id == self.trace_id
        return not self.urls or any(url == (cut(one) if is_cut else one) for one in self.urls)


def merged(touches: Iterable[Touch], limit: int) -> list[Touch]:
    """The last ones, in time order, each once."""
    found: dict[str, Touch] = {}
    for touch in touches:
        other = found.get(touch.span_id)
        if other is None or other.source == touch.source:
            found[touch.span_id] = touch
        else:
            began = touch if touch.source == "trail" else other
            told = other if touch.source == "trail" else touch  # the log has the URL whole
            found[touch.span_id] = msgspec.structs.replace(told, time=began.time, source="both")
    return sorted(found.values(), key=lambda touch: touch.time)[-limit:]


# --- the access log


class _Record(msgspec.Struct, frozen=True):
    ts: str
    trace_id: str
    node: str
    store: tuple[Operation, ...] = ()
    host: str | None = None
    path: str | None = None
    query: str | None = None


_decode = msgspec.json.Decoder(_Record).decode


class Log:
    """A node's access log."""

    def __init__(self, path: Path, wanted: Wanted, plans: Plans) -> None:
        """Choose from a file; `plans` knows how URLs are keyed."""
        self._path = path
        self._wanted = wanted
        self._plans = plans
        self._needle = wanted.trace_id.encode()
        self._follower = Follower(path)
        self._is_begun = False
        self._is_file = True
        self.problems: list[str] = []
        """What `past` could not read."""

    def past(self, limit: int) -> list[Touch]:
        """The last ones that there are, in the order of the log, from files that were rotated away as well."""
        try:
            self._begin()
        except SourceError as error:
            self.problems.append(str(error))
        if not self._is_file:
            return []
        found: list[Touch] = []
        for path in log_files(self._path):
            try:
                found += newest(path, self._touches, limit - len(found))
            except FileNotFoundError:
                continue  # rotated meanwhile; of the log itself it is said above
            except (OSError, EOFError, zlib.error) as error:
                self.problems.append(f"the access log {path}: {error}")
            if len(found) >= limit:
                break
        return found[::-1]

    def new(self) -> list[Touch]:
        """Those that came since `past`, or since the first call. Raises SourceError."""
        if not self._is_begun:
            self._begin()
        try:
            return [touch for line in self._new_lines() for touch in self._touches(line)]
        except OSError as error:
            raise SourceError(f"the access log {self._path}: {error.strerror}") from error

    def _new_lines(self) -> list[bytes]:
        return self._follower.new() if self._is_file else []

    def _begin(self) -> None:
        """Have `new` begin at the end of what there is."""
        self._is_begun = True
        try:
            self._is_file = stat.S_ISREG(self._path.stat().st_mode)  # opening a pipe would wait for its other end
            if not self._is_file:
                raise SourceError(f"the access log {self._path} is no file, and can't be read back")
            self._follower.last()
        except OSError as error:
            raise SourceError(f"the access log {self._path}: {error.strerror}") from error

    def _touches(self, line: bytes) -> list[Touch]:
        """The operations of a line that are asked for."""
        if _HAS_OPERATIONS not in line or self._needle not in line:
            return []
        try:
            record = _decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return []
        url = self._keyed(record)
        if not self._wanted.has(record.trace_id, url):
            return []
        return [_touch(one, record.ts, record.trace_id, url, record.node, "log") for one in record.store]

    def _keyed(self, record: _Record) -> bytes:
        query = f"?{record.query}" if record.query else ""
        uri = f"http://{record.host or ''}{record.path or ''}{query}".encode()
        plan = self._plans.of_url(uri)
        return uri if plan is None else plan.url

    def close(self) -> None:
        """Let go of its files."""
        self._follower.close()


# --- the trail


class SharedTrail:
    """The trail of all nodes, and what Redis has stored."""

    def __init__(self, config: RedisCache, wanted: Wanted) -> None:
        """Choose from it; the first question connects."""
        self._config = config
        self._wanted = wanted
        self._names = Names(config.prefix)
        self._client: RedisCluster | None = None
        self._last = ""

    def past(self, limit: int) -> list[Touch]:
        """The last ones that there are, in the order of the trail. Raises SourceError."""
        self._begin()
        found: list[Touch] = []
        newest = _NEWEST
        while len(found) < limit:
            page = self._ask("xrevrange", self._names.trail, newest, "-", _PAGE)
            found += filter(None, (self._touch(fields) for _, fields in page))
            if len(page) < _PAGE:
                break
            newest = f"({page[-1][0].decode()}"
        return found[:limit][::-1]

    def new(self) -> list[Touch]:
        """Those that came since `past`, or since the first call. Raises SourceError; what comes meanwhile is not
        missed.
        """
        if not self._last:
            self._begin()
        found: list[Touch] = []
        for _, page in self._ask("xread", {self._names.trail: self._last}, _PAGE):
            self._last = page[-1][0].decode()
            found += filter(None, (self._touch(fields) for _, fields in page))
        return found

    def _begin(self) -> None:
        """Have `new` begin at the end of what there is."""
        page = self._ask("xrevrange", self._names.trail, _NEWEST, "-", 1)
        self._last = page[0][0].decode() if page else "0-0"

    def _touch(self, fields: dict[bytes, bytes]) -> Touch | None:
        try:
            step: Step = step_of(fields)
        except DamagedError:
            return None  # another version's
        if not self._wanted.has(step.trace_id, step.url, is_cut=True):
            return None
        return _touch(step.operation, _iso(step.began_ns), step.trace_id, step.url, step.edge, "trail")

    def fills(self) -> list[Fill]:
        """What is stored now for the URLs that are asked for. Raises SourceError."""
        return [fill for url in self._wanted.urls for fill in self._fills(url)]

    def _fills(self, url: bytes) -> Iterator[Fill]:
        beginning = self._names.url(url)
        names = self._asked(lambda client: _names_in_slot(client, beginning))
        marks: dict[bytes, VaryMark] = {}
        found: list[tuple[bytes, Head, str]] = []
        for name in names:
            if not name.startswith(beginning) or name.endswith(b".b"):
                continue
            value = self._ask("get", name)
            try:
                read = None if value is None else layout.read(value)
            except DamagedError:
                continue
            if isinstance(read, VaryMark):
                marks[name] = read
            elif read is not None and read.stored.url == url:
                found.append((name, read, layout.traceparent(value)))
        for name, head, traceparent in found:
            if self._names.is_reachable(name, head.stored, marks):
                yield _fill(head, traceparent)

    def _ask(self, method: str, *arguments: Any) -> Any:  # noqa: ANN401  as redis-py has it
        return self._asked(lambda client: getattr(client, method)(*arguments))

    def _asked(self, ask: Callable[[RedisCluster], Any]) -> Any:  # noqa: ANN401
        try:
            if self._client is None:
                self._client = _connected(self._config)
            return ask(self._client)
        except _CANT_READ as error:
            self.close()
            raise SourceError(f"Redis: {str(error).splitlines()[0] if str(error) else type(error).__name__}") from error

    def close(self) -> None:
        """Let go of Redis."""
        if self._client is not None:
            client, self._client = self._client, None
            client.close()


def _connected(config: RedisCache) -> RedisCluster:
    access = Access(config)
    return RedisCluster(
        startup_nodes=[ClusterNode(one.host, one.port) for one in access.addresses],  # type: ignore[no-untyped-call]
        retry=Retry(NoBackoff(), 1),
        protocol=2,
        **access.client_arguments(),
    )


def _names_in_slot(client: RedisCluster, name: bytes) -> list[bytes]:
    """The keys beside one, as bytes: redis-py's own method makes text of them, and loses what is no UTF-8."""
    node = client.get_redis_connection(client.get_node_from_key(name))  # type: ignore[no-untyped-call]
    found: list[bytes] = node.execute_command("CLUSTER", "GETKEYSINSLOT", key_slot(name), _SLOT_KEYS)  # type: ignore[no-untyped-call]
    return found


# --- what both have in common


def _touch(
    operation: Operation, began: str, trace_id: str, url: bytes, edge: str, source: Literal["log", "trail"]
) -> Touch:
    return Touch(
        time=began,
        trace_id=trace_id,
        span_id=operation.span_id,
        op=operation.op,
        redis_node=operation.node,
        slot=operation.slot,
        us=operation.us,
        outcome=operation.outcome,
        error=operation.error,
        url=_text(url),
        edge_node=edge,
        source=source,
    )


def _fill(head: Head, traceparent: str) -> Fill:
    stored = head.stored
    values: Sequence[bytes] = stored.variant.split(b"\x01") if stored.vary else ()
    return Fill(
        stored=_iso(stored.stored_ns),
        url=_text(stored.url),
        status=stored.status,
        size_bytes=head.body_bytes,
        why=stored.uncacheable,
        vary={
            _text(name): None if one == b"\x02" else _text(one) for name, one in zip(stored.vary, values, strict=False)
        },
        traceparent=traceparent,
        trace_id=traceparent[3:35],
    )


def _iso(ns: int) -> str:
    seconds, rest_ns = divmod(ns, 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{rest_ns // 1000:06d}Z"


def _text(text: bytes) -> str:
    return text.decode("utf-8", "backslashreplace")
