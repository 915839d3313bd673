"""What can go wrong with a request, typed: each error says which status to answer with, how the record names it, and
why.

Raised and handled inside the proxy only; rendered to the client in `problem`, to the log in `record`.
"""

from http import HTTPStatus
from typing import Literal

Outcome = Literal["ok", "client_abort", "origin_error", "timeout", "refused", "lost"]
"""How a request ended, as its record says. Plain strings: an Enum's member costs 1 µs where it is hashed."""


class ProxyError(Exception):
    """A request that can't be answered as asked."""

    def __init__(self, code: str, status: HTTPStatus, outcome: Outcome, message: str) -> None:
        """`code` is stable and stands in the log; `message` says what happened, to what, and what is allowed."""
        super().__init__(message)
        self.code = code
        self.status = status
        self.outcome = outcome
        self.message = message


class Refusal(ProxyError):
    """The client's request is malformed, too large, or not served here."""

    def __init__(self, code: str, status: HTTPStatus, message: str) -> None:
        """Refuse with a status of the 4xx or 5xx class."""
        super().__init__(code, status, "refused", message)


class ClientTimeout(ProxyError):
    """The client was too slow with its head or body (408)."""

    def __init__(self, code: str, message: str) -> None:
        """Time out what the client owed."""
        super().__init__(code, HTTPStatus.REQUEST_TIMEOUT, "timeout", message)


class ClientGone(ProxyError):
    """The client left, or stopped reading, before it had its response; nobody is there to be answered."""

    def __init__(self, code: str, message: str, *, outcome: Outcome = "client_abort") -> None:
        """Note where the client went."""
        super().__init__(code, HTTPStatus.BAD_REQUEST, outcome, message)


class OriginError(ProxyError):
    """The origin can't be reached, broke off, or sent what is no HTTP (502)."""

    def __init__(self, code: str, message: str, *, status: HTTPStatus = HTTPStatus.BAD_GATEWAY) -> None:
        """Blame the origin; `__cause__` holds the exception behind it."""
        super().__init__(code, status, "origin_error", message)


class OriginTimeout(ProxyError):
    """The origin was silent for longer than the configuration allows (504)."""

    def __init__(self, code: str, message: str) -> None:
        """Time out a phase of the origin's work."""
        super().__init__(code, HTTPStatus.GATEWAY_TIMEOUT, "timeout", message)
