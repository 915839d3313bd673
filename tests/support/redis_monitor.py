"""What a Redis server is asked, as its MONITOR tells."""

import contextlib
import secrets
import threading
from collections.abc import Callable

from redis import Redis, RedisError
from redis.client import Monitor

from tests.support.wait import PATIENCE_S, until

_READ_S = 0.05


class Monitored:
    """What a server is asked: MONITOR's lines, read by a thread."""

    def __init__(self, client: Redis, control: Redis) -> None:
        """Monitor with one client; the other one is for marks."""
        self.lines: list[str] = []
        """The lines so far: `1700000000.000001 [0 127.0.0.1:4242] "GET" "key"`."""
        self._control = control
        self._monitor: Monitor = client.monitor()
        self._closing = False
        self._monitor.__enter__()
        self._thread = threading.Thread(target=self._read, name="MONITOR", daemon=True)
        self._thread.start()

    def until(self, predicate: Callable[[str], bool], *, timeout: float = PATIENCE_S) -> str:
        """Wait for the first line of which this holds."""
        return until(lambda: next(filter(predicate, list(self.lines)), None), "a line of MONITOR", timeout=timeout)

    def flushed(self) -> list[str]:
        """The lines of all commands that were executed by now."""
        mark = secrets.token_hex(8)
        self._control.echo(mark)
        end = self.lines.index(self.until(lambda line: mark in line))
        return [line for line in self.lines[:end] if not line.endswith('"ECHO"')]

    def close(self) -> None:
        """Stop reading."""
        self._closing = True
        self._thread.join()
        self._monitor.__exit__()

    def _read(self) -> None:
        connection = self._monitor.connection
        with contextlib.suppress(RedisError, OSError):  # the server was killed
            while not self._closing:
                if connection.can_read(timeout=_READ_S):
                    self.lines.append(connection.read_response().decode())
