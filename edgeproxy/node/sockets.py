"""The listening sockets: one a worker, all on one address, held by the supervisor for the node's life.

The kernel spreads new connections over them (SO_REUSEPORT). Since the supervisor holds them, a connection that waits on
a dead worker's socket is served by the worker that replaces it. Knows sockets, nothing of workers.
"""

import ctypes
import errno
import os
import socket
import struct
import time
from typing import Any

from edgeproxy.node.errors import ListenError

_SO_ATTACH_REUSEPORT_CBPF = 51  # not among Python's constants
_TCPI_UNACKED = 24
"""Offset of `tcpi_unacked` in TCP_INFO; for a listening socket it counts the connections that wait to be accepted."""
_RETRY_S = 0.05


class Listeners:
    """The sockets of one address."""

    def __init__(self, address: str, backlog: int) -> None:
        """Refer to `address` ("host:port", "[ipv6]:port"); nothing is bound yet."""
        self.configured = address
        self.address = address
        """The address as bound: where the port was 0, the one that the kernel gave."""
        self._backlog = backlog
        self._family, self._sockaddr = _resolve(address)
        self._sockets: list[socket.socket] = []

    def open(self, count: int, *, patience_s: float = 0.0) -> None:
        """Bind and listen with `count` sockets, trying an address in use again for `patience_s`. Raises ListenError."""
        self._claim(patience_s)
        self._add(count)

    def extend(self, count: int) -> None:
        """Have at least `count` sockets; the new ones get no connections before `spread`. Raises ListenError."""
        if len(self._sockets) < count:
            self.spread(len(self._sockets))
            self._add(count)

    def _add(self, count: int) -> None:
        before = len(self._sockets)
        try:
            while len(self._sockets) < count:
                self._sockets.append(self._bound(reuse_port=True))
                self._sockets[-1].listen(self._backlog)
        except OSError as error:
            self.close_from(before)
            raise self._refused(error) from error

    def fd(self, index: int) -> int:
        """The descriptor of one worker's socket."""
        return self._sockets[index].fileno()

    def set_backlog(self, backlog: int) -> None:
        """Let that many connections wait on each socket."""
        self._backlog = backlog
        for one in self._sockets:
            one.listen(backlog)

    def spread(self, count: int) -> None:
        """Have the kernel choose at random among the first `count` sockets, and none else.

        Closing a socket resets the connections that wait on it: one that is to go must first stop getting new ones.
        """
        ld_random = struct.pack("=HBBi", 0x20, 0, 0, -0x1000 + 56)  # load from SKF_AD_OFF + SKF_AD_RANDOM
        modulo = struct.pack("=HBBI", 0x94, 0, 0, count)
        ret = struct.pack("=HBBI", 0x16, 0, 0, 0)
        code = ctypes.create_string_buffer(ld_random + modulo + ret)
        program = struct.pack("@HP", 3, ctypes.addressof(code))
        self._sockets[0].setsockopt(socket.SOL_SOCKET, _SO_ATTACH_REUSEPORT_CBPF, program)

    def waiting(self, index: int) -> int:
        """How many connections wait to be accepted on one socket."""
        info = self._sockets[index].getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
        return int(struct.unpack_from("=I", info, _TCPI_UNACKED)[0])

    def close_from(self, count: int) -> None:
        """Let go of the sockets from `count` on."""
        while len(self._sockets) > count:
            self._sockets.pop().close()

    def close(self) -> None:
        """Let go of all sockets; workers may still hold theirs."""
        self.close_from(0)

    def __len__(self) -> int:
        return len(self._sockets)

    def _claim(self, patience_s: float) -> None:
        """Make sure that nobody else has the address, and learn the port that the kernel gives for 0.

        SO_REUSEPORT alone would let a second node of this user join in silently, and take half of the connections.
        """
        deadline = time.monotonic() + patience_s
        while not self._probe(last=time.monotonic() > deadline):
            time.sleep(_RETRY_S)

    def _probe(self, *, last: bool) -> bool:
        try:
            with self._bound(reuse_port=False) as probe:
                probe.listen(1)
                host, port = probe.getsockname()[:2]
        except OSError as error:
            if last or error.errno != errno.EADDRINUSE:
                raise self._refused(error) from error
            return False
        self._sockaddr = (self._sockaddr[0], port, *self._sockaddr[2:])
        self.address = f"[{host}]:{port}" if self._family == socket.AF_INET6 else f"{host}:{port}"
        return True

    def _bound(self, *, reuse_port: bool) -> socket.socket:
        made = socket.socket(self._family, socket.SOCK_STREAM)
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if reuse_port:
                made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if self._family == socket.AF_INET6:
                # "[::]" means every address of the host, IPv4's too, whatever the system's default is.
                made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            made.setblocking(False)
            made.bind(self._sockaddr)
        except OSError:
            made.close()
            raise
        return made

    def _refused(self, error: OSError) -> ListenError:
        reason = os.strerror(error.errno) if error.errno else str(error)
        hint = {
            errno.EADDRINUSE: "another program listens there",
            errno.EACCES: "ports below 1024 need root or CAP_NET_BIND_SERVICE",
            errno.EADDRNOTAVAIL: "this host has no such address",
        }.get(error.errno or 0, "")
        return ListenError(f"listen.http = {self.configured!r}: {reason}" + (f" ({hint})" if hint else ""))


def _resolve(address: str) -> tuple[socket.AddressFamily, tuple[Any, ...]]:
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    try:
        found = socket.getaddrinfo(host or None, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, ValueError) as error:
        raise ListenError(f"listen.http = {address!r}: {error}") from error
    family, _, _, _, sockaddr = found[0]
    return family, sockaddr
