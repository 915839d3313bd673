"""Parts of stored responses (RFC 9110 §14): what the edge makes of a stored whole, held against what nginx makes of the
same file.
"""

import random
import re
from collections.abc import Iterator

import pytest

from tests.cache.scripted import FRESH, STALE, is_hit, path_for, steps, unchanged
from tests.proxy.edges import Edge
from tests.support import Conversation, Nginx, Node, Response, chunked, http_client, reply, request

BODY = bytes(range(256)) * 4
TAG = 'ETag: "x"'
LONG_AGO = "Sun, 06 Nov 1994 08:49:37 GMT"
LARGE_BYTES = 7_000_001


@pytest.fixture(scope="module")
def edge() -> Iterator[Edge]:
    with Edge(app={}) as started:
        yield started


@pytest.fixture
def path(request: pytest.FixtureRequest) -> str:
    return path_for(request.node.name)


def stored(edge: Edge, path: str, *fields: str, body: bytes = BODY) -> None:
    edge["app"].on(path, reply(body, FRESH, TAG, f"Last-Modified: {LONG_AGO}", "Content-Type: text/css", *fields))
    assert edge.get(path).body == body


def parts_of(response: Response) -> list[tuple[str, str, bytes]]:
    """Content-Type, Content-Range and content of each part (RFC 9110 §14.6), read strictly."""
    boundary = re.fullmatch(r"multipart/byteranges; boundary=(\S+)", response["content-type"])
    assert boundary, response["content-type"]
    mark = b"--" + boundary[1].encode()
    first, *parts, last = re.split(rb"(?:^|\r\n)" + re.escape(mark), response.body)
    assert (first, last) == (b"", b"--\r\n")
    found = []
    for part in parts:
        head, _, content = part.partition(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in head.decode().removeprefix("\r\n").split("\r\n"))
        found.append((fields.pop("Content-Type"), fields.pop("Content-Range"), content))
        assert fields == {}
    return found


# --- one part


@pytest.mark.parametrize(
    ("wanted", "first", "last"),
    [
        ("bytes=0-0", 0, 0),
        ("bytes=1-3", 1, 3),
        ("bytes=1000-", 1000, 1023),
        ("bytes=1000-9999999999999999999999", 1000, 1023),
        ("bytes=-24", 1000, 1023),
        ("bytes=-99999", 0, 1023),
        ("bytes=0-", 0, 1023),
        ("BYTES=1-3", 1, 3),
        ("bytes= 1-3 ", 1, 3),
        ("bytes=1-3,", 1, 3),
        ("bytes=1-3,2-5", 1, 5),
        ("bytes=4-5,1-3", 1, 5),
        ("bytes=1-3,5000-", 1, 3),
        ("bytes=-0,1-3", 1, 3),
    ],
)
def test_one_part_of_what_is_stored(edge: Edge, path: str, wanted: str, first: int, last: int) -> None:
    stored(edge, path)
    response = edge.get(path, f"Range: {wanted}")
    assert (response.status, response.reason) == (206, "Partial Content")
    assert response.body == BODY[first : last + 1]
    assert response["content-range"] == f"bytes {first}-{last}/1024"
    assert response["content-length"] == str(last - first + 1)
    assert (response["content-type"], response["etag"], response["last-modified"]) == ("text/css", '"x"', LONG_AGO)
    assert is_hit(response)
    record = edge.record(response)
    assert (record["status"], record["cache"], record["bytes_out"]) == (206, "HIT", last - first + 1)
    assert len(edge["app"].seen(path)) == 1


