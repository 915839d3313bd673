"""Classes of clients: by country, device or whatever a header tells, requests go to an origin or a path of their own.

A header is believed only from the networks that set it. The class is part of the cache key, so no class is served what
was made for another; the access log has it. Documentation: docs/addons/client-class.md. A mitmproxy script:
`mitmdump -s client_class.py` runs it as well.
"""

import re
from collections.abc import Sequence
from fnmatch import translate
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from urllib.parse import unquote, urlsplit

from mitmproxy import ctx, exceptions, http
from mitmproxy.addonmanager import Loader

_CLIMBS = re.compile(r"(?:^|[/\\])[. ]+(?:[;/\\?#\0]|$)")
"""A dot segment, as any server may understand it."""


class ClientClass:
    """Options: the header, whom to believe, which values make which class, and where each class is served from."""

    def __init__(self) -> None:
        self.classes: list[tuple[str, re.Pattern[str]]] = []
        self.places: dict[str, str] = {}
        self.trusted: list[IPv4Network | IPv6Network] = []

    def load(self, loader: Loader) -> None:
        add = loader.add_option
        add("client_class_header", str, "X-Country", "The header that tells, set by a load balancer in front.")
        add("client_class_trusted", Sequence[str], [], "Networks whose header is believed; [] = nobody's.")
        add("client_class_classes", Sequence[str], [], "Classes by values: dach=DE,AT,CH; * stands for anything.")
        add("client_class_default", str, "other", "The class of everybody else.")
        add("client_class_places", Sequence[str], [], "us=http://10.0.0.5:8000 (a server), us=/us (a path).")
        add("client_class_send", str, "X-Client-Class", "The header that tells the origin the class.")
        add("client_class_keep", bool, False, "Whether the origin gets the header itself as well.")

    def configure(self, updated: set[str]) -> None:
        if not any(name.startswith("client_class_") for name in updated):
            return
        options = ctx.options
        try:
            trusted = [ip_network(text) for text in options.client_class_trusted]
        except ValueError as error:
            raise exceptions.OptionsError(f"client_class_trusted: {error}") from None
        classes = [parse_class(text) for text in options.client_class_classes]
        if classes and not trusted:
            raise exceptions.OptionsError("client_class_trusted is empty: nobody's header would be believed")
        places = dict(text.partition("=")[::2] for text in options.client_class_places)
        check_places(places, {*(name for name, _ in classes), options.client_class_default})
        self.classes, self.places, self.trusted = classes, places, trusted

    def requestheaders(self, flow: http.HTTPFlow) -> None:
        """Find the class, put it into the key, tell the origin, and choose the origin."""
        if flow.response:  # another script has answered
            return
        options, request = ctx.options, flow.request
        told = request.headers.get(options.client_class_header, "") if self.is_trusted(flow) else ""
        name = next((name for name, values in self.classes if values.match(told.strip())), options.client_class_default)
        flow.metadata["client_class"] = name

        edge = flow.metadata.setdefault("edge", {"key": {}, "log": {}})
        edge["key"]["client_class"] = name
        edge["log"]["client_class"] = name

        # What is not in the key is not to reach the origin: it would answer one country for the whole class.
        remove_header(request, options.client_class_header)
        if told and options.client_class_keep:
            request.headers[options.client_class_header] = told
        remove_header(request, options.client_class_send)
        request.headers[options.client_class_send] = name

        place = self.places.get(name, "")
        if place.startswith("/"):
            if climbs(request.path):
                flow.response = http.Response.make(400, b"dot segments in the path\n", {"Content-Type": "text/plain"})
                return
            request.path = place + request.path
        elif place:
            send_to(request, place)

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        """Tell the caches between the edge and the client what responses differ by."""
        if "client_class" in flow.metadata and flow.response:
            vary, name = flow.response.headers.get("Vary", ""), ctx.options.client_class_header
            if vary != "*" and name.lower() not in [part.strip().lower() for part in vary.split(",")]:
                flow.response.headers["Vary"] = f"{vary}, {name}" if vary else name

    def is_trusted(self, flow: http.HTTPFlow) -> bool:
        """Whether the peer, which is whoever opened the connection, is one whose header is believed."""
        if not flow.client_conn.peername:
            return False
        address = ip_address(flow.client_conn.peername[0])
        mapped = getattr(address, "ipv4_mapped", None)  # an IPv4 client of a socket for both
        return any((mapped or address) in network for network in self.trusted)


def parse_class(text: str) -> tuple[str, re.Pattern[str]]:
    """A class and what its values look like, from `dach=DE,AT,CH` or `mobile=*Mobile*,*Android*`; case is nothing."""
    name, _, values = text.partition("=")
    globs = [value.strip() for value in values.split(",") if value.strip()]
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name) or not globs:
        raise exceptions.OptionsError(f"client_class_classes has {text!r}; expected such as dach=DE,AT,CH")
    return name, re.compile("|".join(map(translate, globs)), re.IGNORECASE)


def check_places(places: dict[str, str], classes: set[str]) -> None:
    """Raise OptionsError for places that can't be meant."""
    for name, place in places.items():
        url = urlsplit(place)
        is_server = url.scheme in {"http", "https"} and url.hostname and not url.path.strip("/")
        if name not in classes or not (is_server or re.fullmatch(r"(/[A-Za-z0-9._~-]*[A-Za-z0-9_~-])+", place)):
            raise exceptions.OptionsError(f"client_class_places: {name}={place} names no class, no server or no path")
    paths = [name for name, place in places.items() if place.startswith("/")]
    if paths and (len(paths) < len(places) or set(paths) != classes):
        raise exceptions.OptionsError(
            "client_class_places: with a path for one class, each needs one (and no server): "
            "clients of a class without could ask for another's by its name"
        )


def send_to(request: http.Request, server: str) -> None:
    """Have another server asked, which is told the client's Host all the same: setting the host would change that."""
    url, host = urlsplit(server), request.host_header
    request.scheme, request.host = url.scheme, url.hostname or ""
    request.port = url.port or (443 if url.scheme == "https" else 80)
    request.host_header = host


def climbs(target: str) -> bool:
    """Whether a path has a dot segment, escaped or not: an origin that follows it would leave the class's own path."""
    path = target.partition("?")[0]
    for _ in range(4):
        if _CLIMBS.search(path):
            return True
        path = unquote(path, encoding="latin-1")
    return not target.startswith("/")


def remove_header(request: http.Request, name: str) -> None:
    """Take a header out, in every spelling that an origin may take for it: many read `_` as `-`."""
    dashed = name.lower().replace("_", "-")
    for other in [other for other in request.headers if other.lower().replace("_", "-") == dashed]:
        del request.headers[other]


addons = [ClientClass()]
