"""Makes the oracle's requests: a sequence is a function of the seed, its number and nothing else.

Each sequence has a theme, which says what its resources and requests are mostly about; everything else is mixed in at
random, so that features meet that nobody thought of together. The themes take turns: a run of any length has all.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from random import Random

from tests.oracle import words
from tests.oracle.deciding import ACTIONS, FAILING, SCRIPT
from tests.oracle.profiles import Profile
from tests.oracle.resources import Act, Framed, Pair, Resource
from tests.oracle.scripted import FAIL
from tests.oracle.sequences import EPOCHS, Ask, Sequence

_SIZES = (0, 1, 10, 40, 40, 785, 5000, 40_000, 60_000)
_STATUSES = (200, 200, 200, 201, 204, 301, 302, 304, 307, 404, 410, 500, 503, 299, 451)
_KEPT = (200, 200, 200, 200, 200, 301, 404, 410)
_NAMES = ("a", "b", "page.html", "style.css", "data.json", "x%2Fy", "image.png", "caf%C3%A9")
_UNSAFE = ("POST", "PUT", "PATCH", "DELETE")


class _Making:
    """A sequence that is being made."""

    def __init__(self, rng: Random, number: int, route: str) -> None:
        self.rng = rng
        self.resources: list[Resource] = []
        self._base = f"/{route}/s{number:04d}/"
        self._asks: list[Ask] = []

    @property
    def asks(self) -> tuple[Ask, ...]:
        """The requests, epochs rising; within one, in the order in which they were made."""
        return tuple(sorted(self._asks, key=lambda ask: ask.epoch))

    def resource(self, *acts: Act, name: str = "", **options: object) -> Resource:
        """Have one more resource."""
        path = self._base + (name or f"{len(self.resources)}{self.rng.choice(_NAMES)}")
        made = Resource(path, acts, **options)  # type: ignore[arg-type]
        self.resources.append(made)
        return made

    def ask(
        self,
        epoch: int,
        target: str,
        fields: list[Pair] | None = None,
        method: str = "",
        noise: bool = True,
        **more: object,
    ) -> None:
        """One more request: GET, or at times HEAD, with what clients send besides at times."""
        rng = self.rng
        fields = list(fields or [])
        if noise and rng.random() < 0.3:
            fields += words.ordinary(rng)
        if noise and rng.random() < 0.12:
            fields += words.traces(rng)
        if noise and rng.random() < 0.06:
            fields += words.hops(rng)
        method = method or rng.choices(("GET", "HEAD"), (9, 1))[0]
        self._asks.append(Ask(epoch, method, target, tuple(fields), **more))  # type: ignore[arg-type]

    def epochs(self, count: int) -> list[int]:
        """So many epochs, rising; some come again, so that there are hits."""
        some = sorted(self.rng.sample(range(EPOCHS), self.rng.choice((2, 3, 4, 5))))
        return sorted(self.rng.choices(some, k=count))

    def act(self, *fields: Pair, kept: bool = False, **options: object) -> Act:
        """What a resource answers: any status and lifetime; `kept` with one that lets it be stored."""
        rng = self.rng
        said = [("Cache-Control", words.lifetime(rng))] if kept else words.freshness(rng)
        made = Act(
            status=rng.choice(_KEPT if kept else _STATUSES),
            fields=(*said, *words.response_fields(rng), *fields),
            body_bytes=rng.choice(_SIZES),
            etag=words.etag(rng) if rng.random() < 0.6 else None,
            modified_s=words.modified(rng) if rng.random() < 0.4 else None,
            dated=words.dated(rng),
            framed=rng.choices(list(Framed), (8, 2, 0.5))[0],
            heeds_conditions=rng.random() < 0.9,
            heeds_ranges=rng.random() < 0.8,
            zips=rng.random() < 0.1,
        )
        return replace(made, **options)  # type: ignore[arg-type]


# --- the themes


def _freshness(made: _Making) -> None:
    """How long answers are fresh, by all that origins say of it."""
    resource = made.resource(made.act(), made.act(), period=made.rng.choice((2, 5, 1000)))
    for epoch in made.epochs(12):
        made.ask(epoch, resource.path)


def _directives(made: _Making) -> None:
    """What clients ask of caches."""
    resource = made.resource(made.act(kept=True), made.act(kept=True), period=made.rng.choice((3, 1000)))
    for epoch in made.epochs(12):
        made.ask(epoch, resource.path, words.request_control(made.rng) if made.rng.random() < 0.65 else [])


def _validation(made: _Making) -> None:
    """What expires and is validated: the same, another one, or a 304 that says something else."""
    rng = made.rng
    tag, lifetime = words.etag(rng), rng.choice((0, 1, 2, 5))
    first = made.act(
        ("Cache-Control", f"max-age={lifetime}"), kept=True, status=200, etag=tag, modified_s=words.modified(rng)
    )
    second = replace(
        first,
        fields=(*first.fields, ("X-New", "1"), *words.freshness(rng)),
        etag=rng.choice((tag, tag, words.etag(rng), None)),
        modified_s=rng.choice((first.modified_s, words.modified(rng), None)),
    )
    resource = made.resource(first, second, period=rng.choice((1, 2, 3, 4)))
    for epoch in made.epochs(12):
        made.ask(epoch, resource.path, words.conditions(rng, resource.acts) if rng.random() < 0.2 else [])


def _conditions(made: _Making) -> None:
    """Clients that have an answer already, or think so."""
    resource = made.resource(made.act(kept=True), made.act(), period=made.rng.choice((4, 1000)))
    for epoch in made.epochs(12):
        made.ask(epoch, resource.path, words.conditions(made.rng, resource.acts) if made.rng.random() < 0.75 else [])


def _ranges(made: _Making) -> None:
    """Parts of what is stored, and of what is not."""
    rng = made.rng
    resource = made.resource(
        made.act(kept=True, status=200, modified_s=words.modified(rng)), made.act(), period=rng.choice((5, 1000))
    )
    for epoch in made.epochs(12):
        made.ask(epoch, resource.path, words.ranges(rng, resource.acts) if rng.random() < 0.75 else [])


def _vary(made: _Making) -> None:
    """Answers that differ by what the request has."""
    rng = made.rng
    names = rng.choice(
        (
            *(("Accept-Language",), ("accept-language", "X-Tenant"), ("X-Tenant",), ("Accept-Encoding",), ("*",)),
            *(("Cookie",), ("traceparent",), ("X-Forwarded-For",), ("X-Forwarded-Host",), ("User-Agent",), ("Range",)),
            *(("X-Tenant", "Accept-Encoding", "Accept-Language"), ("not a name",), ("x-forwarded-proto",), ("Origin",)),
        )
    )
    joined: tuple[Pair, ...] = (("Vary", ", ".join(names)),)
    if rng.random() < 0.3:
        joined = tuple(("vary", name) for name in names)
    lone = made.act(kept=True, status=200)
    first = made.act(*joined, kept=True, status=200, zips="Accept-Encoding" in names)
    resource = made.resource(first, rng.choice((first, lone)), period=rng.choice((6, 1000)), vary=names)
    for epoch in made.epochs(14):
        fields: list[Pair] = []
        for name, values in (
            ("Accept-Language", words.LANGUAGES),
            ("X-Tenant", words.TENANTS),
            ("Accept-Encoding", words.ENCODINGS),
            ("Origin", ("http://a.test", "http://b.test")),
        ):
            if rng.random() < 0.5:
                fields.append((words.odd_case(rng, name), rng.choice(values[:3])))
        made.ask(epoch, resource.path, fields)


def _storing(made: _Making) -> None:
    """What may not be stored, or only in part, and for whom."""
    rng = made.rng
    extra: list[Pair] = []
    if rng.random() < 0.5:
        extra.append(("Set-Cookie", "id=1; Path=/"))
        if rng.random() < 0.5:
            extra.append(("set-cookie", "b=2"))
    resource = made.resource(made.act(*extra), made.act(*extra, kept=True), period=rng.choice((1, 2, 3)))
    for epoch in made.epochs(12):
        fields: list[Pair] = []
        if rng.random() < 0.4:
            fields.append((words.odd_case(rng, "Authorization"), "Basic eDp5"))
        if rng.random() < 0.1:
            fields.append(rng.choice((("X-Original-URL", "/x"), ("x_original_url", "/x"), ("X-Host", "evil.test"))))
        if rng.random() < 0.1:
            fields.append(("Cache-Control", "no-store"))
        made.ask(epoch, resource.path, fields)


def _stale(made: _Making) -> None:
    """Stale answers while one is validated in the background, and rather than an error."""
    rng = made.rng
    refreshed = f"max-age={rng.choice((1, 2, 5))}, stale-while-revalidate={rng.choice((5, 30, 600))}"
    good = made.act(("Cache-Control", refreshed), status=200, dated="{now+0}", etag=rng.choice(('"a"', None)))
    good = replace(good, fields=(("Cache-Control", refreshed), *words.response_fields(rng)))
    bad = made.act(status=rng.choice((500, 502, 503, 504, 404)), fields=())
    # What stays stale after its refresh is asked for once an epoch: the next refresh has to rest for a second.
    failing = made.resource(
        good, rng.choice((bad, good)), rng.choice((bad, replace(good, etag='"b"'))), period=rng.choice((1, 2))
    )
    for epoch in sorted(rng.sample(range(EPOCHS), 6)):
        made.ask(epoch, failing.path, method="GET", noise=False, refreshes=True)
    steady = made.resource(good)
    for epoch in made.epochs(8):
        made.ask(epoch, steady.path, words.traces(rng) if rng.random() < 0.3 else [], noise=False, refreshes=True)


def _errors(made: _Making) -> None:
    """Origins that fail, and what is stored instead."""
    rng = made.rng
    forbids = rng.choice(("", "", ", must-revalidate", ", s-maxage=1"))
    said = f"max-age={rng.choice((0, 1, 2, 5))}, stale-if-error={rng.choice((0, 5, 60, 600))}{forbids}"
    good = replace(made.act(status=200, dated="{now+0}", etag='"a"'), fields=(("Cache-Control", said),))
    bad = made.act(status=rng.choice((500, 502, 503, 504, 404, 500)))
    resource = made.resource(good, bad, period=rng.choice((1, 2)))
    for epoch in made.epochs(12):
        fields: list[Pair] = []
        if rng.random() < 0.25:
            fields.append(
                ("Cache-Control", rng.choice(("stale-if-error=600", "no-cache", "stale-if-error=5, max-age=0")))
            )
        if rng.random() < 0.15:
            fields.append((FAIL, "1"))
        made.ask(epoch, resource.path, fields)


def _invalidation(made: _Making) -> None:
    """Unsafe methods, and what they make invalid."""
    rng = made.rng
    first = made.resource(made.act(("Cache-Control", "max-age=600"), kept=True), name="first")
    second = made.resource(made.act(("Cache-Control", "max-age=600"), kept=True), name="second")
    leads = rng.choice(
        (
            *(
                (),
                (("Location", "second"),),
                (("Content-Location", second.path),),
                (("Location", "http://edge.test/other"),),
            ),
            *((("Location", f"http://edge.test{second.path}"),), (("Location", f"http://evil.test{second.path}"),)),
            *((("Location", f"//edge.test:80{second.path}"),), (("Content-Location", "./second?q=1#f"),)),
        )
    )
    statuses = rng.choice(((200,), (201, 404), (204, 500), (303,), (400,), (200, 204)))
    changing = made.resource(
        made.act(kept=True),
        name="changing",
        changes=tuple(Act(status=status, fields=leads, body_bytes=rng.choice((0, 1))) for status in statuses),
    )
    for epoch in made.epochs(14):
        target = rng.choice((first, second, second, changing, changing)).path
        if rng.random() < 0.3:
            body = rng.choice((b"", b"x=1", b"y" * 3000))
            made.ask(epoch, changing.path, method=rng.choice(_UNSAFE), body=body)
        elif rng.random() < 0.06:
            made.ask(epoch, first.path, [("Soft", "1")] * rng.choice((0, 1)), method="PURGE")
        elif rng.random() < 0.1:
            made.ask(epoch, first.path, method=rng.choice(("PUT", "POST")), body=b"z")
        else:
            made.ask(epoch, target + rng.choice(("", "", "?q=1")))


def _traces(made: _Making) -> None:
    """Trace context, in requests that hit, miss and pass."""
    rng = made.rng
    resource = made.resource(made.act(kept=True), made.act(), period=rng.choice((2, 5)))
    for epoch in made.epochs(14):
        method = rng.choice(("GET", "GET", "GET", "HEAD", "POST", "OPTIONS"))
        fields = words.traces(rng) if rng.random() < 0.9 else []
        made.ask(epoch, resource.path, fields, method=method, noise=rng.random() < 0.3)


def _hops(made: _Making) -> None:
    """Fields of one hop, and chains of proxies."""
    rng = made.rng
    resource = made.resource(made.act(kept=True), made.act(), period=rng.choice((2, 5)))
    for epoch in made.epochs(12):
        fields = words.hops(rng) + (words.traces(rng) if rng.random() < 0.2 else [])
        made.ask(epoch, resource.path, fields, method=rng.choice(("GET", "GET", "POST", "HEAD")))


def _bodies(made: _Making) -> None:
    """Bodies of all sizes and framings, both ways."""
    rng = made.rng
    first = made.act(kept=True, status=200, body_bytes=rng.choice((0, 20_000, 60_000)), zips=rng.random() < 0.5)
    second = made.act(framed=Framed.CHUNKED)
    resource = made.resource(
        first,
        second,
        period=rng.choice((2, 3)),
        changes=(made.act(status=200), made.act(status=201), made.act(status=500)),
    )
    for epoch in made.epochs(10):
        method = rng.choice(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"))
        body = bytes(rng.getrandbits(8) for _ in range(rng.choice((0, 1, 100, 3000)))) * rng.choice((1, 10))
        if method in {"GET", "HEAD"} and rng.random() < 0.8:
            body = b""
        made.ask(epoch, resource.path, method=method, body=body, is_chunked=bool(body) and rng.random() < 0.3)


def _keyed(made: _Making) -> None:
    """Keys that are made of more, or less, than the target."""
    rng = made.rng
    resource = made.resource(made.act(kept=True, status=200), period=1000)
    queries = (
        "",
        "?",
        "?a=1&b=2",
        "?b=2&a=1",
        "?utm_source=x&a=1&b=2",
        "?utm_x=1",
        "?a=2&a=1",
        "?a=1&&b=2",
        "?UTM_x=1",
        "?nocache=1",
    )
    hosts = ("edge.test", "edge.test", "EDGE.Test", "edge.test:80", "edge.test.", "other.test:8080")
    for epoch in made.epochs(14):
        fields: list[Pair] = []
        if rng.random() < 0.4:
            fields.append(("X-Tenant", rng.choice(words.TENANTS)))
        if rng.random() < 0.1:
            fields.append(("x_tenant", "b"))
        if rng.random() < 0.4:
            fields.append(
                ("Cookie", rng.choice(("lang=de", "lang=en; a=1", "a=1", "lang=de; lang=en", "%6Cang=de", "session=1")))
            )
        if rng.random() < 0.1:
            fields.append(("X-Preview", "1"))
        made.ask(epoch, resource.path + rng.choice(queries), fields, host=rng.choice(hosts))


def _anything(made: _Making) -> None:
    """All of it at once."""
    rng = made.rng
    some = [
        made.resource(made.act(), made.act(kept=rng.random() < 0.5), period=rng.choice((1, 2, 4, 1000)))
        for _ in range(2)
    ]
    for epoch in made.epochs(14):
        resource = rng.choice(some)
        fields: list[Pair] = []
        if rng.random() < 0.25:
            fields += words.request_control(rng)
        if rng.random() < 0.25:
            fields += words.conditions(rng, resource.acts)
        if rng.random() < 0.2:
            fields += words.ranges(rng, resource.acts)
        if rng.random() < 0.2:
            fields += words.traces(rng)
        if rng.random() < 0.15:
            fields += words.hops(rng)
        method = rng.choices(
            ("GET", "HEAD", "POST", "DELETE", "OPTIONS", "PUT", "TRACE"), (12, 2, 1, 0.5, 1, 0.5, 0.3)
        )[0]
        made.ask(epoch, resource.path + rng.choice(("", "", "?q=1")), fields, method=method)


def _trailers(made: _Making) -> None:
    """Fields behind the body. Nothing of it is cached, so that one answer has no effect on the next."""
    rng = made.rng
    sums: tuple[Pair, ...] = (("X-Sum", "1"), ("Server-Timing", "db;dur=1, trace"), ("x-trace-id", "of-the-origin"))
    resource = made.resource(
        made.act(framed=Framed.CHUNKED, trailers=sums), made.act(framed=Framed.CHUNKED, trailers=sums[:1])
    )
    for epoch in made.epochs(3):
        made.ask(epoch, resource.path, method=rng.choice(("GET", "GET", "HEAD")))


def _cut(made: _Making) -> None:
    """Origins that close in the middle of a body. Nothing of it is cached."""
    rng = made.rng
    resource = made.resource(made.act(body_bytes=5000, status=200, cut=True, framed=rng.choice(list(Framed)[:2])))
    for epoch in made.epochs(3):
        made.ask(epoch, resource.path, method=rng.choice(("GET", "GET", "POST")))


def _targets(made: _Making) -> None:
    """Targets that are odd and valid."""
    rng = made.rng
    names = (
        "a//b",
        "a/../b",
        "a/./b",
        "%2e%2e/b",
        "a;b=1",
        "A%2fB",
        "~a!$&'()*+,=:@",
        "a|b",
        'a"b',
        "[a]",
        "caf\xe9",
        "a\\b",
    )
    for name in rng.sample(names, 4):
        resource = made.resource(made.act(kept=True, status=200), name=name)
        for epoch in made.epochs(3):
            absolute = rng.choice(("", "", "http://edge.test", "HTTP://EDGE.test"))
            query = rng.choice(("", "?", "??", "?a=b?c", "?\xfc", "?a=%", "?/../"))
            target = absolute + resource.path + query
            made.ask(epoch, target, method="" if target.isascii() else "GET", noise=False)


def _refused(made: _Making) -> None:
    """What no route is for, and what is refused."""
    rng = made.rng
    resource = made.resource(made.act())
    pool: tuple[tuple[str, list[Pair]], ...] = (
        ("GET", [(f"X-{number}", "x") for number in range(120)]),
        ("GET", [("X-Long", "y" * 40_000)]),
        ("POST", [("Expect", "200-ok")]),
        ("GET", [("Connection", "Upgrade"), ("Upgrade", "what-else")]),
        ("GET", [("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", "h2c"), ("HTTP2-Settings", "AAMAAABk")]),
        ("GET", [("Host", "second.test")]),
        ("TRACE", []),
        ("PURGE", []),
        ("PURGE", [("Purge-Soft", "1")]),
        ("OPTIONS", []),
        ("GET", []),
        ("PROPFIND", [("Depth", "1")]),
    )
    for epoch in made.epochs(8):
        method, fields = rng.choice(pool)
        target = resource.path + ("?" + "q" * 9000 if rng.random() < 0.1 else "")
        made.ask(epoch, target, fields, method=method)


THEMES: tuple[tuple[Callable[[_Making], None], tuple[str, ...]], ...] = (
    (_freshness, ("plain", "plain", "ttl", "fixed")),
    (_directives, ("plain", "plain", "fixed", "ttl")),
    (_validation, ("plain", "plain", "ttl", "cookies")),
    (_conditions, ("plain", "plain", "ttl", "bypass")),
    (_ranges, ("plain", "plain", "small")),
    (_vary, ("plain", "plain", "keyed")),
    (_storing, ("plain", "cookies", "kept", "ttl")),
    (_traces, ("plain",)),
    (_stale, ("stale", "stale", "plain")),
    (_errors, ("plain",)),
    (_invalidation, ("plain", "keyed")),
    (_traces, ("plain", "off")),
    (_hops, ("plain", "keyed", "off")),
    (_bodies, ("plain", "small", "off")),
    (_keyed, ("keyed", "keyed", "bypass")),
    (_anything, ("plain", "ttl", "fixed", "cookies", "kept", "bypass", "small")),
    (_anything, ("plain",)),
)
"""Each with the routes that it goes by."""
_RARE: Mapping[int, tuple[Callable[[_Making], None], tuple[str, ...]]] = {
    13: (_refused, ("plain", "nowhere")),
    23: (_targets, ("plain",)),
    29: (_trailers, ("off",)),
    41: (_cut, ("off",)),
    53: (_targets, ("keyed", "plain")),
    59: (_refused, ("plain", "plain", "nowhere")),
}
"""Instead of the others, for these of sixty sequences."""


def sequence(seed: int, number: int, profile: Profile) -> Sequence:
    """The sequence of that number."""
    rng = Random(f"{seed}/{number}")
    theme, routes = _RARE.get(number % 60) or THEMES[number % len(THEMES)]
    made = _Making(rng, number, rng.choice(routes))
    theme(made)
    asks = made.asks if profile.script is None else tuple(_told(rng, ask) for ask in made.asks)
    return Sequence(number, theme.__name__.strip("_"), tuple(made.resources), asks)


def _told(rng: Random, ask: Ask) -> Ask:
    """The request with something for a script to do, at times."""
    if rng.random() < 0.3:
        return ask
    if ask.body and rng.random() < 0.4:
        actions = ["refuse", "answer"]
    elif rng.random() < 0.1:
        actions = [rng.choice(FAILING)]
    else:
        actions = rng.sample(ACTIONS, rng.choice((1, 1, 2, 3)))
    return replace(ask, fields=(*ask.fields, (SCRIPT, " ".join(actions))))


def sequences(seed: int, profile: Profile, requests: int = 0) -> Iterator[Sequence]:
    """As many as it takes for so many requests, by default for the profile's."""
    left = requests or profile.requests
    number = 0
    while left > 0:
        made = sequence(seed, number, profile)
        number += 1
        if made.theme != profile.without:
            left -= len(made.asks)
            yield made
