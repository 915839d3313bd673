"""Looks in the access log for the line of a request whose worker died while it was writing that line itself.

The last resort of recovery: nobody noted whether the write was done, so only the file can tell. Slow, and rarely
needed. Reads, never writes.
"""

import contextlib
import mmap
import re
from pathlib import Path

from edgeproxy.ledger.record import known_fields
from edgeproxy.logging.access import LogFormat, nginx_line

SEARCHED_BYTES = 256 * 1024 * 1024
"""How far back from its end a file is searched; what was written since the worker died is at most some rings long."""
_ROTATED = 2


def is_logged(path: str, log_format: LogFormat, text: bytes) -> bool:
    """Say whether a whole line of the request whose slot had `text` stands in the log, or in a file that was just
    rotated from it.

    In Nginx's format there is no span id: client, trace id and request line tell, and two requests that are alike in
    all three count as one.
    """
    pattern = _json_pattern(text) if log_format == "json" else _nginx_pattern(text)
    return pattern is not None and any(_has(name, pattern) for name in _files(Path(path)))


def _json_pattern(text: bytes) -> re.Pattern[bytes] | None:
    span_id = known_fields(text).get("span_id")
    return re.compile(rb'"span_id":"%s"[^\n]*\}\n' % re.escape(str(span_id).encode())) if span_id else None


def _nginx_pattern(text: bytes) -> re.Pattern[bytes] | None:
    try:
        line = nginx_line(text.rstrip(b",") + b"}")
    except ValueError:
        return None
    match = re.match(rb'(.*? - \S+ )\[[^]]*\]( "[^"]*" )', line)
    if match is None:
        return None
    return re.compile(re.escape(match[1]) + rb"\[[^]\n]*\]" + re.escape(match[2]) + rb"[^\n]* [\d.]+\n")


def _files(path: Path) -> list[Path]:
    path = path.resolve()
    with contextlib.suppress(OSError):
        rotated = [name for name in path.parent.iterdir() if name.name.startswith(path.name) and name != path]
        return [path, *sorted(rotated, key=_modified, reverse=True)[:_ROTATED]]
    return []


def _modified(path: Path) -> float:
    with contextlib.suppress(OSError):
        return path.stat().st_mtime
    return 0.0


def _has(path: Path, pattern: re.Pattern[bytes]) -> bool:
    with (
        contextlib.suppress(OSError, ValueError),  # ValueError: an empty file
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as content,
    ):
        return pattern.search(content, max(0, len(content) - SEARCHED_BYTES)) is not None
    return False
