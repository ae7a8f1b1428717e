"""The families by ``model_type``: conventions as data. A new family of known parts is one entry here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from planner.architecture.families import deepseek_v4, gemma4, hybrids, recurrent, variants
from planner.architecture.families.attention import (
    beyond_max_window_layers,
    every,
    grouped_attention,
    latent_attention,
)
from planner.architecture.families.family import Family
from planner.architecture.families.feedforward import dense_or_experts

_TIED: Final = {"tie_word_embeddings": True}


def _with(base: Family, defaults: Mapping[str, object] | None = None, **changes: Any) -> Family:
    """Derive a family: changed conventions, and class defaults on top of those of the base."""
    return replace(base, defaults={**base.defaults, **(defaults or {})}, **changes)


_LLAMA: Final = Family(grouped_attention, dense_or_experts)
_QKV_BIAS: Final = _with(_LLAMA, output_bias=False)
_QWEN2: Final = _with(
    _LLAMA, {"use_sliding_window": False}, qkv_bias=True, output_bias=False, windows=beyond_max_window_layers
)
_QWEN3: Final = _with(
    _LLAMA, {"use_sliding_window": False, "head_dim": 128}, qk_norm="head", windows=beyond_max_window_layers
)
_QWEN3_NEXT: Final = _with(_QWEN3, {"head_dim": 256}, mixer=recurrent.delta_or_attention, shared_gate=True)
_DEEPSEEK: Final = Family(latent_attention, dense_or_experts)
_GPT: Final = _with(
    _LLAMA, _TIED, norm_size=2, qkv_bias=True, output_bias=True, ffn_bias=True, gated=False, positions=0
)
_ROTARY_GPT: Final = _with(_GPT, {"tie_word_embeddings": False}, positions=None)
_GEMMA: Final = _with(_LLAMA, {**_TIED, "head_dim": 256})
_GEMMA2: Final = _with(_GEMMA, {"sliding_window": 4096}, norms=4, windows=every(2))
_GEMMA3: Final = _with(
    _GEMMA2,
    {
        "sliding_window": 4096,
        "vocab_size": 262_208,
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
    },
    qk_norm="head",
    windows=every(6),
)
_COHERE: Final = _with(_LLAMA, _TIED, norms=1, qk_norm="full", adapt=variants.qk_norm_if_used)
_OLMO2: Final = _with(_LLAMA, qk_norm="full")
_PHI: Final = _with(_ROTARY_GPT, norms=1, head_bias=True)
_MINIMAX: Final = _with(_LLAMA, mixer=recurrent.lightning_or_attention)
_GRANITE: Final = _with(_LLAMA, _TIED)
_BAMBA: Final = _with(_LLAMA, mixer=hybrids.bamba_mixer)

FAMILIES: Final[Mapping[str, Family]] = {
    # Llama and what differs from it by defaults, biases or norms only
    "llama": _LLAMA,
    "mistral": _with(_LLAMA, {"sliding_window": 4096}),
    "ministral": _with(_LLAMA, {"sliding_window": 4096}),
    "ministral3": _LLAMA,
    "mixtral": _LLAMA,
    "mllama": _with(_LLAMA, layers=variants.mllama_layers, finish=variants.mllama_finish),
    "llama4": _with(_LLAMA, mixer=variants.llama4_attention, ffn=variants.llama4_ffn),
    "yi": _LLAMA,
    "baichuan": _with(_LLAMA, qkv_bias=False, output_bias=False),
    "internlm": _with(_LLAMA, qkv_bias="bias", output_bias="bias"),
    "internlm2": _with(_LLAMA, qkv_bias="bias", output_bias="bias"),
    "internlm3": _with(_LLAMA, qkv_bias="qkv_bias", output_bias="bias", ffn_bias="bias"),
    "seed_oss": _with(_LLAMA, qkv_bias=True, output_bias="attention_out_bias"),
    "smollm3": _with(_LLAMA, {"use_sliding_window": False}),
    "minicpm": _with(_LLAMA, _TIED),
    "minicpm3": _with(_DEEPSEEK, {**_TIED, "v_head_dim": 64}),
    "exaone4": _with(_LLAMA, qk_norm="head", windows=every(4)),
    "arcee": _with(_LLAMA, gated=False),
    "phi3": _with(_LLAMA, qkv_bias=False, output_bias=False, ffn_bias=False),
    "phi3small": _with(_LLAMA, _TIED, norm_size=2, qkv_bias=True, output_bias=True, ffn_bias=True),
    "phimoe": _with(_LLAMA, norm_size=2),
    "step3": _with(_LLAMA, mixer=variants.step3_attention, ffn=variants.step3_ffn),
    "step3p5": _with(
        _LLAMA, {"moe_layer_offset": 3}, mixer=variants.step3p5_attention, ffn=variants.step3_ffn, qk_norm="head"
    ),
    "step3p7": _with(
        _LLAMA, {"moe_layer_offset": 3}, mixer=variants.step3p5_attention, ffn=variants.step3_ffn, qk_norm="head"
    ),
    "nemotron-nas": _with(_LLAMA, layers=variants.nemotron_nas_layers),
    "nemotron": _with(_LLAMA, norm_size=2, gated=False),
    "PanguProMoE": _LLAMA,
    "litgpt": _with(_LLAMA, adapt=variants.litgpt_conventions),
    # Qwen
    "qwen": _with(_LLAMA, qkv_bias=True, output_bias=False, ffn=variants.half_width),
    "qwen2": _QWEN2,
    "qwen2_vl": _QWEN2,
    "qwen2_5_vl": _QWEN2,
    "qwen2_moe": _with(_QWEN2, shared_gate=True),
    "qwen3": _QWEN3,
    "qwen3_moe": _QWEN3,
    "qwen3_vl": _QWEN3,
    "qwen3_vl_moe": _QWEN3,
    "qwen3_next": _QWEN3_NEXT,
    "qwen3_5": _QWEN3_NEXT,
    "qwen3_5_moe": _QWEN3_NEXT,
    "mimo": _QWEN2,
    "mimo_v2": _with(_LLAMA, mixer=variants.mimo_v2_attention, output_bias=False),
    "mimo_v2_flash": _with(_LLAMA, mixer=variants.mimo_v2_attention, output_bias=False),
    # Latent attention
    "deepseek": _LLAMA,
    "deepseek_v2": _DEEPSEEK,
    "deepseek_v3": _DEEPSEEK,
    "deepseek_v32": _DEEPSEEK,
    "deepseek_v4": _with(
        _LLAMA,
        mixer=deepseek_v4.attention,
        ffn=deepseek_v4.ffn,
        finish=deepseek_v4.finish,
        qkv_bias=False,
        output_bias=False,
    ),
    "kimi_k2": _DEEPSEEK,
    "glm_moe_dsa": _DEEPSEEK,
    "glm4_moe_lite": _DEEPSEEK,
    "longcat_flash": _with(_DEEPSEEK, layers=variants.longcat_layers),
    "kimi_linear": _with(_DEEPSEEK, mixer=recurrent.kimi_delta_or_latent, router_bias=True),
    # GLM, ERNIE, Hunyuan, MiniMax, dots
    "chatglm": _with(_LLAMA, mixer=variants.chatglm_attention, qkv_bias="add_qkv_bias", output_bias="add_bias_linear"),
    "glm": _with(_QKV_BIAS, {"head_dim": 128}),
    "glm4": _with(_QKV_BIAS, {"head_dim": 128}, norms=4),
    "glm4_moe": _with(_QKV_BIAS, router_bias=True, qk_norm="head", adapt=variants.qk_norm_if_used),
    "ernie4_5": _with(_LLAMA, _TIED, qkv_bias="use_bias", output_bias="use_bias", ffn_bias="use_bias"),
    "ernie4_5_moe": _with(_LLAMA, _TIED, qkv_bias="use_bias", output_bias="use_bias", ffn=variants.ernie_ffn),
    "hunyuan_v1_dense": _with(_LLAMA, qk_norm="head"),
    "hunyuan_v1_moe": _with(
        _LLAMA,
        {"use_qk_norm": True},
        qk_norm="head",
        adapt=variants.qk_norm_if_used,
        ffn=variants.hunyuan_experts,
    ),
    "dots1": _with(_LLAMA, qk_norm="head"),
    "minimax": _MINIMAX,
    "minimax_text_01": _MINIMAX,
    "minimax_m1": _MINIMAX,
    "minimax_m2": _with(_LLAMA, {"use_qk_norm": True}, qk_norm="full", adapt=variants.qk_norm_if_used),
    "minimax_m3": _with(
        _LLAMA,
        mixer=variants.minimax_m3_attention,
        ffn=variants.minimax_m3_ffn,
        qk_norm="head",
        router_bias=True,
    ),
    "minimax_m3_vl": _with(
        _LLAMA,
        mixer=variants.minimax_m3_attention,
        ffn=variants.minimax_m3_ffn,
        qk_norm="head",
        router_bias=True,
    ),
    # OpenAI, Google, Cohere, AI2, IBM, Databricks, Snowflake
    "gpt_oss": _with(
        _LLAMA,
        {"attention_bias": True, "head_dim": 64, "sliding_window": 128},
        expert_bias=True,
        router_bias=True,
        sinks=True,
        windows=every(2),
    ),
    "gemma": _GEMMA,
    "gemma2": _GEMMA2,
    "gemma3": _GEMMA3,
    "gemma4": _with(_GEMMA3, {"sliding_window": 512}, mixer=gemma4.attention, ffn=gemma4.ffn, finish=gemma4.finish),
    "cohere": _COHERE,
    "cohere2": _with(_COHERE, {"sliding_window": 4096}, windows=every(4)),
    "olmo": _with(_LLAMA, norm_size=0),
    "olmo2": _OLMO2,
    "olmo3": _with(_OLMO2, {"sliding_window": 4096}, windows=every(4)),
    "olmoe": _with(_OLMO2, {"num_experts": 64, "num_experts_per_tok": 8}),
    "granite": _GRANITE,
    "granitemoe": _GRANITE,
    "granitemoeshared": _GRANITE,
    "dbrx": _with(_LLAMA, nested=("attn_config", "ffn_config")),
    "arctic": _with(_LLAMA, ffn=variants.arctic_ffn),
    # GPT and its kin
    "gpt2": _GPT,
    "gpt3_like": _GPT,
    "gpt_bigcode": _with(_GPT, mixer=variants.multi_query_attention),
    "opt": _with(_GPT, positions=2),
    "gptj": _with(_ROTARY_GPT, norms=1, qkv_bias=False, output_bias=False, head_bias=True),
    "gpt_neox": _ROTARY_GPT,
    "phi": _PHI,
    "phi-msft": _PHI,
    "bloom": _with(_GPT, positions=None, finish=variants.bloom_finish),
    "falcon": _with(
        _GPT,
        mixer=variants.falcon_attention,
        positions=None,
        norms=1,
        qkv_bias="bias",
        output_bias="bias",
        ffn_bias="bias",
        adapt=variants.falcon_norms,
    ),
    "mpt": _with(
        _GPT,
        nested=("attn_config",),
        ffn=variants.mpt_ffn,
        norm_size=1,
        qkv_bias=False,
        output_bias=False,
        positions=None,
    ),
    "starcoder2": _with(
        _GPT,
        {"sliding_window": 4096},
        positions=None,
        qkv_bias="use_bias",
        output_bias="use_bias",
        ffn_bias="use_bias",
    ),
    "stablelm": _with(
        _LLAMA,
        norm_size=2,
        qkv_bias="use_qkv_bias",
        output_bias=False,
        adapt=variants.one_norm_in_parallel,
    ),
    # State space hybrids
    "nemotron_h": _with(_LLAMA, gated=False, router_bias=True, layers=hybrids.nemotron_h_layers),
    "jamba": _with(_LLAMA, mixer=hybrids.jamba_mixer, ffn=hybrids.jamba_ffn),
    "bamba": _BAMBA,
    "granitemoehybrid": _with(_BAMBA, _TIED, ffn=hybrids.granite_hybrid_ffn),
    "falcon_h1": _with(_LLAMA, layers=hybrids.falcon_h1_layers),
    "zamba2": _with(_LLAMA, layers=hybrids.zamba2_layers),
    "lfm2": _with(_LLAMA, _TIED, mixer=recurrent.convolution_or_attention, qk_norm="head"),
    "lfm2_moe": _with(_LLAMA, _TIED, mixer=recurrent.convolution_or_attention, qk_norm="head", router_bias=True),
}
