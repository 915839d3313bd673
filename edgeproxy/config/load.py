"""From a TOML file and the environment to a Config, or to everything that is wrong with them.

May know: the file, the tables of `model`, the variables that win over them. Must not: know what a key means; what keys
have to do with each other is in `relations`. The tracing toggle is not settled here but in
`environment.effective_tracing`, because it may change while the node runs.
"""

import re
import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from edgeproxy.config.environment import described_by
from edgeproxy.config.errors import ConfigError, Problem, ProblemCode, shown
from edgeproxy.config.model import Config
from edgeproxy.config.relations import contradictions
from edgeproxy.config.schema import Key, keys_of
from edgeproxy.config.toml import toml_key

_TOML_POSITION = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")


def load(path: Path | None, environ: Mapping[str, str]) -> Config:
    """The configuration in the file, with what the environment says about tracing put over it.

    Without a file it is the defaults, which name no origin. Raises ConfigError with every problem there is.
    """
    config = Config()
    problems: list[Problem] = []
    if path is not None:
        tables = _read(path)
        problems = _Check(str(path)).whole(tables)
        config = config if problems else msgspec.convert(tables, Config)
    tracing, wrong = described_by(config.tracing, environ)
    if problems or wrong:
        raise ConfigError(problems + wrong)
    return msgspec.structs.replace(config, tracing=tracing)


def _read(path: Path) -> dict[str, Any]:
    source = str(path)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise _broken("unreadable", source, "", "there is no such file") from None
    except OSError as error:
        raise _broken("unreadable", source, "", f"can't be read: {error.strerror}") from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - data.rfind(b"\n", 0, error.start)
        raise _broken("syntax", source, f"line {line}, column {column}", "expected text in UTF-8") from None
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise _broken("syntax", source, "", "it is nested too deeply") from None
    except ValueError as error:  # TOMLDecodeError, or what int() says of a number of thousands of digits
        raise _broken("syntax", source, *_place_and_reason(text, str(error))) from None


def _broken(code: ProblemCode, source: str, where: str, reason: str) -> ConfigError:
    return ConfigError([Problem(code, source, where, None, reason)])


def _place_and_reason(text: str, message: str) -> tuple[str, str]:
    """Line and column out of tomllib's message, which has "end of document" where they would be that."""
    found = _TOML_POSITION.search(message)
    if found is None:
        return "", message
    line = found[1] or text.count("\n") + 1
    column = found[2] or len(text) - text.rfind("\n")
    reason = message[: found.start()]
    return f"line {line}, column {column}", reason[:1].lower() + reason[1:]


class _Check:
    """Walks tables as they were read and notes whatever is wrong."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._problems: list[Problem] = []

    def whole(self, tables: dict[str, Any]) -> list[Problem]:
        self._table("", tables, Config)
        for code, where, value, reason in contradictions(tables):
            self._note(code, where, value, reason)
        return self._problems

    def _note(self, code: ProblemCode, where: str, value: object, reason: str) -> None:
        is_table = isinstance(value, dict) or (
            isinstance(value, list) and any(isinstance(item, dict) for item in value)
        )
        self._problems.append(
            Problem(code, self._source, where, None if value is None or is_table else shown(value), reason)
        )

    def _table(self, where: str, table: dict[str, Any], struct: type[Struct]) -> None:
        keys = keys_of(struct)
        for name, value in table.items():
            if name in keys:
                self._value(_join(where, name), value, keys[name])
            else:
                self._unknown(where, name, value, list(keys))
        for key in keys.values():
            if key.required and key.name not in table:
                self._note("missing", _join(where, key.name), None, f"missing: expected {key.expected}")

    def _unknown(self, where: str, name: str, value: object, known: list[str]) -> None:
        table = _title(where) if where else "the file"
        nearest = get_close_matches(name.lower(), known, n=1, cutoff=0.5)
        hint = f"; did you mean {nearest[0]}?" if nearest else ";"
        self._note(
            "unknown_key", _join(where, name), value, f"unknown key in {table}{hint} allowed are {', '.join(known)}"
        )

    def _value(self, where: str, value: object, key: Key) -> None:
        if key.item is not None and isinstance(value, list):
            self._list(where, value, key, key.item)
        elif key.names is not None and key.values is not None and isinstance(value, dict):
            self._entries(where, value, key, key.names, key.values)
        elif key.table is not None and key.item is None and isinstance(value, dict):
            self._table(where, value, key.table)
        elif key.table is not None:
            title = _title(where) if key.item is None else f"[[{where}]]"
            self._note("value", where, value, f"expected {key.expected}, {title}")
        elif not _fits(value, key):
            self._note("value", where, value, f"expected {key.expected}")

    def _list(self, where: str, items: list[Any], key: Key, item_key: Key) -> None:
        before = len(self._problems)
        for index, item in enumerate(items):
            self._value(f"{where}[{index}]", item, item_key)
        if len(self._problems) == before and key.table is None and not _fits(items, key):
            self._note("value", where, items, f"expected {key.expected}")

    def _entries(self, where: str, table: dict[str, Any], key: Key, names: Key, values: Key) -> None:
        if names.check is None:  # then the table is checked as a whole
            if not _fits(table, key):
                self._note("value", where, table, f"expected {key.expected}")
            return
        for name, value in table.items():
            if _fits(name, names):
                self._value(_join(where, name), value, values)
            else:
                self._note("value", _join(where, name), value, f"unknown key; expected {names.expected}")


def _fits(value: object, key: Key) -> bool:
    """Whether the value has the key's type, is in its range and passes its check."""
    try:
        msgspec.convert(value, key.annotation, strict=True)
    except msgspec.ValidationError:
        return False
    return key.check is None or (key.may_be_empty and value == "") or key.check(value)


def _join(where: str, name: str) -> str:
    return f"{where}.{toml_key(name)}" if where else toml_key(name)


def _title(where: str) -> str:
    """A table as its heading has it; one in a list, or within such a one, by where it is."""
    return where if "[" in where else f"[{where}]"
