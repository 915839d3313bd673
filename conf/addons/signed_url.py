"""Signed URLs: what is protected is served only to those who were given a link to it, and only until the link expires.

A link carries a token, `?token=KEY.EXPIRES.SCOPE.SIGNATURE`: an HMAC over host, path and expiry, by a key that the site
and the edge share. The token is checked here and taken off: neither the cache key nor the origin ever sees it.
Documentation: docs/addons/signed-url.md. A mitmproxy script: `mitmdump -s signed_url.py` runs it as well, and
`python signed_url.py KEYS_FILE URL` signs a URL.

This script decides who may see what. Load it with `on_error = "refuse"` and without a filter expression.
"""

import argparse
import hashlib
import hmac
import json
import logging
import os
import re
import time
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from mitmproxy import ctx, exceptions, http
from mitmproxy.addonmanager import Loader

logger = logging.getLogger(__name__)

MIN_SECRET = 16
"""Characters that a secret has at least."""
RELOAD_S = 1.0
"""How often the file of keys is looked at."""
_TOKEN = re.compile(r"([A-Za-z0-9_-]{1,32})\.([0-9]{1,12})\.(url|[1-9][0-9]?)\.([A-Za-z0-9_-]{43})", re.ASCII)
_NOBODYS = os.urandom(32)
"""What a token with an unknown key is checked by, so that it takes as long as any other."""
_STEERING = frozenset(
    {
        *("x-original-url", "x-original-uri", "x-rewrite-url", "x-url-rewrite", "x-override-url", "request-uri"),
        *("x-forwarded-uri", "x-forwarded-url", "x-forwarded-path", "x-invoke-path", "x-envoy-original-path"),
        *("x-http-method", "x-http-method-override", "x-method-override"),
    }
)
"""Headers by which some origins are made to serve another path, or do another thing, than was checked here."""
_AMBIGUOUS = re.compile(r"[\x00-\x1f\x7f?#\\]|/[. ]+(?=[/;]|$)|^(?!/)")
"""What servers disagree about in a path: dot segments, `\\`, control characters, what ends it or is none at all."""


class Refused(Exception):
    """Why a request is not served: a word for the client and the log, and the status."""

    def __init__(self, reason: str, status: int = 403) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status


