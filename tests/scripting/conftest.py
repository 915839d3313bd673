"""A node for each test module that has a script, watched for each of its tests."""

from collections.abc import Iterator

import pytest

from tests.scripting.builders import Site
from tests.scripting.changing import SharedNodes


@pytest.fixture(scope="module")
def shared_site(request: pytest.FixtureRequest) -> Iterator[Site]:
    """One node for all tests of a module: its script is the module's `SCRIPT`, its tables are `TABLES`."""
    with Site(request.module.SCRIPT, **getattr(request.module, "TABLES", {})) as started:
        yield started


@pytest.fixture
def site(shared_site: Site) -> Iterator[Site]:
    """The module's node; when the test is over, its log must tell what the clients saw."""
    with shared_site.watched():
        yield shared_site


@pytest.fixture(scope="module")
def shared_nodes() -> Iterator[SharedNodes]:
    """Nodes for the tests of a module that bring their own scripts."""
    with SharedNodes() as nodes:
        yield nodes
