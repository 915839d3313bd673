"""What goes to the client: of what is stored, of what the origin sent, or of the edge's own making."""

import time
from http import HTTPStatus
from typing import NamedTuple

from edgeproxy.addons.errand import Fetched
from edgeproxy.addons.node import Node
from edgeproxy.cache import Entry
from edgeproxy.ledger import CacheWord
from edgeproxy.proxy import problem, response
from edgeproxy.proxy.exchange import Exchange
from edgeproxy.proxy.serving import serving


class Answer(NamedTuple):
    """A response as it goes to the client."""

    head: str
    """Its blank line left out."""
    body: bytes


class Answering:
    """One request's answer."""

    def __init__(self, node: Node, exchange: Exchange) -> None:
        """Answer a request that has its plan."""
        self._node = node
        self._exchange = exchange
        self._origin_s = 0.0
        """How long the origin took for the head of its response."""

    def _serve(self, entry: Entry, word: CacheWord) -> Answer:
        """What is stored, or the part of it that was asked for."""
        exchange = self._exchange
        exchange.cache = word
        exchange.cache_age = age = max(0, exchange.now_ns - entry.born_ns) // 1_000_000_000
        exchange.cache_ttl = (entry.fresh_until_ns - exchange.now_ns) // 1_000_000_000
        exchange.cache_tier = entry.tier
        exchange.filled_by = entry.filled_by
        exchange.status, head, body = serving(exchange, entry)
        elapsed_s = time.monotonic() - exchange.started
        decoration = self._node.decorator.stored(exchange, entry, elapsed_s, self._origin_s)
        return Answer(f"{head}Age: {age}\r\n{decoration}{exchange.client.persistence(exchange)}", bytes(body))

    def _fetched(self, fetched: Fetched, *, is_stored: bool) -> Answer:
        """The origin's response as it is."""
        exchange, node = self._exchange, self._node
        names = fetched.names
        framing = response.framing(exchange, fetched.status, has_length=b"content-length" in names)
        elapsed_s = time.monotonic() - exchange.started
        decoration = node.decorator.fetched(exchange, elapsed_s, self._origin_s, is_stored)
        lines = node.intake.kept(fetched)
        head = response.head(exchange, fetched.status, fetched.reason, lines, names, framing, decoration)
        return Answer(head.decode("latin-1").removesuffix("\r\n"), fetched.body)

    def _unchanged(self, entry: Entry) -> Answer:
        """The client has what has just been fetched: it gets a 304, the cache the body."""
        exchange = self._exchange
        exchange.status = 304
        elapsed_s = time.monotonic() - exchange.started
        decoration = self._node.decorator.stored(exchange, entry, elapsed_s, self._origin_s)
        return Answer(f"{entry.head_304}{decoration}{exchange.client.persistence(exchange)}", b"")

    def _own(self, status: HTTPStatus, body: bytes) -> Answer:
        """An answer of the edge's own."""
        exchange = self._exchange
        exchange.status = int(status)
        elapsed_s = time.monotonic() - exchange.started
        decoration = self._node.decorator.own(exchange, elapsed_s, self._origin_s)
        sent = b"" if exchange.method == b"HEAD" else body
        return Answer(f"{problem.head(status, len(body))}{decoration}{exchange.client.persistence(exchange)}", sent)
