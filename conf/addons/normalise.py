"""Normalisation: requests that mean the same become the same, so that they share one response in the cache.

Tracking parameters go, query parameters are sorted, Accept-Language and Accept-Encoding are folded into the few answers
that the origin has, and static files are asked for without cookies. Documentation: docs/addons/normalise.md.
A mitmproxy script: `mitmdump -s normalise.py` runs it as well.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from fnmatch import translate
from urllib.parse import unquote_plus

from mitmproxy import ctx, http
from mitmproxy.addonmanager import Loader

TRACKING = [
    *("utm_*", "mtm_*", "pk_*", "gclid", "gbraid", "wbraid", "dclid", "gad_source", "fbclid", "msclkid", "yclid"),
    *("ttclid", "twclid", "li_fat_id", "igshid", "mc_cid", "mc_eid", "_ga", "_gl", "_hsenc", "_hsmi", "vero_id"),
]
STATIC = ["/static/*", "/assets/*", "*.css", "*.js", "*.png", "*.jpg", "*.gif", "*.svg", "*.webp", "*.ico", "*.woff2"]


class Normalise:
    """Options: what is dropped, what is folded into what, what is static."""

    def __init__(self) -> None:
        self.dropped = self.static = any_of([])

    def load(self, loader: Loader) -> None:
        add = loader.add_option
        add("normalise_drop", Sequence[str], TRACKING, "Query parameters that go; * stands for anything.")
        add("normalise_sort", bool, True, "Whether query parameters are sorted by name.")
        add("normalise_languages", Sequence[str], [], "Languages that the origin has, the usual one first; [] = all.")
        add("normalise_encodings", Sequence[str], ["br", "gzip"], "Content codings that the origin has.")
        add("normalise_static", Sequence[str], STATIC, "Paths that are the same for everybody; * stands for anything.")

    def configure(self, updated: set[str]) -> None:
        if "normalise_drop" in updated:
            self.dropped = any_of(ctx.options.normalise_drop)
        if "normalise_static" in updated:
            self.static = any_of(ctx.options.normalise_static)

    def requestheaders(self, flow: http.HTTPFlow) -> None:
        """Before the look-up, so that key, routes and origin all see the normal form."""
        request = flow.request
        path, mark, query = request.path.partition("?")
        if mark:
            query = self.normal_query(query)
            request.path = f"{path}?{query}" if query else path
        if self.static(path):
            request.headers.pop("Cookie", None)
        if "Accept-Language" in request.headers:
            asked = request.headers["Accept-Language"]
            request.headers["Accept-Language"] = normal_languages(asked, ctx.options.normalise_languages)
        accepted = normal_encodings(request.headers.get("Accept-Encoding", ""), ctx.options.normalise_encodings)
        request.headers["Accept-Encoding"] = accepted

    def normal_query(self, query: str) -> str:
        """The parameters that stay, each as it came.

        Names are compared as an origin reads them (`%75tm_source` is dropped, too), values are not touched. Those of
        one name keep their order: `a=2&a=1` is not `a=1&a=2`.
        """
        named = [(unquote_plus(text.partition("=")[0]), text) for text in query.split("&") if text]
        kept = [(name, text) for name, text in named if not self.dropped(name)]
        if ctx.options.normalise_sort:
            kept.sort(key=lambda pair: pair[0])
        return "&".join(text for _, text in kept)


def any_of(globs: Iterable[str]) -> Callable[[str], object]:
    """What tells whether a text fits one of these; `*` stands for anything, case matters."""
    return re.compile("|".join(map(translate, globs)) or r"(?!)").match


def normal_languages(value: str, languages: Sequence[str]) -> str:
    """The language that a client wants most of those that the origin has, else the first.

    `de-CH` is content with `de`, and `de` with `de-CH`. Where none are named, the value as it is, in one spelling.
    """
    if not languages:
        return "".join(value.lower().split())
    asked = weights(value)
    for wanted in sorted(asked, key=lambda name: -asked[name]):  # stable: the first of equals wins
        for language in languages:
            known = language.lower()
            fits = wanted in {"*", known} or wanted.startswith(known + "-") or known.startswith(wanted + "-")
            if fits and asked[wanted] > 0 and asked.get(known, 1.0) > 0:
                return language
    return languages[0]


def normal_encodings(value: str, codings: Sequence[str]) -> str:
    """The codings of the origin's that a client takes, in the origin's order; `identity` if it takes none."""
    accepted = weights(value)
    if "x-gzip" in accepted:
        accepted.setdefault("gzip", accepted["x-gzip"])
    others = accepted.get("*", 0.0)
    return ", ".join(coding for coding in codings if accepted.get(coding, others) > 0) or "identity"


def weights(value: str) -> dict[str, float]:
    """The members of a list with their q (RFC 9110 12.4.2), names in lower case, in their order; 0: not acceptable.

    What can't be understood is not acceptable, and so is not sent to those who never asked for it.
    """
    found: dict[str, float] = {}
    for member in value.lower().split(","):
        name, *parameters = (part.strip() for part in member.split(";"))
        if not name:
            continue
        quality = "1"
        for parameter in parameters:
            key, _, text = parameter.partition("=")
            if key.strip() == "q":
                quality = text.strip()
        found.setdefault(name, float(quality) if re.fullmatch(r"0(\.[0-9]{0,3})?|1(\.0{0,3})?", quality) else 0.0)
    return found


addons = [Normalise()]
