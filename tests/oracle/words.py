"""What the generator's requests and responses are made of: values that are right, odd, broken or at an edge, by kind.

Each function draws from a generator that is handed in, so that a seed gives the same words for ever.
"""

from random import Random

from tests.oracle.clock import START_S, http_date
from tests.oracle.resources import Act, Pair

LIFETIMES = (0, 1, 2, 5, 10, 30, 60, 600, 3600, 86400)
ODD_LIFETIMES = ("-1", "1.5", "", '"10"', "10s", "99999999999999999999", "007")
LANGUAGES = ("de", "en", "en-GB;q=0.8, de", "DE", "", "fr , de")
ENCODINGS = ("gzip", "identity", "br, gzip", "GZIP", "gzip;q=0", "")
TENANTS = ("a", "b", "a,b", "a , b", "caf\xe9")


def odd_case(rng: Random, name: str) -> str:
    """A field's name in some case."""
    return rng.choice((name, name.lower(), name.upper(), name.title(), name.swapcase()))


# --- caching, as origins say it


def response_control(rng: Random) -> str:
    """A value of Cache-Control for a response."""
    said = [f"max-age={rng.choice(LIFETIMES)}"] if rng.random() < 0.75 else []
    if rng.random() < 0.15:
        said.append(f"s-maxage={rng.choice(LIFETIMES)}")
    if rng.random() < 0.45:
        said.append(
            rng.choice(
                (
                    *("public", "private", "no-store", "no-cache", "must-revalidate", "proxy-revalidate"),
                    *(
                        "must-understand",
                        "immutable",
                        "no-transform",
                        'no-cache="X-Repeat"',
                        'private="x-one, Set-Cookie"',
                    ),
                    *("no-cache=X-Repeat", 'private=""', "max-age=5", f"stale-if-error={rng.choice(LIFETIMES)}"),
                    *("ext=1", 'ext="a, no-store"', "Max-Age=30", "NO-STORE", "no-store, must-understand"),
                    *("public, must-revalidate", "s-maxage=0", "stale-if-error=60, must-revalidate"),
                )
            )
        )
    if rng.random() < 0.06:
        said.append(f"max-age={rng.choice(ODD_LIFETIMES)}")
    if rng.random() < 0.03:
        said.append(rng.choice((";", "=5", 'private="', "max-age = 5", ",", "a b")))
    rng.shuffle(said)
    return rng.choice((", ", ",", " , ")).join(said)


def lifetime(rng: Random) -> str:
    """A value of Cache-Control that says how long, and nothing that forbids keeping it."""
    return rng.choice(
        ("max-age={}", "public, max-age={}", "max-age=0, s-maxage={}", "s-maxage={}", "max-age={}, x=y")
    ).format(rng.choice(LIFETIMES))


def targeted(rng: Random) -> Pair:
    """A targeted field (RFC 9213)."""
    value = rng.choice(
        (
            *("max-age=60", "max-age=0", "no-store", "private", "max-age=600, no-cache", "s-maxage=5", ""),
            *('max-age="60"', "max-age=60;x", "stale-if-error=60, max-age=1", "must-revalidate", "MAX-AGE=60", "a=b=c"),
        )
    )
    return rng.choice(("CDN-Cache-Control", "cdn-cache-control", "Edgeproxy-Cache-Control")), value


def etag(rng: Random) -> str:
    """An entity tag."""
    return rng.choice(('"{}"', 'W/"{}"', '"{}"')).format(rng.choice(("a", "b1", "x,y", "\xfc", "", "v2-long-one")))


def modified(rng: Random) -> int:
    """When something was last modified, seconds since the epoch."""
    return START_S - rng.choice((0, 1, 10, 100, 1000, 100_000, 10_000_000))


