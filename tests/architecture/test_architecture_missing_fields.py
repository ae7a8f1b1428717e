"""A config.json that lacks a field: refused by name, or read with what the model class assumes; never a wrong
number."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_architecture_config import NEEDED, PLAIN, build

from planner.architecture.config import import_config, model_from_config
from planner.architecture.families.table import FAMILIES
from planner.architecture.model import Attention, LatentAttention, Model, MoeFfn
from planner.architecture.parameters import total_parameters
from planner.errors import InputError

# The fields whose absence has a meaning of its own, and so may change a model: the value that the class assumes.
# Fields of precision: no scheme is none, no dtype is bf16, a scheme without blocks or exceptions has none.
PRECISION = {"quantization_config", "weight_block_size", "ignore", "torch_dtype", "dtype"}
# Prediction layers are counted apart from the model, and a config that names none has none.
PREDICTION = {"num_nextn_predict_layers", "mtp_num_hidden_layers", "mtp_transformer_layers"}
GEMMA3 = {  # wrappers saved by the library leave these out where they equal the class default
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "vocab_size": 262_208,
    "head_dim": 256,
    "sliding_window": 4096,
}
ALL_HEADS = {"num_key_value_heads": None}
UNTIED = {"tie_word_embeddings": False}
ASSUMED: dict[str, dict[str, Any]] = {
    "llama": {**ALL_HEADS, **UNTIED},
    "internlm2": ALL_HEADS,
    "phi3": {**ALL_HEADS, **UNTIED, "sliding_window": None},
    "litgpt": {**ALL_HEADS, **UNTIED, "litgpt_mlp": "LLaMAMLP"},
    "qwen2": UNTIED,
    "qwen3": UNTIED,
    "mistral": {"head_dim": None, "sliding_window": 4096},
    "phimoe": {"attention_bias": False, "lm_head_bias": False, "sliding_window": None},
    "gemma2": {"head_dim": 256},
    "gemma3_text": GEMMA3,
    "glm4_moe": {"attention_bias": False, "use_qk_norm": False},
    "chatglm": {"add_qkv_bias": False},
}


def paths(value: object, above: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Yield the place of every field, also in objects within it and in the first objects of a list."""
    items: Iterator[tuple[str | int, Any]] = iter(())
    if isinstance(value, dict):
        items = iter(value.items())
    elif isinstance(value, list):
        items = iter(enumerate(value[:2]))
    for key, inner in items:
        if isinstance(key, str):
            yield (*above, key)
        yield from paths(inner, (*above, key))


def changed(raw: Mapping[str, Any], path: tuple[str | int, ...], *value: object) -> dict[str, Any]:
    """Copy a config with one field dropped, or set to ``value``."""
    copy = deepcopy(dict(raw))
    at: Any = copy
    for key in path[:-1]:
        at = at[key]
    at.pop(path[-1])
    if value:
        at[path[-1]] = value[0]
    return copy


def shape(raw: Mapping[str, Any]) -> Model:
    """Read a config, without what is no size: its label and the longest context that it names."""
    return replace(model_from_config(raw, name="x"), architecture="", max_context=None)


def test_no_field_of_a_reference_config_is_guessed(shared_catalog: Path) -> None:
    wrong = []
    for file in sorted((shared_catalog / "hf_configs").rglob("*.json")):
        raw = json.loads(file.read_text())
        whole, family = shape(raw), import_config(file).architecture
        for path in paths(raw):
            name = str(path[-1])
            if name in PRECISION | PREDICTION:
                continue
            try:
                model = shape(changed(raw, path))
            except InputError as refused:
                assert "\n" not in str(refused)
                continue
            assumed = ASSUMED.get(family, {})
            if model != (shape(changed(raw, path, assumed[name])) if name in assumed else whole):
                wrong.append(f"{file.stem}: {name}")
    assert not wrong


