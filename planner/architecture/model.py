"""A model as arithmetic: layers made of a token mixer and a feed-forward block.

A layer kind is a value. Every mixer and feed-forward block lists its weight matrices (``linears``);
parameters, weight bytes, FLOPs and messages all follow from that one list, so that memory and time
cannot disagree about the shape of a model.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property


class Part(StrEnum):
    """Groups of weights that a quantisation scheme treats alike."""

    EMBEDDING = "embedding"
    HEAD = "head"
    ATTENTION = "attention"
    FFN = "ffn"
    EXPERTS = "experts"
    ROUTER = "router"


class Shard(StrEnum):
    """How tensor parallelism cuts a weight matrix over ``tp`` ranks.

    COLUMN: outputs are cut, tp ways. ROW: inputs are cut; partial sums need an all-reduce afterwards.
    KV: outputs are cut by KV heads, and replicated once tp exceeds them. REPLICATED: every rank holds all of
    it.
    """

    COLUMN = "column"
    ROW = "row"
    KV = "kv"
    REPLICATED = "replicated"


@dataclass(frozen=True, slots=True)
class Linear:
    """One weight matrix, y[tokens, outputs] = x[tokens, inputs] W (+ bias).

    Attributes
    ----------
    copies : the same shape this many times in the layer (2 for fused gate and up projections counted as one
        matrix would be outputs = 2*width instead; use copies for per-head batched products).
    bias : whether a bias of ``outputs`` elements is added.
    absorbed : an MLA up-projection, which decode multiplies per head instead of expanding the cache.
    """

    name: str
    inputs: int
    outputs: int
    shard: Shard
    part: Part
    bias: bool = False
    copies: int = 1
    absorbed: bool = False

    @property
    def parameters(self) -> int:
        """Weights and biases, all copies."""
        return self.copies * (self.inputs * self.outputs + (self.outputs if self.bias else 0))


@dataclass(frozen=True, slots=True)
class SparseIndexer:
    """The light-weight scorer of sparse attention: picks ``top_k`` tokens of the context for each query.

    ``shared``: the choice of an earlier layer is used again, so this layer has neither scorer weights nor
    index keys.
    """

    heads: int
    head_dim: int
    top_k: int
    shared: bool = False


@dataclass(frozen=True, slots=True)
class CompressedContext:
    """Cache entries that stand for ``ratio`` tokens each, for the whole context beside a window
    (DeepSeek-V4).

    ``top_k`` of them are attended (0: all), chosen by scoring ``index_heads`` heads against one index key of
    ``index_dim`` per entry. ``projections``: the matrices that compress and score.
    """

    ratio: int
    top_k: int = 0
    index_heads: int = 0
    index_dim: int = 0
    projections: tuple[Linear, ...] = ()


@dataclass(frozen=True, slots=True)
class Attention:
    """Softmax attention with grouped KV heads (MHA: kv_heads = heads; MQA: 1).

    ``window`` is the number of tokens a query sees (None: all); ``chunked`` means that the window is a fixed
    block of positions (Llama 4) rather than sliding, and a window of 0 is cross-attention to tokens that are
    not text (Llama 3.2 Vision). ``output_gate`` doubles the query projection (Qwen3-Next); ``query_rank`` > 0
    factors it through that width (Step-3); ``output_rank`` > 0 factors the output in ``output_groups`` groups
    of heads (DeepSeek-V4). Without a ``value_projection`` values are made from the key projection (Gemma 4);
    if ``values_are_keys``, one cache entry serves both too (DeepSeek-V4). ``reuses_cache``: keys and values
    come from an earlier layer. ``compressed``: what is kept beside the window; ``indexer``: which tokens of
    the context are attended (MiniMax-M3). ``small_parameters``: q/k norms,
    sinks.
    """

    heads: int
    kv_heads: int
    head_dim: int
    value_dim: int
    window: int | None = None
    chunked: bool = False
    query_bias: bool = False
    kv_bias: bool = False
    output_bias: bool = False
    output_gate: bool = False
    query_rank: int = 0
    output_rank: int = 0
    output_groups: int = 1
    value_projection: bool = True
    values_are_keys: bool = False
    reuses_cache: bool = False
    compressed: CompressedContext | None = None
    indexer: SparseIndexer | None = None
    small_parameters: int = 0


@dataclass(frozen=True, slots=True)
class LatentAttention:
    """Multi-head latent attention: one latent vector and one rotary key per token, shared by all heads."""

    heads: int
    query_rank: int
    kv_rank: int
    nope_dim: int
    rope_dim: int
    value_dim: int
    indexer: SparseIndexer | None = None
    small_parameters: int = 0


@dataclass(frozen=True, slots=True)
class LinearAttention:
    """Linear attention with a fixed recurrent state: gated delta rule, Lightning, Kimi delta attention.

    State per sequence: value_heads * key_dim * value_dim elements plus a convolution tail of ``conv_channels
    * (conv_kernel-1)``.
    """

    key_heads: int
    value_heads: int
    key_dim: int
    value_dim: int
    conv_kernel: int = 0
    conv_channels: int = 0
    state_dtype_bytes: int = 4
    small_parameters: int = 0
    projections: tuple[Linear, ...] = ()


@dataclass(frozen=True, slots=True)
class Mamba:
    """A selective state space mixer (Mamba 1 or 2) with its fixed state."""

    heads: int
    head_dim: int
    state_size: int
    groups: int
    conv_kernel: int
    state_dtype_bytes: int = 4
    small_parameters: int = 0
    projections: tuple[Linear, ...] = ()


@dataclass(frozen=True, slots=True)
class DenseFfn:
    """A feed-forward block of ``width``; gated blocks (SwiGLU) have three matrices, plain ones two."""

    width: int
    gated: bool = True
    bias: bool = False


@dataclass(frozen=True, slots=True)
class MoeFfn:
    """Routed experts with ``top_k`` active per token, and shared experts of total width ``shared_width`` on
    every token.

    ``zero_experts`` are router targets that compute nothing (LongCat); ``latent`` is a narrower width at
    which experts work when the block projects down first (Nemotron-3 Super), else 0.
    """

    experts: int
    top_k: int
    width: int
    shared_width: int = 0
    gated: bool = True
    bias: bool = False
    shared_gate: bool = False
    router_bias: bool = False
    zero_experts: int = 0
    latent: int = 0


Mixer = Attention | LatentAttention | LinearAttention | Mamba
Ffn = DenseFfn | MoeFfn


@dataclass(frozen=True, slots=True)
class Layer:
    """One transformer block. Either half may be absent (Nemotron-H, pruned Nemotron-NAS).
    ``small_parameters``: norms etc."""

    mixer: Mixer | None
    ffn: Ffn | None
    small_parameters: int = 0


@dataclass(frozen=True, slots=True)
class LayerGroup:
    """Equal layers, counted. Order inside the model does not matter to time or memory except under pipeline
    parallelism."""

    layer: Layer
    count: int


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The precision that the published weights have: format by part (see precision.py), and the KV cache they
    ask for."""

    weights: str = "bf16"
    parts: tuple[tuple[Part, str], ...] = ()
    kv: str | None = None


