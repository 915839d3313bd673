"""What an unsafe request makes invalid (RFC 9111 §4.4). Pure."""

from urllib.parse import urljoin, urlsplit

from edgeproxy.cache.directives import Fields

_SAFE = frozenset({b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PROPFIND", b"REPORT", b"SEARCH"})
_PORTS = {"http": 80, "https": 443}


def invalidated(
    method: bytes, status: int, scheme: bytes, host: bytes, target: bytes, response: Fields
) -> tuple[bytes, ...]:
    """URLs (`scheme://host/path?query`) whose stored responses a request has made invalid (RFC 9111 §4.4).

    The target first, then Location and Content-Location, resolved, where they are of the same origin. Nothing after a
    safe method or an error; a method that is not known to be safe is taken not to be.
    """
    if method in _SAFE or not 200 <= status < 400 or not target.startswith(b"/"):
        return ()
    base = b"%b://%b" % (scheme, host)
    urls = [base + target]
    for name in (b"location", b"content-location"):
        if name in response:
            found = _same_origin(base, target, response[name])
            if found is not None and found not in urls:
                urls.append(found)
    return tuple(urls)


def _same_origin(base: bytes, target: bytes, reference: bytes) -> bytes | None:
    """A URI reference resolved against the target (RFC 3986 §5), None when it leads to another origin or nowhere."""
    try:
        own = urlsplit(base.decode("latin-1"))
        resolved = urlsplit(urljoin((base + target).decode("latin-1"), reference.decode("latin-1")))
        if (resolved.scheme, resolved.hostname, resolved.port or _PORTS.get(resolved.scheme)) != (
            own.scheme,
            own.hostname,
            own.port or _PORTS.get(own.scheme),
        ):
            return None
    except ValueError:
        return None
    query = f"?{resolved.query}" if resolved.query else ""
    return base + f"{resolved.path or '/'}{query}".encode("latin-1")