class SignedUrl:
    """Options: what is protected, where the keys are, what the query parameter is called."""

    def __init__(self) -> None:
        self.keys: dict[str, bytes] = {}
        self.changed_ns = 0
        self.looked_at = 0.0

    def load(self, loader: Loader) -> None:
        add = loader.add_option
        add("signed_url_protect", Sequence[str], ["/"], "Paths that need a token, and all below them.")
        add("signed_url_keys_file", str, "", "A file of keys: a line each, its name and its secret.")
        add("signed_url_keys_env", str, "SIGNED_URL_KEYS", "Where there is no file: the variable that has the same.")
        add("signed_url_parameter", str, "token", "The query parameter that has the token.")
        add("signed_url_methods", Sequence[str], ["GET", "HEAD", "OPTIONS"], "What a token is good for.")

    def configure(self, updated: set[str]) -> None:
        if updated & {"signed_url_keys_file", "signed_url_keys_env"}:
            try:
                self.read_keys()
            except (OSError, ValueError) as error:
                raise exceptions.OptionsError(f"the keys of signed URLs can't be read: {error}") from None
        if "signed_url_protect" in updated and not all(path[:1] == "/" for path in ctx.options.signed_url_protect):
            raise exceptions.OptionsError("signed_url_protect: a path begins with /")

    def requestheaders(self, flow: http.HTTPFlow) -> None:
        """Check the token and take it off; refuse what has no good one, and what can't be checked."""
        try:
            self.admit(flow)
        except Refused as refused:
            flow.metadata.setdefault("edge", {"log": {}})["log"]["token"] = f"refused: {refused.reason}"
            flow.response = refusal(refused)
        except Exception:  # whatever `on_error` says: a fault in here opens nothing
            logger.exception("a request could not be checked, and is refused")
            flow.response = refusal(Refused("error", 500))

    def admit(self, flow: http.HTTPFlow) -> None:
        """Let a request through, its token taken off; raises Refused."""
        request = flow.request
        for name in [name for name in request.headers if name.lower().replace("_", "-") in _STEERING]:
            del request.headers[name]
        if not is_protected(request.path, ctx.options.signed_url_protect):
            return
        tokens, target = take_parameter(request.path, ctx.options.signed_url_parameter)
        key = self.check(tokens, request.method, host_of(request), target)
        flow.metadata.setdefault("edge", {"log": {}})["log"]["token"] = key
        request.path = target

    def check(self, tokens: Sequence[str], method: str, host: str, target: str) -> str:
        """The name of the key by which a request is allowed; raises Refused."""
        if len(tokens) != 1 or not tokens[0]:
            raise Refused("several tokens" if len(tokens) > 1 else "no token")
        found = _TOKEN.fullmatch(tokens[0])
        if not found:
            raise Refused("malformed token")
        key, expires, scope, signature = found.groups()
        self.refresh_keys()
        covered = covered_by(scope, target)
        expected = sign(self.keys.get(key, _NOBODYS), key, expires, scope, host, covered or target)
        if not hmac.compare_digest(signature, expected) or key not in self.keys or covered is None:
            raise Refused("wrong token")
        if int(expires) <= time.time():  # asked last: only who once had a link learns that it has expired
            raise Refused("expired token", 410)
        if method not in ctx.options.signed_url_methods:
            raise Refused("method")
        return key

    def read_keys(self) -> None:
        """Read the keys from the file, or else from the environment. Raises OSError, ValueError."""
        path = ctx.options.signed_url_keys_file
        if path:
            status = Path(path).stat()
            if status.st_mode & 0o007:
                logger.warning("%s has secrets, and everybody on this machine may read it", path)
            self.changed_ns = status.st_mtime_ns
            self.keys = parse_keys(Path(path).read_text(encoding="utf-8"))
        else:
            self.keys = parse_keys(os.environ.get(ctx.options.signed_url_keys_env, ""))

    def refresh_keys(self) -> None:
        """Read the file again when it has changed, at most once a second; what can't be read changes nothing."""
        path = ctx.options.signed_url_keys_file
        now = time.monotonic()
        if not path or now - self.looked_at < RELOAD_S:
            return
        self.looked_at = now
        try:
            if Path(path).stat().st_mtime_ns != self.changed_ns:
                self.read_keys()
        except (OSError, ValueError) as error:
            logger.error("the keys of signed URLs stay as they are: %s", error)


def sign(secret: bytes, key: str, expires: str, scope: str, host: str, covered: str) -> str:
    """The signature of a token. No part can hold a line break, so no two texts are one."""
    text = f"signed-url-1\n{key}\n{expires}\n{scope}\n{host}\n{covered}"
    digest = hmac.digest(secret, text.encode("utf-8", "surrogateescape"), hashlib.sha256)
    return urlsafe_b64encode(digest).rstrip(b"=").decode()


def covered_by(scope: str, target: str) -> str | None:
    """What of a target a token's scope covers: with `url` path and query as they are, with a number that many leading
    folders of the path, and so everything in them. None where the target has no such folder, or may lead out of it.
    """
    if scope == "url":
        return target
    folders = target.partition("?")[0].split("/")[1:-1]
    if len(folders) < int(scope) or is_ambiguous(target):
        return None
    return "/".join(["", *folders[: int(scope)], ""])


def is_protected(target: str, protected: Sequence[str]) -> bool:
    """Whether a target is one of these paths, or below one, in any way in which an origin may read it."""
    paths = ["".join(f"/{name}" for name in _names(path.lower())) + "/" for path in readings(target)]
    return is_ambiguous(target) or any(
        path.startswith(prefix.lower().rstrip("/") + "/") for path in paths for prefix in protected
    )


def is_ambiguous(target: str) -> bool:
    """Whether servers may disagree about where a target's path leads, or it is escaped more often than anybody does."""
    paths = readings(target)
    has_escaped_slashes = paths[0].count("/") != paths[-1].count("/")
    return (
        paths[-1] != paths[-2]
        or any(_AMBIGUOUS.search(path) for path in paths)
        # `/a;b%2fc`: some end the parameter at the slash, some at the end
        or (has_escaped_slashes and any(";" in path for path in paths))
    )


