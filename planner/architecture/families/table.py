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


def _with(
    base: Family,
    defaults: Mapping[str, object] | None = None,
    required: Mapping[str, int | None] | None = None,
    **changes: Any,
) -> Family:
    """Derive a family: changed conventions, and class defaults and required fields on top of those of the
    base."""
    return replace(
        base,
        defaults={**base.defaults, **(defaults or {})},
        required={**base.required, **(required or {})},
        **changes,
    )


# What a class has a number for that fits one model only, so that nothing is assumed; None: a null is legal.
_KV: Final[Mapping[str, int | None]] = {"kv_heads": None}  # else all heads, which is what a null means
_MIXTURE: Final[Mapping[str, int | None]] = {"experts": 1}  # experts as wide as intermediate_size
_MOE: Final[Mapping[str, int | None]] = {"experts": 1, "expert_width": 1}
_SHARED: Final[Mapping[str, int | None]] = {**_MOE, "shared_experts": None}
_SHARED_WIDTH: Final[Mapping[str, int | None]] = {**_MOE, "shared_width": 0}
_AFTER_DENSE: Final[Mapping[str, int | None]] = {**_SHARED, "dense_layers": 0}
_LATENT: Final[Mapping[str, int | None]] = {"q_lora_rank": None}


_LLAMA: Final = Family(grouped_attention, dense_or_experts)
_QKV_BIAS: Final = _with(_LLAMA, output_bias=False)
_QWEN: Final = _with(
    _LLAMA, {"use_sliding_window": False, "sliding_window": 4096}, _KV, windows=beyond_max_window_layers
)
_QWEN2: Final = _with(_QWEN, qkv_bias=True, output_bias=False)
_QWEN3: Final = _with(_QWEN, {"head_dim": 128}, qk_norm="head")
_QWEN3_MOE: Final = _with(_QWEN3, required={**_MOE, "head_dim": 1})
_QWEN3_5: Final = _with(_QWEN3, {"head_dim": 256}, mixer=recurrent.delta_or_attention, shared_gate=True)
_QWEN3_NEXT: Final = _with(_QWEN3_5, required=_SHARED_WIDTH)
_LATENT_ATTENTION: Final = Family(latent_attention, dense_or_experts)
_DEEPSEEK_V2: Final = _with(_LATENT_ATTENTION, required={**_LATENT, **_AFTER_DENSE})
_DEEPSEEK: Final = _with(_DEEPSEEK_V2, {"topk_method": "noaux_tc"})
_SPARSE: Final = _with(_DEEPSEEK, required={"index_topk": 1})
_GPT: Final = _with(
    _LLAMA, _TIED, norm_size=2, qkv_bias=True, output_bias=True, ffn_bias=True, gated=False, positions=0
)
_ROTARY_GPT: Final = _with(_GPT, {"tie_word_embeddings": False}, positions=None)
_GEMMA_BASE: Final = _with(_LLAMA, {**_TIED, "head_dim": 256})
_GEMMA: Final = _with(_GEMMA_BASE, required=_KV)
_GEMMA2: Final = _with(_GEMMA, {"sliding_window": 4096}, norms=4, windows=every(2))
_GEMMA3: Final = _with(
    _GEMMA_BASE,
    {
        "sliding_window": 4096,
        "vocab_size": 262_208,
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
    },
    norms=4,
    qk_norm="head",
    windows=every(6),
)
_COHERE: Final = _with(_LLAMA, _TIED, norms=1, qk_norm="full", adapt=variants.qk_norm_if_used)
_OLMO2: Final = _with(_LLAMA, qk_norm="full")
_PHI: Final = _with(_ROTARY_GPT, norms=1, head_bias=True)
_MINIMAX: Final = _with(_LLAMA, required={**_KV, **_MIXTURE, "head_dim": 1}, mixer=recurrent.lightning_or_attention)
_MINIMAX_M3: Final = _with(
    _LLAMA,
    {"head_dim": 128},
    {**_KV, **_MIXTURE, "shared_width": 0},
    mixer=variants.minimax_m3_attention,
    ffn=variants.minimax_m3_ffn,
    qk_norm="head",
    router_bias=True,
)
_GRANITE_MOE: Final = _with(_LLAMA, required=_MIXTURE)
_BAMBA: Final = _with(_LLAMA, mixer=hybrids.bamba_mixer)
_STEP3P5: Final = _with(
    _LLAMA,
    {"moe_layer_offset": 3, "head_dim": 128},
    {**_KV, **_SHARED_WIDTH, "layer_types": None},
    mixer=variants.step3p5_attention,
    ffn=variants.step3_ffn,
    qk_norm="head",
)
_MIMO_V2: Final = _with(
    _LLAMA,
    required={
        **_KV,
        **_SHARED,
        "dense_layers": 0,
        "head_dim": 1,
        "value_dim": 1,
        "window": None,
        "swa_num_attention_heads": 1,
        "swa_num_key_value_heads": 1,
        "swa_head_dim": 1,
        "swa_v_head_dim": 1,
    },
    mixer=variants.mimo_v2_attention,
    output_bias=False,
)

