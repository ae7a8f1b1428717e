"""Families whose layers differ from one another in ways of their own."""

from __future__ import annotations

from dataclasses import replace

from planner.architecture.families.attention import grouped, grouped_attention, head_dim, latent_attention, window_of
from planner.architecture.families.family import Family
from planner.architecture.families.feedforward import dense, dense_or_experts, experts, has_experts
from planner.architecture.fields import Fields
from planner.architecture.model import (
    Attention,
    DenseFfn,
    Ffn,
    LatentAttention,
    Layer,
    Mixer,
    Model,
    SparseIndexer,
)
from planner.errors import InputError


def llama4_attention(fields: Fields, family: Family, index: int) -> Attention:
    """Build attention of Llama 4: three of four layers see a fixed chunk of positions, the fourth all."""
    attention = grouped_attention(fields, family, index)
    layers = fields.count("layers")
    types, rotary = fields.items("layer_types", layers), fields.items("no_rope_layers", layers)
    if types is not None:
        chunked = types[index] == "chunked_attention"
    elif rotary:
        chunked = bool(rotary[index])
    else:
        chunked = (index + 1) % fields.count("no_rope_layer_interval", 4) != 0
    chunk = fields.optional("attention_chunk_size", minimum=1)
    return replace(attention, window=chunk, chunked=True) if chunked and chunk else attention


def llama4_ffn(fields: Fields, family: Family, index: int) -> Ffn:
    """Build the block of Llama 4: experts each n-th layer, always with one shared expert of the same
    width."""
    listed = fields.items("moe_layers")
    if index in listed if listed else (index + 1) % fields.count("interleave_moe_layer_step") == 0:
        return replace(experts(fields, family), shared_width=fields.count("width"))
    return DenseFfn(fields.count("intermediate_size_mlp"))


def mllama_layers(fields: Fields, family: Family) -> tuple[Layer, ...]:
    """Build Llama 3.2 Vision: some layers attend to the image only, with q and k norms and two gates."""
    crossing = fields.items("cross_attention_layers") or ()
    plain = grouped_attention(fields, family, 0)
    cross = replace(plain, window=0, small_parameters=2 * plain.head_dim + 2)
    norms, ffn = 2 * fields.count("hidden"), dense(fields, family, 0)
    return tuple(Layer(cross if index in crossing else plain, ffn, norms) for index in range(fields.count("layers")))


def mllama_finish(fields: Fields, model: Model) -> Model:
    """Add the eight embedding rows that Llama 3.2 Vision keeps for image tokens, which the head lacks."""
    return replace(model, extra_parameters=model.extra_parameters + 8 * model.hidden)


def nemotron_nas_layers(fields: Fields, family: Family) -> tuple[Layer, ...]:
    """Read the layers that a search pruned (Nemotron-NAS): KV heads and width per layer, halves may be
    absent."""
    blocks = fields.items("block_configs", fields.count("layers"))
    if blocks is None:
        raise InputError(f"{fields.where}: the field block_configs is missing", hint="give the complete config.json")
    return tuple(_nas_layer(fields, family, block, index) for index, block in enumerate(blocks))


