"""What Cache-Control and its targeted kin say, as the edge reads them: RFC 9111 §5.2, RFC 9213."""

import time

import pytest

from edgeproxy.cache.directives import MAX_DELTA_S, Asked, Control, asked_by, control_of, delta_seconds, directives
from tests.cache.messages import date, fields


@pytest.mark.parametrize(
    ("text", "found"),
    [
        pytest.param(b"", {}, id="9110-5.6.1-empty"),
        pytest.param(b" , ,no-store , ,", {b"no-store": None}, id="9110-5.6.1-empty-members"),
        pytest.param(b'a="x, y", b', {b"a": b"x, y", b"b": None}, id="9110-5.6.4-comma-in-quotes"),
        pytest.param(b'a="no-store, private"', {b"a": b"no-store, private"}, id="9110-5.6.4-directives-in-quotes"),
        pytest.param(rb'a="x\"y\\"', {b"a": b'x"y\\'}, id="9110-5.6.4-quoted-pair"),
        pytest.param(b"max-age=1,max-age=1", {b"max-age": b"1"}, id="4.2.1-the-same-twice"),
        pytest.param(b"max-age=1,max-age=2", {b"max-age": b"1"}, id="4.2.1-the-first-counts"),
        pytest.param(b"max-age=2,max-age=1", {b"max-age": b""}, id="4.2.1-a-later-one-asks-for-less"),
        pytest.param(b"max-age=2,max-age=x", {b"max-age": b""}, id="4.2.1-a-later-one-is-no-number"),
        pytest.param(b"min-fresh=1,min-fresh=2", {b"min-fresh": b""}, id="4.2.1-more-is-stricter-for-min-fresh"),
        pytest.param(b"max-age=01, max-age=1", {b"max-age": b"01"}, id="4.2.1-the-same-written-otherwise"),
        pytest.param(b'no-cache="a", no-cache', {b"no-cache": None}, id="4.2.1-unqualified-is-stricter"),
        pytest.param(b'no-cache, no-cache="a"', {b"no-cache": None}, id="4.2.1-unqualified-is-stricter-first"),
        pytest.param(b'private="a", private="b"', {b"private": b"a,b"}, id="4.2.1-both-lists-of-fields-count"),
        pytest.param(b"Max-Age=5", {b"max-age": b"5"}, id="5.2-lower-case"),
        pytest.param(b"max-age = 5", {b"max-age": b"5"}, id="5.2-spaces-about-the-sign"),
        pytest.param(b"max-age='5'", {b"max-age": b"'5'"}, id="5.2-single-quotes-are-part-of-a-token"),
        pytest.param(b'x=""', {b"x": b""}, id="5.2-empty-string"),
        pytest.param(b"no-store=1", {b"no-store": b"1"}, id="5.2-an-argument-that-means-nothing"),
        pytest.param(b"private=1", {b"private": None}, id="5.2.2.7-only-quotes-hold-fields"),
        pytest.param(b"no-cache=set-cookie", {b"no-cache": None}, id="5.2.2.4-only-quotes-hold-fields"),
        pytest.param(b"max-age=5; no-store", {b"max-age": b"5", b"no-store": None}, id="5.2-semicolon-for-a-comma"),
        pytest.param(b"a b", None, id="5.2-no-comma"),
        pytest.param(b'a="b', None, id="5.2-quote-left-open"),
        pytest.param(b'a="b"c', None, id="5.2-text-after-a-quote"),
        pytest.param(b"a=", None, id="5.2-sign-without-argument"),
        pytest.param(b"=a", None, id="5.2-argument-without-name"),
        pytest.param(b"@", None, id="5.2-no-token"),
        pytest.param(b"max-age=\xff", {b"max-age": b"\xff"}, id="9110-5.5-obs-text"),
        pytest.param(b"a, " * 400, None, id="longer-than-anything-that-means-something"),
    ],
)
def test_directives(text: bytes, found: dict[bytes, bytes | None] | None) -> None:
    assert directives(text) == found


def test_no_cache_control_is_no_directives() -> None:
    assert directives(None) == {}


