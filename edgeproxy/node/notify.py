"""What a service manager is told: systemd's notification protocol, datagrams of KEY=VALUE lines to $NOTIFY_SOCKET.

Written out here because it is 25 lines and there is no small, well-kept library for it: sdnotify's last release is of
2017, the others bind libsystemd and need its headers and a compiler. Without $NOTIFY_SOCKET nothing is sent. A manager
that can't be reached is no reason to stop serving: errors are swallowed.
"""

import contextlib
import os
import socket
import time
from collections.abc import Mapping


class Notifier:
    """Tells the service manager how this process is doing."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        """Read where to send to, and how often the watchdog wants to hear."""
        address = environ.get("NOTIFY_SOCKET", "")
        # A leading @ stands for the NUL of Linux's abstract socket names.
        self._address = "\0" + address[1:] if address.startswith("@") else address
        mine = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        usec = environ.get("WATCHDOG_USEC", "")
        self.watchdog_s = int(usec) / 1e6 if mine and usec.isascii() and usec.isdigit() else 0.0
        """The longest silence that the watchdog bears, 0 when there is none; call `watchdog` twice as often."""

    def ready(self, status: str) -> None:
        """Start-up or a reload is over."""
        self._send("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """A reload begins; `ready` ends it. The time lets Type=notify-reload match the message to its signal."""
        usec = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send("RELOADING=1", f"MONOTONIC_USEC={usec}", "STATUS=reloading")

    def stopping(self) -> None:
        """The process is on its way out."""
        self._send("STOPPING=1", "STATUS=draining")

    def watchdog(self) -> None:
        """The event loop is alive."""
        self._send("WATCHDOG=1")

    def _send(self, *lines: str) -> None:
        if not self._address:
            return
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            out.setblocking(False)  # not to be held up by a manager that does not read
            out.sendto("\n".join(lines).encode(), self._address)
