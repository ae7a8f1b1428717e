"""How each engine is told a split: pure functions from a group to flags, one block an engine.

Rank algebra of the pinned versions (g = GPUs of a replica = tp * attention_dp * cp * pp):
vLLM: g = TP * PCP * PP * DP, experts over TP * PCP * DP all or not at all. SGLang: g = TP * PP with attention data and
context parallelism inside TP, experts over all of TP or not at all. TensorRT-LLM: g = TP * PP * CP, attention data
parallel over all of TP or none, experts cut freely inside TP.
Context parallelism: vLLM cuts prompts over further GPUs (PCP) and the cache over the same ones (DCP along PCP); SGLang
cuts prompts alone; what TensorRT-LLM's context_parallel_size cuts is in no table here.
"""

from __future__ import annotations

import json
from typing import Any

from planner.errors import ExportError
from planner.export.deployment import Deployment, Group
from planner.export.flags import Flag, Variable
from planner.export.overlap import refuse_overlap, sglang_overlap, vllm_overlap
from planner.export.speculation import sglang_speculation, trtllm_speculation, vllm_speculation

HEAD, NODE_RANK, PORT = Variable("{HEAD}"), Variable("{NODE_RANK}"), Variable("{PORT}")
MASTER_PORT, RPC_PORT, BOOTSTRAP_PORT, SIDE_CHANNEL_PORT = 29501, 13345, 8998, 5600


def vllm_flags(plan: Deployment, group: Group, *, placement: bool = True) -> list[Flag]:
    """Flags of ``vllm serve`` that hold on every node; without ``placement`` those of the split are left out."""
    check_vllm(group)
    flags = [Flag("--served-model-name", plan.served)]
    if placement:
        flags += vllm_split(plan, group)
    flags += [
        Flag("--max-model-len", plan.max_model_len),
        Flag("--max-num-seqs", group.max_sequences),
        Flag("--max-num-batched-tokens", group.chunk_tokens),
        Flag("--gpu-memory-utilization", group.memory_share),
        Flag("--kv-cache-dtype", "fp8" if group.kv == "fp8" else "auto"),
    ]
    if group.online:
        flags.append(Flag("--quantization", group.online))
    if group.split:
        flags.append(Flag("--kv-transfer-config", kv_transfer(group)))
    return flags + vllm_overlap(group) + vllm_speculation(group)


def vllm_split(plan: Deployment, group: Group) -> list[Flag]:
    """Flags of vLLM that say how a replica is cut."""
    flags = [Flag("--tensor-parallel-size", group.tp)]
    # Prompts are cut over further ranks, and the cache of a request over the same ones.
    widths = (("pipeline", group.pp), ("prefill-context", group.cp), ("decode-context", group.cp))
    flags += [Flag(f"--{name}-parallel-size", width) for name, width in widths if width > 1]
    if group.attention_dp > 1:
        flags.append(Flag("--data-parallel-size", group.attention_dp))
    if group.ep > 1:
        flags.append(Flag("--enable-expert-parallel"))
    return flags


def check_vllm(group: Group) -> None:
    """Raise ExportError for a split that vLLM cannot run."""
    ranks = group.tp * group.attention_dp * group.cp
    if group.ep not in (1, ranks):
        raise ExportError(
            f"vLLM cannot express {group.name}: experts spread over all {ranks} ranks of a stage or none, not ep "
            f"{group.ep}", hint="export another plan with --plan N, or to trtllm",
        )  # fmt: skip
    if group.split and group.pp > 1:  # vllm-project/vllm issues 40674 and 52913: it raises at start
        raise ExportError(
            f"vLLM cannot express {group.name}: its NixlConnector moves no cache from or to {group.pp} pipeline stages",
            hint="export another plan with --plan N, or to sglang or trtllm",
        )
    rank = group.gpus // group.attention_dp
    if group.nodes > 1 and group.attention_dp > 1 and group.gpus_per_node % rank:
        raise ExportError(
            f"vLLM cannot express {group.name}: a data-parallel rank of {rank} GPUs spans nodes of "
            f"{group.gpus_per_node}", hint="export another plan with --plan N, or to sglang",
        )  # fmt: skip


def vllm_nodes(group: Group, *, head: bool, start: Variable | None = None) -> list[Flag]:
    """Flags of vLLM on one of several nodes; ``start`` is the first data-parallel rank of a node that is no head."""
    if group.nodes == 1:
        return []
    if group.attention_dp > 1:
        local = group.gpus_per_node * group.attention_dp // group.gpus
        flags = [Flag("--data-parallel-size-local", local), Flag("--data-parallel-address", HEAD)]
        flags.append(Flag("--data-parallel-rpc-port", RPC_PORT))
        return flags if head else [*flags, Flag("--data-parallel-start-rank", start), Flag("--headless")]
    flags = [Flag("--nnodes", group.nodes), Flag("--node-rank", 0 if head else NODE_RANK)]
    flags += [Flag("--master-addr", HEAD), Flag("--master-port", MASTER_PORT)]
    return flags if head else [*flags, Flag("--headless")]


