"""A real nginx as the origin of a folder of files.

    with Nginx(folder) as nginx:
        httpx.get(nginx.url + "/index.html")

From a shell: `python -m tests.support.nginx FOLDER` serves until Ctrl-C.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Self

import pytest

from tests.support.ports import free_port
from tests.support.wait import until

_SEARCHED = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
_TRIES = 5
_TYPES = "types { text/html html; text/css css; text/javascript js; image/png png; application/json json; }"


def nginx_program() -> str:
    """The path of nginx; skips the test when it is not installed."""
    found = shutil.which("nginx", path=_SEARCHED)
    if not found:
        pytest.skip("nginx is not installed (make test installs it, or: apt-get install nginx-light)")
    return found


class Nginx:
    """nginx serving a folder on a free port; a context manager."""

    def __init__(self, root: Path, *, server: str = "") -> None:
        """`server` is more text for nginx's server block: locations, add_header."""
        self._program = nginx_program()
        self._root = root.absolute()
        self._server = server
        self.folder = Path(tempfile.mkdtemp(prefix="edgeproxy-nginx-"))
        self.access_log = self.folder / "access.log"
        self.port = 0
        self.url = ""
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            for _ in range(_TRIES):
                if self._start():
                    return self
        except BaseException:
            self._stop()
            raise
        error = (self.folder / "error.log").read_text(errors="replace")
        self._stop()
        raise AssertionError(f"nginx did not start:\n{error}")

    def __exit__(self, *_: object) -> None:
        self._stop()

    def _start(self) -> bool:
        """Start on a free port; False when nginx ended at once, perhaps because the port was taken meanwhile."""
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        config = self.folder / "nginx.conf"
        config.write_text(self._config(), encoding="utf-8")
        self._process = subprocess.Popen(
            [self._program, "-p", str(self.folder), "-c", str(config), "-e", str(self.folder / "error.log")],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        process = self._process
        until(lambda: process.poll() is not None or self._answers(), "nginx to listen")
        return process.poll() is None

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True
        return False

    def _stop(self) -> None:
        if self._process and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(20)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _config(self) -> str:
        user = "user root;" if os.geteuid() == 0 else ""
        return f"""
daemon off; {user} worker_processes 1; pid nginx.pid; error_log error.log;
events {{ worker_connections 1024; }}
http {{
    {_TYPES}
    default_type application/octet-stream;
    log_format ids '$request_method $request_uri $status $http_x_trace_id $http_x_request_id';
    access_log access.log ids;
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    keepalive_requests 100000;
    server {{
        listen 127.0.0.1:{self.port};
        root "{self._root}";
        {self._server}
    }}
}}
"""


if __name__ == "__main__":
    with Nginx(Path(sys.argv[1])) as served:
        print(served.url, flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()
