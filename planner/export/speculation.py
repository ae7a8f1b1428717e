"""How each engine is told to draft tokens: one function an engine, from a group to its options."""

from __future__ import annotations

import json
from typing import Any

from planner.errors import ExportError
from planner.export.deployment import Group
from planner.export.flags import Flag

_SGLANG_ALGORITHMS = {"mtp": "NEXTN", "eagle": "EAGLE3", "draft": "STANDALONE", "ngram": "NGRAM"}
_VLLM_METHODS = {"mtp": "mtp", "eagle": "eagle3", "draft": "draft_model", "ngram": "ngram"}
_TRTLLM_TYPES = {"mtp": "MTP", "eagle": "Eagle3", "ngram": "NGram"}
_LOOKUP = 4  # tokens that an n-gram matches at most


def vllm_speculation(group: Group) -> list[Flag]:
    """``--speculative-config`` of vLLM, one JSON object; nothing without a draft."""
    how = group.speculation
    if how is None:
        return []
    config: dict[str, Any] = {"method": _VLLM_METHODS[how.method], "num_speculative_tokens": how.tokens}
    if how.method in ("eagle", "draft"):
        config["model"] = draft_model(group)
    if how.method == "ngram":
        config["prompt_lookup_max"] = _LOOKUP
    return [Flag("--speculative-config", json.dumps(config, separators=(",", ":")))]


def sglang_speculation(group: Group) -> list[Flag]:
    """Flags of SGLang: a chain of ``tokens`` steps, each of one candidate, and one token more to check."""
    how = group.speculation
    if how is None:
        return []
    flags = [Flag("--speculative-algorithm", _SGLANG_ALGORITHMS[how.method])]
    if how.method in ("eagle", "draft"):
        flags.append(Flag("--speculative-draft-model-path", draft_model(group)))
    if how.method != "ngram":
        flags += [Flag("--speculative-num-steps", how.tokens), Flag("--speculative-eagle-topk", 1)]
    return [*flags, Flag("--speculative-num-draft-tokens", how.tokens + 1)]


def trtllm_speculation(group: Group) -> dict[str, Any]:
    """``speculative_config`` of TensorRT-LLM's YAML file."""
    how = group.speculation
    if how is None:
        return {}
    if how.method not in _TRTLLM_TYPES:
        raise ExportError(
            f"TensorRT-LLM cannot be told {group.name}'s draft: its options for a separate draft model are in no table "
            "that we pinned", hint="export to vllm or sglang, or search again with --speculate eagle or ngram",
        )  # fmt: skip
    config: dict[str, Any] = {"decoding_type": _TRTLLM_TYPES[how.method], "max_draft_len": how.tokens}
    if how.method == "eagle":
        config["speculative_model"] = draft_model(group)
    return {"speculative_config": config}


def draft_model(group: Group) -> str:
    """What the engine loads as the draft: the plan's draft model, or what the user named. Raises ExportError."""
    if group.draft is None:
        raise ExportError(
            f"{group.name} drafts with an EAGLE head, whose checkpoint the plan does not name",
            hint="name it with --draft-model; it must be trained for this very model",
        )
    return group.draft
