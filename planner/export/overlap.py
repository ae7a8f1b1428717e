"""How each engine is told to send tokens to experts, to overlap these messages and to keep redundant experts."""

from __future__ import annotations

import json

from planner.errors import ExportError
from planner.export.deployment import Group
from planner.export.flags import Flag


def copies(group: Group) -> int:
    """Redundant experts over all expert-parallel ranks, which is how engines count them."""
    if group.tuning is None or group.ep == 1:
        return 0
    return (group.tuning.redundant_experts or 0) * group.ep


def halved(group: Group) -> bool:
    """Whether iterations run as two overlapping halves: where attention data parallelism sends messages to experts that
    lie over all ranks."""
    asked = group.tuning is not None and group.tuning.two_batch_overlap
    return bool(asked and group.sends_to_experts)


def vllm_overlap(group: Group) -> list[Flag]:
    """Dual batch overlap, which asks for DeepEP's exchange, and the expert load balancer of vLLM."""
    flags = []
    if halved(group):
        if group.selector.vendor == "AMD":
            refuse_overlap(group, "vLLM on AMD")
        kernels = "deepep_high_throughput" if group.role == "prefill" else "deepep_low_latency"
        flags = [Flag("--enable-dbo"), Flag("--all2all-backend", kernels)]
    if copies(group):
        config = json.dumps({"num_redundant_experts": copies(group)}, separators=(",", ":"))
        flags += [Flag("--enable-eplb"), Flag("--eplb-config", config)]
    return flags


def sglang_overlap(group: Group) -> list[Flag]:
    """The library that sends tokens to experts, without which SGLang gathers them everywhere and refuses two-batch
    overlap; that overlap, and the expert load balancer."""
    flags = []
    if halved(group) or (group.dispatches and group.sends_to_experts):
        flags.append(Flag("--moe-a2a-backend", "mori" if group.selector.vendor == "AMD" else "deepep"))
    if halved(group):
        flags.append(Flag("--enable-two-batch-overlap"))
    if copies(group):
        flags += [Flag("--enable-eplb"), Flag("--ep-num-redundant-experts", copies(group))]
    return flags


def refuse_overlap(group: Group, engine: str) -> None:
    """Raise ExportError where a plan counts on either and the pinned tables of an engine have no option for it."""
    asked = [name for name, on in (("two-batch overlap", halved(group)), ("redundant experts", copies(group))) if on]
    if asked:
        raise ExportError(
            f"{engine} cannot be told {group.name}'s {' and '.join(asked)}: no option in the tables that we pinned",
            hint="export to another engine, or search again without",
        )
