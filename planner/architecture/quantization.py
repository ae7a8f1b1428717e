"""The precision of a published checkpoint, from quantization_config or a sibling hf_quant_config.json."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

from planner.architecture.model import Checkpoint, Model, Part
from planner.errors import InputError

# A module that a checkpoint of that part would list when it is left unconverted.
_EXAMPLES: Final[Mapping[Part, str]] = {
    Part.ATTENTION: "model.layers.5.self_attn.q_proj",
    Part.FFN: "model.layers.5.mlp.shared_experts.up_proj",
    Part.EXPERTS: "model.layers.5.mlp.experts.0.up_proj",
}
_PLAIN_FFN: Final = "model.layers.5.mlp.up_proj"
_DTYPES: Final = {"bfloat16": "bf16", "float16": "fp16", "half": "fp16", "float32": "bf16", "auto": "bf16"}


def read_checkpoint(
    model: Model, text: Mapping[str, object], modelopt: Mapping[str, object] | None, where: str
) -> Model:
    """Return the model with the precision that its files have.

    Parameters
    ----------
    text : the config of the language model, with its ``quantization_config`` if any.
    modelopt : the parsed hf_quant_config.json, which wins where present.

    Raises InputError for a scheme that is not understood: its bytes would be guessed.
    """
    if modelopt is not None:
        return _modelopt(model, _object(modelopt.get("quantization"), "quantization", "hf_quant_config.json"), where)
    for name in ("quantization_config", "compression_config"):
        if text.get(name) is not None:
            config = _object(text[name], name, where)
            return _from_config(model, {"expert_dtype": text.get("expert_dtype"), **config}, where)
    dtype = text.get("torch_dtype") or text.get("dtype") or "bfloat16"
    if not isinstance(dtype, str) or dtype.removeprefix("torch.") not in _DTYPES:
        shown = repr(dtype)[:40]
        raise InputError(f"{where}: torch_dtype is {shown}", hint=f"one of {', '.join(_DTYPES)}")
    return replace(model, checkpoint=Checkpoint(_DTYPES[dtype.removeprefix("torch.")]))


def _object(value: object, name: str, where: str) -> Mapping[str, Any]:
    """Return the object that describes a scheme: bytes are never guessed from anything else. Raises
    InputError."""
    if not isinstance(value, dict):
        raise InputError(f"{where}: {name} is {repr(value)[:40]}", hint="it must be an object")
    return value


def _from_config(model: Model, config: Mapping[str, Any], where: str) -> Model:
    method = config.get("quant_method")
    ignored = _exceptions(config, ("modules_to_not_convert", "ignore"), where)
    match method:
        case "fp8" | "fbgemm_fp8":
            form = "fp8_block" if config.get("weight_block_size") else "fp8"
        case "mxfp4":
            return _converted(model, "mxfp4", ignored, (Part.EXPERTS,))
        case "compressed-tensors":
            form = _compressed(config, where)
        case "modelopt" | "modelopt_fp4":
            return _modelopt(model, config, where)
        case "gptq" | "awq" | "auto-round" | "bitsandbytes" | "gptq_marlin" | "awq_marlin":
            form = _integers(config, str(method), where)
        case _:
            raise InputError(
                f"{where}: unknown quant_method {method!r}",
                hint="fp8, mxfp4, compressed-tensors, modelopt, gptq, awq and bitsandbytes are understood",
            )
    model = _converted(model, form, ignored)
    if config.get("expert_dtype") == "fp4":  # DeepSeek-V4: fp8 but for its experts
        parts = dict(model.checkpoint.parts) | {Part.EXPERTS: "mxfp4"}
        model = replace(model, checkpoint=Checkpoint("mxfp4", tuple(parts.items())))
    return model


def _integers(config: Mapping[str, Any], method: str, where: str) -> str:
    """Read how many bits the weights have; only the classes of AWQ and AutoRound assume a number. Raises
    InputError."""
    loaded = 4 if config.get("load_in_4bit") is True else 8 if config.get("load_in_8bit") is True else None
    assumed = 4 if method.startswith(("awq", "auto-round")) else None
    bits = next((bits for bits in (loaded, config.get("bits"), config.get("w_bit"), assumed) if bits is not None), None)
    if isinstance(bits, bool) or bits not in (4, 8):
        problem = "has no bits" if bits is None else f"has bits {repr(bits)[:40]}"
        raise InputError(f"{where}: quantization_config of {method} {problem}", hint="4 or 8")
    return "int4" if bits == 4 else "int8"


def _compressed(config: Mapping[str, Any], where: str) -> str:
    """Read the format of compressed-tensors: bits, type and group size of the first group's weights."""
    groups = config.get("config_groups")
    first = next(iter(groups.values()), None) if isinstance(groups, dict) else None
    weights = first.get("weights") if isinstance(first, dict) else None
    if not isinstance(weights, dict):
        raise InputError(f"{where}: quantization_config has no weights in config_groups", hint="check the config")
    bits, kind, group = weights.get("num_bits"), weights.get("type"), weights.get("group_size")
    named = {
        (8, "float"): "fp8_block" if weights.get("strategy") == "block" else "fp8",
        (8, "int"): "int8",
        (4, "int"): "int4_g32" if group == 32 else "int4",
        (4, "float"): "nvfp4" if group == 16 else "mxfp4",
    }
    if weights.get("strategy") == "group" and group is None:
        raise InputError(f"{where}: quantization_config has no group_size", hint="give the complete config.json")
    if not isinstance(bits, int) or not isinstance(kind, str) or (bits, kind) not in named:
        raise InputError(f"{where}: {bits}-bit {kind} weights are not understood", hint="8 or 4 bits, int or float")
    return named[(bits, kind)]


