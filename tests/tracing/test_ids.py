"""Ids: their formats, their order in time, their randomness."""

import random
import uuid
from collections.abc import Callable
from itertools import pairwise

import pytest
import uuid6
from opentelemetry.sdk.trace.sampling import Decision, TraceIdRatioBased

from edgeproxy.tracing import IdSource

NOW_NS = 1_790_000_000_123_456_789
MS = 1_000_000


def seeded(seed: int) -> Callable[[int], bytes]:
    """Entropy that is the same in every run, so that a statistical test fails always or never."""
    return random.Random(seed).randbytes


def ones(size: int) -> bytes:
    return b"\xff" * size


def zeros(size: int) -> bytes:
    return bytes(size)


def bits_set(values: list[int], width: int) -> list[int]:
    return [sum(value >> bit & 1 for value in values) for bit in range(width)]


def test_ids_are_lower_case_hex_of_the_right_length() -> None:
    trace_id, span_id, request_id = IdSource().mint(NOW_NS)
    assert (len(trace_id), len(span_id), len(request_id)) == (32, 16, 36)
    assert set(trace_id + span_id) <= set("0123456789abcdef")
    assert len(IdSource().span_id()) == 16


def test_a_request_id_is_a_uuid_of_version_7_in_canonical_form() -> None:
    ids = IdSource()
    variants = set()
    for _ in range(1000):
        text = ids.mint(NOW_NS)[2]
        parsed = uuid.UUID(text)
        assert str(parsed) == text
        assert parsed.version == 7
        assert parsed.variant == uuid.RFC_4122
        assert uuid6.UUID(text).time == NOW_NS // MS
        variants.add(text[19])
    assert variants == set("89ab")


def test_a_trace_id_begins_as_a_uuid_of_version_7_does() -> None:
    trace_id = IdSource().mint(NOW_NS)[0]
    assert int(trace_id[:12], 16) == NOW_NS // MS
    assert trace_id[12] == "7"


def test_fields_stand_where_uuid7_of_the_library_has_them() -> None:
    library = uuid6.uuid7()
    ids = IdSource()
    text = ids.mint(library.time * MS)[2]
    ours = uuid6.UUID(text)
    assert (ours.time, ours.version, ours.variant) == (library.time, library.version, library.variant)
    assert ids.mint(library.time * MS)[0][:13] == library.hex[:13]


@pytest.mark.parametrize("part", [0, 2], ids=["trace id", "request id"])
def test_ids_sort_by_time(part: int) -> None:
    ids = IdSource()
    minted = [ids.mint(NOW_NS + step * MS)[part] for step in range(1000)]
    assert all(earlier < later for earlier, later in pairwise(minted))


