"""One url of an origin: where to connect, and what is known of its health. No I/O."""

import ssl
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from edgeproxy.proxy.upstream.connection import OriginConnection


class Address:
    """Where one url of an origin leads, with the connections that wait there for the next request."""

    def __init__(self, url: str, tls: ssl.SSLContext | None) -> None:
        """Take a url that the configuration has checked; `tls` is None for http."""
        parts = urlsplit(url)
        self.tls = tls
        self.scheme = "https" if tls else "http"
        self.host = parts.hostname or ""
        self.port = parts.port or (443 if tls else 80)
        self.text = f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
        self.idle: list[OriginConnection] = []
        self.down_until = 0.0
        """Monotonic time until which this url is passed over."""
