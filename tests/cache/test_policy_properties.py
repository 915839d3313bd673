"""What holds of cache policy whatever a request, a response and a route say."""

from collections.abc import Mapping

import msgspec
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from edgeproxy.cache import conditional, dates, directives, policy, ranges
from edgeproxy.cache.directives import SECOND_NS, control_of
from edgeproxy.cache.entry import Stored
from edgeproxy.cache.key import variant
from edgeproxy.cache.policy import Reuse, Verdict
from edgeproxy.cache.rules import Rules, SetCookie
from tests.cache.messages import NOW_NS, date, fields, lines_of

UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""A machine that is busy with other things breaks no promise."""

# --- what is said: made of the words that mean something, and of such as do not

DELTAS = st.one_of(
    st.integers(0, 200).map(str), st.sampled_from(["", "x", "-1", "1.5", '"5"', "'5'", "9" * 30, "0005"])
)
TIMED = ["max-age", "s-maxage", "stale-while-revalidate", "stale-if-error", "max-stale", "min-fresh"]
PLAIN = ["no-store", "no-cache", "private", "public", "must-revalidate", "proxy-revalidate", "must-understand"]
DIRECTIVE = st.one_of(
    st.sampled_from(PLAIN),
    st.sampled_from(PLAIN).map(str.upper),
    st.builds("{}={}".format, st.sampled_from(TIMED), DELTAS),
    st.sampled_from(TIMED),
    st.sampled_from(
        ['private="x-a"', 'no-cache="X-B, x-c"', "no-cache=x-a", "private=1", 'no-cache=""', 'x="no-store"']
    ),
    st.text("ab=\",; \\\t'", max_size=5),
)
CONTROL = st.lists(DIRECTIVE, max_size=4).map(", ".join)
WHEN = st.one_of(st.integers(-1000, 1000).map(lambda s: date(s).decode()), st.sampled_from(["0", "", "x", "-1"]))
RESPONSE_LINE = st.one_of(
    CONTROL.map(lambda text: ("Cache-Control", text)),
    CONTROL.map(lambda text: ("CDN-Cache-Control", text)),
    WHEN.map(lambda text: ("Expires", text)),
    WHEN.map(lambda text: ("Date", text)),
    WHEN.map(lambda text: ("Last-Modified", text)),
    DELTAS.map(lambda text: ("Age", text)),
    st.sampled_from(
        [
            *[("ETag", '"a"'), ("ETag", 'W/"b"'), ("Vary", "*"), ("Vary", "Accept, x-a"), ("Set-Cookie", "a=b")],
            *[
                ("X-A", "1"),
                ("X-B", "2"),
                ("Content-Type", "text/html"),
                ("Content-Length", "5"),
                ("Connection", "x-b"),
            ],
            ("Content-Range", "bytes 0-1/2"),
        ]
    ),
)
RESPONSE = st.lists(RESPONSE_LINE, max_size=7)
STORABLE_CONTROL = st.lists(
    st.one_of(
        st.builds("{}={}".format, st.sampled_from(TIMED), st.integers(0, 200)),
        st.sampled_from(
            ["public", "no-cache", "must-revalidate", "proxy-revalidate", 'private="x-a"', 'no-cache="X-B, x-c"']
        ),
    ),
    max_size=3,
).map(", ".join)
STORABLE_LINE = st.one_of(
    STORABLE_CONTROL.map(lambda text: ("Cache-Control", text)),
    STORABLE_CONTROL.map(lambda text: ("CDN-Cache-Control", text)),
    RESPONSE_LINE.filter(
        lambda line: line[0] not in ("Cache-Control", "CDN-Cache-Control", "Content-Range") and line != ("Vary", "*")
    ),
)
STORABLE = st.lists(STORABLE_LINE, max_size=6).map(lambda lines: [("ETag", '"c"'), *lines])
"""Responses most of which may be stored."""
REQUEST = st.lists(
    st.one_of(
        CONTROL.map(lambda text: ("Cache-Control", text)),
        st.sampled_from([("Pragma", "no-cache"), ("Authorization", "Basic x"), ("Accept", "a"), ("X-Host", "evil")]),
    ),
    max_size=3,
).map(lambda lines: fields(*lines))
PLAIN_REQUEST = st.lists(
    st.one_of(
        st.lists(st.sampled_from(["max-age=9", "max-stale=60", "max-stale", "min-fresh=5", "x"])).map(
            lambda words: ("Cache-Control", ", ".join(words))
        ),
        st.sampled_from([("Accept", "a"), ("X-A", "b")]),
    ),
    max_size=2,
).map(lambda lines: fields(*lines))
LIFETIME = st.integers(0, 100).map(lambda s: s * SECOND_NS)
RULES = st.builds(
    Rules,
    ttl_ns=st.one_of(st.none(), LIFETIME),
    ttl_min_ns=LIFETIME,
    ttl_max_ns=st.one_of(st.none(), LIFETIME),
    default_ttl_ns=st.one_of(st.none(), LIFETIME),
    heuristic=st.booleans(),
    status_ttl_ns=st.dictionaries(st.sampled_from([200, 404, 500, 302]), LIFETIME),
    stale_while_revalidate_ns=LIFETIME,
    stale_if_error_ns=LIFETIME,
    set_cookie=st.sampled_from(SetCookie),
    authorized=st.booleans(),
    client_no_cache=st.booleans(),
)
STORABLE_STATUS = st.sampled_from([200, 204, 404, 501])
STATUS = st.sampled_from([200, 204, 206, 299, 302, 304, 404, 416, 429, 500, 503])
DELAY = st.integers(0, 10 * SECOND_NS)


def decided(
    request: Mapping[bytes, bytes], status: int, lines: list[tuple[str, str]], rules: Rules, delay_ns: int = 0
) -> policy.Storing:
    response = fields(*lines)
    return policy.storing(b"GET", b"/a", request, status, response, rules, NOW_NS - delay_ns, NOW_NS)


def kept(decision: policy.Storing, request: Mapping[bytes, bytes], status: int, lines: list[tuple[str, str]]) -> Stored:
    """What is stored by a decision, as the request path puts it together."""
    terms = decision.terms
    assert terms is not None
    response = fields(*lines)
    born_ns = NOW_NS - terms.age_ns
    return Stored(
        key=b"http://a/a",
        url=b"http://a/a",
        vary=decision.vary,
        variant=variant(decision.vary, request),
        status=status,
        reason=b"OK",
        lines=[line for line in lines_of(*lines) if line[0].lower() not in decision.without],
        born_ns=born_ns,
        fresh_until_ns=born_ns + terms.lifetime_ns,
        stale_while_revalidate_ns=terms.stale_while_revalidate_ns,
        stale_if_error_ns=terms.stale_if_error_ns,
        must_revalidate=terms.must_revalidate,
        stored_ns=NOW_NS,
        filled_by="",
        origin="",
        etag=response.get(b"etag"),
        last_modified=response.get(b"last-modified"),
    )


def names_outside_quotes(value: bytes) -> set[bytes]:
    """Directive names by the crudest reading there is: what stands between commas and semicolons, quotes cut out."""
    bare, quoted, escaped = bytearray(), False, False
    for octet in value:
        if quoted:
            quoted, escaped = (escaped or octet != 0x22), (octet == 0x5C and not escaped)
        elif octet == 0x22:
            quoted = True
        else:
            bare.append(octet)
    return {name.partition(b"=")[0].strip().lower() for part in bytes(bare).split(b",") for name in part.split(b";")}


# --- bans


@UNHURRIED
@given(REQUEST, STATUS, RESPONSE, RULES)
@example({}, 200, [("Cache-Control", "no-store"), ("ETag", '"a"')], Rules(ttl_ns=SECOND_NS))
def test_what_no_store_forbids_is_never_stored_so_never_served(
    request: Mapping[bytes, bytes], status: int, lines: list[tuple[str, str]], rules: Rules
) -> None:
    response = fields(*lines)
    control = control_of(response)
    assume(control is None or not control.targeted)
    said = names_outside_quotes(response.get(b"cache-control", b""))
    asked = names_outside_quotes(request.get(b"cache-control", b"")) if rules.client_no_cache else set()
    decision = decided(request, status, lines, rules)
    if b"no-store" in asked or (b"no-store" in said and b"must-understand" not in said):
        assert not decision.store


@UNHURRIED
@given(REQUEST, STATUS, RESPONSE, RULES)
def test_what_is_private_for_one_is_stored_for_nobody(
    request: Mapping[bytes, bytes], status: int, lines: list[tuple[str, str]], rules: Rules
) -> None:
    control = control_of(fields(*lines))
    decision = decided(request, status, lines, rules)
    if control is None or control.private or status in (206, 304, 416, 429) or ("Vary", "*") in lines:
        assert not decision.store
    if b"authorization" in request and not (rules.authorized and control is not None and control.shareable):
        assert not decision.store
    if ("Set-Cookie", "a=b") in lines and rules.set_cookie is SetCookie.NEVER:
        assert not decision.store
    if b"x-host" in request:
        assert not decision.store


@UNHURRIED
@given(PLAIN_REQUEST, STORABLE_STATUS, STORABLE, RULES, REQUEST, RULES, st.integers(0, 300 * SECOND_NS))
def test_what_must_be_validated_is_never_used_unvalidated(
    request: Mapping[bytes, bytes],
    status: int,
    lines: list[tuple[str, str]],
    rules: Rules,
    later: Mapping[bytes, bytes],
    later_rules: Rules,
    after_ns: int,
) -> None:
    decision = decided(request, status, lines, rules)
    assume(decision.store)
    control = control_of(fields(*lines))
    assert control is not None
    stored = kept(decision, request, status, lines)
    now_ns = NOW_NS + after_ns
    reuse = policy.reuse(stored, later, later_rules, now_ns)
    if control.no_cache:
        assert reuse is Reuse.VALIDATE
    if control.must_revalidate:
        assert reuse in (Reuse.FRESH, Reuse.VALIDATE)
        assert not policy.stale_on_error(stored, later, now_ns)
    if reuse is Reuse.FRESH:
        assert now_ns < stored.fresh_until_ns
    if later_rules.client_no_cache and b"no-cache" in names_outside_quotes(later.get(b"cache-control", b"")):
        assert reuse is Reuse.VALIDATE


# --- time


@UNHURRIED
@given(
    PLAIN_REQUEST,
    STORABLE_STATUS,
    STORABLE,
    RULES,
    DELAY,
    st.one_of(REQUEST, PLAIN_REQUEST),
    st.lists(st.integers(0, 400 * SECOND_NS), max_size=8),
)
def test_age_never_falls_and_what_is_stale_stays_so_until_it_is_validated(
    request: Mapping[bytes, bytes],
    status: int,
    lines: list[tuple[str, str]],
    rules: Rules,
    delay_ns: int,
    later: Mapping[bytes, bytes],
    moments: list[int],
) -> None:
    decision = decided(request, status, lines, rules, delay_ns)
    assume(decision.terms is not None)
    assert decision.terms is not None
    assert decision.terms.age_ns >= delay_ns
    stored = kept(decision, request, status, lines)
    usefulness = [Reuse.FRESH, Reuse.STALE_WHILE_REVALIDATE, Reuse.STALE, Reuse.VALIDATE]
    age, use = 0, 0
    for now_ns in sorted(NOW_NS + moment for moment in moments):
        age, age_before = (now_ns - stored.born_ns) // SECOND_NS, age
        reuse = policy.reuse(stored, later, rules, now_ns)
        use, use_before = usefulness.index(reuse), use
        assert age >= age_before
        assert use >= use_before


@UNHURRIED
@given(st.lists(RESPONSE_LINE, max_size=5), st.integers(-1000, 1000), st.integers(0, 1000), DELAY)
def test_a_response_is_never_younger_than_date_age_and_delay_say(
    lines: list[tuple[str, str]], made_s: int, age_s: int, delay_ns: int
) -> None:
    rest = [line for line in lines if line[0] not in ("Date", "Age")]
    response = fields(*rest, ("Date", date(made_s)), ("Age", str(age_s)))
    age_ns = policy.initial_age_ns(response, NOW_NS - delay_ns, NOW_NS)
    assert age_ns == max(-made_s * SECOND_NS, age_s * SECOND_NS + delay_ns)


@UNHURRIED
@given(REQUEST, STATUS, RESPONSE, RULES, DELAY)
def test_all_times_are_whole_not_negative_and_fit_64_bits(
    request: Mapping[bytes, bytes], status: int, lines: list[tuple[str, str]], rules: Rules, delay_ns: int
) -> None:
    terms = decided(request, status, lines, rules, delay_ns).terms
    if terms is not None:
        times = (terms.lifetime_ns, terms.age_ns, terms.stale_while_revalidate_ns, terms.stale_if_error_ns)
        assert all(type(time) is int and time >= 0 for time in times)
        assert NOW_NS - terms.age_ns > -(2**63)
        assert NOW_NS - terms.age_ns + sum((terms.lifetime_ns, *times[2:])) < 2**63


@UNHURRIED
@given(STORABLE, RULES, st.integers(0, 200))
def test_without_a_routes_own_lifetime_what_the_origin_states_is_what_counts(
    lines: list[tuple[str, str]], rules: Rules, lifetime_s: int
) -> None:
    rest = [line for line in lines if line[0] not in ("Cache-Control", "CDN-Cache-Control")]
    plain = msgspec.structs.replace(rules, ttl_ns=None, ttl_min_ns=0, ttl_max_ns=None, set_cookie=SetCookie.KEEP)
    decision = decided({}, 200, [*rest, ("Cache-Control", f"max-age={lifetime_s}")], plain)
    assert decision.terms is not None
    assert decision.terms.lifetime_ns == lifetime_s * SECOND_NS


# --- what is stored


@UNHURRIED
@given(PLAIN_REQUEST, STORABLE, RULES)
def test_a_stored_response_is_what_the_origin_sent_but_for_what_it_or_the_route_takes_out(
    request: Mapping[bytes, bytes], lines: list[tuple[str, str]], rules: Rules
) -> None:
    decision = decided(request, 200, lines, rules)
    assume(decision.store)
    control = control_of(fields(*lines))
    assert control is not None
    cookies = {b"set-cookie"} if rules.set_cookie is SetCookie.STRIP and ("Set-Cookie", "a=b") in lines else set()
    assert decision.without == control.without | cookies
    stored = kept(decision, request, 200, lines)
    assert [line for line in lines_of(*lines) if line not in stored.lines] == [
        line for line in lines_of(*lines) if line[0].lower() in decision.without
    ]


@UNHURRIED
@given(STORABLE, RESPONSE)
def test_an_update_changes_the_fields_that_it_has_and_no_others(
    lines: list[tuple[str, str]], update: list[tuple[str, str]]
) -> None:
    decision = decided({}, 200, lines, Rules(ttl_ns=SECOND_NS, set_cookie=SetCookie.KEEP))
    assume(decision.store)
    stored = kept(decision, {}, 200, lines)
    new = lines_of(*update)
    after = policy.updated_lines(stored, new, NOW_NS)
    fixed = {b"content-length", b"content-range", b"age", b"set-cookie", b"connection"}
    sent = {name.lower() for name, _ in new} - fixed
    for name in {name.lower() for name, _ in stored.lines} | sent | {b"date"}:
        source = new if name in sent else stored.lines
        expected = [value for line, value in source if line.lower() == name]
        if name == b"date" and name not in sent:
            expected = [date()]
        assert [value for line, value in after if line.lower() == name] == expected
    assert policy.updated_lines(policy.freshened(stored, new, {}, None, NOW_NS), new, NOW_NS) == after


@UNHURRIED
@given(STORABLE)
def test_a_response_validates_itself(lines: list[tuple[str, str]]) -> None:
    response = fields(*lines)
    decision = decided({}, 200, lines, Rules(ttl_ns=SECOND_NS, set_cookie=SetCookie.KEEP))
    assume(decision.store)
    stored = kept(decision, {}, 200, lines)
    assert policy.answers_for(stored, {})
    if b"etag" in response:
        assert policy.answers_for(stored, response)
        assert conditional.not_modified({b"if-none-match": response[b"etag"]}, stored.etag, stored.last_modified)


# --- reading

BYTES = st.one_of(st.binary(max_size=200), st.text('nostre-,;="\\ \ta1', max_size=40).map(str.encode))


@UNHURRIED
@given(BYTES)
def test_no_bytes_break_the_reading_and_the_same_bytes_always_read_the_same(value: bytes) -> None:
    names = {b"cache-control": value, b"pragma": value, b"if-none-match": value, b"if-modified-since": value}
    response = dict.fromkeys(
        (b"cache-control", b"expires", b"date", b"age", b"vary", b"last-modified", b"etag", b"location"), value
    )

    def read() -> list[object]:
        return [
            directives.directives(value),
            directives.delta_seconds(value),
            directives.asked_by(names),
            directives.control_of(response),
            directives.control_of({b"cdn-cache-control": value}),
            dates.http_date_ns(value, NOW_NS),
            policy.only_if_cached(names),
            policy.storing(b"GET", value, names, 200, response, Rules(), 0, NOW_NS),
            policy.storing(b"GET", value, {}, 200, {b"vary": value}, Rules(ttl_ns=1), 0, NOW_NS),
            policy.invalidated(b"POST", 200, b"http", b"a", b"/", response),
            conditional.not_modified(names, value, value),
            conditional.if_range(value, value, value, value),
            ranges.requested(value, 10),
        ]

    before = read()
    for remembered in (
        directives._control,
        directives._asked,
        directives._targeted,
        dates._seconds,
        policy._vary_known,
    ):
        remembered.cache_clear()
    assert read() == before


@UNHURRIED
@given(st.one_of(CONTROL.map(str.encode), BYTES))
def test_what_was_read_and_written_again_reads_the_same(value: bytes) -> None:
    found = directives.directives(value)
    if found is not None:
        written = b", ".join(name if text is None else b"%b=%b" % (name, quoted(text)) for name, text in found.items())
        assert directives.directives(written) == found


def quoted(text: bytes) -> bytes:
    return b'"' + text.replace(BACKSLASH, BACKSLASH * 2).replace(b'"', BACKSLASH + b'"') + b'"'


BACKSLASH = bytes([0x5C])


@UNHURRIED
@given(st.text('nostre-,;="\\ \ta1', max_size=40))
@example('x="no-store')
def test_a_directive_outside_quotes_is_never_overlooked(text: str) -> None:
    for value in (f"no-store, {text}", f"no-store,{text}"):
        control = control_of(fields(("Cache-Control", value)))
        assert control is None or control.no_store


@UNHURRIED
@given(st.lists(st.sampled_from([*PLAIN, "max-age=60", 'x="a, b"', "y=1"]), unique=True, max_size=6), st.randoms())
def test_the_order_of_directives_their_lines_and_their_case_mean_nothing(words: list[str], random: object) -> None:
    shuffled = list(words)
    random.shuffle(shuffled)
    expected = control_of(fields(("Cache-Control", ", ".join(words))))
    assert control_of(fields(*[("Cache-Control", word) for word in shuffled] or [("Cache-Control", "")])) == expected
    assert control_of(fields(("cache-control", " ,".join(word.upper() for word in shuffled)))) == expected


@UNHURRIED
@given(st.lists(DIRECTIVE, max_size=4), DIRECTIVE)
@example(['no-cache=""'], 'no-cache="x-b"')
def test_a_further_directive_never_makes_a_ban_undone(words: list[str], further: str) -> None:
    before = control_of(fields(("Cache-Control", ", ".join(words))))
    after = control_of(fields(("Cache-Control", ", ".join([*words, further]))))
    if before is not None and after is not None:
        for ban in ("no_store", "private", "no_cache", "must_revalidate"):
            assert getattr(after, ban) >= getattr(before, ban)


def test_every_verdict_has_a_word_of_its_own() -> None:
    assert len({verdict.value for verdict in Verdict}) == len(Verdict)
    assert all(verdict.value.replace("-", "").isalpha() for verdict in Verdict)
