"""Mixers with a fixed state: gated delta rule, lightning and Kimi delta attention, Mamba, short
convolution."""

from __future__ import annotations

from dataclasses import replace

from planner.architecture.families.attention import grouped, grouped_attention, head_dim, latent_attention
from planner.architecture.families.family import Family
from planner.architecture.fields import Fields
from planner.architecture.model import DenseFfn, LatentAttention, Linear, LinearAttention, Mamba, Mixer, Part, Shard
from planner.errors import InputError

_DTYPE_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "auto": 2}


def linear(name: str, inputs: int, outputs: int, shard: Shard = Shard.COLUMN, *, bias: bool = False) -> Linear:
    """Make a projection of a mixer."""
    return Linear(name, inputs, outputs, shard, Part.ATTENTION, bias=bias)


def state_dtype_bytes(fields: Fields) -> int:
    """Read the bytes of an element of the recurrent state; engines keep it in float32 unless the config says
    else."""
    name = fields.text("mamba_ssm_cache_dtype") or fields.text("mamba_ssm_dtype", "float32")
    if name not in _DTYPE_BYTES:
        raise InputError(f"{fields.where}: unknown state dtype {name!r}", hint=f"one of {', '.join(_DTYPE_BYTES)}")
    return _DTYPE_BYTES[name]


def is_full_attention(fields: Fields, index: int) -> bool:
    """Decide whether a layer of a hybrid has softmax attention: by ``layer_types``, else each n-th layer."""
    types = fields.items("layer_types", fields.count("layers"))
    if types is not None:
        return types[index] in ("full_attention", "attention")
    return (index + 1) % fields.count("full_attention_interval", 4) == 0


def delta_or_attention(fields: Fields, family: Family, index: int) -> Mixer:
    """Build a layer of Qwen3-Next: gated delta rule, with gated softmax attention each fourth layer."""
    if is_full_attention(fields, index):
        heads, width = fields.count("heads"), head_dim(fields)
        attention = grouped(fields, family, heads, fields.count("kv_heads", heads), width, None)
        return replace(attention, output_gate=True) if fields.flag("attn_output_gate", True) else attention
    key_heads, value_heads = fields.count("linear_num_key_heads"), fields.count("linear_num_value_heads")
    key_dim, value_dim = fields.count("linear_key_head_dim"), fields.count("linear_value_head_dim")
    kernel, hidden = fields.count("linear_conv_kernel_dim"), fields.count("hidden")
    keys, values = key_heads * key_dim, value_heads * value_dim
    channels = 2 * keys + values
    return LinearAttention(
        key_heads=key_heads,
        value_heads=value_heads,
        key_dim=key_dim,
        value_dim=value_dim,
        conv_kernel=kernel,
        conv_channels=channels,
        state_dtype_bytes=state_dtype_bytes(fields),
        small_parameters=channels * kernel + 2 * value_heads + value_dim,
        projections=(
            linear("qkvz", hidden, channels + values),
            linear("beta_decay", hidden, 2 * value_heads),
            linear("o", values, hidden, Shard.ROW),
        ),
    )


def lightning_or_attention(fields: Fields, family: Family, index: int) -> Mixer:
    """Build a layer of MiniMax-01 and M1: lightning attention, with softmax attention where the config lists
    it."""
    types = fields.items("attn_type_list", fields.count("layers"))
    if types is None and fields.items("layer_types") is None:
        raise fields.missing("attn_type_list", "layer_types")
    if types[index] == 1 if types is not None else is_full_attention(fields, index):
        return grouped_attention(fields, family, index)
    heads, width, hidden = fields.count("heads"), head_dim(fields), fields.count("hidden")
    return LinearAttention(
        key_heads=heads,
        value_heads=heads,
        key_dim=width,
        value_dim=width,
        small_parameters=heads * width,
        projections=(
            linear("qkv", hidden, 3 * heads * width),
            linear("gate", hidden, heads * width),
            linear("o", heads * width, hidden, Shard.ROW),
        ),
    )


def kimi_delta_or_latent(fields: Fields, family: Family, index: int) -> LinearAttention | LatentAttention:
    """Build a layer of Kimi Linear (arXiv 2510.26692): delta attention with a decay per channel, or latent
    attention."""
    config = fields.inner("linear_attn_config")
    full = config.items("full_attn_layers") if config is not None else None
    if full is None and fields.items("layer_types") is None:
        raise fields.missing("linear_attn_config", "layer_types")
    # the list counts layers from one
    if index + 1 in full if full is not None else is_full_attention(fields, index):
        return latent_attention(fields, family, index)
    if config is not None:
        heads, width, kernel = config.count("num_heads"), config.count("head_dim"), "short_conv_kernel_size"
    else:
        heads, width, kernel = (
            fields.count("linear_num_heads"),
            fields.count("linear_head_dim"),
            "linear_conv_kernel_dim",
        )
    taps, hidden = (config or fields).count(kernel, 4), fields.count("hidden")
    inner = heads * width
    return LinearAttention(
        key_heads=heads,
        value_heads=heads,
        key_dim=width,
        value_dim=width,
        conv_kernel=taps,
        conv_channels=3 * inner,
        small_parameters=3 * inner * taps + heads + inner + width,
        projections=(
            linear("qkv", hidden, 3 * inner),
            linear("decay_a", hidden, width, Shard.REPLICATED),
            linear("decay_b", width, inner),
            linear("beta", hidden, heads),
            linear("gate_a", hidden, width, Shard.REPLICATED),
            linear("gate_b", width, inner),
            linear("o", inner, hidden, Shard.ROW),
        ),
    )


