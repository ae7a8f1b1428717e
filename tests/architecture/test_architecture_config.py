"""Import of config.json: every family, wrappers, precisions, and input that must be refused in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.architecture.config import LARGEST_CONFIG_BYTES, import_config, model_from_config
from planner.architecture.distill import distill, restore
from planner.architecture.families.table import FAMILIES
from planner.architecture.fields import ALIASES
from planner.architecture.model import Attention, LatentAttention, LinearAttention, Mamba, Model, MoeFfn, Part
from planner.architecture.parameters import active_parameters, mtp_parameters, total_parameters
from planner.architecture.state import layer_state_bytes
from planner.errors import InputError

PLAIN: dict[str, Any] = {
    "num_hidden_layers": 4,
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 96,
    "vocab_size": 100,
    "max_position_embeddings": 32,
}
LATENT = {"kv_lora_rank": 16, "q_lora_rank": 24, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 8}
EXPERTS = {"n_routed_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
MIXTURE = {"num_local_experts": 8, "num_experts_per_tok": 2}  # experts as wide as intermediate_size
SHARED = {**EXPERTS, "n_shared_experts": 1}
SHARED_WIDTH = {**EXPERTS, "shared_expert_intermediate_size": 48}
AFTER_DENSE = {**SHARED, "first_k_dense_replace": 1}
LINEAR = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_conv_kernel_dim": 4,
}
MAMBA2 = {"mamba_n_heads": 8, "mamba_d_head": 16, "mamba_d_state": 16, "mamba_n_groups": 1, "mamba_d_conv": 4}
NEEDED: dict[str, dict[str, Any]] = {
    **{name: {**LATENT, **AFTER_DENSE} for name in ("deepseek_v2", "deepseek_v3", "kimi_k2", "glm4_moe_lite")},
    **dict.fromkeys(("deepseek", "dots1", "glm4_moe"), AFTER_DENSE),
    **dict.fromkeys(("mixtral", "phimoe", "gpt_oss", "minimax_m2", "granitemoe"), MIXTURE),
    **{
        name: {**MIXTURE, "head_dim": 16, "layer_types": ["linear_attention", "full_attention"] * 2}
        for name in ("minimax", "minimax_text_01", "minimax_m1")
    },
    "granitemoeshared": {**MIXTURE, "shared_intermediate_size": 48},
    "hunyuan_v1_moe": {"num_experts": 8, "moe_topk": 2, "num_shared_expert": 1},
    "mllama": {"cross_attention_layers": [1]},
    "chatglm": {"multi_query_attention": True, "multi_query_group_num": 2},
    "opt": {"ffn_dim": 96},
    **dict.fromkeys(("qwen2_moe", "PanguProMoE"), SHARED_WIDTH),
    "qwen3_moe": {**EXPERTS, "head_dim": 16},
    "qwen3_vl_moe": {**EXPERTS, "head_dim": 16, "tie_word_embeddings": False},
    **{
        name: {
            **SHARED,
            "hybrid_layer_pattern": [0, 1, 1, 0],
            "moe_layer_freq": [0, 1, 1, 1],
            "sliding_window": 8,
            "head_dim": 16,
            "v_head_dim": 8,
            "swa_num_attention_heads": 4,
            "swa_num_key_value_heads": 4,
            "swa_head_dim": 16,
            "swa_v_head_dim": 8,
        }
        for name in ("mimo_v2", "mimo_v2_flash")
    },
    **{
        name: {**LATENT, **AFTER_DENSE, "index_topk": 8, "index_n_heads": 2, "index_head_dim": 8}
        for name in ("deepseek_v32", "glm_moe_dsa")
    },
    "minicpm3": LATENT,
    "longcat_flash": {**LATENT, **EXPERTS, "zero_expert_num": 4},
    "kimi_linear": {
        **LATENT,
        **AFTER_DENSE,
        "linear_attn_config": {"full_attn_layers": [4], "num_heads": 4, "head_dim": 8},
    },
    "deepseek_v4": {
        **SHARED,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "q_lora_rank": 24,
        "o_lora_rank": 8,
        "o_groups": 2,
        "index_topk": 8,
        "index_n_heads": 2,
        "index_head_dim": 8,
        "compress_ratios": [0, 128, 4, 128],
    },
    "qwen3_5": LINEAR,
    **{name: {**LINEAR, **SHARED_WIDTH} for name in ("qwen3_next", "qwen3_5_moe")},
    "llama4": {
        "num_local_experts": 8,
        "num_experts_per_tok": 1,
        "intermediate_size_mlp": 128,
        "interleave_moe_layer_step": 1,
        "attention_chunk_size": 8,
    },
    "ernie4_5_moe": SHARED,
    "arctic": {"num_local_experts": 8, "num_experts_per_tok": 2},
    "nemotron-nas": {
        "block_configs": [
            {"attention": {"n_heads_in_group": 2}, "ffn": {"ffn_mult": 2.0}},
            {"attention": {"no_op": True}, "ffn": {"ffn_mult": 1.0}},
            {"attention": {"n_heads_in_group": 4}, "ffn": {"no_op": True}},
            {"attention": {"n_heads_in_group": 2}, "ffn": {"ffn_mult": 2.0}},
        ]
    },
    "step3": {"share_q_dim": 32, **EXPERTS, "share_expert_dim": 32, "moe_layers_enum": "1,2", "head_dim": 16},
    "nemotron_h": {
        "hybrid_override_pattern": "M*-E",
        "mamba_num_heads": 8,
        "mamba_head_dim": 16,
        "ssm_state_size": 16,
        "n_groups": 1,
        **EXPERTS,
        "moe_shared_expert_intermediate_size": 48,
    },
    "step3p5": {
        "moe_num_experts": 8,
        "moe_top_k": 2,
        "share_expert_dim": 32,
        "moe_intermediate_size": 32,
        "layer_types": ["full_attention"] * 4,
    },
    "step3p7": {**EXPERTS, "share_expert_dim": 32, "layer_types": ["full_attention"] * 4},
    **{
        name: {
            **EXPERTS,
            "shared_intermediate_size": 32,
            "dense_intermediate_size": 96,
            "moe_layer_freq": [0, 1, 1, 1],
            "sparse_attention_config": {"sparse_attention_freq": [0, 1, 1, 1], "sparse_block_size": 16},
        }
        for name in ("minimax_m3", "minimax_m3_vl")
    },
    "jamba": {"num_experts": 8, "num_experts_per_tok": 2},
    "bamba": {**MAMBA2, "attn_layer_indices": [1]},
    "granitemoehybrid": {
        **MAMBA2,
        "layer_types": ["mamba", "attention", "mamba", "mamba"],
        "num_local_experts": 0,
        "shared_intermediate_size": 64,
    },
    "falcon_h1": {**MAMBA2, "mamba_d_ssm": 128},
    "lfm2": {"layer_types": ["conv", "full_attention", "conv", "conv"]},
    "lfm2_moe": {**EXPERTS, "num_dense_layers": 2, "layer_types": ["conv", "full_attention", "conv", "conv"]},
    "dbrx": {"kv_n_heads": 2, "ffn_config": {"ffn_hidden_size": 32, "moe_num_experts": 8, "moe_top_k": 2}},
}


def build(model_type: str, **changes: Any) -> Model:
    config = {**PLAIN, "model_type": model_type, **NEEDED.get(model_type, {}), **changes}
    return model_from_config({key: value for key, value in config.items() if value is not ...}, name="test")


@pytest.mark.parametrize("model_type", sorted(set(FAMILIES) - {"zamba2"}))
def test_every_family_is_read_and_survives_the_catalog_form(model_type: str) -> None:
    model = build(model_type)
    assert total_parameters(model) >= active_parameters(model) > 0
    assert restore(distill(model)) == model


def test_every_reference_config_is_read(shared_catalog: Path) -> None:
    files = sorted((shared_catalog / "hf_configs").rglob("*.json"))
    models = [import_config(file) for file in files]
    assert len(models) == len(files) > 100
    assert all(total_parameters(model) > 1e7 for model in models)


def test_a_llama_has_the_parameters_of_its_matrices() -> None:
    # embedding and head, then per layer q and o, k and v, three of the block, two norms; and the last norm
    expected = 2 * 100 * 64 + 4 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 96 + 2 * 64) + 64
    assert total_parameters(build("llama")) == expected


def test_kv_heads_default_to_all_heads() -> None:
    mixer = build("phi3", num_key_value_heads=None).layers[0].mixer
    assert isinstance(mixer, Attention) and mixer.kv_heads == 4


def test_a_class_default_fills_a_silent_config() -> None:
    assert build("gemma").tied_embeddings and not build("llama").tied_embeddings
    mixer = build("qwen3").layers[0].mixer
    assert isinstance(mixer, Attention) and mixer.head_dim == 128


def test_a_multimodal_wrapper_is_unwrapped_and_passes_on_what_the_inner_part_lacks() -> None:
    inner = {**PLAIN, "model_type": "qwen3_vl_text", "head_dim": 16}
    model = model_from_config({"model_type": "qwen3_vl", "tie_word_embeddings": True, "text_config": inner}, name="x")
    assert model.tied_embeddings and model.hidden == 64


@pytest.mark.parametrize(
    ("model_type", "changes", "moe_layers"),
    [
        ("deepseek_v3", {"first_k_dense_replace": 1, "moe_layer_freq": 1}, [1, 2, 3]),
        ("deepseek_v3", {"moe_layer_freq": [0, 1, 0, 1]}, [1, 3]),
        ("deepseek_v3", {"moe_layer_freq": [0, 1, 0, 1], "first_k_dense_replace": ...}, [1, 3]),
        (
            "deepseek_v3",
            {"mlp_layer_types": ["dense", "sparse", "sparse", "dense"], "first_k_dense_replace": ...},
            [1, 2],
        ),
        ("step3p7", {"mlp_layer_types": ["dense", "sparse", "sparse", "dense"]}, [1, 2]),
        ("qwen3_moe", {**EXPERTS, "decoder_sparse_step": 2, "mlp_only_layers": [3]}, [1]),
        ("llama4", {"interleave_moe_layer_step": 2}, [1, 3]),
        ("jamba", {"expert_layer_period": 2, "expert_layer_offset": 1}, [1, 3]),
        ("step3", {}, [1, 2]),
        ("ernie4_5_moe", {"moe_layer_start_index": 2, "moe_layer_end_index": 3}, [2, 3]),
        ("dbrx", {}, [0, 1, 2, 3]),
        ("step3p5", {}, [3]),
        ("minimax_m3", {}, [1, 2, 3]),
        ("lfm2_moe", {**EXPERTS, "num_dense_layers": 2}, [2, 3]),
    ],
)
def test_experts_are_in_the_layers_that_the_config_says(
    model_type: str, changes: dict[str, Any], moe_layers: list[int]
) -> None:
    layers = build(model_type, **changes).layers
    assert [index for index, layer in enumerate(layers) if isinstance(layer.ffn, MoeFfn)] == moe_layers


@pytest.mark.parametrize(
    ("model_type", "changes", "windows"),
    [
        ("mistral", {"sliding_window": 8}, [8, 8, 8, 8]),
        ("mistral", {}, [4096] * 4),  # the class default of a silent config
        ("mistral", {"sliding_window": None}, [None] * 4),  # null is a choice
        ("gemma2", {"sliding_window": 8}, [8, None, 8, None]),
        ("gemma3", {"sliding_window": 8, "sliding_window_pattern": 3}, [8, 8, None, 8]),
        ("gpt_oss", {"layer_types": ["full_attention", "sliding_attention"] * 2}, [None, 128, None, 128]),
        ("qwen2", {"sliding_window": 8}, [None] * 4),
        ("qwen2", {"sliding_window": 8, "use_sliding_window": True, "max_window_layers": 3}, [None, None, None, 8]),
        ("llama4", {}, [8, 8, 8, None]),
        ("mimo_v2", {"sliding_window": 8, "hybrid_layer_pattern": [0, 1, 1, 0]}, [None, 8, 8, None]),
    ],
)
def test_windows_are_in_the_layers_that_the_config_says(
    model_type: str, changes: dict[str, Any], windows: list[int | None]
) -> None:
    mixers = [layer.mixer for layer in build(model_type, **changes).layers]
    assert [mixer.window for mixer in mixers if isinstance(mixer, Attention)] == windows


def test_hybrids_keep_a_fixed_state() -> None:
    qwen = build("qwen3_next").layers
    assert [isinstance(layer.mixer, LinearAttention) for layer in qwen] == [True, True, True, False]
    # 4 value heads of 8 x 8 in float32, and three steps of 2*16 + 32 channels in bf16
    assert layer_state_bytes(qwen[0]) == 4 * 8 * 8 * 4 + 3 * 64 * 2
    bamba = build("bamba", mamba_ssm_cache_dtype="bfloat16").layers
    assert [isinstance(layer.mixer, Mamba) for layer in bamba] == [True, False, True, True]
    assert layer_state_bytes(bamba[0]) == 8 * 16 * 16 * 2 + 3 * (128 + 2 * 16) * 2


def test_a_shared_index_has_no_weights_and_no_keys_of_its_own() -> None:
    types = ["full", "shared", "shared", "full"]
    own, shared = build("glm_moe_dsa"), build("glm_moe_dsa", indexer_types=types)
    assert total_parameters(shared) < total_parameters(own)
    mixers = [layer.mixer for layer in shared.layers]
    assert [m.indexer is not None and m.indexer.shared for m in mixers if isinstance(m, LatentAttention)] == [
        False,
        True,
        True,
        False,
    ]


def test_prediction_layers_are_counted_apart() -> None:
    plain, with_mtp = build("deepseek_v3"), build("deepseek_v3", num_nextn_predict_layers=1)
    assert total_parameters(plain) == total_parameters(with_mtp)
    assert mtp_parameters(plain) == 0 < mtp_parameters(with_mtp)


PARTS = (Part.ATTENTION, Part.FFN, Part.EXPERTS)
INT4 = {"group_0": {"weights": {"num_bits": 4, "type": "int", "group_size": 32, "strategy": "group"}}}


@pytest.mark.parametrize(
    ("quantization", "formats"),
    [
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, ["fp8_block"] * 3),
        ({"quant_method": "fp8"}, ["fp8"] * 3),
        ({"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn"]}, [None, None, "mxfp4"]),
        ({"quant_method": "awq", "bits": 4}, ["int4"] * 3),
        ({"quant_method": "gptq", "bits": 8}, ["int8"] * 3),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": INT4,
                "ignore": ["lm_head", "re:.*self_attn.*", "re:.*shared_experts.*"],
            },
            [None, None, "int4_g32"],
        ),
        (
            {"quant_method": "modelopt", "quant_algo": "NVFP4", "ignore": ["model.layers.0.self_attn*", "lm_head"]},
            [None, "nvfp4", "nvfp4"],
        ),
    ],
)
def test_the_checkpoint_has_the_precision_of_its_config(
    quantization: dict[str, Any], formats: list[str | None]
) -> None:
    model = build("deepseek_v3", quantization_config=quantization)
    assert [dict(model.checkpoint.parts).get(part) for part in PARTS] == formats


def test_a_sibling_modelopt_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**PLAIN, "model_type": "llama"}))
    quant = {"quantization": {"quant_algo": "NVFP4", "kv_cache_quant_algo": "FP8", "exclude_modules": ["lm_head"]}}
    (tmp_path / "hf_quant_config.json").write_text(json.dumps(quant))
    checkpoint = import_config(tmp_path).checkpoint
    assert (checkpoint.weights, checkpoint.kv) == ("nvfp4", "fp8")


def test_an_unknown_family_is_refused_with_the_fields_that_might_matter() -> None:
    with pytest.raises(InputError, match=r"unknown model_type 'novel'.*warp_factor") as caught:
        build("novel", warp_factor=9)
    assert "--assume-arch" in str(caught.value.hint)
    model = model_from_config({**PLAIN, "model_type": "novel", "warp_factor": 9}, name="x", assume_architecture="llama")
    assert total_parameters(model) == total_parameters(build("llama"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": -64}, "hidden_size is -64"),
        ({"hidden_size": "64"}, "hidden_size is '64'"),
        ({"hidden_size": float("inf")}, "hidden_size is inf"),
        ({"hidden_size": float("nan")}, "hidden_size is nan"),
        ({"hidden_size": 64.5}, "hidden_size is 64.5"),
        ({"hidden_size": True}, "hidden_size is True"),
        ({"hidden_size": [64]}, "hidden_size is"),
        ({"hidden_size": ...}, "hidden_size .* is missing"),
        ({"vocab_size": ...}, "vocab_size .* is missing"),
        ({"num_hidden_layers": 0}, "num_hidden_layers is 0"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers"),
        ({"num_nextn_predict_layers": 10**9}, "num_nextn_predict_layers"),
        ({"hidden_size": 65}, "4 heads do not divide the hidden size 65"),
        ({"num_key_value_heads": 3}, "3 key/value heads do not divide 4 heads"),
        ({"num_key_value_heads": 8}, "8 key/value heads do not divide 4 heads"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings is 'yes'"),
        ({"layer_types": ["full_attention"]}, "layer_types"),
        ({"num_experts": 4, "num_experts_per_tok": 8}, "8 experts per token, but only 4"),
        ({"quantization_config": {"quant_method": "magic"}}, "unknown quant_method 'magic'"),
    ],
)
def test_a_config_that_makes_no_sense_is_refused_in_one_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        build("llama", **changes)
    assert "\n" not in str(caught.value) and caught.value.hint


@pytest.mark.parametrize("model_type", [None, ["llama"], "", 3])
def test_a_family_that_is_no_name_is_refused(model_type: object) -> None:
    with pytest.raises(InputError, match="unknown model_type"):
        model_from_config({**PLAIN, "model_type": model_type}, name="x")


def test_infinity_in_a_field_that_does_not_matter_is_harmless() -> None:
    assert build("llama", time_step_limit=[0.0, float("inf")]) == build("llama")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not valid JSON"),
        (b"[1, 2]", "holds a list"),
        (b"{", "not valid JSON"),
        (b"\xff\xfe\x00", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b" " * (LARGEST_CONFIG_BYTES + 1), "no model config"),
        (b"{}", "unknown model_type"),
    ],
    ids=["empty", "list", "cut", "binary", "deep", "huge", "nothing"],
)
def test_a_file_that_is_no_config_is_refused_in_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        import_config(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_refused() -> None:
    with pytest.raises(InputError, match="cannot read"):
        import_config(Path("nowhere/config.json"))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 300) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from(sorted(FAMILIES)), st.data())
@settings(max_examples=600, deadline=None)
def test_any_value_in_any_field_gives_a_model_or_one_clear_line(model_type: str, data: st.DataObject) -> None:
    config = {**PLAIN, **NEEDED.get(model_type, {}), "model_type": model_type}
    names = sorted({*config, *(alias for aliases in ALIASES.values() for alias in aliases)} - {"model_type"})
    extra = ["quantization_config", "layer_types", "moe_layer_freq", "text_config", "mamba_dt_rank", "torch_dtype"]
    changed = data.draw(st.lists(st.sampled_from(names + extra), min_size=1, max_size=3))
    config |= {name: data.draw(json_values) for name in changed}
    try:
        model = model_from_config(config, name="fuzzed")
    except InputError as refused:
        assert "\n" not in str(refused)
    else:
        assert total_parameters(model) >= active_parameters(model) > 0
        assert restore(distill(model)) == model
