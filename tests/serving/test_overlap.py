"""Messages behind compute, and experts with redundant copies: the laws, and that nothing moves by default."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from planner_cases import MOE, one, replica, tiny

from planner.cost.moe import loaded_rank, replicated_evenness
from planner.job.tuning import Tuning
from planner.serving.engine import load_engine
from planner.serving.expert_load import rank_load
from planner.serving.iteration import Work, iteration_ledger, iteration_seconds
from planner.serving.lengths import Lengths
from planner.serving.memory import memory
from planner.serving.overlap import half_of, hide_all_reduces, two_batches
from planner.serving.replica import Replica
from planner.serving.work import Ledger

DENSE = replica("meta-llama/Llama-3.1-70B")
ROUTED = replica("deepseek-ai/DeepSeek-V3", "h200-sxm", weights="fp8")
WIDE = one(1, 16, 1, 16)


def tuned(kind: Replica, **values: object) -> Replica:
    return replace(kind, engine=kind.engine.tuned(Tuning(**values)))  # type: ignore[arg-type]


def ledger(**seconds: float) -> Ledger:
    made = Ledger()
    for name, value in seconds.items():
        made.add(name.replace("_", " "), np.array([value]))
    return made


def test_profiles_that_ship_hide_nothing_and_copy_nothing() -> None:
    for name in ("vllm", "sglang", "trtllm"):
        assert load_engine(name).tuning == Tuning()


def test_a_fused_product_hides_a_share_of_the_all_reduce_but_never_more_than_itself() -> None:
    much = ledger(ffn=3.0)
    much.add("all-reduce", np.array([2.0]))
    hide_all_reduces(much, 0.9)
    assert float(much.seconds["all-reduce"][0]) == pytest.approx(0.2)
    little = ledger(ffn=0.5)
    little.add("all-reduce", np.array([2.0]))
    hide_all_reduces(little, 0.9)
    assert float(little.seconds["all-reduce"][0]) == pytest.approx(1.5)


@given(st.floats(0, 1), st.floats(0, 1))
def test_more_overlap_is_never_slower_and_touches_the_all_reduce_alone(a: float, b: float) -> None:
    low, high = sorted((a, b))
    work = Work(sequences=32.0, context=1000.0, chunk=2000.0)
    first, second = (iteration_ledger(tuned(DENSE, communication_overlap=s), one(8), work) for s in (low, high))
    assert second.total <= first.total * (1 + 1e-12)
    plain = iteration_ledger(DENSE, one(8), work).seconds
    for name in ("attention linears", "ffn", "attention decode", "host"):
        assert first.seconds[name] == pytest.approx(plain[name])


def test_two_halves_take_the_longer_of_compute_and_messages_and_one_fill() -> None:
    plain = ledger(experts=10.0, expert_dispatch=8.0, host=1.0)
    half = ledger(experts=6.0, expert_dispatch=4.0, host=0.9)
    found = two_batches(plain, half, layers=4)
    # 2 * max(6, 4) + min(6, 4)/4 + host
    assert float(found.total[0]) == pytest.approx(12.0 + 1.0 + 1.0)
    half = ledger(experts=4.0, expert_dispatch=6.0, host=0.9)
    assert float(two_batches(plain, half, layers=4).total[0]) == pytest.approx(12.0 + 1.0 + 1.0)
    worse = ledger(experts=9.9, expert_dispatch=4.0, host=0.9)
    assert float(two_batches(plain, worse, layers=4).total[0]) == pytest.approx(19.0)


def test_halves_carry_all_tokens_and_all_pairs() -> None:
    work = Work(sequences=10.0, context=500.0, chunk=800.0, prefix=100.0, prompts=1.0)
    half = half_of(work)
    assert (float(half.sequences), float(half.chunk)) == (5.0, 400.0)  # type: ignore[arg-type]
    # pairs of a chunk c behind a prefix p: c*p + c^2/2, of two halves 2*(c/2*p' + (c/2)^2/2)
    assert 2 * (400 * float(half.prefix) + 400**2 / 2) == pytest.approx(800 * 100 + 800**2 / 2)  # type: ignore[arg-type]
    several = half_of(replace(work, prompts=4.0))
    assert (float(several.prompts), float(several.prefix)) == (2.0, 100.0)  # type: ignore[arg-type]


def test_two_batches_pay_for_many_tokens_and_are_left_alone_for_few() -> None:
    double = tuned(ROUTED, two_batch_overlap=True)
    few, many = Work(sequences=1.0, context=1000.0), Work(sequences=512.0, context=1000.0)
    assert iteration_seconds(double, WIDE, few) == pytest.approx(iteration_seconds(ROUTED, WIDE, few))
    assert iteration_seconds(double, WIDE, many) < 0.95 * iteration_seconds(ROUTED, WIDE, many)
    dense = tuned(DENSE, two_batch_overlap=True)
    assert iteration_seconds(dense, one(8), many) == pytest.approx(iteration_seconds(DENSE, one(8), many))


@given(st.integers(1, 64), st.sampled_from([0.5, 1.7, 10.0]))
def test_each_further_copy_evens_the_load(copies: int, evenness: float) -> None:
    values = [replicated_evenness(64, n, evenness) for n in (0, copies, 2 * copies)]
    assert values[0] == evenness and values[0] < values[1] < values[2]


def test_copies_lower_the_busiest_rank_and_cost_memory() -> None:
    ffn = next(layer.ffn for layer in ROUTED.model.layers if hasattr(layer.ffn, "experts"))
    tokens = np.array([8192.0])
    spare = tuned(ROUTED, redundant_experts=2)
    plain = loaded_rank(256.0, 8.0, tokens, 16.0, evenness=ROUTED.engine.evenness)[0]
    rows, _ = rank_load(spare.engine, ffn, tokens, WIDE)  # type: ignore[arg-type]
    assert rows is not None and tokens * 8 / 16 < rows < plain
    work = Work(sequences=512.0, context=1000.0, chunk=4096.0)
    experts = [iteration_ledger(kind, WIDE, work).seconds["experts"] for kind in (ROUTED, spare)]
    assert experts[1] < experts[0]
    held = [memory(kind, WIDE, Lengths(1000.0, 100.0)).weights for kind in (ROUTED, spare)]
    # 58 routed layers x 2 copies x 3 matrices of 7168 x 2048 at one byte and its scales
    assert float((held[1] - held[0])[0]) == pytest.approx(58 * 2 * 3 * 7168 * 2048, rel=0.01)


def test_copies_change_nothing_without_expert_parallelism() -> None:
    kind, work = replica(tiny(ffn=MOE)), Work(sequences=16.0, context=100.0)
    for layout in (one(1), one(2), one(1, 2)):
        spare = tuned(kind, redundant_experts=4)
        assert iteration_seconds(spare, layout, work) == pytest.approx(iteration_seconds(kind, layout, work))


def test_a_measured_imbalance_replaces_the_law_and_copies_lower_it() -> None:
    ffn = next(layer.ffn for layer in ROUTED.model.layers if hasattr(layer.ffn, "experts"))
    tokens = np.array([8192.0])
    mean = 8192 * 8 / 16
    rows, _ = rank_load(tuned(ROUTED, expert_imbalance=1.5).engine, ffn, tokens, WIDE)  # type: ignore[arg-type]
    assert rows is not None and float(rows[0]) == pytest.approx(1.5 * mean)
    both = tuned(ROUTED, expert_imbalance=1.5, redundant_experts=2).engine
    spread, _ = rank_load(both, ffn, tokens, WIDE)  # type: ignore[arg-type]
    assert spread is not None and mean < spread[0] < 1.5 * mean
