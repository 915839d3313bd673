"""The node's own events: structlog, one JSON line each, on standard error.

For what a process of the node has to say of itself (started, replaced, refused); requests have their records, which are
`access`'s business. Called rarely, never on a request's way. Knows nothing of who logs what.
"""

import contextlib
import json
import logging
import os

import msgspec
import structlog
from structlog.typing import EventDict, WrappedLogger

_STDERR = 2
_ENCODER = msgspec.json.Encoder(enc_hook=str)


def configure(level: str, **fields: object) -> None:
    """Set up structlog for this process: events of `level` and above, each with `fields` (which process it is)."""

    def add_fields(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        return {**fields, **event}

    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            add_fields,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
            structlog.processors.StackInfoRenderer(),
            structlog.processors.format_exc_info,
            _render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=_StderrLogger,
        # A reload may change the level, and events are too few for the cache to matter.
        cache_logger_on_first_use=False,
    )


def _render(_logger: WrappedLogger, _method: str, event: EventDict) -> bytes:
    head = {"ts": event.pop("ts", None), "level": event.pop("level", None), "event": event.pop("event", None)}
    try:
        return _ENCODER.encode({**head, **event}) + b"\n"
    except UnicodeEncodeError:  # text of a request's that is no UTF-8, in surrogates: a name of a script's, an error
        return json.dumps({**head, **event}, default=str).encode() + b"\n"


class _StderrLogger:
    """Writes each line with one call, so that the lines of several processes don't mix; a lost pipe harms nobody."""

    def __init__(self, *_arguments: object) -> None:
        pass

    def msg(self, line: bytes) -> None:
        with contextlib.suppress(OSError):
            os.write(_STDERR, line)

    debug = info = warning = error = critical = exception = log = fatal = failure = err = msg
