"""Target kserve: LLMInferenceService (v1alpha2); one service per pool, or one for a prefill and a decode pool.

KServe starts vLLM from templates of its own; what the ``parallelism`` of a service cannot say travels in
VLLM_ADDITIONAL_ARGS, which a shell reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from planner.errors import ExportError
from planner.export.commandline import shell_words, words_of
from planner.export.commands import vllm_flags
from planner.export.deployment import Deployment, Group
from planner.export.kubernetes import environment, metadata, model_uri, pod, resources
from planner.export.names import dns_name, kubernetes_literal
from planner.export.readme import readme
from planner.export.yaml_file import yaml_file

ENGINES = ("vllm",)


def render(plan: Deployment) -> Mapping[str, str]:
    """Return the files of a plan by name. Raises ExportError for pools that one service cannot hold."""
    for group in plan.groups:
        _check(group)
    if plan.split:
        prefill, decode = plan.of_role("prefill"), plan.of_role("decode")
        if len(prefill) != 1 or len(decode) != 1:
            raise ExportError(
                f"kserve: a service holds one prefill and one decode pool; the plan has {len(prefill)} and "
                f"{len(decode)}", hint="export to dynamo, or another plan with --plan N",
            )  # fmt: skip
        services = [_service(plan, plan.name, decode[0], prefill[0])]
    else:
        services = [_service(plan, dns_name(f"{plan.name}-{group.name}", 40), group) for group in plan.groups]
    steps = [
        "1. Install KServe with LLMInferenceService v1alpha2, a gateway, and LeaderWorkerSet for several nodes.",
        "2. `kubectl apply -f kserve.yaml`",
    ]
    if len(services) > 1:
        steps.append("3. Each pool is a service of its own: spread requests over them by their share of the replicas.")
    return {"kserve.yaml": yaml_file(plan, *services), "README.md": readme(plan, "KServe", steps)}


def _check(group: Group) -> None:
    if group.attention_dp > 1 and group.pp > 1:
        raise ExportError(f"kserve cannot express {group.name}: data and pipeline parallelism in one replica")
    # KServe looks for a template of its own for pipelines over nodes, and ships none (0.18: config/llmisvcconfig).
    if group.nodes > 1 and group.attention_dp == 1:
        how = "pipeline" if group.pp > 1 else "tensor"
        raise ExportError(
            f"kserve cannot express {group.name}: {how} parallelism over {group.nodes} nodes, for which it ships no "
            "template", hint="export to lws or dynamo, or another plan with --plan N",
        )  # fmt: skip
    if group.cp > 1:
        raise ExportError(f"kserve cannot express {group.name}: context parallelism")


def _service(plan: Deployment, name: str, group: Group, prefill: Group | None = None) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "model": {"uri": model_uri(plan, "kserve"), "name": plan.served},
        **_workload(plan, group),
        "router": {"scheduler": {}, "route": {}, "gateway": {}},
    }
    if prefill is not None:
        spec["prefill"] = _workload(plan, prefill)
    kind = {"apiVersion": "serving.kserve.io/v1alpha2", "kind": "LLMInferenceService"}
    return {**kind, "metadata": metadata(plan, name, None if prefill else group), "spec": spec}


def _workload(plan: Deployment, group: Group) -> dict[str, Any]:
    parallelism: dict[str, Any] = {"tensor": group.tp}
    if group.pp > 1:
        parallelism["pipeline"] = group.pp
    if group.attention_dp > 1:
        local = group.gpus_per_node * group.attention_dp // group.gpus
        parallelism |= {"data": group.attention_dp, "dataLocal": local}
    if group.ep > 1:
        parallelism["expert"] = True
    alone = pod(group, _container(plan, group))
    found = {"replicas": group.replicas, "parallelism": parallelism, "template": alone}
    return {**found, "worker": pod(group, _container(plan, group))} if group.nodes > 1 else found


def _container(plan: Deployment, group: Group) -> dict[str, Any]:
    """Engine flags by environment. On one node they repeat the split, which not every template passes on."""
    flags = [flag for flag in vllm_flags(plan, group, placement=group.nodes == 1) if flag.name != "--served-model-name"]
    words = words_of("vllm", [plan.model], flags)[1:]
    text = {"name": "VLLM_ADDITIONAL_ARGS", "value": kubernetes_literal(shell_words(words))}
    return {
        "name": "main", "image": group.image("vllm"),
        "env": [*environment(group, "vllm"), text], "resources": resources(group),
        "volumeMounts": [{"name": "shm", "mountPath": "/dev/shm"}],
    }  # fmt: skip