@pytest.mark.parametrize(
    ("argument", "seconds"),
    [
        pytest.param(b"0", 0, id="1.2.2-zero"),
        pytest.param(b"60", 60, id="1.2.2-plain"),
        pytest.param(b"0060", 60, id="1.2.2-leading-zeros"),
        pytest.param(b"0" * 40 + b"60", 60, id="1.2.2-many-leading-zeros"),
        pytest.param(b"2147483647", 2**31 - 1, id="1.2.2-2^31-less-1"),
        pytest.param(b"2147483648", MAX_DELTA_S, id="1.2.2-2^31"),
        pytest.param(b"2147483649", MAX_DELTA_S, id="1.2.2-just-too-large"),
        pytest.param(b"99999999999", MAX_DELTA_S, id="1.2.2-too-large"),
        pytest.param(b"9" * 900, MAX_DELTA_S, id="1.2.2-far-too-large"),
        pytest.param(None, None, id="1.2.2-no-argument"),
        pytest.param(b"", None, id="1.2.2-empty"),
        pytest.param(b"-1", None, id="1.2.2-negative"),
        pytest.param(b"+1", None, id="1.2.2-plus"),
        pytest.param(b"1.5", None, id="1.2.2-fraction"),
        pytest.param(b"1e3", None, id="1.2.2-exponent"),
        pytest.param(b"0x10", None, id="1.2.2-hexadecimal"),
        pytest.param(b"1_0", None, id="1.2.2-underscore"),
        pytest.param(b" 1", None, id="1.2.2-space"),
        pytest.param(b"60a", None, id="1.2.2-letter-after"),
        pytest.param(b"'60'", None, id="1.2.2-single-quotes"),
        pytest.param("\u0663".encode(), None, id="1.2.2-digits-of-another-script"),
    ],
)
def test_delta_seconds(argument: bytes | None, seconds: int | None) -> None:
    assert delta_seconds(argument) == seconds


@pytest.mark.parametrize(
    ("control", "said"),
    [
        pytest.param("max-age=60", Control(lifetime_s=60), id="5.2.2.1-max-age"),
        pytest.param('max-age="60"', Control(lifetime_s=60), id="5.2-quoted-argument-is-the-same"),
        pytest.param("max-age", Control(lifetime_s=0), id="4.2.1-max-age-without-argument-is-stale"),
        pytest.param("max-age='60'", Control(lifetime_s=0), id="4.2.1-single-quotes-are-invalid"),
        pytest.param("max-age=-1", Control(lifetime_s=0), id="4.2.1-negative-is-stale"),
        pytest.param("max-age=1.5", Control(lifetime_s=0), id="4.2.1-fraction-is-stale"),
        pytest.param("max-age=60, max-age=30", Control(lifetime_s=0), id="4.2.1-conflict-is-stale"),
        pytest.param("must-revalidate", Control(must_revalidate=True, shareable=True), id="5.2.2.2-must-revalidate"),
        pytest.param("must-understand", Control(must_understand=True), id="5.2.2.3-must-understand"),
        pytest.param("no-cache", Control(no_cache=True, must_revalidate=True), id="5.2.2.4-no-cache"),
        pytest.param("NO-CACHE", Control(no_cache=True, must_revalidate=True), id="5.2-names-in-any-case"),
        pytest.param('no-cache="A, b ,"', Control(without=frozenset({b"a", b"b"})), id="5.2.2.4-no-cache-of-fields"),
        pytest.param('no-cache=""', Control(no_cache=True, must_revalidate=True), id="5.2.2.4-of-no-field-is-of-all"),
        pytest.param('no-cache="a b"', Control(no_cache=True, must_revalidate=True), id="5.2.2.4-no-list-is-of-all"),
        pytest.param("no-cache=a", Control(no_cache=True, must_revalidate=True), id="5.2.2.4-token-is-of-all"),
        pytest.param("no-store", Control(no_store=True), id="5.2.2.5-no-store"),
        pytest.param("no-store=0", Control(no_store=True), id="5.2.2.5-no-store-whatever-its-argument"),
        pytest.param("no-transform", Control(), id="5.2.2.6-no-transform-is-not-a-matter-of-storing"),
        pytest.param("private", Control(private=True), id="5.2.2.7-private"),
        pytest.param("private=true", Control(private=True), id="5.2.2.7-token-is-of-all"),
        pytest.param('private="X-A"', Control(without=frozenset({b"x-a"})), id="5.2.2.7-private-fields"),
        pytest.param("proxy-revalidate", Control(must_revalidate=True), id="5.2.2.8-proxy-revalidate"),
        pytest.param("public", Control(public=True, shareable=True), id="5.2.2.9-public"),
        pytest.param(
            "max-age=9, s-maxage=60",
            Control(lifetime_s=60, must_revalidate=True, shareable=True),
            id="5.2.2.10-s-maxage-before-max-age",
        ),
        pytest.param(
            "max-age=60, s-maxage=x",
            Control(lifetime_s=0, must_revalidate=True, shareable=True),
            id="5.2.2.10-an-invalid-s-maxage-still-comes-first",
        ),
        pytest.param("unknown, other=1", Control(), id="5.2.3-unknown-directives-are-ignored"),
        pytest.param("immutable", Control(), id="8246-2-immutable-is-for-the-client"),
        pytest.param("x='no-store'", Control(), id="5.2.3-argument-of-an-unknown-directive"),
        pytest.param('x="no-store, private"', Control(), id="9110-5.6.4-what-stands-in-quotes-is-no-directive"),
        pytest.param(
            "stale-while-revalidate=5", Control(stale_while_revalidate_s=5), id="5861-3-stale-while-revalidate"
        ),
        pytest.param("stale-if-error=5", Control(stale_if_error_s=5), id="5861-4-stale-if-error"),
        pytest.param("stale-if-error=x, stale-while-revalidate", Control(), id="5861-an-invalid-one-allows-nothing"),
        pytest.param("max-age=60 no-store", None, id="4.2.1-what-can-not-be-parsed-says-nothing"),
    ],
)
def test_what_a_response_says(control: str, said: Control | None) -> None:
    assert control_of(fields(("Cache-Control", control))) == said


