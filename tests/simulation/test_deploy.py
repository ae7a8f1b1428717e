"""What the simulation runs is the costed replica: its iteration times, its memory, its engine's rules."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from planner_cases import gpu, one, plain_engine, replica, tiny

from planner.cost.collective import point_to_point_seconds
from planner.serving.engine import load_engine
from planner.serving.iteration import Work, iteration_seconds
from planner.serving.layout import Layout
from planner.serving.lengths import Lengths
from planner.serving.memory import memory
from planner.serving.prefill import prefill_times
from planner.simulation.deploy import Served, deployment, pool, step_model
from planner.simulation.deploy_split import split_deployment, transfer_of
from planner.simulation.metrics import summarize
from planner.simulation.settings import Deployment, Policy, Routing
from planner.simulation.simulator import simulate
from planner.simulation.streams import ClosedLoop, EvenPoisson, Fixed, OpenStream

LLAMA = "meta-llama/Llama-3.1-8B"


def served(model: str = LLAMA, *layout: int, isl: float = 1000, osl: float = 200, **changes: object) -> Served:
    return Served(replica(model), Layout(*(layout or (1,))), 1, Lengths(isl, osl), **changes)  # type: ignore[arg-type]


def seconds(case: Served, prefilling: float = 1.0, **work: float) -> float:
    layout = case.layout
    columns = one(layout.tp, layout.attention_dp, layout.pp, layout.ep)
    return float(np.ravel(iteration_seconds(case.replica, columns, Work(prefilling=prefilling, **work)))[0])


@pytest.mark.parametrize("layout", [(1,), (2,), (1, 1, 2)])
@pytest.mark.parametrize("sequences", [1, 3, 128])
@pytest.mark.parametrize("context", [1, 512, 2048])
def test_a_decode_step_takes_what_the_cost_model_says(layout, sequences, context):
    """Batches and contexts that are knots of the table (two and one to an octave): no interpolation error."""
    case = served(LLAMA, *layout)
    exact = seconds(case, sequences=sequences, context=context)
    assert step_model(case).decode_steps(sequences)(sequences * context) == pytest.approx(exact, rel=2e-3)


def test_between_the_knots_a_decode_step_is_off_by_a_thousandth():
    case = served()
    for sequences, context in ((5, 700), (100, 1500), (77, 300)):
        found = step_model(case).decode_steps(sequences)(sequences * context)
        assert found == pytest.approx(seconds(case, sequences=sequences, context=context), rel=1e-3)


@pytest.mark.parametrize("chunk", [1, 256, 2048, 8192])
@pytest.mark.parametrize("prefix", [0, 64, 512])
def test_a_prefill_step_takes_what_the_cost_model_says(chunk, prefix):
    """Chunks and prefixes on the grid; the pairs of a chunk behind a prefix are c*s + c(c+1)/2."""
    case = served()
    pairs = chunk * prefix + chunk * (chunk + 1) / 2
    exact = seconds(case, chunk=chunk, prefix=prefix)
    assert step_model(case).mixed(0, 0.0, chunk, pairs) == pytest.approx(exact, rel=1e-9)


def test_a_mixed_step_is_the_cost_models_to_a_few_percent():
    """Decodes and chunk are tabulated with one token of context, the rest is added: not exact, but close."""
    case = served()
    for sequences, context, chunk in ((64, 1024, 512), (128, 512, 2048), (8, 4096, 1024)):
        exact = seconds(case, sequences=sequences, context=context, chunk=chunk)
        found = step_model(case).mixed(sequences, sequences * context, chunk, chunk * (chunk + 1) / 2)
        assert found == pytest.approx(exact, rel=0.05)


def test_ranks_that_prefill_together_slow_each_other_down_as_in_the_cost_model():
    case = served("deepseek-ai/DeepSeek-R1", 1, 8, 1, 8)
    steps = step_model(case)
    found = [steps.mixed(0, 0.0, 2048, 2048 * 2049 / 2, carrying) for carrying in (1, 4, 8)]
    exact = [seconds(case, carrying, chunk=2048) for carrying in (1, 4, 8)]
    assert [found[0], found[2]] == pytest.approx([exact[0], exact[2]], rel=1e-9)
    assert found[1] == pytest.approx(exact[1], rel=0.06)
    assert exact[0] < exact[1] < exact[2]


def test_a_prompt_beside_idle_ranks_is_as_fast_as_the_first_of_many_and_each_further_one_slows_all() -> None:
    """One replica of eight attention ranks, prompts that arrive at once: the simulation prices those that there are."""
    case = served("qwen/qwen3-30b-a3b", 1, 8, 1, 8, isl=2048, osl=1)
    for prompts in (1, 8):
        run = simulate(deployment(case, 0.0), ClosedLoop(prompts, Fixed(2048), Fixed(1), prompts))
        spent = summarize(run, warm_up=0.0).ttft.mean - deployment(case, 0.0).serve.offset
        assert spent == pytest.approx(seconds(case, prompts, chunk=2048), rel=0.01)


@pytest.mark.parametrize("grows", [True, False])
def test_kv_tokens_are_the_room_over_the_bytes_of_a_token(grows):
    """The tiny model keeps 2 (K, V) x 2 heads x 16 x 2 bytes = 128 bytes a token, whatever the lengths."""
    small = replica(tiny(), engine=plain_engine(grows=grows))
    lengths = Lengths(60, 70)  # a mean context of 95 and a whole of 130 tokens: no whole blocks, which must not matter
    room = float(memory(small, one(1), lengths).room.ravel()[0])
    found = step_model(Served(small, Layout(1), 1, lengths)).kv_tokens
    assert found == pytest.approx(room / 128, abs=2)
    assert step_model(Served(small, Layout(1), 1, Lengths(501, 33))).kv_tokens == pytest.approx(found, rel=1e-6)


def test_sliding_windows_let_more_tokens_of_long_requests_fit():
    """Half the layers of gpt-oss keep 128 tokens: the longer a request, the fewer bytes a token costs."""
    short, long = (step_model(served("openai/gpt-oss-20b", isl=isl, osl=10)).kv_tokens for isl in (91, 8027))
    # Contexts of 96 and 8032 tokens: of 8032, half the layers keep all and half 128, so 8032 * 2 / (8032 + 128).
    assert long / short == pytest.approx(8032 * 2 / (8032 + 128), rel=0.01)


@pytest.mark.parametrize(
    ("name", "policy"),
    [("vllm", Policy.VLLM), ("sglang", Policy.SGLANG), ("trtllm", Policy.TRTLLM_NO_EVICT)],
)
def test_the_engine_decides_the_rules(name, policy):
    engine = load_engine(name)
    case = replace(served(), replica=replica(LLAMA, engine=engine), replicas=3)
    pool = deployment(case, tpot=0.02).serve
    assert (pool.engine.policy, pool.replicas) == (policy, 3)
    assert (pool.engine.token_budget, pool.engine.block_tokens) == (engine.chunk_tokens, engine.block_tokens)
    assert pool.steps.max_sequences == engine.max_sequences
    assert (pool.engine.prefix_cache, pool.routing) == (False, Routing.LEAST_LOADED)
    # Before the client sees its first token, the engine's front end and some decode iterations pass.
    # What it waits there for the scheduler to look at its queue is simulated.
    assert pool.offset == pytest.approx(engine.offset + engine.decode_steps * 0.02)
    assert pool.engine.receive_interval == engine.receive_interval
    assert pool.look_wait == pytest.approx(0.5 * (engine.receive_interval - 1) * 0.02)


@pytest.mark.parametrize("name", ["vllm", "sglang", "trtllm"])
@pytest.mark.parametrize("hash_tokens", [16, 512])
def test_hash_ids_of_a_trace_turn_the_prefix_cache_on(name, hash_tokens):
    """16 tokens per id in Bailian traces, 512 in Mooncake's: both are whole blocks of every engine."""
    case = replace(served(), replica=replica(LLAMA, engine=load_engine(name)))
    pool = deployment(case, tpot=0.02, hash_tokens=hash_tokens).serve
    assert (pool.engine.prefix_cache, pool.engine.hash_tokens) == (True, hash_tokens)
    assert pool.routing is Routing.PREFIX_AWARE