def freshness(rng: Random) -> list[Pair]:
    """Fields of a response that say how long it is fresh, by any of the ways there are, several at times."""
    fields: list[Pair] = []
    if rng.random() < 0.7:
        fields.append((odd_case(rng, "Cache-Control"), response_control(rng)))
        if rng.random() < 0.08:
            fields.append(("cache-control", response_control(rng)))
    if rng.random() < 0.25:
        fields.append(
            ("Expires", rng.choice(("{now+60}", "{now+5}", "{now-5}", "{now+0}", "0", "-1", "soon", "{now+86400}")))
        )
    if rng.random() < 0.2:
        fields.append(targeted(rng))
    if rng.random() < 0.2:
        fields.append(("Age", rng.choice(("0", "1", "10", "59", "3600", "-1", "x", "5, 50", "99999999999"))))
    if rng.random() < 0.08:
        fields.append(("Pragma", "no-cache"))
    return fields


def dated(rng: Random) -> str | None:
    """A value of Date, mostly now."""
    if rng.random() < 0.8:
        return "{now+0}"
    return rng.choice((None, "{now-10}", "{now-3600}", "{now+100}", "yesterday", "Mon, 04 Mar 2024 05:06:07 +0100"))


def response_fields(rng: Random) -> list[Pair]:
    """Fields of a response that have nothing to do with how long it is fresh."""
    pool: tuple[tuple[Pair, ...], ...] = (
        (("X-One", "1"),),
        (("X-Repeat", "a"), ("x-repeat", "b"), ("X-REPEAT", "c, d")),
        (("Content-Type", rng.choice(("text/html", "text/css", "application/json", "text/plain; charset=utf-8"))),),
        (("content-language", "de"),),
        (("Link", "</a>; rel=preload"), ("Link", "</b>; rel=next")),
        (("X-Empty", ""),),
        (("X-Latin", "caf\xe9"),),
        (("Server", "scripted/1"),),
        (("Via", rng.choice(("1.1 upstream", "1.0 a, 1.1 b"))),),
        (("Server-Timing", rng.choice(("db;dur=1", 'trace;desc="x", db;dur=2, traceparent;desc="00-1"', "trace"))),),
        (("traceresponse", f"00-{'ab' * 16}-{'cd' * 8}-01"),),
        (("X-Trace-Id", "of-the-origin"), ("X-Request-Id", "of-the-origin")),
        (("Connection", "X-Hop"), ("X-Hop", "gone"), ("X-Stays", "here")),
        (("Keep-Alive", "timeout=5"), ("Proxy-Connection", "keep-alive")),
        (("Cache-Status", "upstream; hit"), ("X-Cache", "HIT from upstream")),
        (("Surrogate-Key", "one two"), ("Cache-Tag", "three,four")),
        (("Proxy-Authenticate", "Basic"), ("WWW-Authenticate", "Basic")),
        (("Warning", '110 - "stale"'),),
        (("Content-Location", "other"),),
        (("Alt-Svc", 'h3=":443"'), ("Upgrade", "h2c")),
        (("Strict-Transport-Security", "max-age=1"), ("Vary", "")),
        (("Accept-Ranges", "bytes"),),
    )
    found: list[Pair] = []
    for group in rng.sample(pool, rng.choice((0, 1, 1, 2, 3))):
        found += group
    return found


# --- caching, as clients ask for it


def request_control(rng: Random) -> list[Pair]:
    """Cache-Control and Pragma of a request."""
    if rng.random() < 0.12:
        return [("Pragma", rng.choice(("no-cache", "No-Cache", "x", "x, no-cache")))]
    value = rng.choice(
        (
            *("no-cache", "no-store", "max-age=0", "max-age=5", "max-age=60", "min-fresh=5", "min-fresh=100"),
            *(
                "max-stale",
                "max-stale=5",
                "max-stale=100",
                "max-stale=x",
                "only-if-cached",
                "only-if-cached, max-stale",
            ),
            *("no-transform", "max-age=x", "min-fresh=x", "max-age=10, max-stale=60", "stale-if-error=100"),
            *("NO-CACHE", ";", "max-age=5, max-age=50", "no-cache, only-if-cached", ""),
        )
    )
    fields = [(odd_case(rng, "Cache-Control"), value)]
    if rng.random() < 0.1:
        fields.append(("Pragma", "no-cache"))
    return fields


