"""What clients make up anew for each request is not remembered at any length."""

from collections.abc import Callable

import pytest

from tests.support import Node, request

MIB = 1 << 20


def made_up(number: int) -> str:
    """A list of 30 KB that comes once."""
    return ",".join(f"{number}-{member:x}" for member in range(4200))


@pytest.mark.parametrize("name", ["Cache-Control", "Connection"])
def test_long_lists_that_come_once(node: Node, path: str, name: str) -> None:
    with node.connect() as client:
        client.get(path)
        before = node.memory_bytes()
        for number in range(100):
            assert client.get(path, f"{name}: {made_up(number)}").status == 200
    assert node.memory_bytes() - before < 12 * MIB


def test_long_hosts_that_come_once(start_node: Callable[..., Node], path: str) -> None:
    node = start_node(cache={"store": "memory", "memory_bytes": MIB})  # what is cached is bounded, and not meant here
    with node.connect() as client:
        client.get(path)
        before = node.memory_bytes()
        for number in range(400):
            assert client.send(request(path, host=f"{number}" + "h" * 30_000)).response().status == 200
    assert node.memory_bytes() - before < 6 * MIB
