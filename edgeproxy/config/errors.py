"""What can be wrong with the configuration, as values that render once.

May know: how TOML writes a value. Must not: decide what is valid; whoever does says what would have been.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgeproxy.config.toml import toml_value

HIDDEN = "(hidden)"
"""In place of a secret."""
_SHOWN_CHARACTERS = 100
_CREDENTIALS = re.compile(r"(?<=://)[^/\s\"]*@")

type ProblemCode = Literal["unreadable", "syntax", "unknown_key", "missing", "value", "environment"]


class SettingsError(Exception):
    """The settings can't be used. `code` is stable; the text names file, key, value and what is allowed."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, in one place."""

    code: ProblemCode
    source: str
    """The file, or "environment"."""
    key: str
    """Where in it: `limits.header_bytes`, `origin[0].urls[1]`, a variable; empty for the file as a whole."""
    value: str | None
    """What stands there, as text; None where nothing does."""
    reason: str
    """What is expected there."""

    def __str__(self) -> str:
        where = f"{self.source}: {self.key}" if self.key else self.source
        return f"{where}: {self.reason}" if self.value is None else f"{where} = {self.value}: {self.reason}"


class ConfigError(SettingsError):
    """The configuration is not valid. `problems` has all that is wrong with it, not only what came first.

    Its `code`: config_unreadable, config_syntax or config_invalid.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = list(problems)
        kind = self.problems[0].code
        super().__init__(
            f"config_{kind}" if kind in {"unreadable", "syntax"} else "config_invalid",
            "\n".join(map(str, self.problems)),
        )


class EnvFileError(SettingsError):
    """The environment file can't be read, understood or written.

    Its `code`: env_file_unreadable, env_file_syntax, env_file_value or env_file_unwritable.
    """

    def __init__(self, code: str, path: Path, reason: str, *, line: int | None = None) -> None:
        self.path = path
        self.line = line
        super().__init__(code, f"{path}: {reason}" if line is None else f"{path}:{line}: {reason}")


def shown(value: object) -> str:
    """A value as it stands in the file, on one line, not too long, and without a url's password."""
    text = _CREDENTIALS.sub("***@", toml_value(value))
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 1]}…"
