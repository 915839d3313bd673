"""In front of nginx and a site of files: every byte is as without the edge, and every request has its line."""

import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support import Client, Nginx, Node, request

REQUESTS = 10_000
CLIENTS = 32
WORKERS = 2
SAME = (
    "content-type",
    "content-length",
    "content-range",
    "etag",
    "last-modified",
    "cache-control",
    "allow",
    "location",
)
SERVER = """
    location /cached/ { add_header Cache-Control "public, max-age=600"; }
    location /moved { return 301 /plain/0.html; }
    location /echo { return 200 "$request_method $request_uri $content_length"; }
"""


class Asked(NamedTuple):
    """A request that is asked of nginx and of the edge."""

    method: str
    target: str
    fields: tuple[str, ...] = ()
    body: bytes = b""


class Answer(NamedTuple):
    """What must be the same."""

    status: int
    body: bytes
    fields: tuple[tuple[str, str | None], ...]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some files of many sizes and kinds, some of which nginx lets be cached."""
    dice = random.Random(11)
    root = tmp_path_factory.mktemp("site")
    root.chmod(0o755)
    for folder in ("plain", "cached"):
        (root / folder).mkdir()
        for number, size in enumerate([0, 1, 785, 4096, 65_536, 65_537, 100_000, 300_001]):
            (root / folder / f"{number}.{'html' if number % 2 else 'bin'}").write_bytes(dice.randbytes(size))
        (root / folder / "with space äöü.txt").write_text("üml", encoding="utf-8")
    return root


@pytest.fixture(scope="module")
def nginx(site: Path) -> Iterator[Nginx]:
    """A real origin."""
    with Nginx(site, server=SERVER) as started:
        yield started


def questions(site: Path) -> list[Asked]:
    """All there is to ask of the site."""
    asked = [
        Asked("GET", "/missing"),
        Asked("GET", "/moved"),
        Asked("GET", "/echo?a=b&c=%20"),
        Asked("POST", "/echo", body=b"hello"),
        Asked("PUT", "/echo", body=b"x" * 70_000),
        Asked("DELETE", "/echo"),
        Asked("POST", "/plain/2.bin", body=b"x"),
        Asked("GET", "/plain/../plain/2.bin"),
        Asked("GET", "/plain/%32.bin"),
    ]
    for file in sorted(site.glob("*/*")):
        target = "/" + "".join(
            char if char.isascii() and char != " " else "".join(f"%{byte:02X}" for byte in char.encode())
            for char in str(file.relative_to(site))
        )
        asked += [Asked("GET", target), Asked("HEAD", target), Asked("GET", target, ('If-None-Match: "nothing"',))]
        if file.stat().st_size > 100:
            asked.append(Asked("GET", target, ("Range: bytes=10-99",)))
    return asked


class Visitor:
    """A client that connects anew when it is told that the connection ends: an answer may come before the whole body
    of its request has.
    """

    def __init__(self, port: int, host: str) -> None:
        """Connect."""
        self.port = port
        self.host = host
        self.client = Client(port)

    def ask(self, asked: Asked) -> tuple[Answer, str | None]:
        """What is the same of an answer, and the trace id that came with it."""
        self.client.send(request(asked.target, *asked.fields, method=asked.method, body=asked.body, host=self.host))
        response = self.client.response(asked.method)
        if response.get("connection") == "close":
            self.client.close()
            self.client = Client(self.port)
        same = tuple((name, response.get(name)) for name in SAME)
        return Answer(response.status, response.body, same), response.get("x-trace-id")


def test_every_byte_is_the_same_and_every_request_has_its_line(site: Path, nginx: Nginx) -> None:
    asked = questions(site)
    host = f"127.0.0.1:{nginx.port}"
    direct = Visitor(nginx.port, host)
    expected = {one: direct.ask(one)[0] for one in asked}
    direct.client.close()
    assert {one.status for one in expected.values()} >= {200, 206, 301, 404, 405}
    dice = random.Random(12)
    work = [*asked, *dice.choices(asked, k=REQUESTS - len(asked))]
    wrong: list[object] = []
    traces: list[str | None] = []

    def run(mine: list[Asked]) -> None:
        try:
            visitor = Visitor(node.port, host)
            for one in mine:
                got, trace_id = visitor.ask(one)
                traces.append(trace_id)
                if got != expected[one]:
                    wrong.append((one, got, expected[one]))
            visitor.client.close()
        except (OSError, AssertionError) as error:
            wrong.append(error)

    with Node(nginx.url, workers=WORKERS) as node:
        clients = [threading.Thread(target=run, args=(work[number::CLIENTS],)) for number in range(CLIENTS)]
        for one in clients:
            one.start()
        for one in clients:
            one.join()
        assert not wrong, wrong[0]
        node.log_lines(REQUESTS)
        assert node.stop() == 0  # whatever would still be written is
        lines = node.log_lines(REQUESTS)
    for name in ("span_id", "trace_id", "request_id"):
        assert len({line[name] for line in lines}) == REQUESTS
    assert {line["trace_id"] for line in lines} == set(traces)
    assert {line["outcome"] for line in lines} == {"ok"}
    assert {line["worker"] for line in lines} == set(range(WORKERS))
    assert {line["cache"] for line in lines} >= {"HIT", "MISS", "BYPASS"}
    assert sum(line["cache"] == "HIT" for line in lines) > REQUESTS / 4
