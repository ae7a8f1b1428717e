"""Target vllm: a script per pool around ``vllm serve``, and a router where prefill and decode run apart."""

from __future__ import annotations

from collections.abc import Mapping

from planner.export.commandline import words_of
from planner.export.commands import PORT, SIDE_CHANNEL_PORT, vllm_flags, vllm_nodes
from planner.export.deployment import Deployment, Group
from planner.export.flags import Flag, Variable, flag_table
from planner.export.readme import readme
from planner.export.scripts import script

ENGINES = ("vllm",)


def render(plan: Deployment) -> Mapping[str, str]:
    """Return the files of a plan by name."""
    files = {f"{group.name}.sh": _serve(plan, group) for group in plan.groups}
    steps = [
        f"1. Install vLLM {flag_table('vllm').version}, or start the scripts in its image.",
        "2. Start `POOL.sh` once per replica, with a `PORT` and `CUDA_VISIBLE_DEVICES` of its own where replicas share "
        "a node. A replica over several nodes: on each of them, with `HEAD` and `NODE_RANK`.",
    ]
    if plan.split:
        files["router.sh"] = _router()
        steps += [
            "   Replicas that share a node also need a `VLLM_NIXL_SIDE_CHANNEL_PORT` of their own each, as far apart "
            "as a replica has GPUs.",
            "3. `PREFILL='http://a:8000 http://b:8000' DECODE=http://c:8000 ./router.sh` serves clients on port 8080.",
        ]
    else:
        steps.append("3. Send clients to the replicas through any HTTP load balancer, evenly within a pool.")
    return {**files, "README.md": readme(plan, "vllm", steps)}


def _serve(plan: Deployment, group: Group) -> str:
    common = words_of("vllm", [plan.model], [*vllm_flags(plan, group), Flag("--port", PORT)])
    start = Variable("{START}")
    head, worker = vllm_nodes(group, head=True), vllm_nodes(group, head=False, start=start)
    for extra in (head, worker):
        words_of("vllm", [plan.model], [*vllm_flags(plan, group), *extra])
    ranks = group.gpus_per_node * group.attention_dp // group.gpus
    environment = {}
    if group.split:
        environment = {
            "VLLM_NIXL_SIDE_CHANNEL_HOST": '"${VLLM_NIXL_SIDE_CHANNEL_HOST:-$(hostname -i)}"',
            "VLLM_NIXL_SIDE_CHANNEL_PORT": f'"${{VLLM_NIXL_SIDE_CHANNEL_PORT:-{SIDE_CHANNEL_PORT}}}"',
        }
    return script(
        plan, group, flag_table("vllm").command, common, port=8000, environment=environment,
        head=[w for flag in head for w in flag.words()], worker=[w for flag in worker for w in flag.words()],
        start=ranks if group.nodes > 1 and group.attention_dp > 1 else None,
    )  # fmt: skip


def _router() -> str:
    return (
        "#!/usr/bin/env bash\n"
        "# Sends each request to a prefill and a decode replica; needs the package vllm-router.\n"
        "set -euo pipefail\n"
        ': "${PREFILL:?URLs of the prefill replicas}" "${DECODE:?URLs of the decode replicas}"\n'
        "args=()\n"
        'for url in $PREFILL; do args+=(--prefill "$url"); done\n'
        'for url in $DECODE; do args+=(--decode "$url"); done\n'
        "args+=(--vllm-pd-disaggregation --kv-connector nixl)\n"
        'exec vllm-router --host 0.0.0.0 --port "${PORT:-8080}" "${args[@]}" "$@"\n'
    )
