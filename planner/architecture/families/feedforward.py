"""Feed-forward halves from config fields: dense blocks, experts in every naming, and which layers have
experts."""

from __future__ import annotations

from planner.architecture.families.family import Family, decide
from planner.architecture.fields import Fields
from planner.architecture.model import DenseFfn, Ffn, MoeFfn
from planner.errors import InputError


def dense(fields: Fields, family: Family, index: int) -> DenseFfn:
    """Build the dense block; without a width it is four times hidden, as in GPT-2."""
    width = fields.count("width", None if family.gated else 4 * fields.count("hidden"))
    return DenseFfn(width, gated=family.gated, bias=decide(fields, family.ffn_bias))


def dense_or_experts(fields: Fields, family: Family, index: int) -> Ffn:
    """Build the block of layer ``index``: experts where the config says so, else dense."""
    return experts(fields, family) if has_experts(fields, index) else dense(fields, family, index)


def experts(fields: Fields, family: Family, *_: object) -> MoeFfn:
    """Build routed and shared experts. Raises InputError when a token would use more experts than there
    are."""
    total, top_k = fields.count("experts"), fields.count("top_k")
    if top_k > total:
        raise InputError(
            f"{fields.where}: {top_k} experts per token, but only {total} experts", hint="check the config"
        )
    width = fields.optional("expert_width", minimum=1) or fields.count("width")
    return MoeFfn(
        experts=total,
        top_k=top_k,
        width=width,
        shared_width=shared_width(fields, width),
        gated=family.gated,
        bias=family.expert_bias,
        shared_gate=family.shared_gate,
        router_bias=family.router_bias or _has_correction(fields),
    )


def _has_correction(fields: Fields) -> bool:
    """Say whether the router corrects its scores by one learned number per expert (auxiliary-loss-free
    balancing)."""
    return fields.flag("use_routing_bias") or fields.text("topk_method") == "noaux_tc"


def shared_width(fields: Fields, expert_width: int) -> int:
    """Read the total width of the shared experts: given as such, or as a number of experts of the routed
    width."""
    number = fields.optional("shared_experts")
    given = fields.optional("shared_width")
    if given is not None:
        return given * (number if number is not None else 1)
    return (number or 0) * expert_width


def has_experts(fields: Fields, index: int) -> bool:
    """Decide whether layer ``index`` has experts, in every convention that hf_fields.md lists."""
    if not fields.optional("experts"):
        return False  # a family that always has experts requires their number, so this is a dense one
    layers = fields.count("layers")
    types = fields.items("mlp_layer_types", layers)
    if types is not None:
        return types[index] == "sparse"
    if index in (fields.items("mlp_only_layers") or ()):
        return False
    listed = isinstance(fields.raw("moe_layer_freq"), list)
    if (fields.states("dense_layers") or not listed) and index < (fields.optional("dense_layers") or 0):
        return False
    if listed:
        return bool((fields.items("moe_layer_freq", layers) or ())[index])
    if index % fields.count("moe_layer_freq", 1):
        return False
    return (index + 1) % fields.count("decoder_sparse_step", 1) == 0
