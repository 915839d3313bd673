"""What the conformance suite of w3c/trace-context asks of a service, as tables over the tracer.

A row is named after the suite's test, with a letter where that test sends several requests. It gives the fields that
come in and what has to go out: the trace goes on or a new one begins; the tracestate has these members, or there is
none. The fields' names (their case, `trace-parent`) are the HTTP side's affair and so not here.

The suite changed with level 2. Where a row says "level 1 differs", older versions of it asked for the opposite: `@` had
a grammar of its own then, and repeated keys made a list invalid.
"""

import pytest

from edgeproxy.tracing import RANDOM, IdSource, SamplerKind, Tracer

NOW_NS = 1_790_000_000_123_456_789
TRACE = "12345678901234567890123456789012"
SPAN = "1234567890123456"
ATTEMPT = "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{SPAN}-00"

GOES_ON = [
    ("traceparent_included_tracestate_missing", f"00-{TRACE}-{SPAN}-01"),
    ("traceparent_header_name_valid_casing", f"00-{TRACE}-{SPAN}-01"),
    ("traceparent_version_0xcc a", f"cc-{TRACE}-{SPAN}-01"),
    ("traceparent_version_0xcc b", f"cc-{TRACE}-{SPAN}-01-what-the-future-will-be-like"),
    ("traceparent_ows_handling a", f" 00-{TRACE}-{SPAN}-01"),
    ("traceparent_ows_handling b", f"\t00-{TRACE}-{SPAN}-01"),
    ("traceparent_ows_handling c", f"00-{TRACE}-{SPAN}-01 "),
    ("traceparent_ows_handling d", f"00-{TRACE}-{SPAN}-01\t"),
    ("traceparent_ows_handling e", f"\t 00-{TRACE}-{SPAN}-01 \t"),
]

BEGINS_ANEW = [
    ("traceparent_version_0x00 a", f"00-{TRACE}-{SPAN}-01."),
    ("traceparent_version_0x00 b", f"00-{TRACE}-{SPAN}-01-what-the-future-will-be-like"),
    ("traceparent_version_0xcc c", f"cc-{TRACE}-{SPAN}-01.what-the-future-will-be-like"),
    ("traceparent_version_0xff", f"ff-{TRACE}-{SPAN}-01"),
    ("traceparent_version_illegal_characters a", f".0-{TRACE}-{SPAN}-01"),
    ("traceparent_version_illegal_characters b", f"0.-{TRACE}-{SPAN}-01"),
    ("traceparent_version_too_long a", f"000-{TRACE}-{SPAN}-01"),
    ("traceparent_version_too_long b", f"0000-{TRACE}-{SPAN}-01"),
    ("traceparent_version_too_short", f"0-{TRACE}-{SPAN}-01"),
    ("traceparent_trace_id_all_zero", f"00-{'0' * 32}-{SPAN}-01"),
    ("traceparent_trace_id_illegal_characters a", f"00-.{TRACE[1:]}-{SPAN}-01"),
    ("traceparent_trace_id_illegal_characters b", f"00-{TRACE[:-1]}.-{SPAN}-01"),
    ("traceparent_trace_id_too_long", f"00-{TRACE}3-{SPAN}-01"),
    ("traceparent_trace_id_too_short", f"00-{TRACE[:-1]}-{SPAN}-01"),
    ("traceparent_parent_id_all_zero", f"00-{TRACE}-{'0' * 16}-01"),
    ("traceparent_parent_id_illegal_characters a", f"00-{TRACE}-.{SPAN[1:]}-01"),
    ("traceparent_parent_id_illegal_characters b", f"00-{TRACE}-{SPAN[:-1]}.-01"),
    ("traceparent_parent_id_too_long", f"00-{TRACE}-{SPAN}7-01"),
    ("traceparent_parent_id_too_short", f"00-{TRACE}-{SPAN[:-1]}-01"),
    ("traceparent_trace_flags_illegal_characters a", f"00-{TRACE}-{SPAN}-.0"),
    ("traceparent_trace_flags_illegal_characters b", f"00-{TRACE}-{SPAN}-0."),
    ("traceparent_trace_flags_too_long", f"00-{TRACE}-{SPAN}-001"),
    ("traceparent_trace_flags_too_short", f"00-{TRACE}-{SPAN}-1"),
]

