"""What no key can say alone: what must be given together, what contradicts itself, what may not be twice.

May know: what keys mean to each other. Must not: judge a value by itself; `load` has done so, and all that is wrong is
to be told at once. So the tables come as they were read: whatever has the wrong type is passed over here.
"""

import os
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

from edgeproxy.config.errors import ProblemCode
from edgeproxy.config.toml import toml_key, toml_value

type Table = dict[str, Any]


class Wrong(NamedTuple):
    """A value that does not go with another one."""

    code: ProblemCode
    where: str
    value: object
    reason: str


def contradictions(tables: Table) -> Iterator[Wrong]:
    """All that is wrong between the keys of a configuration."""
    origins, routes = _tables(tables, "origin"), _tables(tables, "route")
    yield from _origins(origins, routes)
    for index, route in routes.items():
        if isinstance(cache := route.get("cache"), dict):
            yield from _cache(f"route[{index}].cache", cache)
    if len(origins) > 1:
        yield from _shared_keys(routes)
    if isinstance(cache := tables.get("cache"), dict):
        yield from _redis(cache)
    if isinstance(tracing := tables.get("tracing"), dict):
        yield from _export(tracing)
        yield from _sampling(tracing, routes)
        yield from _propagators(tracing.get("propagators"))
    if isinstance(addons := tables.get("addons"), dict):
        yield from _addons(addons)


def _tables(tables: Table, name: str) -> dict[int, Table]:
    """The tables of a list by index, as far as it has any: what else stands there has been noted already."""
    value = tables.get(name)
    items = value if isinstance(value, list) else []
    return {index: item for index, item in enumerate(items) if isinstance(item, dict)}


def _origins(origins: dict[int, Table], routes: dict[int, Table]) -> Iterator[Wrong]:
    if not origins:
        yield Wrong("missing", "origin", None, "missing: expected at least one [[origin]] with its name and urls")
    if len(origins) > 1 and not routes:
        yield Wrong("missing", "route", None, "missing: with several origins, expected at least one [[route]]")
    first: dict[str, int] = {}
    for index, origin in origins.items():
        name = origin.get("name")
        if isinstance(name, str) and first.setdefault(name, index) != index:
            taken = f"expected a name of its own: origin[{first[name]}] has this one"
            yield Wrong("value", f"origin[{index}].name", name, taken)
    names = " or ".join(map(toml_value, first))
    for index, route in routes.items() if first else ():
        where, name = f"route[{index}].origin", route.get("origin", "")
        if name == "" and len(origins) > 1:
            yield Wrong("missing", where, None, f"missing: with several origins, expected {names}")
        elif name and isinstance(name, str) and name not in first:
            yield Wrong("value", where, name, f"there is no such origin; expected {names}")


def _cache(where: str, cache: Table) -> Iterator[Wrong]:
    """Settings of a route's cache of which one would leave the other nothing to do."""
    lists = [name for name in ("query_allow", "query_deny") if cache.get(name) and isinstance(cache[name], list)]
    if cache.get("query") == "none":
        for name in [*lists, *(["query_sort"] if cache.get("query_sort") is True else [])]:
            reason = f'expected {name} only where query is "all": without a query there is nothing for it to do'
            yield Wrong("value", f"{where}.{name}", cache[name], reason)
    elif len(lists) > 1:
        reason = "expected query_allow or query_deny, not both: what is not allowed is denied already"
        yield Wrong("value", f"{where}.query_deny", cache["query_deny"], reason)
    least, most = (_number(cache.get(name)) for name in ("ttl_min", "ttl_max"))
    if least is not None and most is not None and least > most:
        yield Wrong("value", f"{where}.ttl_min", least, f"expected at most ttl_max, which is {toml_value(most)}")


def _redis(cache: Table) -> Iterator[Wrong]:
    """What the store in Redis needs, and what excludes itself."""
    redis = cache.get("redis", {})
    if not isinstance(redis, dict):
        return
    if cache.get("store") == "redis" and redis.get("nodes", []) == []:
        yield Wrong("missing", "cache.redis.nodes", None, 'missing: with store = "redis", expected some of its nodes')
    if redis.get("password") and redis.get("password_file"):
        reason = "expected password or password_file, not both"
        yield Wrong("value", "cache.redis.password_file", redis["password_file"], reason)
    for name in ("tls_ca_file", "tls_cert_file", "tls_key_file"):
        if redis.get(name) and redis.get("tls", False) is False:
            yield Wrong("value", f"cache.redis.{name}", redis[name], f"expected {name} only with tls = true")
    if redis.get("tls_key_file") and not redis.get("tls_cert_file"):
        yield Wrong("missing", "cache.redis.tls_cert_file", None, "missing: expected the certificate of tls_key_file")


def _export(tracing: Table) -> Iterator[Wrong]:
    """What exporters need."""
    otlp, batch = (tracing.get(name, {}) for name in ("otlp", "batch"))
    if isinstance(otlp, dict) and otlp.get("key_file") and not otlp.get("cert_file"):
        yield Wrong("missing", "tracing.otlp.cert_file", None, "missing: expected the certificate of key_file")
    if isinstance(batch, dict):
        most, size = (_number(batch.get(name)) for name in ("queue_size", "batch_size"))
        if most is not None and size is not None and size > most:
            reason = f"expected at most queue_size, which is {toml_value(most)}"
            yield Wrong("value", "tracing.batch.batch_size", size, reason)


def _propagators(words: object) -> Iterator[Wrong]:
    """Nothing goes with "none"."""
    if isinstance(words, list) and "none" in words and set(map(str, words)) != {"none"}:
        yield Wrong("value", "tracing.propagators", words, 'expected "none" alone, or other words without it')


