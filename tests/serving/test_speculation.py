"""Speculative decoding: tokens of a step, what a step costs and holds, and the draft length that load allows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from planner_cases import MOE, gpu, ideal_efficiency, one, plain_engine, replica, tiny

from planner.architecture.catalog import load_model
from planner.architecture.model import Model
from planner.cost.moe import active_experts
from planner.errors import InputError
from planner.job.speculating import Speculating
from planner.serving.aggregated import steps
from planner.serving.decode import decode_seconds
from planner.serving.drafting import Drafting, eagle_head, prediction_layer
from planner.serving.iteration import Work, iteration_ledger, iteration_seconds
from planner.serving.layout import Layouts
from planner.serving.lengths import Lengths
from planner.serving.memory import memory
from planner.serving.replica import Replica
from planner.serving.speculation import LENGTHS, Acceptance, Speculation, default_acceptance

TARGET = replica("meta-llama/Llama-3.1-8B")
LENGTHS_OF = Lengths(1000.0, 200.0)
BANDWIDTH = 1e9
rates = st.lists(st.floats(0, 1), min_size=1, max_size=4).map(tuple)


def drafting(method: str, rate: tuple[float, ...] = (), model: Model | None = None, **more: object) -> Drafting:
    asked = Speculating(method=method, model=model.id if model else None, acceptance=rate, **more)  # type: ignore[arg-type]
    return Drafting(asked, model)


def speculating(target: Replica, method: str, tokens: int, rate: float = 0.8, model: Model | None = None) -> Replica:
    return replace(target, speculation=drafting(method, (rate,), model).speculation(target, tokens))


def held(kind: Replica, layout: Layouts) -> float:
    """Bytes of weights on one GPU."""
    return float(np.ravel(memory(kind, layout, LENGTHS_OF).weights)[0])


def by_memory(model: Model) -> Replica:
    """A GPU whose arithmetic costs nothing, and an engine without overheads: seconds are bytes."""
    device = gpu(memory_bandwidth=BANDWIDTH, flops={"bf16": 1e30}, power=0.0, compute_units=1)
    return replica(model, device, efficiency=ideal_efficiency(), engine=plain_engine(draft_step=0.0))


def test_tokens_of_a_step_follow_the_geometric_law() -> None:
    # (1 - 0.8^5)/(1 - 0.8) = 3.3616; by position 1 + 0.9 + 0.9*0.5.
    assert Acceptance((0.8,)).tokens(4) == pytest.approx(3.3616)
    assert Acceptance((0.9, 0.5)).tokens(2) == pytest.approx(2.35)
    assert Acceptance((0.8,)).tokens(0) == 1.0


@given(rates, st.integers(1, 6))
def test_mean_and_variance_are_those_of_the_drawn_steps(rate: tuple[float, ...], length: int) -> None:
    known = Acceptance(rate)
    at = [rate[min(i, len(rate) - 1)] for i in range(length)]
    # N tokens with probability a_1...a_{N-1} (1 - a_N), all accepted with the whole product
    chance = [float(np.prod(at[:n])) * (1 - at[n]) for n in range(length)] + [float(np.prod(at))]
    tokens = np.arange(1, length + 2)
    mean = float(np.dot(chance, tokens))
    assert known.tokens(length) == pytest.approx(mean)
    assert known.variance(length) == pytest.approx(float(np.dot(chance, (tokens - mean) ** 2)), abs=1e-9)
    assert 1 <= known.tokens(length) <= length + 1


def test_a_step_of_the_target_reads_weights_and_cache_once_and_a_query_per_token() -> None:
    kind = by_memory(tiny())
    b, context, k = 3, 100, 2
    plain = iteration_ledger(kind, one(1), Work(sequences=b, context=context)).seconds
    wide = iteration_ledger(speculating(kind, "ngram", k), one(1), Work(sequences=b, context=context)).seconds
    bytes_of = {name: float(np.ravel(value)[0]) * BANDWIDTH for name, value in wide.items()}
    rows = b * (1 + k)
    # as in test_serving_iteration.py, with rows tokens instead of b
    qkv, out = 64 * 128, 64 * 64
    linears = 2 * (qkv + out + rows * (64 + 128) + rows * (64 + 64))
    assert bytes_of["attention linears"] == pytest.approx(linears)
    assert bytes_of["attention decode"] == pytest.approx(b * context * 2 * 32 * 2 + rows * 4 * 32 * 2)
    assert bytes_of["lm head"] == pytest.approx(2 * (64 * 256 + rows * (64 + 256)))
    assert float(np.ravel(plain["attention decode"])[0]) * BANDWIDTH == pytest.approx(
        b * context * 2 * 32 * 2 + b * 4 * 32 * 2
    )


def test_checking_a_draft_wakes_the_experts_of_all_its_tokens() -> None:
    kind = by_memory(tiny(ffn=MOE))
    seconds = iteration_ledger(speculating(kind, "ngram", 3), one(1), Work(sequences=2, context=1)).seconds
    weights = float(active_experts(8.0, 2.0, 8.0)) * 3 * 64 * 32 * 2
    rows = 2 * 8 * (32 * 2 * 3 + 64 * 2 * 2)
    assert float(np.ravel(seconds["experts"])[0]) * BANDWIDTH == pytest.approx(weights + rows, rel=1e-6)


def test_a_draft_model_takes_as_many_of_its_own_iterations_as_tokens() -> None:
    kind, small = by_memory(tiny(4)), tiny(1, id="small")
    work = Work(sequences=2, context=50)
    alone = by_memory(small)
    first = iteration_seconds(alone, one(1), replace(work, drafted=3.0, one_sample=True))
    later = iteration_seconds(alone, one(1), work)
    ledger = iteration_ledger(speculating(kind, "draft", 3, model=small), one(1), work).seconds
    assert ledger["draft"] == pytest.approx(first + 2 * later)


def test_the_first_pass_folds_every_checked_token_and_each_pass_guesses_from_one() -> None:
    kind = by_memory(tiny(4))
    head = by_memory(eagle_head(kind.model))
    b, k = 2, 3
    ledger = iteration_ledger(speculating(kind, "eagle", k), one(1), Work(sequences=b, context=50)).seconds
    hidden, vocab = kind.model.hidden, head.model.vocab
    passes = [iteration_ledger(head, one(1), Work(b, 50, drafted=float(n))) for n in (k, 0)]
    first, later = (float(np.ravel(p.total - p.seconds["lm head"])[0]) for p in passes)
    # four hidden states in the first pass, the draft's own one beside the embedding in the others
    folds = sum(
        2 * (joined * hidden * hidden + rows * (joined + 1) * hidden)
        for joined, rows in ((4, b * (1 + k)), *[(1, b)] * (k - 1))
    )
    heads = k * 2 * (hidden * vocab + b * (hidden + vocab))
    assert float(np.ravel(ledger["draft"])[0]) == pytest.approx(first + (k - 1) * later + (folds + heads) / BANDWIDTH)


def test_a_replica_that_never_drafts_is_the_plain_one() -> None:
    (plain,) = drafting("ngram", tokens=0).replicas(TARGET)
    assert plain == TARGET
    batches = np.array([1.0, 64.0, 512.0])
    assert np.array_equal(
        decode_seconds(plain, one(1), batches, LENGTHS_OF),
        iteration_seconds(TARGET, one(1), Work(batches, LENGTHS_OF.decode_context)),
    )


@pytest.mark.parametrize("method", ["ngram", "eagle"])
def test_a_draft_that_is_never_accepted_only_costs(method: str) -> None:
    for n in LENGTHS:
        worse = speculating(TARGET, method, n, 0.0)
        assert decode_seconds(worse, one(1), 8.0, LENGTHS_OF) > decode_seconds(TARGET, one(1), 8.0, LENGTHS_OF)


def test_drafting_pays_alone_and_hurts_under_load() -> None:
    # Short contexts: at 1,000 requests the matrices are bound by arithmetic, and each rejected token costs its share.
    short, batches = Lengths(64.0, 32.0), np.array([1.0, 64.0, 1000.0])
    choices = list(drafting("eagle", (0.5,)).replicas(TARGET))
    table = np.stack([decode_seconds(kind, one(1), batches, short) for kind in choices])
    best = [choices[i].verified - 1 for i in table.argmin(axis=0)]
    assert best[0] >= 2 and best[0] >= best[1] >= best[2] and best[2] == 0


@given(st.floats(0.1, 0.9), st.floats(0.01, 0.09))
def test_more_acceptance_is_never_slower(rate: float, more: float) -> None:
    low, high = (speculating(TARGET, "eagle", 3, a) for a in (rate, rate + more))
    assert decode_seconds(high, one(1), 16.0, LENGTHS_OF) < decode_seconds(low, one(1), 16.0, LENGTHS_OF)


def test_a_draft_holds_its_layers_tables_and_cache() -> None:
    kind, small = by_memory(tiny(4)), tiny(2, id="small")
    plain, both = (memory(r, one(1), LENGTHS_OF) for r in (kind, speculating(kind, "draft", 2, model=small)))
    # two layers of 12,288 + 24,576 weights, embedding and head of 16,384 each, all in bf16
    assert both.weights - plain.weights == pytest.approx(2 * (2 * 36_864 + 2 * 16_384))
    assert both.request / plain.request == pytest.approx(6 / 4)
    assert memory(speculating(kind, "ngram", 2), one(1), LENGTHS_OF).weights == plain.weights


def test_prediction_layers_of_a_model_are_its_draft_without_tables_of_their_own() -> None:
    model = load_model("deepseek-ai/DeepSeek-V3")
    kind = replica(model, "h200-sxm", weights="fp8")
    how = drafting("auto").speculation(kind, 1)
    assert how.method == "mtp" and how.draft is not None and len(how.draft.model.layers) == 1
    layout = one(8, 1, 1, 8)
    added = held(replace(kind, speculation=how), layout) - held(kind, layout)
    # the published layer has 11.5e9 weights beside its tables (14B with them), about 1/8 of it on each of 8 GPUs
    assert 1.3e9 < added < 1.9e9
    with pytest.raises(InputError, match="no multi-token-prediction"):
        prediction_layer(load_model("meta-llama/Llama-3.1-8B"))


def test_auto_looks_up_prompts_where_a_model_brings_no_draft() -> None:
    assert drafting("auto").speculation(TARGET, 2).method == "ngram"


def test_an_eagle_head_is_one_dense_layer_of_its_target() -> None:
    head = eagle_head(load_model("meta-llama/Llama-3.1-8B"))
    assert len(head.layers) == 1 and head.hidden == 4096 and head.vocab == 32_000
    # the published head of this model has 0.4e9 weights with its fold and table
    how = drafting("eagle").speculation(TARGET, 1)
    assert 0.7e9 < held(replace(TARGET, speculation=how), one(1)) - held(TARGET, one(1)) < 1.0e9  # bytes, bf16


def test_prompts_still_cost_their_prefill_and_arrive_over_fewer_iterations() -> None:
    fast = steps(speculating(TARGET, "ngram", 3), one(1), 32.0, LENGTHS_OF)
    plain = steps(TARGET, one(1), 32.0, LENGTHS_OF)
    assert fast.iteration > plain.iteration and fast.decode < plain.decode
    assert float(fast.prefill[0]) == pytest.approx(float(plain.prefill[0]), rel=0.1)


@pytest.mark.parametrize("method", ["mtp", "eagle", "ngram", "draft"])
def test_defaults_lie_in_their_band_and_name_a_source(method: str) -> None:
    known = default_acceptance(method)  # type: ignore[arg-type]
    assert known.low is not None and known.high is not None and len(known.source) > 20
    assert known.low <= min(known.rates) <= max(known.rates) <= known.high
    low, high = known.span(3)
    assert low < 1 < high
    assert Acceptance(known.rates).span(3) == (1.0, 1.0)  # rates that the user gave have no band


def test_rates_and_lengths_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match="acceptance"):
        Acceptance((1.2,))
    with pytest.raises(ValueError, match="at least one"):
        Speculation("ngram", 0, Acceptance((0.5,)))
