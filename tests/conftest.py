"""Fixtures that every test folder shares. What they are made of is in tests/support."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.support import Node, Origin, RedisServers


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What runs on both engines runs on the node with every test run, and under mitmdump where that is asked for."""
    for item in items:
        if "mitmdump" in item.nodeid.partition("[")[2]:
            item.add_marker(pytest.mark.stock)


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


@pytest.fixture(scope="session")
def shared_redis_cluster() -> Iterator[RedisServers]:
    """The Redis Cluster that tests share: `redis_cluster` is how they ask for it."""
    with RedisServers(node_timeout_ms=5000) as started:  # nobody takes over because the machine is busy
        yield started


@pytest.fixture
def redis_cluster(shared_redis_cluster: RedisServers) -> Iterator[RedisServers]:
    """An empty Redis Cluster, for tests that leave its servers alive and their configuration as it was."""
    shared_redis_cluster.wait_ready()
    shared_redis_cluster.flush()
    yield shared_redis_cluster
    shared_redis_cluster.close_clients()


@pytest.fixture
def start_redis_cluster() -> Iterator[Callable[..., RedisServers]]:
    """Start Redis Clusters for one test, to break them or with other options: `start_redis_cluster(tls=True)`."""
    with ExitStack() as stack:

        def start(**options: Any) -> RedisServers:
            return stack.enter_context(RedisServers(**options))

        yield start
