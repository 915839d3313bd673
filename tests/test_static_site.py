"""The edge in front of a real static site: nginx serves it, and nobody can tell the edge from it but by its own fields.

10,000 requests of all kinds, 32 at a time, through two workers: every byte and every end-to-end field is what nginx
says itself, and the log has exactly one line for each, with what the client saw.
"""

import random
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self
from urllib.parse import quote

import pytest

from tests.support import Client, Nginx, Node, Record, Response, request

REQUESTS = 10_000
CLIENTS = 32
FILES = 200
ON_ONE_CONNECTION = 60
CACHED = (".css", ".js", ".png")
SERVER = "location ~ \\.(css|js|png)$ { add_header Cache-Control 'public, max-age=600'; }"
LONG_AGO = "Sun, 06 Nov 1994 08:49:37 GMT"
OTHER_TAG = '"other"'
EDGE_OWN = frozenset({b"via", b"x-trace-id", b"traceresponse", b"server-timing", b"x-cache", b"cache-status", b"age"})
NOT_COMPARED = EDGE_OWN | {b"date", b"connection", b"keep-alive", b"content-length", b"transfer-encoding"}
SUFFIXES = [".html", ".css", ".js", ".json", ".png", ".svg", ".txt", ".bin", ".woff2", ""]
FOLDERS = ["", "a/", "a/b/", "a/b/c/d/", "with space/", "ümlaut/", "x+y~z/"]
SIZES = [0, 1, 2, 785, 1460, 4096, 16_384, 65_536, 65_537]
LARGE = [300_000, 1_048_576, 3_000_000]


@dataclass(frozen=True)
class Ask:
    """One request, the same for both ways."""

    method: str
    target: str
    fields: tuple[str, ...] = ()
    body: bytes = b""

    def put(self, client: Client) -> Response:
        """Send it and read the response."""
        return client.send(request(self.target, *self.fields, method=self.method, body=self.body)).response(self.method)


@dataclass(frozen=True)
class Seen:
    """What of a response has to be the same with and without the edge."""

    start: bytes
    fields: tuple[tuple[bytes, bytes], ...]
    length: str | None
    body: bytes

    @classmethod
    def of(cls, response: Response) -> Self:
        """A boundary between parts is another one each time, and as long as its maker likes; so is what precedes it."""
        body, fields = response.body, [line for line in response.fields if line[0].lower() not in NOT_COMPARED]
        boundary = re.search(rb"boundary=(\w+)", response.raw_head)
        if boundary:
            body = body.replace(boundary[1], b"BOUNDARY").removeprefix(b"\r\n")
            fields = [(name, value.replace(boundary[1], b"BOUNDARY")) for name, value in fields]
        return cls(response.start, tuple(fields), None if boundary else response.get("content-length"), body)


@dataclass(frozen=True)
class Answer:
    """What a client saw of a response, for the log to say the same."""

    ask: Ask
    status: int
    body_bytes: int
    is_hit: bool
    trace_id: str


@dataclass
class Site:
    """The files, as they stand in requests."""

    small: list[str]
    large: list[str]
    etags: dict[str, str] = field(default_factory=dict)
    dates: dict[str, str] = field(default_factory=dict)

    @classmethod
    def write(cls, root: Path, dice: random.Random) -> Self:
        """Make them up."""
        site = cls(["/"], [])
        (root / "index.html").write_bytes(b"<h1>home</h1>")
        for number in range(FILES):
            is_large = number < 2 * len(LARGE)
            size = LARGE[number % len(LARGE)] if is_large else dice.choice([*SIZES, dice.randrange(40_000)])
            name = f"{FOLDERS[number % len(FOLDERS)]}file-{number}{SUFFIXES[number % len(SUFFIXES)]}"
            file = root / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(dice.randbytes(size))
            (site.large if is_large else site.small).append("/" + quote(name, safe="/+~"))
        return site

    def learn(self, nginx: Nginx) -> None:
        """Ask for the validators."""
        with Client(nginx.port) as client:
            for path in self.small:
                response = client.get(path, method="HEAD")
                self.etags[path], self.dates[path] = response["etag"], response["last-modified"]