def conditions(rng: Random, acts: tuple[Act, ...]) -> list[Pair]:
    """Conditions of a request for a resource with these acts."""
    act = rng.choice(acts)
    tag = act.etag or '"none"'
    weak, strong = f"W/{tag.removeprefix('W/')}", tag.removeprefix("W/")
    gzipped = f'{strong[:-1]}-gzip"'
    known = act.modified_s if act.modified_s is not None else START_S - 50
    at = rng.choice((known, known, known - 1, known + 10, START_S, START_S + 100_000))
    since = rng.choice((http_date(at), http_date(at), "yesterday", _rfc850(at), ""))
    pool: tuple[list[Pair], ...] = (
        [("If-None-Match", rng.choice((tag, weak, strong, gzipped)))],
        [("if-none-match", "*")],
        [("If-None-Match", f'"other", {tag}')],
        [("If-None-Match", '"other"')],
        [("If-None-Match", '"other"'), ("IF-NONE-MATCH", weak)],
        [("If-None-Match", rng.choice(("unquoted", f"{tag} ", f",{tag},", "W/*")))],
        [("If-None-Match", '"other"'), ("If-Modified-Since", since)],
        [("If-Modified-Since", since)],
        [("If-Modified-Since", since)],
        [("If-Match", rng.choice((tag, strong, "*", '"other"', f'"other", {tag}')))],
        [("If-Unmodified-Since", since)],
        [("If-Match", tag), ("If-None-Match", tag)],
    )
    return rng.choice(pool)


def _rfc850(seconds: int) -> str:
    day, date, month, year, clock, zone = http_date(seconds).split()
    names = {"Mon": "Monday", "Tue": "Tuesday", "Wed": "Wednesday", "Thu": "Thursday", "Fri": "Friday"}
    full = names.get(day[:3], {"Sat": "Saturday", "Sun": "Sunday"}.get(day[:3], day))
    return f"{full}, {date}-{month}-{year[2:]} {clock} {zone}"


def ranges(rng: Random, acts: tuple[Act, ...]) -> list[Pair]:
    """Range, and at times If-Range, of a request for a resource with these acts."""
    act = rng.choice(acts)
    size = act.body_bytes
    value = rng.choice(
        (
            *("bytes=0-0", "bytes=0-9", "bytes=5-", "bytes=-5", "bytes=-0", f"bytes=0-{size}", f"bytes={size}-"),
            *(f"bytes={size - 1}-", f"bytes=-{size * 2}", "bytes=9-5", "bytes=", "bytes=a-b", "lines=0-5", "0-5"),
            *("bytes=0-1,5-6", "bytes=0-1, 3-4 ,6-", "bytes=0-9,5-14", "bytes=-1,0-0", "bytes=0-1,99999999-"),
            *("Bytes=0-4", "bytes=0-4,", "bytes = 0-4", "bytes=0-1,1-2,2-3,3-4", f"bytes={'0' * 30}1-3", "bytes=,"),
            *("bytes=99999999-,88888888-", ",".join(f"bytes={n}-{n}" for n in range(3)), "bytes=--5"),
            "bytes=" + ",".join(f"{n * 2}-{n * 2}" for n in range(rng.choice((20, 101)))),
        )
    )
    fields = [(odd_case(rng, "Range"), value)]
    if rng.random() < 0.1:
        fields.append(("Range", "bytes=0-1"))
    if rng.random() < 0.35:
        known = http_date(act.modified_s if act.modified_s is not None else START_S)
        tag = act.etag or '"none"'
        fields.append(
            (
                "If-Range",
                rng.choice((tag, tag, '"other"', f"W/{tag.removeprefix('W/')}", known, known, "yesterday", "*")),
            )
        )
    return fields


# --- traces


def trace_id(rng: Random) -> str:
    """A trace id that is not zero."""
    return f"{rng.getrandbits(128) | 1:032x}"