# What the class of a family assumes, though the configs above state something else.
FAMILY_DEFAULTS: dict[str, set[str]] = {
    **{
        name: {"hidden_size", "intermediate_size", "num_attention_heads", "vocab_size"} for name in ("gemma3", "gemma4")
    },
    **{name: {"moe_layer_freq"} for name in ("minimax_m3", "minimax_m3_vl")},  # without it every layer has experts
    **{  # four times hidden
        name: {"intermediate_size"}
        for name in ("bloom", "falcon", "gpt2", "gpt3_like", "gpt_bigcode", "gptj", "phi-msft")
    },
    "deepseek_v4": {"compress_ratios"},
    "kimi_linear": {"q_lora_rank"},
    "llama4": {"attention_chunk_size"},
    "minicpm3": {"v_head_dim"},
}
NOT_OF_THE_FAMILY = {  # another field that these configs have too is the one that it reads
    "dbrx": {"intermediate_size"},
    **{name: {"moe_intermediate_size"} for name in ("minimax_m3", "minimax_m3_vl")},
}
FOUR_KV_HEADS = {"gemma3", "gemma4"}  # the number of the class; all others have as many as heads, or require it


@pytest.mark.parametrize("model_type", sorted(set(FAMILIES) - {"zamba2"}))
def test_no_field_of_a_family_is_guessed(model_type: str) -> None:
    known = FAMILY_DEFAULTS.get(model_type, set()) | NOT_OF_THE_FAMILY.get(model_type, set())
    for name in {**PLAIN, **NEEDED.get(model_type, {})}.keys() - known:
        try:
            model = build(model_type, **{name: ...})
        except InputError as refused:
            assert "missing" in str(refused)
            continue
        expected = build(model_type)
        if name == "num_key_value_heads" and model != expected:
            expected = build(model_type, num_key_value_heads=4 if model_type in FOUR_KV_HEADS else None)
        assert replace(model, max_context=None) == replace(expected, max_context=None), name


MOE = sorted(name for name, family in FAMILIES.items() if family.required.get("experts") == 1 and name != "gemma4")


def test_the_families_that_always_have_experts_are_known() -> None:
    assert len(MOE) >= 40


@pytest.mark.parametrize("model_type", MOE)
@pytest.mark.parametrize("value", [..., None, 0])
def test_a_mixture_without_a_number_of_experts_is_refused(model_type: str, value: object) -> None:
    names = ("n_routed_experts", "num_local_experts", "num_experts", "moe_num_experts")
    stated = {**NEEDED[model_type], **NEEDED[model_type].get("ffn_config", {})}
    name = next(name for name in names if name in stated)
    changes: dict[str, Any] = {name: value}
    if model_type == "dbrx":
        ffn = {key: kept for key, kept in NEEDED["dbrx"]["ffn_config"].items() if key != name}
        changes = {"ffn_config": ffn if value is ... else {**ffn, name: value}}
    with pytest.raises(InputError, match=r"experts"):
        build(model_type, **changes)


@pytest.mark.parametrize(
    ("model_type", "field", "message"),
    [
        ("deepseek_v3", "moe_intermediate_size", "moe_intermediate_size"),
        ("deepseek_v3", "n_routed_experts", "n_routed_experts"),
        ("deepseek_v3", "n_shared_experts", "n_shared_experts"),
        ("deepseek_v3", "first_k_dense_replace", "first_k_dense_replace"),
        ("deepseek_v3", "q_lora_rank", "q_lora_rank"),
        ("deepseek_v32", "index_topk", "index_topk"),
        ("qwen3_next", "moe_intermediate_size", "moe_intermediate_size"),
        ("qwen3_next", "shared_expert_intermediate_size", "shared_expert_intermediate_size"),
        ("mixtral", "num_local_experts", "num_experts or n_routed_experts or num_local_experts"),
        *((name, "num_key_value_heads", "num_key_value_heads") for name in ("gpt_oss", "qwen3_next", "minimax_m2")),
        ("llama4", "interleave_moe_layer_step", "interleave_moe_layer_step"),
        ("lfm2", "layer_types", "full_attn_idxs or layer_types"),
        ("minimax_m1", "layer_types", "attn_type_list or layer_types"),
    ],
)
def test_a_missing_field_that_shapes_the_model_is_named(model_type: str, field: str, message: str) -> None:
    with pytest.raises(InputError, match=f"the field .*{message}.* is missing"):
        build(model_type, **{field: ...})