KEY = "abcdefghijklmnopqrstuvwxyz0123456789_-*/"
VALUE = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) not in ",=")
BARS = [",".join(f"bar{n:02}={n:02}" for n in range(first, first + 10)) for first in (1, 11, 21)]

TRACESTATES = [
    ("tracestate_included_traceparent_included", ["foo=1,bar=2"], "foo=1,bar=2"),
    ("tracestate_header_name_valid_casing", ["foo=1"], "foo=1"),
    ("tracestate_empty_header a", [""], None),
    ("tracestate_empty_header b", ["foo=1", ""], "foo=1"),
    ("tracestate_empty_header c", ["", "foo=1"], "foo=1"),
    (
        "tracestate_multiple_headers_different_keys",
        ["foo=1,bar=2", "rojo=1,congo=2", "baz=3"],
        "foo=1,bar=2,rojo=1,congo=2,baz=3",
    ),
    ("tracestate_duplicated_keys a, level 1 differs", ["foo=1,foo=1"], "foo=1"),
    ("tracestate_duplicated_keys b, level 1 differs", ["foo=1,foo=2"], "foo=1"),
    ("tracestate_duplicated_keys c, level 1 differs", ["foo=1", "foo=1"], "foo=1"),
    ("tracestate_duplicated_keys d, level 1 differs", ["foo=1", "foo=2"], "foo=1"),
    ("tracestate_all_allowed_characters a", [f"{KEY}={VALUE}"], f"{KEY}={VALUE}"),
    ("tracestate_all_allowed_characters b", [f"{KEY}@a-z0-9_-*/={VALUE}"], f"{KEY}@a-z0-9_-*/={VALUE}"),
    ("tracestate_ows_handling a", ["foo=1 \t , \t bar=2, \t baz=3"], "foo=1,bar=2,baz=3"),
    ("tracestate_ows_handling b", ["foo=1\t \t,\t \tbar=2,\t \tbaz=3"], "foo=1,bar=2,baz=3"),
    ("tracestate_ows_handling c", [" foo=1"], "foo=1"),
    ("tracestate_ows_handling d", ["\tfoo=1"], "foo=1"),
    ("tracestate_ows_handling e", ["foo=1 "], "foo=1"),
    ("tracestate_ows_handling f", ["foo=1\t"], "foo=1"),
    ("tracestate_ows_handling g", ["\t foo=1 \t"], "foo=1"),
    ("tracestate_key_illegal_characters a", ["foo =1"], None),
    ("tracestate_key_illegal_characters b", ["FOO=1"], None),
    ("tracestate_key_illegal_characters c", ["foo.bar=1"], None),
    ("tracestate_key_illegal_vendor_format a, level 1 differs", ["foo@=1,bar=2"], "foo@=1,bar=2"),
    ("tracestate_key_illegal_vendor_format b", ["@foo=1,bar=2"], None),
    ("tracestate_key_illegal_vendor_format c, level 1 differs", ["foo@@bar=1,bar=2"], "foo@@bar=1,bar=2"),
    ("tracestate_key_illegal_vendor_format d, level 1 differs", ["foo@bar@baz=1,bar=2"], "foo@bar@baz=1,bar=2"),
    ("tracestate_member_count_limit a", [*BARS, "bar31=31,bar32=32"], ",".join([*BARS, "bar31=31,bar32=32"])),
    ("tracestate_member_count_limit b", [*BARS, "bar31=31,bar32=32,bar33=33"], None),
    ("tracestate_key_length_limit a", ["foo=1", f"{'z' * 256}=1"], f"foo=1,{'z' * 256}=1"),
    ("tracestate_key_length_limit b", ["foo=1", f"{'z' * 257}=1"], None),
    (
        "tracestate_key_length_limit c",
        ["foo=1", f"{'t' * 241}@{'v' * 14}=1"],
        f"foo=1,{'t' * 241}@{'v' * 14}=1",
    ),
    ("tracestate_key_length_limit d, level 1 differs", ["foo=1", f"{'t' * 242}@v=1"], f"foo=1,{'t' * 242}@v=1"),
    ("tracestate_key_length_limit e, level 1 differs", ["foo=1", f"t@{'v' * 15}=1"], f"foo=1,t@{'v' * 15}=1"),
    ("tracestate_value_illegal_characters a", ["foo=bar=baz"], None),
    ("tracestate_value_illegal_characters b", ["foo=,bar=3"], None),
]


