"""What is known of a trace: its records, from the traces that the node keeps, else from the access log alone.

For `edgeproxy trace show`. Finds and decodes; how it is shown is the command's business. Where there is nothing, it
says where it looked (`Nothing`).
"""

import re
import zlib
from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import msgspec

from edgeproxy.logging.follow import Follower
from edgeproxy.logging.past import log_files, newest
from edgeproxy.node.errors import NodeError
from edgeproxy.tracing.recorded import Recorded, decode

LIMIT = 1000
"""So many requests of a trace are shown, the last ones."""
SHORTEST = 8
"""Hex digits of a trace id that say which one is meant."""
_TRACE_ID = re.compile(rf"[0-9a-f]{{{SHORTEST},32}}")
_REQUEST_ID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}")
_MINTED_VERSION = "7"
_END_LINES = 20_000
"""So many of the log's last lines are looked through for what is not kept yet."""
_KEPT_REQUESTS = 50_000
"""So many of the records that are kept are looked through for a request's id; they are found by trace id alone."""

type Source = Literal["store", "log"]


class WantedError(NodeError):
    """What is asked for is no id, or says not which trace."""

    code = "trace_id"


class Wanted(NamedTuple):
    """What to look for."""

    text: str
    is_request: bool
    """Whether it is a request's id, not a trace's."""

    @classmethod
    def parse(cls, text: str) -> "Wanted":
        """Read an id. Raises WantedError."""
        text = text.strip().lower()
        if _REQUEST_ID.fullmatch(text):
            return cls(text, is_request=True)
        if not _TRACE_ID.fullmatch(text):
            raise WantedError(
                f"{text!r} is no id: give a trace id (32 hex digits, or the first {SHORTEST} or more of them) "
                "or a request id"
            )
        return cls(text, is_request=False)

    @property
    def minted(self) -> datetime | None:
        """When the trace began, where its id tells: those that edgeproxy mints begin with the time."""
        digits = self.text.replace("-", "")
        # The version's digit is the 13th: where that many are given, others' ids are told from ours.
        if len(digits) > 12 and digits[12] == _MINTED_VERSION:
            return datetime.fromtimestamp(int(digits[:12], 16) / 1000, UTC)
        return None

    def fits(self, record: Recorded) -> bool:
        """Whether a record is one that is meant."""
        return record.request_id == self.text if self.is_request else record.trace_id.startswith(self.text)


class Found(NamedTuple):
    """A record, and its line as it is kept."""

    record: Recorded
    line: bytes


class Story(NamedTuple):
    """What is known of a trace."""

    trace_id: str
    source: Source
    where: str
    """The place it comes from."""
    found: Sequence[Found]
    """In the order in which the requests began; not empty."""
    is_cut: bool = False
    """Whether there are more."""


class Nothing(NamedTuple):
    """Nothing is known."""

    looked: Sequence[str]
    """Where it was looked for, and what was there."""
    oldest: datetime | None
    """How far back the access log goes."""


class Kept(Protocol):
    """Traces that the node keeps (`export.traces.TraceStore`)."""

    def ids(self, prefix: str, limit: int) -> list[str]:
        """The ids of some traces that begin so."""

    def lines(self, trace_id: str) -> list[bytes]:
        """A trace's records."""

    def recent(self, limit: int) -> list[bytes]:
        """The last records, newest first."""


