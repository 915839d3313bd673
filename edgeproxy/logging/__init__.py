"""What the node writes: the access log, a line for each request, and its own events on standard error (`app`)."""

from edgeproxy.logging.access import AppendSink, LogFormat, nginx_line
from edgeproxy.logging.app import configure
from edgeproxy.logging.lookup import is_logged
from edgeproxy.logging.writer import AccessLog

__all__ = ["AccessLog", "AppendSink", "LogFormat", "configure", "is_logged", "nginx_line"]