def _nas_layer(fields: Fields, family: Family, block: object, index: int) -> Layer:
    config = Fields(block if isinstance(block, dict) else {}, f"{fields.where}: block_configs[{index}]", {})
    attention, ffn = config.inner("attention"), config.inner("ffn")
    if attention is None or ffn is None:
        raise InputError(f"{config.where} has no attention or ffn", hint="give the complete config.json")
    if attention.flag("replace_with_linear") or ffn.flag("replace_with_linear"):
        raise InputError(f"{config.where}: replace_with_linear is not modelled", hint="use another model")
    hidden, heads = fields.count("hidden"), fields.count("heads")
    mixer: Mixer | None = None
    if not attention.flag("no_op"):
        kv_heads = heads // attention.count("n_heads_in_group")
        window = attention.optional("window_length", minimum=1)
        mixer = grouped(fields, family, heads, kv_heads, head_dim(fields), window)
    if not ffn.flag("no_op") and not any(map(ffn.states, ("ffn_mult", "intermediate_size"))):
        raise ffn.missing("ffn_mult")
    # the class rounds two thirds of the multiple of hidden up to a multiple of 256
    width = -(-int(2 * ffn.number("ffn_mult", 0.0) * hidden / 3) // 256) * 256
    block_ffn = None if ffn.flag("no_op") else DenseFfn(ffn.optional("intermediate_size") or width)
    return Layer(mixer, block_ffn, hidden * ((mixer is not None) + (block_ffn is not None)))


def step3_attention(fields: Fields, family: Family, index: int) -> Attention:
    """Build multi-matrix factorised attention (arXiv 2507.19427): queries through a shared low rank, one KV
    head."""
    rank = fields.count("share_q_dim")
    return replace(grouped_attention(fields, family, index), query_rank=rank, small_parameters=rank)


def step3_ffn(fields: Fields, family: Family, index: int) -> Ffn:
    """Build the block of Step-3: experts in the layers that a list of kinds or a comma-separated string says, else
    all but the first."""
    types = fields.items("mlp_layer_types", fields.count("layers"))
    if types is not None:
        return experts(fields, family) if types[index] == "sparse" else dense(fields, family, index)
    listed = fields.text("moe_layers_enum")
    parts = [part.strip() for part in listed.split(",") if part.strip()]
    if not all(part.isdecimal() for part in parts):
        raise InputError(f"{fields.where}: moe_layers_enum is {listed[:40]!r}", hint="layer numbers between commas")
    at = str(index) in parts if parts else index >= fields.count("moe_layer_offset", minimum=0)
    return experts(fields, family) if at else dense(fields, family, index)


def mimo_v2_attention(fields: Fields, family: Family, index: int) -> Attention:
    """Build attention of MiMo-V2: narrower values, and window layers with head counts of their own."""
    pattern = fields.items("hybrid_layer_pattern", fields.count("layers"))
    if pattern is None and not fields.states("layer_types"):
        raise fields.missing("hybrid_layer_pattern", "layer_types")
    windowed = pattern[index] == 1 if pattern else window_of(fields, family, index) is not None
    prefix = "swa_" if windowed else ""
    heads = fields.optional(f"{prefix}num_attention_heads") or fields.count("heads")
    kv_heads = fields.optional(f"{prefix}num_key_value_heads") or fields.count("kv_heads", heads)
    width = fields.optional(f"{prefix}head_dim") or head_dim(fields)
    window = fields.optional("window", minimum=1) if windowed else None
    attention = grouped(fields, family, heads, kv_heads, width, window)
    sinks = heads if fields.flag(f"add_{prefix or 'full_'}attention_sink_bias") else 0
    value = fields.optional(f"{prefix}v_head_dim") or fields.optional("value_dim") or width
    return replace(attention, value_dim=value, small_parameters=attention.small_parameters + sinks)


def step3p5_attention(fields: Fields, family: Family, index: int) -> Attention:
    """Build attention of Step-3.5: window layers may have other head counts, and each head has a gate."""
    window = window_of(fields, family, index)
    other = fields.inner("attention_other_setting") if window is not None else None
    heads = fields.count("heads")
    kv_heads = fields.count("kv_heads", heads)
    if window is not None and not any(map(fields.states, ("attention_other_setting", "num_sliding_attention_heads"))):
        raise fields.missing("attention_other_setting", "num_sliding_attention_heads")
    if other is not None:
        heads, kv_heads = other.count("heads", heads), other.count("kv_heads", kv_heads)
    elif window is not None:
        heads = fields.count("num_sliding_attention_heads", heads)
    attention = grouped(fields, family, heads, kv_heads, head_dim(fields), window)
    gates = heads * fields.count("hidden")
    return replace(attention, small_parameters=attention.small_parameters + gates)


def minimax_m3_attention(fields: Fields, family: Family, index: int) -> Attention:
    """Build attention of MiniMax-M3: an indexer picks blocks of tokens in the layers that the config lists."""
    if not any(map(fields.states, ("sparse_attention_config", "layer_types"))):
        raise fields.missing("sparse_attention_config", "layer_types")
    config = fields.inner("sparse_attention_config") or fields
    frequency = config.items("sparse_attention_freq", fields.count("layers"))
    types = fields.items("layer_types", fields.count("layers"))
    if frequency is None and types is None:
        raise config.missing("sparse_attention_freq")
    sparse = bool(frequency[index]) if frequency else types is not None and types[index] == "minimax_m3_sparse"
    attention = grouped_attention(fields, family, index)
    if not sparse:
        return attention

    def size(old: str, new: str, default: int) -> int:
        return config.optional(old, minimum=1) or fields.count(new, default)

    width = size("sparse_index_dim", "index_head_dim", 128)
    block = size("sparse_block_size", "index_block_size", 128)
    blocks = size("sparse_topk_blocks", "index_topk_blocks", 16)
    indexer = SparseIndexer(size("sparse_num_index_heads", "index_n_heads", 4), width, blocks * block)
    return replace(attention, indexer=indexer, small_parameters=attention.small_parameters + 2 * width)


def minimax_m3_ffn(fields: Fields, family: Family, index: int) -> Ffn:
    """Build the block of MiniMax-M3, whose dense layers have a width of their own."""
    routed = has_experts(fields, index)
    return experts(fields, family) if routed else DenseFfn(fields.count("dense_intermediate_size"))


def longcat_layers(fields: Fields, family: Family) -> tuple[Layer, ...]:
    """Build the shortcut MoE of LongCat: two attentions with dense blocks, and experts beside them."""
    hidden = fields.count("hidden")
    half = Layer(latent_attention(fields, family, 0), DenseFfn(fields.count("width")), 2 * hidden)
    routed = replace(
        experts(fields, family), router_bias=True, zero_experts=fields.count("zero_expert_num", 0, minimum=0)
    )
    return (half, half, Layer(None, routed)) * fields.count("layers")


def ernie_ffn(fields: Fields, family: Family, index: int) -> Ffn:
    """Build the block of ERNIE 4.5: experts between two layers, each n-th."""
    start = fields.count("moe_layer_start_index", 1, minimum=0)
    end = fields.optional("moe_layer_end_index", minimum=-1)
    last = fields.count("layers") - 1 if end is None or end == -1 else end
    routed = start <= index <= last and (index + 1) % fields.count("moe_layer_interval", 1) == 0
    return replace(experts(fields, family), router_bias=True) if routed else dense(fields, family, index)


def minicpm3_attention(fields: Fields, family: Family, index: int) -> LatentAttention:
    """Build latent attention of MiniCPM3, whose values are as wide as hidden over heads where the config is
    silent."""
    return latent_attention(fields, family, index, head_dim(fields))


def plain_embeddings(fields: Fields, family: Family) -> Family:
    """Refuse embeddings of another width than the layers (OPT-350m): their projections are not modelled."""
    width = fields.optional("word_embed_proj_dim")
    if width not in (None, fields.count("hidden")):
        raise InputError(f"{fields.where}: word_embed_proj_dim of {width} is not modelled", hint="use another model")
    return family


def bloom_finish(fields: Fields, model: Model) -> Model:
    """Add the LayerNorm that BLOOM puts behind its embedding."""
    return replace(model, extra_parameters=model.extra_parameters + 2 * model.hidden)


def falcon_attention(fields: Fields, family: Family, index: int) -> Attention:
    """Build attention of Falcon: one KV head, unless the newer decoder gives a number."""
    heads = fields.count("heads")
    if fields.flag("new_decoder_architecture"):
        kv_heads = fields.count("num_kv_heads", heads)
    else:
        kv_heads = 1 if fields.flag("multi_query", True) else heads
    return grouped(fields, family, heads, kv_heads, head_dim(fields), None)


def falcon_norms(fields: Fields, family: Family) -> Family:
    """Give Falcon its second norm, which only the newer decoder or a serial block has."""
    twice = fields.flag("new_decoder_architecture") or not fields.flag("parallel_attn", True)
    return replace(family, norms=fields.optional("num_ln_in_parallel_attn", minimum=1) or (2 if twice else 1))


def one_norm_in_parallel(fields: Fields, family: Family) -> Family:
    """Drop the second norm of blocks whose halves work side by side (StableLM 2)."""
    return replace(family, norms=1) if fields.flag("use_parallel_residual") else family


def qk_norm_if_used(fields: Fields, family: Family) -> Family:
    """Keep the normalisation of queries and keys only where ``use_qk_norm`` says so."""
    return family if fields.flag("use_qk_norm") else replace(family, qk_norm="")


def litgpt_conventions(fields: Fields, family: Family) -> Family:
    """Read LitGPT's name of the block: GPT-NeoX blocks have two matrices and LayerNorms, the others are
    gated."""
    if "neox" not in fields.text("litgpt_mlp", "LLaMAMLP").lower():
        return family
    return replace(family, gated=False, norm_size=2)


def multi_query_attention(fields: Fields, family: Family, index: int) -> Attention:
    """Build attention that has one KV head when ``multi_query`` is set, and all heads otherwise
    (StarCoder)."""
    heads = fields.count("heads")
    return grouped(fields, family, heads, 1 if fields.flag("multi_query", True) else heads, head_dim(fields), None)


def chatglm_attention(fields: Fields, family: Family, index: int) -> Attention:
    """Build attention of ChatGLM: KV groups only when ``multi_query_attention`` is set."""
    heads = fields.count("heads")
    groups = fields.count("multi_query_group_num", 1) if fields.flag("multi_query_attention") else heads
    return grouped(fields, family, heads, groups, head_dim(fields), None)


def half_width(fields: Fields, family: Family, index: int) -> DenseFfn:
    """Build the block of Qwen 1, whose ``intermediate_size`` counts gate and up together."""
    return DenseFfn(fields.count("width") // 2)


def mpt_ffn(fields: Fields, family: Family, index: int) -> DenseFfn:
    """Build the block of MPT from its expansion ratio."""
    width = round(fields.number("expansion_ratio", 4.0) * fields.count("hidden"))
    return DenseFfn(width, gated=False, bias=not fields.flag("no_bias", True))


def hunyuan_experts(fields: Fields, family: Family, index: int) -> Ffn:
    """Build the block of Hunyuan, whose expert sizes are one number or one per layer."""
    layers = fields.count("layers")
    own = {
        "num_experts": "experts",
        "moe_topk": "top_k",
        "num_shared_expert": "shared_experts",
        "moe_intermediate_size": "expert_width",
    }
    flat: dict[str, object] = {"num_hidden_layers": layers, "intermediate_size": fields.count("width")}
    for name, canonical in own.items():
        several = isinstance(fields.raw(canonical), list) and fields.items(canonical, layers)
        if several or fields.states(canonical):
            flat[name] = several[index] if several else fields.raw(canonical)
    return dense_or_experts(fields.derived(flat), family, index)


def arctic_ffn(fields: Fields, family: Family, index: int) -> Ffn:
    """Build the block of Arctic: a dense residual beside experts each n-th layer, else dense."""
    at = (index + 1) % fields.count("moe_layer_frequency", 2) == 0
    residual = fields.count("hidden") if fields.flag("parallel_attn_mlp_res") else 0
    return replace(experts(fields, family), shared_width=residual) if at else dense(fields, family, index)
