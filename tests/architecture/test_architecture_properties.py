"""What must hold for any model: more of anything never counts for less, windows cap, files give back what was
written."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.architecture.demand import attention_core_flops, ffn_flops, kv_bytes_read, linear_flops
from planner.architecture.distill import distill, restore
from planner.architecture.model import (
    Attention,
    Checkpoint,
    DenseFfn,
    Ffn,
    LatentAttention,
    Layer,
    Mamba,
    Mixer,
    Model,
    MoeFfn,
    Part,
    SparseIndexer,
)
from planner.architecture.parameters import active_parameters, parameters_by_part, total_parameters
from planner.architecture.state import kv_bytes, kv_bytes_per_token, state_bytes

sizes = st.integers(1, 300)
small = st.integers(0, 9)


@st.composite
def attentions(draw: st.DrawFn) -> Attention:
    kv_heads = draw(st.integers(1, 8))
    return Attention(
        heads=kv_heads * draw(st.integers(1, 8)),
        kv_heads=kv_heads,
        head_dim=draw(sizes),
        value_dim=draw(sizes),
        window=draw(st.none() | sizes),
        query_bias=draw(st.booleans()),
        output_gate=draw(st.booleans()),
        query_rank=draw(small),
        reuses_cache=draw(st.booleans()),
    )


@st.composite
def latents(draw: st.DrawFn) -> LatentAttention:
    indexer = draw(st.none() | st.builds(SparseIndexer, sizes, sizes, sizes, shared=st.booleans()))
    width = [draw(sizes) for _ in range(4)]
    return LatentAttention(draw(sizes), draw(small), *width, indexer=indexer)


mixers: st.SearchStrategy[Mixer] = attentions() | latents() | st.builds(Mamba, sizes, sizes, sizes, small, small)
ffns: st.SearchStrategy[Ffn] = st.builds(DenseFfn, sizes, gated=st.booleans(), bias=st.booleans()) | st.builds(
    MoeFfn, st.integers(8, 64), st.integers(1, 8), sizes, shared_width=small, router_bias=st.booleans(), latent=small
)
layers = st.builds(Layer, st.none() | mixers, st.none() | ffns, small_parameters=small)
names = st.text(min_size=1, max_size=12)
checkpoints = st.sampled_from([Checkpoint(), Checkpoint("fp8", ((Part.FFN, "fp8"),), "fp8")])


@st.composite
def models(draw: st.DrawFn) -> Model:
    kinds = draw(st.lists(layers, min_size=1, max_size=3))
    order = draw(st.lists(st.sampled_from(kinds), min_size=1, max_size=20))
    return Model(
        id=draw(names),
        architecture=draw(names),
        hidden=draw(sizes),
        vocab=draw(sizes),
        layers=tuple(order),
        tied_embeddings=draw(st.booleans()),
        positions=draw(small),
        extra_parameters=draw(small),
        mtp_layers=tuple(draw(st.lists(st.sampled_from(kinds), max_size=2))),
        max_context=draw(st.none() | sizes),
        checkpoint=draw(checkpoints),
        aliases=tuple(draw(st.lists(names, max_size=2))),
        source=draw(st.text(max_size=20)),
    )


@given(models())
@settings(max_examples=150, deadline=None)
def test_a_model_file_gives_back_the_model_that_was_written(model: Model) -> None:
    assert restore(distill(model)) == model


@given(models(), layers)
@settings(deadline=None)
def test_another_layer_never_takes_anything_away(model: Model, layer: Layer) -> None:
    more = replace(model, layers=(*model.layers, layer))
    for measure in (total_parameters, active_parameters, kv_bytes_per_token, state_bytes, linear_flops, ffn_flops):
        assert measure(more) >= measure(model)


@given(models())
@settings(deadline=None)
def test_parts_add_up_and_a_token_never_uses_more_than_there_is(model: Model) -> None:
    assert 0 < active_parameters(model) <= total_parameters(model)
    assert sum(parameters_by_part(model).values()) <= total_parameters(model)
    assert set(parameters_by_part(model)) == set(Part)


@given(models(), st.lists(st.integers(0, 100_000), min_size=2, max_size=6))
@settings(deadline=None)
def test_cache_and_work_grow_with_context_and_arrays_equal_single_numbers(model: Model, contexts: list[int]) -> None:
    ordered = np.sort(np.array(contexts, dtype=float))
    for measure in (kv_bytes, attention_core_flops, kv_bytes_read):
        values = measure(model, ordered)
        assert np.all(np.diff(values) >= 0)
        assert [float(measure(model, float(context))) for context in ordered] == list(values)


@given(models(), st.integers(1, 100_000))
@settings(deadline=None)
def test_a_window_only_ever_caps(model: Model, context: int) -> None:
    def opened(layer: Layer) -> Layer:
        mixer = layer.mixer
        return replace(layer, mixer=replace(mixer, window=None)) if isinstance(mixer, Attention) else layer

    whole = replace(model, layers=tuple(opened(layer) for layer in model.layers))
    assert kv_bytes(model, context) <= kv_bytes(whole, context)
    assert kv_bytes_read(model, context) <= kv_bytes_read(whole, context)
