"""Weight formats: bytes per weight, the arithmetic their products use, and which parts a named precision
converts.

Sizes with scales: block fp8 has one float per 128 x 128 weights (DeepSeek-V3, arXiv 2412.19437), NVFP4 one
fp8 scale per 16 weights, MXFP4 one 8-bit exponent per 32 (OCP Microscaling formats 1.0), int4 one 16-bit
scale per 128.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from planner.architecture.model import Attention, Model, MoeFfn, Part
from planner.architecture.parameters import parameters_by_part, small_parameters
from planner.errors import UnknownNameError
from planner.units import Bytes


@dataclass(frozen=True, slots=True)
class WeightFormat:
    """How a matrix is stored and multiplied.

    Attributes
    ----------
    name : ``bf16``, ``fp8``, ``nvfp4`` ...
    bytes_per_weight : storage with its share of scales.
    math : operand type of the product, on hardware that has it; cost falls back to a wider one elsewhere.
        Weight-only formats (int8, int4, mxfp4) are widened in registers, so their products are bf16.
    native_math : what the product can use instead where the engine also quantises activations: int8 for int8
        weights (SmoothQuant), fp8 for mxfp4 on GPUs with block-scaled 4-bit units (Blackwell, CDNA 4), else
        None.
    """

    name: str
    bytes_per_weight: float
    math: str
    native_math: str | None = None


FORMATS: Final[Mapping[str, WeightFormat]] = {
    form.name: form
    for form in (
        WeightFormat("bf16", 2.0, "bf16"),
        WeightFormat("fp16", 2.0, "fp16"),
        WeightFormat("fp8", 1.0, "fp8"),
        WeightFormat("fp8_block", 1.0 + 4 / (128 * 128), "fp8_block"),
        WeightFormat("nvfp4", 0.5 + 1 / 16, "fp4"),
        WeightFormat("mxfp4", 0.5 + 1 / 32, "bf16", native_math="fp8"),
        WeightFormat("int8", 1.0, "bf16", native_math="int8"),
        WeightFormat("int4", 0.5 + 2 / 128, "bf16"),
        WeightFormat("int4_g32", 0.5 + 2 / 32, "bf16"),
    )
}
PRECISIONS: Final = ("bf16", "fp16", "fp8", "fp4", "mxfp4", "int8", "int4", "checkpoint")
_MATRICES: Final = (Part.ATTENTION, Part.FFN, Part.EXPERTS)
_STORED_AS: Final = {"fp4": "nvfp4"}
_FAMILY: Final = {"nvfp4": "fp4", "mxfp4": "fp4", "fp8_block": "fp8", "int4_g32": "int4"}


def weight_formats(model: Model, weights: str) -> Mapping[Part, WeightFormat]:
    """Return the format of every part at a named precision.

    ``checkpoint``, and any precision that the published checkpoint already has, keep the parts as published
    (gpt-oss and Kimi-K2.5 convert experts only). Otherwise the usual recipes hold: embedding, head and router
    stay wide; fp8, int8 and int4 convert all matrices of attention and feed-forward blocks; fp4 leaves
    attention wide unless all of it is plain softmax attention (nvidia/DeepSeek-R1-FP4 against the Llama FP4
    checkpoints); mxfp4 converts experts only where there are any. Raises UnknownNameError for another name.
    """
    if weights not in PRECISIONS:
        raise UnknownNameError("weight precision", weights, PRECISIONS)
    own = model.checkpoint
    if weights == "checkpoint" or (
        own.weights != "bf16" and precision_family(own.weights) == precision_family(weights)
    ):
        converted = dict(own.parts) or dict.fromkeys(Part, own.weights)
    else:
        name = _STORED_AS.get(weights, weights)
        converted = dict.fromkeys(Part if weights in ("bf16", "fp16") else _converted(model, weights), name)
    return {part: FORMATS[converted.get(part, "bf16")] for part in Part}


def precision_family(name: str) -> str:
    """Return the name a user gives to a format: nvfp4 and mxfp4 are fp4, block fp8 is fp8."""
    return _FAMILY.get(name, name)


def weight_bytes(model: Model, weights: str) -> Mapping[Part, Bytes]:
    """Count the bytes of all weights by part at a named precision; norms are in the part ``attention``."""
    formats = weight_formats(model, weights)
    sizes = {part: count * formats[part].bytes_per_weight for part, count in parameters_by_part(model).items()}
    sizes[Part.ATTENTION] += small_parameters(model) * FORMATS["bf16"].bytes_per_weight
    return sizes


def available_weights(model: Model) -> tuple[str, ...]:
    """List the precisions worth searching: the checkpoint's own, and those that usual quantisation reaches
    from it.

    A checkpoint is never widened: more bytes without more quality.
    """
    own = precision_family(model.checkpoint.weights)
    if own in ("bf16", "fp16"):
        return (own, "fp8", "fp4", "int8", "int4")
    return {"fp8": ("fp8", "fp4", "int4"), "fp4": ("fp4",)}.get(own, (own,))


def _converted(model: Model, weights: str) -> tuple[Part, ...]:
    if weights == "mxfp4" and any(isinstance(group.layer.ffn, MoeFfn) for group in model.groups):
        return (Part.EXPERTS,)
    plain = all(isinstance(group.layer.mixer, Attention | None) for group in model.groups)
    return _MATRICES if plain or weights != "fp4" else (Part.FFN, Part.EXPERTS)
