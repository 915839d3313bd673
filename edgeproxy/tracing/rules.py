"""Sampling by rule: which share of which requests. Pure; remembers nothing.

May know: what a request's head says, as bytes. Must not: know how patterns are written, which is the caller's to
compile, or traces.
"""

from collections.abc import Callable, Mapping, Sequence

from edgeproxy.tracing.sampler import Sampler, SamplerKind


class Rule:
    """Conditions that a request meets all of, and the ratio that holds for it then."""

    __slots__ = ("_field", "_method", "_path", "_route", "_value", "bound")

    def __init__(
        self,
        ratio: float,
        *,
        route: bytes = b"",
        path: Callable[[bytes], object] | None = None,
        method: bytes = b"",
        header: bytes = b"",
    ) -> None:
        """Hold `ratio` for requests with that route, path, method, header field ("name" or "name=value"): those that
        are given.
        """
        field, equals, value = header.partition(b"=")
        self._route = route
        self._path = path
        self._method = method
        self._field = field.lower()
        self._value = value if equals else None
        self.bound = Sampler(SamplerKind.TRACEIDRATIO, ratio).bound
        """Sampled are the trace ids whose low half sorts below."""

    def fits(self, route: bytes, path: bytes, method: bytes, names: Mapping[bytes, bytes]) -> bool:
        """Whether a request meets all conditions; `path` without its query, `names` in lower case."""
        if (self._route and route != self._route) or (self._method and method != self._method):
            return False
        if self._path is not None and not self._path(path):
            return False
        if not self._field:
            return True
        value = names.get(self._field)
        return value is not None and (self._value is None or value == self._value)


class Rules:
    """Rules in their order: the first that fits decides."""

    __slots__ = ("_rules",)

    def __init__(self, rules: Sequence[Rule]) -> None:
        """Take them in their order."""
        self._rules = tuple(rules)

    def find(self, route: bytes, target: bytes, method: bytes, names: Mapping[bytes, bytes]) -> str | None:
        """The bound of the first rule that fits; None if none does. `target` may have a query, `route` be empty."""
        path = target.partition(b"?")[0]
        for rule in self._rules:
            if rule.fits(route, path, method, names):
                return rule.bound
        return None
