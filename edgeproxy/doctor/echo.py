"""What an origin's echo says that it received: trace contexts found in a body of JSON or text.

Pure. Echoes differ: `{"headers": {"Traceparent": "…"}}`, lists of pairs, `[{"name": …, "value": …}]`, CGI's names, or
the request's head as text are all understood.
"""

import json
import re
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import Any, NamedTuple

_LINE = re.compile(r"^[ \t\"']*([A-Za-z][A-Za-z0-9_-]*)[\"']?[ \t]*[:=](.*)$", re.MULTILINE)
_AROUND = " \t\r\"',"
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?")
_B3 = re.compile(r"([0-9a-f]{16}|[0-9a-f]{32})-([0-9a-f]{16})(?:-([01d])(?:-[0-9a-f]{16})?)?")
_JAEGER = re.compile(r"([0-9a-f]{1,32}):([0-9a-f]{1,16}):[0-9a-f]{1,16}:([0-9a-f]{1,2})", re.IGNORECASE)
_CONTEXTS = ("traceparent", "b3", "uber-trace-id")
_TRUE = ("1", "d", "true")


class Context(NamedTuple):
    """A trace context that arrived."""

    field: str
    trace_id: str
    span_id: str
    sampled: bool | None
    """None: left to the receiver."""


class Echo(NamedTuple):
    """What the origin says it received."""

    contexts: tuple[Context, ...]
    invalid: tuple[str, ...]
    """Fields of contexts that can't be understood, with their values."""
    fields: int
    """How many header fields there are in all; 0: this is no echo."""


def read_echo(body: bytes) -> Echo:
    """Look for header fields in a body, and for contexts among them."""
    text = body.decode("utf-8", "replace")
    try:
        fields = [*_pairs(json.loads(text))]
    except (ValueError, RecursionError):
        fields = [(name, value.strip(_AROUND)) for name, value in _LINE.findall(text)]
    named = [(_name(name), value.strip()) for name, value in fields]
    contexts: list[Context] = []
    invalid: list[str] = []
    for name, value in named:
        if name in _CONTEXTS:
            # Servers join fields of one name by comma; no context has one in it.
            for part in filter(None, map(str.strip, value.split(","))):
                context = _context(name, part)
                if context is not None:
                    contexts.append(context)
                elif part not in ("0", "d", "1"):  # B3 may say no more than whether
                    invalid.append(f"{name}: {part}")
    contexts += _b3_multi(named)
    return Echo(tuple(contexts), tuple(invalid), len(named))


def _pairs(value: Any) -> Iterator[tuple[str, str]]:  # noqa: ANN401  JSON
    match value:
        case {"name": str(name), "value": str(text)}:
            yield name, text
        case dict():
            for key, inner in value.items():
                if isinstance(inner, str):
                    yield key, inner
                elif isinstance(inner, list) and inner and all(isinstance(one, str) for one in inner):
                    yield from ((key, one) for one in inner)
                else:
                    yield from _pairs(inner)
        case [str(name), str(text)]:
            yield name, text
        case list():
            for inner in value:
                yield from _pairs(inner)


def _name(name: str) -> str:
    return name.lower().replace("_", "-").removeprefix("http-")


def _context(name: str, value: str) -> Context | None:
    if name == "traceparent" and (match := _TRACEPARENT.fullmatch(value)):
        return Context(name, match[1], match[2], bool(int(match[3], 16) & 1))
    if name == "b3" and (match := _B3.fullmatch(value)):
        return Context(name, match[1].zfill(32), match[2], None if match[3] is None else match[3] in _TRUE)
    if name == "uber-trace-id" and (match := _JAEGER.fullmatch(value.replace("%3A", ":").replace("%3a", ":"))):
        return Context(name, match[1].lower().zfill(32), match[2].lower().zfill(16), bool(int(match[3], 16) & 1))
    return None


def _b3_multi(fields: Sequence[tuple[str, str]]) -> Iterator[Context]:
    """A context for each trace id: where there are several, the first span id and decision go with the first one."""
    spans, decisions = _values(fields, "x-b3-spanid"), _values(fields, "x-b3-sampled")
    for trace_id, span_id, sampled in zip_longest(_values(fields, "x-b3-traceid"), spans, decisions):
        if trace_id and span_id:
            is_sampled = None if sampled is None else sampled in _TRUE
            yield Context("x-b3-traceid", trace_id.lower().zfill(32), span_id.lower(), is_sampled)


def _values(fields: Sequence[tuple[str, str]], wanted: str) -> list[str]:
    return [part.strip() for name, value in fields if name == wanted for part in value.split(",")]
