"""Target llm-d: values of the llm-d-modelservice chart; one release holds one decode and one prefill pool.

The chart's ``custom`` command is used, so that every flag stands in the values and none is added by the chart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from planner.errors import ExportError
from planner.export.deployment import Deployment, Group
from planner.export.kubernetes import environment, model_uri, pinned, resources, serve_command
from planner.export.names import helm_literal, label_value
from planner.export.readme import readme
from planner.export.yaml_file import yaml_file

ENGINES = ("vllm",)
_PROXY_PORT, _BEHIND_PROXY = 8000, 8200
# The chart's names of accelerators by their resource: values.yaml, accelerator.resources.
_TYPES = {
    "nvidia.com/gpu": "nvidia",
    "amd.com/gpu": "amd",
    "google.com/tpu": "google",
    "habana.ai/gaudi": "intel-gaudi",
}
_MOUNT = "/model-cache"  # where the chart puts a model's volume


def render(plan: Deployment) -> Mapping[str, str]:
    """Return the files of a plan by name: values.yaml, and values-POOL.yaml for every further release."""
    decode, prefill = plan.of_role("aggregated", "decode"), plan.of_role("prefill")
    count = max(len(decode), len(prefill))
    files, steps = {}, ["1. Install the gateway and the scheduler of llm-d; one InferencePool serves all releases."]
    for number in range(count):
        pair = [groups[number] if number < len(groups) else None for groups in (decode, prefill)]
        suffix = "" if number == 0 else f"-{number + 1}"
        files[f"values{suffix}.yaml"] = yaml_file(plan, _values(plan, *pair), comment="llm-d-modelservice values")
        steps.append(
            f"{number + 2}. `helm install {plan.name}{suffix} llm-d-modelservice/llm-d-modelservice -f "
            f"values{suffix}.yaml`"
        )
    return {**files, "README.md": readme(plan, "llm-d", steps)}


def _values(plan: Deployment, decode: Group | None, prefill: Group | None) -> dict[str, Any]:
    groups = [group for group in (decode, prefill) if group is not None]
    return {
        "multinode": any(group.nodes > 1 for group in groups),
        "accelerator": {"type": _type(groups[0])},
        "modelArtifacts": {
            "name": plan.served,
            "uri": helm_literal(model_uri(plan, "llm-d")),  # the one value here that the chart reads as a template
            "mountPath": _MOUNT,
            "size": "1Ti",
            "labels": {"llm-d.ai/inference-serving": "true", "llm-d.ai/model": label_value(plan.name)},
        },
        "routing": {
            "servicePort": _PROXY_PORT, "proxy": {"enabled": plan.split, "secure": False, "targetPort": _BEHIND_PROXY},
        },
        "decode": _pool(plan, decode, _BEHIND_PROXY if plan.split else _PROXY_PORT),
        "prefill": _pool(plan, prefill, _PROXY_PORT),
    }  # fmt: skip


def _pool(plan: Deployment, group: Group | None, port: int) -> dict[str, Any]:
    if group is None:
        return {"create": False, "replicas": 0}
    command, args = serve_command(replace(plan, model=_loaded(plan.model)), group, port)
    local = max(1, group.gpus_per_node * group.attention_dp // group.gpus)
    container = {
        "name": "vllm", "image": group.image("vllm"), "modelCommand": "custom",
        "command": command, "args": args,
        "env": environment(group, "vllm"), "ports": [{"containerPort": port, "protocol": "TCP"}],
        "resources": resources(group), "mountModelVolume": True,
        "volumeMounts": [{"name": "shm", "mountPath": "/dev/shm"}],
    }  # fmt: skip
    key, value = next(iter(group.selector.labels.items()))
    return {
        "create": True, "replicas": group.replicas, "nodeSelector": dict(group.selector.labels),
        # Its LeaderWorkerSets take no nodeSelector, but this affinity.
        **({"acceleratorTypes": {"labelKey": key, "labelValues": [value]}} if group.nodes > 1 else {}),
        "accelerator": {"type": _type(group)},
        "parallelism": {"tensor": group.tp, "data": group.attention_dp, "dataLocal": local, "workers": group.nodes},
        "annotations": {**plan.annotations, **pinned("vllm")},
        "containers": [container], "volumes": [{"name": "shm", "emptyDir": {"medium": "Memory"}}],
    }  # fmt: skip


def _loaded(model: str) -> str:
    """What vLLM loads: a hub id, or the path under which the chart mounts a claim. Raises ExportError."""
    scheme, separator, rest = model.partition("://")
    if not separator or scheme == "hf":
        return rest or model
    if scheme == "pvc" and "/" in rest:
        return f"{_MOUNT}/{rest.partition('/')[2]}"
    raise ExportError(
        f"llm-d cannot load {model!r}: its chart mounts hf:// and pvc:// models",
        hint="--model ORG/NAME or --model pvc://CLAIM/PATH",
    )


def _type(group: Group) -> str:
    kind = _TYPES.get(group.selector.resource)
    if kind is None:
        raise ExportError(
            f"llm-d cannot express {group.name}: its chart knows no accelerator with resource "
            f"{group.selector.resource}", hint="export to lws",
        )  # fmt: skip
    return kind
