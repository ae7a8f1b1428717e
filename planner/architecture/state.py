"""What a sequence holds in memory: KV cache that grows with its length, and fixed recurrent state.

Contexts may be numbers or arrays; results have the same shape, in bytes, for the whole model or layer before
any sharding. Sources: DeepSeek-V2 (arXiv 2405.04434) for the latent cache, Gated DeltaNet (arXiv 2412.06464)
and Mamba-2 (arXiv 2405.21060) for recurrent state; exact per-token values are tested against published ones.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from planner.architecture.model import Attention, LatentAttention, Layer, LinearAttention, Mamba, Mixer, Model
from planner.units import Bytes

INDEX_KEY_BYTES: Final = 1.0
"""Bytes of an element of the index-key cache: engines keep it in fp8 whatever the KV cache has."""
INDEX_SCALE_BYTES: Final = 4.0
"""Bytes of the scale of each index key (one float for up to 128 elements)."""
CONVOLUTION_BYTES: Final = 2.0
"""Bytes of an element of the convolution tail, which has the dtype of the activations."""


def kv_elements_per_token(mixer: Mixer | None) -> int:
    """Count the cached elements of one token in one layer: 2 * kv_heads * head_dim, or the latent and rotary
    key."""
    match mixer:
        case Attention(reuses_cache=True) | Attention(window=0):
            return 0
        case Attention():
            return mixer.kv_heads * (mixer.head_dim + (0 if mixer.values_are_keys else mixer.value_dim))
        case LatentAttention():
            return mixer.kv_rank + mixer.rope_dim
        case _:
            return 0


def index_bytes_per_token(mixer: Mixer | None) -> Bytes:
    """Count the bytes that a sparse-attention indexer keeps of one token in one layer: a key and its scale.

    Where keys stand for several tokens (DeepSeek-V4) this is a fraction of one.
    """
    match mixer:
        case Attention(indexer=indexer) | LatentAttention(indexer=indexer) if indexer and not indexer.shared:
            return _index_key_bytes(indexer.head_dim)
        case Attention(compressed=compressed) if compressed is not None and compressed.index_dim:
            return _index_key_bytes(compressed.index_dim) / compressed.ratio
        case _:
            return 0.0


def _index_key_bytes(width: int) -> Bytes:
    return width * INDEX_KEY_BYTES + -(-width // 128) * INDEX_SCALE_BYTES


def kv_bytes_per_token(model: Model, kv_dtype_bytes: float = 2.0) -> Bytes:
    """Count the KV bytes of one token over all layers, while every window still grows; without index keys."""
    return kv_dtype_bytes * sum(kv_elements_per_token(layer.mixer) for layer in model.layers)


def kv_growth_per_token(model: Model, kv_dtype_bytes: float = 2.0) -> Bytes:
    """Count the KV bytes that each further token adds once all windows are full."""
    return kv_dtype_bytes * sum(
        kv_elements_per_token(g.layer.mixer) * g.count * _growth(g.layer.mixer) for g in model.groups
    )


def _growth(mixer: Mixer | None) -> float:
    """Return the cache entries that a token adds to a layer whose window is full."""
    if isinstance(mixer, Attention) and mixer.compressed is not None:
        return 1 / mixer.compressed.ratio
    return 0.0 if window(mixer) is not None else 1.0


def window(mixer: Mixer | None) -> int | None:
    """Return how many tokens a layer sees, None without limit."""
    return mixer.window if isinstance(mixer, Attention) else None


def attended_tokens(mixer: Mixer | None, context: ArrayLike) -> NDArray[np.float64]:
    """Return how many cached tokens a decoded token reads: the context, its window, or the indexer's choice.

    A chunked window counts as full, as Step-3 does: its average over a long sequence is half of that.
    """
    seen = np.asarray(context, dtype=np.float64)
    match mixer:
        case Attention(compressed=compressed) if compressed is not None:
            entries = np.floor(seen / compressed.ratio)
            chosen = np.minimum(entries, compressed.top_k) if compressed.top_k else entries
            return chosen + np.minimum(seen, mixer.window or 0)
        case Attention(indexer=indexer) | LatentAttention(indexer=indexer) if indexer is not None:
            return np.minimum(seen, indexer.top_k)
        case Attention(window=int() as limit):
            return np.minimum(seen, limit)
        case Attention() | LatentAttention():
            return seen
        case _:
            return np.zeros_like(seen)


def layer_cache_bytes(layer: Layer, context: ArrayLike, kv_dtype_bytes: float = 2.0) -> NDArray[np.float64]:
    """Count the bytes that one layer keeps of a sequence of ``context`` tokens: KV within its window, index
    keys."""
    tokens = np.asarray(context, dtype=np.float64)
    entries = held_entries(layer.mixer, tokens) * kv_elements_per_token(layer.mixer) * kv_dtype_bytes
    return entries + tokens * index_bytes_per_token(layer.mixer)


def held_entries(mixer: Mixer | None, context: ArrayLike) -> NDArray[np.float64]:
    """Return how many cache entries a layer keeps of a context: its window, and what it compresses beside
    it."""
    tokens = np.asarray(context, dtype=np.float64)
    limit = window(mixer)
    held = tokens if limit is None else np.minimum(tokens, limit)
    compressed = mixer.compressed if isinstance(mixer, Attention) else None
    return held if compressed is None else held + np.floor(tokens / compressed.ratio)


def layer_state_bytes(layer: Layer) -> Bytes:
    """Count the fixed bytes that one layer keeps of a sequence, whatever its length: recurrent and
    convolution state."""
    match layer.mixer:
        case LinearAttention() as mixer:
            recurrent = mixer.value_heads * mixer.key_dim * mixer.value_dim
            channels = mixer.conv_channels
        case Mamba() as mixer:
            recurrent = mixer.heads * mixer.head_dim * mixer.state_size
            channels = mixer.heads * mixer.head_dim + 2 * mixer.groups * mixer.state_size
        case _:
            return 0.0
    tail = channels * max(mixer.conv_kernel - 1, 0)
    return float(recurrent * mixer.state_dtype_bytes) + tail * CONVOLUTION_BYTES


def kv_bytes(model: Model, context: ArrayLike, kv_dtype_bytes: float = 2.0) -> NDArray[np.float64]:
    """Count the bytes that all layers keep of a sequence of ``context`` tokens: windows capped, index keys
    included."""
    zero = np.zeros_like(np.asarray(context, dtype=np.float64))
    return sum(
        (group.count * layer_cache_bytes(group.layer, context, kv_dtype_bytes) for group in model.groups),
        zero,
    )


def state_bytes(model: Model) -> Bytes:
    """Count the fixed bytes per sequence over all layers."""
    return sum(group.count * layer_state_bytes(group.layer) for group in model.groups)