class Asks:
    """Requests of all kinds, the same ones in every run."""

    def __init__(self, site: Site, dice: random.Random) -> None:
        self._site = site
        self._dice = dice
        self._any = dice.choice

    def all(self) -> list[Ask]:
        kinds = {
            self.get: 50,
            self.get_large: 1,
            self.head: 12,
            self.if_none_match: 10,
            self.if_modified_since: 5,
            self.range_of: 10,
            self.not_allowed: 5,
            self.missing: 5,
            self.folder: 2,
        }
        return [kind() for kind in self._dice.choices(list(kinds), list(kinds.values()), k=REQUESTS)]

    def get(self) -> Ask:
        return Ask("GET", self._any(self._site.small) + self._any(["", "", "", "?v=1", "?"]))

    def get_large(self) -> Ask:
        return Ask("GET", self._any(self._site.large))

    def head(self) -> Ask:
        return Ask("HEAD", self._any(self._site.small + self._site.large))

    def if_none_match(self) -> Ask:
        path = self._any(self._site.small)
        etag = self._site.etags[path]
        condition = self._any([etag, f'"x", {etag}', '"other"', f"W/{etag}"])
        return Ask(self._any(["GET", "GET", "HEAD"]), path, (f"If-None-Match: {condition}",))

    def if_modified_since(self) -> Ask:
        # Of what nginx says nothing of caching: a cache need not evaluate this condition (RFC 9111 §4.3.2).
        path = self._any([path for path in self._site.small if not path.endswith(CACHED)])
        return Ask("GET", path, (f"If-Modified-Since: {self._any([self._site.dates[path], LONG_AGO])}",))

    def range_of(self) -> Ask:
        path = self._any(self._site.small)
        fields = [f"Range: bytes={self._any(['0-0', '0-99', '5-', '-10', '10-5', '999999999-', '0-1,3-4', '0-9,-3'])}"]
        if self._dice.random() < 0.3:
            fields.append(f"If-Range: {self._any([self._site.etags[path], OTHER_TAG])}")
        return Ask(self._any(["GET", "GET", "GET", "HEAD"]), path, tuple(fields))

    def not_allowed(self) -> Ask:
        method = self._any(["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
        body = self._any([b"", b"x", b"y" * 10_000]) if method in {"POST", "PUT", "PATCH"} else b""
        return Ask(method, self._any(self._site.small), (), body)

    def missing(self) -> Ask:
        return Ask(self._any(["GET", "HEAD"]), f"/none/{self._dice.randrange(20)}{self._any(['', '.css', '.html?x'])}")

    def folder(self) -> Ask:
        return Ask("GET", self._any(["/a", "/a/", "/a/b", "/with%20space", "/%C3%BCmlaut/", "/a/../a/b/./"]))


def directly(nginx: Nginx, asks: Iterable[Ask]) -> dict[Ask, Seen]:
    """What nginx itself answers."""
    with Client(nginx.port) as client:
        return {ask: Seen.of(ask.put(client)) for ask in dict.fromkeys(asks)}


def through(node: Node, asks: Sequence[Ask], expected: dict[Ask, Seen]) -> list[Answer]:
    """What one client gets through the edge, on a connection after the other; compared as it comes."""
    answers: list[Answer] = []
    client: Client | None = None
    for ask in asks:
        client = client or node.connect()
        response = ask.put(client)
        is_hit = "; hit; " in response["cache-status"]
        assert_same(ask, Seen.of(response), expected[ask])
        answers.append(Answer(ask, response.status, len(response.body), is_hit, response.trace_id))
        if response.get("connection") == "close" or len(answers) % ON_ONE_CONNECTION == 0:
            client.close()
            client = None
    if client:
        client.close()
    return answers


def assert_same(ask: Ask, edge: Seen, nginx: Seen) -> None:
    """One response against what it has to be."""
    if edge.start == b"HTTP/1.1 200 OK" and any(line.startswith("Range:") for line in ask.fields):
        # Range may be ignored (RFC 9110 §14.2): the edge does so where it is invalid or not in a GET, of what is empty,
        # and for those who get a response while it is being fetched for somebody else.
        assert len(edge.body) == (int(edge.length or 0) if ask.method == "GET" else 0), ask
        return
    if edge.start == b"HTTP/1.1 206 Partial Content" and nginx.start == b"HTTP/1.1 200 OK":
        assert edge.body == nginx.body, ask  # parts that are the whole together: nginx says so, the edge says which
        return
    if edge.start == b"HTTP/1.1 416 Range Not Satisfiable" and nginx.start.startswith(b"HTTP/1.1 416 "):
        # From the cache it has the standard's words and no page to go with them.
        assert [line for line in edge.fields if line[0] == b"Content-Range"] == [
            line for line in nginx.fields if line[0] == b"Content-Range"
        ], ask
        return
    if edge.start.startswith((b"HTTP/1.1 304", b"HTTP/1.1 206")):
        # What a 304 or a part may leave out (RFC 9110 §15.3.7, §15.4.5) a cache keeps where it has it.
        # The Content-Type of several parts is the edge's own, and so has a place of its own.
        edge = replace(edge, fields=tuple(sorted(line for line in edge.fields if line[0] != b"Accept-Ranges")))
        nginx = replace(nginx, fields=tuple(sorted(line for line in nginx.fields if line[0] != b"Accept-Ranges")))
    for part in ("start", "fields", "length"):
        assert getattr(edge, part) == getattr(nginx, part), ask
    assert edge.body == nginx.body, f"{ask}: {len(edge.body)} bytes that differ from {len(nginx.body)}"


@pytest.mark.slow
def test_nobody_can_tell_the_edge_from_the_site_and_every_request_is_in_the_log_once(tmp_path: Path) -> None:
    dice = random.Random("a static site")
    site = Site.write(tmp_path, dice)
    with Nginx(tmp_path, server=SERVER) as nginx, Node(nginx.url, workers=2) as node:
        site.learn(nginx)
        asks = Asks(site, dice).all()
        expected = directly(nginx, asks)
        with ThreadPoolExecutor(CLIENTS) as threads:
            clients = threads.map(lambda start: through(node, asks[start::CLIENTS], expected), range(CLIENTS))
            answers = {answer.trace_id: answer for found in clients for answer in found}
        assert len(answers) == REQUESTS
        assert node.stop() == 0
        lines = node.lines()
        seen_by_nginx = Counter(line.split()[3] for line in nginx.access_log.read_text().splitlines())
    assert_the_log_tells_it(lines, answers)
    assert all(seen_by_nginx[line["trace_id"]] == len(line["attempts"]) for line in lines)
    assert sum(seen_by_nginx.values()) - seen_by_nginx["-"] == sum(len(line["attempts"]) for line in lines)


def assert_the_log_tells_it(lines: list[Record], answers: dict[str, Answer]) -> None:
    """One line for each request, none twice, and in each what its client saw."""
    assert len(lines) == REQUESTS
    assert {line["trace_id"] for line in lines} == answers.keys()
    assert len({line["span_id"] for line in lines}) == REQUESTS
    assert len({line["request_id"] for line in lines}) == REQUESTS
    workers = Counter(line["worker"] for line in lines)
    assert workers.keys() == {0, 1}
    for worker, count in workers.items():
        assert {line["seq"] for line in lines if line["worker"] == worker} == set(range(1, count + 1))
    for line in lines:
        answer = answers[line["trace_id"]]
        path, _, query = answer.ask.target.partition("?")
        told = (line["method"], line["path"], line["query"], line["status"], line["bytes_out"], line["cache"] == "HIT")
        saw = (answer.ask.method, path, query, answer.status, answer.body_bytes, answer.is_hit)
        assert told == saw
        assert (line["outcome"], line["stage"], line["error"]) == ("ok", "done", None)
        assert line["bytes_in"] <= len(answer.ask.body)
    kinds = Counter((line["status"], line["cache"]) for line in lines)
    for kind in [
        (200, "HIT"),
        (200, "MISS"),
        (200, "REVALIDATED"),
        (206, "HIT"),
        (206, "REVALIDATED"),
        (304, "HIT"),
        (304, "REVALIDATED"),
        (405, "BYPASS"),
        (404, "MISS"),
    ]:
        assert kinds[kind] > 20, kinds
