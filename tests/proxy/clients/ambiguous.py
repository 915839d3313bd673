"""Requests that two recipients could read in two ways, or that are no HTTP/1 at all, each with the answer it deserves.

Each is followed on its connection by an ordinary request, which must never be looked at: what came before it can't be
trusted to have ended where it seems to. `{path}` stands for a path of the case's own.
"""

from typing import NamedTuple

HOST = b"Host: edge.test\r\n"
GET = b"GET {path} HTTP/1.1\r\n"
POST = b"POST {path} HTTP/1.1\r\n" + HOST
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"


class Case(NamedTuple):
    """A request and how it is answered."""

    name: str
    data: bytes
    status: int = 400
    begun: bool = False
    """Whether its head is fine, so that it may be on its way to the origin when the rest turns out not to be."""

    def at(self, path: str) -> bytes:
        """The request's bytes, for a path."""
        return self.data.replace(b"{path}", path.encode())


def _get(name: str, fields: bytes, status: int = 400) -> Case:
    return Case(name, GET + HOST + fields + b"\r\n", status)


def _line(name: str, line: bytes, status: int = 400) -> Case:
    return Case(name, line + b"\r\n" + HOST + b"\r\n", status)


def _post(name: str, fields: bytes, body: bytes = b"", status: int = 400) -> Case:
    return Case(name, POST + fields + b"\r\n" + body, status)


def _chunks(name: str, body: bytes, status: int = 400) -> Case:
    return Case(name, CHUNKED + body, status, begun=True)


