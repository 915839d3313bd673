"""Which requests a script wants to see: mitmproxy's filter expressions, asked of a request before there is a flow.

A flow costs more than a hit, so an expression is first asked of what is there already. It may not be able to tell yet
(`~c 404` needs a response): then the request becomes a flow, and mitmproxy's own filter is asked at each hook.
"""

from collections.abc import Callable

from mitmproxy import flow, flowfilter
from mitmproxy.net.http import url

from edgeproxy.config.filters import parse_filter
from edgeproxy.proxy.exchange import Exchange
from edgeproxy.proxy.fields import render
from edgeproxy.scripting.messages import authority_of

type Decision = bool | None
"""None: it can't be told before there is a response, or more of the request."""
type Decide = Callable[[Exchange], Decision]

_KNOWN_MAX = 8192
_KNOWN_BYTES = 1024


class Selector:
    """One expression."""

    def __init__(self, expression: str) -> None:
        """Compile it; an empty one is for all requests. Raises ValueError where mitmproxy can't parse it."""
        self.expression = expression
        self._filter = parse_filter(expression) if expression else None
        self.decide: Decide = _always if self._filter is None else _compiled(self._filter)

    def matches(self, seen: flow.Flow) -> bool:
        """Whether a flow matches as it is now."""
        return self._filter is None or bool(self._filter(seen))


def _always(exchange: Exchange) -> Decision:
    del exchange
    return True


def _never(exchange: Exchange) -> Decision:
    del exchange
    return False


def _unknown(exchange: Exchange) -> Decision:
    del exchange
    return None


def _compiled(node: flowfilter.TFilter) -> Decide:
    """The question that an expression's node is, asked of a request."""
    match node:
        case flowfilter.FAnd():
            return _all([_compiled(part) for part in node.lst])
        case flowfilter.FOr():
            return _any([_compiled(part) for part in node.lst])
        case flowfilter.FNot():
            return _not(_compiled(node.itm))
        case flowfilter.FMethod():
            return lambda exchange: node.re.search(exchange.method) is not None
        case flowfilter.FUrl():
            return _of_target(lambda exchange: node.re.search(url_of(exchange)) is not None)
        case flowfilter.FDomain():
            return _of_target(lambda exchange: any(map(node.re.search, hosts_of(exchange))))
        case flowfilter.FHeadRequest():
            return lambda exchange: node.re.search(render(exchange.lines)) is not None
        case flowfilter.FHead():
            return lambda exchange: True if node.re.search(render(exchange.lines)) else None
        case flowfilter.FContentTypeRequest():
            return lambda exchange: _has_content_type(exchange, node)
        case flowfilter.FContentType():
            return lambda exchange: True if _has_content_type(exchange, node) else None
        case flowfilter.FAll() | flowfilter.FHTTP():
            return _always
        case flowfilter.FTCP() | flowfilter.FUDP() | flowfilter.FDNS() | flowfilter.FWebSocket():
            return _never
        case flowfilter.FReplay() | flowfilter.FReplayClient() | flowfilter.FReplayServer():
            return _never
    return _unknown


def url_of(exchange: Exchange) -> str:
    """A request's URL as mitmproxy writes it (`pretty_url`)."""
    host, port = url.parse_authority(exchange.host.decode("latin-1"), check=False)
    path = b"" if exchange.target == b"*" else exchange.target
    return f"http://{url.hostport('http', host, port or 80)}{path.decode('utf-8', 'surrogateescape')}"


def hosts_of(exchange: Exchange) -> tuple[str, str]:
    """The host that a request is for, and what mitmproxy takes for it (`pretty_host`), which is the whole Host field
    where its port is no port.
    """
    shown: str = url.parse_authority(exchange.host.decode("latin-1"), check=False)[0]
    return authority_of(exchange.host)[0], shown


def _has_content_type(exchange: Exchange, node: flowfilter.FContentType | flowfilter.FContentTypeRequest) -> bool:
    return any(name.lower() == b"content-type" and node.re.search(value) for name, value in exchange.lines)


def _of_target(found: Callable[[Exchange], bool]) -> Decide:
    """What depends on the target alone is found out once for each."""
    known: dict[bytes, bool] = {}

    def decide(exchange: Exchange) -> Decision:
        key = exchange.key
        answer = known.get(key)
        if answer is None:
            answer = found(exchange)
            if len(key) <= _KNOWN_BYTES:
                if len(known) >= _KNOWN_MAX:
                    known.clear()
                known[key] = answer
        return answer

    return decide


def _all(parts: list[Decide]) -> Decide:
    def decide(exchange: Exchange) -> Decision:
        answer: Decision = True
        for part in parts:
            found = part(exchange)
            if found is False:
                return False
            if found is None:
                answer = None
        return answer

    return decide


def _any(parts: list[Decide]) -> Decide:
    def decide(exchange: Exchange) -> Decision:
        answer: Decision = False
        for part in parts:
            found = part(exchange)
            if found:
                return True
            if found is None:
                answer = None
        return answer

    return decide


def _not(part: Decide) -> Decide:
    def decide(exchange: Exchange) -> Decision:
        found = part(exchange)
        return None if found is None else not found

    return decide
