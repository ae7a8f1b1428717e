"""Recipes by vendor, published 8-bit checkpoints, and the kernels that quantise for them."""

from dataclasses import replace

import numpy as np
import pytest

from planner.api import Catalogs
from planner.serving.aggregated import steps
from planner.serving.engine import load_engine
from planner.serving.iteration import iteration_ledger, iteration_seconds
from planner.serving.latency import first_token_overhead, handed_over_overhead
from planner.serving.layout import Layout, Layouts
from planner.serving.lengths import Lengths
from planner.serving.memory import memory
from planner.serving.prefill import prefill_times
from planner.serving.replica import Replica
from planner.serving.speculation import Acceptance, Speculation
from planner.serving.work import Work


def gaps(replica: Replica) -> float:
    ledger = iteration_ledger(replica, Layouts.of([Layout()], column=False), Work(np.array([8.0]), np.array([1000.0])))
    return float(ledger.seconds["kernel gaps"][0])


def test_a_recipe_of_a_vendor_is_left_again_on_other_gpus() -> None:
    engine = load_engine("sglang")
    assert engine.on("AMD").decode_steps < engine.decode_steps
    assert engine.on("AMD").on("NVIDIA").decode_steps == engine.decode_steps
    assert engine.on("AMD").receive_interval == 1.0 < engine.on("NVIDIA").receive_interval
    assert load_engine("vllm").on("AMD").decode_steps == load_engine("vllm").decode_steps


def test_what_departs_on_a_vendors_gpus_is_todays_software() -> None:
    today, old = load_engine("vllm"), load_engine("vllm", date="2024-03")
    assert today.on("AMD").layer_gap > today.layer_gap
    assert old.on("AMD").layer_gap == old.layer_gap > today.on("AMD").layer_gap
    assert old.on("AMD").exchange_start > old.exchange_start


def test_sglang_on_instinct_overlaps_two_batches_since_spring_2026() -> None:
    today, before = load_engine("sglang"), load_engine("sglang", date="2026-03-13")
    assert today.on("AMD").two_batch_overlap and not today.on("NVIDIA").two_batch_overlap
    assert not before.on("AMD").two_batch_overlap
    assert not load_engine("sglang", version="0.5.9").on("AMD").two_batch_overlap


def test_graphs_that_stop_for_an_exchange_overlap_nothing_while_no_prompt_runs() -> None:
    replica = Catalogs().replica("deepseek-ai/DeepSeek-R1", "mi355x", "fp4", "", "sglang")
    whole = replace(replica, engine=replace(replica.engine, exchange_in_graph=True))
    apart = replace(replica, engine=replace(replica.engine, two_batch_overlap=False))
    layouts = Layouts.of([Layout(attention_dp=8, ep=8)], column=False)
    decode, prompts = Work(np.array([500.0]), np.array([8000.0])), Work(chunk=8192.0, prompts=2.0, prefilling=8.0)
    seconds = [[float(iteration_seconds(r, layouts, w)[0]) for r in (whole, replica, apart)] for w in (decode, prompts)]
    assert seconds[0][0] < seconds[0][1] == seconds[0][2]
    assert seconds[1][0] == seconds[1][1] < 0.8 * seconds[1][2]


def test_buffers_of_the_exchange_bound_the_decode_batch_of_a_rank_that_sends_to_experts() -> None:
    replica = Catalogs().replica("deepseek-ai/DeepSeek-R1", "mi355x", "fp4", "", "sglang")
    bound = replace(replica, engine=replace(replica.engine, decode_tokens=160.0))
    drafting = replace(bound, speculation=Speculation("ngram", 3, Acceptance((0.5,))))
    lengths = Lengths(1000, 500)
    layouts = Layouts.of([Layout(attention_dp=8, ep=8), Layout(8), Layout(8, ep=8)], column=False)
    free, most, drafted = (memory(r, layouts, lengths).slots for r in (replica, bound, drafting))
    assert list(most) == [160, *free[1:]] and free[0] > 160
    assert drafted[0] == 40