def test_a_directive_on_another_line_counts_as_much() -> None:
    response = fields(("Cache-Control", "max-age=60"), ("Cache-Control", "no-store"))
    assert control_of(response) == Control(lifetime_s=60, no_store=True)


@pytest.mark.parametrize(
    ("request_lines", "asked"),
    [
        pytest.param([], None, id="5.2.1-nothing"),
        pytest.param([("Cache-Control", "max-age=5")], Asked(max_age_s=5), id="5.2.1.1-max-age"),
        pytest.param([("Cache-Control", "max-age")], Asked(max_age_s=0), id="5.2.1.1-invalid-is-0"),
        pytest.param([("Cache-Control", "max-age=9, max-age=5")], Asked(max_age_s=0), id="5.2.1.1-conflict-is-0"),
        pytest.param([("Cache-Control", "max-stale=5")], Asked(max_stale_s=5), id="5.2.1.2-max-stale"),
        pytest.param([("Cache-Control", "max-stale")], Asked(max_stale_s=MAX_DELTA_S), id="5.2.1.2-however-stale"),
        pytest.param([("Cache-Control", "max-stale=x")], Asked(), id="5.2.1.2-invalid-is-none"),
        pytest.param([("Cache-Control", "max-stale=9, max-stale")], Asked(), id="5.2.1.2-conflict-is-none"),
        pytest.param([("Cache-Control", "min-fresh=5")], Asked(min_fresh_s=5), id="5.2.1.3-min-fresh"),
        pytest.param([("Cache-Control", "min-fresh=x")], Asked(min_fresh_s=MAX_DELTA_S), id="5.2.1.3-invalid-is-ever"),
        pytest.param([("Cache-Control", "min-fresh")], Asked(min_fresh_s=MAX_DELTA_S), id="5.2.1.3-no-argument"),
        pytest.param([("Cache-Control", "no-cache")], Asked(no_cache=True), id="5.2.1.4-no-cache"),
        pytest.param([("Cache-Control", 'no-cache="a"')], Asked(no_cache=True), id="5.2.1.4-has-no-argument-here"),
        pytest.param([("Cache-Control", "no-store")], Asked(no_store=True), id="5.2.1.5-no-store"),
        pytest.param([("Cache-Control", "no-transform")], Asked(), id="5.2.1.6-no-transform"),
        pytest.param([("Cache-Control", "only-if-cached")], Asked(only_if_cached=True), id="5.2.1.7-only-if-cached"),
        pytest.param([("Cache-Control", "stale-if-error=5")], Asked(stale_if_error_s=5), id="5861-4-stale-if-error"),
        pytest.param([("Cache-Control", "=x")], Asked(no_cache=True, no_store=True), id="5.2-not-understood"),
        pytest.param([("Cache-Control", "a," * 600)], Asked(no_cache=True, no_store=True), id="5.2-far-too-long"),
        pytest.param([("Cache-Control", "no-cache"), ("Pragma", "x")], Asked(no_cache=True), id="5.4-cc-comes-first"),
        pytest.param([("Pragma", "no-cache")], Asked(no_cache=True), id="5.4-pragma"),
        pytest.param([("Pragma", "x, No-Cache")], Asked(no_cache=True), id="5.4-pragma-in-any-case"),
        pytest.param([("Pragma", "x")], None, id="5.4-another-pragma"),
        pytest.param([("Pragma", "no-cache"), ("Cache-Control", "max-age=5")], Asked(max_age_s=5), id="5.4-ignored"),
    ],
)
def test_what_a_request_asks_for(request_lines: list[tuple[str, str]], asked: Asked | None) -> None:
    assert asked_by(fields(*request_lines)) == asked


def targeted(**said: object) -> Control:
    return Control(targeted=True, **said)


