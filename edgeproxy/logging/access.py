"""The access log's two formats, and how a worker writes a line itself when its ring is full.

A record is one line of JSON (`edgeproxy.ledger.record`); `format = "nginx"` makes a line of it that tools for Nginx's
logs read. Text from clients is untrusted: whatever it holds, a line stays one line, and its quotes stay closed. What
the scribe does to write each line once is `writer`'s business.
"""

import os
import re
import select
import time
from collections.abc import Callable
from datetime import datetime
from functools import lru_cache
from typing import Literal

import msgspec

from edgeproxy.logging.target import STDOUT, Target

type LogFormat = Literal["json", "nginx"]
type Render = Callable[[bytes], bytes]
"""Makes a line of the log out of a record's line; the same record always gives the same line."""

_UNSAFE = re.compile(rb'[\x00-\x1f"\\\x7f-\xff]')
_QUOTES = 6
"""Quotes that a line has of its own."""


class _Record(msgspec.Struct):
    """The fields of a record that a line in Nginx's format needs."""

    ts: datetime
    trace_id: str | None = None
    client: str | None = None
    method: str | None = None
    path: str | None = None
    query: str | None = None
    protocol: str | None = None
    status: int | None = None
    bytes_out: int | None = None
    cache: str | None = None
    duration_ms: float = 0.0
    user_agent: str | None = None
    referer: str | None = None


_DECODER = msgspec.json.Decoder(_Record)


def nginx_line(line: bytes) -> bytes:
    r"""Render a record's line in Nginx's way: quotes, backslashes, control and non-ASCII bytes as `\xXX`, `-` for
    nothing.

    `$remote_addr - $trace_id [$time_local] "$request" $status $body_bytes_sent "$http_referer" "$http_user_agent"
    $cache $duration`, the time being that of the request's end, the duration in seconds. A line that is no record is
    passed on as it is.
    """
    try:
        record = _DECODER.decode(line)
    except msgspec.DecodeError:
        return line
    values = (
        record.client or "-",
        record.trace_id or "-",
        _request(record),
        record.referer or "-",
        record.user_agent or "-",
        record.cache or "-",
    )
    text = _compose(record, *values)
    # One look at the whole line instead of one at each value: 2 µs a line less.
    if not (text.isascii() and text.isprintable() and text.count('"') == _QUOTES and "\\" not in text):
        text = _compose(record, *map(_escaped, values))
    return text.encode() + b"\n"


def _compose(record: _Record, client: str, trace_id: str, request: str, referer: str, agent: str, cache: str) -> str:
    duration_s = record.duration_ms / 1000
    status = "-" if record.status is None else record.status
    size = "-" if record.bytes_out is None else record.bytes_out
    when = _time_local(int(record.ts.timestamp() + duration_s))
    return f'{client} - {trace_id} [{when}] "{request}" {status} {size} "{referer}" "{agent}" {cache} {duration_s:.3f}'


def _request(record: _Record) -> str:
    if record.method is None:
        return "-"
    query = f"?{record.query}" if record.query else ""
    return f"{record.method} {record.path or ''}{query} {record.protocol or ''}"


def _escaped(value: str) -> str:
    return _UNSAFE.sub(_escape, value.encode("utf-8", "surrogatepass")).decode("ascii")


def _escape(match: re.Match[bytes]) -> bytes:
    return b"\\x%02X" % match[0][0]


@lru_cache(maxsize=4096)
def _time_local(second: int) -> str:
    return time.strftime("%d/%b/%Y:%H:%M:%S %z", time.localtime(second))


def renderer(log_format: LogFormat) -> Render | None:
    """Give what turns records into lines of that format; None where a record is its line."""
    return nginx_line if log_format == "nginx" else None


class AppendSink:
    """Appends single lines to the access log, for a worker whose ring is full: `LedgerWriter.overflow`.

    Other processes append to the same file, so each line goes out with one write, in append mode. It never waits for a
    reader, never raises, and follows rotation by itself.
    """

    def __init__(self, path: str, log_format: LogFormat = "json") -> None:
        """Write to `path`, or to standard output for "-"; nothing is opened yet."""
        self._path = path
        self._render = renderer(log_format)
        self._target: Target | None = None

    def append(self, line: bytes) -> bool:
        """Append a record's line; False when it could not be kept."""
        data = line if self._render is None else self._render(line)
        try:
            target = self._open()
            if target.is_file:
                return _append_whole(target, data)
            # A longer write to a pipe may come apart, and nobody would ever write the rest of it.
            return len(data) <= select.PIPE_BUF and target.write([data]) == len(data)
        except OSError:
            self.close()
            return False

    def _open(self) -> Target:
        if self._target is not None and self._path != STDOUT and self._target.has_moved(self._path):
            self.close()
        if self._target is None:
            self._target = Target.open(self._path)
        return self._target

    def close(self) -> None:
        """Close the log; the next line opens it again."""
        if self._target is not None:
            self._target.close()
            self._target = None


def _append_whole(target: Target, data: bytes) -> bool:
    try:
        if target.begin():
            data = b"\n" + data
        written = os.write(target.fd, data)
        if written == len(data):
            return True
        # The disk is full. The piece is taken back at once, unless another writer has appended behind it.
        end = os.lseek(target.fd, 0, os.SEEK_CUR)
        if target.lock_alone() and target.size() == end:
            os.ftruncate(target.fd, end - written)
        return False
    finally:
        target.end()
