"""The families by ``model_type``: conventions as data. A new family of known parts is one entry here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from planner.architecture.families.attention import (
    beyond_max_window_layers,
    every,
    grouped_attention,
    latent_attention,
)
from planner.architecture.families.family import Family
from planner.architecture.families.feedforward import dense_or_experts

_LLAMA: Final = Family(grouped_attention, dense_or_experts)
_QWEN2: Final = replace(
    _LLAMA,
    qkv_bias=True,
    output_bias=False,
    windows=beyond_max_window_layers,
    defaults={"use_sliding_window": False},
)
_QWEN2_MOE: Final = replace(_QWEN2, shared_gate=True)
_QWEN3: Final = replace(
    _LLAMA,
    qk_norm="head",
    windows=beyond_max_window_layers,
    defaults={"use_sliding_window": False, "head_dim": 128},
)
_DEEPSEEK: Final = Family(latent_attention, dense_or_experts)
_GPT_OSS: Final = replace(
    _LLAMA,
    expert_bias=True,
    router_bias=True,
    sinks=True,
    windows=every(2),
    defaults={"attention_bias": True, "head_dim": 64, "sliding_window": 128},
)

FAMILIES: Final[Mapping[str, Family]] = {
    "llama": _LLAMA,
    "mistral": replace(_LLAMA, defaults={"sliding_window": 4096}),
    "mixtral": _LLAMA,
    "qwen2": _QWEN2,
    "qwen2_moe": _QWEN2_MOE,
    "qwen3": _QWEN3,
    "qwen3_moe": _QWEN3,
    "deepseek_v2": _DEEPSEEK,
    "deepseek_v3": _DEEPSEEK,
    "kimi_k2": _DEEPSEEK,
    "deepseek_v32": _DEEPSEEK,
    "glm_moe_dsa": _DEEPSEEK,
    "gpt_oss": _GPT_OSS,
}
