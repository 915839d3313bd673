"""What a client sees of the node, with real sockets: one node, one origin, and a path for each test."""

from collections.abc import Iterator

import pytest

from tests.support import Node, Origin


@pytest.fixture(scope="session")
def origin() -> Iterator[Origin]:
    """A scripted origin that the tests of this folder share."""
    with Origin() as started:
        yield started


@pytest.fixture(scope="session")
def node(origin: Origin) -> Iterator[Node]:
    """A node with one worker and the default configuration that the tests of this folder share."""
    with Node(origin.url) as started:
        yield started


_numbers = iter(range(1_000_000))


@pytest.fixture
def path() -> str:
    """A path that no other test uses."""
    return f"/{next(_numbers)}"
