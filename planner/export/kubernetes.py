"""Pods: resources, node selectors, shared memory, the token of the model hub."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from planner.errors import ExportError
from planner.export.commandline import Word, arguments, by_node, words_of
from planner.export.commands import (
    SIDE_CHANNEL_PORT,
    sglang_flags,
    sglang_nodes,
    trtllm_config,
    vllm_flags,
    vllm_nodes,
)
from planner.export.deployment import Deployment, Group
from planner.export.flags import Flag, Variable, flag_table

SERVE_PORT = 8000
_SECRET = "hf-token-secret"


def engine_container(plan: Deployment, group: Group, name: str, port: int = SERVE_PORT) -> dict[str, Any]:
    """The container that runs the engine itself in a pod of a LeaderWorkerSet, or alone."""
    command, args = serve_command(plan, group, port)
    return {
        "name": name,
        "image": group.image(plan.engine),
        "command": command,
        "args": args,
        "env": environment(group, plan.engine),
        "ports": [{"containerPort": port, "name": "http"}],
        "resources": resources(group),
        "volumeMounts": [{"name": "shm", "mountPath": "/dev/shm"}],
    }


def serve_command(plan: Deployment, group: Group, port: int) -> tuple[list[str], list[str]]:
    """Command and arguments of an engine; on several nodes a shell picks the flags of the node."""
    command, (common, head, worker) = list(flag_table(plan.engine).command), _engine_words(plan, group, port)
    if not head:
        return command, arguments(common)
    local = group.gpus_per_node * group.attention_dp // group.gpus if group.attention_dp > 1 else None
    text = by_node(command, head, worker, local if plan.engine == "vllm" else None)
    return ["/bin/sh", "-c", text, "serve"], arguments(common)


def _engine_words(plan: Deployment, group: Group, port: int) -> tuple[list[Word], list[Word], list[Word]]:
    """Words of every node, and those that the first and the other nodes add."""
    if plan.engine == "vllm":
        base, place = [*vllm_flags(plan, group), Flag("--port", port)], [plan.model]
        ends = (vllm_nodes(group, head=True), vllm_nodes(group, head=False, start=Variable("{START}")))
    elif plan.engine == "sglang":
        base, place = [*sglang_flags(plan, group), Flag("--host", "0.0.0.0"), Flag("--port", port)], []
        ends = (sglang_nodes(group), sglang_nodes(group))
    else:
        if group.nodes > 1:
            raise ExportError(
                f"{group.name}: TensorRT-LLM starts a replica of {group.nodes} nodes through MPI, which these pods "
                "lack", hint="export to dynamo, whose operator brings MPI",
            )  # fmt: skip
        base, place = [Flag("--backend", "pytorch"), Flag("--config", f"/config/{group.name}.yaml")], [plan.model]
        base += [Flag("--host", "0.0.0.0"), Flag("--port", port)]
        ends = ([], [])
        trtllm_config(plan, group)
    for end in ends:
        words_of(plan.engine, place, [*base, *end])
    head, worker = ([word for flag in end for word in flag.words()] for end in ends)
    return words_of(plan.engine, place, base), head, worker


def hub_token() -> dict[str, Any]:
    """The token of the model hub, from a secret if there is one."""
    secret = {"secretKeyRef": {"name": _SECRET, "key": "HF_TOKEN", "optional": True}}
    return {"name": "HF_TOKEN", "valueFrom": secret}


def environment(group: Group, engine: str) -> list[dict[str, Any]]:
    """Variables of an engine's container."""
    variables: list[dict[str, Any]] = [hub_token()]
    if group.split and engine == "vllm":
        address = {"fieldRef": {"fieldPath": "status.podIP"}}
        variables.append({"name": "VLLM_NIXL_SIDE_CHANNEL_HOST", "valueFrom": address})
        variables.append({"name": "VLLM_NIXL_SIDE_CHANNEL_PORT", "value": str(SIDE_CHANNEL_PORT)})
    return variables


def resources(group: Group) -> dict[str, dict[str, str]]:
    """GPUs of one pod."""
    count = {group.selector.resource: str(group.gpus_per_node)}
    return {"limits": dict(count), "requests": dict(count)}


def pod(group: Group, container: Mapping[str, Any], volumes: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """A pod with one container on nodes of the group's GPU."""
    shared = {"name": "shm", "emptyDir": {"medium": "Memory"}}
    return {
        "nodeSelector": dict(group.selector.labels),
        "containers": [dict(container)],
        "volumes": [shared, *(dict(volume) for volume in volumes)],
    }


def is_local(model: str) -> bool:
    """Whether a model is a folder and not an id of a model hub."""
    return PurePosixPath(model).is_absolute() or model.startswith((".", "~"))


def model_uri(plan: Deployment, target: str) -> str:
    """Return the URI from which a platform fetches the model. Raises ExportError for a folder."""
    if "://" in plan.model:
        return plan.model
    if is_local(plan.model):
        raise ExportError(
            f"{target} fetches models by URI and cannot reach the folder {plan.model!r}",
            hint="name a hub id or a volume: --model ORG/NAME or --model pvc://CLAIM/PATH",
        )
    return f"hf://{plan.model}"


def metadata(plan: Deployment, name: str, group: Group | None = None) -> dict[str, Any]:
    """Name, labels and provenance annotations of an object."""
    labels = {"app.kubernetes.io/name": plan.name, "app.kubernetes.io/managed-by": "llm-capacity-planner"}
    if group is not None:
        labels["app.kubernetes.io/component"] = group.name
    return {"name": name, "labels": labels, "annotations": {**plan.annotations, **pinned(plan.engine)}}


def pinned(engine: str) -> dict[str, str]:
    """The engine version that the flags are for, as an annotation."""
    return {"llm-capacity-planner/engine": f"{engine} {flag_table(engine).version}"}
