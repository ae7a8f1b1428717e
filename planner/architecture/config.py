"""Import of a Hugging Face config.json: any known family becomes a Model; an unknown one is refused with
reasons."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from planner.architecture.families.family import Family
from planner.architecture.families.table import FAMILIES
from planner.architecture.fields import ALIASES, Fields
from planner.architecture.model import Attention, Layer, Model
from planner.architecture.quantization import read_checkpoint
from planner.errors import InputError

LARGEST_CONFIG_BYTES: Final = 4 << 20  # real ones stay below 100 kB
_TEXT_PARTS: Final = ("text_config", "llm_config", "language_config", "thinker_config")
_INHERITED: Final = ("tie_word_embeddings", "quantization_config", "torch_dtype", "dtype")


def import_config(path: Path, *, name: str | None = None, assume_architecture: str | None = None) -> Model:
    """Read a config.json, or the folder that holds one.

    Parameters
    ----------
    path : the file or folder; a sibling hf_quant_config.json is read too.
    name : the id of the model, by default the name of the folder or file.
    assume_architecture : the family to take when ``model_type`` is unknown.

    Raises InputError with one clear line for anything that cannot be understood.
    """
    file = path / "config.json" if path.is_dir() else path
    raw = read_json_object(file)
    sibling = file.with_name("hf_quant_config.json")
    quant = read_json_object(sibling) if sibling.is_file() else None
    label = file.parent.name if file.name == "config.json" else file.stem
    return model_from_config(
        raw,
        name=name or label or "model",
        where=file.name,
        modelopt=quant,
        assume_architecture=assume_architecture,
        source=f"{file.name} of {label}" if label else file.name,
    )


def model_from_config(
    raw: Mapping[str, object],
    *,
    name: str,
    where: str = "config.json",
    modelopt: Mapping[str, object] | None = None,
    assume_architecture: str | None = None,
    source: str = "",
) -> Model:
    """Turn a parsed config into a Model; ``modelopt`` is the parsed hf_quant_config.json. Raises
    InputError."""
    text = _language_part(raw)
    model_type, family = _family_of(text, raw, where, assume_architecture)
    inner = [text[part] for part in family.nested if isinstance(text.get(part), dict)]
    flat = {key: value for part in (*inner, text) for key, value in part.items()}  # type: ignore[attr-defined]
    fields = Fields(flat, where, family.defaults, family.required)
    if fields.raw("per_layer_config"):
        raise InputError(f"{where}: per_layer_config is not modelled", hint="give the config.json as first published")
    family = family.adapt(fields, family) if family.adapt else family
    model = Model(
        id=name,
        architecture=model_type,
        hidden=fields.count("hidden"),
        vocab=fields.count("vocab"),
        layers=_layers(fields, family),
        tied_embeddings=fields.flag("tied"),
        extra_parameters=_extra_parameters(fields, family),
        positions=fields.count("max_context") + family.positions if family.positions is not None else 0,
        max_context=fields.optional("max_context", minimum=1),
        source=source,
    )
    model = _with_mtp(fields, family, model)
    model = family.finish(fields, model) if family.finish else model
    return read_checkpoint(model, text, modelopt, where)


def read_json_object(file: Path) -> dict[str, object]:
    """Read a JSON object of sane size. Raises InputError: absent, too large, malformed, not an object."""
    try:
        size = file.stat().st_size
        if size > LARGEST_CONFIG_BYTES:
            raise InputError(
                f"{file.name} has {size:,} bytes, which is no model config",
                hint="give the config.json of a model",
            )
        value = json.loads(file.read_text(encoding="utf-8"))
    except OSError as problem:
        raise InputError(
            f"cannot read {file.name}: {problem.strerror}", hint="give a config.json or its folder"
        ) from None
    except (ValueError, RecursionError) as problem:
        raise InputError(f"{file.name} is not valid JSON: {problem}", hint="give the config.json of a model") from None
    if not isinstance(value, dict):
        raise InputError(
            f"{file.name} holds a {type(value).__name__}, not an object",
            hint="give the config.json of a model",
        )
    return value


def _language_part(raw: Mapping[str, object]) -> Mapping[str, object]:
    """Unwrap a multimodal config down to its language model; shared fields of the wrapper fill gaps."""
    for part in _TEXT_PARTS:
        inner = raw.get(part)
        if isinstance(inner, dict) and inner:
            inherited = {key: raw[key] for key in (*_INHERITED, "model_type") if raw.get(key) is not None}
            own = {key: value for key, value in inner.items() if value is not None or key not in inherited}
            return _language_part({**inherited, **own})
    return raw


def _family_of(
    text: Mapping[str, object], raw: Mapping[str, object], where: str, assumed: str | None
) -> tuple[str, Family]:
    """Find the family by ``model_type``; ``assumed`` only helps when it is unknown. Raises InputError."""
    model_type = text.get("model_type") or raw.get("model_type")
    for candidate in (model_type, str(model_type).removesuffix("_model").removesuffix("_text")):
        if isinstance(candidate, str) and candidate in FAMILIES:
            return str(model_type), FAMILIES[candidate]
    if assumed is None:
        raise _unknown(model_type, text, where)
    if assumed not in FAMILIES:
        raise InputError(f"unknown architecture {assumed!r}", hint=f"one of {', '.join(sorted(FAMILIES))}")
    return assumed, FAMILIES[assumed]


def _unknown(model_type: object, text: Mapping[str, object], where: str) -> InputError:
    """Name the fields that a plain decoder would leave unread, for those are what might be special."""
    fields = Fields(text, where, {})
    llama = FAMILIES["llama"]
    with contextlib.suppress(InputError):  # a field that is absent or wrong ends this reading early
        _layers(fields, llama)
    known = {alias for name in _UNDERSTOOD for alias in ALIASES[name]} | fields.read | UNIMPORTANT
    unread = sorted(key for key in set(text) - known if not key.endswith(_UNIMPORTANT_ENDINGS))
    named = ", ".join(unread[:12]) + (" ..." if len(unread) > 12 else "")
    return InputError(
        f"{where}: unknown model_type {model_type!r}; fields not understood: {named or 'none'}",
        hint="--assume-arch llama reads it as a plain decoder",
    )


def _layers(fields: Fields, family: Family) -> tuple[Layer, ...]:
    if family.layers:
        return family.layers(fields, family)
    norms = family.norms * family.norm_size * fields.count("hidden")
    return tuple(
        Layer(family.mixer(fields, family, index), family.ffn(fields, family, index), norms)
        for index in range(fields.count("layers"))
    )


def _extra_parameters(fields: Fields, family: Family) -> int:
    """Count the final norm and the bias of the head."""
    bias = family.head_bias or fields.flag("lm_head_bias")
    return family.norm_size * fields.count("hidden") + (fields.count("vocab") if bias else 0)


def _with_mtp(fields: Fields, family: Family, model: Model) -> Model:
    """Add multi-token-prediction layers: each is the last layer again, two norms and a projection from 2
    hidden."""
    count = fields.optional("mtp_layers") or 0
    if not count:
        return model
    last = next(
        (layer for layer in reversed(model.layers) if isinstance(layer.mixer, Attention) or layer.ffn),
        model.layers[-1],
    )
    hidden = model.hidden
    return replace(model, mtp_layers=(last,) * count, mtp_extra_parameters=count * (2 * hidden * hidden + 3 * hidden))


_UNDERSTOOD: Final = (
    *("layers", "hidden", "heads", "kv_heads", "head_dim", "vocab", "width"),
    *("max_context", "window", "tied", "mtp_layers"),
)
"""What any decoder is read for, by canonical name."""

UNIMPORTANT: Final = frozenset(
    [
        "architectures",
        "auto_map",
        "model_type",
        "torch_dtype",
        "dtype",
        "transformers_version",
        "use_cache",
        "initializer_range",
        "hidden_act",
        "rms_norm_eps",
        "layer_norm_eps",
        "layer_norm_epsilon",
        "rope_theta",
        "rope_scaling",
        "rope_parameters",
        "attention_dropout",
        "hidden_dropout",
        "tie_word_embeddings",
        "pretraining_tp",
        "output_router_logits",
        "router_aux_loss_coef",
        "quantization_config",
        "_name_or_path",
        "norm_topk_prob",
        "attention_bias",
        "mlp_bias",
        "lm_head_bias",
        "compression_config",
        "hidden_activation",
        "activation_function",
        "partial_rotary_factor",
        "rotary_pct",
        "rope_interleave",
        "output_attentions",
        "output_hidden_states",
        "return_dict",
        "is_encoder_decoder",
        "chunk_size_feed_forward",
        "id2label",
        "label2id",
        "problem_type",
        "routed_scaling_factor",
        "scoring_func",
        "n_group",
        "topk_group",
        "norm_eps",
    ]
)
_UNIMPORTANT_ENDINGS: Final = ("_token_id", "dropout", "_pdrop", "_token_index")
