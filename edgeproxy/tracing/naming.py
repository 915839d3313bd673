"""What a request's span is called: to those who look at it, and to those who sample by it.

Pure. A name is one of few, whatever clients send: the methods that OpenTelemetry's conventions know, and the routes.
"""

METHODS = frozenset({"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"})
"""Those that http.request.method may name."""


def span_name(method: str | None, route: str | None) -> str:
    """`GET /api/*`, or the method alone where no route matches; `HTTP` stands for methods that are not known."""
    word = method if method in METHODS else "HTTP"
    return f"{word} {route}" if route else word