@pytest.mark.parametrize(
    "wanted",
    [
        *("bytes=", "bytes=3-1", "bytes=a-b", "bytes 1-3", "lines=1-3", "bytes=--3", "bytes=-", "bytes=1-3,x"),
        *("bytes=1 - 3", "bytes=10-5,0-1", "bytes=0-1,-", "=0-1", "bytes"),
        "bytes=" + ",".join(f"{at}-{at}" for at in range(0, 1000, 4)),
        "bytes=" + ",".join(["0-"] * 50),
    ],
    ids=lambda wanted: wanted[:20],
)
def test_a_range_that_does_not_count_gets_the_whole(edge: Edge, path: str, wanted: str) -> None:
    stored(edge, path)
    response = edge.get(path, f"Range: {wanted}")
    assert (response.status, response.body, response.get("content-range")) == (200, BODY, None)


@pytest.mark.parametrize("wanted", ["bytes=1024-", "bytes=5000-6000", "bytes=-0", "bytes=1024-,2000-2001"])
def test_a_range_that_does_not_exist(edge: Edge, path: str, wanted: str) -> None:
    stored(edge, path, "Content-Encoding: identity")
    response = edge.get(path, f"Range: {wanted}")
    assert (response.status, response.reason) == (416, "Range Not Satisfiable")
    assert (response["content-range"], response.body, response["content-length"]) == ("bytes */1024", b"", "0")
    for name in ("cache-control", "etag", "content-type", "content-encoding"):
        assert response.get(name) is None
    assert edge.record(response)["status"] == 416
    assert edge.get(path).body == BODY


def test_what_is_empty_is_sent_whole(edge: Edge, path: str) -> None:
    stored(edge, path, body=b"")
    assert edge.get(path, "Range: bytes=0-").status == 200
    assert edge.get(path, "Range: bytes=-5").status == 200


# --- several parts


@pytest.mark.parametrize(
    ("wanted", "spans"),
    [
        ("bytes=0-1,10-11", [(0, 1), (10, 11)]),
        ("bytes=10-11, 0-1", [(10, 11), (0, 1)]),
        ("bytes=0-1,-1", [(0, 1), (1023, 1023)]),
        ("bytes=0-1,10-11,5000-", [(0, 1), (10, 11)]),
        ("bytes=0-3,100-110,2-5,105-120", [(0, 5), (100, 120)]),
        ("bytes=0-0,2-2,4-4", [(0, 0), (2, 2), (4, 4)]),
    ],
)
def test_several_parts_of_what_is_stored(edge: Edge, path: str, wanted: str, spans: list[tuple[int, int]]) -> None:
    stored(edge, path)
    response = edge.get(path, f"Range: {wanted}")
    assert (response.status, response.get("content-range")) == (206, None)
    assert response["content-length"] == str(len(response.body))
    assert parts_of(response) == [
        ("text/css", f"bytes {first}-{last}/1024", BODY[first : last + 1]) for first, last in spans
    ]


# --- If-Range (RFC 9110 §13.1.5)


@pytest.mark.parametrize(
    ("condition", "status"),
    [
        ('"x"', 206),
        ('"y"', 200),
        ('W/"x"', 200),
        (LONG_AGO, 206),
        ("Sun, 06 Nov 1994 08:49:38 GMT", 200),
        ("Sun, 06 Nov 1994 08:49:36 GMT", 200),
        ("nonsense", 200),
    ],
)
def test_a_part_only_of_what_the_client_has_the_rest_of(edge: Edge, path: str, condition: str, status: int) -> None:
    stored(edge, path)
    response = edge.get(path, "Range: bytes=0-1", f"If-Range: {condition}")
    assert (response.status, is_hit(response)) == (status, True)
    assert response.body == (BODY[:2] if status == 206 else BODY)


def test_a_weak_tag_never_joins_parts(edge: Edge, path: str) -> None:
    edge["app"].on(path, reply(BODY, FRESH, 'ETag: W/"x"'))
    edge.get(path)
    assert edge.get(path, "Range: bytes=0-1", 'If-Range: W/"x"').status == 200
    assert edge.get(path, "Range: bytes=0-1").status == 206


def test_if_range_without_range_means_nothing(edge: Edge, path: str) -> None:
    stored(edge, path)
    assert edge.get(path, 'If-Range: "x"').body == BODY


