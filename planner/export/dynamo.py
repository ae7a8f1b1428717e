"""Target dynamo: a DynamoGraphDeployment (v1beta1) with a front end and one component per pool.

Dynamo's operator adds the flags of several nodes itself; a component carries only the split of a replica.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from planner.export.commandline import arguments, words_of
from planner.export.commands import sglang_flags, trtllm_config, vllm_flags
from planner.export.deployment import Deployment, Group
from planner.export.flags import Flag, flag_table
from planner.export.kubernetes import environment, hub_token, metadata, resources
from planner.export.names import dns_name
from planner.export.readme import readme
from planner.export.yaml_file import yaml_file

ENGINES = ("vllm", "sglang", "trtllm")
_NAME_LIMIT = 18  # the operator joins it with names of components and replicas


def render(plan: Deployment) -> Mapping[str, str]:
    """Return the files of a plan by name."""
    name = dns_name(plan.name, _NAME_LIMIT)
    components = [_frontend(plan), *(_component(plan, group, name) for group in plan.groups)]
    graph = {
        "apiVersion": "nvidia.com/v1beta1",
        "kind": "DynamoGraphDeployment",
        "metadata": metadata(plan, name),
        "spec": {"backendFramework": plan.engine, "components": components},
    }
    files = [_config(plan, group, name) for group in plan.groups] if plan.engine == "trtllm" else []
    steps = [
        f"1. Install the Dynamo platform {flag_table(f'dynamo-{plan.engine}').version}; put the hub's token in the "
        "secret `hf-token-secret`, key `HF_TOKEN`.",
        "2. `kubectl apply -f dynamo.yaml`",
        f"3. Clients use Service `{name}-frontend`, port 8000.",
    ]
    return {"dynamo.yaml": yaml_file(plan, *files, graph), "README.md": readme(plan, "NVIDIA Dynamo", steps)}


def _frontend(plan: Deployment) -> dict[str, Any]:
    image = plan.groups[0].image(f"dynamo-{plan.engine}")
    container = {"name": "main", "image": image, "command": ["python3"], "args": ["-m", "dynamo.frontend"]}
    spec = {"containers": [{**container, "env": [hub_token()]}]}
    return {"name": "Frontend", "type": "frontend", "replicas": 1, "podTemplate": {"spec": spec}}


def _component(plan: Deployment, group: Group, name: str) -> dict[str, Any]:
    table = flag_table(f"dynamo-{plan.engine}")
    container: dict[str, Any] = {
        "name": "main", "image": group.image(table.engine), "command": list(table.command),
        "args": arguments(words_of(table.engine, [], _flags(plan, group))),
        "env": environment(group, plan.engine), "resources": resources(group),
    }  # fmt: skip
    spec: dict[str, Any] = {"nodeSelector": dict(group.selector.labels), "containers": [container]}
    if plan.engine == "trtllm":
        container["volumeMounts"] = [{"name": "config", "mountPath": "/config"}]
        spec["volumes"] = [{"name": "config", "configMap": {"name": f"{name}-{group.name}"}}]
    component: dict[str, Any] = {
        "name": group.name, "type": "worker" if group.role == "aggregated" else group.role,
        "replicas": group.replicas, "podTemplate": {"spec": spec},
    }  # fmt: skip
    if group.gpus_per_node > 1:
        component["sharedMemorySize"] = f"{8 * group.gpus_per_node}Gi"
    if group.nodes > 1:
        component["multinode"] = {"nodeCount": group.nodes}
    return component


def _flags(plan: Deployment, group: Group) -> list[Flag]:
    if plan.engine == "sglang":
        return sglang_flags(plan, group)
    mode = [Flag("--disaggregation-mode", group.role)] if group.split else []
    if plan.engine == "vllm":
        return [Flag("--model", plan.model), *vllm_flags(plan, group), *mode]
    config = Flag("--extra-engine-args", f"/config/{group.name}.yaml")
    return [Flag("--model-path", plan.model), Flag("--served-model-name", plan.served), config, *mode]


def _config(plan: Deployment, group: Group, name: str) -> dict[str, Any]:
    data = {f"{group.name}.yaml": yaml_file(plan, trtllm_config(plan, group))}
    kind = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata(plan, f"{name}-{group.name}", group)}
    return {**kind, "data": data}
