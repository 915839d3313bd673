"""A network that swallows everything: a proxy in front of a server on this machine."""

import contextlib
import socket
import struct
import threading

HOST = "127.0.0.1"
_CONNECT_S = 5.0
_PIECE_BYTES = 65536


class Blackhole:
    """A TCP proxy that can silently stop forwarding: connections stay open, or open, and nothing comes of them."""

    def __init__(self, upstream_port: int) -> None:
        """Listen on a free port."""
        self._upstream_port = upstream_port
        self._is_cut = False
        self._open: set[_Passage] = set()
        self._lock = threading.Lock()
        self._listener = socket.create_server((HOST, 0), backlog=1024)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, name=f"blackhole {self.port}", daemon=True).start()

    def cut(self) -> None:
        """Swallow what comes from now on, in both directions."""
        with self._lock:
            self._is_cut = True
            for passage in self._open:
                passage.lost = True

    def mend(self) -> None:
        """Forward again, on new connections; those that were cut are closed."""
        with self._lock:
            self._is_cut = False
            lost = [passage for passage in self._open if passage.lost]
        for passage in lost:
            passage.end()

    def close(self) -> None:
        """Stop listening and close everything."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            left = list(self._open)
        for passage in left:
            passage.end()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with self._lock:
            passage = _Passage(client, self._is_cut)
            self._open.add(passage)
        try:
            passage.forward(self._upstream_port)
        finally:
            with self._lock:
                self._open.discard(passage)


class _Passage:
    """A client's connection and the one that it leads to; one that was ever cut is lost."""

    def __init__(self, client: socket.socket, lost: bool) -> None:
        self.lost = lost
        self._ended = threading.Event()
        self._sockets = [client]

    def forward(self, port: int) -> None:
        """Forward until both sides have closed; a lost one stays until it is ended."""
        (client,) = self._sockets
        try:
            if self.lost:
                self._swallow(client)
                return
            server = socket.create_connection((HOST, port), timeout=_CONNECT_S)
            server.settimeout(None)
            self._sockets.append(server)
            for sock in self._sockets:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            back = threading.Thread(target=self._pump, args=(server, client), daemon=True)
            back.start()
            self._pump(client, server)
            back.join()
        except OSError:  # nobody listens there
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        finally:
            for sock in self._sockets:
                sock.close()

    def end(self) -> None:
        """Close both connections."""
        self._ended.set()
        for sock in list(self._sockets):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(_PIECE_BYTES):
                if not self.lost:
                    sink.sendall(data)
        if self.lost:
            self._ended.wait()
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def _swallow(self, source: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while source.recv(_PIECE_BYTES):
                pass
        self._ended.wait()
