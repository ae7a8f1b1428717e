"""The precision of a published checkpoint, from quantization_config or a sibling hf_quant_config.json."""

from __future__ import annotations

from collections.abc import Mapping

from planner.architecture.model import Model


def read_checkpoint(
    model: Model, text: Mapping[str, object], modelopt: Mapping[str, object] | None, where: str
) -> Model:
    """Return the model with the precision that its files have."""
    return model