@dataclass(frozen=True)
class Model:
    """A language model. ``layers`` holds every layer in order; MTP layers and vision parts are counted apart.

    A block whose two mixers work side by side (Falcon-H1) is two layers, the first without a feed-forward
    half, and a shortcut MoE (LongCat) is a layer without a mixer. ``positions`` learned position embeddings
    of width ``hidden`` (GPT-2, OPT) count in the total but not as active. ``extra_parameters``: final norm,
    head bias and the like. ``published_fp8``: how the 8-bit checkpoint is scaled that the maker of a wide model
    publishes, ``fp8`` (by tensor or channel; also where there is none) or ``fp8_block``.
    """

    id: str
    architecture: str
    hidden: int
    vocab: int
    layers: tuple[Layer, ...]
    tied_embeddings: bool = False
    positions: int = 0
    extra_parameters: int = 0
    mtp_layers: tuple[Layer, ...] = ()
    mtp_extra_parameters: int = 0
    max_context: int | None = None
    checkpoint: Checkpoint = field(default_factory=Checkpoint)
    published_fp8: str = "fp8"
    aliases: tuple[str, ...] = ()
    source: str = ""

    @cached_property
    def groups(self) -> tuple[LayerGroup, ...]:
        """Equal layers counted, in order of first appearance."""
        # Files and families repeat one object; hashing it once, not once a layer, matters to a search over layouts.
        distinct = {id(layer): layer for layer in self.layers}
        counts: Counter[Layer] = Counter()
        for key, count in Counter(map(id, self.layers)).items():
            counts[distinct[key]] += count
        return tuple(LayerGroup(layer, count) for layer, count in counts.items())
