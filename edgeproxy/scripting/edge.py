"""`flow.metadata["edge"]`: what the edge tells a script of a request, and what a script may decide about it.

A dict, so that mitmproxy can save flows that have it; a strict one, so that a slip of the pen is an error in the script
and not a setting without effect. The same on the edge and under stock mitmproxy (`edgeproxy.addons`). Pure.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn, Self

import msgspec

from edgeproxy.cache.key import extra_parts
from edgeproxy.cache.purge import MAX_TAG_BYTES
from edgeproxy.cache.rules import SECOND_NS
from edgeproxy.proxy.routing import Target
from edgeproxy.tracing import RequestTrace, format_traceparent

TOLD = (
    *("trace_id", "span_id", "parent_id", "traceparent", "tracestate", "sampled", "request_id", "client", "node"),
    *("cache", "age", "ttl_left", "origin"),
)
"""What only the edge sets; the last four are None until there is a response."""
_UNTOLD: dict[str, Any] = dict.fromkeys(TOLD)
DECIDED = ("key", "ttl", "bypass", "tags")
"""What scripts may set until the request is looked up in the cache, which is after the request hooks."""
_SETTABLE = (*DECIDED, "log")
_LOG_MAX = 32
_LOG_TEXT_MAX = 1024
_STATUS_CODES = range(100, 600)
_TTL_MAX_S = 10 * 365 * 86400


@dataclass(frozen=True, slots=True)
class Decisions:
    """What the scripts of one request decided about its place in the cache."""

    key_parts: bytes = b""
    """What is added to the cache key."""
    ttl_ns: int | None = None
    """Freshness lifetime whatever the origin says."""
    status_ttl_ns: Mapping[int, int] | None = None
    """The same by status, for responses that state none."""
    bypass: bool = False
    tags: tuple[bytes, ...] = ()

    def target(self, route: Target) -> Target:
        """A route with these decisions in place of what is configured."""
        if self is _NOTHING:
            return route
        rules = route.rules
        if self.ttl_ns is not None:
            rules = msgspec.structs.replace(rules, ttl_ns=self.ttl_ns)
        if self.status_ttl_ns is not None:
            rules = msgspec.structs.replace(rules, status_ttl_ns={**rules.status_ttl_ns, **self.status_ttl_ns})
        return replace(
            route, cache=route.cache and not self.bypass, rules=rules, key_parts=self.key_parts, tags=self.tags
        )


_NOTHING = Decisions()


class Edge(dict[str, Any]):
    """The keys of `TOLD`, to read; those of `DECIDED` and `log`, to set."""

    def __init__(self, told: Mapping[str, Any], *, is_decided: bool = False) -> None:
        """Begin with what is known; nothing is decided, unless it is a copy of one where it is."""
        super().__init__(_UNTOLD)
        super().update({"key": {}, "ttl": None, "bypass": False, "tags": [], "log": {}, **told})
        self._is_decided = is_decided

    @classmethod
    def of(cls, trace: RequestTrace, client: str, node: str) -> Self:
        """For a request at its beginning."""
        state = trace.tracestate
        return cls(
            {
                "trace_id": trace.trace_id,
                "span_id": trace.span_id,
                "parent_id": trace.parent_id,
                "traceparent": format_traceparent(trace.trace_id, trace.span_id, trace.flags),
                "tracestate": None if state is None else state.decode("latin-1"),
                "sampled": trace.sampled,
                "request_id": trace.request_id,
                "client": client,
                "node": node,
            }
        )

    def __setitem__(self, key: str, value: Any) -> None:  # noqa: ANN401 whatever the script has
        """Take a script's decision. Raises KeyError for what no script sets, ValueError for what is too late, and
        either that or TypeError for what the value may not be.
        """
        if key not in _SETTABLE:
            raise KeyError(f"{key!r} is not a script's to set; {', '.join(_SETTABLE)} are")
        if self._is_decided and key in DECIDED:
            raise ValueError(f"{key!r} is set too late: the cache has been asked; set it in requestheaders or request")
        _CHECKS[key](value)
        super().__setitem__(key, value)

    def __delitem__(self, key: str) -> None:
        """Nothing can be taken away."""
        raise KeyError(f"{key!r} can't be deleted; set it anew")

    def pop(self, key: str, *_: Any) -> NoReturn:  # noqa: ANN401 dict's own; it would go round `__delitem__`
        """Nothing can be taken away."""
        raise KeyError(f"{key!r} can't be deleted; set it anew")

    def popitem(self) -> NoReturn:
        """Nothing can be taken away."""
        raise KeyError("nothing can be deleted; set it anew")

    def clear(self) -> NoReturn:
        """Nothing can be taken away."""
        self.popitem()

    def setdefault(self, key: str, default: Any = None) -> Any:  # noqa: ANN401 dict's own
        """What is there: all keys that there may be are."""
        if key not in self:
            self[key] = default
        return self[key]

    def update(self, *args: Any, **values: Any) -> None:  # noqa: ANN401 dict's own
        """As `__setitem__` for each; dict's own would go round it."""
        for key, value in dict(*args, **values).items():
            self[key] = value

    def __ior__(self, other: Any) -> Self:  # type: ignore[misc,override]  # noqa: ANN401 dict's own
        """As `update`."""
        self.update(other)
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """A copy for a copy of the flow."""
        return type(self)(copy.deepcopy(dict(self), memo), is_decided=self._is_decided)

    def tell(self, **told: Any) -> None:  # noqa: ANN401 of each key its own type
        """Set what only the edge sets, or what was `saved`."""
        super().update(told)

    def saved(self) -> dict[str, Any]:
        """What scripts have set so far, to be given to `tell` where the last of it is to be undone."""
        ttl = self["ttl"]
        return {
            "key": dict(self["key"]),
            "ttl": dict(ttl) if isinstance(ttl, dict) else ttl,
            "bypass": self["bypass"],
            "tags": list(self["tags"]),
            "log": dict(self["log"]),
        }

    def decide(self) -> Decisions:
        """What was decided; from now on nothing more is. Raises TypeError or ValueError for a list or dict that was
        changed in place into something that may not be.
        """
        self._is_decided = True
        if not (self["key"] or self["bypass"] or self["tags"] or self["ttl"] is not None):
            return _NOTHING
        for key in DECIDED:
            _CHECKS[key](self[key])
        ttl = self["ttl"]
        parts = [(_bytes(name), _bytes(value)) for name, value in sorted(self["key"].items())]
        by_status = {int(status): _ns(seconds) for status, seconds in ttl.items()} if isinstance(ttl, dict) else None
        return Decisions(
            key_parts=extra_parts(parts) if parts else b"",
            ttl_ns=None if ttl is None or isinstance(ttl, dict) else _ns(ttl),
            status_ttl_ns=by_status,
            bypass=self["bypass"],
            tags=tuple(tag.encode() for tag in self["tags"]),
        )

    def logged(self) -> dict[str, str]:
        """What goes into the access log: the first 32 pairs as text, each cut at 1024 characters."""
        log = self["log"]
        if not isinstance(log, dict):
            return {}
        return {_text(name): _text(value) for name, value in [*log.items()][:_LOG_MAX]}


