"""Pipelined requests: answered whole, in order, whatever each of them is (RFC 9112 §9.3.2)."""

import itertools
import random
import threading

from tests.support import Node, Origin, chunked, gated, raw, reply, request

CHUNKED_POST = (
    "POST {} HTTP/1.1\r\nHost: edge.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\n\r\n"
)


def test_thousands_of_pipelined_hits_are_all_answered(node: Node, origin: Origin, path: str) -> None:
    origin.on(path, reply(b"x" * 785, "Cache-Control: max-age=600"))
    count = 5000
    with node.recording() as log, node.connect() as client:
        client.get(path)
        sender = threading.Thread(target=client.send, args=(request(path) * count,))
        sender.start()
        for _ in range(count):
            response = client.response()
            assert (response.status, len(response.body)) == (200, 785)
        sender.join()
        assert client.get(path).status == 200
        lines = log.lines(count + 2)
    assert [line["cache"] for line in lines] == ["MISS", *["HIT"] * (count + 1)]


def test_pipelined_hits_wait_for_a_client_that_reads_late(node: Node, origin: Origin, path: str) -> None:
    origin.on(path, reply(b"x" * 20_000, "Cache-Control: max-age=600"))
    count = 2000  # 40 MB of responses: far more than any buffer on the way
    with node.connect(receive_buffer=4096) as client:
        client.get(path)
        before = node.memory_bytes()
        sender = threading.Thread(target=client.send, args=(request(path) * count,))
        sender.start()
        for number in range(count):
            assert len(client.response().body) == 20_000
            if number == 10:
                assert node.memory_bytes() - before < 10_000_000
        sender.join()


def test_a_slow_answer_holds_back_those_behind_it(node: Node, origin: Origin, path: str) -> None:
    gate = threading.Event()
    origin.on(path + "-slow", gated(gate, reply(b"slow")))
    origin.on(path + "-hit", reply(b"hit", "Cache-Control: max-age=60"))
    with node.connect() as client:
        client.get(path + "-hit")
        client.send(request(path + "-slow") + request(path + "-hit") + request(path + "-miss"))
        origin.wait_for(path + "-slow")
        gate.set()
        assert [client.response().text[:4] for _ in range(3)] == ["slow", "hit", "GET "]
        assert client.get(path + "-hit").text == "hit"


def test_bodies_between_pipelined_requests_go_where_they_belong(node: Node, origin: Origin, path: str) -> None:
    gate = threading.Event()
    origin.on(path + "-slow", gated(gate, reply(b"slow")))
    post = f"POST {path}-1 HTTP/1.1\r\nHost: edge.test\r\nContent-Length: 5\r\n\r\nfirst"
    with node.connect() as client:
        client.send(request(path + "-slow"))
        client.send((post + CHUNKED_POST.format(path + "-2")).encode() + request(path + "-3"))
        origin.wait_for(path + "-slow")
        gate.set()
        assert client.response().text == "slow"
        assert client.response().text.endswith("first")
        assert client.response().text.endswith("abcdefg")
        assert client.response().text.startswith(f"GET {path}-3 ")


def test_a_long_body_behind_a_slow_request_is_streamed_in_its_turn(node: Node, origin: Origin, path: str) -> None:
    gate = threading.Event()
    body = random.Random(1).randbytes(3_000_000)
    origin.on(path + "-slow", gated(gate, reply(b"slow")))
    with node.connect() as client:
        client.send(request(path + "-slow"))
        origin.wait_for(path + "-slow")
        sender = threading.Thread(
            target=client.send, args=(request(path, method="POST", body=body) + request(path + "-end"),)
        )
        sender.start()
        gate.set()
        assert client.response().text == "slow"
        assert client.response().body.endswith(body)
        assert client.response().status == 200
        sender.join()


def test_a_failing_one_in_the_middle_harms_nobody(node: Node, origin: Origin, path: str) -> None:
    gate = threading.Event()
    origin.on(path + "-slow", gated(gate, reply(b"slow")))
    origin.on(path + "-broken", raw(b"no http at all\r\n\r\n", then="close"))
    with node.connect() as client:
        client.send(request(path + "-slow") + request(path + "-broken"))
        origin.wait_for(path + "-slow")
        gate.set()
        assert [client.response().status for _ in range(2)] == [200, 502]
        assert client.get(path).status == 200  # the node reads on
        client.send(request(path + "-broken") + request(path + "-1") + request(path + "-broken"))
        assert [client.response().status for _ in range(3)] == [502, 200, 502]
        assert client.get(path).status == 200


def test_head_and_get_alternate(node: Node, origin: Origin, path: str) -> None:
    origin.on(path, reply(b"hit", "Cache-Control: max-age=60"))
    origin.on(path + "-chunked", chunked(b"a", b"b"))
    with node.connect() as client:
        for target in (path, path + "-chunked"):
            client.send((request(target, method="HEAD") + request(target)) * 5)
            for _ in range(5):
                assert client.response("HEAD").body == b""
                assert client.response().text in {"hit", "ab"}


def test_versions_may_be_mixed(node: Node, origin: Origin, path: str) -> None:
    origin.on(path, chunked(b"no ", b"length"))
    old = f"GET {path} HTTP/1.0\r\nHost: edge.test\r\n\r\n".encode()
    with node.recording() as log, node.connect() as client:
        client.send(request(path) + old)
        assert client.response()["transfer-encoding"] == "chunked"
        second = client.response()
        assert (second.values("transfer-encoding"), second.text) == ([], "no length")
        assert [line["protocol"] for line in log.lines(2)] == ["HTTP/1.1", "HTTP/1.0"]


def test_a_refused_one_is_answered_in_its_turn_and_ends_the_connection(node: Node, origin: Origin, path: str) -> None:
    gate = threading.Event()
    origin.on(path + "-slow", gated(gate, reply(b"slow")))
    with node.recording() as log, node.connect() as client:
        client.send(request(path + "-slow") + request(path + "-2"))
        client.send(request(path + "-bad", "Bad Name: x") + request(path + "-behind"))
        origin.wait_for(path + "-slow")
        gate.set()
        assert [client.response().status for _ in range(3)] == [200, 200, 400]
        assert client.is_ended()
        assert [line["outcome"] for line in log.lines(3)] == ["ok", "ok", "refused"]
    assert not origin.seen(path + "-behind")


def test_mixed_requests_in_random_pieces(node: Node, origin: Origin, path: str) -> None:
    dice = random.Random(7)
    origin.on(path + "-hit", reply(b"hit", "Cache-Control: max-age=600"))
    kinds = {
        "hit": request(path + "-hit"),
        "miss": request(path + "-miss"),
        "post": request(path + "-post", method="POST", body=b"\r\n\r\nGET / HTTP/1.1\r\n" * 20),
        "chunked": CHUNKED_POST.format(path + "-chunked").encode(),
    }
    with node.recording() as log, node.connect() as client:
        client.get(path + "-hit")
        sent = dice.choices(list(kinds), k=400)
        data = b"".join(kinds[kind] for kind in sent)
        cuts = sorted({0, len(data), *(dice.randrange(len(data)) for _ in range(800))})
        pieces = [data[start:end] for start, end in itertools.pairwise(cuts)]
        sender = threading.Thread(target=client.send_in_pieces, args=(pieces,))
        sender.start()
        for kind in sent:
            response = client.response()
            assert response.status == 200
            text = response.text
            assert text == "hit" if kind == "hit" else f"{path}-{kind} HTTP/1.1\r\n" in text
        sender.join()
        lines = log.lines(401)
    assert [line["path"] for line in lines[1:]] == [f"{path}-{kind}" for kind in sent]
