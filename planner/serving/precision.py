"""Which precisions a search considers when the user names none."""

from __future__ import annotations

from collections.abc import Sequence

from planner.architecture.model import Model
from planner.architecture.precision import PRECISIONS, available_weights, precision_family
from planner.catalog.hardware import Accelerator
from planner.errors import UnknownNameError
from planner.serving.engine import Engine
from planner.serving.replica import KV_BYTES

ALL = "all"


def weight_choices(model: Model, accelerator: Accelerator, asked: Sequence[str]) -> tuple[str, ...]:
    """Weight precisions to try, in a fixed order.

    By default the checkpoint's own, and fp8 where the GPU multiplies it: both are what people deploy without
    an own quality
    study. ``all`` adds every quantisation that usual tools reach. Raises UnknownNameError.
    """
    if ALL in asked:
        return available_weights(model)
    if asked:
        for name in asked:
            if name not in PRECISIONS:
                raise UnknownNameError("weight precision", name, (*PRECISIONS, ALL))
        return tuple(dict.fromkeys(asked))
    own = precision_family(model.checkpoint.weights)
    reachable = "fp8" in accelerator.flops and own in ("bf16", "fp16")
    return (own, "fp8") if reachable else (own,)


def kv_choices(accelerator: Accelerator, weights: str, asked: Sequence[str], engine: Engine) -> tuple[str, ...]:
    """KV cache precisions to try: as asked, else bf16, and fp8 beside quantised weights on GPUs that have fp8."""
    for name in asked:
        if name not in KV_BYTES:
            raise UnknownNameError("KV precision", name, KV_BYTES)
    if asked:
        return tuple(dict.fromkeys(asked))
    if weights in ("bf16", "fp16") or "fp8" not in accelerator.flops:
        return ("bf16",)
    return ("fp8",) if engine.kv_follows_weights else ("bf16", "fp8")


def kv_default(model: Model, weights: str, engine: Engine, accelerator: Accelerator) -> str:
    """What an engine does when nothing is said: bf16, or fp8 where its quantised checkpoints bring it.

    4-bit checkpoints that were made from wider ones (NVIDIA ModelOpt, AMD Quark) carry scales of an fp8 cache, which
    every engine follows; models published in 4 bits (gpt-oss) do not. On GPUs with 4-bit units the deployments of some
    engines name an fp8 cache beside 8-bit weights (``kv_fp8_beside_fp4_units``).
    """
    if weights in ("bf16", "fp16"):
        return "bf16"
    if weights == "fp8" and engine.kv_fp8_beside_fp4_units and "fp4" in accelerator.flops:
        return "fp8"
    requantised = weights == "fp4" and precision_family(model.checkpoint.weights) != "fp4"
    return "fp8" if engine.kv_follows_weights or requantised else "bf16"
