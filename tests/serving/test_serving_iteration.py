"""Time of one iteration: closed forms with ideal efficiencies, and what holds for any constants."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from planner_cases import ATTENTION, MOE, gpu, ideal_efficiency, one, plain_engine, replica, tiny

from planner.architecture.parameters import active_parameters
from planner.cost.moe import loaded_rank
from planner.serving.iteration import Work, iteration_ledger, iteration_seconds
from planner.serving.layout import Layout, Layouts
from planner.serving.memory import weight_bytes_per_gpu

DENSE, ROUTED = "llama-3.1-8b", "qwen/qwen3-30b-a3b"
BANDWIDTH = 1e9


def bound_by_memory(model: object) -> object:
    """A GPU whose arithmetic and links cost nothing, and an engine without overheads."""
    device = gpu(
        memory_bandwidth=BANDWIDTH,
        flops={"bf16": 1e30, "fp8": 1e30},
        power=0.0,
        compute_units=1,
    )
    return replica(model, device, efficiency=ideal_efficiency(), engine=plain_engine())  # type: ignore[arg-type]


def test_a_decode_iteration_bound_by_memory_takes_the_time_of_its_bytes() -> None:
    b, context = 3, 100
    seconds = iteration_ledger(bound_by_memory(tiny(2)), one(1), Work(sequences=b, context=context)).seconds
    bytes_of = {name: float(value[0]) * BANDWIDTH for name, value in seconds.items()}
    # weights are read once; every product reads its inputs and writes its outputs, 2 bytes each; 2 layers
    qkv, out = 64 * 128, 64 * 64  # q, k and v as one product of 64 + 32 + 32 outputs
    assert bytes_of["attention linears"] == pytest.approx(2 * 2 * (qkv + out + b * (64 + 128) + b * (64 + 64)))
    assert bytes_of["ffn"] == pytest.approx(2 * 2 * (64 * 256 + 128 * 64 + b * (64 + 256) + b * (128 + 64)))
    # keys and values of 2 KV heads x 32 elements per token; the query and the output of 4 heads x 16
    assert bytes_of["attention decode"] == pytest.approx(2 * (b * context * 2 * 32 * 2 + b * 4 * 32 * 2))
    assert bytes_of["lm head"] == pytest.approx(2 * (64 * 256 + b * (64 + 256)))
    # each half of a layer reads and writes the residual stream and its normalised copy; queries of 4 x 16 are rotated
    # in place, 2 x 32 elements of keys and values read and cached; gate and up of 128 read, their product written
    activations = 2 * 2 * 4 * 16 + (2 + 2) * 2 * 32 + 2 * 3 * 128
    assert bytes_of["norms"] == pytest.approx(2 * b * (2 * 4 * 2 * 64 + activations))
    assert sum(bytes_of.values()) == pytest.approx(
        float(sum(bytes_of[n] for n in ("attention linears", "ffn", "attention decode", "lm head", "norms")))
    )


def test_expert_weights_are_read_for_the_experts_that_tokens_reach() -> None:
    kind = bound_by_memory(tiny(ffn=MOE))
    for tokens in (1, 4, 1000):
        ledger = iteration_ledger(kind, one(1), Work(sequences=tokens, context=1))  # type: ignore[arg-type]
        reached = 8 * (1 - (1 - 2 / 8) ** tokens)  # 2 of 8 experts per token, drawn independently
        weights = reached * 3 * 64 * 32 * 2
        rows = 2 * tokens * (32 * 2 * 3 + 64 * 2 * 2)  # inputs, gate and up, product, outputs of every routed row
        assert float(ledger.seconds["experts"][0]) * BANDWIDTH == pytest.approx(weights + rows, rel=1e-9)


def test_experts_work_on_the_tokens_of_all_attention_ranks() -> None:
    kind = bound_by_memory(tiny(ffn=MOE))
    alone = iteration_ledger(kind, one(1, 4, 1, 1), Work(sequences=3, context=1)).seconds["experts"]
    # ep 4: each rank has 2 of 8 experts; the most loaded one waits for more than a quarter of the 2 x 12 routed rows
    spread = iteration_ledger(kind, one(1, 4, 1, 4), Work(sequences=3, context=1)).seconds["experts"]
    reached = 8 * (1 - (1 - 2 / 8) ** 12)
    rows, busy = loaded_rank(8, 2, 12, 4)
    loaded = busy * 3 * 64 * 32 * 2 + rows * (32 * 2 * 3 + 64 * 2 * 2)
    assert float(spread[0]) * BANDWIDTH == pytest.approx(float(loaded))
    assert reached / 4 < busy <= 2 and 2 * 12 / 4 < rows < 2 * 12
    cut = reached * 3 * 64 * 8 * 2 + 2 * 12 * (8 * 2 * 3 + 64 * 2 * 2)  # ep 1: experts of width 32 cut over 4 ranks
    assert float(alone[0]) * BANDWIDTH == pytest.approx(cut)


def test_only_tokens_that_are_sampled_pass_the_head() -> None:
    work = Work(sequences=3, context=10, chunk=500, prompts=2)
    seconds = iteration_ledger(bound_by_memory(tiny()), one(1), work).seconds["lm head"]
    # 3 decodes and 2 prompts, whatever the length of their chunks
    assert float(seconds[0]) * BANDWIDTH == pytest.approx(2 * (64 * 256 + 5 * (64 + 256)))


def test_stages_pass_on_the_hidden_states_of_their_tokens() -> None:
    kind = bound_by_memory(tiny(4))
    few, many = (
        float(iteration_ledger(kind, one(tp, 1, 4), Work(sequences=10**6, context=1)).seconds["pipeline"][0])
        for tp in (2, 1)
    )
    link = kind.accelerator.scale_up.pair_bandwidth
    assert many == pytest.approx(3 * 10**6 * 64 * 2 / link, rel=1e-6)  # 3 hops of 64 elements in 2 bytes per token
    assert few == pytest.approx(many / 2, rel=1e-6)  # tensor-parallel ranks send in parallel


def test_layers_gaps_and_host_time_add_up() -> None:
    engine = plain_engine(step=2e-3, sequence=1e-5, layer_gap=3e-5)
    times = {}
    for layers in (1, 2, 6):
        kind = replica(tiny(layers), engine=engine)
        times[layers] = float(iteration_seconds(kind, one(1), Work(sequences=10, context=100))[0])
    assert times[6] - times[2] == pytest.approx(4 * (times[2] - times[1]))  # linear in layers
    ledger = iteration_ledger(replica(tiny(6), engine=engine), one(1), Work(sequences=10, context=100))
    assert float(ledger.seconds["host"][0]) == pytest.approx(2e-3 + 10 * 1e-5)
    assert float(ledger.seconds["kernel gaps"][0]) == pytest.approx(6 * 3e-5)


@pytest.mark.parametrize("name", [DENSE, ROUTED, "deepseek-ai/deepseek-v3"])
@pytest.mark.parametrize("layout", [(1,), (8,), (4, 1, 2)])
def test_no_iteration_beats_the_datasheet(name: str, layout: tuple[int, ...]) -> None:
    """Physics: a prefill needs 2 FLOPs per active weight and token, a dense decode reads all its weights."""
    kind, split = replica(name), one(*layout)
    gpus = float(split.tp[0])  # stages work one after the other on a token
    embedding = kind.model.vocab * kind.model.hidden
    active = active_parameters(kind.model) - 2 * embedding
    least = 2 * active * 8192 / (kind.accelerator.flops["bf16"] * gpus)
    prefill = float(iteration_seconds(kind, split, Work(chunk=8192))[0])
    assert prefill > least
    if not kind.has_experts:
        read = float(weight_bytes_per_gpu(kind, split)[0]) - 2 * embedding / gpus * 2
        decode = float(iteration_seconds(kind, split, Work(sequences=1, context=1))[0])
        assert decode > read / kind.accelerator.memory_bandwidth
    if name == DENSE and gpus == 1:
        assert prefill < 3 * least  # big matrices on one GPU reach a third of the peak on any tuned library


def test_tensor_parallelism_of_one_has_no_all_reduce_even_beside_wider_layouts() -> None:
    work = Work(sequences=8, context=500, chunk=100)
    for name in (DENSE, ROUTED):
        kind = replica(name)
        alone = iteration_ledger(kind, one(1), work).seconds
        assert float(np.sum(alone.get("all-reduce", 0.0))) == 0.0
        together = iteration_ledger(kind, Layouts.of([Layout(1), Layout(2), Layout(8)], column=False), work).seconds
        assert together["all-reduce"][0] == 0.0
        assert together["all-reduce"][1] > 0


def test_messages_appear_only_with_the_split_that_sends_them() -> None:
    work = Work(sequences=8, context=500)
    seconds = iteration_ledger(replica(ROUTED), one(1, 4, 1, 4), work).seconds
    assert float(np.sum(seconds.get("all-reduce", 0.0))) == 0.0
    assert float(seconds["expert dispatch"][0]) > 0
    assert "pipeline" not in seconds
    staged = iteration_ledger(replica(DENSE), one(1, 1, 4), work).seconds
    assert float(staged["pipeline"][0]) > 0
    assert "expert dispatch" not in staged
    # the same four ranks as tensor parallelism: all-reduces, and no dispatch
    cut = iteration_ledger(replica(ROUTED), one(4), work).seconds
    assert "expert dispatch" not in cut and float(cut["all-reduce"][0]) > 0


def test_whole_layers_make_an_uneven_pipeline_as_slow_as_its_fullest_stage() -> None:
    work = Work(sequences=4, context=100)
    even = iteration_ledger(replica(tiny(4), engine=plain_engine()), one(1, 1, 2), work).seconds
    uneven = iteration_ledger(replica(tiny(3), engine=plain_engine()), one(1, 1, 2), work).seconds
    assert float(uneven["ffn"][0]) == pytest.approx(float(even["ffn"][0]))  # 2 layers in the fullest stage of both


def test_many_points_at_once_give_what_each_gives_alone() -> None:
    kind = replica(ROUTED, weights="fp8")
    layouts = [Layout(1), Layout(2, 1, 2), Layout(1, 4, 1, 4), Layout(4, 2, 1, 8), Layout(8, 1, 1, 8)]
    batches = np.array([0.5, 1.0, 7.0, 300.0])
    table = iteration_seconds(kind, Layouts.of(layouts), Work(sequences=batches[None, :], context=800, chunk=64))
    for row, layout in enumerate(layouts):
        for column, batch in enumerate(batches):
            alone = iteration_seconds(
                kind, Layouts.of([layout], column=False), Work(sequences=batch, context=800, chunk=64)
            )
            assert table[row, column] == pytest.approx(float(alone[0]), rel=1e-12), (layout, batch)


def test_a_window_caps_the_time_of_attention() -> None:
    windowed = replica(tiny(1, replace(ATTENTION, window=128)))
    inside, beyond = (
        iteration_ledger(windowed, one(1), Work(sequences=64, context=c)).seconds["attention decode"]
        for c in (128, 9000)
    )
    assert float(inside[0]) == float(beyond[0])


layouts = st.sampled_from([(1,), (2,), (8,), (2, 1, 2), (1, 4, 1, 4), (4, 2, 1, 8), (1, 1, 3), (16,)])
models = st.sampled_from([DENSE, ROUTED, "deepseek-ai/deepseek-v3", "google/gemma-3-27b-it", "openai/gpt-oss-120b"])


def seconds(kind: object, layout: tuple[int, ...], **work: float) -> float:
    return float(iteration_seconds(kind, one(*layout), Work(**work))[0])  # type: ignore[arg-type]


@given(
    name=models,
    layout=layouts,
    batch=st.floats(0.1, 2000),
    context=st.floats(1, 2e5),
    chunk=st.floats(0, 16384),
    prefix=st.floats(0, 1e5),
    more=st.floats(1.0, 4.0),
)
def test_time_is_monotone_in_every_kind_of_work(
    name: str, layout: tuple[int, ...], batch: float, context: float, chunk: float, prefix: float, more: float
) -> None:
    kind = replica(name)
    work = {"sequences": batch, "context": context, "chunk": chunk, "prefix": prefix}
    base = seconds(kind, layout, **work)
    assert np.isfinite(base) and base > 0
    for key in work:
        grown = seconds(kind, layout, **{**work, key: work[key] * more})
        assert grown >= base * (1 - 1e-9), key


@given(
    name=models,
    layout=layouts,
    batch=st.floats(0.1, 2000),
    context=st.floats(1, 1e5),
    chunk=st.floats(0, 8192),
    weights=st.sampled_from(["bf16", "fp8", "int4"]),
    device=st.sampled_from(["h100-sxm", "mi300x", "l40s", "a100-sxm-80gb"]),
    more=st.floats(1.0, 5.0),
)
def test_better_hardware_is_never_slower(
    name: str,
    layout: tuple[int, ...],
    batch: float,
    context: float,
    chunk: float,
    weights: str,
    device: str,
    more: float,
) -> None:
    kind = replica(name, device, weights=weights)
    here, link = kind.accelerator, kind.accelerator.scale_up
    work = {"sequences": batch, "context": context, "chunk": chunk}
    base = seconds(kind, layout, **work)
    better = {
        "memory bandwidth": replace(here, memory_bandwidth=here.memory_bandwidth * more),
        "FLOP/s": replace(here, flops={k: v * more for k, v in here.flops.items()}),
        "memory": replace(here, memory=here.memory * more),
        "scale-up": replace(
            here, scale_up=replace(link, bandwidth=link.bandwidth * more, pair_bandwidth=link.pair_bandwidth * more)
        ),
        "network": replace(here, network_bandwidth=here.network_bandwidth * more),
        "latency": replace(here, scale_up=replace(link, latency=link.latency / more)),
    }
    for what, device_ in better.items():
        assert seconds(kind.on(device_, kind.efficiency), layout, **work) <= base * (1 + 1e-9), what


def test_ranks_wait_for_the_last_of_them_in_every_collective() -> None:
    model = tiny(2)
    kinds = [replica(model, gpu(), engine=plain_engine(collective_wait=wait)) for wait in (0.0, 1e-3)]
    for tp, doublings in ((1, 0), (2, 1), (4, 2)):
        before, after = (
            float(np.ravel(iteration_ledger(kind, one(tp), Work(sequences=1, context=1)).total)[0]) for kind in kinds
        )
        # two collectives in each of two layers
        assert after - before == pytest.approx(4 * doublings * 1e-3)


def test_iterations_that_carry_prompts_take_longer_than_their_kernels() -> None:
    plain, ragged = (replica(tiny(2), gpu(), engine=plain_engine(chunk_slowdown=x)) for x in (1.0, 1.1))
    for work, factor in ((Work(sequences=4, context=9), 1.0), (Work(sequences=4, context=9, chunk=64), 1.1)):
        seconds = [float(np.ravel(iteration_ledger(kind, one(1), work).total)[0]) for kind in (plain, ragged)]
        assert seconds[1] == pytest.approx(factor * seconds[0])