FAMILIES: Final[Mapping[str, Family]] = {
    # Llama and what differs from it by defaults, biases or norms only
    "llama": _LLAMA,
    "mistral": _with(_LLAMA, {"sliding_window": 4096}, _KV),
    "ministral": _with(_LLAMA, {"sliding_window": 4096}, _KV),
    "ministral3": _with(_LLAMA, {"head_dim": 128}, _KV),
    "mixtral": _with(_LLAMA, required={**_KV, **_MIXTURE}),
    "mllama": _with(
        _LLAMA,
        required={**_KV, "cross_attention_layers": None},
        layers=variants.mllama_layers,
        finish=variants.mllama_finish,
    ),
    "llama4": _with(
        _LLAMA,
        {"head_dim": 128, "attention_chunk_size": 8192},
        {**_KV, **_MIXTURE},
        mixer=variants.llama4_attention,
        ffn=variants.llama4_ffn,
    ),
    "yi": _LLAMA,
    "baichuan": _with(_LLAMA, qkv_bias=False, output_bias=False),
    "internlm": _with(_LLAMA, qkv_bias="bias", output_bias="bias"),
    "internlm2": _with(_LLAMA, qkv_bias="bias", output_bias="bias"),
    "internlm3": _with(_LLAMA, {"head_dim": 128}, _KV, qkv_bias="qkv_bias", output_bias="bias", ffn_bias="bias"),
    "seed_oss": _with(_LLAMA, {"attention_bias": True, "head_dim": 128}, _KV, output_bias="attention_out_bias"),
    "smollm3": _with(_LLAMA, {**_TIED, "use_sliding_window": False}, _KV),
    "minicpm": _with(_LLAMA, _TIED),
    "minicpm3": _with(_LATENT_ATTENTION, _TIED, _LATENT, mixer=variants.minicpm3_attention),
    "exaone4": _with(_LLAMA, {"sliding_window": 4096}, _KV, qk_norm="head", windows=every(4)),
    "arcee": _with(_LLAMA, required={"width": 1}, gated=False),
    "phi3": _with(_LLAMA, qkv_bias=False, output_bias=False, ffn_bias=False),
    "phi3small": _with(_LLAMA, _TIED, _KV, norm_size=2, qkv_bias=True, output_bias=True, ffn_bias=True),
    "phimoe": _with(_LLAMA, required={**_KV, **_MIXTURE}, norm_size=2),
    "step3": _with(
        _LLAMA,
        required={**_KV, **_SHARED_WIDTH, "head_dim": 1, "moe_layers_enum": None},
        mixer=variants.step3_attention,
        ffn=variants.step3_ffn,
    ),
    "step3p5": _STEP3P5,
    "step3p7": _STEP3P5,
    "nemotron-nas": _with(_LLAMA, layers=variants.nemotron_nas_layers),
    "nemotron": _with(_LLAMA, required={"width": 1}, norm_size=2, gated=False),
    "PanguProMoE": _with(_LLAMA, required={**_KV, **_SHARED_WIDTH}),
    "litgpt": _with(_LLAMA, adapt=variants.litgpt_conventions),
    # Qwen
    "qwen": _with(_LLAMA, qkv_bias=True, output_bias=False, ffn=variants.half_width),
    "qwen2": _QWEN2,
    "qwen2_vl": _QWEN2,
    "qwen2_5_vl": _QWEN2,
    "qwen2_moe": _with(_QWEN2, {"qkv_bias": True}, _SHARED_WIDTH, qkv_bias="qkv_bias", shared_gate=True),
    "qwen3": _QWEN3,
    "qwen3_moe": _QWEN3_MOE,
    "qwen3_vl": _QWEN3,
    "qwen3_vl_moe": _with(_QWEN3_MOE, required={"tied": None}),
    "qwen3_next": _QWEN3_NEXT,
    "qwen3_5": _QWEN3_5,
    "qwen3_5_moe": _QWEN3_NEXT,
    "mimo": _QWEN2,
    "mimo_v2": _MIMO_V2,
    "mimo_v2_flash": _MIMO_V2,
    # Latent attention
    "deepseek": _with(_LLAMA, required=_AFTER_DENSE),
    "deepseek_v2": _DEEPSEEK_V2,
    "deepseek_v3": _DEEPSEEK,
    "deepseek_v32": _SPARSE,
    "deepseek_v4": _with(
        _LLAMA,
        required=_SHARED,
        mixer=deepseek_v4.attention,
        ffn=deepseek_v4.ffn,
        finish=deepseek_v4.finish,
        qkv_bias=False,
        output_bias=False,
    ),
    "kimi_k2": _DEEPSEEK,
    "glm_moe_dsa": _SPARSE,
    "glm4_moe_lite": _DEEPSEEK,
    "longcat_flash": _with(
        _LATENT_ATTENTION,
        required={**_LATENT, **_MOE, "zero_expert_num": 0},
        layers=variants.longcat_layers,
    ),
    "kimi_linear": _with(
        _LATENT_ATTENTION,
        required=_AFTER_DENSE,
        mixer=recurrent.kimi_delta_or_latent,
        router_bias=True,
    ),
    # GLM, ERNIE, Hunyuan, MiniMax, dots
    "chatglm": _with(
        _LLAMA,
        {"head_dim": 128},
        {"multi_query_attention": None, "multi_query_group_num": 1},
        mixer=variants.chatglm_attention,
        qkv_bias="add_qkv_bias",
        output_bias="add_bias_linear",
    ),
    "glm": _with(_QKV_BIAS, {"head_dim": 128, "attention_bias": True}, _KV),
    "glm4": _with(_QKV_BIAS, {"head_dim": 128, "attention_bias": True}, _KV, norms=4),
    "glm4_moe": _with(
        _QKV_BIAS,
        required={**_KV, **_AFTER_DENSE},
        router_bias=True,
        qk_norm="head",
        adapt=variants.qk_norm_if_used,
    ),
    "ernie4_5": _with(
        _LLAMA, {**_TIED, "head_dim": 128}, _KV, qkv_bias="use_bias", output_bias="use_bias", ffn_bias="use_bias"
    ),
    "ernie4_5_moe": _with(
        _LLAMA,
        _TIED,
        {**_KV, **_SHARED},
        qkv_bias="use_bias",
        output_bias="use_bias",
        ffn=variants.ernie_ffn,
    ),
    "hunyuan_v1_dense": _with(_LLAMA, qk_norm="head"),
    "hunyuan_v1_moe": _with(
        _LLAMA,
        {"use_qk_norm": True},
        {**_MIXTURE, "shared_experts": None},
        qk_norm="head",
        adapt=variants.qk_norm_if_used,
        ffn=variants.hunyuan_experts,
    ),
    "dots1": _with(
        _LLAMA,
        {"topk_method": "noaux_tc", "sliding_window": 4096, "max_window_layers": 62},
        {**_KV, **_AFTER_DENSE},
        qk_norm="head",
        windows=beyond_max_window_layers,
    ),
    "minimax": _MINIMAX,
    "minimax_text_01": _MINIMAX,
    "minimax_m1": _MINIMAX,
    "minimax_m2": _with(
        _LLAMA,
        {"use_qk_norm": True, "use_routing_bias": True, "head_dim": 128},
        {**_KV, **_MIXTURE},
        qk_norm="full",
        adapt=variants.qk_norm_if_used,
    ),
    "minimax_m3": _MINIMAX_M3,
    "minimax_m3_vl": _MINIMAX_M3,
    # OpenAI, Google, Cohere, AI2, IBM, Databricks, Snowflake
    "gpt_oss": _with(
        _LLAMA,
        {"attention_bias": True, "head_dim": 64, "sliding_window": 128},
        {**_KV, **_MIXTURE},
        expert_bias=True,
        router_bias=True,
        sinks=True,
        windows=every(2),
    ),
    "gemma": _GEMMA,
    "gemma2": _GEMMA2,
    "gemma3": _GEMMA3,
    "gemma4": _with(
        _GEMMA3,
        {"sliding_window": 512, "vocab_size": 262_144, "global_head_dim": 512},
        _MOE,
        mixer=gemma4.attention,
        ffn=gemma4.ffn,
        finish=gemma4.finish,
    ),
    "cohere": _COHERE,
    "cohere2": _with(_COHERE, {"sliding_window": 4096}, windows=every(4)),
    "olmo": _with(_LLAMA, norm_size=0),
    "olmo2": _OLMO2,
    "olmo3": _with(_OLMO2, {"sliding_window": 4096}, windows=every(4)),
    "olmoe": _with(_OLMO2, {"num_experts": 64, "num_experts_per_tok": 8}),
    "granite": _LLAMA,
    "granitemoe": _GRANITE_MOE,
    "granitemoeshared": _with(_GRANITE_MOE, required={"shared_width": 0}),
    "dbrx": _with(_LLAMA, required={**_KV, **_MIXTURE}, nested=("attn_config", "ffn_config")),
    "arctic": _with(_LLAMA, required=_MIXTURE, ffn=variants.arctic_ffn),
    # GPT and its kin
    "gpt2": _GPT,
    "gpt3_like": _GPT,
    "gpt_bigcode": _with(_GPT, mixer=variants.multi_query_attention),
    "opt": _with(_GPT, required={"width": 1}, positions=2, adapt=variants.plain_embeddings),
    "gptj": _with(_ROTARY_GPT, norms=1, qkv_bias=False, output_bias=False, head_bias=True),
    "gpt_neox": _with(_ROTARY_GPT, required={"width": 1}),
    "phi": _with(_PHI, required={"width": 1}),
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
        {"use_bias": True},
        {**_KV, "width": 1},
        positions=None,
        qkv_bias="use_bias",
        output_bias="use_bias",
        ffn_bias="use_bias",
    ),
    "stablelm": _with(
        _LLAMA,
        required=_KV,
        norm_size=2,
        qkv_bias="use_qkv_bias",
        output_bias=False,
        adapt=variants.one_norm_in_parallel,
    ),
    # State space hybrids
    "nemotron_h": _with(
        _LLAMA,
        {"head_dim": 128},
        {**_KV, **_SHARED_WIDTH, "width": 1},
        gated=False,
        router_bias=True,
        layers=hybrids.nemotron_h_layers,
    ),
    "jamba": _with(_LLAMA, required={**_KV, **_MIXTURE}, mixer=hybrids.jamba_mixer, ffn=hybrids.jamba_ffn),
    "bamba": _with(_BAMBA, required=_KV),
    "granitemoehybrid": _with(_BAMBA, required={"experts": 0, "shared_width": 0}, ffn=hybrids.granite_hybrid_ffn),
    "falcon_h1": _with(_LLAMA, required={**_KV, "mamba_d_ssm": None}, layers=hybrids.falcon_h1_layers),
    "zamba2": _with(_LLAMA, layers=hybrids.zamba2_layers),
    "lfm2": _with(
        _LLAMA,
        _TIED,
        _KV,
        mixer=recurrent.convolution_or_attention,
        ffn=recurrent.lfm2_ffn,
        qk_norm="head",
    ),
    "lfm2_moe": _with(
        _LLAMA,
        _TIED,
        {**_KV, **_MOE, "dense_layers": 0},
        mixer=recurrent.convolution_or_attention,
        qk_norm="head",
        router_bias=True,
    ),
}