def test_a_null_is_a_choice_where_the_class_knows_it() -> None:
    mixer = build("deepseek_v2", q_lora_rank=None).layers[0].mixer
    assert isinstance(mixer, LatentAttention) and mixer.query_rank == 0
    unshared = build("deepseek_v3", n_shared_experts=None).layers[1].ffn
    assert isinstance(unshared, MoeFfn) and unshared.shared_width == 0
    attention = build("gpt_oss", num_key_value_heads=None).layers[0].mixer
    assert isinstance(attention, Attention) and attention.kv_heads == 4


def test_a_family_with_dense_variants_may_have_no_experts() -> None:
    assert not any(isinstance(layer.ffn, MoeFfn) for layer in build("granitemoehybrid", num_local_experts=0).layers)
    assert not any(isinstance(layer.ffn, MoeFfn) for layer in build("qwen3_5").layers)
    with pytest.raises(InputError, match="experts"):
        build("granitemoehybrid", num_local_experts=...)


def test_a_window_that_layers_need_must_be_given() -> None:
    with pytest.raises(InputError, match="sliding_window"):
        build("llama", layer_types=["sliding_attention", "full_attention"] * 2)
    with pytest.raises(InputError, match="max_window_layers"):
        build("qwen2", sliding_window=8, use_sliding_window=True)


def test_the_index_is_shared_by_list_by_pattern_or_by_frequency() -> None:
    listed = build("glm_moe_dsa", indexer_types=["full", "full", "shared", "full"])
    assert build("glm_moe_dsa", index_topk_pattern="FFSF") == listed
    assert build("glm_moe_dsa", index_topk_freq=2, index_skip_topk_offset=2) == listed


def test_lfm2_rounds_its_width_as_its_class_does() -> None:
    # LFM2-1.2B states 12288 and has 8192
    sizes = {"hidden_size": 2048, "num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 12288}
    ffn = build("lfm2", **sizes).layers[0].ffn
    assert ffn is not None and getattr(ffn, "width", 0) == 8192
    assert getattr(build("lfm2", **sizes, block_auto_adjust_ff_dim=False).layers[0].ffn, "width", 0) == 12288


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"quantization_config": "fp8"}, "quantization_config is 'fp8'"),
        ({"quantization_config": ["fp8"]}, "quantization_config is"),
        ({"quantization_config": 8}, "quantization_config is 8"),
        ({"quantization_config": False}, "quantization_config is False"),
        ({"quantization_config": {}}, "unknown quant_method None"),
        ({"compression_config": "int4"}, "compression_config is 'int4'"),
        ({"quantization_config": {"quant_method": "gptq"}}, "gptq has no bits"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 3}}, "gptq has bits 3"),
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, "bitsandbytes has no bits"),
        (
            {"quantization_config": {"quant_method": "fp8", "modules_to_not_convert": "lm_head"}},
            "modules_to_not_convert is 'lm_head'",
        ),
        ({"torch_dtype": "int3"}, "torch_dtype is 'int3'"),
        ({"per_layer_config": {"3": {"head_dim": 512}}}, "per_layer_config is not modelled"),
    ],
)
def test_a_precision_or_override_that_is_not_understood_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build("llama", **changes)


def test_a_sibling_file_without_a_scheme_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**PLAIN, "model_type": "llama"}))
    (tmp_path / "hf_quant_config.json").write_text(json.dumps({"producer": {"name": "modelopt"}}))
    with pytest.raises(InputError, match=r"hf_quant_config.json: quantization is None"):
        import_config(tmp_path)


def test_a_null_inside_a_wrapper_does_not_hide_the_scheme_around_it() -> None:
    inner = {**PLAIN, "model_type": "llama", "quantization_config": None, "tie_word_embeddings": None}
    outer = {"model_type": "wrapped", "quantization_config": {"quant_method": "fp8"}, "tie_word_embeddings": True}
    model = model_from_config({**outer, "text_config": inner}, name="x")
    assert model.checkpoint.weights == "fp8" and model.tied_embeddings


def test_the_refusal_of_an_unknown_family_names_only_what_a_decoder_does_not_read() -> None:
    with pytest.raises(InputError) as caught:
        build("novel", warp_factor=9, hidden_size=..., moe_intermediate_size=32, rope_theta=1e4, eos_token_id=2)
    assert str(caught.value).endswith("fields not understood: moe_intermediate_size, warp_factor")
    assert total_parameters(build("llama")) > 0
