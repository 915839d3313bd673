"""One attempt to have an origin answer: its address, its phases' times, how it ended. Values only."""

from edgeproxy.proxy.errors import ProxyError


class Attempt:
    """What is known of one attempt; a phase that did not happen is None. Times in seconds."""

    __slots__ = (
        "address",
        "connect_s",
        "dns_s",
        "ended",
        "error",
        "first_byte_s",
        "reused",
        "scheme",
        "send_s",
        "span_id",
        "started",
        "status",
        "tls_s",
        "transfer_s",
    )

    def __init__(self, span_id: str, started: float) -> None:
        """Begin an attempt at a monotonic time; `span_id` is its CLIENT span's, the parent of the origin's spans."""
        self.span_id = span_id
        self.started = started
        self.ended: float | None = None
        """The monotonic time at which it was over; None: it is not."""
        self.address = ""
        self.scheme = "http"
        self.reused = False
        self.dns_s: float | None = None
        self.connect_s: float | None = None
        self.tls_s: float | None = None
        self.send_s: float | None = None
        self.first_byte_s: float | None = None
        self.transfer_s: float | None = None
        self.status = 0
        self.error: ProxyError | None = None