def readings(target: str) -> list[str]:
    """A target's path as it is, and with its escapes decoded once, twice, and so on."""
    paths = [target.partition("?")[0]]
    for _ in range(4):
        paths.append(unquote(paths[-1], encoding="latin-1"))
    return paths


def _names(path: str) -> list[str]:
    """A path's segments without their `;parameters`, and the dots and spaces at the end that Windows drops; empty ones,
    which many servers skip, left out.
    """
    return [name for segment in path.split("/") if (name := segment.partition(";")[0].rstrip(". "))]


def take_parameter(target: str, name: str) -> tuple[list[str], str]:
    """The values of a query parameter, however its name is escaped, and the target without it, otherwise as it came."""
    path, mark, query = target.partition("?")
    parts = [(unquote(part.partition("=")[0]), part) for part in query.split("&")]
    values = [part.partition("=")[2] for key, part in parts if key == name]
    rest = "&".join(part for key, part in parts if key != name)
    return values, (f"{path}?{rest}" if rest or (mark and not values) else path)


def host_of(request: http.Request) -> str:
    """The host that was asked for, in one spelling, without the port."""
    return request.pretty_host.lower().rstrip(".")


def refusal(refused: Refused) -> http.Response:
    """A problem (RFC 9457) that says why."""
    title = "This link is not valid"
    body = {"type": "about:blank", "status": refused.status, "title": title, "detail": refused.reason}
    fields = {"Content-Type": "application/problem+json", "Cache-Control": "no-store"}
    return http.Response.make(refused.status, json.dumps(body), fields)


def parse_keys(text: str) -> dict[str, bytes]:
    """Keys from lines of name and secret; in a variable, `;` ends a line as well. The first is the one that signs.

    Raises ValueError, which never has a secret in it.
    """
    keys: dict[str, bytes] = {}
    lines = [line.split() for line in re.split(r"[\n;]", text) if line.strip() and not line.strip().startswith("#")]
    for number, words in enumerate(lines, 1):
        if len(words) != 2 or not re.fullmatch(r"[A-Za-z0-9_-]{1,32}", words[0]) or words[0] in keys:
            raise ValueError(f"key {number}: expected a name that no other has, a space, and the secret")
        if len(words[1]) < MIN_SECRET:
            raise ValueError(f"key {number}: the secret is shorter than {MIN_SECRET} characters")
        keys[words[0]] = words[1].encode()
    if not keys:
        raise ValueError("there are none")
    return keys


def signed(keys: dict[str, bytes], url: str, *, expires: int, folders: int = 0, parameter: str = "token") -> str:
    """A URL with a token by the first of the keys, good until `expires` (Unix time): for that URL alone, or for all
    that is in its first so many folders.
    """
    parts = urlsplit(url)
    key, secret = next(iter(keys.items()))
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    scope = str(folders) if folders else "url"
    covered = covered_by(scope, target)
    if not parts.hostname or covered is None:
        raise ValueError(f"{url!r} is no http:// or https:// URL, or does not have {folders} folders")
    token = f"{key}.{expires}.{scope}.{sign(secret, key, str(expires), scope, parts.hostname.rstrip('.'), covered)}"
    return f"{parts.scheme}://{parts.netloc}{target}{'&' if parts.query else '?'}{parameter}={token}"


def main() -> None:
    parser = argparse.ArgumentParser(description="sign a URL")
    parser.add_argument("keys_file", type=Path)
    parser.add_argument("url")
    parser.add_argument("--lifetime", type=int, default=3600, help="seconds (3600)")
    parser.add_argument("--folders", type=int, default=0, help="sign this many leading folders, not the one URL")
    given = parser.parse_args()
    keys = parse_keys(given.keys_file.read_text(encoding="utf-8"))
    print(signed(keys, given.url, expires=int(time.time()) + given.lifetime, folders=given.folders))  # noqa: T201


if __name__ == "__main__":
    main()

addons = [SignedUrl()]
