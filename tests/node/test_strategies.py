"""What a server may answer to whoever polls it for sampling strategies: nothing of it takes long, or does harm."""

import contextlib
import threading
import time
from collections.abc import Iterator

import pytest

from edgeproxy.node.strategies import ANSWER_BYTES, fetch
from edgeproxy.tracing.remote import StrategyError
from tests.support import Conversation, Handler, Origin, OtlpReceiver, free_port, raw, reply, silent, until_close

GOOD = b'{"probabilisticSampling": {"samplingRate": 1}}'


@pytest.fixture(scope="module")
def server() -> Iterator[Origin]:
    with Origin() as started:
        yield started


def dripping(talk: Conversation) -> None:
    talk.send(b"HTTP/1.1 200 OK\r\n\r\n")
    with contextlib.suppress(OSError):
        while not talk.origin.stopping and not threading.Event().wait(0.05):
            talk.send(b" ")


REFUSED = {
    "an error": (reply(b"", status="503 Service Unavailable"), "it answers 503 Service Unavailable"),
    "an answer without end": (dripping, "not done with its answer after 0.5 s"),
    "no answer": (silent, "timed out"),
    "more than any strategies": (until_close(b" " * (ANSWER_BYTES + 1)), f"longer than {ANSWER_BYTES} bytes"),
    "bytes that are no text": (reply(b"\x1f\x8b\x08\x00", "Content-Encoding: gzip"), "not UTF-8"),
    "no http": (raw(b"SSH-2.0-OpenSSH\r\n", then="close"), "SSH-2.0"),
    "nothing": (raw(then="close"), "closed connection without response"),
    "a circle": (reply(b"", "Location: /sampling", status="302 Found"), "it answers 302"),
    "a place that is no http": (reply(b"", "Location: file:///etc/passwd", status="302 Found"), "it answers 302"),
}


@pytest.mark.parametrize(("handler", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_no_answer_is_said_in_time(server: Origin, handler: Handler, words: str) -> None:
    server.on("/sampling", handler)
    began = time.monotonic()
    with pytest.raises(StrategyError) as refused:
        fetch(f"{server.url}/sampling", timeout_s=0.5)
    assert words in str(refused.value)
    assert time.monotonic() - began < 2


def test_a_server_that_is_not_there_or_cant_be_trusted_is_said(server: Origin) -> None:
    with pytest.raises(StrategyError, match="Connection refused"):
        fetch(f"http://127.0.0.1:{free_port()}/")
    with OtlpReceiver(tls=True) as secure, pytest.raises(StrategyError, match="certificate verify failed"):
        fetch(secure.url)
    with pytest.raises(StrategyError, match=r"(?i)ssl|tls|wrong version"):
        fetch(server.url.replace("http:", "https:"), timeout_s=0.5)


def test_it_is_followed_to_another_place_and_by_no_proxy_of_the_environment(
    server: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    monkeypatch.delenv("no_proxy", raising=False)
    server.on("/moved", reply(b"", "Location: /sampling", status="301 Moved Permanently"))
    server.on("/sampling", reply(GOOD, 'ETag: "1"'))
    assert fetch(f"{server.url}/moved") == (GOOD.decode(), '"1"')