def mamba2(
    fields: Fields,
    *,
    heads: int,
    width: int,
    state: int,
    groups: int,
    kernel: int,
    inputs: int | None = None,
    norm: bool = True,
) -> Mamba:
    """Build a Mamba-2 mixer (arXiv 2405.21060, section 8): one input projection for gate, x, B, C and step
    sizes."""
    hidden, inner = fields.count("hidden"), heads * width
    channels = inner + 2 * groups * state
    bias = fields.flag("mamba_proj_bias") or fields.flag("use_bias")
    small = channels * (kernel + 1) + 3 * heads + (inner if norm else 0)
    return Mamba(
        heads=heads,
        head_dim=width,
        state_size=state,
        groups=groups,
        conv_kernel=kernel,
        state_dtype_bytes=state_dtype_bytes(fields),
        small_parameters=small,
        projections=(
            linear("in", inputs or hidden, inner + channels + heads, bias=bias),
            linear("out", inner, hidden, Shard.ROW, bias=bias),
        ),
    )


def mamba2_of_prefix(fields: Fields, *, norm: bool = True) -> Mamba:
    """Build the Mamba-2 mixer of Bamba, Falcon-H1 and Granite 4, whose fields start with ``mamba_``."""
    heads = fields.count("mamba_n_heads")
    inner = fields.optional("mamba_d_ssm") or round(fields.number("mamba_expand", 2.0) * fields.count("hidden"))
    given = None if fields.raw("mamba_d_head") == "auto" else fields.optional("mamba_d_head", minimum=1)
    if given is None and inner % heads:
        raise InputError(f"{fields.where}: {heads} Mamba heads do not divide {inner}", hint="add mamba_d_head")
    width = given or inner // heads
    return mamba2(
        fields,
        heads=heads,
        width=width,
        state=fields.count("mamba_d_state"),
        groups=fields.count("mamba_n_groups", 1),
        kernel=fields.count("mamba_d_conv", 4),
        norm=norm,
    )


def mamba1(fields: Fields) -> Mamba:
    """Build the Mamba-1 mixer of Jamba (arXiv 2403.19887): step sizes of low rank, norms on step size, B and
    C."""
    hidden = fields.count("hidden")
    inner = fields.count("mamba_expand", 2) * hidden
    state, kernel = fields.count("mamba_d_state", 16), fields.count("mamba_d_conv", 4)
    given = None if fields.raw("mamba_dt_rank") == "auto" else fields.optional("mamba_dt_rank", minimum=1)
    step_rank = given or -(-hidden // 16)
    return Mamba(
        heads=inner,
        head_dim=1,
        state_size=state,
        groups=0,
        conv_kernel=kernel,
        state_dtype_bytes=state_dtype_bytes(fields),
        small_parameters=inner * (kernel + 1) + inner * state + inner + step_rank + 2 * state,
        projections=(
            linear("in", hidden, 2 * inner),
            linear("x", inner, step_rank + 2 * state, Shard.ROW),
            linear("step", step_rank, inner, bias=True),
            linear("out", inner, hidden, Shard.ROW),
        ),
    )


def convolution_or_attention(fields: Fields, family: Family, index: int) -> Mixer:
    """Build a layer of LFM2: a gated short convolution, or attention."""
    full = fields.items("full_attn_idxs")
    if full is None and fields.items("layer_types") is None:
        raise fields.missing("full_attn_idxs", "layer_types")
    if index in full if full is not None else is_full_attention(fields, index):
        return grouped_attention(fields, family, index)
    hidden, kernel, bias = fields.count("hidden"), fields.count("conv_L_cache", 3), fields.flag("conv_bias")
    return LinearAttention(
        key_heads=0,
        value_heads=0,
        key_dim=0,
        value_dim=0,
        conv_kernel=kernel,
        conv_channels=hidden,
        small_parameters=hidden * (kernel + bias),
        projections=(
            linear("in", hidden, 3 * hidden, bias=bias),
            linear("out", hidden, hidden, Shard.ROW, bias=bias),
        ),
    )


def lfm2_ffn(fields: Fields, family: Family, index: int) -> DenseFfn:
    """Build the block of LFM2, whose class takes two thirds of the width, rounded up, unless told not to."""
    width = fields.count("width")
    if fields.flag("block_auto_adjust_ff_dim", True):
        step = fields.count("block_multiple_of", 256)
        scaled = int(fields.number("block_ffn_dim_multiplier", 1.0) * int(2 * width / 3))
        width = max(-(-scaled // step), 1) * step
    return DenseFfn(width)
