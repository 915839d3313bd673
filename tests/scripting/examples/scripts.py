"""The bundled scripts in conf/addons, as files and as modules, and nodes that run them."""

import contextlib
import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from tests.scripting.engines import Value, get
from tests.support import Node, Origin, Record, Response

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "conf" / "addons"


def path_of(name: str) -> Path:
    """A script's file."""
    return FOLDER / f"{name}.py"


def module(name: str) -> ModuleType:
    """A script as a module, its options not yet known."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", path_of(name))
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


@dataclass
class Edge:
    """A node with scripts in front of a scripted origin."""

    node: Node
    origin: Origin

    def get(self, target: str, *fields: str, **options: Any) -> Response:
        """One request on a connection of its own."""
        return get(self.node, target, *fields, **options)

    def record(self, response: Response) -> Record:
        """A response's access-log line."""
        return self.node.record(response.trace_id)

    def logged(self, response: Response) -> Mapping[str, str]:
        """What scripts wrote into it."""
        script = self.record(response)["script"]
        assert isinstance(script, dict), script
        log = script["log"]
        assert isinstance(log, dict)
        return log


@contextlib.contextmanager
def edge(*names: str, options: Mapping[str, Value] | None = None, **tables: Any) -> Iterator[Edge]:
    """A node that runs bundled scripts; `tables` are its other tables, `addons` may add to that of the scripts."""
    addons = {"scripts": [str(path_of(name)) for name in names], "options": dict(options or {})}
    addons |= tables.pop("addons", {})
    with Origin() as origin, Node(origin.url, addons=addons, **tables) as node:
        yield Edge(node, origin)
