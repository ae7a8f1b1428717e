"""What one decoded token asks for, before any layout: FLOPs of matrices and of attention, bytes of cache
read.

A multiply-add is two FLOPs. Conventions follow Step-3 (arXiv 2507.19427, tables 2 and 3), against which the
tests
compare: the router is left out of feed-forward work, the shared expert is in, and latent attention is
absorbed.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from planner.architecture.linears import expert_linears, ffn_linears, mixer_linears
from planner.architecture.model import (
    Attention,
    LatentAttention,
    Layer,
    Linear,
    LinearAttention,
    Mamba,
    Model,
    MoeFfn,
    Part,
)
from planner.architecture.state import (
    attended_tokens,
    index_bytes_per_token,
    kv_elements_per_token,
    layer_state_bytes,
)
from planner.units import Flop

Array = NDArray[np.float64]

STATE_FLOPS_PER_ELEMENT: Final = 10.0
"""FLOPs per element of recurrent state and token: decay, update and read. Step-3 counts ten for
MiniMax-M1."""


def attention_linear_flops(model: Model) -> Flop:
    """Count the FLOPs of all mixer projections for one token: 2 * parameters, MLA up-projections absorbed."""
    return sum(g.count * _flops(mixer_linears(g.layer.mixer, model.hidden)) for g in model.groups)


def ffn_flops(model: Model) -> Flop:
    """Count the FLOPs of dense blocks, shared experts and the ``top_k`` routed experts; without the
    router."""
    total = 0.0
    for group in model.groups:
        ffn = group.layer.ffn
        used = ffn.top_k if isinstance(ffn, MoeFfn) else 0
        always = [linear for linear in ffn_linears(ffn, model.hidden) if linear.part is not Part.ROUTER]
        total += group.count * (_flops(tuple(always)) + used * _flops(expert_linears(ffn, model.hidden)))
    return total


def linear_flops(model: Model) -> Flop:
    """Count the FLOPs of all weight matrices for one token, router and LM head included."""
    router = sum(
        g.count
        * _flops(tuple(linear for linear in ffn_linears(g.layer.ffn, model.hidden) if linear.part is Part.ROUTER))
        for g in model.groups
    )
    head = 2.0 * model.vocab * model.hidden
    return attention_linear_flops(model) + ffn_flops(model) + router + head


def attention_core_flops(model: Model, context: ArrayLike, *, latent_values_with_rope: bool = False) -> Array:
    """Count the FLOPs of scores and weighted values for one token at ``context`` cached tokens, over all
    layers.

    Per layer 2 * heads * (key width + value width) * tokens seen. Latent attention works on the cache as it
    lies: keys of kv_rank + rope_dim, values of kv_rank; Step-3 counts the values at the key width too, which
    ``latent_values_with_rope`` selects. Recurrent mixers cost a constant, indexers score every token.
    """
    zero = np.zeros_like(np.asarray(context, dtype=np.float64))
    return sum((g.count * _core(g.layer, context, latent_values_with_rope) for g in model.groups), zero)


def kv_bytes_read(model: Model, context: ArrayLike, kv_dtype_bytes: float = 2.0) -> Array:
    """Count the bytes of cache that one decoded token reads over all layers, windows and sparse choices
    applied.

    Index keys are read for the whole context. Recurrent state is read and written.
    """
    tokens = np.asarray(context, dtype=np.float64)
    total = np.zeros_like(tokens)
    for group in model.groups:
        mixer = group.layer.mixer
        cache = attended_tokens(mixer, tokens) * kv_elements_per_token(mixer) * kv_dtype_bytes
        index = tokens * index_bytes_per_token(mixer)
        total += group.count * (cache + index + 2 * layer_state_bytes(group.layer))
    return total


def _core(layer: Layer, context: ArrayLike, latent_values_with_rope: bool) -> Array:
    mixer = layer.mixer
    tokens = np.asarray(context, dtype=np.float64)
    match mixer:
        case Attention():
            core = 2.0 * mixer.heads * (mixer.head_dim + mixer.value_dim) * attended_tokens(mixer, tokens)
            return core + _scoring(mixer, tokens)
        case LatentAttention():
            key = mixer.kv_rank + mixer.rope_dim
            value = key if latent_values_with_rope else mixer.kv_rank
            core = 2.0 * mixer.heads * (key + value) * attended_tokens(mixer, tokens)
            return core + _scoring(mixer, tokens)
        case LinearAttention():
            state = mixer.value_heads * mixer.key_dim * mixer.value_dim
        case Mamba():
            state = mixer.heads * mixer.head_dim * mixer.state_size
        case _:
            state = 0
    return np.full_like(tokens, STATE_FLOPS_PER_ELEMENT * state)


def _scoring(mixer: Attention | LatentAttention, tokens: Array) -> Array:
    """Count the FLOPs of scoring the whole context, token by token or in compressed entries."""
    compressed = mixer.compressed if isinstance(mixer, Attention) else None
    if compressed is not None:
        return 2.0 * compressed.index_heads * compressed.index_dim * tokens / compressed.ratio
    indexer = mixer.indexer
    if indexer is None or indexer.shared:
        return np.zeros_like(tokens)
    return 2.0 * indexer.heads * indexer.head_dim * tokens


def _flops(linears: tuple[Linear, ...]) -> Flop:
    return sum(2.0 * linear.copies * linear.inputs * linear.outputs for linear in linears)