def test_conditions_come_before_ranges(edge: Edge, path: str) -> None:
    stored(edge, path)
    response = edge.get(path, "Range: bytes=0-1", 'If-None-Match: "x"')
    assert (response.status, response.body, response.get("content-range")) == (304, b"", None)
    assert edge.get(path, "Range: bytes=0-1", 'If-None-Match: "y"').status == 206


# --- where a range means nothing


def test_head_has_no_parts(edge: Edge, path: str) -> None:
    stored(edge, path)
    response = edge.get(path, "Range: bytes=0-1", method="HEAD")
    assert (response.status, response["content-length"], response.get("content-range")) == (200, "1024", None)


def test_an_error_has_no_parts(edge: Edge, path: str) -> None:
    edge["app"].on(path, reply(b"not here", FRESH, status="404 Not Found"))
    edge.get(path)
    response = edge.get(path, "Range: bytes=0-1")
    assert (response.status, response.body, is_hit(response)) == (404, b"not here", True)


# --- on the way to the origin


def test_a_part_of_what_is_not_stored_is_the_origins_to_send(edge: Edge, path: str) -> None:
    def handle(talk: Conversation) -> None:
        if talk.request.get("range") == "bytes=0-1":
            fields = [FRESH, TAG, "Content-Range: bytes 0-1/1024"]
            reply(BODY[:2], *fields, status="206 Partial Content")(talk)
        else:
            reply(BODY, FRESH, TAG)(talk)

    edge["app"].on(path, handle)
    part = edge.get(path, "Range: bytes=0-1")
    assert (part.status, part.body, part["content-range"]) == (206, BODY[:2], "bytes 0-1/1024")
    assert part["cache-status"] == "edge-1; fwd=uri-miss; fwd-status=206; detail=partial"
    assert (edge.get(path).body, is_hit(edge.get(path))) == (BODY, True)
    assert edge.get(path, "Range: bytes=2-3").body == BODY[2:4]
    assert len(edge["app"].seen(path)) == 2


def test_a_whole_that_comes_where_a_part_was_asked_for_is_stored(edge: Edge, path: str) -> None:
    edge["app"].on(path, chunked(BODY[:500], BODY[500:], fields=[FRESH]))
    whole = edge.get(path, "Range: bytes=0-1")
    assert (whole.status, whole.body) == (200, BODY)
    part = edge.get(path, "Range: bytes=0-1")
    assert (part.status, part.body, is_hit(part)) == (206, BODY[:2], True)


def test_a_part_that_nobody_asked_for_is_not_taken_for_the_whole(edge: Edge, path: str) -> None:
    fields = [FRESH, TAG, "Content-Range: bytes 0-1/1024"]
    edge["app"].on(path, steps(reply(BODY[:2], *fields, status="206 Partial Content"), reply(BODY, FRESH)))
    edge.get(path)
    assert edge.get(path).body == BODY


def test_a_part_of_what_is_stale_is_cut_from_what_is_validated_or_new(edge: Edge, path: str) -> None:
    edge["app"].on(path, steps(reply(BODY, STALE, TAG), unchanged(STALE, TAG), reply(BODY[::-1], FRESH, 'ETag: "y"')))
    edge.get(path)
    part = edge.get(path, "Range: bytes=0-1")
    assert (part.status, part.body, edge.record(part)["cache"]) == (206, BODY[:2], "REVALIDATED")
    changed = edge.get(path, "Range: bytes=0-1", 'If-Range: "x"')
    assert (changed.status, changed.body, changed["etag"]) == (200, BODY[::-1], '"y"')
    assert [seen.get("range") for seen in edge["app"].seen(path)] == [None, None, None]
    assert edge.get(path, "Range: bytes=0-1").body == BODY[::-1][:2]


