"""How values are written in TOML.

May know: TOML 1.0. Must not: know keys or tables. Reading is the standard library's `tomllib`.
"""

import json
import re

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_DELETE = "\x7f"  # a control character to TOML, though not to JSON


def toml_key(key: str) -> str:
    """A key, in quotes where it needs them."""
    return key if _BARE_KEY.fullmatch(key) else _text(key)


def toml_value(value: object) -> str:
    """A value on one line. What TOML has no word for is shown as Python prints it."""
    match value:
        case str():
            return _text(value)
        case bool():
            return "true" if value else "false"
        case list() | tuple():
            return f"[{', '.join(map(toml_value, value))}]"
        case dict() if value:
            return f"{{ {', '.join(f'{toml_key(str(key))} = {toml_value(item)}' for key, item in value.items())} }}"
        case dict():
            return "{}"
        case _:
            return str(value)


def _text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace(_DELETE, "\\u007f")
