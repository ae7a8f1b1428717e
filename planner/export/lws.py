"""Target lws: a LeaderWorkerSet and a Service per pool; the pods of a group are the nodes of one replica."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from planner.export.commands import BOOTSTRAP_PORT, trtllm_config
from planner.export.deployment import Deployment, Group
from planner.export.kubernetes import SERVE_PORT, engine_container, metadata, pod
from planner.export.names import dns_name
from planner.export.readme import readme
from planner.export.yaml_file import yaml_file

ENGINES = ("vllm", "sglang", "trtllm")


def render(plan: Deployment) -> Mapping[str, str]:
    """Return the files of a plan by name."""
    files = {f"{group.name}.yaml": yaml_file(plan, *_objects(plan, group)) for group in plan.groups}
    applied = " ".join(f"-f {name}" for name in files)
    steps = [
        "1. Install the LeaderWorkerSet operator; put the hub's token in the secret `hf-token-secret`, key `HF_TOKEN`.",
        f"2. `kubectl apply {applied}`",
    ]
    if plan.split and plan.engine == "sglang":
        files["router.yaml"] = yaml_file(plan, *_router(plan))
        steps.append(f"3. `kubectl apply -f router.yaml`; clients use Service `{plan.name}`.")
    elif plan.split:
        steps.append("3. Run a router that knows prefill and decode in front, over the pods' names: see `--to vllm`.")
    else:
        services = ", ".join(f"`{_name(plan, group)}-http`" for group in plan.groups)
        steps.append(f"3. Clients use Service {services}, port {SERVE_PORT}; replicas of a pool share it evenly.")
    return {**files, "README.md": readme(plan, "LeaderWorkerSet", steps)}


def _name(plan: Deployment, group: Group) -> str:
    return dns_name(f"{plan.name}-{group.name}", 40)


def _objects(plan: Deployment, group: Group) -> list[dict[str, Any]]:
    name = _name(plan, group)
    container = engine_container(plan, group, "engine")
    volumes, extra = [], []
    if plan.engine == "trtllm":
        container["volumeMounts"].append({"name": "config", "mountPath": "/config"})
        volumes = [{"name": "config", "configMap": {"name": f"{name}-config"}}]
        data = {f"{group.name}.yaml": yaml_file(plan, trtllm_config(plan, group))}
        extra = [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata(plan, f"{name}-config"), "data": data}]
    labels = {"app.kubernetes.io/name": plan.name, "app.kubernetes.io/component": group.name}
    template = {"metadata": {"labels": labels}, "spec": pod(group, container, volumes)}
    workers = {
        "apiVersion": "leaderworkerset.x-k8s.io/v1",
        "kind": "LeaderWorkerSet",
        "metadata": metadata(plan, name, group),
        "spec": {
            "replicas": group.replicas,
            "startupPolicy": "LeaderCreated",
            "leaderWorkerTemplate": {
                "size": group.nodes, "restartPolicy": "RecreateGroupOnPodRestart", "workerTemplate": template,
            },
        },
    }  # fmt: skip
    picked = {"leaderworkerset.sigs.k8s.io/name": name, "leaderworkerset.sigs.k8s.io/worker-index": "0"}
    return [*extra, workers, _service(plan, f"{name}-http", picked, group)]


def _service(plan: Deployment, name: str, picked: Mapping[str, str], group: Group | None) -> dict[str, Any]:
    ports = [{"name": "http", "port": SERVE_PORT, "targetPort": SERVE_PORT}]
    spec = {"selector": dict(picked), "ports": ports}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata(plan, name, group), "spec": spec}


def _router(plan: Deployment) -> list[dict[str, Any]]:
    """SGLang's router over the leaders, whose names a LeaderWorkerSet fixes: SET-REPLICA.SET."""
    args = ["--pd-disaggregation", "--host", "0.0.0.0", "--port", str(SERVE_PORT)]
    for group in plan.groups:
        for number in range(group.replicas):
            url = f"http://{_name(plan, group)}-{number}.{_name(plan, group)}:{SERVE_PORT}"
            args += [f"--{group.role}", url, *([str(BOOTSTRAP_PORT)] if group.role == "prefill" else [])]
    name = plan.name
    labels = {"app.kubernetes.io/name": name, "app.kubernetes.io/component": "router"}
    container = {
        "name": "router", "image": plan.groups[0].image("sglang"),
        "command": ["python3", "-m", "sglang_router.launch_router"], "args": args,
        "ports": [{"containerPort": SERVE_PORT, "name": "http"}],
    }  # fmt: skip
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    spec = {"replicas": 1, "selector": {"matchLabels": labels}, "template": template}
    deployment = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata(plan, f"{name}-router")}
    return [{**deployment, "spec": spec}, _service(plan, name, labels, None)]
