"""What scripts log, as events of the node: Python's logging, and mitmproxy's older ways, end in structlog."""

import logging

import structlog

from edgeproxy.scripting import spans

_LEVELS = {logging.DEBUG: "debug", logging.INFO: "info", logging.WARNING: "warning"}


class ScriptLog(logging.Handler):
    """A handler for the root logger."""

    def emit(self, record: logging.LogRecord) -> None:
        """Log it as an event `script_log`, with the trace id of the request that it was logged for."""
        try:
            message = record.getMessage()
        except Exception:  # noqa: BLE001  wrong arguments; Python's own handlers don't raise either
            message = f"{record.msg!r} {record.args!r}"
        level = next((word for number, word in _LEVELS.items() if record.levelno <= number), "error")
        fields: dict[str, object] = {"message": message, "logger": record.name}
        trace_id = spans.trace_id()
        if trace_id is not None:
            fields["trace_id"] = trace_id
        if record.exc_info:
            fields["exc_info"] = record.exc_info
        getattr(structlog.get_logger(), level)("script_log", **fields)


def install(level: str) -> None:
    """Take what is logged in this process from `level` on (a word of `log.level`). For once a process."""
    root = logging.getLogger()
    root.addHandler(ScriptLog())
    root.setLevel(level.upper())
