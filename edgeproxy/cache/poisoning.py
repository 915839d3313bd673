"""What must not be stored though RFC 9111 allows it, because somebody may have asked for it in bad faith. Pure.

*Web cache poisoning*: a request field that the key does not hold changes the response for everybody. *Web cache
deception*: somebody's private page is asked for under a path that looks like a public file.
"""

import re
from urllib.parse import unquote_to_bytes

from edgeproxy.cache.directives import Fields

_ACTED_ON = frozenset(
    {
        *(b"x-forwarded-scheme", b"x-forwarded-port", b"x-forwarded-prefix", b"x-forwarded-server", b"x-forwarded-ssl"),
        *(b"x-forwarded-protocol", b"x-forwarded-path", b"x-forwarded-uri", b"x-forwarded-url", b"x-forwarded-by"),
        *(b"x-host", b"x-original-host", b"x-http-host-override", b"x-backend-host", b"x-forwarded-host-original"),
        *(b"x-original-url", b"x-original-uri", b"x-rewrite-url", b"x-url-rewrite", b"x-override-url", b"request-uri"),
        *(b"x-http-method-override", b"x-http-method", b"x-method-override", b"x-scheme", b"x-url-scheme"),
        *(b"front-end-https", b"base-url", b"x-base-url", b"x-script-name", b"x-invoke-path", b"x-invoke-status"),
        *(b"x-middleware-prefetch", b"x-middleware-subrequest", b"x-envoy-original-path", b"x-wap-profile"),
    }
)
"""Request fields that origins and their frameworks are known to act on, and that the edge passes on as they come."""
_SET_HERE = frozenset({b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"forwarded", b"via", b"host"})
"""Fields that the edge sets itself, so that the client's own can't reach the origin under this spelling."""


def has_unkeyed_input(request: Fields, vary: tuple[bytes, ...]) -> bool:
    """Whether the request has a field that origins act on and that does not select the stored response.

    Many origins take `_` for `-`, so both spellings count, the other one also of what the edge sets itself.
    """
    if _ACTED_ON.isdisjoint(request) and b"_" not in b"".join(request):
        return False
    for name in request:
        dashed = name.replace(b"_", b"-")
        if (dashed in _ACTED_ON or (dashed in _SET_HERE and dashed != name)) and name not in vary:
            return True
    return False


_KINDS: tuple[tuple[bytes, tuple[bytes, ...]], ...] = (
    (b"css", (b"text/css",)),
    (b"js mjs cjs", (b"text/javascript", b"application/javascript", b"application/x-javascript", b"text/ecmascript")),
    (
        b"json map webmanifest",
        (b"application/json", b"application/manifest+json", b"application/geo+json", b"text/json", b"text/plain"),
    ),
    (b"png jpg jpeg jpe jfif gif webp avif bmp ico cur svg svgz tif tiff heic heif apng jxl", (b"image/",)),
    (b"woff woff2 ttf otf eot", (b"font/", b"application/")),
    (b"mp4 m4v webm mov avi mkv mpg mpeg ogv flv wmv 3gp m3u8 mpd", (b"video/", b"audio/", b"application/")),
    (b"mp3 m4a ogg oga opus wav flac aac mid midi weba", (b"audio/", b"video/", b"application/")),
    (b"zip gz tgz bz2 xz zst 7z rar tar jar war ear apk dmg iso exe msi bin deb rpm pkg swf wasm", (b"application/",)),
    (b"pdf doc docx xls xlsx ppt pptx odt ods odp rtf epub", (b"application/", b"text/rtf")),
    (b"txt csv tsv md log", (b"text/plain", b"text/csv", b"text/tab-separated-values", b"text/markdown")),
)
_TYPES = {b"." + extension: types for extensions, types in _KINDS for extension in extensions.split()}
"""Extensions of what is commonly taken for a public file, and how their media types begin."""
_DOCUMENTS = (b"application/json", b"application/xhtml", b"application/xml", b"application/problem", b"application/ld+")
"""Pages and data, which `application/` is not meant to let through."""
_CLIMBS = re.compile(rb"(?:^|[/\\])\.\.(?:[;/\\]|$)")


def is_deceptive(target: bytes, status: int, response: Fields) -> bool:
    """Whether a successful response is not what its path looks like: to be asked where only the route or a heuristic
    makes it fresh, as no origin has said that it may be shared.

    That is so when a file's extension stands for another kind of content, and when an encoded path climbs out of the
    folder that it seems to be in.
    """
    if status >= 300:
        return False
    path = target.partition(b"?")[0]
    if (b".." in path or b"%" in path) and _climbs(path):
        return True
    types = _TYPES.get(_extension(path))
    if types is None:
        return False
    media = response.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if media == b"application/octet-stream":
        return False
    return not media.startswith(types) or (b"application/" in types and media.startswith(_DOCUMENTS))


def _extension(path: bytes) -> bytes:
    _, dot, extension = path[path.rfind(b"/") + 1 :].rpartition(b".")
    return (dot + extension).lower()


def _climbs(path: bytes) -> bool:
    # Twice: what decodes to an escape is decoded again by the next in line.
    return _CLIMBS.search(unquote_to_bytes(unquote_to_bytes(path))) is not None