def forwarded(traceparents: list[str], tracestates: list[str] | None = None) -> tuple[str, str, int, str | None]:
    """Trace id, parent id, flags and tracestate as the origin gets them."""
    tracer = Tracer(IdSource())
    tracer.configure(enabled=True, sampler=SamplerKind.PARENTBASED_TRACEIDRATIO, ratio=1.0)
    trace = tracer.begin(
        NOW_NS,
        [value.encode() for value in traceparents],
        None if tracestates is None else [value.encode() for value in tracestates],
        trusted=True,
    )
    version, trace_id, parent_id, flags = tracer.outgoing(trace, ATTEMPT).decode().split("-")
    assert version == "00"
    return trace_id, parent_id, int(flags, 16), trace.tracestate.decode() if trace.tracestate is not None else None


@pytest.mark.parametrize("value", [row[1] for row in GOES_ON], ids=[row[0] for row in GOES_ON])
def test_the_trace_goes_on(value: str) -> None:
    trace_id, parent_id, _, _ = forwarded([value])
    assert trace_id == TRACE
    assert parent_id == ATTEMPT


@pytest.mark.parametrize("value", [row[1] for row in BEGINS_ANEW], ids=[row[0] for row in BEGINS_ANEW])
def test_a_new_trace_begins(value: str) -> None:
    trace_id, _, _, tracestate = forwarded([value], ["foo=1"])
    assert trace_id[:12] == f"{NOW_NS // 1_000_000:012x}"
    assert tracestate is None


@pytest.mark.parametrize(
    ("tracestates", "goes_out"), [row[1:] for row in TRACESTATES], ids=[row[0] for row in TRACESTATES]
)
def test_the_tracestate_goes_on_or_is_dropped(tracestates: list[str], goes_out: str | None) -> None:
    trace_id, _, _, tracestate = forwarded([PARENT], tracestates)
    assert trace_id == TRACE
    assert tracestate == goes_out


def test_both_traceparent_and_tracestate_missing() -> None:
    trace_id, parent_id, _, tracestate = forwarded([])
    assert int(trace_id, 16)
    assert parent_id == ATTEMPT
    assert tracestate is None


def test_traceparent_duplicated() -> None:
    other = TRACE[:-1] + "1"
    trace_id, _, _, _ = forwarded([f"00-{other}-{SPAN}-01", f"00-{TRACE}-{SPAN}-01"])
    assert trace_id not in (TRACE, other)


@pytest.mark.parametrize("tracestate", ["foo=1", "foo=1,bar=2"])
def test_tracestate_included_traceparent_missing(tracestate: str) -> None:
    assert forwarded([], [tracestate])[3] is None


def test_propagates_random_flag() -> None:
    assert forwarded([f"00-{TRACE}-{SPAN}-02"])[2] & RANDOM
    assert not forwarded([f"00-{TRACE}-{SPAN}-01"])[2] & RANDOM


@pytest.mark.parametrize(
    "traceparents",
    [[f"00-{TRACE}-{SPAN}-01"], [], [f"00-{'0' * 32}-{SPAN}-01"]],
    ids=["with_valid_traceparent", "without_traceparent", "with_illegal_traceparent"],
)
def test_multiple_requests(traceparents: list[str]) -> None:
    ids = IdSource()
    tracer = Tracer(ids)
    tracer.configure(enabled=True, sampler=SamplerKind.ALWAYS_ON, ratio=1.0)
    trace = tracer.begin(NOW_NS, [value.encode() for value in traceparents], None, trusted=True)
    sent = {tracer.outgoing(trace, ids.span_id()) for _ in range(3)}
    assert len(sent) == 3
    assert {value[3:35].decode() for value in sent} == {trace.trace_id}
    assert (trace.trace_id == TRACE) is (traceparents == [f"00-{TRACE}-{SPAN}-01"])
