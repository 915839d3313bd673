"""Collapsed requests when the node stops, or takes a new configuration."""

import contextlib
import signal

from tests.cache.crowds import Held, answers, ask, lines_of, under_way
from tests.proxy.edges import Edge
from tests.support import Cut, until

HEAD = b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 10\r\n\r\n"
PATH = "/app/x"


def test_a_node_that_stops_answers_all_who_wait() -> None:
    with Edge(app={}, tables={"limits": {"drain_timeout": 20}}) as edge:
        held = Held(HEAD, b"01234")
        edge["app"].on(PATH, held)
        leader = ask(edge, PATH)
        edge["app"].wait_for(PATH)
        waiting = [ask(edge, PATH) for _ in range(5)]
        under_way(edge, PATH, request_sent=1, collapsed=5)
        edge.node.signal(signal.SIGTERM)
        until(lambda: {worker.state for worker in edge.node.status().workers} == {"draining"}, "the worker to drain")
        held.begin()
        under_way(edge, PATH, streaming=6)
        held.send(b"56789")
        held.end()
        for response in answers([leader, *waiting]):
            assert (response.body, response["connection"]) == (b"0123456789", "close")
        assert edge.node.wait() == 0
        assert [line["outcome"] for line in edge.node.log_lines(6)] == ["ok"] * 6
        assert len(edge["app"].seen(PATH)) == 1


def test_a_node_that_cannot_wait_any_longer_ends_all_with_their_lines() -> None:
    with Edge(app={}, tables={"limits": {"drain_timeout": 0.5}}) as edge:
        held = Held()
        edge["app"].on(PATH, held)
        leader = ask(edge, PATH)
        edge["app"].wait_for(PATH)
        crowd = [leader, *(ask(edge, PATH) for _ in range(5))]
        under_way(edge, PATH, request_sent=1, collapsed=5)
        edge.node.signal(signal.SIGTERM)
        for client in crowd:
            with contextlib.suppress(Cut):
                assert client.rest() == b""
        assert edge.node.wait() == 0
        lines = edge.node.log_lines(6)
        assert {(line["outcome"], line["error"]["type"]) for line in lines} == {("timeout", "drain_timeout")}
        assert sorted(len(line["attempts"]) for line in lines) == [0, 0, 0, 0, 0, 1]


def test_a_fetch_goes_on_for_old_and_new_clients_while_the_configuration_changes() -> None:
    """The old workers' fetch is what the new ones wait for as well."""
    with Edge(app={}, tables={"workers": 2, "limits": {"drain_timeout": 20}}) as edge:
        held = Held(HEAD, b"0123456789")
        edge["app"].on(PATH, held)
        before = [ask(edge, PATH) for _ in range(10)]
        under_way(edge, PATH, request_sent=1, collapsed=9)
        edge.node.write_config(limits={"headers": 50})
        edge.node.signal(signal.SIGHUP)
        until(
            lambda: sorted(w.generation for w in edge.node.status().workers if w.state == "serving") == [2, 2],
            "the new workers to serve",
        )
        after = [ask(edge, PATH) for _ in range(10)]
        under_way(edge, PATH, request_sent=1, collapsed=19)
        held.go()
        assert [response.body for response in answers([*before, *after])] == [b"0123456789"] * 20
        assert len(edge["app"].seen(PATH)) == 1
        assert {line["outcome"] for line in lines_of(edge, PATH, 20)} == {"ok"}
