"""Slow objects behind the origin: half of the time nothing comes, then the body comes in pieces.

Every path is another object, so each round can ask for one that nobody has. It lives in the benchmark's own process,
on the load's core, and is asked once an object if all goes well.
"""

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

HEAD_SECONDS = 1.0
BODY_SECONDS = 1.0
PIECES = 10


class SlowObjects:
    """Listens from its start to its stop."""

    def __init__(self, body: bytes) -> None:
        """Every object has this body."""
        handler = type("Handler", (_Handler,), {"body": body})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, name="slow objects", daemon=True)

    def start(self) -> None:
        """Answer from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Listen no more; answers under way are finished or forgotten."""
        if self._thread.is_alive():
            self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    body: ClassVar[bytes] = b""

    def do_GET(self) -> None:
        time.sleep(HEAD_SECONDS)
        self.send_response(200)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(len(self.body)))
        self.send_header("Cache-Control", "max-age=3600")
        self.end_headers()
        size = -(-len(self.body) // PIECES)
        for at in range(0, len(self.body), size):
            time.sleep(BODY_SECONDS / PIECES)
            self.wfile.write(self.body[at : at + size])

    def log_message(self, *_: object) -> None:
        """Says nothing: standard error is for the run's progress."""