def tell(wanted: Wanted, kept: Kept | None, kept_in: str, log: Path | None) -> Story | Nothing:
    """Look for a trace where it may be. Raises WantedError when the id fits several.

    `kept` are the traces that the node keeps, `kept_in` is the name of that place; `log` is the access log where that
    can be read.
    """
    looked = []
    if kept is not None:
        if trace_id := _kept_id(wanted, kept):
            lines = kept.lines(trace_id)
            # Spans wait for a while before they are kept: the latest requests of a trace are in the log alone.
            later = [] if log is None else _at_the_end(trace_id if wanted.is_request else wanted.text, log)
            _one(wanted, {trace_id, *(one.record.trace_id for one in later)})  # of others that begin so none is kept
            known = {line.rstrip() for line in lines}
            missing = [one for one in later if one.line.rstrip() not in known]
            where = f"{kept_in}, the latest from {log}" if missing else kept_in
            return _story("store", where, [*map(_decoded, lines), *missing])
        looked.append(f"{kept_in} has no trace of it")
    oldest = None
    if log is not None:
        searched = _in_log(wanted, log)
        if searched.found:
            trace_id = _one(wanted, {one.record.trace_id for one in searched.found})
            if wanted.is_request:  # the whole trace, not this request alone
                searched = _in_log(Wanted(trace_id, is_request=False), log)
            return _story("log", searched.where, searched.found)
        oldest = _oldest(searched.files)
        looked += searched.problems
        looked += [f"{file} has no line of it" for file in searched.files]
    return Nothing(looked, oldest)


def _kept_id(wanted: Wanted, kept: Kept) -> str:
    """The id of the trace that is kept; empty if none is."""
    if not wanted.is_request:
        ids = kept.ids(wanted.text, 3)
        return _one(wanted, ids) if ids else ""
    needle = wanted.text.encode()
    found = (_decoded(line) for line in kept.recent(_KEPT_REQUESTS) if needle in line)
    return next((one.record.trace_id for one in found if one is not None and wanted.fits(one.record)), "")


def _one(wanted: Wanted, ids: Collection[str]) -> str:
    if len(ids) > 1:
        shown = "\n".join(sorted(ids)[:5])
        raise WantedError(f"several traces begin with {wanted.text}; give more digits:\n{shown}")
    return next(iter(ids))


def _story(source: Source, where: str, found: Sequence[Found | None]) -> Story:
    known = {one.record.span_id: one for one in found if one is not None}
    ordered = sorted(known.values(), key=lambda one: one.record.started_ns)
    return Story(ordered[-1].record.trace_id, source, where, ordered[-LIMIT:], is_cut=len(ordered) > LIMIT)


def _decoded(line: bytes) -> Found | None:
    try:
        return Found(decode(line), line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


class _Searched(NamedTuple):
    """What a log has of a trace."""

    found: list[Found]
    where: str
    files: list[Path]
    """Those that were looked into, newest first."""
    problems: list[str]


def _in_log(wanted: Wanted, path: Path) -> _Searched:
    """Look into a log, newest file first.

    A trace's requests are not far apart: the search ends with the first file, going back, that has no further one.
    """
    needle = wanted.text.encode()

    def read(line: bytes) -> Iterator[Found]:
        if needle in line and (one := _decoded(line)) is not None and wanted.fits(one.record):
            yield one

    found: list[Found] = []
    places: list[str] = []
    files: list[Path] = []
    problems: list[str] = []
    for file in log_files(path):
        try:
            here = newest(file, read, LIMIT + 1 - len(found))
        except (OSError, EOFError, zlib.error) as error:
            # One that was rotated away meanwhile is no problem; the log itself should be there.
            if file == path or not isinstance(error, FileNotFoundError):
                problems.append(f"{file} can't be read: {getattr(error, 'strerror', None) or error}")
            continue
        if found and not here:
            break
        files.append(file)
        found += here
        places += [str(file)] if here else []
        if len(found) > LIMIT:
            break
    return _Searched(found, ", ".join(places), files, problems)


def _at_the_end(beginning: str, path: Path) -> list[Found]:
    """The records of traces whose ids begin so among the last ones of a log; none where it can't be read."""
    needle = f'"trace_id":"{beginning}'.encode()
    follower = Follower(path)
    try:
        lines = (line for line in islice(follower.last(), _END_LINES) if needle in line)
        return [one for one in map(_decoded, lines) if one is not None]
    except OSError:
        return []
    finally:
        follower.close()


def _oldest(files: Sequence[Path]) -> datetime | None:
    """When the first line that there is was written."""
    for file in reversed(files):
        try:
            with file.open("rb") as opened:
                first = _decoded(opened.readline())
        except OSError:
            continue
        if first is not None:
            return first.record.ts
    return None
