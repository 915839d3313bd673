"""What commands have in common: their options, how they find a running node, how they say what is wrong.

Exit codes: 1 when something could not be done, 2 when the configuration or the command line is wrong.
"""

import contextlib
import os
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import click

from edgeproxy.config import SettingsError
from edgeproxy.node import NodeError, RuntimeDir

FAILED = 1
MISCONFIGURED = 2
_RUNTIME_DIR = re.compile(r"""^\s*runtime_dir\s*=\s*["']([^"']*)["']""", re.MULTILINE)

config_option = click.option(
    "-c", "--config", "config_path", type=click.Path(path_type=Path), help="Configuration file of the node."
)
required_config_option = click.option(
    "-c", "--config", "config_path", type=click.Path(path_type=Path), required=True, help="Configuration file."
)
runtime_dir_option = click.option(
    "--runtime-dir",
    type=click.Path(path_type=Path),
    help="Runtime directory of the node; by default the one that its configuration names.",
)


def find_node(config_path: Path | None, runtime_dir: Path | None = None) -> RuntimeDir:
    """Find the runtime directory of the node that runs with a configuration.

    The file need not be valid for that: a node goes on with what it had when its file is broken, and how it is then is
    what an operator wants to know. Exits when the file can't be read.
    """
    if runtime_dir:
        return RuntimeDir(runtime_dir.absolute())
    if not config_path:
        return RuntimeDir.resolve("", os.environ)
    try:
        text = config_path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        fail(f"{config_path}: {error.strerror}", MISCONFIGURED)
    return RuntimeDir.resolve(_configured(text), os.environ)


def _configured(text: str) -> str:
    try:
        node = tomllib.loads(text).get("node")
    except tomllib.TOMLDecodeError:
        found = _RUNTIME_DIR.search(text)
        return found[1] if found else ""
    directory = node.get("runtime_dir") if isinstance(node, dict) else None
    return directory if isinstance(directory, str) else ""


def fail(message: str, code: int = FAILED) -> NoReturn:
    """Say what is wrong, each line by itself, and exit."""
    for line in message.splitlines() or [message]:
        click.echo(f"edgeproxy: {line}", err=True)
    raise SystemExit(code)


@contextlib.contextmanager
def plain_errors() -> Iterator[None]:
    """Turn the errors that an operator can do something about into a message and an exit code."""
    try:
        yield
    except SettingsError as error:
        fail(str(error), FAILED if error.code == "env_file_unwritable" else MISCONFIGURED)
    except NodeError as error:
        fail(str(error))
    except BrokenPipeError:
        raise
    except OSError as error:
        fail(str(error))
