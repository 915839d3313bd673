"""Chooses among the access log's lines, as `edgeproxy tail`'s options say. Values in, yes or no out."""

import fnmatch
import re
from collections.abc import Callable
from typing import Any

import msgspec

_STATUS = re.compile(r"([1-5])xx|(\d{3})(?:-(\d{3}))?", re.IGNORECASE)
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(us|µs|ms|s|m)")
_MS = {"us": 0.001, "µs": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0}
_NGINX = re.compile(rb'\S+ - \S+ \[[^]]*\] "')


class Shown(msgspec.Struct, frozen=True):
    """What of a record is shown and chosen by."""

    ts: str
    trace_id: str
    outcome: str
    stage: str
    duration_ms: float
    client: str | None = None
    method: str | None = None
    host: str | None = None
    path: str | None = None
    query: str | None = None
    status: int | None = None
    bytes_out: int | None = None
    cache: str | None = None
    error: dict[str, Any] | None = None


type Test = Callable[[Shown], bool]

_DECODER = msgspec.json.Decoder(Shown)


def parse(line: bytes) -> Shown | None:
    """Read a line of the log; None when it is no record."""
    try:
        return _DECODER.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def is_nginx_line(line: bytes) -> bool:
    """Whether a line is one of `format = "nginx"`, which says too little to choose by."""
    return _NGINX.match(line) is not None


def status_range(text: str) -> tuple[int, int]:
    """Read `404`, `5xx` or `400-499`. Raises ValueError."""
    match = _STATUS.fullmatch(text.strip())
    if not match:
        raise ValueError(
            f"{text!r} is no status: a number such as 404, a class such as 5xx, or a range such as 400-499"
        )
    if match[1]:
        return int(match[1]) * 100, int(match[1]) * 100 + 99
    return int(match[2]), int(match[3] or match[2])


def duration_ms(text: str) -> float:
    """Read `200ms`, `1.5s` or `2m` as milliseconds. Raises ValueError."""
    match = _DURATION.fullmatch(text.strip())
    if not match:
        raise ValueError(f"{text!r} is no duration: a number with a unit, such as 200ms, 1.5s or 2m")
    return float(match[1]) * _MS[match[2]]


def by_trace(prefix: str) -> Test:
    """Choose traces by the beginning of their id."""
    wanted = prefix.lower()
    return lambda record: record.trace_id.startswith(wanted)


def by_status(ranges: list[tuple[int, int]]) -> Test:
    """Choose by status: within any of the ranges."""
    return lambda record: record.status is not None and any(low <= record.status <= high for low, high in ranges)


def by_cache(words: list[str]) -> Test:
    """Choose by what the cache did."""
    wanted = {word.upper() for word in words}
    return lambda record: record.cache in wanted


def by_outcome(words: list[str]) -> Test:
    """Choose by how the request ended."""
    wanted = {word.lower() for word in words}
    return lambda record: record.outcome in wanted


def by_path(globs: list[str]) -> Test:
    """Choose by path, without the query; `*` matches slashes, too."""
    patterns = [re.compile(fnmatch.translate(glob)) for glob in globs]
    return lambda record: record.path is not None and any(pattern.match(record.path) for pattern in patterns)


def slower_than(limit_ms: float) -> Test:
    """Choose what took longer."""
    return lambda record: record.duration_ms > limit_ms