def test_parts_on_one_connection_keep_their_order(edge: Edge, path: str) -> None:
    body = random.Random(1).randbytes(1_000_000)
    stored(edge, path, body=body)
    spans = [(0, 0), (1, 999_999), (5, 5), (100_000, 900_000), (999_999, 999_999)]
    with edge.connect() as client:
        client.send(b"".join(request(path, f"Range: bytes={first}-{last}") for first, last in spans) + request(path))
        for first, last in spans:
            assert client.response().body == body[first : last + 1]
        assert client.response().body == body


# --- as nginx does it


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Nginx, Node]]:
    """nginx with two files, and a node in front of it that has them stored."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "small.css").write_bytes(BODY)
    (folder / "large.png").write_bytes(random.Random(2).randbytes(LARGE_BYTES))
    with Nginx(folder, server='add_header Cache-Control "max-age=600";') as nginx, Node(nginx.url) as node:
        with node.connect() as client:
            for name in ("small.css", "large.png"):
                assert client.get(f"/{name}").body == (folder / name).read_bytes()
        yield nginx, node


RANGES = [
    *("bytes=0-0", "bytes=0-", "bytes=1-3", "bytes=-5", "bytes=-99999999", "bytes=1000-"),
    *("bytes=99999999-", "bytes=0-1,5-6", "bytes=5-6,0-1", "bytes=0-0,-1", "bytes=0-1,99999999-"),
    *("bytes=100-200000", "bytes=65536-131072", "bytes=1-6999999", "bytes=0-1000000,2000000-3000000"),
    *("octets=0-1", "bytes=99999999-,99999998-", "bytes=100-1000,2000-70000,80000-80000"),
]


@pytest.mark.parametrize("name", ["small.css", "large.png"])
@pytest.mark.parametrize("wanted", RANGES)
def test_a_stored_file_is_cut_as_nginx_cuts_it(both: tuple[Nginx, Node], name: str, wanted: str) -> None:
    nginx, node = both
    with http_client(nginx.url) as client:
        theirs = client.get(f"/{name}", headers={"Range": wanted})
    with node.connect() as client:
        ours = client.get(f"/{name}", f"Range: {wanted}")
    assert is_hit(ours)
    assert ours.status == theirs.status_code
    if ours.status == 416:
        assert ours["content-range"] == theirs.headers["content-range"]
        return
    assert ours["last-modified"] == theirs.headers["last-modified"]
    kind = theirs.headers["content-type"]
    if not kind.startswith("multipart/"):
        assert (ours["content-type"], ours.get("content-range")) == (kind, theirs.headers.get("content-range"))
        assert ours.body == theirs.content
        return
    boundary = kind.partition("boundary=")[2].encode()
    contents = [part.partition(b"\r\n\r\n")[2] for part in theirs.content.split(b"\r\n--" + boundary)[1:-1]]
    assert [content for _, _, content in parts_of(ours)] == contents


@pytest.mark.parametrize("validator", ["etag", "last-modified"])
def test_a_download_that_was_broken_off_is_taken_up_again(both: tuple[Nginx, Node], validator: str) -> None:
    _, node = both
    with node.connect(receive_buffer=65536) as client:
        client.send(request("/large.png"))
        head = client.head()
        begun = client.stream.take(1_234_567)
        client.reset()
    with node.connect() as client:
        rest = client.get("/large.png", f"Range: bytes={len(begun)}-", f"If-Range: {head[validator]}")
        whole = client.get("/large.png")
    assert (rest.status, begun + rest.body) == (206, whole.body)


def test_parts_of_large_bodies_take_no_memory_of_their_own(both: tuple[Nginx, Node]) -> None:
    _, node = both
    with node.connect() as client:
        client.get("/large.png", "Range: bytes=1-")
        before = node.memory_bytes()
        clients = [node.connect(receive_buffer=65536) for _ in range(20)]
        for one in clients:
            one.send(request("/large.png", "Range: bytes=1-"))
        for one in clients:
            assert one.head().status == 206
        during = node.memory_bytes()
        for one in clients:
            one.reset()
    assert during - before < 20 * LARGE_BYTES // 4
