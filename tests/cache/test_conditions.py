"""Which requests go past the cache."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.cache.conditions import Condition
from edgeproxy.cache.readings import Fields
from edgeproxy.config import checks

CONDITIONS = {  # the condition, the request's fields, its target, and whether it is met
    "a header": ("header:X-Preview", {b"x-preview": b"1"}, b"/", True),
    "an empty header": ("header:x-preview", {b"x-preview": b""}, b"/", True),
    "no header": ("header:x-preview", {b"x-previews": b"1"}, b"/", False),
    "a header as CGI has it": ("header:x-preview", {b"x_preview": b"1"}, b"/", True),
    "a header as CGI has it, by that name": ("header:x_preview", {b"x-preview": b"1"}, b"/", True),
    "a header's value": ("header:accept=text/html", {b"accept": b"text/html"}, b"/", True),
    "another value": ("header:accept=text/html", {b"accept": b"text/htmlx"}, b"/", False),
    "a member of a header": ("header:accept=text/html", {b"accept": b"*/*, text/html ,x"}, b"/", True),
    "a value with a comma": ("header:user-agent=a, b", {b"user-agent": b"a, b"}, b"/", True),
    "a header's value in capitals": ("header:x=a", {b"x": b"A"}, b"/", False),
    "an empty value": ("header:x=", {b"x": b""}, b"/", True),
    "an empty value of something": ("header:x=", {b"x": b"1"}, b"/", False),
    "a cookie": ("cookie:s", {b"cookie": b"a=1; s=2"}, b"/", True),
    "an empty cookie": ("cookie:s", {b"cookie": b"s="}, b"/", True),
    "no cookie": ("cookie:s", {b"cookie": b"a=s; ss=1"}, b"/", False),
    "no cookies": ("cookie:s", {}, b"/", False),
    "a cookie on another line": ("cookie:s", {b"cookie": b"a=1, s=2"}, b"/", True),
    "a cookie's name as PHP has it": ("cookie:a_s", {b"cookie": b"a.s=1"}, b"/", True),
    "an encoded cookie": ("cookie:s", {b"cookie": b"%73=1"}, b"/", True),
    "cookies that begin so": ("cookie:wp_*", {b"cookie": b"a=1; wp_x=2"}, b"/", True),
    "no cookies that begin so": ("cookie:wp_*", {b"cookie": b"a=wp_x"}, b"/", False),
    "any cookie": ("cookie:*", {b"cookie": b"a=1"}, b"/", True),
    "not any cookie": ("cookie:*", {b"cookie": b""}, b"/", False),
    "a cookie's value": ("cookie:s=1", {b"cookie": b"s=2; s=1"}, b"/", True),
    "another value of a cookie": ("cookie:s=1", {b"cookie": b"s=11"}, b"/", False),
    "a parameter": ("query:debug", {}, b"/?a&debug", True),
    "a parameter with a value": ("query:debug", {}, b"/?debug=0", True),
    "no parameter": ("query:debug", {}, b"/debug?a=debug&debugs", False),
    "no query": ("query:debug", {}, b"/", False),
    "a parameter's value": ("query:a=1", {}, b"/?a=2&a=1", True),
    "a parameter's encoded value": ("query:a=1", {}, b"/?a=%31", True),
    "another value of a parameter": ("query:a=1", {}, b"/?a=&b=1", False),
    "an encoded parameter": ("query:debug", {}, b"/?%64ebug", True),
    "a parameter behind a semicolon": ("query:debug", {}, b"/?a;debug=1", True),
    "any parameter": ("query:*", {}, b"/?a", True),
    "not any parameter": ("query:*", {}, b"/?", False),
    "a value with an equals sign": ("query:a=b=c", {}, b"/?a=b=c", True),
}


@pytest.mark.parametrize(("text", "names", "target", "met"), CONDITIONS.values(), ids=CONDITIONS.keys())
def test_a_condition_is_met_by_what_an_origin_may_take_for_it(
    text: str, names: Fields, target: bytes, met: bool
) -> None:
    assert checks.is_condition(text)
    assert Condition(text).met(names, target) is met


@pytest.mark.parametrize("text", ["", "header", "header:", "cookie:=1", "host:x", "Header:x", ":x"])
def test_what_is_no_condition_is_refused(text: str) -> None:
    assert not checks.is_condition(text)
    with pytest.raises(ValueError, match=r"names nothing|is not a valid Subject"):
        Condition(text)


@given(
    st.tuples(
        st.sampled_from(["header:", "cookie:", "query:", "query", "host:", ""]),
        st.text("ab*%;&#[ é", max_size=4),
        st.sampled_from(["", "="]),
        st.text("ab=*,;&# \t\né", max_size=4),
    ).map("".join)
)
def test_what_the_configuration_lets_pass_is_a_condition(text: str) -> None:
    if checks.is_condition(text):
        assert Condition(text).text == text
        assert Condition(text).met({}, b"/") is False


def test_what_is_too_much_to_look_at_goes_past_the_cache() -> None:
    many = [b"%%7%d=1" % n for n in range(251)]
    for separator, field in [(b"; ", b"cookie"), (b", ", b"cookie"), (b"&", b""), (b";", b"")]:
        text, less = separator.join(many), separator.join(many[1:])
        for pieces, met in ((text, True), (less, False)):
            names, target = ({field: pieces}, b"/") if field else ({}, b"/?" + pieces)
            assert Condition("cookie:c" if field else "query:c").met(names, target) is met
    assert not Condition("cookie:c").met({b"cookie": b"; ".join([b"a=1"] * 1000)}, b"/")
