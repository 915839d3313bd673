"""Fixtures that every test folder shares. What they are made of is in tests/support."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.support import Node, Origin


@pytest.fixture
def origin() -> Iterator[Origin]:
    """A scripted origin for one test."""
    with Origin() as started:
        yield started


@pytest.fixture
def node(origin: Origin) -> Iterator[Node]:
    """A node with one worker and the default configuration, in front of `origin`, for one test."""
    with Node(origin.url) as started:
        yield started


@pytest.fixture
def start_node(origin: Origin) -> Iterator[Callable[..., Node]]:
    """Start nodes in front of `origin` with other configurations: `start_node(limits={"headers": 10})`."""
    with ExitStack() as stack:

        def start(*origins: str, **options: Any) -> Node:
            return stack.enter_context(Node(*(origins or (origin.url,)), **options))

        yield start
