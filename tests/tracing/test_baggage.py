"""How much of W3C Baggage is passed on."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.tracing import IdSource, Propagation, Tracer
from edgeproxy.tracing.baggage import BYTES_MAX, MEMBERS_MAX, limited


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"a=1",
        b"a=1;p=2 ,b=%20, c",
        b"no list at all",
        b",".join(b"k%d=v" % number for number in range(MEMBERS_MAX)),
        b"k=" + b"v" * (BYTES_MAX - 2),
    ],
)
def test_what_is_within_the_limits_goes_on_as_it_came(value: bytes) -> None:
    assert limited(value) is value


def test_of_too_many_members_the_first_go_on() -> None:
    members = [b"k%d=v;p" % number for number in range(MEMBERS_MAX + 1)]
    assert limited(b" , ".join(members)) == b",".join(members[:MEMBERS_MAX])


def test_members_are_dropped_whole_where_they_are_too_long_together() -> None:
    members = [b"k%02d=%b" % (number, b"v" * 1000) for number in range(10)]
    assert limited(b",".join(members)) == b",".join(members[:8])
    assert limited(b"a=1," + b"b=" + b"v" * BYTES_MAX) == b"a=1"
    assert limited(b"b=" + b"v" * BYTES_MAX) == b""


@pytest.mark.parametrize("broken", [b"no-value", b"=1", b"k\x01=1", b"k k=1", b"k=\xff"])
def test_what_is_no_list_goes_on_within_the_limits_or_not_at_all(broken: bytes) -> None:
    assert limited(broken) == broken
    assert limited(broken + b",k=" + b"v" * BYTES_MAX) == b""


@given(st.lists(st.binary(max_size=200), max_size=300).map(b",".join))
def test_nothing_goes_on_that_is_beyond_the_limits(value: bytes) -> None:
    kept = limited(value)
    assert len(kept) <= BYTES_MAX
    assert kept.count(b",") < MEMBERS_MAX


def test_a_stranger_brings_none_and_who_does_not_look_after_it_touches_nothing() -> None:
    tracer = Tracer(IdSource())
    careful, blind = Propagation(["tracecontext", "baggage"], tracer), Propagation(["tracecontext"], tracer)
    long = b"b=" + b"v" * BYTES_MAX
    assert (careful.baggage(b"a=1", True), careful.baggage(b"a=1", False)) == (b"a=1", b"")
    assert (blind.baggage(long, True), blind.baggage(long, False)) == (long, long)
