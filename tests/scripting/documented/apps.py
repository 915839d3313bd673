"""Whole applications, WSGI and ASGI, at hosts of their own."""

from mitmproxy.addons import asgiapp


def wsgi(environ, start_response):
    body = environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Type", "text/plain"), ("X-App", "wsgi")])
    return [
        b"%s %s?%s " % tuple(environ[key].encode() for key in ("REQUEST_METHOD", "PATH_INFO", "QUERY_STRING")),
        body,
    ]


async def asgi(scope, receive, send):
    message = await receive()
    await send({"type": "http.response.start", "status": 201, "headers": [(b"x-app", b"asgi")]})
    await send({"type": "http.response.body", "body": scope["path"].encode(), "more_body": True})
    await send({"type": "http.response.body", "body": b" " + message["body"]})


addons = [asgiapp.WSGIApp(wsgi, "wsgi.test", None), asgiapp.ASGIApp(asgi, "asgi.test", None)]