LENGTHS = [  # RFC 9112 §6.1, §6.3
    _post("length-and-coding", b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
    _post("coding-and-length", b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", b"0\r\n\r\n"),
    _post("length-0-and-coding", b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
    _post("two-lengths", b"Content-Length: 5\r\nContent-Length: 6\r\n", b"hello!"),
    _post("two-equal-lengths", b"Content-Length: 5\r\nContent-Length: 5\r\n", b"hello"),
    _post("length-list", b"Content-Length: 5, 5\r\n", b"hello"),
    _post("length-plus", b"Content-Length: +5\r\n", b"hello"),
    _post("length-minus", b"Content-Length: -5\r\n", b"hello"),
    _post("length-hex", b"Content-Length: 0x5\r\n", b"hello"),
    _post("length-space-inside", b"Content-Length: 1 1\r\n", b"hello world"),
    _post("length-underscore", b"Content-Length: 1_1\r\n", b"hello world"),
    _post("length-fraction", b"Content-Length: 5.0\r\n", b"hello"),
    _post("length-empty", b"Content-Length:\r\n", b""),
    _post("length-words", b"Content-Length: five\r\n", b"hello"),
    _post("length-semicolon", b"Content-Length: 5;\r\n", b"hello"),
    _post("length-overflow", b"Content-Length: 99999999999999999999999\r\n", b"hello"),
    _post("length-overflow-by-one", b"Content-Length: 18446744073709551616\r\n", b"hello"),
    _post("length-other-digits", "Content-Length: \u0665\r\n".encode(), b"hello"),
]

CODINGS = [
    _post("coding-identity", b"Transfer-Encoding: identity\r\n", b"0\r\n\r\n", 501),
    _post("coding-gzip", b"Transfer-Encoding: gzip\r\n", b"0\r\n\r\n", 501),
    _post("coding-gzip-chunked", b"Transfer-Encoding: gzip, chunked\r\n", b"0\r\n\r\n", 501),
    _post("coding-chunked-gzip", b"Transfer-Encoding: chunked, gzip\r\n", b"0\r\n\r\n"),
    _post("coding-chunked-twice", b"Transfer-Encoding: chunked, chunked\r\n", b"0\r\n\r\n"),
    _post("coding-two-lines", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
    _post("coding-hidden-line", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n", b"0\r\n\r\n"),
    _post("coding-xchunked", b"Transfer-Encoding: xchunked\r\n", b"0\r\n\r\n", 501),
    _post("coding-chunkedx", b"Transfer-Encoding: chunkedx\r\n", b"0\r\n\r\n", 501),
    _post("coding-quoted", b'Transfer-Encoding: "chunked"\r\n', b"0\r\n\r\n", 501),
    _post("coding-parameter", b"Transfer-Encoding: chunked;x=y\r\n", b"0\r\n\r\n", 501),
    _post("coding-comma", b"Transfer-Encoding: ,chunked\r\n", b"0\r\n\r\n", 501),
    _post("coding-empty", b"Transfer-Encoding:\r\n", b"0\r\n\r\n"),
    _post("coding-vertical-tab", b"Transfer-Encoding: \x0bchunked\r\n", b"0\r\n\r\n"),
    _post("coding-space-before-colon", b"Transfer-Encoding : chunked\r\n", b"0\r\n\r\n"),
    _post("coding-folded", b"Transfer-Encoding:\r\n chunked\r\n", b"0\r\n\r\n"),
    Case("coding-in-1.0", b"POST {path} HTTP/1.0\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    Case(
        "coding-in-1.0-kept-alive",
        b"POST {path} HTTP/1.0\r\n" + HOST + b"Connection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
]

CHUNKS = [  # RFC 9112 §7.1
    _chunks("chunk-size-empty", b"\r\nhello\r\n0\r\n\r\n"),
    _chunks("chunk-size-0x", b"0x5\r\nhello\r\n0\r\n\r\n"),
    _chunks("chunk-size-plus", b"+5\r\nhello\r\n0\r\n\r\n"),
    _chunks("chunk-size-minus", b"-5\r\nhello\r\n0\r\n\r\n"),
    _chunks("chunk-size-words", b"five\r\nhello\r\n0\r\n\r\n"),
    _chunks("chunk-size-underscore", b"1_0\r\n0123456789abcdef\r\n0\r\n\r\n"),
    _chunks("chunk-size-space-before", b" 5\r\nhello\r\n0\r\n\r\n"),
    _chunks("chunk-size-space-behind", b"5 \r\nhello\r\n0\r\n\r\n"),
    _chunks("chunk-size-tab-behind", b"5\t\r\nhello\r\n0\r\n\r\n"),
    _chunks("chunk-size-comma", b"5,5\r\nhello\r\n0\r\n\r\n"),
    _chunks("chunk-size-overflow", b"fffffffffffffffff\r\nhello\r\n0\r\n\r\n"),
    _chunks("chunk-size-overflow-to-5", b"10000000000000005\r\nhello\r\n0\r\n\r\n"),
    _chunks("chunk-size-bare-lf", b"5\nhello\r\n0\r\n\r\n"),
    _chunks("chunk-size-bare-cr", b"5\rhello\r\n0\r\n\r\n"),
    _chunks("chunk-size-nul", b"5\x00\r\nhello\r\n0\r\n\r\n"),
    _chunks("chunk-longer-than-its-size", b"5\r\nhello!\r\n0\r\n\r\n"),
    _chunks("chunk-without-end", b"5\r\nhello0\r\n\r\n"),
    _chunks("chunk-end-bare-lf", b"5\r\nhello\n0\r\n\r\n"),
    _chunks("chunk-end-bare-cr", b"5\r\nhello\r0\r\n\r\n"),
    _chunks("chunk-extension-bare-lf", b"5;a\nhello\r\n0\r\n\r\n"),
    _chunks("chunk-extension-bare-lf-behind-a-value", b"5;a=b\nhello\r\n0\r\n\r\n"),
    _chunks("chunk-extension-bare-cr", b"5;a\rb\r\nhello\r\n0\r\n\r\n"),
    _chunks("chunk-extension-control-byte", b"5;a=\x01\r\nhello\r\n0\r\n\r\n"),
    _chunks("chunk-extension-nul", b"5;a=\x00\r\nhello\r\n0\r\n\r\n"),
    _chunks("chunk-extension-open-quote", b'5;a="b\r\nhello\r\n0\r\n\r\n'),
    _chunks("chunk-extension-behind-space", b"5 x\r\nhello\r\n0\r\n\r\n"),
    _chunks("last-chunk-bare-lf", b"5\r\nhello\r\n0\n\r\n"),
    _chunks("end-bare-lf", b"5\r\nhello\r\n0\r\n\n"),
]

TRAILERS = [  # RFC 9110 §6.5.1
    _chunks("trailer-length", b"0\r\nContent-Length: 5\r\n\r\n"),
    _chunks("trailer-coding", b"0\r\nTransfer-Encoding: chunked\r\n\r\n"),
    _chunks("trailer-host", b"0\r\nHost: other\r\n\r\n"),
    _chunks("trailer-authorization", b"0\r\nAuthorization: Basic eDp5\r\n\r\n"),
    _chunks("trailer-content-encoding", b"0\r\nContent-Encoding: gzip\r\n\r\n"),
    _chunks("trailer-trailer", b"0\r\nTrailer: x\r\n\r\n"),
    _chunks("trailer-space-before-colon", b"0\r\nX : y\r\n\r\n"),
    _chunks("trailer-folded", b"0\r\nX: y\r\n z\r\n\r\n"),
    _chunks("trailer-bare-lf", b"0\r\nX: y\nZ: z\r\n\r\n"),
    _chunks("trailer-bare-cr", b"0\r\nX: y\rZ: z\r\n\r\n"),
    _chunks("trailer-nul", b"0\r\nX: \x00\r\n\r\n"),
    _chunks("trailer-without-colon", b"0\r\nX\r\n\r\n"),
]

FIELDS = [  # RFC 9112 §5
    _get("space-before-colon", b"X : y\r\n"),
    _get("tab-before-colon", b"X\t: y\r\n"),
    _get("host-space-before-colon", b"Host : other\r\n"),
    _get("folded", b"X: y\r\n z\r\n"),
    _get("folded-by-tab", b"X: y\r\n\tz\r\n"),
    _get("folded-empty", b"X: y\r\n \r\n"),
    Case("folded-first-line", GET + b" X: y\r\n" + HOST + b"\r\n"),
    _get("no-colon", b"just words\r\n"),
    _get("no-name", b": y\r\n"),
    _get("name-with-space", b"X Y: z\r\n"),
    _get("name-with-slash", b"X/Y: z\r\n"),
    _get("name-quoted", b'"X": z\r\n'),
    _get("name-with-parenthesis", b"X(Y): z\r\n"),
    _get("name-with-nul", b"X\x00Y: z\r\n"),
    _get("name-with-control-byte", b"X\x01Y: z\r\n"),
    _get("name-not-ascii", "Ä: z\r\n".encode()),
    _get("name-with-del", b"X\x7fY: z\r\n"),
    _get("value-with-nul", b"X: y\x00z\r\n"),
    _get("value-with-control-byte", b"X: y\x01z\r\n"),
    _get("value-with-escape", b"X: y\x1b[31mz\r\n"),
    _get("value-with-backspace", b"X: y\x08z\r\n"),
    _get("value-with-vertical-tab", b"X: y\x0bz\r\n"),
    _get("value-with-form-feed", b"X: y\x0cz\r\n"),
    _get("value-with-del", b"X: y\x7fz\r\n"),
    _get("value-with-bare-cr", b"X: y\rz\r\n"),
    _get("value-with-bare-cr-at-its-end", b"X: y\r\r\n"),
    _get("value-with-bare-lf", b"X: y\nZ: z\r\n"),
    _get("value-that-hides-a-field", b"X: y\rTransfer-Encoding: chunked\r\n"),
    Case("all-bare-lf", b"GET {path} HTTP/1.1\nHost: edge.test\n\n"),
    Case("end-of-head-bare-lf", GET + HOST + b"\n"),
    Case("end-of-head-lf-cr", GET + b"Host: edge.test\n\r\n\r\n"),
]

REQUEST_LINES = [  # RFC 9112 §3
    Case("line-bare-lf", b"GET {path} HTTP/1.1\n" + HOST + b"\r\n"),
    Case("line-bare-cr", b"GET {path} HTTP/1.1\r" + HOST + b"\r\n"),
    _line("two-spaces-before-target", b"GET  {path} HTTP/1.1"),
    _line("two-spaces-behind-target", b"GET {path}  HTTP/1.1"),
    _line("space-at-the-end", b"GET {path} HTTP/1.1 "),
    _line("space-at-the-beginning", b" GET {path} HTTP/1.1"),
    _line("tab-before-target", b"GET\t{path} HTTP/1.1", 501),
    _line("tab-behind-target", b"GET {path}\tHTTP/1.1"),
    _line("space-in-target", b"GET {path} x HTTP/1.1"),
    _line("nul-in-target", b"GET {path}\x00 HTTP/1.1"),
    _line("control-byte-in-target", b"GET {path}\x01 HTTP/1.1"),
    _line("del-in-target", b"GET {path}\x7f HTTP/1.1"),
    _line("bytes-in-target", "GET {path}ä HTTP/1.1".encode()),
    _line("fragment", b"GET {path}#part HTTP/1.1"),
    _line("fragment-behind-query", b"GET {path}?a=b#part HTTP/1.1"),
    _line("no-target", b"GET HTTP/1.1"),
    _line("empty-target", b"GET  HTTP/1.1"),
    _line("relative-target", b"GET index.html HTTP/1.1"),
    _line("dot-target", b"GET ../x HTTP/1.1"),
    _line("star-for-get", b"GET * HTTP/1.1"),
    _line("authority-for-get", b"GET edge.test:80 HTTP/1.1"),
    _line("method-lower-case", b"get {path} HTTP/1.1", 501),
    _line("method-unknown", b"FETCH {path} HTTP/1.1", 501),
    _line("method-with-nul", b"GE\x00T {path} HTTP/1.1", 501),
    _line("method-with-colon", b"GET: {path} HTTP/1.1", 501),
    _line("method-empty", b" {path} HTTP/1.1"),
    _line("connect", b"CONNECT edge.test:443 HTTP/1.1", 501),
    Case("http-0.9", b"GET {path}\r\n\r\n", 505),
    _line("version-lower-case", b"GET {path} http/1.1"),
    _line("version-0.9", b"GET {path} HTTP/0.9", 505),
    _line("version-1.2", b"GET {path} HTTP/1.2", 505),
    _line("version-1.9", b"GET {path} HTTP/1.9", 505),
    _line("version-2.0", b"GET {path} HTTP/2.0", 505),
    _line("version-3.0", b"GET {path} HTTP/3.0", 505),
    _line("version-11", b"GET {path} HTTP/11"),
    _line("version-1.10", b"GET {path} HTTP/1.10"),
    _line("version-1", b"GET {path} HTTP/1"),
    _line("version-comma", b"GET {path} HTTP/1,1"),
    _line("protocol-rtsp", b"GET {path} RTSP/1.0"),
    _line("protocol-rtsp-options", b"OPTIONS {path} RTSP/1.0"),
    _line("protocol-rtsp-describe", b"DESCRIBE {path} RTSP/1.0"),
    _line("protocol-rtsp-method", b"DESCRIBE {path} HTTP/1.1"),
    _line("protocol-ice", b"SOURCE {path} ICE/1.0"),
    _line("protocol-x", b"GET {path} X/1.1"),
    Case("http-2-preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    Case("tls-hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(32)) + b"\x20" + b"\r\n\r\n"),
    Case("ssh", b"SSH-2.0-OpenSSH_9.6\r\n\r\n", 501),
    Case("noise", b"\xff\xfe\xfd\xfc\r\n\r\n"),
]

HOSTS = [  # RFC 9112 §3.2
    Case("no-host", GET + b"\r\n"),
    Case("two-hosts", GET + HOST + b"Host: other\r\n\r\n"),
    Case("two-equal-hosts", GET + HOST + HOST + b"\r\n"),
    Case("two-hosts-other-case", GET + HOST + b"hOST: other\r\n\r\n"),
    Case("two-hosts-in-1.0", b"GET {path} HTTP/1.0\r\n" + HOST + b"Host: other\r\n\r\n"),
    *(
        Case(f"host-{name}", GET + b"Host: " + value + b"\r\n\r\n")
        for name, value in {
            "with-space": b"a b",
            "list": b"a, b",
            "with-slash": b"a/b",
            "with-path": b"edge.test/x",
            "with-user": b"user@edge.test",
            "with-query": b"edge.test?x",
            "with-fragment": b"edge.test#x",
            "with-backslash": b"a\\b",
            "with-quote": b'"a"',
            "with-angle": b"<a>",
            "with-letters-for-port": b"edge.test:http",
            "with-negative-port": b"edge.test:-1",
            "with-two-ports": b"edge.test:80:80",
            "with-open-bracket": b"[::1",
            "with-brackets-inside": b"a[::1]",
            "as-url": b"http://edge.test",
            "not-ascii": "köln.test".encode(),
        }.items()
    ),
    Case("absolute-other-host", b"GET http://other{path} HTTP/1.1\r\n" + HOST + b"\r\n"),
    Case("absolute-other-port", b"GET http://edge.test:81{path} HTTP/1.1\r\n" + HOST + b"\r\n"),
    Case("absolute-empty-host", b"GET http://edge.test{path} HTTP/1.1\r\nHost:\r\n\r\n"),
    Case("absolute-no-host", b"GET http://edge.test{path} HTTP/1.1\r\n\r\n"),
    Case("absolute-https", b"GET https://edge.test{path} HTTP/1.1\r\n" + HOST + b"\r\n"),
    Case("absolute-ftp", b"GET ftp://edge.test{path} HTTP/1.1\r\n" + HOST + b"\r\n"),
    Case("absolute-with-user", b"GET http://user@edge.test{path} HTTP/1.1\r\n" + HOST + b"\r\n"),
    Case("absolute-without-authority", b"GET http://{path} HTTP/1.1\r\n" + HOST + b"\r\n"),
    Case("absolute-one-slash", b"GET http:/edge.test{path} HTTP/1.1\r\n" + HOST + b"\r\n"),
    Case("absolute-with-fragment", b"GET http://edge.test{path}#x HTTP/1.1\r\n" + HOST + b"\r\n"),
]

EXPECTATIONS = [  # RFC 9110 §7.8, §10.1.1
    _get("expects-magic", b"Expect: magic\r\n", 417),
    _post("expects-more", b"Content-Length: 5\r\nExpect: 100-continue, magic\r\n", b"hello", 417),
    _get("upgrade-websocket", b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n", 501),
    _get("upgrade-choice", b"Connection: Upgrade\r\nUpgrade: h2c, websocket\r\n", 501),
    _get("upgrade-tls", b"Connection: keep-alive, upgrade\r\nUpgrade: TLS/1.0\r\n", 501),
]

CASES = [*LENGTHS, *CODINGS, *CHUNKS, *TRAILERS, *FIELDS, *REQUEST_LINES, *HOSTS, *EXPECTATIONS]
