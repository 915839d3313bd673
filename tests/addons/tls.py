"""A scripted origin behind TLS."""

import socket
import ssl

import trustme

from tests.support import Origin


class TlsOrigin(Origin):
    """An `Origin` that speaks TLS, with this certificate."""

    def __init__(self, certificate: trustme.LeafCert) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(self._context)
        super().__init__()
        self.url = self.url.replace("http://127.0.0.1", "https://localhost")

    def _serve(self, sock: socket.socket, number: int) -> None:
        with self._lock:
            self._open.discard(sock)
        try:
            secured = self._context.wrap_socket(sock, server_side=True)
        except OSError:
            sock.close()  # the edge does not believe the certificate
            return
        with self._lock:
            self._open.add(secured)
        super()._serve(secured, number)
