"""HEAD under stock mitmdump: a client that asked for a head alone gets no more, whatever scripts make of it; what they
add to a body they add to none.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.addons.mitmdump import Mitmdump
from tests.support import Origin, chunked, reply, until

SCRIPT = """
from mitmproxy import http

def request(flow):
    if flow.request.path == "/head-of-a-get":
        flow.request.method = "HEAD"
    if flow.request.path == "/answered":
        flow.response = http.Response.make(200, b"a body")
    if flow.request.path.startswith("/asked-for"):
        flow.request.method = "GET"

def response(flow):
    if flow.request.path == "/replaced":
        flow.response = http.Response.make(418, b"another body")
    if flow.request.path == "/changed":
        flow.response.content = b"changed"
"""


@pytest.fixture(scope="module")
def mitmdump(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mitmdump]:
    script = tmp_path_factory.mktemp("scripts") / "mine.py"
    script.write_text(SCRIPT)
    scripts: list[str | Path] = ["all", script]
    with Origin(default=reply(b"from the origin")) as origin, Mitmdump(origin.url, scripts=scripts) as started:
        origin.on("/asked-for/chunked", chunked(b"from ", b"the origin"))
        yield started


@pytest.mark.parametrize(
    ("path", "status", "length"),
    [
        ("/plain", 200, "15"),
        ("/answered", 200, "6"),
        ("/asked-for", 200, "15"),
        ("/asked-for/chunked", 200, "15"),
        ("/replaced", 418, "12"),
        ("/changed", 200, "7"),
    ],
)
def test_a_head_comes_alone(mitmdump: Mitmdump, path: str, status: int, length: str) -> None:
    with mitmdump.connect() as client:
        head = client.get(path, method="HEAD")
        assert (head.status, head.values("content-length")) == (status, [length])
        assert not head.values("transfer-encoding")
        assert client.get("/plain").body == b"from the origin"
    line = until(lambda: next((line for line in mitmdump.lines() if line["path"] == path), None), "its line")
    assert (line["method"], line["status"], line["bytes_out"]) == ("HEAD", status, 0)


def test_who_asked_for_more_than_a_script_did_is_not_left_waiting(mitmdump: Mitmdump) -> None:
    with mitmdump.connect() as client:
        assert client.get("/head-of-a-get").body == b""
        assert client.get("/plain").body == b"from the origin"