@pytest.mark.parametrize(
    ("now_ns", "milliseconds"),
    [
        (0, 0),
        (999_999, 0),
        (1_000_000, 1),
        (1_999_999, 1),
        (NOW_NS, NOW_NS // MS),
        (2**48 * MS - 1, 2**48 - 1),
    ],
)
def test_the_millisecond_is_that_of_the_moment_passed(now_ns: int, milliseconds: int) -> None:
    trace_id, _, request_id = IdSource().mint(now_ns)
    assert trace_id[:12] == f"{milliseconds:012x}" == request_id[:13].replace("-", "")


def test_the_millisecond_follows_a_clock_that_goes_any_way() -> None:
    ids = IdSource()
    for now_ns in (NOW_NS, NOW_NS + 1, NOW_NS + 876_543, NOW_NS + 876_544, NOW_NS - 5 * MS, NOW_NS - 5 * MS, NOW_NS):
        assert int(ids.mint(now_ns)[0][:12], 16) == now_ns // MS


def test_the_low_half_of_a_trace_id_is_uniform_in_every_bit() -> None:
    ids = IdSource(seeded(1))
    count = 100_000
    low = [int(ids.mint(NOW_NS)[0][16:], 16) for _ in range(count)]
    five_sigma = 2.5 * count**0.5
    for bit, set_count in enumerate(bits_set(low, 64)):
        assert abs(set_count - count / 2) < five_sigma, f"bit {bit} is set in {set_count} of {count}"


@pytest.mark.parametrize(
    ("part", "fixed"),
    [
        (0, ((1 << 52) - 1) << 76),  # milliseconds and version
        (1, 0),
        (2, ((1 << 52) - 1) << 76 | 0b11 << 62),  # milliseconds, version and variant
    ],
    ids=["trace id", "span id", "request id"],
)
def test_all_that_is_not_fixed_is_random(part: int, fixed: int) -> None:
    ids = IdSource(seeded(2))
    count = 10_000
    width = 64 if part == 1 else 128
    values = [int(ids.mint(NOW_NS)[part].replace("-", ""), 16) for _ in range(count)]
    five_sigma = 2.5 * count**0.5
    for bit, set_count in enumerate(bits_set(values, width)):
        if fixed >> bit & 1:
            assert set_count in (0, count)
        else:
            assert abs(set_count - count / 2) < five_sigma, f"bit {bit} is set in {set_count} of {count}"


def test_no_part_of_one_id_tells_a_part_of_another() -> None:
    ids = IdSource(seeded(3))
    count = 16_384
    same = {"low half, span": 0, "low half, request": 0, "span, request": 0, "rand_a": 0}
    for _ in range(count):
        trace_id, span_id, request_id = ids.mint(NOW_NS)
        same["low half, span"] += trace_id[-3:] == span_id[-3:]
        same["low half, request"] += trace_id[-3:] == request_id[-3:]
        same["span, request"] += span_id[-3:] == request_id[-3:]
        same["rand_a"] += trace_id[13:16] == request_id[15:18]
    assert max(same.values()) < 20, same  # 4 of 16,384 are to be expected


def test_a_million_ids_have_no_repeat() -> None:
    ids = IdSource()
    minted = [ids.mint(NOW_NS) for _ in range(1_000_000)]
    for part in range(3):
        assert len({row[part] for row in minted}) == len(minted)


def test_span_ids_from_both_calls_have_no_repeat() -> None:
    ids = IdSource()
    spans = [ids.span_id() if step % 2 else ids.mint(NOW_NS)[1] for step in range(10_000)]
    assert len(set(spans)) == len(spans)


@pytest.mark.parametrize("ratio", [0.01, 0.1, 0.5, 0.6])
def test_an_sdk_samples_the_right_share_of_minted_ids(ratio: float) -> None:
    ids = IdSource(seeded(4))
    sampler = TraceIdRatioBased(ratio)
    count = 100_000
    sampled = sum(
        sampler.should_sample(None, int(ids.mint(NOW_NS)[0], 16), "").decision is Decision.RECORD_AND_SAMPLE
        for _ in range(count)
    )
    five_sigma = 5 * (count * ratio * (1 - ratio)) ** 0.5
    assert abs(sampled - count * ratio) < five_sigma


def test_ids_are_valid_even_if_all_entropy_is_zero() -> None:
    ids = IdSource(zeros)
    trace_id, span_id, request_id = ids.mint(0)
    assert int(trace_id[16:], 16) != 0
    assert int(span_id, 16) != 0
    assert int(ids.span_id(), 16) != 0
    assert uuid.UUID(request_id) == uuid.UUID("00000000-0000-7000-8000-000000000000")


def test_ids_are_valid_even_if_all_entropy_is_ones() -> None:
    trace_id, span_id, request_id = IdSource(ones).mint(0)
    assert (trace_id, span_id) == ("0000000000007" + "f" * 19, "f" * 16)
    assert request_id == "00000000-0000-7fff-bfff-ffffffffffff"


def test_entropy_is_fetched_in_blocks_of_about_8_kib() -> None:
    sizes: list[int] = []

    def counted(size: int) -> bytes:
        sizes.append(size)
        return random.randbytes(size)

    ids = IdSource(counted)
    assert sizes == []
    for _ in range(1000):
        ids.mint(NOW_NS)
    assert len(sizes) == 4
    assert all(8000 < size <= 8192 for size in sizes)


def test_the_same_entropy_mints_the_same_ids() -> None:
    one, other = IdSource(seeded(5)), IdSource(seeded(5))
    assert [one.mint(NOW_NS) for _ in range(600)] == [other.mint(NOW_NS) for _ in range(600)]
