"""What stands where a client does, for a request that operators' scripts want to see.

The pipeline sends to it as to any client; the scripts see all of that first, and what they make of it goes to the real
one. Knows of scripts only what a `Run` is; when a request gets such a stand-in, and when that is over, is `scripted`'s
business.
"""

from typing import TYPE_CHECKING, Protocol

from edgeproxy.proxy.errors import ProxyError
from edgeproxy.proxy.exchange import Exchange
from edgeproxy.proxy.fields import FieldLines
from edgeproxy.proxy.framing import Framing
from edgeproxy.proxy.http1 import ClientConnection
from edgeproxy.proxy.record import ScriptPart

if TYPE_CHECKING:
    from edgeproxy.proxy.scripted import ScriptedPipeline


class Run(Protocol):
    """One request's way through the scripts."""

    status: int
    """That was sent to the client, 0: none."""
    bytes_out: int
    """Of the body that was sent to the client."""
    is_own: bool
    """Whether a script made the response, and the pipeline has no part in it."""

    @property
    def is_early(self) -> bool:
        """Whether the client had its response before what came from the pipeline was whole."""

    @property
    def is_taking(self) -> bool:
        """Whether it takes more of the response."""

    @property
    def is_waiting(self) -> bool:
        """Whether a hook is at work."""

    @property
    def is_delivered(self) -> bool:
        """Whether the client has all that it gets."""

    def begin(self) -> None:
        """The request's head is there."""

    def request_body(self, data: bytes) -> None:
        """A piece of the request's body came."""

    def request_complete(self) -> None:
        """The request is whole."""

    def answered(self, head: str, body: bytes | memoryview) -> None:
        """A whole response is there; `head` lacks its blank line."""

    def started(self, head: str) -> None:
        """A response has begun; `head` lacks its blank line."""

    def piece(self, data: bytes) -> None:
        """A piece of the response's body is there."""

    def ended(self, trailers: FieldLines | None) -> None:
        """The response is whole."""

    def fail(self, error: ProxyError) -> None:
        """Nothing more comes of it: what is still sent, the edge sends itself."""

    def close(self) -> ScriptPart:
        """It is over: let go of everything, and say what the record is to have."""


class Intermediary(ClientConnection):
    """Stands where the client's connection does, for a request that scripts want to see."""

    def __init__(self, pipeline: "ScriptedPipeline", client: ClientConnection, run: Run) -> None:
        """Stand for this client; `run` sees what it is to be sent."""
        # No more than what the pipeline asks of a client: a parser would know its connection, and only the cycle
        # collector could free the two.
        self.pipeline = pipeline
        self.client = client
        self.script = None
        self.run: Run | None = run
        """None once the record is made: what the pipeline still sends is the edge's own, and no script's business."""
        self.is_over = False
        """Whether the pipeline has done its part."""
        self.address = client.address
        self.address_json = client.address_json
        self.trusted = client.trusted

    @property
    def is_congested(self) -> bool:
        """Whether more is sent than scripts and client take. Once the client has all that it gets, nobody is kept
        waiting: it may be taking the response to its next request.
        """
        run = self.run
        if run is not None and run.is_delivered:
            return False
        return (run is not None and not run.is_taking) or self.client.is_congested

    def answer(self, exchange: Exchange, head: str, body: bytes | memoryview) -> None:
        """Have the scripts see a whole response."""
        if self.run is None:
            self.client.answer(exchange, head, body)
        else:
            self.run.answered(head, body)

    def start(self, exchange: Exchange, head: bytes, framing: Framing) -> None:
        """Have the scripts see a response's head. It is framed anew where it goes out."""
        del exchange, framing
        if self.run is not None:
            self.run.started(head.decode("latin-1").removesuffix("\r\n"))

    def send(self, data: bytes) -> None:
        """Have the scripts see a piece of the body."""
        if self.run is not None:
            self.run.piece(data)

    def end(self, exchange: Exchange, trailers: FieldLines | None) -> None:
        """Have the scripts see the body's end."""
        del exchange
        if self.run is not None:
            self.run.ended(trailers)

    def persistence(self, exchange: Exchange) -> str:
        """Nothing: what the connection needs is said where the response goes out."""
        del exchange
        return ""

    def interim(self, head: bytes) -> None:
        """Pass on a 1xx response."""
        self.client.interim(head)

    def cut(self, exchange: Exchange) -> None:
        """Break off."""
        self.client.cut(exchange)

    def pause_body(self) -> None:
        """The origin takes the request's body more slowly than it comes."""
        self.client.pause_body()

    def resume_body(self) -> None:
        """The origin has caught up."""
        self.client.resume_body()


def run_of(exchange: Exchange) -> Run | None:
    """A request's way through the scripts; None where none sees it, or its record is made."""
    client = exchange.client
    return client.run if isinstance(client, Intermediary) else None