def traces(rng: Random) -> list[Pair]:
    """Trace context of a request, valid or broken, in whatever number of fields."""
    trace, span = trace_id(rng), f"{rng.getrandbits(64) | 1:016x}"
    good = f"00-{trace}-{span}-{rng.choice(('00', '01', '01', '02', '03'))}"
    broken = rng.choice(
        (
            *(
                f"00-{trace}-{span}-01-more",
                f"ff-{trace}-{span}-01",
                f"00-{'0' * 32}-{span}-01",
                f"00-{trace}-{'0' * 16}-01",
            ),
            *(
                f"00-{trace.upper()}-{span}-01",
                f"00-{trace[:31]}-{span}-01",
                f"00-{trace}0-{span}-01",
                f"00-{trace}-{span}",
            ),
            *(
                f"00-{trace}-{span}-1",
                f"00-{trace}-{span}-0g",
                f"0-{trace}-{span}-01",
                "",
                "garbage",
                f"00_{trace}_{span}_01",
            ),
            *(
                f"00-{trace}-{span}-01-",
                f"00-{trace}-{span}-01, {good}",
                f"FF-{trace}-{span}-01",
                f"cc-{trace}-{span}-01.x",
            ),
        )
    )
    odd = rng.choice(
        (
            *(
                f"cc-{trace}-{span}-01",
                f"01-{trace}-{span}-01-what-may-come",
                f"00-{trace}-{span}-ff",
                f"fe-{trace}-{span}-09",
            ),
            *(f"\t{good} ", f"  {good}", f"01-{trace}-{span}-00-", f"00-{trace}-{span}-05"),
        )
    )
    name = rng.choice(("traceparent", "traceparent", "Traceparent", "TraceParent", "TRACEPARENT"))
    kind = rng.random()
    if kind < 0.4:
        fields = [(name, good)]
    elif kind < 0.6:
        fields = [(name, odd)]
    elif kind < 0.8:
        fields = [(name, broken)]
    elif kind < 0.88:
        fields = [(name, good), (odd_case(rng, name), rng.choice((good, broken, odd, good.replace(span, "b" * 16))))]
    else:
        fields = []
    if rng.random() < 0.5:
        fields += tracestates(rng)
    if rng.random() < 0.25:
        fields += baggage(rng)
    if rng.random() < 0.25:
        fields += other_traces(rng, trace, span)
    rng.shuffle(fields)
    return fields


def tracestates(rng: Random) -> list[Pair]:
    """Tracestate: good, in several lines, with broken members, or with too many."""
    many = rng.choice((32, 33))
    pool: tuple[tuple[str, ...], ...] = (
        ("a=1",),
        ("congo=t61rcWkgMzE,rojo=00f067aa0ba902b7",),
        ("a=1", "b=2"),
        ("a=1 , b=2\t,c=3",),
        ("a=1,,b=2,",),
        ("a=1,a=2",),
        ("a=1,b=2", "a=3"),
        ("tenant@system=x, a*b/c-d_e=y",),
        ("A=1",),
        ("a=",),
        ("a=1,b",),
        ("a=b=c",),
        ("",),
        (" ",),
        (f"{'k' * 256}=v",),
        (f"{'k' * 257}=v",),
        (f"a={'v' * 256}",),
        (f"a={'v' * 257}",),
        ("a=caf\xe9",),
        (",".join(f"k{n}={n}" for n in range(many)),),
        (",".join(f"k{n}={n}" for n in range(20)), ",".join(f"l{n}={n}" for n in range(many - 20))),
        ("0a=1",),
    )
    name = rng.choice(("tracestate", "Tracestate", "TraceState"))
    return [(name, value) for value in rng.choice(pool)]


def baggage(rng: Random) -> list[Pair]:
    """Baggage: good, odd, or beyond W3C's limits."""
    pool: tuple[tuple[str, ...], ...] = (
        ("user=1",),
        ("user=1;p=2, b = 3",),
        ("a=1", "b=2"),
        ("a=%20x,b=",),
        ("novalue",),
        ("",),
        (",".join(f"k{n}={n}" for n in range(70)),),
        (",".join(f"k{n}={'v' * 200}" for n in range(60)),),
        (f"a={'v' * 9000}, b=1",),
        ("a=1,,b=2", "c=3"),
        ("caf\xe9=1, b=2",),
    )
    return [(rng.choice(("baggage", "Baggage")), value) for value in rng.choice(pool)]


