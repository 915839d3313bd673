import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing

import pytest

from edgeproxy.node import ListenError
from edgeproxy.node.sockets import Listeners
from tests.support import until

CONNECTIONS = 60


@pytest.fixture
def bind() -> Iterator[Callable[[str, int], Listeners]]:
    with ExitStack() as stack:

        def made(address: str, count: int) -> Listeners:
            listeners = Listeners(address, 1024)
            listeners.open(count)
            stack.callback(listeners.close)
            return listeners

        yield made


@pytest.fixture
def connect() -> Iterator[Callable[[Listeners, int], None]]:
    with ExitStack() as stack:

        def made(listeners: Listeners, count: int) -> None:
            for _ in range(count):
                stack.enter_context(socket.create_connection(("127.0.0.1", _port(listeners)), timeout=5))

        yield made


Bind = Callable[[str, int], Listeners]
Connect = Callable[[Listeners, int], None]


def test_port_0_becomes_the_port_that_the_kernel_gave(bind: Bind, connect: Connect) -> None:
    listeners = bind("127.0.0.1:0", 3)
    assert _port(listeners) > 0
    connect(listeners, 1)


def test_connections_are_spread_over_all_sockets(bind: Bind, connect: Connect) -> None:
    listeners = bind("127.0.0.1:0", 2)
    connect(listeners, CONNECTIONS)
    assert _waiting(listeners, CONNECTIONS) == pytest.approx([CONNECTIONS / 2] * 2, abs=CONNECTIONS / 2 - 1)


def test_a_socket_that_is_to_go_gets_no_new_connections(bind: Bind, connect: Connect) -> None:
    listeners = bind("127.0.0.1:0", 3)
    listeners.spread(2)
    connect(listeners, CONNECTIONS)
    assert _waiting(listeners, CONNECTIONS)[2] == 0
    listeners.close_from(2)
    connect(listeners, CONNECTIONS)
    assert len(_waiting(listeners, 2 * CONNECTIONS)) == 2


def test_a_socket_that_was_added_gets_none_before_it_is_its_turn(bind: Bind, connect: Connect) -> None:
    listeners = bind("127.0.0.1:0", 1)
    listeners.extend(3)
    connect(listeners, CONNECTIONS)
    assert _waiting(listeners, CONNECTIONS) == [CONNECTIONS, 0, 0]
    listeners.spread(3)
    connect(listeners, CONNECTIONS)
    assert all(_waiting(listeners, 2 * CONNECTIONS))


def test_an_address_in_use_is_refused_even_if_its_user_would_share_it(bind: Bind) -> None:
    taken = bind("127.0.0.1:0", 2)
    with pytest.raises(ListenError, match=rf"listen\.http = '{taken.address}': Address already in use"):
        Listeners(taken.address, 16).open(1)


def test_an_address_that_comes_free_in_time_is_taken(bind: Bind) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(ListenError):
            Listeners(address, 16).open(1, patience_s=0.1)
    with closing(Listeners(address, 16)) as free:
        free.open(1, patience_s=5)
        assert free.address == address


@pytest.mark.parametrize(
    ("address", "reason"),
    [("203.0.113.7:80", "this host has no such address"), ("nowhere.invalid:80", "listen.http = 'nowhere.invalid:80'")],
)
def test_an_address_that_cannot_be_had_is_named(address: str, reason: str) -> None:
    with pytest.raises(ListenError, match=reason):
        Listeners(address, 16).open(1)


def test_every_address_of_ipv6_is_every_address_of_ipv4_too(bind: Bind, connect: Connect) -> None:
    listeners = bind("[::]:0", 2)
    assert listeners.address.startswith("[::]:")
    connect(listeners, 1)


def _port(listeners: Listeners) -> int:
    return int(listeners.address.rpartition(":")[2])


def _waiting(listeners: Listeners, total: int) -> list[int]:
    def counted() -> list[int] | None:
        counts = [listeners.waiting(index) for index in range(len(listeners))]
        return counts if sum(counts) == total else None

    return until(counted, f"{total} connections to wait", timeout=5)
