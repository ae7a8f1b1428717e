"""Hybrids of attention and state space layers, by their own way of listing which layer is what."""

from __future__ import annotations

from dataclasses import replace

from planner.architecture.families.attention import grouped_attention
from planner.architecture.families.family import Family
from planner.architecture.families.feedforward import dense, dense_or_experts, experts
from planner.architecture.families.recurrent import mamba1, mamba2, mamba2_of_prefix
from planner.architecture.fields import Fields
from planner.architecture.model import Ffn, Layer, Mixer
from planner.errors import InputError

_NEMOTRON_TYPES = {"mamba": "M", "attention": "*", "mlp": "-", "moe": "E"}


def nemotron_h_layers(fields: Fields, family: Family) -> tuple[Layer, ...]:
    """Read one symbol per layer: M Mamba-2, * attention, - dense, E experts; each layer is one half with one
    norm."""
    pattern: list[object] = list(fields.text("hybrid_override_pattern"))
    names = fields.items("layers_block_type")
    if not pattern and names is not None:
        pattern = [_NEMOTRON_TYPES.get(str(name), name) for name in names]
    if not pattern and names is None:
        raise fields.missing("hybrid_override_pattern", "layers_block_type")
    layers = fields.optional("layers") or len(pattern)
    unknown = {str(symbol) for symbol in pattern} - set("M*-E")
    if len(pattern) < layers or not pattern or unknown:
        problem = (
            f"unknown layer kinds {sorted(unknown)}" if unknown else f"{len(pattern)} layer kinds for {layers} layers"
        )
        raise InputError(f"{fields.where}: hybrid_override_pattern has {problem}", hint="M, *, - or E for each layer")
    norms = fields.count("hidden") * family.norm_size
    return tuple(_nemotron_layer(fields, family, str(symbol), norms) for symbol in pattern[:layers])


def _nemotron_layer(fields: Fields, family: Family, symbol: str, norms: int) -> Layer:
    match symbol:
        case "M":
            mixer = mamba2(
                fields,
                heads=fields.count("mamba_num_heads"),
                width=fields.count("mamba_head_dim"),
                state=fields.count("ssm_state_size"),
                groups=fields.count("n_groups"),
                kernel=fields.count("conv_kernel", 4),
            )
            return Layer(mixer, None, norms)
        case "*":
            return Layer(grouped_attention(fields, family, 0), None, norms)
        case "-":
            return Layer(None, dense(fields, family, 0), norms)
        case _:
            return Layer(None, latent_experts(fields, family), norms)


def latent_experts(fields: Fields, family: Family) -> Ffn:
    """Build experts, at a narrower width where the block projects down first (Nemotron-3 Super)."""
    return replace(experts(fields, family), latent=fields.optional("moe_latent_size") or 0)


def jamba_mixer(fields: Fields, family: Family, index: int) -> Mixer:
    """Build a layer of Jamba: attention once in a period, else Mamba 1."""
    at = index % fields.count("attn_layer_period", 8) == fields.count("attn_layer_offset", 4, minimum=0)
    return grouped_attention(fields, family, index) if at else mamba1(fields)


def jamba_ffn(fields: Fields, family: Family, index: int) -> Ffn:
    """Build the feed-forward half of Jamba: experts once in a period."""
    at = index % fields.count("expert_layer_period", 2) == fields.count("expert_layer_offset", 1, minimum=0)
    return experts(fields, family) if at and fields.count("experts", 16) > 1 else dense(fields, family, index)


def bamba_mixer(fields: Fields, family: Family, index: int) -> Mixer:
    """Build a layer of Bamba or Granite 4: attention where listed, else Mamba 2."""
    listed = fields.items("attn_layer_indices")
    layers = fields.count("layers")
    types = fields.items("layer_types", layers) or fields.items("layers_block_type", layers)
    if listed is None and types is None:
        raise fields.missing("attn_layer_indices", "layer_types")
    attention = index in listed if listed is not None else types is not None and types[index] == "attention"
    return grouped_attention(fields, family, index) if attention else mamba2_of_prefix(fields)


def granite_hybrid_ffn(fields: Fields, family: Family, index: int) -> Ffn:
    """Build the feed-forward half of Granite 4: experts with a shared one, or only the shared one."""
    if fields.optional("experts"):
        return experts(fields, family)
    return dense(fields.derived({"intermediate_size": fields.count("shared_width")}), family, index)


def falcon_h1_layers(fields: Fields, family: Family) -> tuple[Layer, ...]:
    """Build Falcon-H1: attention and Mamba 2 side by side on one input, then a dense block."""
    hidden = fields.count("hidden")
    norm = fields.flag("mamba_rms_norm")
    attention = Layer(grouped_attention(fields, family, 0), None, hidden)
    state = Layer(mamba2_of_prefix(fields, norm=norm), dense_or_experts(fields, family, 0), hidden)
    return (attention, state) * fields.count("layers")


def zamba2_layers(fields: Fields, family: Family) -> tuple[Layer, ...]:
    """Refuse Zamba 2: its shared blocks hold one set of weights for many layers, which a layer list cannot
    say."""
    raise InputError(
        f"{fields.where}: zamba2 shares weights between layers, which is not modelled",
        hint="use another model",
    )
