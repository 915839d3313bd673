"""Writes conf/edgeproxy.toml and docs/configuration.md: `python -m edgeproxy.config.reference [--check]`.

May know: what `schema` says of tables and keys, and the variables' own sentences. Must not: say anything of a key
itself, or it would have to be changed here too when it changes there.
"""

import sys
from collections.abc import Iterator
from inspect import getdoc
from pathlib import Path
from textwrap import wrap

from msgspec import Struct

from edgeproxy.config.model import Config
from edgeproxy.config.schema import Key, keys_of
from edgeproxy.config.toml import toml_value
from edgeproxy.config.variables import VARIABLES

_COLUMNS = 100
_BINARY_UNITS = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))
_MADE = "Made by `make reference` from the types in edgeproxy/config: change those, not this."

_TOML_OPENING = f"""\
edgeproxy's configuration: every key there is, with its default; origin and route are an example.
{_MADE}

`edgeproxy check -c FILE` says all that is wrong with a file, and what is in force. A key that is left out has its
default. Environment variables, and conf/edgeproxy.env, win over some of [tracing]: see docs/configuration.md.
"""

_PAGE_OPENING = f"""\
# Configuration

<!-- {_MADE} -->

One TOML file, given with `-c`. [conf/edgeproxy.toml](../conf/edgeproxy.toml) has every key with its default, to copy
from. The least that works is one origin:

```toml
[[origin]]
name = "app"
urls = ["http://127.0.0.1:8000"]
```

`edgeproxy check -c FILE` says all that is wrong with a file, and what is in force. A key that edgeproxy does not know
is an error, and so is a value of the wrong type or out of its range; each error names the file, the key, what stands
there and what is allowed:

```
edgeproxy.toml: limits.header_bytes = "x": expected an integer of bytes, 1024 or more
```

A changed file takes effect on reload (SIGHUP, `systemctl reload edgeproxy`): new workers start with it and the old ones
finish what they have in hand. If it is not valid, nothing changes and the node says so.
"""

_PAGE_CACHE = """\
## How long a response is fresh

The first of these that there is, decides:

1. the route's `ttl`;
2. what the origin says: `Edgeproxy-Cache-Control`, `CDN-Cache-Control` (RFC 9213), then `s-maxage`, `max-age` and
   `Expires`, within `ttl_min` and `ttl_max`;
3. the route's `status_ttl` for the response's status, `"404"` before `"4xx"`;
4. the route's `default_ttl`;
5. with `heuristic`, a tenth of the time since `Last-Modified`.

What may not be stored at all (`no-store`, `private` and the rest of RFC 9111) is not stored for any of them.

## Keys

Requests with the same key share stored responses. A key is made of the host, path and query, of the values of
`key_headers` and `key_cookies`, and of the fields that the response's `Vary` names. For a route with

```toml
[route.cache]
query_deny = ["utm_*", "fbclid"]
query_sort = true
```

| what a client asks for | the key, and what the origin is asked for |
| --- | --- |
| `/p?utm_source=mail&b=1&a=2` | `/p?a=2&b=1` |
| `/p?fbclid=x` | `/p` |
| `/p?a=2&a=1` | `/p?a=2&a=1` |
| `/p?a&a=` | `/p?a&a=` |
| `/p?` | `/p?` |
| `/p?utm%5Fsource=mail` | `/p?utm%5Fsource=mail` |
| `/a%2Fb//c/../d` | `/a%2Fb//c/../d` |

- Nothing is decoded and no path is tidied up: what may be two resources has two keys.
- What the key leaves out of a query or host is left out of the request to the origin as well, so that nobody can have a
  response stored that is an answer to something else. All cookies and header fields are sent on as they came: an origin
  that answers by one of them says so with `Vary`, or the route names it.
- Parameters of one name keep their order, also where names are sorted. An empty value, a missing one and a missing
  parameter are three things; so are they for headers and cookies.
- A cookie or header field counts as a keyed one, and meets a condition of `bypass`, wherever an origin may take it for
  that one: `X_Lang` for `X-Lang`, `%6Cang` for `lang`, what a comma or an open quote in a Cookie field may hide.
- A request that meets a condition of `bypass` goes to the origin as it came.
"""

_PAGE_ENVIRONMENT = """\
## Environment

These variables win over the file. An empty OTEL_* variable counts as unset, as OpenTelemetry has it. Those marked with
a dot take effect while the node runs, on every worker within a second, when they change in the environment file.
"""

_PAGE_ENV_FILE = """\
## Environment file

The tracing toggle is a file of environment variables, so that systemd (`EnvironmentFile=`), a shell and the node can
share it: the one that EDGEPROXY_ENV_FILE names, else `edgeproxy.env` beside the configuration's file if it is there,
else `conf/edgeproxy.env` in the working directory.

- One `NAME=value` a line; `export` before it is fine, so are single or double quotes around the value. If a name stands
  there twice, the last one counts. Lines that begin with `#` or `;` are comments. Give a comment a line of its own: to
  systemd what follows a value is part of it.
- What the file says wins over the node's own environment. Remove a line and what the environment said otherwise, or the
  configuration's file, holds again.
- `edgeproxy trace on|off` edits it in one step and waits until every worker has confirmed.
- A file that can't be understood changes nothing. The node goes on as it was and names the line:

```
edgeproxy.env:3: EDGEPROXY_TRACING = "maybe": expected on or off (or true, false, 1, 0)
```
"""


