"""The configuration in force, as TOML that gives the same configuration when it is loaded.

May know: tables and keys as `schema` shows them. Must not: leave a key out because it has its default: whoever asks
wants to see what holds, not what was written.
"""

import re
from collections.abc import Iterator
from typing import Any

from msgspec import Struct

from edgeproxy.config.errors import HIDDEN
from edgeproxy.config.model import Config
from edgeproxy.config.schema import keys_of
from edgeproxy.config.toml import toml_key, toml_value

_SECRET = re.compile("secret|password|token|key", re.IGNORECASE)
"""What the name of a script's option has in it whose value is not for every eye."""


def effective(config: Config) -> str:
    """All of the configuration as TOML text."""
    return "\n".join("".join(f"{line}\n" for line in table) for table in _tables(config))


def _tables(config: Config) -> Iterator[list[str]]:
    for name, key in keys_of(Config).items():
        value = getattr(config, name)
        if key.item is None:
            yield [f"[{name}]", *_lines(value)]
        else:
            yield from ([f"[[{name}]]", *_lines(item)] for item in value)


def _lines(table: Struct) -> Iterator[str]:
    return (f"{toml_key(name)} = {toml_value(value)}" for name, value in _plain(table).items())


def _plain(table: Struct) -> dict[str, Any]:
    """A table's values by key; what TOML has no word for, None, is left out."""
    values = {name: getattr(table, name) for name in keys_of(type(table))}
    return {
        name: _plain(value) if isinstance(value, Struct) else _shown(name, value)
        for name, value in values.items()
        if value is not None
    }


def _shown(name: str, value: object) -> object:
    """A value, or that there is one that is not for every eye."""
    if name == "password" and value:
        return HIDDEN
    if name == "headers" and isinstance(value, dict):
        return dict.fromkeys(value, HIDDEN)
    if name == "options" and isinstance(value, dict):
        return {option: HIDDEN if value and _SECRET.search(option) else value for option, value in value.items()}
    if isinstance(value, list):
        return [_plain(item) if isinstance(item, Struct) else item for item in value]
    return value