def test_attention_ranks_and_stages_reach_the_pool():
    pool = deployment(served("deepseek-ai/DeepSeek-R1", 1, 8, 1, 8), tpot=0.02).serve
    assert (pool.attention_dp, pool.stages) == (8, 1)
    assert deployment(served(LLAMA, 1, 1, 2), tpot=0.02).serve.stages == 2


def test_a_part_of_a_split_plan_sends_its_caches_as_the_whole_plan_does():
    # Two GPUs would share a domain of eight; twelve and twelve do not.
    alone, part = (
        transfer_of(*(replace(served(), planned=count) for _ in range(2)))(4000).egress for count in (None, 12)
    )
    near, far = (point_to_point_seconds(4000 * 131_072, across=across, **links()) for across in (False, True))
    assert (alone, part) == (pytest.approx(float(near), rel=0.01), pytest.approx(float(far), rel=0.01))


def links() -> dict[str, Any]:
    case = replica(LLAMA)
    return {"topology": case.topology, "efficiency": case.efficiency}


def test_a_prefill_pool_takes_as_many_tokens_an_iteration_as_the_cost_model_says() -> None:
    case = replica(LLAMA)
    sides = [Served(case, Layout(1), 1, Lengths(15000.0, out), planned=1) for out in (1.0, 50.0)]
    split = split_deployment(*sides, 0.01)
    assert split.prefill is not None
    assert split.prefill.engine.token_budget == case.engine.prompt_tokens == 2 * split.serve.engine.token_budget