def _ns(seconds: float) -> int:
    return round(seconds * SECOND_NS)


def _bytes(text: str) -> bytes:
    """Text as it is in a key: what a request has that is no UTF-8 mitmproxy shows as surrogates."""
    return text.encode("utf-8", "surrogatepass")


def _text(value: object) -> str:
    """As text that is fit for a record."""
    try:
        text = str(value)
    except Exception:  # noqa: BLE001  a script's own object: no line may be lost for it
        text = f"({type(value).__name__}, which can't be shown)"
    return text[:_LOG_TEXT_MAX].encode("utf-8", "backslashreplace").decode()


def _is_key(value: object) -> None:
    if not isinstance(value, dict) or not all(isinstance(text, str) for pair in value.items() for text in pair):
        raise TypeError(f"key is a dict of names and values, both str, not {value!r}")
    if "" in value:
        raise ValueError("a part of the key has an empty name")


def _is_ttl(value: object) -> None:
    if isinstance(value, dict):
        for status, seconds in value.items():
            if not isinstance(status, int) or status not in _STATUS_CODES:
                raise ValueError(f"ttl has {status!r} for a status; expected numbers from 100 to 599")
            _is_seconds(seconds)
    elif value is not None:
        _is_seconds(value)


def _is_seconds(value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"ttl is a number of seconds, or a dict of such by status, not {value!r}")
    if not 0 <= value <= _TTL_MAX_S:
        raise ValueError(f"ttl is {value!r}; expected seconds from 0 to {_TTL_MAX_S}")


def _is_bypass(value: object) -> None:
    if not isinstance(value, bool):
        raise TypeError(f"bypass is True or False, not {value!r}")


def _are_tags(value: object) -> None:
    if isinstance(value, str) or not isinstance(value, Sequence) or not all(isinstance(tag, str) for tag in value):
        raise TypeError(f"tags is a list of str, not {value!r}")
    for tag in value:
        if not tag or not tag.isprintable() or " " in tag or "," in tag or len(tag.encode()) > MAX_TAG_BYTES:
            raise ValueError(f"{tag!r} is no tag: expected 1 to {MAX_TAG_BYTES} bytes without spaces and commas")


def _is_log(value: object) -> None:
    if not isinstance(value, dict):
        raise TypeError(f"log is a dict of names and values, not {value!r}")


_CHECKS = {"key": _is_key, "ttl": _is_ttl, "bypass": _is_bypass, "tags": _are_tags, "log": _is_log}
