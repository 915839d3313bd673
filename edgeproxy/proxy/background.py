"""Nobody: the client of a fetch that the edge makes on its own account. It takes whatever it is sent, at once."""

from typing import TYPE_CHECKING

from edgeproxy.proxy.exchange import Exchange
from edgeproxy.proxy.fields import FieldLines
from edgeproxy.proxy.framing import Framing
from edgeproxy.proxy.http1 import ClientConnection
from edgeproxy.proxy.record import quoted

if TYPE_CHECKING:
    from edgeproxy.proxy.errors import ProxyError
    from edgeproxy.proxy.pipeline import Pipeline


class NoClient(ClientConnection):
    """Stands where a client's connection does; what the calls mean is said there."""

    def __init__(self, pipeline: "Pipeline", cause: ClientConnection) -> None:
        """`cause` is the client whose request caused the fetch: the origin is told its address as usual, and gets its
        baggage if it is trusted.
        """
        super().__init__(pipeline)
        self.address = cause.address
        self.trusted = cause.trusted

    def persistence(self, exchange: Exchange) -> str:
        """No connection, no field."""
        del exchange
        return ""

    def answer(self, exchange: Exchange, head: str, body: bytes | memoryview) -> None:
        """Nobody is there to read it."""

    def start(self, exchange: Exchange, head: bytes, framing: Framing) -> None:
        """Nobody is there to read it."""
        del head, framing
        exchange.response_started = True

    def interim(self, head: bytes) -> None:
        """Nobody is there to read it."""

    def send(self, data: bytes) -> None:
        """Nobody is there to read it."""

    def end(self, exchange: Exchange, trailers: FieldLines | None) -> None:
        """Nobody is there to read it."""

    def cut(self, exchange: Exchange) -> None:
        """Nobody is there to notice."""

    def abort(self, error: "ProxyError") -> None:
        """There is no connection."""


class OthersClient(ClientConnection):
    """A client that is connected to another program: what is asked of its request, and no connection.

    For who makes decisions and heads as a worker does, but has no pipeline (`edgeproxy.addons`).
    """

    def __init__(self, address: str, trusted: bool) -> None:
        """`address` is empty where there is none."""
        self.address = address
        self.address_json = quoted(address.encode()) if address else "null"
        self.trusted = trusted
        self.script = None
