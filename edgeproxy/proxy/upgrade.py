"""Reading on behind an Upgrade that is not taken: httptools stops at the head of such a request, and skips its body.

A new parser begins in the middle of the request: it is first fed a head of its own that frames the same body, which the
connection never hears of. No I/O.
"""

from typing import TYPE_CHECKING

import httptools

from edgeproxy.proxy.exchange import Exchange

if TYPE_CHECKING:
    from edgeproxy.proxy.http1 import ClientConnection


def parser_behind(client: "ClientConnection", unfinished: Exchange | None) -> httptools.HttpRequestParser:
    """The parser for what follows; `unfinished` is the request whose body comes first."""
    if unfinished is None:
        return httptools.HttpRequestParser(client)
    coding = unfinished.names.get(b"transfer-encoding")
    framing = b"Transfer-Encoding: chunked" if coding else b"Content-Length: " + unfinished.names[b"content-length"]
    callbacks = _BodyFirst(client)
    parser = httptools.HttpRequestParser(callbacks)
    parser.feed_data(b"POST / HTTP/1.1\r\n%b\r\n\r\n" % framing)
    callbacks.begin()
    return parser


class _BodyFirst:
    """A connection's callbacks, without those for the first head."""

    def __init__(self, client: "ClientConnection") -> None:
        self._client = client
        self._is_heard = False

    def begin(self) -> None:
        self._is_heard = True

    def on_message_begin(self) -> None:
        if self._is_heard:
            self._client.on_message_begin()

    def on_url(self, url: bytes) -> None:
        if self._is_heard:
            self._client.on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._is_heard:
            self._client.on_header(name, value)

    def on_headers_complete(self) -> None:
        if self._is_heard:
            self._client.on_headers_complete()

    def on_body(self, data: bytes) -> None:
        self._client.on_body(data)

    def on_message_complete(self) -> None:
        self._client.on_message_complete()