def other_traces(rng: Random, trace: str, span: str) -> list[Pair]:
    """Trace context in formats that are not configured, and ids of the client's own."""
    pool: tuple[list[Pair], ...] = (
        [("b3", f"{trace}-{span}-1")],
        [("X-B3-TraceId", trace), ("X-B3-SpanId", span), ("X-B3-Sampled", "1")],
        [("uber-trace-id", f"{trace}:{span}:0:1")],
        [("X-Trace-Id", "of-the-client")],
        [("X-Request-Id", "of-the-client"), ("x-request-id", "twice")],
        [("traceresponse", f"00-{trace}-{span}-01")],
    )
    return rng.choice(pool)


# --- hops


def hops(rng: Random) -> list[Pair]:
    """Fields of one hop, and those to which each proxy adds itself."""
    pool: tuple[tuple[Pair, ...], ...] = (
        (("Connection", "X-Hop, keep-alive"), ("X-Hop", "gone")),
        (("Connection", "x-one"), ("connection", "X-TWO"), ("X-One", "1"), ("X-Two", "2"), ("X-Three", "3")),
        (("Connection", "Cookie"), ("Cookie", "gone=1")),
        (("Connection", "traceparent"),),
        (("Connection", "close"),),
        (("Connection", "keep-alive"), ("Keep-Alive", "timeout=5")),
        (("Connection", "accept-language"), ("Accept-Language", "de")),
        (("Proxy-Connection", "keep-alive"), ("Proxy-Authorization", "Basic eDp5")),
        (("TE", "trailers"), ("Connection", "TE")),
        (("TE", "gzip;q=0.5"),),
        (("Via", "1.1 before"),),
        (("Via", "1.0 a"), ("via", "1.1 b (comment)")),
        (("X-Forwarded-For", "192.0.2.1"),),
        (("X-Forwarded-For", "192.0.2.1, 192.0.2.2"), ("X-FORWARDED-FOR", "192.0.2.3")),
        (("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "evil.test")),
        (("Forwarded", 'for=192.0.2.1;host=evil.test;proto=https, for="[2001:db8::1]"'),),
        (("Forwarded", "for=192.0.2.1"), ("forwarded", "by=_x")),
        (("Forwarded", "broken;;=,"),),
        (("X-Real-IP", "192.0.2.9"),),
        (("X-Original-URL", "/admin"),),
        (("X-Forwarded-Scheme", "https"),),
        (("X_Forwarded_Host", "evil.test"),),
        (("X-HTTP-Method-Override", "DELETE"),),
        (("Max-Forwards", "3"),),
    )
    fields: list[Pair] = []
    for group in rng.sample(pool, rng.choice((1, 1, 2, 3))):
        fields += group
    return fields


def ordinary(rng: Random) -> list[Pair]:
    """Fields such as browsers send."""
    pool: tuple[Pair, ...] = (
        ("Accept", "*/*"),
        ("ACCEPT", "text/html"),
        ("User-Agent", rng.choice(("probe/1", 'quote " and \\', "caf\xe9"))),
        ("Referer", "http://edge.test/from"),
        (odd_case(rng, "Accept-Language"), rng.choice(LANGUAGES)),
        ("Accept-Encoding", rng.choice(ENCODINGS)),
        ("Cookie", rng.choice(("a=1", "lang=de; a=1", "session=1", 'a="x, y"', ""))),
        ("X-Tenant", rng.choice(TENANTS)),
        ("X-Empty", ""),
        ("DNT", "1"),
        ("X-Repeat", "one"),
        ("x-repeat", "two"),
        ("Origin", "http://other.test"),
    )
    return rng.sample(pool, rng.choice((0, 1, 2, 4)))
