"""OTLP over HTTP: where it goes, which answers mean "later", and that no collector keeps a batch beyond its time."""

import email.utils
import socket
import threading
import time
from collections.abc import Callable

import pytest

from edgeproxy.config import Otlp
from edgeproxy.export.batch import Refused, Unavailable
from edgeproxy.export.http import OtlpHttp, traces_url
from edgeproxy.export.otlp import Encoder, Frame
from edgeproxy.tracing.spans import Kind, Span
from tests.support import OtlpReceiver, until

FRAME = Frame({"service.name": "edge"}, "edgeproxy", "1")
SPANS = Encoder().spans([Span("GET", Kind.SERVER, "ab" * 16, "cd" * 8, None, 1, "", 1, 2, {})])


def sink(url: str, **settings: object) -> OtlpHttp:
    return OtlpHttp(url, Otlp(**settings), FRAME)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("endpoint", "traces", "url"),
    [
        ("http://c:4318", "", "http://c:4318/v1/traces"),
        ("http://c:4318/", "", "http://c:4318/v1/traces"),
        ("https://c/otlp", "", "https://c/otlp/v1/traces"),
        ("http://c:4318", "http://t:1/custom?x=1", "http://t:1/custom?x=1"),
        ("", "http://t:1", "http://t:1"),
    ],
)
def test_where_traces_are_posted(endpoint: str, traces: str, url: str) -> None:
    assert traces_url(endpoint, traces) == url


def test_one_connection_carries_all_batches() -> None:
    with OtlpReceiver() as receiver:
        one = sink(receiver.endpoint)
        for _ in range(3):
            assert one.send([SPANS], 1, 5.0) == 0
        assert (receiver.span_count, receiver.connections) == (3, 1)
        one.close()


def test_a_connection_that_was_closed_meanwhile_is_replaced_at_once() -> None:
    with OtlpReceiver() as receiver:
        one = sink(receiver.endpoint)
        one.send([SPANS], 1, 5.0)
        receiver.go_down()
        receiver.come_up()
        assert one.send([SPANS], 1, 5.0) == 0
        one.close()


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_these_answers_mean_later(status: int) -> None:
    with OtlpReceiver() as receiver:
        receiver.refuse(status)
        with pytest.raises(Unavailable, match=f"answers {status}"):
            sink(receiver.endpoint).send([SPANS], 1, 5.0)


@pytest.mark.parametrize("status", [301, 400, 401, 404, 413, 500])
def test_these_mean_never(status: int) -> None:
    with OtlpReceiver() as receiver:
        receiver.refuse(status)
        with pytest.raises(Refused, match=f"answers {status}"):
            sink(receiver.endpoint).send([SPANS], 1, 5.0)


@pytest.mark.parametrize(
    ("text", "least", "most"),
    [
        (lambda: "7", 7.0, 7.0),
        (lambda: email.utils.formatdate(time.time() + 3600, usegmt=True), 3500.0, 3600.0),
        (lambda: email.utils.formatdate(0, usegmt=True), 0.0, 0.0),
    ],
    ids=["seconds", "a date", "a date that is over"],
)
def test_how_long_it_asks_for(text: Callable[[], str], least: float, most: float) -> None:
    with OtlpReceiver() as receiver:
        receiver.refuse(503, retry_after=text())
        with pytest.raises(Unavailable) as caught:
            sink(receiver.endpoint).send([SPANS], 1, 5.0)
        assert caught.value.retry_after_s is not None
        assert least <= caught.value.retry_after_s <= most


@pytest.mark.parametrize("text", ["soon", ""])
def test_a_retry_after_that_says_nothing_is_passed_over(text: str) -> None:
    with OtlpReceiver() as receiver:
        receiver.refuse(503, retry_after=text)
        with pytest.raises(Unavailable) as caught:
            sink(receiver.endpoint).send([SPANS], 1, 5.0)
        assert caught.value.retry_after_s is None


def test_a_partial_success_says_how_many_were_not_taken() -> None:
    with OtlpReceiver() as receiver:
        receiver.reject(1)
        assert sink(receiver.endpoint).send([SPANS, SPANS], 2, 5.0) == 1
        receiver.reject(99)
        assert sink(receiver.endpoint).send([SPANS, SPANS], 2, 5.0) == 2
        receiver.answer_body(b"\xff no protobuf")
        assert sink(receiver.endpoint).send([SPANS], 1, 5.0) == 0


def _garbage(conn: socket.socket) -> None:
    conn.sendall(b"220 smtp ready\r\n")


def _nothing(_conn: socket.socket) -> None:
    pass


def _trickle(conn: socket.socket) -> None:
    conn.sendall(b"HTTP/1.1 200 OK\r\n")
    while conn.send(b"X"):
        time.sleep(0.01)


def _endless(conn: socket.socket) -> None:
    conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
    while conn.send(b"X" * 1000):
        time.sleep(0.01)


def _endless_and_closing(conn: socket.socket) -> None:
    conn.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
    while conn.send(b"X"):
        time.sleep(0.01)


@pytest.mark.parametrize("behave", [_garbage, _nothing, _trickle, _endless, _endless_and_closing])
def test_no_collector_keeps_a_batch_beyond_its_time(behave: Callable[[socket.socket], None]) -> None:
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            conn, _ = server.accept()
            with conn:
                try:
                    conn.recv(65536)
                    behave(conn)
                except OSError:
                    pass
                over.wait(20.0)

        thread = threading.Thread(target=serve)
        thread.start()
        failed: list[str] = []

        def send() -> None:
            try:
                sink(f"http://127.0.0.1:{server.getsockname()[1]}/").send([SPANS], 1, 0.3)
            except Unavailable as error:
                failed.append(str(error))

        sender = threading.Thread(target=send)
        sender.start()
        until(lambda: not sender.is_alive(), "the batch to be given up")
        over.set()
        thread.join()
    (reason,) = failed
    assert reason == "it did not answer in time" or behave is _garbage


def test_what_is_no_certificate_is_an_error_from_the_start(tmp_path: object) -> None:
    with pytest.raises(OSError, match=r"PEM|certificate|NO_"):
        sink("https://127.0.0.1:1/", ca_file=__file__)