def kv_transfer(group: Group) -> str:
    """Connector that moves the cache from prefill to decode, as vLLM reads it."""
    role = "kv_producer" if group.role == "prefill" else "kv_consumer"
    return json.dumps({"kv_connector": "NixlConnector", "kv_role": role}, separators=(",", ":"))


def sglang_flags(plan: Deployment, group: Group) -> list[Flag]:
    """Flags of ``sglang.launch_server`` that hold on every node."""
    width = group.tp * group.attention_dp * group.cp
    if group.ep not in (1, width):
        raise ExportError(
            f"SGLang cannot express {group.name}: experts spread over all {width} ranks of a stage or none, not ep "
            f"{group.ep}", hint="export another plan with --plan N, or to trtllm",
        )  # fmt: skip
    if group.cp > 1 and group.role != "prefill":
        raise ExportError(
            f"SGLang cannot express {group.name}: its context ranks share the work of prompts, and the plan also cuts "
            f"the cache of a request over {group.cp} of them", hint="export another plan with --plan N, or to vllm",
        )  # fmt: skip
    flags = [Flag("--model-path", plan.model), Flag("--served-model-name", plan.served), Flag("--tp-size", width)]
    if group.cp > 1:
        flags += [Flag("--enable-prefill-cp"), Flag("--cp-strategy", "zigzag")]
    widths = (("pp", group.pp), ("attn-dp", group.attention_dp), ("attn-cp", group.cp), ("ep", group.ep))
    flags += [Flag(f"--{name}-size", count) for name, count in widths if count > 1]
    flags += [  # SGLang divides requests and chunk over its attention groups
        Flag("--context-length", plan.max_model_len),
        Flag("--max-running-requests", group.max_sequences * group.attention_dp),
        Flag("--chunked-prefill-size", group.chunk_tokens * group.attention_dp),
        Flag("--mem-fraction-static", group.static_share),
        Flag("--kv-cache-dtype", "fp8_e4m3" if group.kv == "fp8" else "auto"),
    ]
    if group.receive_interval > 1:
        flags.append(Flag("--scheduler-recv-interval", group.receive_interval))
    if group.online:
        flags.append(Flag("--quantization", group.online))
    if group.split:
        flags += [Flag("--disaggregation-mode", group.role), Flag("--disaggregation-transfer-backend", "nixl")]
        flags.append(Flag("--disaggregation-bootstrap-port", BOOTSTRAP_PORT))
    return flags + sglang_overlap(group) + sglang_speculation(group)


def sglang_nodes(group: Group) -> list[Flag]:
    """Flags of SGLang on one of several nodes."""
    if group.nodes == 1:
        return []
    address = Flag("--dist-init-addr", Variable("{HEAD}:5000"))
    return [Flag("--nnodes", group.nodes), Flag("--node-rank", NODE_RANK), address]


def trtllm_config(plan: Deployment, group: Group) -> dict[str, Any]:
    """The YAML file that ``trtllm-serve --config`` and Dynamo's worker read."""
    if group.attention_dp > 1 and group.tp > 1:
        raise ExportError(
            f"TensorRT-LLM cannot express {group.name}: attention is data parallel over all ranks or none, not "
            f"tp {group.tp} x attention_dp {group.attention_dp}", hint="export another plan with --plan N, or to vllm",
        )  # fmt: skip
    refuse_overlap(group, "TensorRT-LLM")
    if group.cp > 1:
        raise ExportError(
            f"TensorRT-LLM cannot express {group.name}: nothing that we pinned says that its context_parallel_size "
            "cuts prompts as well as caches", hint="export another plan with --plan N, or to vllm",
        )  # fmt: skip
    width = group.tp * group.attention_dp
    if width % group.ep:
        raise ExportError(f"TensorRT-LLM cannot express {group.name}: ep {group.ep} does not divide {width} ranks")
    config: dict[str, Any] = {
        "tensor_parallel_size": width, "pipeline_parallel_size": group.pp, "context_parallel_size": group.cp,
        "enable_attention_dp": group.attention_dp > 1, "max_batch_size": group.max_sequences,
        "max_num_tokens": group.chunk_tokens, "max_seq_len": plan.max_model_len, "enable_chunked_prefill": True,
        "kv_cache_config": {
            "free_gpu_memory_fraction": group.free_share, "dtype": "fp8" if group.kv == "fp8" else "auto",
            "enable_block_reuse": True,
        },
    }  # fmt: skip
    if plan.moe:
        config |= {"moe_expert_parallel_size": group.ep, "moe_tensor_parallel_size": width // group.ep}
    if group.split:
        # DEFAULT is what the engine was built with for this processor; NIXL is not everywhere.
        config["cache_transceiver_config"] = {"backend": "DEFAULT", "max_tokens_in_buffer": plan.max_model_len}
    if group.role == "prefill":
        config["disable_overlap_scheduler"] = True
    return config | trtllm_speculation(group)
