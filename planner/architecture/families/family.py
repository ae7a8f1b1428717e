"""What a family is: class defaults and conventions as data, and two functions that build the halves of a
layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from planner.architecture.fields import Fields
from planner.architecture.model import Ffn, Layer, Mixer, Model

WindowRule = Callable[[Fields, int], bool]


@dataclass(frozen=True, slots=True)
class Family:
    """Conventions that a config.json leaves to the model class.

    Attributes
    ----------
    mixer, ffn : build the halves of layer ``index``; see attention.py and feedforward.py.
    defaults : values that the class assumes when the config is silent, by canonical or own field name.
    required : fields that are never assumed, by canonical or own name, with the smallest value allowed; with None
        a null is legal (see fields.py). Only what the layers of a config really need is asked for.
    norms : normalisations over ``hidden`` in a layer; ``norm_size``: parameters each has per feature (RMS 1,
        LayerNorm 2).
    qk_norm : normalisation of queries and keys: one scale for a head, or one over all heads.
    sinks: one learned attention sink per head.
    qkv_bias, output_bias, ffn_bias : True or False where the class decides, else the name of the config
        field.
    positions : extra rows of learned position embeddings beyond the longest context; None without such
        embeddings.
    nested : inner objects whose fields count as the config's own (``attn_config`` of DBRX).
    windows : which layers see a window, where the config has no ``layer_types``; None is all of them.
    adapt : changes conventions by what the config says; layers : builds all layers at once; finish : last
        touches.
    """

    mixer: Callable[[Fields, Family, int], Mixer | None]
    ffn: Callable[[Fields, Family, int], Ffn | None]
    defaults: Mapping[str, object] = field(default_factory=dict)
    required: Mapping[str, int | None] = field(default_factory=dict)
    norms: int = 2
    norm_size: int = 1
    qk_norm: Literal["", "head", "full"] = ""
    qkv_bias: bool | str = "attention_bias"
    output_bias: bool | str = "attention_bias"
    ffn_bias: bool | str = "mlp_bias"
    expert_bias: bool = False
    gated: bool = True
    router_bias: bool = False
    shared_gate: bool = False
    head_bias: bool = False
    sinks: bool = False
    positions: int | None = None
    nested: tuple[str, ...] = ()
    windows: WindowRule | None = None
    adapt: Callable[[Fields, Family], Family] | None = None
    layers: Callable[[Fields, Family], tuple[Layer, ...]] | None = None
    finish: Callable[[Fields, Model], Model] | None = None


def decide(fields: Fields, rule: bool | str) -> bool:
    """Resolve a bias rule: the class decides, or the config field of that name does."""
    return fields.flag(rule) if isinstance(rule, str) else rule


def is_layer(fields: Fields, name: str, index: int, layers: int, *values: object) -> bool | None:
    """Say whether entry ``index`` of the list ``name`` is one of ``values``; None where the config has no
    list."""
    items = fields.items(name, layers)
    return None if items is None else items[index] in values
