"""A/B tests: each visitor is put into a bucket, stays there by a cookie, and gets what was made for that bucket.

The bucket is part of the cache key, so one bucket's page is never another's; the origin is told by a header; the access
log has it. Documentation: docs/addons/ab-test.md. A mitmproxy script: `mitmdump -s ab_test.py` runs it as well.
"""

import random
import re
from collections.abc import Sequence

from mitmproxy import ctx, exceptions, http
from mitmproxy.addonmanager import Loader


class AbTest:
    """Options: what buckets there are, and what cookie and header are called."""

    def __init__(self) -> None:
        self.weights: dict[str, float] = {}

    def load(self, loader: Loader) -> None:
        loader.add_option("ab_buckets", Sequence[str], ["a=50", "b=50"], "The buckets, each with its weight.")
        loader.add_option("ab_cookie", str, "ab", "The cookie that keeps visitors in their buckets.")
        loader.add_option("ab_max_age", int, 30 * 86400, "How long it does, in seconds.")
        loader.add_option("ab_header", str, "X-Ab-Bucket", "The header that tells the origin.")

    def configure(self, updated: set[str]) -> None:
        if "ab_buckets" in updated:
            weights = dict(parse_bucket(text) for text in ctx.options.ab_buckets)
            if len(weights) < len(ctx.options.ab_buckets) or not any(weights.values()):
                raise exceptions.OptionsError("ab_buckets names a bucket twice, or none has a weight")
            self.weights = weights

    def requestheaders(self, flow: http.HTTPFlow) -> None:
        """Find the visitor's bucket, or choose one. Nothing here needs the body, so it is not waited for."""
        if flow.response:  # another script has answered
            return
        kept = self.bucket_of(take_cookie(flow.request, ctx.options.ab_cookie))
        bucket = kept or random.choices(list(self.weights), list(self.weights.values()))[0]
        flow.metadata["ab_test"] = bucket, kept is None

        edge = flow.metadata.setdefault("edge", {"key": {}, "log": {}})
        edge["key"]["ab"] = bucket
        edge["log"]["ab"] = bucket

        # The origin is told by this alone: the cookie is gone, and a client's own header says nothing.
        remove_header(flow.request, ctx.options.ab_header)
        flow.request.headers[ctx.options.ab_header] = bucket

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        """Let the visitor keep the bucket. What is added here is this client's: what is stored never has it."""
        if "ab_test" not in flow.metadata or not flow.response:
            return
        bucket, is_new = flow.metadata["ab_test"]
        if is_new:
            secure = "; Secure" if flow.request.scheme == "https" else ""
            flow.response.headers.add(
                "Set-Cookie",
                f"{ctx.options.ab_cookie}={bucket}; Max-Age={ctx.options.ab_max_age}; Path=/; SameSite=Lax{secure}",
            )
        add_vary(flow.response, "Cookie")  # for the caches between the edge and the visitor

    def bucket_of(self, cookies: Sequence[str]) -> str | None:
        """The bucket that a visitor's cookies name. Anything else they may hold is worth nothing: the key is made of
        buckets that there are, whatever a client sends.
        """
        return next((value for value in cookies if self.weights.get(value, 0) > 0), None)


def parse_bucket(text: str) -> tuple[str, float]:
    """A bucket and its weight from `name=weight`; a weight of 0 ends a bucket, and its visitors get another one."""
    name, _, weight = text.partition("=")
    try:
        value = float(weight or "1")
    except ValueError:
        value = -1
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name) or not 0 <= value < float("inf"):
        raise exceptions.OptionsError(f"ab_buckets has {text!r}; expected a name and a weight, such as b=10")
    return name, value


def take_cookie(request: http.Request, name: str) -> list[str]:
    """Take a cookie out of a request: its values, as a client may send several. The others stay as they are."""
    parts = [part.strip() for line in request.headers.get_all("Cookie") for part in line.split(";")]
    pairs = [part.partition("=") for part in parts]
    values = [value.strip() for key, _, value in pairs if key.strip() == name]
    if values:
        others = [part for part, pair in zip(parts, pairs, strict=True) if part and pair[0].strip() != name]
        request.headers.set_all("Cookie", ["; ".join(others)] if others else [])
    return values


def remove_header(request: http.Request, name: str) -> None:
    """Take a header out, in every spelling that an origin may take for it: many read `_` as `-`."""
    dashed = name.lower().replace("_", "-")
    for other in [other for other in request.headers if other.lower().replace("_", "-") == dashed]:
        del request.headers[other]


def add_vary(response: http.Response, name: str) -> None:
    """Say that responses differ by a request header."""
    vary = response.headers.get("Vary", "")
    if vary != "*" and name.lower() not in [part.strip().lower() for part in vary.split(",")]:
        response.headers["Vary"] = f"{vary}, {name}" if vary else name


addons = [AbTest()]
