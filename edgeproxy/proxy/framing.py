"""How the end of a response body is told to a client (RFC 9112 §6.3)."""

from enum import Enum


class Framing(Enum):
    """The four ways."""

    NONE = "none"
    LENGTH = "length"
    CHUNKED = "chunked"
    CLOSE = "close"