def _sampling(tracing: Table, routes: dict[int, Table]) -> Iterator[Wrong]:
    """Rules for routes that there are."""
    sampling = tracing.get("sampling", {})
    known = [match for route in routes.values() if isinstance(match := route.get("match"), str)] or ["/*"]
    for index, rule in _tables(sampling, "rules").items() if isinstance(sampling, dict) else ():
        route = rule.get("route", "")
        if isinstance(route, str) and route and route not in known:
            reason = f"there is no route with this match; expected {' or '.join(map(toml_value, known))}"
            yield Wrong("value", f"tracing.sampling.rules[{index}].route", route, reason)


def _addons(addons: Table) -> Iterator[Wrong]:
    """Scripts that Python can read, each once, however its path is written; filters for scripts that there are."""
    scripts, filters = addons.get("scripts", []), addons.get("filters", {})
    known = [script for script in scripts if isinstance(script, str)] if isinstance(scripts, list) else []
    first: dict[str, int] = {}
    for index, script in enumerate(scripts if known else []):
        if isinstance(script, str) and first.setdefault(path := os.path.abspath(script), index) != index:  # noqa: PTH100
            reason = f"expected each script once: addons.scripts[{first[path]}] is this one"
            yield Wrong("value", f"addons.scripts[{index}]", script, reason)
        elif isinstance(script, str) and (flaw := _flaw(script)):
            yield Wrong("value", f"addons.scripts[{index}]", script, f"expected a Python script: {flaw}")
    expected = f"expected {' or '.join(map(toml_value, known))}" if known else "there are none"
    for script, expression in filters.items() if isinstance(filters, dict) else ():
        if script not in known:
            reason = f"this is not one of addons.scripts; {expected}"
            yield Wrong("value", f"addons.filters.{toml_key(script)}", expression, reason)


def _flaw(script: str) -> str:
    """What Python has against a script before it runs, with the line, which no key's words could say; "" for nothing,
    or where it can't be read.
    """
    try:
        compile(Path(script).read_bytes(), script, "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        line = f"line {error.lineno}: " if isinstance(error, SyntaxError) else ""
        return f"{line}{error.msg if isinstance(error, SyntaxError) else error}"
    except OSError:
        return ""
    return ""


def _number(value: object) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


# --- one key for two origins


class _Keyed(NamedTuple):
    """A route whose responses are cached, with the host that it is for and the one that is in its keys."""

    number: int
    path: str
    host: str
    origin: str
    fixed: str
    """The host in all of its keys; empty where it is the client's."""


def _shared_keys(routes: dict[int, Table]) -> Iterator[Wrong]:
    """Routes that lead to different origins and store under one key, as one of them puts another host into it."""
    keyed = [found for index, route in routes.items() if (found := _keyed(index, route)) is not None]
    for one, other in combinations(keyed, 2):
        if one.origin != other.origin and _share_keys(one, other):
            culprit, victim = (one, other) if one.fixed else (other, one)
            where = f"route[{culprit.number}].cache.key_host"
            reason = f"expected a host that leads to the same origin: route[{victim.number}] stores under it as well"
            yield Wrong("value", where, culprit.fixed, f"{reason}, from {toml_value(victim.origin)}")


def _keyed(index: int, route: Table) -> _Keyed | None:
    cache = route.get("cache", {})
    if not isinstance(cache, dict) or cache.get("enabled", True) is not True:
        return None
    texts = (route.get("match"), route.get("host", ""), route.get("origin", ""), cache.get("key_host", "host"))
    if not all(isinstance(text, str) for text in texts):
        return None
    path, host, origin, key_host = map(str, texts)
    return _Keyed(index, path, _name(host), origin, "" if key_host in {"host", "normalized"} else key_host)


def _share_keys(earlier: _Keyed, later: _Keyed) -> bool:
    """Whether some request by the one and some request by the other have one key.

    Where the earlier is for all the hosts of the later, nothing comes by the later that is for a path of both.
    """
    if earlier.fixed and later.fixed:
        reachable = earlier.fixed == later.fixed and not _covers(earlier.host, later.host)
    elif earlier.fixed:
        reachable = _covers(later.host, _name(earlier.fixed)) and not _covers(earlier.host, _name(earlier.fixed))
    else:
        reachable = bool(later.fixed) and _covers(earlier.host, _name(later.fixed))
        reachable = reachable and not _covers(earlier.host, later.host)
    return reachable and _overlap(earlier.path, later.path)


def _name(host: str) -> str:
    """A host as routes know it: without its port and a dot at its end."""
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdigit() else host).removesuffix(".")


def _covers(pattern: str, host: str) -> bool:
    """Whether all hosts that match the one match the other, too; `host` may be a pattern itself, "" is any."""
    return pattern in ("", host) or (pattern.startswith("*.") and host.endswith(pattern[1:]))


def _overlap(one: str, other: str) -> bool:
    """Whether some text matches both patterns, in which `*` stands for any run of characters."""
    below: list[bool] = []
    for i in range(len(one), -1, -1):
        # row[j]: whether the rest of `one` from i and the rest of `other` from j have a text in common
        row = [False] * (len(other) + 1)
        for j in range(len(other), -1, -1):
            a, b = one[i : i + 1], other[j : j + 1]
            if a == b == "":
                row[j] = True
            elif a == "*" or b == "*":
                row[j] = (a != "" and below[j]) or (b != "" and row[j + 1])
            else:
                row[j] = a == b and below[j + 1]
        below = row
    return below[0]