def test_a_prefill_worker_takes_more_tokens_in_an_iteration_than_one_that_also_decodes() -> None:
    replica = Catalogs().replica("Qwen/Qwen3-32B", "b200-sxm", "fp8", "", "vllm")
    narrow = replace(replica, engine=replace(replica.engine, prompt_tokens=0.0))
    layouts = Layouts.of([Layout()], column=False)
    long, short = (prefill_times(r, layouts, Lengths(15000, 500)) for r in (replica, narrow))
    assert (long.chunks.item(), short.chunks.item()) == (1, 2)
    several, fewer = (prefill_times(r, layouts, Lengths(1000, 500)) for r in (replica, narrow))
    assert (several.together.item(), fewer.together.item()) == (16, 8)
    assert long.memory.activations > short.memory.activations


def test_fp8_is_the_checkpoint_that_the_maker_of_the_model_published() -> None:
    known = Catalogs()
    maths = {
        model: {f.math for f in known.replica(model, "h100-sxm", "fp8", "", "vllm").formats.values()}
        for model in ("Qwen/Qwen3-8B", "meta-llama/Llama-3.1-8B")
    }
    assert maths == {"Qwen/Qwen3-8B": {"bf16", "fp8_block"}, "meta-llama/Llama-3.1-8B": {"bf16", "fp8"}}


def test_prompts_that_came_between_two_looks_at_the_queue_are_prefilled_together() -> None:
    replica = Catalogs().replica("meta-llama/Llama-3.1-8B", "h200-sxm", "fp8", "", "sglang")
    at_once = replace(replica, engine=replace(replica.engine, receive_interval=1.0))
    layouts, lengths = Layouts.of([Layout(8)], column=False), Lengths(np.array([1000.0]), np.array([500.0]))
    rare, often = (steps(r, layouts, np.array([300.0]), lengths) for r in (replica, at_once))
    assert np.all(rare.prefill < often.prefill)
    assert np.all(rare.own_prefill > often.own_prefill)


def test_a_request_passes_the_queues_of_the_decode_worker_that_it_is_handed_to() -> None:
    engine, tpot = load_engine("sglang"), np.array([0.01])
    at_once = replace(engine, receive_interval=1.0)
    waited = handed_over_overhead(at_once, tpot) - first_token_overhead(at_once, tpot)
    assert waited == pytest.approx(engine.handover_steps * tpot)
    # An interval between two looks at the queue is a recipe for workers that compute prompts and decode.
    assert engine.receive_interval == 10.0
    assert handed_over_overhead(at_once, tpot) - handed_over_overhead(engine, tpot) == pytest.approx(4.5 * tpot)


def test_only_scales_of_blocks_need_a_kernel_of_their_own() -> None:
    known, work = Catalogs(), Work(np.array([64.0]), np.array([1000.0]))
    layouts = Layouts.of([Layout()], column=False)
    block, tensor = (
        known.replica(model, "h100-sxm", "fp8", "", "vllm") for model in ("Qwen/Qwen3-8B", "meta-llama/Llama-3.1-8B")
    )
    assert gaps(block) > gaps(replace(block, engine=replace(block.engine, quantise_gap=0.0)))
    ours = iteration_ledger(tensor, layouts, work)
    assert ours.seconds["kernel gaps"][0] == pytest.approx(32 * tensor.engine.layer_gap)


def test_a_dense_layer_quantises_the_inputs_of_its_four_products() -> None:
    replica = Catalogs().replica("Qwen/Qwen3-8B", "h100-sxm", "fp8", "", "vllm")
    none = replace(replica, engine=replace(replica.engine, quantise_gap=0.0))
    assert gaps(replica) - gaps(none) == pytest.approx(36 * 4 * replica.engine.quantise_gap)