def _modelopt(model: Model, config: Mapping[str, Any], where: str) -> Model:
    """Read the scheme of NVIDIA ModelOpt: one algorithm, or one per layer (mixed precision)."""
    algorithm = str(config.get("quant_algo") or "").upper()
    ignored = _exceptions(config, ("exclude_modules", "ignore"), where)
    kv = str(config.get("kv_cache_quant_algo") or "").lower() or None
    named = {"NVFP4": "nvfp4", "FP8": "fp8", "FP8_PB_WO": "fp8_block", "W4A16_AWQ": "int4", "INT8_SQ": "int8"}
    named |= {"NVFP4_AWQ": "nvfp4", "W4A8_AWQ": "int4", "FP8_PER_CHANNEL_PER_TOKEN": "fp8", "W8A16": "int8"}
    if algorithm == "MIXED_PRECISION":
        layers = config.get("quantized_layers")
        done = _mixed(_object(layers, "quantized_layers", where), named)
        model = replace(model, checkpoint=Checkpoint(_narrowest(done.values()), tuple(sorted(done.items())), kv))
    elif algorithm in named:
        model = _converted(model, named[algorithm], ignored)
    else:
        raise InputError(f"{where}: quant_algo {algorithm!r} is not understood", hint=f"one of {', '.join(named)}")
    return replace(model, checkpoint=replace(model.checkpoint, kv=kv))


def _mixed(layers: Mapping[str, Any], named: Mapping[str, str]) -> dict[Part, str]:
    """Read the format of each part from a list of modules with their algorithm; the commonest wins."""
    votes: dict[Part, list[str]] = {}
    for module, entry in layers.items():
        form = named.get(str(entry.get("quant_algo") if isinstance(entry, dict) else entry).upper())
        if form:
            votes.setdefault(_part_of(module), []).append(form)
    return {part: max(set(forms), key=forms.count) for part, forms in votes.items()}


def _part_of(module: str) -> Part:
    if re.search(r"experts\.\d", module):
        return Part.EXPERTS
    return Part.ATTENTION if re.search(r"attn|mixer\.(in|out|q|k|v|o)_", module) else Part.FFN


def _narrowest(forms: Iterable[str]) -> str:
    order = ("nvfp4", "mxfp4", "int4", "int4_g32", "fp8", "fp8_block", "int8")
    return min(forms, key=order.index, default="bf16")


def _converted(model: Model, form: str, ignored: list[str], parts: Iterable[Part] = tuple(_EXAMPLES)) -> Model:
    """Apply a format to all parts whose modules are not in the list of exceptions."""
    has_experts = any(hasattr(group.layer.ffn, "experts") for group in model.groups)
    examples = {**_EXAMPLES, **({} if has_experts else {Part.FFN: _PLAIN_FFN})}
    done = tuple((part, form) for part in parts if not any(_matches(rule, examples[part]) for rule in ignored))
    return replace(model, checkpoint=Checkpoint(form, done))


def _matches(rule: str, module: str) -> bool:
    """Say whether an exception covers a module: ``re:`` regular expressions, ``*`` patterns, or a name in the
    path."""
    if rule.startswith("re:"):
        try:
            return re.match(rule[3:], module) is not None
        except re.error:
            return False
    pattern = re.escape(rule).replace(r"\*", r"[^.]*(?:\.[^.]*)*?")
    pattern = re.sub(r"layers\\\.\d+(?=\\\.|$)", r"layers\\.\\d+", pattern)
    return re.search(rf"(?:^|\.){pattern}(?:\.|$)", module) is not None


def _exceptions(config: Mapping[str, Any], names: tuple[str, ...], where: str) -> list[str]:
    """Read which modules are left unconverted, from the first of these fields that lists any. Raises
    InputError."""
    for name in names:
        value = config.get(name)
        if value is not None and not (isinstance(value, list) and all(isinstance(item, str) for item in value)):
            raise InputError(f"{where}: {name} is {repr(value)[:40]}", hint="it must be a list of module names")
        if value:
            return list(value)
    return []
