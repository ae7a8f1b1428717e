"""Target trtllm: ``trtllm-serve`` with a YAML file per pool; its orchestrator where prefill and decode run apart."""

from __future__ import annotations

from collections.abc import Mapping

from planner.export.commandline import words_of
from planner.export.commands import PORT, trtllm_config
from planner.export.deployment import Deployment, Group
from planner.export.flags import Flag, Variable, flag_table
from planner.export.readme import readme
from planner.export.scripts import script
from planner.export.yaml_file import yaml_file

ENGINES = ("trtllm",)


def render(plan: Deployment) -> Mapping[str, str]:
    """Return the files of a plan by name."""
    files: dict[str, str] = {}
    images = dict.fromkeys(group.image("trtllm") for group in plan.groups)  # refuses GPUs that it does not run on
    for group in plan.groups:
        files[f"{group.name}.yaml"] = yaml_file(plan, trtllm_config(plan, group), comment=f"Pool {group.name}")
        files[f"{group.name}.sh"] = _serve(plan, group)
    steps = [
        f"1. Start the scripts in {' or '.join(images)}.",
        "2. Start `POOL.sh` once per replica, with a `PORT` and `CUDA_VISIBLE_DEVICES` of its own where replicas share "
        "a node. A replica over several nodes starts through MPI; `LAUNCH` replaces the launcher.",
    ]
    if plan.split:
        files["disaggregated.yaml"] = yaml_file(plan, _orchestrator(plan), comment="Fill in the hosts of the replicas")
        steps.append(
            "3. Name the replicas in `disaggregated.yaml`; `trtllm-serve disaggregated -c disaggregated.yaml`."
        )
    else:
        steps.append("3. Send clients to the replicas through any HTTP load balancer, evenly within a pool.")
    return {**files, "README.md": readme(plan, "trtllm", steps)}


def _serve(plan: Deployment, group: Group) -> str:
    flags = [
        Flag("--backend", "pytorch"), Flag("--config", Variable(f"{{HERE}}/{group.name}.yaml")),
        Flag("--host", "0.0.0.0"), Flag("--port", PORT),
    ]  # fmt: skip
    launcher = []
    if group.nodes > 1:
        launcher = [
            f'${{LAUNCH:-mpirun -n {group.gpus} --map-by ppr:{group.gpus_per_node}:node}}', "trtllm-llmapi-launch",
        ]  # fmt: skip
    words = words_of("trtllm", [plan.model], flags)
    return script(plan, group, flag_table("trtllm").command, words, port=8000, launcher=launcher)


def _orchestrator(plan: Deployment) -> dict[str, object]:
    def servers(role: str) -> dict[str, object]:
        urls = [
            f"{group.name}-{number}.example:8000"
            for group in plan.of_role(role) for number in range(group.replicas)
        ]  # fmt: skip
        return {"num_instances": len(urls), "urls": urls}

    return {
        "hostname": "0.0.0.0", "port": 8080, "backend": "pytorch",
        "context_servers": servers("prefill"), "generation_servers": servers("decode"),
    }  # fmt: skip