def toml_reference() -> str:
    """conf/edgeproxy.toml: a configuration that is valid as it is, with a comment on every key."""
    blocks = [_commented(_TOML_OPENING)]
    for name, key in keys_of(Config).items():
        blocks.append(_commented(_about(key)) + (f"[[{name}]]\n" if key.item else f"[{name}]\n"))
        blocks.extend(_toml_keys(key.table, name))
    return "\n".join(blocks)


def page() -> str:
    """docs/configuration.md: the same to read, and the environment."""
    parts = [_PAGE_OPENING]
    for name, key in keys_of(Config).items():
        heading = f"## `[[{name}]]`" if key.item else f"## `[{name}]`"
        rows = ["| key | default | allowed | what it is |", "| --- | --- | --- | --- |", *_page_rows(key.table)]
        parts += [f"{heading}\n", f"{_about(key)}\n", _lines(rows)]
    rows = ["| variable | live | allowed | what it does |", "| --- | --- | --- | --- |", *_variable_rows()]
    parts += [_PAGE_CACHE, _PAGE_ENVIRONMENT, _lines(rows), _PAGE_ENV_FILE]
    return "\n".join(parts)


def main(arguments: list[str], root: Path) -> int:
    """Write both, or with --check say which of them is out of date (exit status 1)."""
    if arguments not in ([], ["--check"]):
        sys.stderr.write("usage: python -m edgeproxy.config.reference [--check]\n")
        return 2
    wanted = {root / "conf" / "edgeproxy.toml": toml_reference(), root / "docs" / "configuration.md": page()}
    stale = [path for path, text in wanted.items() if not path.is_file() or path.read_text(encoding="utf-8") != text]
    for path in stale:
        if arguments:
            sys.stderr.write(f"{path} is out of date: run `make reference`\n")
        else:
            path.parent.mkdir(exist_ok=True)
            path.write_text(wanted[path], encoding="utf-8")
            sys.stdout.write(f"wrote {path}\n")
    return 1 if arguments and stale else 0


def _about(key: Key) -> str:
    return getdoc(key.table) or ""


def _lines(lines: list[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def _commented(text: str) -> str:
    lines = (line for paragraph in text.split("\n\n") for line in [*wrap(paragraph, _COLUMNS), ""])
    return _lines([f"# {line}".rstrip() for line in lines][:-1])


def _toml_keys(table: type[Struct] | None, where: str) -> Iterator[str]:
    """One block a key; a table in the table comes with its heading, and so must come last."""
    for key in _keys(table):
        if key.table is not None and key.item is None:
            yield f"{_commented(key.sentence)}[{where}.{key.name}]\n"
            yield from _toml_keys(key.table, f"{where}.{key.name}")
            continue
        value = key.default if key.example is None else key.example
        off = "# " if key.default is None else ""
        parts = "".join(_commented(f"- {part.name}: {part.sentence} {_rule(part)}") for part in _keys(key.table))
        yield f"{_commented(key.sentence)}{_commented(_rule(key))}{parts}{off}{key.name} = {toml_value(value)}\n"


def _rule(key: Key) -> str:
    if key.required:
        return f"Required: {key.expected}."
    return f"Allowed: {key.expected}. Default: {_default(key)}."


def _page_rows(table: type[Struct] | None, prefix: str = "") -> Iterator[str]:
    for key in _keys(table):
        if key.table is not None and key.item is None:
            yield from _page_rows(key.table, f"{prefix}{key.name}.")
            continue
        default = "required" if key.required else _default(key, "`")
        yield _row(f"`{prefix}{key.name}`", default, key.expected, key.sentence)
        yield from _page_rows(key.table, f"{prefix}{key.name}[].")


def _variable_rows() -> Iterator[str]:
    for variable in VARIABLES.values():
        yield _row(f"`{variable.name}`", "•" if variable.switches else "", variable.expected, variable.sentence)


def _row(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', '\\|') for cell in cells)} |"


def _keys(table: type[Struct] | None) -> list[Key]:
    return [] if table is None else list(keys_of(table).values())


def _default(key: Key, quote: str = "") -> str:
    """The default; a size also in the largest unit that it is a whole number of."""
    if key.default is None:
        return key.absent
    text = f"{quote}{toml_value(key.default)}{quote}"
    if key.unit == "bytes" and isinstance(key.default, int):
        for size, name in _BINARY_UNITS:
            if key.default and key.default % size == 0:
                return f"{text} ({key.default // size} {name})"
    return text


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], Path(__file__).resolve().parents[2]))