def test_a_split_that_is_overloaded_behind_its_prefill_is_unstable():
    """The waits of a split lie in three places: before the prefill, for the links, and for a decode slot."""
    slow = replace(replica(LLAMA), accelerator=gpu("h100-sxm", network_bandwidth=4e9))
    lengths = Lengths(4000.0, 50.0)
    prompts = [Served(slow, Layout(1), 12, Lengths(4000.0, 1.0), planned=count) for count in (12, 1)]
    narrow = Served(slow, Layout(1), 3, lengths)  # 19 requests/s come in by its links
    few = Served(replica(LLAMA, engine=replace(load_engine("vllm"), max_sequences=1.0)), Layout(1), 3, lengths)
    verdicts = []
    for prefill, decode, rate in ((prompts[0], narrow, 12.0), (prompts[0], narrow, 30.0), (prompts[1], few, 30.0)):
        stream = OpenStream(EvenPoisson(rate), Fixed(4000), Fixed(50), 1500, seed=1)
        verdicts.append(summarize(simulate(split_deployment(prefill, decode, 0.01), stream)).stability.stable)
    assert verdicts == [True, False, False]


@pytest.mark.parametrize(("tokens", "tolerance"), [(100_000, 0.04), (30_000, 0.11)])
def test_a_full_prefill_pool_waits_for_the_rank_that_is_farthest_in_its_prompt(tokens: int, tolerance: float) -> None:
    """Prompts of seven and two chunks on four ranks that share experts: with every rank in the middle of its prompt the
    closed form would promise 19 and 12 % more than the overloaded pool serves."""
    kind, layout, lengths = replica("Qwen/Qwen3-30B-A3B"), Layout(1, 4, 1, 4), Lengths(float(tokens), 1.0)
    capacity = float(prefill_times(kind, one(*layout[:4]), lengths).capacity.item())
    worker = Served(kind.prefilling, layout, 1, lengths)
    stream = OpenStream(EvenPoisson(1.5 * capacity), Fixed(tokens), Fixed(1), 240, seed=1)
    records = simulate(Deployment(pool(worker, step_model(worker), 0.01, None)), stream, details=False).records
    ends = np.sort(np.array(records.arrival) + np.array(records.end_to_end))
    assert capacity == pytest.approx(120 / (ends[179] - ends[59]), rel=tolerance)
