"""A key's value out of the text of an environment variable: the same values, and checks, as in the file.

May know: keys as `schema` shows them. Must not: know a key or variable by name.
"""

import re
import tomllib
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Struct

from edgeproxy.config.errors import shown
from edgeproxy.config.schema import Key, keys_of

NUMBER = re.compile(r"(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
SWITCH_WORDS = "on or off (or true, false, 1, 0)"
_SWITCH = {"on": True, "true": True, "1": True, "off": False, "false": False, "0": False}


class UnusableError(ValueError):
    """What is wrong with a text, where more is to be said than what is expected."""


def switch(text: str) -> bool:
    """On or off; ValueError if it is neither."""
    try:
        return _SWITCH[text.lower()]
    except KeyError:
        raise ValueError(text) from None


def reader_of(key: Key) -> Callable[[str], Any]:
    """What reads the key's value: a number, a switch, a text, or a list of tables; it raises ValueError."""
    if key.table is not None:
        table = key.table
        return lambda text: _tables(text, table)
    if isinstance(key.default, bool):
        return switch
    return (lambda text: _number(text, key)) if isinstance(key.default, float) else (lambda text: _text(text, key))


def expected(key: Key) -> str:
    """What such a text may be, in words."""
    if key.table is not None:
        first = next(item for item in keys_of(key.table).values() if item.required)
        return f"a list of tables such as [{{ {first.name} = {first.example} }}], as in the file"
    return SWITCH_WORDS if isinstance(key.default, bool) else key.expected


def _number(text: str, key: Key) -> float:
    if not NUMBER.fullmatch(text):
        raise ValueError(text)
    number: float = msgspec.convert(float(text), key.annotation)
    return number


def _text(text: str, key: Key) -> str:
    if not (text or key.may_be_empty) or (text and key.check is not None and not key.check(text)):
        raise ValueError(text)
    return text


def _tables(text: str, table: type[Struct]) -> list[Struct]:
    try:
        document = tomllib.loads(f"list = {text}")
        items = msgspec.convert(document.pop("list"), list[table])  # type: ignore[valid-type]
    except RecursionError:
        raise ValueError(text) from None
    except ValueError as error:  # of tomllib, of msgspec
        raise UnusableError(str(error)) from None
    if document:
        raise ValueError(text)
    for index, item in enumerate(items):
        for key in keys_of(table).values():
            value = getattr(item, key.name)
            if key.check is not None and value != "" and not key.check(value):
                raise UnusableError(f"{key.name} in [{index}] is {shown(value)}, expected {key.expected}")
    return items