@pytest.mark.parametrize(
    ("control", "said"),
    [
        pytest.param("max-age=5", targeted(lifetime_s=5), id="9213-3.1-cdn-cache-control"),
        pytest.param("none", targeted(), id="9213-3.1-neither-freshness-nor-a-ban"),
        pytest.param("max-age=5;x=1", targeted(lifetime_s=5), id="9213-2.1-parameters"),
        pytest.param("max-age=5.5", targeted(lifetime_s=0), id="9213-2.1-a-decimal-is-invalid"),
        pytest.param('max-age="5"', targeted(lifetime_s=0), id="9213-2.1-a-string-is-invalid"),
        pytest.param("max-age=-5", targeted(lifetime_s=0), id="9213-2.1-negative-is-invalid"),
        pytest.param("max-age=x", targeted(lifetime_s=0), id="9213-2.1-a-token-is-invalid"),
        pytest.param("max-age=(5)", targeted(lifetime_s=0), id="9213-2.1-a-list-is-invalid"),
        pytest.param("max-age", targeted(lifetime_s=0), id="9213-2.1-no-value-is-invalid"),
        pytest.param("max-age=5, max-age=3", targeted(lifetime_s=3), id="8941-3.2-the-last"),
        pytest.param("no-store=?0", targeted(), id="9213-2.1-false-says-nothing"),
        pytest.param("no-store=?1", targeted(no_store=True), id="9213-2.1-true"),
        pytest.param("private", targeted(private=True), id="9213-2.2-private"),
        pytest.param('private="a, b"', targeted(without=frozenset({b"a", b"b"})), id="9213-2.1-a-string-holds-fields"),
        pytest.param("no-cache=a", targeted(no_cache=True, must_revalidate=True), id="9213-2.1-a-token-holds-none"),
    ],
)
def test_what_a_targeted_field_says(control: str, said: Control) -> None:
    assert control_of(fields(("CDN-Cache-Control", control), ("Expires", date(60)))) == said


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        pytest.param(
            [("Cache-Control", "no-store"), ("CDN-Cache-Control", "max-age=5")],
            targeted(lifetime_s=5),
            id="9213-2.2-in-the-place-of-cache-control",
        ),
        pytest.param(
            [("Cache-Control", "max-age=5"), ("CDN-Cache-Control", "no-store")],
            targeted(no_store=True),
            id="9213-2.2-also-where-it-forbids",
        ),
        pytest.param(
            [("CDN-Cache-Control", "max-age=5"), ("Edgeproxy-Cache-Control", "max-age=9")],
            targeted(lifetime_s=9),
            id="9213-2.2-the-first-of-the-target-list",
        ),
        pytest.param(
            [("CDN-Cache-Control", "max-age=5"), ("Edgeproxy-Cache-Control", "&")],
            targeted(lifetime_s=5),
            id="9213-2.2-the-first-that-is-valid",
        ),
        pytest.param(
            [("CDN-Cache-Control", ""), ("Cache-Control", "max-age=9")],
            Control(lifetime_s=9),
            id="9213-2.1-empty-is-absent",
        ),
        pytest.param(
            [("CDN-Cache-Control", "Max-Age=5"), ("Cache-Control", "max-age=9")],
            Control(lifetime_s=9),
            id="9213-2.1-not-parsable-is-absent",
        ),
        pytest.param(
            [("CDN-Cache-Control", "max-age=5,"), ("Cache-Control", "max-age=9")],
            Control(lifetime_s=9),
            id="9213-2.1-trailing-comma-is-not-parsable",
        ),
        pytest.param(
            [("CDN-Cache-Control", "a=" + "1" * 16), ("Cache-Control", "max-age=9")],
            Control(lifetime_s=9),
            id="8941-3.3.1-a-number-that-is-too-long",
        ),
        pytest.param(
            [("CDN-Cache-Control", "must-revalidate"), ("CDN-Cache-Control", "max-age=5")],
            targeted(lifetime_s=5, must_revalidate=True, shareable=True),
            id="9213-2.2-must-revalidate-on-another-line",
        ),
        pytest.param(
            [("Surrogate-Control", "max-age=5"), ("OtherCDN-Cache-Control", "no-store")],
            Control(),
            id="9213-2.2-fields-for-others-mean-nothing",
        ),
    ],
)
def test_a_targeted_field_speaks_in_the_place_of_cache_control(lines: list[tuple[str, str]], said: Control) -> None:
    assert control_of(fields(*lines, ("Expires", date(60)))) == said


def test_a_long_hostile_cache_control_costs_no_more_than_its_length() -> None:
    began = time.perf_counter()
    for hostile in (
        b'a="' + b'\\"' * 500,
        b"a," * 510,
        b"," * 1000 + b"@",
        b" " * 1000 + b"@",
        b"a" + b" " * 1000 + b"b",
    ):
        directives(hostile)
        directives(hostile * 32)
        control_of({b"cdn-cache-control": hostile, b"cache-control": hostile})
    assert time.perf_counter() - began < 0.5
