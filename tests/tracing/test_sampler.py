"""Sampling: the SDK's decisions, id by id."""

import random

import pytest
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    Decision,
    ParentBased,
    TraceIdRatioBased,
)
from opentelemetry.sdk.trace.sampling import Sampler as SdkSampler
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

from edgeproxy.tracing import Sampler, SamplerKind

RATIOS = [0.0, 5e-20, 1e-9, 0.01, 0.1, 1 / 3, 0.5, 0.6, 0.999999, 1 - 2**-53, 1.0]


def sdk(kind: SamplerKind, ratio: float) -> SdkSampler:
    root = {"always_on": ALWAYS_ON, "always_off": ALWAYS_OFF, "traceidratio": TraceIdRatioBased(ratio)}
    word = kind.word.removeprefix("parentbased_")
    return ParentBased(root[word]) if kind.word.startswith("parentbased_") else root[word]


def sdk_samples(sampler: SdkSampler, trace_id: str, parent_sampled: bool | None) -> bool:
    """The SDK's decision on a trace with no parent (None), or with a remote one."""
    context = None
    if parent_sampled is not None:
        flags = TraceFlags(TraceFlags.SAMPLED if parent_sampled else TraceFlags.DEFAULT)
        parent = SpanContext(int(trace_id, 16), 1, is_remote=True, trace_flags=flags)
        context = set_span_in_context(NonRecordingSpan(parent))
    return sampler.should_sample(context, int(trace_id, 16), "").decision is Decision.RECORD_AND_SAMPLE


def random_ids(count: int) -> list[str]:
    numbers = random.Random(11)
    return [numbers.randbytes(16).hex() for _ in range(count)]


@pytest.mark.parametrize("ratio", [0.01, 0.1, 0.5, 0.6])
def test_ratio_decides_on_100_000_ids_as_the_sdk_does(ratio: float) -> None:
    ours, theirs = Sampler(SamplerKind.TRACEIDRATIO, ratio), TraceIdRatioBased(ratio)
    for trace_id in random_ids(100_000):
        decision = theirs.should_sample(None, int(trace_id, 16), "").decision
        assert ours.minted(trace_id) == (decision is Decision.RECORD_AND_SAMPLE), trace_id


@pytest.mark.parametrize("ratio", RATIOS)
def test_ratio_decides_at_its_boundary_as_the_sdk_does(ratio: float) -> None:
    ours, theirs = Sampler(SamplerKind.TRACEIDRATIO, ratio), TraceIdRatioBased(ratio)
    bound = theirs.bound
    lows = {0, 1, 9, 10, 15, 16, 2**63 - 1, 2**63, 2**64 - 1} | {bound + step for step in range(-17, 18)}
    for low in sorted(low for low in lows if 0 <= low < 2**64):
        for high in ("0" * 15 + "1", "f" * 16):
            trace_id = f"{high}{low:016x}"
            assert ours.minted(trace_id) == sdk_samples(theirs, trace_id, None), trace_id


@pytest.mark.parametrize("kind", SamplerKind)
@pytest.mark.parametrize("ratio", [0.0, 0.25, 1.0])
def test_every_kind_decides_as_the_sdk_does(kind: SamplerKind, ratio: float) -> None:
    ours, theirs = Sampler(kind, ratio), sdk(kind, ratio)
    for trace_id in random_ids(200):
        assert ours.minted(trace_id) == sdk_samples(theirs, trace_id, None)
        for parent_sampled in (True, False):
            assert ours.continued(trace_id, parent_sampled) == sdk_samples(theirs, trace_id, parent_sampled)


def test_the_high_half_of_a_trace_id_has_no_say() -> None:
    sampler = Sampler(SamplerKind.TRACEIDRATIO, 0.5)
    for high in ("0" * 16, "f" * 16):
        assert sampler.minted(high + "7fffffffffffffff")
        assert not sampler.minted(high + "8000000000000000")


@pytest.mark.parametrize("ratio", [-0.1, 1.1, float("nan"), float("inf")])
@pytest.mark.parametrize("kind", SamplerKind)
def test_a_ratio_outside_of_0_to_1_is_refused(kind: SamplerKind, ratio: float) -> None:
    with pytest.raises(ValueError, match="0 to 1"):
        Sampler(kind, ratio)


def test_words_are_those_of_otel_traces_sampler() -> None:
    words = [
        "always_off",
        "always_on",
        "traceidratio",
        "parentbased_always_off",
        "parentbased_always_on",
        "parentbased_traceidratio",
    ]
    assert [SamplerKind.from_word(word).word for word in words] == words
    assert [kind.word for kind in SamplerKind] == words


@pytest.mark.parametrize("word", ["", "ALWAYS_ON", "traceidratio ", "jaeger_remote", "2"])
def test_an_unknown_word_is_refused_with_the_words_there_are(word: str) -> None:
    with pytest.raises(ValueError, match="always_off, always_on, traceidratio, parentbased_always_off"):
        SamplerKind.from_word(word)


def test_numbers_of_kinds_are_a_contract_with_the_control_page() -> None:
    assert {kind.name: kind.value for kind in SamplerKind} == {
        "ALWAYS_OFF": 0,
        "ALWAYS_ON": 1,
        "TRACEIDRATIO": 2,
        "PARENTBASED_ALWAYS_OFF": 3,
        "PARENTBASED_ALWAYS_ON": 4,
        "PARENTBASED_TRACEIDRATIO": 5,
    }
